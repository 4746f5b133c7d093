package grpcapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
	"github.com/sidecast/sidecast/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test.
const patience = 20 * time.Second

// sidecar is a whole one in the test's process, behind a real port.
type sidecar struct {
	t       *testing.T
	server  *Server
	set     *components.Set
	address string
	conn    *grpc.ClientConn
	system  *actors.System
}

// start builds a sidecar by hand, as wiring.go does. Its app is whatever serves by stream.
func start(t *testing.T, dir, app, instance string) *sidecar {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	f, err := fabric.Open(ctx, fabric.Config{
		Namespace: "test", AppID: app, Instance: instance, Dir: dir + "/fabric", MaxBody: 8 << 20, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	system := actors.NewSystem(actors.Options{Log: log})
	set := components.NewSet(components.Options{
		Host: components.Host{
			Log: log, AppID: app, Namespace: "test", Instance: instance, DataDir: dir + "/" + instance, Local: true,
			NATS: func(context.Context) (*nats.Conn, error) { return f.Conn(), nil },
		},
		Known: standard.All(), BuiltIn: standard.Defaults(),
	})
	hub := appchannel.NewHub(appchannel.Options{AppID: app, Instance: instance, Namespace: "test", Log: log})
	b := blocks.New(blocks.Deps{
		Self: blocks.Self{AppID: app, Instance: instance, Namespace: "test"}, Log: log, System: system, Fabric: f,
		Components: set, App: hub, Metrics: telemetry.NewMetrics(), Shutdown: func() {},
	})
	if err := b.Start(ctx, nil); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{
		t: t, set: set, server: New(Options{Blocks: b, Hub: hub, MaxBody: 8 << 20, Log: log}), address: listener.Addr().String(),
		system: system,
	}
	serving := make(chan error, 1)
	go func() { serving <- s.server.Serve(listener) }()
	f.Announce(fabric.Instance{App: app, ID: instance, Weight: 1, Ready: true, Started: time.Now()})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ends := []func(context.Context) error{
			f.Leave, b.StopIntake, hub.Close,
			func(ctx context.Context) error { s.server.Close(ctx); return <-serving },
			system.Close, set.Close, f.Close,
		}
		for _, end := range ends {
			if err := end(ctx); err != nil {
				t.Errorf("closing: %v", err)
			}
		}
	})
	s.conn = s.dial()
	return s
}

// dial opens another connection to the sidecar.
func (s *sidecar) dial(options ...grpc.DialOption) *grpc.ClientConn {
	s.t.Helper()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	conn, err := grpc.NewClient(s.address, options...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// serve is an app: it answers invocations with what handle says, until the test ends. It returns when the app is
// registered.
func (s *sidecar) serve(handle func(in *sidecastv1.ServeResponse, say func(*sidecastv1.ServeRequest))) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := sidecastv1.NewAppClient(s.dial()).Serve(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	s.say(stream.Send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{}}}))
	if _, err := stream.Recv(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			frame, err := stream.Recv()
			if err != nil {
				return
			}
			handle(frame, func(answer *sidecastv1.ServeRequest) { _ = stream.Send(answer) })
		}
	}()
	s.t.Cleanup(func() {
		cancel()
		<-ended
	})
}

func (s *sidecar) say(err error) {
	s.t.Helper()
	if err != nil && !errors.Is(err, io.EOF) { // whose status is for Recv
		s.t.Fatal(err)
	}
}

func (s *sidecar) publish(topic string, data []byte) (id string) {
	s.t.Helper()
	answer, err := sidecastv1.NewPubSubClient(s.conn).Publish(s.t.Context(), &sidecastv1.PublishRequest{Topic: topic, Data: data})
	if err != nil {
		s.t.Fatal(err)
	}
	return answer.GetId()
}

func wantReason(t *testing.T, err error, reason fault.Reason) {
	t.Helper()
	if got := fault.ReasonOf(faultgrpc.From(err)); got != reason {
		t.Fatalf("got error %v (%s), want reason %s", err, got, reason)
	}
}

// within fails the test when do takes too long.
func within[T any](t *testing.T, what string, do func() T) T {
	t.Helper()
	done := make(chan T, 1)
	go func() { done <- do() }()
	select {
	case v := <-done:
		return v
	case <-time.After(patience):
		t.Fatalf("%s took longer than %s", what, patience)
		panic("unreachable")
	}
}
