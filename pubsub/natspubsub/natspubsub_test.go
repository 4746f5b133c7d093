package natspubsub

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/pubsub/pubsubtest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// startServer runs a NATS server with JetStream on dir until the test ends or stop is called.
func startServer(t testing.TB, dir string, port int) *server.Server {
	t.Helper()
	s, err := newServer(dir, port, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopServer(s) })
	return s
}

func newServer(dir string, port int, payload int32) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "test", Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir,
		NoLog: true, NoSigs: true, MaxPayload: payload,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, fmt.Errorf("the server did not start")
	}
	return s, nil
}

func stopServer(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

func connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func dial(url string) (*nats.Conn, error) {
	return nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
}

func hostOn(nc *nats.Conn, component string) components.Host {
	return components.Host{
		Log: slog.New(slog.DiscardHandler), Namespace: "test", Component: component,
		NATS: func(context.Context) (*nats.Conn, error) { return nc, nil },
	}
}

func openOn(t testing.TB, host components.Host, settings map[string]string) pubsub.Broker {
	t.Helper()
	b, err := Component.Open(context.Background(), host, settings)
	if err != nil {
		t.Fatal(err)
	}
	return b.(pubsub.Broker)
}

var places atomic.Int64

// urlEnv names a server to test on instead of an embedded one: SIDECAST_TEST_NATS=nats://127.0.0.1:4222 go test .
const urlEnv = "SIDECAST_TEST_NATS"

// backend makes places on one server, each a component of its own.
func backend(t testing.TB) pubsubtest.Backend {
	url := os.Getenv(urlEnv)
	if url == "" {
		url = startServer(t, t.TempDir(), -1).ClientURL()
	}
	nc := connect(t, url)
	run := fmt.Sprint(time.Now().UnixNano(), ".")
	return pubsubtest.Backend{
		Durable: true, NoDelay: strings.HasPrefix(nc.ConnectedServerVersion(), "2.10.") || strings.HasPrefix(nc.ConnectedServerVersion(), "2.11."),
		New: func(t testing.TB) pubsubtest.Place {
			host := hostOn(nc, run+strconv.FormatInt(places.Add(1), 10))
			return func() pubsub.Broker { return openOn(t, host, nil) }
		},
	}
}

func TestConformance(t *testing.T) { pubsubtest.Run(t, backend(t)) }

func BenchmarkPublishDeliver(b *testing.B) { pubsubtest.Benchmark(b, backend(b)) }
