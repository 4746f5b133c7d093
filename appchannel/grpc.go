package appchannel

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// GRPC is the Channel to an app that implements sidecast.v1.AppCallback on a port. The deadline is the RPC's; traceparent,
// tracestate, baggage and `sidecast-caller` are its metadata, all other header fields are in the message.
type GRPC struct {
	*grpcPort
	app    sidecastv1.AppCallbackClient
	health healthv1.HealthClient
}

var _ Channel = (*GRPC)(nil)

// OpenGRPC starts to watch for the app. Close it.
func OpenGRPC(c Callback) (*GRPC, error) {
	base, err := newGRPCPort(c)
	if err != nil {
		return nil, err
	}
	g := &GRPC{grpcPort: base, app: sidecastv1.NewAppCallbackClient(base.calls), health: healthv1.NewHealthClient(base.calls)}
	base.start(g.healthy)
	return g, nil
}

// Invoke makes one OnInvoke.
func (g *GRPC) Invoke(ctx context.Context, req *call.Request) (*call.Response, error) {
	op := "invoke " + req.Method
	if int64(len(req.Body)) > g.port.MaxBody {
		return nil, fault.New(op, fault.BodyTooLarge, "a body of %d bytes; this sidecar accepts %d", len(req.Body), g.port.MaxBody)
	}
	if err := g.port.begin(ctx, op); err != nil {
		return nil, err
	}
	defer g.port.end()
	var from peer.Peer
	answer, err := g.app.OnInvoke(g.outgoing(ctx, req.Caller, req.Header), g.requestOf(req, req.Body), grpc.Peer(&from))
	if err != nil {
		return nil, g.failed(ctx, op, &from, err)
	}
	if answer.GetResponse() == nil {
		return nil, fault.New(op, fault.AppAnswer, "the app answered OnInvoke without a response")
	}
	if size := int64(len(answer.Response.Data)); size > g.port.MaxBody {
		return nil, fault.New(op, fault.AnswerTooLarge, "the app's answer has %d bytes; this sidecar accepts %d", size, g.port.MaxBody)
	}
	return responseOf(answer.Response), nil
}

// Deliver makes one OnEvent.
func (g *GRPC) Deliver(ctx context.Context, event *Event) (Outcome, error) {
	op := needOf(event).String()
	if err := g.port.begin(ctx, op); err != nil {
		return Outcome{}, err
	}
	defer g.port.end()
	message := &sidecastv1.Event{}
	fillEvent(message, event, event.Header.Map())
	if !event.Time.IsZero() {
		message.Time = timestamppb.New(event.Time)
	}
	var from peer.Peer
	answer, err := g.app.OnEvent(g.outgoing(ctx, "", event.Header), &sidecastv1.OnEventRequest{Event: message}, grpc.Peer(&from))
	if err != nil {
		return Outcome{}, g.failed(ctx, op, &from, err)
	}
	return outcomeOf(op, answer.GetStatus(), answer.GetDelay(), answer.GetReason())
}

// Stream makes one OnInvokeStream. The caller's goroutine carries the answer, one more the request.
func (g *GRPC) Stream(ctx context.Context, req *call.Request, peerStream call.ServerStream) error {
	op := "invoke " + req.Method
	if err := g.port.begin(ctx, op); err != nil {
		return err
	}
	defer g.port.end()
	ctx, stop := context.WithCancel(ctx)
	var from peer.Peer
	wire, err := g.app.OnInvokeStream(g.outgoing(ctx, req.Caller, req.Header), grpc.Peer(&from))
	if err != nil {
		stop()
		return g.failed(ctx, op, &from, err)
	}
	open := &sidecastv1.OnInvokeStreamRequest{Frame: &sidecastv1.OnInvokeStreamRequest_Open{Open: g.requestOf(req, nil)}}
	if err := wire.Send(open); err != nil {
		_, err = wire.Recv() // the status of a stream that cannot be sent on
		stop()
		return g.failed(ctx, op, nil, err)
	}
	var broken error // of the peer; read it after uploaded
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		if broken = upstream(ctx, wire, peerStream); broken != nil {
			stop()
		}
	}()
	err = g.downstream(ctx, op, wire, peerStream)
	canceled := ctx.Err() != nil
	stop()
	<-uploaded
	if canceled && broken != nil {
		return broken
	}
	return err
}

// upstream carries the request.
func upstream(ctx context.Context, wire sidecastv1.AppCallback_OnInvokeStreamClient, from call.ServerStream) error {
	for {
		chunk, err := from.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return wire.CloseSend()
		}
		if err != nil {
			return err
		}
		for len(chunk) > 0 {
			n := min(len(chunk), chunkSize)
			frame := &sidecastv1.OnInvokeStreamRequest{Frame: &sidecastv1.OnInvokeStreamRequest_Data{Data: chunk[:n]}}
			if wire.Send(frame) != nil {
				return nil // the stream has ended; its status is what the receiving side gets
			}
			chunk = chunk[n:]
		}
	}
}

// downstream carries the answer.
func (g *GRPC) downstream(ctx context.Context, op string, wire sidecastv1.AppCallback_OnInvokeStreamClient, to call.ServerStream) error {
	for {
		frame, err := wire.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			// The stream exists, so the app may have seen the call whatever became of its connection.
			return g.failed(ctx, op, nil, err)
		}
		switch f := frame.GetFrame().(type) {
		case *sidecastv1.OnInvokeStreamResponse_Header:
			err = to.Answer(ctx, responseOf(f.Header))
		case *sidecastv1.OnInvokeStreamResponse_Data:
			err = to.Send(ctx, f.Data)
		default:
			err = fault.New(op, fault.AppAnswer, "the app sent a frame of a kind that this sidecar does not know")
		}
		if err != nil {
			return err
		}
	}
}

// requestOf is req as the app gets it.
func (g *GRPC) requestOf(req *call.Request, body []byte) *sidecastv1.OnInvokeRequest {
	return &sidecastv1.OnInvokeRequest{Caller: req.Caller, Request: &sidecastv1.InvokeRequest{
		AppId: req.App, Method: req.Method, Data: body, ContentType: req.ContentType, Metadata: req.Header.Map(),
		HttpVerb: req.Verb, HttpQuery: req.Query, Idempotent: req.Idempotent,
	}}
}

// outgoing is ctx with the metadata of an RPC to the app.
func (g *GRPC) outgoing(ctx context.Context, caller string, header call.Header) context.Context {
	md := make(metadata.MD, 6)
	for _, f := range traceOf(header) {
		md[f.Key] = append(md[f.Key], f.Value)
	}
	if caller != "" {
		md["sidecast-caller"] = []string{caller}
	}
	if g.port.Token != "" {
		md["sidecast-api-token"] = []string{g.port.Token}
		md["dapr-api-token"] = []string{g.port.Token}
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// healthy is one health check. An app that answers but has no health service is healthy.
func (g *GRPC) healthy(ctx context.Context) error {
	answer, err := g.health.Check(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil
	case err != nil:
		return faultgrpc.From(err)
	case answer.GetStatus() != healthv1.HealthCheckResponse_SERVING:
		return fault.New("app over grpc: health", fault.AppUnhealthy, "the app answered %s", answer.GetStatus())
	}
	return nil
}

// Subscriptions asks the app each time it becomes ready.
func (g *GRPC) Subscriptions(ctx context.Context, changed func([]Subscription)) error {
	return g.port.subscriptions(ctx, changed, func(ctx context.Context) ([]Subscription, error) {
		answer, err := g.app.ListSubscriptions(g.outgoing(ctx, "", nil), &sidecastv1.ListSubscriptionsRequest{}, grpc.WaitForReady(true))
		if status.Code(err) == codes.Unimplemented {
			return nil, nil
		}
		if err != nil {
			return nil, faultgrpc.From(err)
		}
		return subscriptionsOf(answer.GetSubscriptions()), nil
	})
}
