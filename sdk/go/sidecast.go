// Package sidecast is the Go SDK: it lets an app call other apps, publish and receive events, keep state and take locks
// through the sidecar that runs beside it, and serve calls and events without opening a port.
//
//	client, err := sidecast.Connect(ctx)
//	answer, err := client.Invoke(ctx, "pricing", "price", []byte(`{"sku":"A1"}`))
//
//	err := sidecast.Serve(ctx,
//		sidecast.HandleJSON("price", func(ctx context.Context, in Item) (Price, error) { … }),
//		sidecast.OnEvent("orders.placed", func(ctx context.Context, event *sidecast.Event) error { … }),
//	)
//
// Errors are faults: switch on KindOf(err), never on text. The SDK retries nothing: that is the policies' business in
// the sidecar. A context that a handler was given carries deadline, trace context and baggage into the calls made with it.
package sidecast

import (
	"context"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// connectTimeout is how long Connect waits for the sidecar when its context has no deadline.
const connectTimeout = 10 * time.Second

// Client talks to the sidecar. All methods may be called concurrently.
type Client struct {
	conn       *grpc.ClientConn
	log        *slog.Logger
	app        sidecastv1.AppClient
	invocation sidecastv1.InvocationClient
	pubsub     sidecastv1.PubSubClient
	state      sidecastv1.StateClient
	lock       sidecastv1.LockClient
}

type settings struct {
	endpoint, token string
	log             *slog.Logger
	dial            []grpc.DialOption
}

// Option changes how the SDK reaches the sidecar.
type Option func(*settings)

// Endpoint is where the sidecar listens: `host:port`, `unix:///path` or, with TLS, `https://host:port`. The default is
// SIDECAST_GRPC_ENDPOINT, else port SIDECAST_GRPC_PORT of this machine, else port 50001.
func Endpoint(address string) Option { return func(s *settings) { s.endpoint = address } }

// Token is sent with every call. The default is SIDECAST_API_TOKEN.
func Token(token string) Option { return func(s *settings) { s.token = token } }

// Logger takes what the SDK has to say: panics of handlers, lost connections. The default is slog.Default().
func Logger(log *slog.Logger) Option { return func(s *settings) { s.log = log } }

// DialOptions are added to the gRPC connection: interceptors, a stats handler, credentials.
func DialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dial = append(s.dial, options...) }
}

// Connect opens the connection to the sidecar and waits until it is there, so that app and sidecar may start in any order:
// as long as ctx allows, or 10 s if it has no deadline. Close the client at the end.
func Connect(ctx context.Context, options ...Option) (*Client, error) {
	c, err := newClient(options)
	if err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, connectTimeout)
		defer cancel()
	}
	c.conn.Connect()
	for state := c.conn.GetState(); state != connectivity.Ready; state = c.conn.GetState() {
		if !c.conn.WaitForStateChange(ctx, state) {
			c.conn.Close()
			return nil, fault.New("connect", fault.SidecarLost,
				"no sidecar answers at %s; start the app with `sidecast run`, or name the sidecar in SIDECAST_GRPC_ENDPOINT", c.conn.Target())
		}
	}
	return c, nil
}

// newClient makes a client that is not connected yet.
func newClient(options []Option) (*Client, error) {
	s := settings{endpoint: endpointOf(os.Getenv), token: os.Getenv("SIDECAST_API_TOKEN"), log: slog.Default()}
	for _, option := range options {
		option(&s)
	}
	target, secure := targetOf(s.endpoint)
	transport := insecure.NewCredentials()
	if secure {
		transport = credentials.NewTLS(nil)
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(), // retries are the sidecar's
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithChainUnaryInterceptor(unary(s.token)),
		grpc.WithChainStreamInterceptor(streaming(s.token)),
	}
	conn, err := grpc.NewClient(target, append(dial, s.dial...)...)
	if err != nil {
		return nil, fault.E("connect "+s.endpoint, fault.Invalid, fault.BadRequest, err)
	}
	return &Client{
		conn: conn, log: s.log,
		app: sidecastv1.NewAppClient(conn), invocation: sidecastv1.NewInvocationClient(conn), pubsub: sidecastv1.NewPubSubClient(conn),
		state: sidecastv1.NewStateClient(conn), lock: sidecastv1.NewLockClient(conn),
	}, nil
}

// Close closes the connection. Calls that still run fail.
func (c *Client) Close() error { return c.conn.Close() }

// closed reports whether Close was called.
func (c *Client) closed() bool { return c.conn.GetState() == connectivity.Shutdown }

// Conn is the connection to the sidecar, for services that this package does not wrap.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

func endpointOf(env func(string) string) string {
	if endpoint := env("SIDECAST_GRPC_ENDPOINT"); endpoint != "" {
		return endpoint
	}
	if port := env("SIDECAST_GRPC_PORT"); port != "" {
		return net.JoinHostPort("localhost", port)
	}
	return "localhost:50001"
}

// targetOf is the gRPC target of an endpoint, and whether it wants TLS. `localhost` is not left to a resolver, which an
// empty environment may not have.
func targetOf(endpoint string) (target string, secure bool) {
	address, secure := strings.CutPrefix(endpoint, "https://")
	address, _ = strings.CutPrefix(address, "http://")
	if strings.HasPrefix(address, "unix:") {
		return address, false
	}
	if port, ok := strings.CutPrefix(address, "localhost:"); ok {
		address = "127.0.0.1:" + port
	}
	if strings.Contains(address, "://") {
		return address, secure
	}
	if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host) != nil {
		return "passthrough:///" + address, secure
	}
	return "dns:///" + address, secure
}

// KindOf is the kind of an error: what the caller can do about it. See package fault for the kinds.
func KindOf(err error) fault.Kind { return fault.KindOf(err) }

// ReasonOf is the stable word for the cause of an error, documented in docs/reference/errors.md; "" when it has none.
func ReasonOf(err error) fault.Reason { return fault.ReasonOf(err) }

// trail is what a handler's context hands on to the calls made with it.
type trail [3]string

var trailKeys = [len(trail{})]string{"traceparent", "tracestate", "baggage"}

type trailKey struct{}

// trailOf reads the fields of a call or an event.
func trailOf(fields map[string]string) (t trail, some bool) {
	for i, key := range trailKeys {
		t[i] = fields[key]
		some = some || t[i] != ""
	}
	return t, some
}

// outgoing is ctx with the metadata of an RPC. What the caller put there by himself stays.
func outgoing(ctx context.Context, token string) context.Context {
	t, ok := ctx.Value(trailKey{}).(trail)
	if token == "" && !ok {
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	if token != "" {
		md.Set("sidecast-api-token", token)
	}
	for i, key := range trailKeys {
		if t[i] != "" && len(md.Get(key)) == 0 {
			md.Set(key, t[i])
		}
	}
	return metadata.NewOutgoingContext(ctx, md)
}

func unary(token string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		return failed(method, invoke(outgoing(ctx, token), method, req, reply, conn, options...))
	}
}

func streaming(token string) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		stream, err := open(outgoing(ctx, token), desc, conn, method, options...)
		return stream, failed(method, err)
	}
}

// failed turns what gRPC says into a fault.
func failed(method string, err error) error {
	err = faultgrpc.From(err)
	if fault.KindOf(err) == fault.Unavailable && fault.ReasonOf(err) == "" {
		return fault.E(method, fault.Unavailable, fault.SidecarLost, err)
	}
	return err
}
