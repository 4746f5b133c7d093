// Package grpcapi is the native gRPC front door (sdk/proto/sidecast/v1). It translates between messages and the blocks and
// decides nothing: what a call may do, how long and how often is the blocks' affair.
//
//	server := grpcapi.New(grpcapi.Options{Blocks: b, Hub: hub, Log: log})
//	go server.Serve(listener)
//	defer server.Close(ctx)
package grpcapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"

	"github.com/sidecast/sidecast/api/bodies"
	"github.com/sidecast/sidecast/api/rpc"
	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// TokenHeader is the metadata key that carries the API token.
const TokenHeader = "sidecast-api-token"

// envelopeRoom is what a message may have around its body.
const envelopeRoom = 1 << 20

const (
	// streamWorkers are goroutines that live on, with the stacks they have grown; calls beyond them get one of their own.
	streamWorkers = 64
	// streamWindow is fixed: on loopback there is no bandwidth to estimate, and the pings that do it cost calls.
	streamWindow = 1 << 20
)

// Options is what the front door needs.
type Options struct {
	Blocks *blocks.Blocks
	// Hub takes the streams of apps that dial out; nil when the app is reached by callback.
	Hub *appchannel.Hub
	// Token is asked of every call but health checks; empty asks for none.
	Token string
	// MaxBody is the largest body in bytes.
	MaxBody int64
	// Bodies is shared with the other front doors; nil means a budget of this one's own.
	Bodies *bodies.Budget
	// Reflection lets tools such as grpcurl ask for the schema; meant for loopback.
	Reflection bool
	Log        *slog.Logger
}

// Server is the front door.
type Server struct {
	grpc     *grpc.Server
	health   *health.Server
	draining context.CancelFunc // ends the streams that would last as long as their clients
}

// New builds the front door. It listens nowhere yet.
func New(o Options) *Server {
	drained, drain := context.WithCancel(context.Background())
	s := &Server{health: health.NewServer(), draining: drain}
	gate := &gate{log: o.Log, drained: drained, blocks: o.Blocks, maxBody: int(o.MaxBody), bodies: o.Bodies}
	maxRead := 2*o.MaxBody + envelopeRoom // so that a body over the limit gets an answer that explains it
	if gate.bodies == nil {
		gate.bodies = bodies.NewBudget(maxRead)
	}
	if o.Token != "" {
		sum := sha256.Sum256([]byte(o.Token))
		gate.token = sum[:]
	}
	s.grpc = grpc.NewServer(
		grpc.ForceServerCodecV2(newCodec()),
		grpc.UnknownServiceHandler(unknown),
		grpc.MaxRecvMsgSize(int(maxRead)),
		grpc.MaxSendMsgSize(int(o.MaxBody)+envelopeRoom),
		grpc.MaxConcurrentStreams(1<<14),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(4*streamWindow),
		// A client whose machine has gone closes nothing: what it holds is let go of when it answers no ping.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 30 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(gate.unary),
		grpc.StreamInterceptor(gate.stream),
	)
	s.grpc.RegisterService(bounded(&sidecastv1.Invocation_ServiceDesc, gate), &invocationServer{invocation: o.Blocks.Invocation, bodies: gate.bodies})
	s.grpc.RegisterService(bounded(&sidecastv1.PubSub_ServiceDesc, gate), &pubsubServer{pubsub: o.Blocks.PubSub})
	s.grpc.RegisterService(bounded(&sidecastv1.State_ServiceDesc, gate), &stateServer{state: o.Blocks.State})
	sidecastv1.RegisterLockServer(s.grpc, &lockServer{lock: o.Blocks.Lock})
	sidecastv1.RegisterRuntimeServer(s.grpc, &runtimeServer{runtime: o.Blocks.Runtime, token: o.Token != ""})
	sidecastv1.RegisterAppServer(s.grpc, &appServer{hub: o.Hub})
	healthpb.RegisterHealthServer(s.grpc, s.health)
	if o.Reflection {
		reflection.Register(s.grpc)
	}
	return s
}

// unknown answers calls of what there is not. Those of Dapr's SDKs come from an app that was started beside the wrong sidecar.
func unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	if strings.HasPrefix(method, "/dapr.proto.") {
		return fault.New(method, fault.NotSupported, "this sidecar has no Dapr API; that of an app which `sidecast dapr run` or a dapr.yaml starts has")
	}
	return fault.New(method, fault.NotSupported, "there is no such method")
}

// Serve answers on listener until Close.
func (s *Server) Serve(listener net.Listener) error {
	if err := s.grpc.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fault.E("grpc api", fault.Internal, fault.Defect, err)
	}
	return nil
}

// SetHealth answers health checks for a service of that name.
func (s *Server) SetHealth(service string, serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus(service, status)
}

// Close ends subscriptions, watches and held locks, lets running calls end until ctx does, and then cuts those that are
// left.
func (s *Server) Close(ctx context.Context) {
	s.health.Shutdown()
	s.draining()
	rpc.Close(ctx, s.grpc)
}

// gate is what every call passes: the token is compared, a panic is contained, an error takes its gRPC form.
type gate struct {
	token   []byte // SHA-256 of it, so that the comparison tells not even its length
	drained context.Context
	maxBody int
	bodies  *bodies.Budget
	blocks  *blocks.Blocks
	log     *slog.Logger
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	if err := g.admit(ctx, info.FullMethod); err != nil {
		return nil, faultgrpc.Err(err)
	}
	defer g.contain(info.FullMethod, &err)
	resp, err = handle(rpc.Context(g.blocks, ctx), req)
	if err != nil {
		return nil, faultgrpc.Err(err)
	}
	return resp, nil
}

func (g *gate) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	if err := g.admit(stream.Context(), info.FullMethod); err != nil {
		return faultgrpc.Err(err)
	}
	defer g.contain(info.FullMethod, &err)
	stream = rpc.Stream(g.blocks, stream)
	if lastsLong[info.FullMethod] {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(g.drained, cancel)()
		stream = rpc.Within(stream, ctx)
	}
	err = handle(srv, stream)
	if g.drained.Err() != nil && lastsLong[info.FullMethod] {
		err = fault.New(info.FullMethod, fault.Shutdown, "the sidecar is shutting down")
	}
	return faultgrpc.Err(err)
}

// lastsLong names the streams that end only when their clients like: draining ends them. Streams of invocations end with
// their call, those of apps when the hub has drained them.
var lastsLong = map[string]bool{
	sidecastv1.PubSub_Subscribe_FullMethodName: true,
	sidecastv1.State_Watch_FullMethodName:      true,
	sidecastv1.Lock_Watch_FullMethodName:       true,
	sidecastv1.Lock_Hold_FullMethodName:        true,
}

func (g *gate) admit(ctx context.Context, method string) error {
	if g.token == nil || strings.HasPrefix(method, "/grpc.health.v1.Health/") {
		return nil
	}
	given := sha256.Sum256([]byte(strings.Join(metadata.ValueFromIncomingContext(ctx, TokenHeader), "")))
	if subtle.ConstantTimeCompare(g.token, given[:]) == 1 {
		return nil
	}
	return fault.New(method, fault.TokenRejected, "the metadata %q is missing or not the sidecar's API token", TokenHeader)
}

func (g *gate) contain(method string, err *error) {
	if p := recover(); p != nil {
		g.log.Error("a call panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = faultgrpc.Err(fault.New(method, fault.Panicked, "the runtime panicked while it worked on the call"))
	}
}
