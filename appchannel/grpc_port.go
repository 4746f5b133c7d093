package appchannel

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

// grpcPort is the connection to an app that serves gRPC, whatever service it has, and the watch on it.
type grpcPort struct {
	port  *port
	conn  *grpc.ClientConn // the first of calls, which is watched
	calls *grpcPool

	callback Callback
	unwatch  context.CancelFunc
	watched  chan struct{}
}

// envelope is what a message may be larger than the body in it.
const envelope = 1 << 20

// greeting is how long an app that has taken a connection may take to begin to speak, as one does that is busy or stands still
// for a moment: to hang up on it earlier is to never reach it. (gRPC's own default.)
const greeting = 20 * time.Second

func newGRPCPort(c Callback) (*grpcPort, error) {
	c = c.withDefaults()
	trust := insecure.NewCredentials()
	if c.TLS {
		trust = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}) // the app beside us: its certificate names other hosts
	}
	options := append(metered(c.Meter),
		grpc.WithTransportCredentials(trust),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, address) }),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(), // attempts are the lane's
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPoll, Multiplier: 2, Jitter: 0.2, MaxDelay: lastPoll},
			MinConnectTimeout: greeting,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(int(c.MaxBody)+envelope), grpc.MaxCallSendMsgSize(int(c.MaxBody)+envelope)),
	)
	calls, err := newGRPCPool(func() (*grpc.ClientConn, error) { return grpc.NewClient("passthrough:///"+c.Address, options...) })
	if err != nil {
		return nil, fault.E("app over grpc: "+c.Address, fault.Invalid, fault.BadRequest, err)
	}
	return &grpcPort{conn: calls.first.ClientConn, calls: calls, callback: c, watched: make(chan struct{})}, nil
}

// start begins to watch; check is one health check.
func (g *grpcPort) start(check func(context.Context) error) {
	g.port = newPort(g.callback, "app over grpc", check, g.connect)
	g.port.start()
	watching, stop := context.WithCancel(context.Background())
	g.unwatch = stop
	go func() {
		defer close(g.watched)
		g.watch(watching)
	}()
}

// watch tells the port when the connection breaks: the app may have restarted with other subscriptions.
func (g *grpcPort) watch(ctx context.Context) {
	last := g.conn.GetState()
	for g.conn.WaitForStateChange(ctx, last) {
		if last == connectivity.Ready {
			g.port.lost()
		}
		last = g.conn.GetState()
	}
}

// Kind is `grpc`.
func (g *grpcPort) Kind() string { return "grpc" }

// Ready is nil when the app's port takes connections and its health check, if there is one, passes.
func (g *grpcPort) Ready() error { return g.port.Ready() }

// Close lets running calls end, then the connection.
func (g *grpcPort) Close(ctx context.Context) error {
	return g.port.close(ctx, func() {
		g.unwatch()
		<-g.watched
		_ = g.calls.Close()
	})
}

// connect ends a pause between attempts to connect, and waits for the connection: until then gRPC fails calls at once. Outside
// a pause gRPC may not be asked to end it: it looks through its connections while it adds the first (v1.85), and a program
// that does such a thing is ended.
func (g *grpcPort) connect(ctx context.Context) {
	if g.conn.GetState() == connectivity.TransientFailure {
		g.conn.ResetConnectBackoff()
	}
	g.conn.Connect()
	for state := g.conn.GetState(); state != connectivity.Ready && state != connectivity.Shutdown; state = g.conn.GetState() {
		if !g.conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// failed turns the status of an RPC into a fault. An RPC without a peer never got a connection: nothing was sent.
func (g *grpcPort) failed(ctx context.Context, op string, from *peer.Peer, err error) error {
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
		return fault.New(op, fault.NotSupported, "the app does not implement the callback: %s", s.Message())
	}
	return fromApp(op, faultgrpc.From(err))
}
