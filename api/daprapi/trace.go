package daprapi

import (
	"cmp"
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/api/rpc"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/telemetry"
)

// traced says whether a request belongs to a trace: health checks do not, and none does where tracing is off.
func (s *Server) traced(r *http.Request) bool {
	return s.o.Blocks.Tracing() && !strings.Contains(r.URL.Path, "/healthz")
}

// traceOfRequest is the context of a request below the trace that it names, and what its answer tells of that. Where there are spans
// that of the request begins here, whatever becomes of it, and is ended by endTrace.
func (s *Server) traceOfRequest(r *http.Request) (context.Context, *telemetry.Answer) {
	if !s.traced(r) || !s.o.Blocks.Traced() && r.Header["Traceparent"] == nil { // what follows allocates
		return r.Context(), nil
	}
	return s.o.Blocks.Below(r.Context(), trace.SpanKindClient, r.URL.Path, r.Header.Get)
}

// endTrace ends the span of a request with what daprd tells of each.
func endTrace(r *http.Request, path string, c *heardCall) {
	if c.trace == nil {
		return
	}
	if c.trace.Records() {
		about := userFields(r.Header, true)
		host, port := r.RemoteAddr, ""
		if h, p, err := net.SplitHostPort(r.RemoteAddr); err == nil {
			host, port = h, p
		}
		c.trace.Tell(append(about,
			attribute.String("dapr.protocol", "http"), attribute.String("dapr.api", r.Method+" "+path), attribute.String("dapr.status_code", strconv.Itoa(c.status)),
			attribute.String("http.request.method", r.Method), attribute.String("url.full", r.RequestURI),
			attribute.String("server.address", host), attribute.String("server.port", port))...)
	}
	c.trace.End(telemetry.HTTPFailure(c.status))
}

// userFields are the fields of a caller that begin with dapr-: users have them told on spans. Of several values HTTP's last and gRPC's
// first is told. The token is no business of a collector.
func userFields(fields map[string][]string, overHTTP bool) (about []attribute.KeyValue) {
	for key, values := range fields {
		key = strings.ToLower(key)
		if len(values) == 0 || !strings.HasPrefix(key, "dapr-") || key == tokenHeader || strings.HasSuffix(key, "-bin") && !overHTTP {
			continue
		}
		value := values[0]
		if overHTTP {
			value = values[len(values)-1]
		}
		about = append(about, attribute.String(key, value))
	}
	return about
}

// tellPlace tells the span of a request what its route is of.
func (c *heardCall) tellPlace(r *http.Request, e *entry, p params) {
	if c == nil || !c.trace.Records() {
		return
	}
	name := ""
	switch block := e.parts[1]; block {
	case "state":
		name = p["storeName"]
	case "secrets":
		name = p["secretStoreName"]
	case "bindings":
		name = p["name"]
	case "publish":
		c.trace.Tell(attribute.String("messaging.system", "pubsub"), attribute.String("messaging.destination.name", p["*"]))
		return
	default:
		return
	}
	c.trace.Tell(attribute.String("db.system", e.parts[1]), attribute.String("db.connection_string", e.parts[1]),
		attribute.String("db.statement", r.Method+" "+r.URL.Path), attribute.String("db.name", name))
}

// tellTarget tells the span of a call to another app where it goes.
func (s *Server) tellTarget(ctx context.Context, app, method string) {
	if !s.o.Blocks.Traced() {
		return
	}
	if answer := telemetry.AnswerOf(ctx); answer.Records() {
		answer.Rename("CallLocal/" + app + "/" + method)
		answer.Tell(attribute.String("rpc.service", "ServiceInvocation"), attribute.String("net.peer.name", app))
	}
}

// baggage is given back in the answer as it came. What is none is refused: it is then false, and the request is answered.
func (s *Server) baggage(w http.ResponseWriter, r *http.Request) bool {
	values := r.Header["Baggage"]
	if len(values) == 0 || !s.traced(r) {
		return true
	}
	text := strings.Join(values, ",")
	if _, err := baggage.Parse(text); err != nil {
		http.Error(w, "invalid baggage header: "+err.Error(), http.StatusBadRequest)
		return false
	}
	w.Header().Set("Baggage", text)
	return true
}

// answerTrace adds to an answer of HTTP the trace that it belongs to, unless the app has named one.
func answerTrace(header http.Header, answer *telemetry.Answer) {
	if answer == nil || header["Traceparent"] != nil {
		return
	}
	parent, state := answer.Trace()
	if parent == "" {
		return
	}
	header["Traceparent"] = []string{parent}
	if state != "" {
		header["Tracestate"] = []string{state}
	}
}

// appTrace is the trace that a gRPC app names in its answer, as a traceparent, or "".
func appTrace(fields call.Header) string {
	plain, err := base64.StdEncoding.DecodeString(fields.Get(call.TraceBin))
	if err != nil {
		return ""
	}
	parent, _ := call.TraceParent(string(plain))
	return parent
}

// tracedRPC is a call that belongs to a trace. Those of Dapr's API, but for those that an app answers, are answered with it.
type tracedRPC struct {
	grpc.ServerStream
	ctx     context.Context
	call    *telemetry.Answer
	method  string
	told    bool // the caller is told the trace, or is not to be
	unary   bool
	proxied bool
	asked   bool // the request has been told to the span
}

func (t *tracedRPC) Context() context.Context { return t.ctx }

func (t *tracedRPC) SendMsg(m any) error {
	if t.unary {
		t.tell()
	}
	return t.ServerStream.SendMsg(m)
}

// asking is a request of Dapr's API that says what is told of it on spans.
type asking interface {
	AppendSpanAttributes(method string, to map[string]string)
}

func (t *tracedRPC) RecvMsg(m any) error {
	err := t.ServerStream.RecvMsg(m)
	if err != nil || !t.unary || t.asked || !t.call.Records() {
		return err
	}
	t.asked = true
	request, ok := m.(asking)
	if !ok {
		return nil
	}
	said := map[string]string{}
	request.AppendSpanAttributes(t.method, said)
	var about []attribute.KeyValue
	for key, text := range said {
		switch {
		case key == spanNameKey:
			t.call.Rename(text)
		case !strings.HasPrefix(key, "__dapr."):
			about = append(about, attribute.String(key, text))
		}
	}
	t.call.Tell(about...)
	return nil
}

// spanNameKey is how a request says what its span is called.
const spanNameKey = "__dapr.spanname"

// tell adds the trace to the header, once. Of a call that has failed the header is sent as well; where it was sent before, it
// is too late.
func (t *tracedRPC) tell() {
	if t.told {
		return
	}
	t.told = true
	parent, _ := t.call.Trace()
	if binary, ok := call.TraceBinary(parent); ok {
		_ = t.SetHeader(metadata.Pairs(call.TraceBin, binary))
	}
}

// end ends the span of a call with what daprd tells of each.
func (t *tracedRPC) end(err error) {
	if t.call.Records() {
		fields, _ := metadata.FromIncomingContext(t.ctx)
		about := userFields(fields, false)
		if !t.proxied {
			about = append(about, attribute.String("dapr.protocol", "grpc"), attribute.String("dapr.api", t.method))
		}
		t.call.Tell(about...)
	}
	failure := ""
	if err != nil {
		failure = cmp.Or(status.Convert(err).Message(), status.Code(err).String())
	}
	t.call.End(failure)
}

// invokeMethod answers with what the app says of the trace.
const invokeMethod = "/dapr.proto.runtime.v1.Dapr/InvokeService"

// traceRPC is a call below the trace that it names; it is nil for one that belongs to none. Baggage is given back in the header.
func (s *Server) traceRPC(stream grpc.ServerStream, info *grpc.StreamServerInfo) (*tracedRPC, error) {
	if !s.o.Blocks.Tracing() {
		return nil, nil
	}
	ctx := stream.Context()
	if values := metadata.ValueFromIncomingContext(ctx, "baggage"); len(values) > 0 {
		b, err := baggage.Parse(strings.Join(values, ","))
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "invalid baggage header: %v", err)
		}
		_ = stream.SetHeader(metadata.Pairs("baggage", b.String()))
	}
	spans := s.o.Blocks.Traced()
	if !spans && len(metadata.ValueFromIncomingContext(ctx, "traceparent"))+len(metadata.ValueFromIncomingContext(ctx, call.TraceBin)) == 0 {
		return nil, nil // what follows allocates
	}
	t := &tracedRPC{ServerStream: stream, method: info.FullMethod, unary: !info.IsClientStream && !info.IsServerStream}
	kind := trace.SpanKindClient
	if t.proxied = !strings.HasPrefix(info.FullMethod, "/dapr.proto.runtime."); t.proxied {
		target := proxyTarget(ctx)
		if spans && target == nil { // it is refused before it is a call to anybody
			return nil, nil
		}
		if spans && target[0] == s.o.AppID {
			kind = trace.SpanKindServer
		}
	}
	t.ctx, t.call = s.o.Blocks.Below(ctx, kind, info.FullMethod, rpc.Lookup(ctx))
	t.call.Parts(info.FullMethod + "/")
	t.told = t.call == nil || t.proxied || info.FullMethod == invokeMethod
	return t, nil
}

// invokedTrace adds the trace to what an app answered over gRPC: the app's own, or that of the call.
func invokedTrace(ctx context.Context, head metadata.MD) {
	parent, state := "", ""
	switch {
	case len(head[call.TraceBin]) > 0:
		parent, _ = call.TraceParent(head[call.TraceBin][0])
	case len(head["traceparent"]) > 0:
		parent = head["traceparent"][0]
	default:
		parent, state = telemetry.AnswerOf(ctx).Trace()
	}
	binary, ok := call.TraceBinary(parent)
	if !ok {
		return
	}
	head.Set("traceparent", parent)
	head.Set(call.TraceBin, binary)
	if state != "" {
		head.Set("tracestate", state)
	}
}
