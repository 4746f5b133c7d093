// Package cluster runs sidecars on several machines, which share nothing but a NATS cluster of the user's: credentials,
// TLS, replicas.
package cluster

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m)) }

// long bounds a whole test's calls.
const long = 2 * time.Minute

// serve runs a NATS server in this process until the test ends or it is shut down.
func serve(t *testing.T, o *server.Options) *server.Server {
	t.Helper()
	machine.SkipShort(t)
	o.Host, o.NoSigs, o.NoLog = "127.0.0.1", true, true
	if o.Port == 0 {
		o.Port = -1
	}
	if o.StoreDir == "" {
		o.StoreDir = t.TempDir()
	}
	o.JetStream = true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(machine.Patience) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(func() { stop(s) })
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// echo is an app that says who it is.
func echo(name string) sidecast.Handler {
	return sidecast.Handle("echo", func(_ context.Context, r *sidecast.Request) ([]byte, error) {
		return []byte(name + " hears " + r.Caller + ": " + string(r.Data)), nil
	})
}

// together checks that two machines work as one: calls, events, locks, shared state.
func together(t *testing.T, flags ...string) {
	t.Helper()
	here, there := machine.New(t), machine.New(t)
	caller, callee := here.Sidecar("caller", flags...), there.Sidecar("callee", flags...)
	events := make(chan string, 10)
	callee.Serve(echo("callee"), sidecast.OnEvent("news", func(_ context.Context, e *sidecast.Event) error {
		events <- string(e.Data)
		return nil
	}))
	c := caller.Client()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	machine.Until(t, "a call from machine to machine", func() error {
		answer, err := c.Invoke(ctx, "callee", "echo", []byte("hello"))
		if err == nil && string(answer.Data) != "callee hears caller: hello" {
			err = fmt.Errorf("the answer is %q", answer.Data)
		}
		return err
	})
	if _, err := c.Publish(ctx, "news", []byte("good")); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-events:
		if got != "good" {
			t.Errorf("the event is %q", got)
		}
	case <-ctx.Done():
		t.Fatal("the event does not come")
	}
	lease, err := c.Lock("").Acquire(ctx, "gate")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := callee.Client().Lock("").Acquire(ctx, "gate"); fault.ReasonOf(err) != fault.LockHeld {
		t.Errorf("the lock of another machine: %v", err)
	}
	if err := c.Lock("").Release(ctx, lease); err != nil {
		t.Error(err)
	}
	if out := here.Must("status"); !strings.Contains(out, "callee") {
		t.Errorf("status does not show the other machine: %s", out)
	}
}

// refused starts a sidecar that cannot join, wants an error with these words, and returns all it said.
func refused(t *testing.T, flags []string, words ...string) string {
	t.Helper()
	began := time.Now()
	run := machine.New(t).Run(append([]string{"--app-id", "x", "--grpc-port", "0", "--metrics-port", "0"}, flags...)...)
	if code := run.Wait(machine.Patience); code == 0 {
		t.Error("it has ended well")
	} else {
		t.Logf("exit code %d after %s: %s", code, time.Since(began).Round(time.Millisecond), run.Output())
	}
	for _, word := range words {
		if !strings.Contains(run.Output(), word) {
			t.Errorf("the error does not say %q: %s", word, run.Output())
		}
	}
	return run.Output()
}
