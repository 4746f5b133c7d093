package daprapi

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/baggage"
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

// traceOfRequest is the context of a request below the trace that it names, and what its answer tells of that.
func (s *Server) traceOfRequest(r *http.Request) (context.Context, *telemetry.Answer) {
	if !s.traced(r) || !s.o.Blocks.Traced() && r.Header["Traceparent"] == nil { // what follows allocates
		return r.Context(), nil
	}
	return s.o.Blocks.Below(r.Context(), r.Header.Get)
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
func answerTrace(header http.Header, trace *telemetry.Answer) {
	if trace == nil || header["Traceparent"] != nil {
		return
	}
	parent, state := trace.Trace()
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

// tracedRPC is a call that belongs to a trace. Unary ones, but for those that an app answers, are answered with it.
type tracedRPC struct {
	grpc.ServerStream
	ctx    context.Context
	answer *telemetry.Answer // nil for a call that is not answered with its trace
}

func (t *tracedRPC) Context() context.Context { return t.ctx }

func (t *tracedRPC) SendMsg(m any) error {
	t.tell()
	return t.ServerStream.SendMsg(m)
}

// tell adds the trace to the header, once. Of a call that has failed the header is sent as well.
func (t *tracedRPC) tell() {
	if t.answer == nil {
		return
	}
	parent, _ := t.answer.Trace()
	t.answer = nil
	if binary, ok := call.TraceBinary(parent); ok {
		_ = t.SetHeader(metadata.Pairs(call.TraceBin, binary))
	}
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
	if !s.o.Blocks.Traced() && len(metadata.ValueFromIncomingContext(ctx, "traceparent"))+len(metadata.ValueFromIncomingContext(ctx, call.TraceBin)) == 0 {
		return nil, nil // what follows allocates
	}
	ctx, answer := s.o.Blocks.Below(ctx, rpc.Lookup(ctx))
	if info.IsClientStream || info.IsServerStream || info.FullMethod == invokeMethod {
		answer = nil
	}
	return &tracedRPC{ServerStream: stream, ctx: ctx, answer: answer}, nil
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
