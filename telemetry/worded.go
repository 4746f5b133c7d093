package telemetry

import (
	"context"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/call"
)

// The spans of what comes to the app have names, kinds and attributes that Dapr's users look for, where the traces are Dapr's
// (see Tracing.Ready): those of daprd v1.18, pkg/diagnostics/tracing.go and grpc_tracing.go.

// Serve begins the span of another app's call to app. Relayed is a call of a gRPC service that only the apps know.
func (t *Tracer) Serve(ctx context.Context, header *call.Header, app, method string, relayed bool) (context.Context, Span) {
	s := t.enter(header)
	switch {
	case s == nil:
		return ctx, Span{}
	case !s.identify:
		return t.begin(ctx, s, trace.SpanKindServer, header, joined([]string{"serve ", method}))
	case relayed:
		return t.begin(ctx, s, trace.SpanKindServer, header, clean(method))
	}
	return t.begin(ctx, s, trace.SpanKindServer, header, joined([]string{"CallLocal/", app, "/", method}), Texts([]attribute.KeyValue{
		attribute.String("rpc.service", "ServiceInvocation"), attribute.String("dapr.invoke_method", method), attribute.String("dapr.protocol", "grpc"),
		attribute.String("dapr.api", "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream"),
	})...)
}

// Publish begins the span of an event that is published. One that is alone in its call has the span of the call.
func (t *Tracer) Publish(ctx context.Context, header *call.Header, topic string, alone bool) Span {
	var a *Answer
	if t.Records() {
		a = AnswerOf(ctx)
	}
	if a != nil && a.span != nil && alone {
		t.name(ctx, header)
		return Span{}
	}
	s := t.enter(header)
	if s == nil {
		return Span{}
	}
	name := joined([]string{"publish ", topic})
	if a != nil && a.span != nil {
		name = a.part
	}
	_, span := t.begin(ctx, s, trace.SpanKindProducer, header, name)
	return span
}

// Deliver begins the span of an event on its way to the app. It belongs to the trace of the event, whatever call has subscribed.
func (t *Tracer) Deliver(ctx context.Context, header *call.Header, topic string) (context.Context, Span) {
	s := t.enter(header)
	if s == nil {
		return ctx, Span{}
	}
	ctx = context.WithValue(trace.ContextWithSpan(ctx, nil), answerKey{}, (*Answer)(nil))
	if !s.identify {
		return t.begin(ctx, s, trace.SpanKindConsumer, header, joined([]string{"pubsub/", topic}))
	}
	return t.begin(ctx, s, trace.SpanKindClient, header, joined([]string{"pubsub/", topic}), Texts([]attribute.KeyValue{
		attribute.String("messaging.system", "pubsub"), attribute.String("messaging.destination.name", topic),
	})...)
}

// Read begins the span of an event of a binding on its way to the app, which is asked over HTTP, or over gRPC.
func (t *Tracer) Read(ctx context.Context, header *call.Header, binding string, overHTTP bool) (context.Context, Span) {
	s := t.enter(header)
	switch {
	case s == nil:
		return ctx, Span{}
	case !s.identify:
		return t.begin(ctx, s, trace.SpanKindClient, header, joined([]string{"bindings/", binding}))
	}
	api := "/dapr.proto.runtime.v1.AppCallback/OnBindingEvent"
	if overHTTP {
		api = "POST /" + binding
	}
	return t.begin(ctx, s, trace.SpanKindClient, header, joined([]string{"bindings/", binding}), Texts([]attribute.KeyValue{
		attribute.String("db.system", "bindings"), attribute.String("db.name", binding), attribute.String("db.connection_string", api),
		attribute.String("rpc.service", "Dapr"),
	})...)
}

// HTTPFailure is how a span says that a call was answered with a status of HTTP; "" for one that is no failure, which those below
// 400 are not.
func HTTPFailure(status int) string {
	if status < http.StatusBadRequest {
		return ""
	}
	text := http.StatusText(status)
	if text == "" {
		text = "Unknown"
	}
	return "Code(" + strconv.Itoa(status) + "): " + text
}
