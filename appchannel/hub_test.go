package appchannel_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/appchannel/appchanneltest"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// frontDoor is all of the gRPC API that a hub needs.
type frontDoor struct {
	sidecastv1.UnimplementedAppServer
	hub *appchannel.Hub
}

func (d frontDoor) Serve(stream sidecastv1.App_ServeServer) error { return d.hub.Serve(stream) }

// serveHub opens a hub on a port of its own.
func serveHub(t testing.TB, o appchannel.Options) (*appchannel.Hub, string) {
	t.Helper()
	o.AppID, o.Log = "tested", quiet
	hub := appchannel.NewHub(o)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))
	sidecastv1.RegisterAppServer(server, frontDoor{hub: hub})
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = hub.Close(ctx)
		server.Stop()
		<-served
	})
	return hub, listener.Addr().String()
}

// sdkApp runs an App with the Go SDK.
func sdkApp(t *testing.T, app *appchanneltest.App, address string) (kill func()) {
	t.Helper()
	client, err := sidecast.Connect(t.Context(), sidecast.Endpoint(address), sidecast.Logger(quiet))
	if err != nil {
		t.Fatal(err)
	}
	unary := func(ctx context.Context, r *sidecast.Request) (*sidecast.Response, error) {
		response, err := app.Call(ctx, &call.Request{
			Method: r.Method, Caller: r.Caller, Verb: r.Verb, Query: r.Query, ContentType: r.ContentType,
			Header: call.HeaderOf(r.Metadata), Body: r.Data,
		})
		if err != nil {
			return nil, err
		}
		return &sidecast.Response{Data: response.Body, ContentType: response.ContentType, Metadata: response.Header.Map()}, nil
	}
	stream := func(ctx context.Context, r *sidecast.Request, s *sidecast.Stream) error {
		return app.Stream(ctx, &call.Request{Method: r.Method, Header: call.HeaderOf(r.Metadata)}, s)
	}
	event := func(ctx context.Context, e *sidecast.Event) error {
		switch outcome := app.Event(ctx, &appchannel.Event{Topic: e.Topic, Data: e.Data}); outcome.Verdict {
		case appchannel.Retry:
			return sidecast.RetryAfter(time.Second, errors.New(outcome.Reason))
		case appchannel.Drop:
			return sidecast.Drop(errors.New(outcome.Reason))
		}
		return nil
	}
	handlers := []sidecast.Handler{sidecast.Concurrency(1000)}
	for _, name := range []string{appchanneltest.Echo, appchanneltest.Fail, appchanneltest.Panic, appchanneltest.Hang} {
		handlers = append(handlers, sidecast.Handle(name, unary))
	}
	for _, name := range []string{appchanneltest.StreamEcho, appchanneltest.StreamEarly, appchanneltest.StreamFail, appchanneltest.StreamHang} {
		handlers = append(handlers, sidecast.HandleStream(name, stream))
	}
	for _, s := range app.Subscriptions() {
		options := []sidecast.SubscribeOption{sidecast.PubSub(s.PubSub)}
		if s.DeadLetterTopic != "" {
			options = append(options, sidecast.DeadLetter(s.DeadLetterTopic, s.MaxDeliveries))
		}
		if s.Raw {
			options = append(options, sidecast.Raw())
		}
		handlers = append(handlers, sidecast.OnEvent(s.Topic, event, options...))
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); _ = client.Serve(ctx, handlers...) }()
	var once sync.Once
	kill = func() {
		once.Do(func() {
			client.Close()
			stop()
			<-served
		})
	}
	t.Cleanup(kill)
	return kill
}

func TestHubConformance(t *testing.T) {
	appchanneltest.Run(t, func(t *testing.T, app *appchanneltest.App) appchanneltest.Fixture {
		hub, address := serveHub(t, appchannel.Options{})
		kill := sdkApp(t, app, address)
		return appchanneltest.Fixture{
			Channel: hub,
			Kill:    func() { kill() },
			Restart: func() { kill = sdkApp(t, app, address) },
			// Garbage has a stream to itself, which answers a call that was never made.
			Garbage: func() {
				raw := dialApp(t, address, &sidecastv1.Hello{Methods: []string{appchanneltest.Garbage}})
				go func() {
					for frame, err := raw.Recv(); err == nil; frame, err = raw.Recv() {
						if frame.GetInvoke() != nil {
							_ = raw.Send(answer(1<<40, "garbage"))
						}
					}
				}()
			},
		}
	})
}

// dialApp opens App.Serve without the SDK, says hello and waits for the welcome.
func dialApp(t *testing.T, address string, hello *sidecastv1.Hello) sidecastv1.App_ServeClient {
	stream, closeApp := openApp(t, address)
	t.Cleanup(closeApp)
	if hello != nil {
		if err := stream.Send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: hello}}); err != nil {
			t.Error(err)
		}
		if frame, err := stream.Recv(); err != nil || frame.GetWelcome().GetAppId() != "tested" {
			t.Errorf("welcome: %v %v", frame, err)
		}
	}
	return stream
}

func openApp(t *testing.T, address string) (sidecastv1.App_ServeClient, func()) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Error(err)
		return nil, func() {}
	}
	stream, err := sidecastv1.NewAppClient(conn).Serve(context.Background())
	if err != nil {
		t.Error(err)
	}
	return stream, func() { conn.Close() }
}

func answer(id uint64, body string) *sidecastv1.ServeRequest {
	return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{
		CallId: id, Result: &sidecastv1.CallAnswer_Response{Response: &sidecastv1.InvokeResponse{Data: []byte(body)}},
	}}}
}

// rawApp is one stream of an app written without the SDK.
type rawApp struct {
	t    *testing.T
	wire sidecastv1.App_ServeClient
}

func newRawApp(t *testing.T, address string, hello *sidecastv1.Hello) rawApp {
	t.Helper()
	return rawApp{t, dialApp(t, address, hello)}
}

func (a rawApp) send(frame *sidecastv1.ServeRequest) {
	a.t.Helper()
	if err := a.wire.Send(frame); err != nil {
		a.t.Fatal(err)
	}
}

// next is the next frame.
func (a rawApp) next() *sidecastv1.ServeResponse {
	a.t.Helper()
	frame, err := a.wire.Recv()
	if err != nil {
		a.t.Fatal(err)
	}
	return frame
}

// nextCall is the id of the invocation that must come next.
func (a rawApp) nextCall() uint64 {
	a.t.Helper()
	frame := a.next()
	if frame.GetInvoke() == nil {
		a.t.Fatalf("an invocation should come, not %v", frame)
	}
	return frame.GetInvoke().GetCallId()
}

// ended is the status by which the sidecar ends the stream.
func (a rawApp) ended() *status.Status {
	a.t.Helper()
	for {
		if _, err := a.wire.Recv(); errors.Is(err, io.EOF) {
			return status.New(codes.OK, "")
		} else if err != nil {
			return status.Convert(err)
		}
	}
}

// invocation is a call that runs.
type invocation struct {
	response *call.Response
	err      error
	done     chan struct{}
}

func invoke(ctx context.Context, hub *appchannel.Hub, method string) *invocation {
	i := &invocation{done: make(chan struct{})}
	go func() {
		defer close(i.done)
		i.response, i.err = hub.Invoke(ctx, &call.Request{Method: method, Body: []byte(method)})
	}()
	return i
}

func (i *invocation) fails(t *testing.T, reason fault.Reason) {
	t.Helper()
	<-i.done
	if fault.ReasonOf(i.err) != reason {
		t.Errorf("want %s, got %v %v", reason, i.response, i.err)
	}
}

func (i *invocation) answers(t *testing.T, body string) {
	t.Helper()
	<-i.done
	if i.err != nil || string(i.response.Body) != body {
		t.Errorf("want %q, got %v %v", body, i.response, i.err)
	}
}

func drainFrame() *sidecastv1.ServeRequest {
	return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Drain{Drain: &sidecastv1.Drain{}}}
}

func TestHubViolations(t *testing.T) {
	chunk := func(id uint64) *sidecastv1.ServeRequest {
		return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{Chunk: &sidecastv1.StreamChunk{CallId: id, Data: []byte("x")}}}
	}
	for name, frame := range map[string]*sidecastv1.ServeRequest{
		"empty frame":          {},
		"second hello":         {Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{}}},
		"unknown call":         answer(7, ""),
		"unknown event":        {Frame: &sidecastv1.ServeRequest_EventAnswer{EventAnswer: &sidecastv1.EventAnswer{CallId: 7}}},
		"event answer to call": {Frame: &sidecastv1.ServeRequest_EventAnswer{EventAnswer: &sidecastv1.EventAnswer{CallId: 1}}},
		"chunk of unary call":  chunk(1),
		"unknown chunk":        chunk(7),
		"negative credit":      {Frame: &sidecastv1.ServeRequest_Credit{Credit: -1}},
		"no stream credit":     {Frame: &sidecastv1.ServeRequest_StreamCredit{StreamCredit: &sidecastv1.StreamCredit{CallId: 1}}},
		"early stream credit":  {Frame: &sidecastv1.ServeRequest_StreamCredit{StreamCredit: &sidecastv1.StreamCredit{CallId: 7, Bytes: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			hub, address := serveHub(t, appchannel.Options{})
			app := newRawApp(t, address, &sidecastv1.Hello{})
			running := invoke(t.Context(), hub, "price")
			app.nextCall()
			app.send(frame)
			if s := app.ended(); s.Code() != codes.InvalidArgument || !strings.HasPrefix(s.Message(), "App.Serve: ") {
				t.Errorf("ended with %v", s)
			}
			running.fails(t, fault.InstanceLost)
		})
	}
	for name, frame := range map[string]*sidecastv1.ServeRequest{
		"no hello":           answer(1, ""),
		"negative credits":   {Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Credits: -1}}},
		"subscribes nothing": {Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Subscriptions: []*sidecastv1.Subscription{{}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			hub, address := serveHub(t, appchannel.Options{})
			app := newRawApp(t, address, nil)
			app.send(frame)
			if s := app.ended(); s.Code() != codes.InvalidArgument {
				t.Errorf("ended with %v", s)
			}
			invoke(t.Context(), hub, "price").fails(t, fault.AppNotConnected)
		})
	}
}

func TestHubSpreadsAndLimits(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	a := newRawApp(t, address, &sidecastv1.Hello{Credits: 2})
	b := newRawApp(t, address, &sidecastv1.Hello{Credits: 2})
	var calls []*invocation
	for range 5 {
		calls = append(calls, invoke(t.Context(), hub, "price"))
	}
	ids := []uint64{a.nextCall(), a.nextCall()}
	b.nextCall()
	b.nextCall()
	select {
	case <-calls[0].done:
		t.Fatal("answered by nobody")
	default:
	}
	// The fifth waits for the credit of the first answer, wherever it comes from.
	a.send(answer(ids[0], "first"))
	if a.nextCall() == 0 {
		t.Error("no id")
	}
	// More credits let more in.
	late := []*invocation{invoke(t.Context(), hub, "price"), invoke(t.Context(), hub, "price")}
	b.send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Credit{Credit: 2}})
	b.send(answer(b.nextCall(), "late"))
	b.send(answer(b.nextCall(), "late"))
	late[0].answers(t, "late")
	late[1].answers(t, "late")
}

func TestHubCancel(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	app := newRawApp(t, address, &sidecastv1.Hello{Credits: 1})
	ctx, cancel := context.WithCancel(t.Context())
	gone := invoke(ctx, hub, "price")
	id := app.nextCall()
	waiting, giveUp := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer giveUp()
	invoke(waiting, hub, "price").fails(t, fault.BudgetSpent)

	cancel()
	gone.fails(t, fault.CallCanceled)
	if frame := app.next(); frame.GetCancel().GetCallId() != id {
		t.Fatalf("want a cancel of %d, got %v", id, frame)
	}
	// The handler may still run, so its credit is not free before it answers.
	next := invoke(t.Context(), hub, "price")
	app.send(answer(id, "too late"))
	app.send(answer(app.nextCall(), "next"))
	next.answers(t, "next")
}

func TestHubMethods(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	a := newRawApp(t, address, &sidecastv1.Hello{Methods: []string{"price", "stock"}})
	b := newRawApp(t, address, &sidecastv1.Hello{Methods: []string{"ship"}})
	ship := invoke(t.Context(), hub, "ship")
	b.send(answer(b.nextCall(), "shipped"))
	ship.answers(t, "shipped")
	price := invoke(t.Context(), hub, "price")
	a.send(answer(a.nextCall(), "9"))
	price.answers(t, "9")
	missing := invoke(t.Context(), hub, "pricee")
	missing.fails(t, fault.HandlerNotFound)
	if !strings.Contains(missing.err.Error(), "price, ship, stock") {
		t.Errorf("does not name what there is: %v", missing.err)
	}
}

// TestHubUnread is an app that takes work and never reads it: callers wait no longer than they want to.
func TestHubUnread(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	_ = newRawApp(t, address, &sidecastv1.Hello{Credits: 50})
	body := make([]byte, 1<<20)
	sent := 0
	for within := 2 * time.Second; sent == 0; within *= 2 { // until the machine is quick enough to send something
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		var calls []*invocation
		for range 100 {
			i := &invocation{done: make(chan struct{})}
			calls = append(calls, i)
			go func() {
				defer close(i.done)
				i.response, i.err = hub.Invoke(ctx, &call.Request{Method: "price", Body: body})
			}()
		}
		for _, i := range calls {
			<-i.done
			if fault.KindOf(i.err) != fault.Timeout {
				t.Fatalf("%v %v", i.response, i.err)
			}
			if !fault.NotSent(i.err) {
				sent++
			}
		}
	}
	if sent > 40 {
		t.Errorf("%d of 100 calls of 1 MiB count as seen by an app that reads nothing", sent)
	}
}
