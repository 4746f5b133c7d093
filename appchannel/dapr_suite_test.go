package appchannel_test

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/appchannel/appchanneltest"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/grpcweb"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

// daprSuiteApp is an App behind Dapr's AppCallback, and behind a service of its own for streams.
type daprSuiteApp struct {
	runtimev1.UnimplementedAppCallbackServer
	app *appchanneltest.App
}

const streamsService = "suite.Streams/"

// headerFrom is the metadata of a call.
func headerFrom(ctx context.Context) call.Header {
	md, _ := metadata.FromIncomingContext(ctx)
	var header call.Header
	for key, values := range md {
		for _, value := range values {
			header.Add(key, value)
		}
	}
	return header
}

func (a daprSuiteApp) OnInvoke(ctx context.Context, in *commonv1.InvokeRequest) (_ *commonv1.InvokeResponse, err error) {
	defer contain(&err)
	if in.GetMethod() == appchanneltest.Garbage {
		return &commonv1.InvokeResponse{ContentType: garbage}, nil
	}
	header := headerFrom(ctx)
	response, err := a.app.Call(ctx, &call.Request{
		Method: in.GetMethod(), Caller: header.Get("dapr-caller-app-id"), Verb: in.GetHttpExtension().GetVerb().String(),
		Query: in.GetHttpExtension().GetQuerystring(), ContentType: in.GetContentType(), Header: header, Body: in.GetData().GetValue(),
	})
	if err != nil {
		return nil, faultgrpc.Err(err)
	}
	for _, f := range response.Header {
		_ = grpc.SetHeader(ctx, metadata.Pairs(f.Key, f.Value))
	}
	return &commonv1.InvokeResponse{ContentType: response.ContentType, Data: &anypb.Any{Value: response.Body}}, nil
}

func (a daprSuiteApp) ListTopicSubscriptions(context.Context, *emptypb.Empty) (*runtimev1.ListTopicSubscriptionsResponse, error) {
	list := &runtimev1.ListTopicSubscriptionsResponse{}
	for _, s := range a.app.Subscriptions() {
		sub := &runtimev1.TopicSubscription{
			PubsubName: s.PubSub, Topic: s.Topic, DeadLetterTopic: s.DeadLetterTopic, Routes: &runtimev1.TopicRoutes{Default: s.Route},
		}
		if s.Raw {
			sub.Metadata = map[string]string{"rawPayload": "true"}
		}
		list.Subscriptions = append(list.Subscriptions, sub)
	}
	return list, nil
}

func (a daprSuiteApp) OnTopicEvent(ctx context.Context, in *runtimev1.TopicEventRequest) (*runtimev1.TopicEventResponse, error) {
	outcome := a.app.Event(ctx, &appchannel.Event{Topic: in.GetTopic(), Data: in.GetData()})
	return &runtimev1.TopicEventResponse{Status: runtimev1.TopicEventResponse_TopicEventResponseStatus(outcome.Verdict)}, nil
}

// stream is every method of the app's own service.
func (a daprSuiteApp) stream(_ any, wire grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(wire)
	if err := wire.SendHeader(nil); err != nil {
		return err
	}
	req := &call.Request{Method: strings.TrimPrefix(method, "/"+streamsService), Header: headerFrom(wire.Context())}
	return faultgrpc.Err(a.app.Stream(wire.Context(), req, &messages{wire: wire}))
}

// messages is a stream of messages as io.
type messages struct {
	wire grpc.ServerStream
	rest []byte
}

func (s *messages) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if err := s.wire.RecvMsg(&s.rest); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *messages) Write(p []byte) (int, error) { return len(p), s.wire.SendMsg(&p) }

// garbage is the content type of an answer that shall not be one.
const garbage = "garbage"

// suiteCodec is protobuf's, but for messages of streams, which are bytes, and for garbage.
type suiteCodec struct{ encoding.CodecV2 }

func (c suiteCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch v := v.(type) {
	case *[]byte:
		return mem.BufferSlice{mem.SliceBuffer(append([]byte(nil), *v...))}, nil
	case *commonv1.InvokeResponse:
		if v.GetContentType() == garbage {
			return mem.BufferSlice{mem.SliceBuffer("\xff\xff\xff")}, nil
		}
	}
	return c.CodecV2.Marshal(v)
}

func (c suiteCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if bytes, ok := v.(*[]byte); ok {
		*bytes = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// framed is the channel to one who streams bytes: they travel as messages of a gRPC call.
type framed struct{ *appchannel.Dapr }

func (f framed) Stream(ctx context.Context, req *call.Request, stream call.ServerStream) error {
	framed := *req
	framed.Method, framed.ContentType = streamsService+req.Method, grpcweb.ContentType
	far := &frames{ServerStream: stream}
	if err := f.Dapr.Stream(ctx, &framed, far); err != nil {
		return err
	}
	switch end := far.end; {
	case end == nil:
		return errors.New("the call ended without its status")
	case end.Code != 0:
		return fault.E("stream", fault.KindFromGRPC(end.Code), fault.AppFailed, errors.New(end.Message))
	}
	return nil
}

type frames struct {
	call.ServerStream
	end *grpcweb.Trailers
}

func (f *frames) Recv(ctx context.Context) ([]byte, error) {
	chunk, err := f.ServerStream.Recv(ctx)
	if err != nil {
		return nil, err
	}
	return grpcweb.Message(chunk), nil
}

func (f *frames) Send(ctx context.Context, chunk []byte) error {
	reader := grpcweb.Reader{From: &oneChunk{chunk}} // the channel sends frame by frame
	payload, trailers, err := reader.Next(ctx)
	switch {
	case err != nil:
		return err
	case !trailers:
		return f.ServerStream.Send(ctx, payload)
	}
	end, err := grpcweb.ParseTrailers(payload)
	f.end = &end
	return err
}

type oneChunk struct{ data []byte }

func (o *oneChunk) Recv(context.Context) ([]byte, error) {
	if o.data == nil {
		return nil, io.EOF
	}
	data := o.data
	o.data = nil
	return data, nil
}

// serveDapr runs an app on a port until kill.
func serveDapr(t *testing.T, app *appchanneltest.App, on string) (address string, kill func()) {
	listener := listen(t, on)
	a := daprSuiteApp{app: app}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32), grpc.UnknownServiceHandler(a.stream),
		grpc.ForceServerCodecV2(suiteCodec{encoding.GetCodecV2("proto")}))
	runtimev1.RegisterAppCallbackServer(server, a)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	var once sync.Once
	kill = func() { once.Do(func() { server.Stop(); <-served }) }
	t.Cleanup(kill)
	return listener.Addr().String(), kill
}

func TestDaprConformance(t *testing.T) {
	appchanneltest.Run(t, func(t *testing.T, app *appchanneltest.App) appchanneltest.Fixture {
		address, kill := serveDapr(t, app, "")
		channel, err := appchannel.OpenDapr(appchannel.Callback{Address: address, Dapr: true, Log: quiet, AppID: "app", Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = channel.Close(context.Background()) })
		return appchanneltest.Fixture{
			Channel: framed{channel}, Codes: true,
			Kill:    func() { kill() },
			Restart: func() { _, kill = serveDapr(t, app, address) },
			Listed: func(s appchannel.Subscription) appchannel.Subscription {
				s.MaxDeliveries = 0 // up to policies
				return s
			},
		}
	})
}
