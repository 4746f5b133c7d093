package telemetry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// recorded is a tracer whose spans a recorder keeps.
func recorded(t *testing.T) (*Tracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	from := &source{provider: provider, tracer: provider.Tracer("test"), idle: make(chan struct{})}
	from.open.Store(1)
	tracer := NewTracer(Traces{from})
	t.Cleanup(func() { _ = tracer.Close(context.Background()) })
	return tracer, recorder
}

const parentOfAll = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// below is a call of a front door that names a parent.
func below(t *testing.T, tracer *Tracer, name string) (context.Context, *Answer) {
	return tracer.Below(t.Context(), trace.SpanKindClient, name, func(key string) string {
		return map[string]string{"traceparent": parentOfAll, "tracestate": "a=b"}[key]
	})
}

// A call has its span from the moment the front door has it, whether a block comes to work for it or not. The first span that a
// block begins is that one, and all others of the call are below it.
func TestACallHasOneSpanFromItsFrontDoorOn(t *testing.T) {
	tracer, recorder := recorded(t)
	_, refused := below(t, tracer, "/v1.0/refused")
	refused.Tell(attribute.String("dapr.protocol", "http"), attribute.String("db.name", ""))
	refused.End("Code(400): Bad Request")

	ctx, answer := below(t, tracer, "/v1.0/invoke/x/method/y")
	answer.Rename("CallLocal/x/y")
	header := call.Header{{Key: "traceparent", Value: parentOfAll}}
	inner, span := tracer.Start(ctx, trace.SpanKindClient, &header, "invoke ", "x")
	failed := error(fault.New("invoke", fault.QueueFull, "full"))
	span.Event("lane.refused")
	span.End(&failed)
	if parent, state := answer.Trace(); header.Get("traceparent") != parent || parent == parentOfAll || state != "a=b" {
		t.Errorf("the onward call names %v, the answer %s %s", header, parent, state)
	}
	header = call.Header{{Key: "traceparent", Value: parentOfAll}}
	_, other := tracer.Start(inner, trace.SpanKindClient, &header, "state get")
	var none error
	other.End(&none)
	if header.Get("traceparent") == parentOfAll {
		t.Error("what a second block sends names the caller's span")
	}
	answer.End("")
	_, late := tracer.Start(ctx, trace.SpanKindClient, nil, "late")
	late.End(&none)

	spans := recorder.Ended()
	if len(spans) != 4 {
		t.Fatalf("got %v", spans)
	}
	if s := spans[0]; s.Name() != "/v1.0/refused" || s.Status().Code != codes.Error || s.Parent().SpanID().String() != parentOfAll[36:52] || len(s.Attributes()) != 1 {
		t.Errorf("the call that was refused: %+v", s)
	}
	own := spans[2]
	if s := spans[1]; s.Name() != "state get" || s.Parent().SpanID() != own.SpanContext().SpanID() {
		t.Errorf("the second block: %+v", s)
	}
	if own.Name() != "CallLocal/x/y" || own.Status().Code != codes.Unset || own.SpanKind() != trace.SpanKindClient || len(own.Events()) != 1 ||
		!slices.Contains(own.Attributes(), attribute.String("sidecast.reason", string(fault.QueueFull))) || own.Parent().SpanID().String() != parentOfAll[36:52] {
		t.Errorf("the call: %+v", own)
	}
	if s := spans[3]; s.Name() != "late" || s.Parent().SpanID() != own.SpanContext().SpanID() {
		t.Errorf("what begins after the call: %+v", s)
	}
}

// An event that is published alone has the span of its call, those of a batch have one each.
func TestEventsOfABatchHaveSpansBelowTheCall(t *testing.T) {
	tracer, recorder := recorded(t)
	var none error
	for _, alone := range []bool{true, false} {
		ctx, answer := below(t, tracer, "/v1.0/publish/bulk/bus/t")
		answer.Parts("part")
		ctx, span := tracer.Start(ctx, trace.SpanKindClient, nil, "pubsub publish")
		header := call.Header{{Key: "traceparent", Value: parentOfAll}}
		event := tracer.Publish(ctx, &header, "t", alone)
		event.End(&none)
		if own, _ := answer.Trace(); (header.Get("traceparent") == own) != alone || header.Get("traceparent") == parentOfAll {
			t.Errorf("alone is %v: the event names %v, the call has %s", alone, header, own)
		}
		span.End(&none)
		answer.End("")
	}
	header := call.Header{}
	native := tracer.Publish(t.Context(), &header, "t", true)
	native.End(&none)
	spans := recorder.Ended()
	if len(spans) != 4 || spans[1].Name() != "part" || spans[1].SpanKind() != trace.SpanKindProducer ||
		spans[1].Parent().SpanID() != spans[2].SpanContext().SpanID() || spans[3].Name() != "publish t" {
		t.Errorf("got %v", spans)
	}
}

// The events of a subscription belong to their own traces, and not to the call that has subscribed.
func TestEventsAreNoPartOfTheCallThatSubscribed(t *testing.T) {
	tracer, recorder := recorded(t)
	var none error
	ctx, answer := below(t, tracer, "/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1")
	var header call.Header
	inner, event := tracer.Deliver(ctx, &header, "t")
	_, work := tracer.Start(inner, trace.SpanKindClient, nil, "state get")
	work.End(&none)
	event.End(&none)
	answer.End("")
	spans := recorder.Ended()
	if len(spans) != 3 || spans[1].Name() != "pubsub/t" || spans[1].Parent().IsValid() || spans[0].Parent().SpanID() != spans[1].SpanContext().SpanID() ||
		!strings.HasPrefix(header.Get("traceparent"), "00-"+spans[1].SpanContext().TraceID().String()) {
		t.Errorf("got %v, the app is told %v", spans, header)
	}
}

// What comes to the app is told in Dapr's words where the traces are Dapr's, and there alone.
func TestSpansOfTheAppAreToldInDaprsWords(t *testing.T) {
	for _, dapr := range []bool{false, true} {
		tracer, recorder := recorded(t)
		tracer.current.Load().identify = dapr
		var none error
		failed := errors.New("the app said no")
		ctx := t.Context()
		_, span := tracer.Serve(ctx, &call.Header{}, "app", "a/b", false)
		span.End(&none)
		_, span = tracer.Serve(ctx, &call.Header{}, "app", "/pkg.Service/Call", true)
		span.End(&none)
		_, span = tracer.Deliver(ctx, &call.Header{}, "t")
		span.EndAnswered(&none, 500)
		_, span = tracer.Read(ctx, &call.Header{}, "tick", true)
		span.EndAnswered(&failed, 0)
		_, span = tracer.Read(ctx, &call.Header{}, "tick", false)
		span.EndAnswered(&failed, 999)
		var got []string
		for _, s := range recorder.Ended() {
			line := s.SpanKind().String() + " " + s.Name()
			for _, a := range s.Attributes() {
				if !strings.HasPrefix(string(a.Key), "sidecast.") {
					line += " " + string(a.Key) + "=" + a.Value.AsString()
				}
			}
			got = append(got, strings.TrimSpace(line+" "+s.Status().Description))
		}
		want := []string{"server serve a/b", "server serve /pkg.Service/Call", "consumer pubsub/t Code(500): Internal Server Error", "client bindings/tick the app said no", "client bindings/tick Code(999): Unknown"}
		if dapr {
			const binding = "client bindings/tick db.system=bindings db.name=tick db.connection_string="
			want = []string{
				"server CallLocal/app/a/b rpc.service=ServiceInvocation dapr.invoke_method=a/b dapr.protocol=grpc dapr.api=/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream",
				"server /pkg.Service/Call",
				"client pubsub/t messaging.system=pubsub messaging.destination.name=t Code(500): Internal Server Error",
				binding + "POST /tick rpc.service=Dapr the app said no",
				binding + "/dapr.proto.runtime.v1.AppCallback/OnBindingEvent rpc.service=Dapr Code(999): Unknown",
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("dapr is %v:\n%s\nnot\n%s", dapr, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A caller may write any bytes into a URL; one text that is not UTF-8 would cost an exporter its whole batch.
func TestWhatCallersNameIsFitForEveryExporter(t *testing.T) {
	tracer, recorder := recorded(t)
	wild := "/v1.0/state/\xff\xfe/" + strings.Repeat("é", maxText)
	ctx, answer := below(t, tracer, "x")
	answer.Rename(wild)
	answer.Tell(attribute.String("url.full", wild), attribute.Int("n", 1))
	failed := errors.New(wild)
	_, span := tracer.Start(ctx, trace.SpanKindClient, nil, "state get")
	span.Event("told", attribute.String("sidecast.error", wild))
	span.End(&failed)
	answer.End(wild)
	_, span = tracer.Start(t.Context(), trace.SpanKindClient, nil, "state get ", wild)
	span.End(&failed)
	fit := func(what, text string) {
		if !utf8.ValidString(text) || len(text) > maxText || !strings.Contains(text, "/v1.0/state/\uFFFD/é") {
			t.Errorf("%s: %d bytes, %.40q", what, len(text), text)
		}
	}
	for _, s := range recorder.Ended() {
		fit("name", s.Name())
		fit("status", s.Status().Description)
		for _, e := range s.Events() {
			fit("event", e.Attributes[0].Value.AsString())
		}
	}
	first := recorder.Ended()[0]
	fit("attribute", first.Attributes()[0].Value.AsString())
	if n := first.Attributes()[1].Value.AsInt64(); n != 1 || len(first.Events()) != 1 {
		t.Errorf("got %v, %v", first.Attributes(), first.Events())
	}
	if text := "/" + strings.Repeat("é", maxText); !strings.HasPrefix(text, clean(text)) || len(clean(text)) < maxText-3 {
		t.Error("a text that is too long is not cut between two letters")
	}
	if text := clean(strings.Repeat("a\xff", maxText)); len(text) > maxText || !utf8.ValidString(text) {
		t.Errorf("%d bytes", len(text))
	}
}
