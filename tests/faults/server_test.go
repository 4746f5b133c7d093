package faults

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/ports"
)

// natsServer runs a NATS server of the user's in this process.
func natsServer(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(machine.Patience) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(func() { stopServer(s) })
	return s
}

func stopServer(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// The NATS server of --fabric goes away and returns.
func TestRemoteServerGoesAwayAndReturns(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	store := t.TempDir()
	nats := natsServer(t, store, -1)
	url := nats.ClientURL()
	port := nats.Addr().(*net.TCPAddr).Port
	callee, caller := m.Sidecar("callee", "--fabric", url), m.Sidecar("caller", "--fabric", url)
	events := newLedger()
	callee.Serve(append(handlers("callee"), events.handler("jobs"))...)
	meet(t, caller, "callee", 1)
	c := caller.Client()
	ctx, cancel := context.WithTimeout(t.Context(), 3*long)
	defer cancel()
	lease, err := c.Lock("").Acquire(ctx, "gate", sidecast.TTL(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	stop := events.publish(c, "jobs", "during")
	machine.Until(t, "load", func() error {
		if n := events.count(events.stored); n < 100 {
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
	under := begin(c, "callee", "hang", long)
	running(t, callee, 1)

	stopServer(nats)
	if o := settled(t, "the call under way", under); fault.KindOf(o.err) != fault.Unavailable {
		t.Errorf("the call under way: %v", o.err)
	}
	o := settled(t, "a call meanwhile", begin(c, "callee", "echo", long))
	want(t, "a call meanwhile", o.err, fault.FabricDown)
	if _, err := c.State("").Set(ctx, "local", []byte("goes on")); err != nil {
		t.Errorf("the store of this machine needs no fabric: %v", err)
	}
	_, err = c.Lock("").Acquire(ctx, "other")
	if kind := fault.KindOf(err); kind != fault.Unavailable && kind != fault.Tripped {
		t.Errorf("a lock meanwhile: %v", err)
	}
	if code, body, err := caller.HTTP("/readyz"); err != nil || code == 200 {
		t.Errorf("ready without a fabric: %d %s %v", code, body, err)
	}
	if code, _, err := caller.HTTP("/healthz"); err != nil || code != 200 {
		t.Errorf("a sidecar without a fabric is alive: %d %v", code, err)
	}
	before := events.count(events.stored)

	natsServer(t, store, port)
	machine.Until(t, "calls resume", func() error { return try(c, "callee", "echo", "x") })
	machine.Until(t, "publishing resumes", func() error {
		if n := events.count(events.stored); n < before+100 {
			return fmt.Errorf("%d events since", n-before)
		}
		return nil
	})
	stop()
	events.balanced(t)
	machine.Until(t, "the lease is renewed", func() error {
		_, err := c.Lock("").Renew(ctx, lease, sidecast.TTL(time.Minute))
		return err
	})
}

// A sidecar may be started before its server.
func TestSidecarStartedWithoutItsServer(t *testing.T) {
	t.Parallel() // it waits, and takes nothing from the others
	m := machine.New(t)
	port := ports.Get(t)
	early := m.Run("--app-id", "early", "--grpc-port", "0", "--metrics-port", "0", "--fabric", fmt.Sprintf("nats://127.0.0.1:%d", port))
	natsServer(t, t.TempDir(), port)
	m.Await("early", early)

	never := m.Run("--app-id", "never", "--grpc-port", "0", "--metrics-port", "0", "--fabric", "nats://user:hidden@127.0.0.1:1")
	if code := never.Wait(machine.Patience); code == 0 {
		t.Error("a sidecar without a fabric has ended well")
	}
	for _, word := range []string{"127.0.0.1:1", "FABRIC_DOWN"} {
		if !strings.Contains(never.Output(), word) {
			t.Errorf("the error does not say %q: %s", word, never.Output())
		}
	}
	if strings.Contains(never.Output(), "hidden") {
		t.Errorf("the error tells the password: %s", never.Output())
	}
}
