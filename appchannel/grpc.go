package appchannel

import (
	"context"
	"errors"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
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
	port   *port
	conn   *grpc.ClientConn
	app    sidecastv1.AppCallbackClient
	health healthv1.HealthClient

	unwatch context.CancelFunc
	watched chan struct{}
}

var _ Channel = (*GRPC)(nil)

// envelope is what a message may be larger than the body in it.
const envelope = 1 << 20

// OpenGRPC starts to watch for the app. Close it.
func OpenGRPC(c Callback) (*GRPC, error) {
	c = c.withDefaults()
	conn, err := grpc.NewClient("passthrough:///"+c.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, address) }),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(), // attempts are the lane's
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPoll, Multiplier: 2, Jitter: 0.2, MaxDelay: lastPoll},
			MinConnectTimeout: lastPoll,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(int(c.MaxBody)+envelope), grpc.MaxCallSendMsgSize(int(c.MaxBody)+envelope)),
	)
	if err != nil {
		return nil, fault.E("app over grpc: "+c.Address, fault.Invalid, fault.BadRequest, err)
	}
	g := &GRPC{conn: conn, app: sidecastv1.NewAppCallbackClient(conn), health: healthv1.NewHealthClient(conn)}
	g.port = openPort(c, "app over grpc", g.healthy, g.connect)
	watching, stop := context.WithCancel(context.Background())
	g.unwatch, g.watched = stop, make(chan struct{})
	go func() {
		defer close(g.watched)
		g.watch(watching)
	}()
	return g, nil
}

// watch tells the port when the connection breaks: the app may have restarted with other subscriptions.
func (g *GRPC) watch(ctx context.Context) {
	last := g.conn.GetState()
	for g.conn.WaitForStateChange(ctx, last) {
		if last == connectivity.Ready {
			g.port.lost()
		}
		last = g.conn.GetState()
	}
}

// Kind is `grpc`.
func (g *GRPC) Kind() string { return "grpc" }

// Ready is nil when the app's port takes connections and its health check, if there is one, passes.
func (g *GRPC) Ready() error { return g.port.Ready() }

// Close lets running calls end, then the connection.
func (g *GRPC) Close(ctx context.Context) error {
	return g.port.close(ctx, func() {
		g.unwatch()
		<-g.watched
		g.conn.Close()
	})
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

// failed turns the status of an RPC into a fault. An RPC without a peer never got a connection: nothing was sent.
func (g *GRPC) failed(ctx context.Context, op string, from *peer.Peer, err error) error {
	s, _ := status.FromError(err)
	switch {
	case ctx.Err() != nil:
		return fault.FromContext(op, ctx, "the app's answer")
	case s.Code() == codes.Unavailable && from != nil && from.Addr == nil:
		g.port.lost()
		return fault.New(op, fault.AppUnreachable, "the app's port %s took no connection: %s", g.port.Address, s.Message())
	case s.Code() == codes.Unavailable && len(s.Details()) == 0:
		return fault.New(op, fault.InstanceLost, "the app answered UNAVAILABLE, or its connection broke: %s", s.Message())
	case s.Code() == codes.Unimplemented && len(s.Details()) == 0:
		return fault.New(op, fault.NotSupported, "the app does not implement sidecast.v1.AppCallback: %s", s.Message())
	}
	return fromApp(op, faultgrpc.From(err))
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

// connect ends a pause between attempts to connect, and waits for the connection: until then gRPC fails calls at once.
func (g *GRPC) connect(ctx context.Context) {
	g.conn.ResetConnectBackoff()
	g.conn.Connect()
	for state := g.conn.GetState(); state != connectivity.Ready && state != connectivity.Shutdown; state = g.conn.GetState() {
		if !g.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
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
