package appchannel_test

import (
	"context"
	"math"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/appchannel/appchanneltest"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// callbackApp is an App behind AppCallback.
type callbackApp struct {
	sidecastv1.UnimplementedAppCallbackServer
	app *appchanneltest.App
}

func contain(err *error) {
	if p := recover(); p != nil {
		*err = faultgrpc.Err(fault.New("handler", fault.Panicked, "%v\n%s", p, debug.Stack()))
	}
}

func requestOf(r *sidecastv1.OnInvokeRequest) *call.Request {
	in := r.GetRequest()
	return &call.Request{
		Method: in.GetMethod(), Caller: r.GetCaller(), Verb: in.GetHttpVerb(), Query: in.GetHttpQuery(),
		ContentType: in.GetContentType(), Header: call.HeaderOf(in.GetMetadata()), Body: in.GetData(),
	}
}

func (a callbackApp) OnInvoke(ctx context.Context, r *sidecastv1.OnInvokeRequest) (_ *sidecastv1.OnInvokeResponse, err error) {
	defer contain(&err)
	req := requestOf(r)
	if req.Method == appchanneltest.Garbage {
		return &sidecastv1.OnInvokeResponse{}, nil
	}
	response, err := a.app.Call(ctx, req)
	if err != nil {
		return nil, faultgrpc.Err(err)
	}
	return &sidecastv1.OnInvokeResponse{Response: &sidecastv1.InvokeResponse{
		Data: response.Body, ContentType: response.ContentType, Metadata: response.Header.Map(),
	}}, nil
}

// callbackStream is a stream as io.
type callbackStream struct {
	wire sidecastv1.AppCallback_OnInvokeStreamServer
	rest []byte
}

func (s *callbackStream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		frame, err := s.wire.Recv()
		if err != nil {
			return 0, err
		}
		s.rest = frame.GetData()
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *callbackStream) Write(p []byte) (int, error) {
	frame := &sidecastv1.OnInvokeStreamResponse{Frame: &sidecastv1.OnInvokeStreamResponse_Data{Data: p}}
	return len(p), s.wire.Send(frame)
}

func (a callbackApp) OnInvokeStream(wire sidecastv1.AppCallback_OnInvokeStreamServer) error {
	open, err := wire.Recv()
	if err != nil {
		return err
	}
	header := &sidecastv1.OnInvokeStreamResponse{Frame: &sidecastv1.OnInvokeStreamResponse_Header{Header: &sidecastv1.InvokeResponse{}}}
	if err := wire.Send(header); err != nil {
		return err
	}
	return faultgrpc.Err(a.app.Stream(wire.Context(), requestOf(open.GetOpen()), &callbackStream{wire: wire}))
}

func (a callbackApp) OnEvent(ctx context.Context, r *sidecastv1.OnEventRequest) (*sidecastv1.OnEventResponse, error) {
	e := r.GetEvent()
	outcome := a.app.Event(ctx, &appchannel.Event{Topic: e.GetTopic(), Data: e.GetData()})
	return &sidecastv1.OnEventResponse{Status: sidecastv1.EventStatus(outcome.Verdict) + 1, Reason: outcome.Reason}, nil
}

func (a callbackApp) ListSubscriptions(context.Context, *sidecastv1.ListSubscriptionsRequest) (*sidecastv1.ListSubscriptionsResponse, error) {
	list := &sidecastv1.ListSubscriptionsResponse{}
	for _, s := range a.app.Subscriptions() {
		list.Subscriptions = append(list.Subscriptions, &sidecastv1.Subscription{
			PubsubName: s.PubSub, Topic: s.Topic, Route: s.Route, DeadLetterTopic: s.DeadLetterTopic, MaxDeliveries: int32(s.MaxDeliveries), Raw: s.Raw,
		})
	}
	return list, nil
}

// serveGRPC runs an app on a port until kill.
func serveGRPC(t *testing.T, app sidecastv1.AppCallbackServer, on string) (address string, kill func()) {
	listener := listen(t, on)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))
	sidecastv1.RegisterAppCallbackServer(server, app)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	var once sync.Once
	kill = func() { once.Do(func() { server.Stop(); <-served }) }
	t.Cleanup(kill)
	return listener.Addr().String(), kill
}

func openGRPC(t *testing.T, c appchannel.Callback) *appchannel.GRPC {
	t.Helper()
	c.Log = quiet
	channel, err := appchannel.OpenGRPC(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = channel.Close(context.Background()) })
	return channel
}

func TestGRPCConformance(t *testing.T) {
	appchanneltest.Run(t, func(t *testing.T, app *appchanneltest.App) appchanneltest.Fixture {
		address, kill := serveGRPC(t, callbackApp{app: app}, "")
		return appchanneltest.Fixture{
			Channel: openGRPC(t, appchannel.Callback{Address: address}),
			Kill:    func() { kill() },
			Restart: func() { _, kill = serveGRPC(t, callbackApp{app: app}, address) },
		}
	})
}

// bareApp implements nothing.
type bareApp struct {
	sidecastv1.UnimplementedAppCallbackServer
	incoming chan metadata.MD
}

func (a bareApp) OnInvoke(ctx context.Context, r *sidecastv1.OnInvokeRequest) (*sidecastv1.OnInvokeResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	deadline, _ := ctx.Deadline()
	md.Set("left", time.Until(deadline).String())
	a.incoming <- md
	return nil, status.Error(codes.FailedPrecondition, "theirs")
}

func TestGRPCMetadata(t *testing.T) {
	app := bareApp{incoming: make(chan metadata.MD, 1)}
	address, _ := serveGRPC(t, app, "")
	channel := openGRPC(t, appchannel.Callback{Address: address, Token: "secret"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := channel.Invoke(ctx, &call.Request{
		Method: "x", Caller: "shop", Header: call.Header{{Key: "traceparent", Value: "00-1-2-01"}, {Key: "baggage", Value: "a=b"}, {Key: "x-one", Value: "1"}},
	})
	if fault.KindOf(err) != fault.Invalid || fault.ReasonOf(err) != fault.AppFailed {
		t.Errorf("a foreign status: %v", err)
	}
	md := <-app.incoming
	for key, want := range map[string]string{
		"traceparent": "00-1-2-01", "baggage": "a=b", "sidecast-caller": "shop", "sidecast-api-token": "secret", "dapr-api-token": "secret", "x-one": "",
	} {
		if got := strings.Join(md.Get(key), ","); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if left, _ := time.ParseDuration(md.Get("left")[0]); left <= 0 || left > time.Minute {
		t.Errorf("%s left", left)
	}

	// An app that lists no subscriptions has none, and one that takes no events says so.
	listing, stop := context.WithCancel(t.Context())
	defer stop()
	called := false
	if err := channel.Subscriptions(listing, func(list []appchannel.Subscription) { called = len(list) == 0; stop() }); err != nil || !called {
		t.Errorf("%t %v", called, err)
	}
	if _, err := channel.Deliver(ctx, &appchannel.Event{Topic: "x"}); fault.ReasonOf(err) != fault.NotSupported {
		t.Error(err)
	}
}

func TestGRPCMaxBody(t *testing.T) {
	address, _ := serveGRPC(t, callbackApp{app: nil}, "")
	channel := openGRPC(t, appchannel.Callback{Address: address, MaxBody: 1000})
	if _, err := channel.Invoke(t.Context(), &call.Request{Method: "x", Body: make([]byte, 1001)}); fault.ReasonOf(err) != fault.BodyTooLarge {
		t.Error(err)
	}
}

func TestGRPCHealth(t *testing.T) {
	listener := listen(t, "")
	server, checks := grpc.NewServer(), health.NewServer()
	healthv1.RegisterHealthServer(server, checks)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-served })
	ready := make(chan error, 16)
	openGRPC(t, appchannel.Callback{
		Address: listener.Addr().String(), OnReady: func(err error) { ready <- err },
		Health: appchannel.Health{Enabled: true, Interval: time.Millisecond, Threshold: 2},
	})
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	checks.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	if err := <-ready; fault.ReasonOf(err) != fault.AppUnhealthy {
		t.Fatal(err)
	}
	checks.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
}
