package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

func TestAppKilledMidCall(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	callee, caller := m.Sidecar("callee"), m.Sidecar("caller")
	process := app(t, m, callee)
	meet(t, caller, "callee", 1)
	call := begin(caller.Client(), "callee", "hang", long)
	running(t, callee, 1)
	process.Kill()
	want(t, "the call under way", settled(t, "call", call).err, fault.InstanceLost, fault.AppNotConnected)
	meet(t, caller, "callee", 0)
	o := settled(t, "next call", begin(caller.Client(), "callee", "echo", 2*time.Second))
	if fault.KindOf(o.err) != fault.Unavailable && fault.KindOf(o.err) != fault.Timeout {
		t.Errorf("a call while the app is away: %v", o.err)
	}
	app(t, m, callee)
	machine.Until(t, "calls resume", func() error { return try(caller.Client(), "callee", "echo", "x") })
}

// A sidecar that dies, or only stands still, takes its calls with it; their callers hear of it, long before their deadline.
func TestSidecarLostMidCall(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			m := machine.New(t)
			m.Sidecar("host") // of the fabric, which is not what breaks here
			callee, caller := m.Sidecar("callee"), m.Sidecar("caller")
			callee.Serve(handlers("callee")...)
			meet(t, caller, "callee", 1)
			c := caller.Client()
			call := begin(c, "callee", "hang", long)
			running(t, callee, 1)
			if err := syscall.Kill(callee.PID(), signal); err != nil {
				t.Fatal(err)
			}
			want(t, "the call under way", settled(t, "call", call).err, fault.InstanceLost)
			meet(t, caller, "callee", 0)
			if signal == syscall.SIGSTOP {
				if err := syscall.Kill(callee.PID(), syscall.SIGCONT); err != nil {
					t.Fatal(err)
				}
				meet(t, caller, "callee", 1)
				machine.Until(t, "calls resume", func() error { return try(c, "callee", "echo", "x") })
			}
		})
	}
}

// The caller's own sidecar dies: the app hears it at once, and the other end lets its handler go.
func TestCallersSidecarKilledMidCall(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	callee := m.Sidecar("callee")
	caller := m.Sidecar("caller")
	ended := make(chan struct{})
	callee.Serve(sidecast.Handle("hang", func(ctx context.Context, _ *sidecast.Request) ([]byte, error) {
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}))
	meet(t, caller, "callee", 1)
	call := begin(caller.Client(), "callee", "hang", long)
	running(t, callee, 1)
	caller.Kill()
	if o := settled(t, "call", call); fault.ReasonOf(o.err) != fault.SidecarLost {
		t.Errorf("the app whose sidecar died: %v", o.err)
	}
	select {
	case <-ended:
	case <-time.After(soon):
		t.Error("the handler works on for a caller that is gone")
	}
}

// An app whose sidecar is restarted comes back, even if one of its handlers does not notice that its call is gone.
func TestAppFindsItsNewSidecar(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("host")
	port := machine.Port(t)
	sidecar := func() *machine.Sidecar {
		return m.Await("callee", m.Run("--app-id", "callee", "--grpc-port", port, "--metrics-port", "0"))
	}
	callee, caller := sidecar(), m.Sidecar("caller")
	release := make(chan struct{})
	callee.Serve(append(handlers("callee"), sidecast.Handle("stuck", func(context.Context, *sidecast.Request) ([]byte, error) {
		<-release
		return nil, nil
	}))...)
	t.Cleanup(func() { close(release) }) // before Serve's own, which waits for its handlers
	meet(t, caller, "callee", 1)
	call := begin(caller.Client(), "callee", "stuck", long)
	running(t, callee, 1)
	callee.Kill()
	settled(t, "call", call)
	sidecar()
	machine.Until(t, "the app is back", func() error { return try(caller.Client(), "callee", "echo", "x") })
}

// ledger notes what was acknowledged to a publisher and what a subscriber got.
type ledger struct {
	mu              sync.Mutex
	stored, handled map[string]int
}

func newLedger() *ledger { return &ledger{stored: map[string]int{}, handled: map[string]int{}} }

func (l *ledger) note(book map[string]int, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	book[id]++
}

func (l *ledger) count(book map[string]int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(book)
}

// missing are the events that were acknowledged and not handled.
func (l *ledger) missing() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost []string
	for id := range l.stored {
		if l.handled[id] == 0 {
			lost = append(lost, id)
		}
	}
	slices.Sort(lost)
	return lost
}

// balanced waits until everything acknowledged was handled.
func (l *ledger) balanced(t *testing.T) {
	t.Helper()
	machine.UntilWithin(t, 2*machine.Patience, "every acknowledged event is handled", func() error {
		if lost := l.missing(); len(lost) > 0 {
			return fmt.Errorf("%d of %d are missing, such as %s", len(lost), l.count(l.stored), lost[0])
		}
		return nil
	})
}

func (l *ledger) handler(topic string, options ...sidecast.SubscribeOption) sidecast.Handler {
	return sidecast.OnEvent(topic, func(_ context.Context, e *sidecast.Event) error {
		l.note(l.handled, string(e.Data))
		return nil
	}, options...)
}

// publish publishes without a pause until stop is called, noting what was acknowledged.
func (l *ledger) publish(c *sidecast.Client, topic, name string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			id := name + "-" + strconv.Itoa(n)
			bounded, done := context.WithTimeout(ctx, 5*time.Second)
			_, err := c.Publish(bounded, topic, []byte(id), sidecast.Key(name))
			done()
			if err == nil {
				l.note(l.stored, id)
			} else {
				time.Sleep(20 * time.Millisecond) // what the publisher of a real app would do too
			}
		}
	})
	return func() {
		cancel()
		publishing.Wait()
	}
}

// write keeps writing keys until stop is called and returns the last value acknowledged for each.
func write(s *sidecast.State, prefix string) (stop func() map[string]string) {
	ctx, cancel := context.WithCancel(context.Background())
	last := map[string]string{}
	var writing sync.WaitGroup
	writing.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			key, value := prefix+strconv.Itoa(n%50), strconv.Itoa(n)
			bounded, done := context.WithTimeout(ctx, 5*time.Second)
			_, err := s.Set(bounded, key, []byte(value))
			done()
			if err == nil {
				last[key] = value
			} else {
				delete(last, key) // it may have been written or not
				time.Sleep(20 * time.Millisecond)
			}
		}
	})
	return func() map[string]string {
		cancel()
		writing.Wait()
		return last
	}
}

func readBack(t *testing.T, s *sidecast.State, wrote map[string]string) {
	t.Helper()
	if len(wrote) == 0 {
		t.Error("nothing was ever written")
	}
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	for _, key := range slices.Sorted(maps.Keys(wrote)) {
		item, found, err := s.Get(ctx, key)
		if err != nil || !found || string(item.Value) != wrote[key] {
			t.Errorf("%s is %q, %v, %v; %q was acknowledged", key, item.Value, found, err, wrote[key])
		}
	}
}

// The sidecar that hosts the fabric is killed under load. Another takes over.
func TestFabricHostKilled(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	folder := t.TempDir()
	component(t, folder, "shared", "state.jetstream")
	host := m.Sidecar("host", "--resources-path", folder)
	second, third := m.Sidecar("second", "--resources-path", folder), m.Sidecar("third", "--resources-path", folder)
	events := newLedger()
	second.Serve(append(handlers("second"), events.handler("orders"))...)
	meet(t, third, "second", 1)
	c := third.Client()

	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	lease, err := c.Lock("").Acquire(ctx, "gate", sidecast.TTL(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	held, err := c.Lock("").Hold(ctx, "held")
	if err != nil {
		t.Fatal(err)
	}
	stopPublishing := events.publish(c, "orders", "during")
	stopShared := write(c.State("shared"), "shared/")
	stopLocal := write(c.State(""), "local/")
	machine.Until(t, "load", func() error {
		if n := events.count(events.stored); n < 200 {
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
	host.Kill()
	before, killed := events.count(events.stored), time.Now()
	machine.Until(t, "publishing goes on", func() error {
		if n := events.count(events.stored); n < before+200 {
			return fmt.Errorf("%d events since the host was killed", n-before)
		}
		return nil
	})
	t.Logf("publishing again after %s", time.Since(killed).Round(time.Millisecond))
	machine.Until(t, "calls resume", func() error { return try(c, "second", "echo", "x") })
	t.Logf("calls again after %s", time.Since(killed).Round(time.Millisecond))
	stopPublishing()
	shared, local := stopShared(), stopLocal()
	events.balanced(t)
	t.Logf("all handled after %s", time.Since(killed).Round(time.Millisecond))
	readBack(t, c.State("shared"), shared)
	readBack(t, c.State(""), local)

	_, err = second.Client().Lock("").Acquire(ctx, "gate")
	want(t, "the lock of another", err, fault.LockHeld)
	if _, err := c.Lock("").Renew(ctx, lease, sidecast.TTL(time.Minute)); err != nil {
		t.Errorf("the lease did not survive: %v", err)
	}
	select {
	case <-held.Lost():
		t.Errorf("the lock held by stream was lost: %v", held.Err())
	default:
	}
	if err := c.Lock("").Release(ctx, lease); err != nil {
		t.Error(err)
	}
	next, err := second.Client().Lock("").Acquire(ctx, "gate")
	if err != nil || next.Token <= lease.Token {
		t.Errorf("the next lease: %+v, %v; the token before was %d", next, err, lease.Token)
	}
	hosts := 0
	for _, s := range []*machine.Sidecar{second, third} {
		if m.Must("status", "--grpc-address", s.GRPC) != "" && hosting(t, s) {
			hosts++
		}
	}
	if hosts != 1 {
		t.Errorf("%d sidecars host the fabric now", hosts)
	}
}

// Everybody is killed at once and started again, as by a power button that the disk did not notice.
func TestEverybodyKilled(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	first, second := m.Sidecar("writer"), m.Sidecar("reader")
	events := newLedger()
	c := first.Client()
	stopPublishing, stopWriting := events.publish(c, "orders", "before"), write(c.State(""), "k/")
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	lease, err := c.Lock("").Acquire(ctx, "gate", sidecast.TTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	machine.Until(t, "load", func() error {
		if n := events.count(events.stored); n < 200 {
			return fmt.Errorf("%d events", n)
		}
		if _, found, err := c.State("").Get(ctx, "k/0"); err != nil || !found {
			return fmt.Errorf("no writes: %v", err)
		}
		return nil
	})
	first.Kill()
	second.Kill()
	stopPublishing()
	wrote := stopWriting()
	first, second = m.Sidecar("writer"), m.Sidecar("reader")
	second.Serve(events.handler("orders"))
	events.balanced(t)
	readBack(t, first.Client().State(""), wrote)
	_, err = second.Client().Lock("").Acquire(ctx, "gate")
	want(t, "the lock of before", err, fault.LockHeld)
	if err := first.Client().Lock("").Release(ctx, lease); err != nil {
		t.Errorf("the lease did not survive: %v", err)
	}
}

// An app that dies holding events gives them to the other members of its group.
func TestSubscriberKilled(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("host")
	one, two := m.Sidecar("workers"), m.Sidecar("workers")
	publisher := m.Sidecar("publisher")
	events := newLedger()
	stuck := make(chan struct{}, 20)
	stopStuck := one.Serve(sidecast.OnEvent("jobs", func(ctx context.Context, e *sidecast.Event) error {
		stuck <- struct{}{} // there is room for all
		<-ctx.Done()
		return ctx.Err()
	}, sidecast.AckWait(2*time.Second)))
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	for n := range 20 {
		id := strconv.Itoa(n)
		if _, err := publisher.Client().Publish(ctx, "jobs", []byte(id)); err != nil {
			t.Fatal(err)
		}
		events.note(events.stored, id)
	}
	<-stuck
	two.Serve(events.handler("jobs", sidecast.AckWait(2*time.Second)))
	one.Kill()
	stopStuck()
	events.balanced(t)
}

// A lock whose holder dies with its sidecar is free when its lease has run out, and the next token is higher.
func TestLockOfADeadHolder(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("host")
	holder, next := m.Sidecar("holder"), m.Sidecar("next")
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	held, err := holder.Client().Lock("").Hold(ctx, "gate", sidecast.TTL(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	type got struct {
		lease *sidecast.Lease
		err   error
	}
	waiting := make(chan got, 1)
	go func() {
		lease, err := next.Client().Lock("").Acquire(ctx, "gate", sidecast.Wait(long))
		waiting <- got{lease, err}
	}()
	holder.Kill()
	<-held.Lost()
	if g := <-waiting; g.err != nil || g.lease.Token <= held.Token {
		t.Errorf("the next in line: %+v, %v; the token before was %d", g.lease, g.err, held.Token)
	}
}

func hosting(t *testing.T, s *machine.Sidecar) bool {
	t.Helper()
	d, err := describe(s)
	if err != nil {
		t.Fatal(err)
	}
	switch d.GetFabric() {
	case "embedded host":
		return true
	case "embedded guest":
		return false
	}
	t.Fatal(errors.New(d.GetFabric()))
	return false
}
