package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/machine"
)

// A server without JetStream carries calls; what needs JetStream says so.
func TestServerWithoutJetStream(t *testing.T) {
	machine.SkipShort(t)
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(machine.Patience) {
		t.Fatal("the NATS server does not start")
	}
	t.Cleanup(func() { stop(s) })
	here, there := machine.New(t), machine.New(t)
	caller, callee := here.Sidecar("caller", "--fabric", s.ClientURL()), there.Sidecar("callee", "--fabric", s.ClientURL())
	callee.Serve(echo("callee"))
	c := caller.Client()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	machine.Until(t, "calls need no JetStream", func() error {
		_, err := c.Invoke(ctx, "callee", "echo", nil)
		return err
	})
	if _, err := c.State("").Set(ctx, "k", []byte("v")); err != nil {
		t.Errorf("the store of this machine needs no JetStream: %v", err)
	}
	for reason, err := range map[string]error{
		"[JETSTREAM_REFUSED]": second(c.Publish(ctx, "news", nil)),
		"[FABRIC_DOWN]":       second(c.Lock("").Acquire(ctx, "gate")),
	} {
		if err == nil || !strings.Contains(err.Error(), "JetStream") || !strings.Contains(err.Error(), reason) {
			t.Errorf("want %s and the word JetStream: %v", reason, err)
		}
	}
}

func second(_ any, err error) error { return err }

// The caller's id is part of the subject, so that permissions can hold a sidecar to its own name.
func TestPermissionsHoldACallerToItsName(t *testing.T) {
	user := func(name string, calls ...string) *server.User {
		return &server.User{Username: name, Password: "pw", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: append(calls, "sc.default.presence.>", "_INBOX.>", "$JS.>")},
		}}
	}
	s := serve(t, &server.Options{Users: []*server.User{
		user("honest", "sc.default.call.*.*.honest"),
		user("callee", "sc.default.call.*.*.callee"),
		user("liar", "sc.default.call.*.*.liar"),
	}})
	url := func(name string) string { return "nats://" + name + ":pw@" + s.Addr().String() }
	m := machine.New(t)
	callee := m.Sidecar("callee", "--fabric", url("callee"))
	callee.Serve(echo("callee"))
	honest := m.Sidecar("honest", "--fabric", url("honest"))
	// This one says it is honest, with the credentials of the liar.
	pretender := m.Sidecar("honest", "--fabric", url("liar"))
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	machine.Until(t, "an honest call", func() error {
		_, err := honest.Client().Invoke(ctx, "callee", "echo", nil)
		return err
	})
	machine.Until(t, "a pretender is refused", func() error {
		began := time.Now()
		_, err := pretender.Client().Invoke(ctx, "callee", "echo", nil)
		switch {
		case err == nil:
			t.Fatal("a sidecar has called under another's name")
		case fault.KindOf(err) != fault.Denied:
			return fmt.Errorf("after %s: %w (%v)", time.Since(began), err, fault.KindOf(err))
		}
		return nil
	})
}
