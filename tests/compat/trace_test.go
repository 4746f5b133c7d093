package compat

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sidecast/sidecast/tests/machine"
)

const (
	traceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	// traceBinary is the same as grpc-trace-bin.
	traceBinary = "\x00\x00\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c\x01\xb7\xad\x6b\x71\x69\x20\x33\x31\x02\x01"
)

// observer is a gRPC app that tells the metadata of what it gets.
type observer struct {
	listener
	seen chan metadata.MD
}

func (o *observer) see(ctx context.Context) {
	md, _ := metadata.FromIncomingContext(ctx)
	o.seen <- md
}

func (o *observer) OnInvoke(ctx context.Context, in *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
	o.see(ctx)
	if in.GetMethod() == "own" {
		_ = grpc.SetHeader(ctx, metadata.Pairs("grpc-trace-bin", traceBinary))
	}
	return &commonv1.InvokeResponse{}, nil
}

func (o *observer) OnTopicEvent(ctx context.Context, _ *runtimev1.TopicEventRequest) (*runtimev1.TopicEventResponse, error) {
	o.see(ctx)
	return &runtimev1.TopicEventResponse{}, nil
}

func (o *observer) OnBulkTopicEvent(ctx context.Context, in *runtimev1.TopicEventBulkRequest) (*runtimev1.TopicEventBulkResponse, error) {
	o.see(ctx)
	return o.listener.OnBulkTopicEvent(ctx, in)
}

// same checks that metadata names the trace in both forms.
func same(t *testing.T, what string, md metadata.MD) {
	t.Helper()
	parent, binary := strings.Join(md["traceparent"], ","), strings.Join(md["grpc-trace-bin"], ",")
	if parent != traceParent || binary != traceBinary {
		t.Errorf("%s has the trace %q and %q", what, parent, binary)
	}
}

func TestTraceContextIsPassedOnInBothForms(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	app := &observer{listener: listener{bulk: make(chan *runtimev1.TopicEventBulkRequest, 9)}, seen: make(chan metadata.MD, 9)}
	app.subscriptions = []*runtimev1.TopicSubscription{
		{PubsubName: "bus", Topic: "orders"},
		{PubsubName: "bus", Topic: "many", BulkSubscribe: &runtimev1.BulkSubscribeConfig{Enabled: true, MaxAwaitDurationMs: 1}},
	}
	server := start(t, m, "server", "--app-protocol", "grpc", "--app-port", serveGRPC(t, func(s *grpc.Server) {
		runtimev1.RegisterAppCallbackServer(s, app)
		s.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Trace", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
			StreamName: "See", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				app.see(stream.Context())
				return stream.SendMsg(&wrapperspb.BytesValue{})
			},
		}}}, nil)
	}))
	server.subscribed(2)
	httpApp := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Got", r.Header.Get("traceparent")+" "+r.Header.Get("tracestate")+" "+r.Header.Get("baggage"))
		if r.URL.Path == "/own" {
			w.Header().Set("traceparent", "own")
		}
	}))
	start(t, m, "web", "--app-port", httpApp).await("/v1.0/healthz")
	d := start(t, m, "client")
	client := d.client()
	binary := metadata.AppendToOutgoingContext(t.Context(), "grpc-trace-bin", traceBinary, "traceparent", "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

	for _, text := range []struct {
		what string
		call func() (metadata.MD, error)
	}{
		{"a call from HTTP", func() (metadata.MD, error) {
			got := d.expect(200, "", "POST", "/v1.0/invoke/server/method/x", "", "traceparent: "+traceParent)
			if got.header.Get("traceparent") != traceParent {
				t.Errorf("the answer has the trace %q", got.header.Get("traceparent"))
			}
			return nil, nil
		}},
		{"a call from gRPC", func() (md metadata.MD, err error) {
			_, err = client.InvokeService(binary, &runtimev1.InvokeServiceRequest{Id: "server", Message: &commonv1.InvokeRequest{Method: "x"}}, grpc.Header(&md))
			return md, err
		}},
		{"a proxied call", func() (metadata.MD, error) {
			return nil, dial(t, d.grpc).Invoke(metadata.AppendToOutgoingContext(binary, "dapr-app-id", "server"), "/test.Trace/See", &emptypb.Empty{}, &emptypb.Empty{})
		}},
		{"an event", func() (md metadata.MD, err error) {
			_, err = server.client().PublishEvent(binary, &runtimev1.PublishEventRequest{PubsubName: "bus", Topic: "orders", Data: []byte("x")}, grpc.Header(&md))
			return md, err
		}},
		{"a bulk", func() (md metadata.MD, err error) {
			_, err = server.client().PublishEvent(binary, &runtimev1.PublishEventRequest{PubsubName: "bus", Topic: "many", Data: []byte("x")})
			return nil, err
		}},
	} {
		answered, err := text.call()
		if err != nil {
			t.Fatal(text.what, err)
		}
		seen := receive(t, app.seen)
		same(t, text.what, seen)
		if event := text.what == "an event" || text.what == "a bulk"; event != slices.Equal(seen["pubsubname"], []string{"bus"}) {
			t.Errorf("%s comes with the broker %q", text.what, seen["pubsubname"])
		}
		if text.what == "an event" {
			answered["traceparent"] = []string{traceParent} // Dapr's API itself answers with the binary form alone
		}
		if answered != nil {
			same(t, "the answer to "+text.what, answered)
		}
	}

	const state, baggage = "vendor=1", "user=a%20b,tier=2"
	got := d.expect(200, "", "GET", "/v1.0/invoke/web/method/x", "", "traceparent: "+traceParent, "tracestate: "+state, "baggage: "+baggage)
	if want := traceParent + " " + state + " " + baggage; got.header.Get("X-Got") != want {
		t.Errorf("the HTTP app got %q", got.header.Get("X-Got"))
	}
	for _, path := range []string{"/v1.0/invoke/web/method/x", "/v1.0/state/store/none", "/v1.0/state/nostore/none", "/v1.0/metadata"} {
		got := d.do("GET", path, "", "traceparent: "+traceParent, "tracestate: "+state, "baggage: "+baggage)
		if h := got.header; h.Get("traceparent") != traceParent || h.Get("tracestate") != state || h.Get("baggage") != baggage {
			t.Errorf("%s is answered with %v", path, h)
		}
		if h := d.do("GET", path, "").header; h.Get("traceparent") != "" || h.Get("tracestate") != "" || h.Get("baggage") != "" {
			t.Errorf("%s without a trace is answered with %v", path, h)
		}
	}
	if h := d.do("GET", "/v1.0/healthz", "", "traceparent: "+traceParent, "baggage: =").header; h.Get("traceparent") != "" {
		t.Errorf("a health check is answered with %v", h)
	}
	if got := d.do("GET", "/v1.0/invoke/web/method/own", "", "traceparent: "+traceParent); got.header.Get("traceparent") != "own" {
		t.Errorf("what the app says of the trace is lost: %v", got.header)
	}
	if got := d.do("POST", "/v1.0/invoke/server/method/own", ""); got.header.Get("traceparent") != traceParent {
		t.Errorf("what the gRPC app says of the trace is lost: %v", got.header)
	}
	<-app.seen
	d.expect(400, "invalid baggage header: …", "GET", "/v1.0/state/store/none", "", "baggage: a b=1")

	var md metadata.MD
	_, err := client.GetState(metadata.AppendToOutgoingContext(binary, "baggage", "user=1"), &runtimev1.GetStateRequest{StoreName: "store", Key: "none"}, grpc.Header(&md))
	if err != nil || strings.Join(md["grpc-trace-bin"], "") != traceBinary || strings.Join(md["baggage"], "") != "user=1" {
		t.Errorf("an RPC is answered with %v (%v)", md, err)
	}
	_, err = client.GetState(binary, &runtimev1.GetStateRequest{StoreName: "nostore", Key: "none"}, grpc.Header(&md))
	if err == nil || strings.Join(md["grpc-trace-bin"], "") != traceBinary {
		t.Errorf("an RPC that fails is answered with %v (%v)", md, err)
	}
	if _, err := client.GetState(t.Context(), &runtimev1.GetStateRequest{StoreName: "store", Key: "none"}, grpc.Header(&md)); err != nil || md["grpc-trace-bin"] != nil {
		t.Errorf("an RPC without a trace is answered with %v (%v)", md, err)
	}
	_, err = client.GetState(metadata.AppendToOutgoingContext(t.Context(), "baggage", "a b=1"), &runtimev1.GetStateRequest{StoreName: "store", Key: "none"})
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.HasPrefix(s.Message(), "invalid baggage header: ") {
		t.Errorf("baggage that is none: %v", err)
	}
}

// Where there are spans an answer names that of the call.
func TestAnswersNameTheSpanOfTheCall(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "traced", "--config", configuration(t, "  tracing: {samplingRate: 1}\n"))
	off := start(t, machine.New(t), "off", "--config", configuration(t, "  tracing: {samplingRate: 0}\n"))
	for _, path := range []string{"/v1.0/state/store/none", "/v1.0/invoke/nobody/method/x"} {
		got := d.do("GET", path, "", "traceparent: "+traceParent, "tracestate: a=b").header
		if parent := got.Get("traceparent"); len(parent) != 55 || parent[:36] != traceParent[:36] || parent == traceParent || got.Get("tracestate") != "a=b" {
			t.Errorf("%s is answered with %v", path, got)
		}
		if parent := d.do("GET", path, "").header.Get("traceparent"); len(parent) != 55 || !strings.HasSuffix(parent, "-01") {
			t.Errorf("%s that begins a trace is answered with %q", path, parent)
		}
		if got := off.do("GET", path, "", "traceparent: "+traceParent, "baggage: no baggage").header; got.Get("traceparent") != "" || got.Get("baggage") != "" {
			t.Errorf("without tracing %s is answered with %v", path, got)
		}
	}
	var md metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "grpc-trace-bin", traceBinary)
	if _, err := d.client().GetState(ctx, &runtimev1.GetStateRequest{StoreName: "store", Key: "none"}, grpc.Header(&md)); err != nil {
		t.Fatal(err)
	}
	if binary := strings.Join(md["grpc-trace-bin"], ""); len(binary) != 29 || binary[:18] != traceBinary[:18] || binary == traceBinary {
		t.Errorf("an RPC is answered with %q", binary)
	}
}

// Where tracing is off the trace that a caller names still reaches the app, in both forms, and nothing tells of one that it did not.
func TestTraceContextPassesWhereTracingIsOff(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	off := []string{"--config", configuration(t, "  tracing: {samplingRate: \"0\"}\n")}
	app := &observer{seen: make(chan metadata.MD, 9)}
	start(t, m, "server", append(off, "--app-protocol", "grpc", "--app-port", serveGRPC(t, func(s *grpc.Server) { runtimev1.RegisterAppCallbackServer(s, app) }))...).await("/v1.0/healthz")
	seen := make(chan http.Header, 9)
	start(t, m, "web", append(off, "--app-port", serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/x" {
			seen <- r.Header
		}
	})))...).await("/v1.0/healthz")
	d := start(t, m, "client", off...)
	client := d.client()
	for _, fields := range [][]string{{"grpc-trace-bin", traceBinary}, {"traceparent", traceParent}, {"grpc-trace-bin", traceBinary, "traceparent", traceParent}, nil} {
		for _, to := range []string{"server", "web"} {
			var head metadata.MD
			_, err := client.InvokeService(metadata.AppendToOutgoingContext(t.Context(), fields...), &runtimev1.InvokeServiceRequest{Id: to, Message: &commonv1.InvokeRequest{
				Method: "x", HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_GET},
			}}, grpc.Header(&head))
			if err != nil || head["traceparent"] != nil || head["grpc-trace-bin"] != nil {
				t.Errorf("%s with %q is answered with %v %v", to, fields, head, err)
			}
			var got metadata.MD
			if to == "server" {
				got = receive(t, app.seen)
			} else if parent := receive(t, seen)["Traceparent"]; parent != nil {
				got = metadata.MD{"traceparent": parent, "grpc-trace-bin": {traceBinary}}
			}
			if fields != nil {
				same(t, to, got)
			} else if got["traceparent"] != nil || got["grpc-trace-bin"] != nil {
				t.Errorf("%s is told of the trace %v", to, got)
			}
		}
	}
}
