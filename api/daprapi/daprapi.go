// Package daprapi is Dapr's front door: the gRPC service dapr.proto.runtime.v1.Dapr and the HTTP API under /v1.0, translated
// onto the blocks. What Dapr's clients can see is Dapr's: status and error codes, headers, messages, edge cases. What lies
// behind is the blocks' and decided there, once for all doors. Where daprd loses something, the right thing is done instead;
// docs/dapr-compatibility.md lists each difference.
//
//	server := daprapi.New(daprapi.Options{Blocks: b, AppID: "orders", Log: log})
//	go server.ServeHTTP(listener)
//	go server.ServeGRPC(other)
//	defer server.Close(ctx)
package daprapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/api/bodies"
	"github.com/sidecast/sidecast/api/entrance"
	"github.com/sidecast/sidecast/api/rpc"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/telemetry"
)

// Version is the version of Dapr's API that is served; clients read it as the version of the runtime.
const Version = "1.18.3"

// MostWhole bounds a body that is needed in one piece, in bytes, where nobody set a bound. What is passed on as it comes has
// none then.
const MostWhole = 1 << 30

// Options is what the door needs.
type Options struct {
	Blocks           *blocks.Blocks
	AppID, Namespace string
	// App is how the application is reached, for metadata.
	App AppConnection
	// Token is asked of every call but health checks, as dapr-api-token; empty asks for none.
	Token string
	// MaxBody bounds the bodies of requests in bytes; 0 sets no bound but MostWhole. MaxHeader bounds their headers; 0 is net/http's default.
	MaxBody, MaxHeader int64
	// Bodies bounds the memory of bodies in sum.
	Bodies *bodies.Budget
	// AllowedOrigins are the origins of browsers' requests, comma separated; "" leaves CORS out, "*" allows all.
	AllowedOrigins string
	// Settings are those that a Configuration has; Server.Set replaces them.
	Settings Settings
	// Middleware is where the middleware of Settings.Pipeline come from.
	Middleware pipeline.Source
	// Ready is nil once the sidecar and its app are up, or says what is not; Usable is Ready without the app. They answer
	// health checks and may be called at any time.
	Ready, Usable func() error
	// Abort ends the process at once, without a drain. It is called when a client asks for that.
	Abort func()
	// Metrics are those with Dapr's names; nil feeds none.
	Metrics *telemetry.Dapr
	Log     *slog.Logger
}

// Settings are what a Configuration says of the door. The zero Settings serve all, and log nothing.
type Settings struct {
	// Logging is a line for each call.
	Logging Logging
	// APIs says which parts of the API are served; nil serves all.
	APIs *access.APIs
	// Features are those that metadata tells as enabled.
	Features []string
	// Pipeline is the middleware that requests to the HTTP API pass.
	Pipeline []pipeline.Handler
}

// Logging is a line for each call of the API.
type Logging struct {
	Calls bool
	// HideURLs writes the name of the route in place of the path; OmitHealthChecks leaves health checks out.
	HideURLs, OmitHealthChecks bool
}

// AppConnection is how the application is reached.
type AppConnection struct {
	Port, MaxConcurrency int
	Protocol, Address    string
	// HealthPath and the others are of the health check; HealthInterval is 0 when there is none.
	HealthPath                    string
	HealthInterval, HealthTimeout time.Duration
	HealthThreshold               int
}

// Server is the door.
type Server struct {
	o        Options
	now      atomic.Pointer[served]
	pipeline *pipeline.Pipeline
	grpc     *grpc.Server
	http     []*http.Server // the API, and the one for health and metadata alone
	host     host
	typeOf   func(component string) string // "" of one that there is none of
	draining context.CancelFunc
	drained  context.Context

	mu            sync.Mutex
	extended      map[string]string // metadata that the app has set
	extendedBytes int               // of its keys and values
}

// served is what is served, as long as no other Settings come. Each call goes by that which it found when it came.
type served struct {
	Settings
	api, public table
}

// Set has the calls that come from now on go by other settings, and pass their middleware as its source has it from now on.
func (s *Server) Set(to Settings) {
	next := &served{Settings: to, api: newTable(append(routes(s), absentRoutes(s)...), to.APIs), public: newTable(publicRoutes(s), to.APIs)}
	if to.APIs.HTTP(invokePath) {
		next.api.otherwise = s.invoke
	}
	s.now.Store(next)
	s.pipeline.Set(to.Pipeline)
}

// Warm opens the middleware of the HTTP API, so that the first request need not wait for it.
func (s *Server) Warm(ctx context.Context) { s.pipeline.Warm(ctx) }

// New builds the door. It listens nowhere yet.
func New(o Options) *Server {
	s := &Server{o: o, extended: map[string]string{}, host: thisHost()}
	s.typeOf = func(component string) string { return o.Blocks.Runtime.ComponentType(component) }
	s.drained, s.draining = context.WithCancel(context.Background())
	s.pipeline = pipeline.New("the HTTP API's pipeline", o.Middleware, http.HandlerFunc(s.passed), o.Log)
	s.Set(o.Settings)
	s.http = []*http.Server{s.newHTTP(s.handler(true)), s.newHTTP(s.handler(false))}
	size := int(o.MaxBody)
	if size <= 0 {
		size = MostWhole
	}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(size), grpc.MaxSendMsgSize(max(size, 64<<20)),
		grpc.MaxConcurrentStreams(1 << 14),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.ForceServerCodecV2(codec{}),
		grpc.StreamInterceptor(s.stream),
		grpc.UnknownServiceHandler(s.proxy),
	}
	if o.MaxHeader > 0 {
		options = append(options, grpc.MaxHeaderListSize(uint32(max(o.MaxHeader, 4<<10))))
	}
	s.grpc = grpc.NewServer(options...)
	s.grpc.RegisterService(o.Bodies.Unary(&runtimev1.Dapr_ServiceDesc, func(method string, once grpc.StreamHandler) grpc.StreamHandler {
		info := &grpc.StreamServerInfo{FullMethod: method}
		return func(srv any, stream grpc.ServerStream) error { return s.stream(srv, stream, info, once) }
	}, func(_ string, request any) (int, error) { return proto.Size(request.(proto.Message)), nil }), &api{s: s})
	return s
}

func (s *Server) newHTTP(handler http.Handler) *http.Server {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: int(s.o.MaxHeader),
		ConnContext: entrance.Context,
		ErrorLog:    slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
	server.Protocols = new(http.Protocols)
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	return server
}

// ServeHTTP answers the HTTP API on listener until Close.
func (s *Server) ServeHTTP(listener net.Listener) error {
	return serveHTTP(s.http[0], s.o.Bodies.Entrance().Listener(listener))
}

// ServePublic answers health and metadata alone, and asks no token.
func (s *Server) ServePublic(listener net.Listener) error { return serveHTTP(s.http[1], listener) }

func serveHTTP(server *http.Server, listener net.Listener) error {
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fault.E("dapr http api", fault.Internal, fault.Defect, err)
	}
	return nil
}

// ServeGRPC answers the gRPC API on listener until Close.
func (s *Server) ServeGRPC(listener net.Listener) error {
	if err := s.grpc.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fault.E("dapr grpc api", fault.Internal, fault.Defect, err)
	}
	return nil
}

// Close ends subscriptions, lets running calls end until ctx does, and then cuts those that are left.
func (s *Server) Close(ctx context.Context) {
	s.draining()
	var closing sync.WaitGroup
	for _, server := range s.http {
		closing.Go(func() {
			if server.Shutdown(ctx) != nil {
				_ = server.Close()
			}
		})
	}
	rpc.Close(ctx, s.grpc)
	closing.Wait()
}

// component says whether the block has a component of that name that the app may use, and whether it has any.
func (s *Server) component(block components.Block, name string) (found, any bool) {
	return s.o.Blocks.Runtime.HasComponent(block, name)
}

var _ runtimev1.DaprServer = (*api)(nil)

// api is the gRPC service. What it does not have answers UNIMPLEMENTED.
type api struct {
	runtimev1.UnimplementedDaprServer
	s *Server
}
