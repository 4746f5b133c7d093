package natslock

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/lock/locktest"
)

const childURL, childDir, childPort = "NATSLOCK_TEST_URL", "NATSLOCK_TEST_DIR", "NATSLOCK_TEST_PORT"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(childURL) != "":
		lockInChild(os.Getenv(childURL))
	case os.Getenv(childDir) != "":
		port, _ := strconv.Atoi(os.Getenv(childPort))
		if _, err := start(os.Getenv(childDir), port); err != nil {
			panic(err)
		}
		fmt.Println("ready")
		time.Sleep(time.Minute)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func start(dir string, port int) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, fmt.Errorf("the server does not start")
	}
	return s, nil
}

func serve(t testing.TB, dir string, port int) *server.Server {
	t.Helper()
	s, err := start(dir, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(s) })
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

func connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

func host(conn *nats.Conn, local bool) components.Host {
	return components.Host{
		Namespace: "test", Local: local,
		NATS: func(context.Context) (*nats.Conn, error) { return conn, nil },
	}
}

func openOn(t testing.TB, conn *nats.Conn, local bool) *locker {
	t.Helper()
	l, err := open(t.Context(), host(conn, local), Config{Bucket: "locks"})
	if err != nil {
		t.Fatal(err)
	}
	return l.(*locker)
}

// opened is openOn for a test that closes at its end.
func opened(t testing.TB, conn *nats.Conn) *locker {
	t.Helper()
	l := openOn(t, conn, true)
	t.Cleanup(func() {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

func backend(local bool) locktest.Backend {
	return locktest.Backend{Shared: true, Durable: true, New: func(t testing.TB) locktest.Store {
		s := serve(t, t.TempDir(), -1)
		return locktest.Store{
			Open: func(t testing.TB) lock.Locker { return openOn(t, connect(t, s.ClientURL()), local) },
			Left: func(t testing.TB) int { return entries(t, connect(t, s.ClientURL())) },
		}
	}}
}

func entries(t testing.TB, conn *nats.Conn) int {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(context.Background(), "KV_test_locks")
	if err != nil {
		t.Fatal(err)
	}
	return int(stream.CachedInfo().State.Msgs)
}

func TestLocker(t *testing.T)       { locktest.Run(t, backend(true)) }
func TestLockerRemote(t *testing.T) { locktest.Run(t, backend(false)) }

func BenchmarkLocker(b *testing.B) { locktest.Benchmark(b, backend(true)) }

// Apps share the locks of components that have one name, and of no others.
func TestLocksAreTheComponents(t *testing.T) {
	s := serve(t, t.TempDir(), -1)
	conn := connect(t, s.ClientURL())
	take := func(namespace, app, component, bucket string) error {
		h := host(conn, true)
		h.Namespace, h.AppID, h.Component = namespace, app, component
		l, err := open(t.Context(), h, Config{Bucket: bucket})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close(context.Background()) })
		_, err = l.Acquire(t.Context(), "invoices", app, time.Minute, false)
		return err
	}
	for _, c := range []struct {
		namespace, app, component, bucket string
		held                              bool
	}{
		{"a", "orders", "b_c", "", false},
		{"a", "billing", "b_c", "", true},
		{"a", "billing", "b.c", "", false},
		{"a_b", "billing", "c", "", false},
		{"a", "billing", "c", "locks-b_c", true},
	} {
		if err := take(c.namespace, c.app, c.component, c.bucket); c.held != (fault.ReasonOf(err) == fault.LockHeld) || !c.held && err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
