package faults

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

// worker is an app whose handler works until it is told to go on.
func worker(s *machine.Sidecar, name string, events *ledger) (release func()) {
	gate := make(chan struct{})
	s.Serve(
		sidecast.Handle("who", func(context.Context, *sidecast.Request) ([]byte, error) { return []byte(name), nil }),
		sidecast.Handle("slow", func(ctx context.Context, _ *sidecast.Request) ([]byte, error) {
			select {
			case <-gate:
				return []byte(name), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}),
		events.handler("jobs"),
	)
	return sync.OnceFunc(func() { close(gate) })
}

// SIGTERM: running calls finish, new ones go elsewhere, nobody sees an error, presence is left at once.
func TestSIGTERMDrains(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("host")
	leaving, staying := m.Sidecar("worker"), m.Sidecar("worker")
	events := newLedger()
	release := worker(leaving, "leaving", events)
	defer release()
	releaseOther := worker(staying, "staying", events)
	defer releaseOther()
	caller := m.Sidecar("caller")
	meet(t, caller, "worker", 2)
	c := caller.Client()

	// Calls run until one is at the instance that will leave.
	var slow []<-chan outcome
	machine.Until(t, "a call at the instance that leaves", func() error {
		slow = append(slow, begin(c, "worker", "slow", long))
		if n, err := inFlight(leaving); err != nil || n == 0 {
			return fmt.Errorf("%d, %v", n, err)
		}
		return nil
	})
	stopPublishing := events.publish(c, "jobs", "during")
	stopCalling := keepCalling(t, c, "worker", "who")
	leaving.Terminate()
	meet(t, caller, "worker", 1)
	for range 20 {
		if o := settled(t, "who", begin(c, "worker", "who", long)); o.err != nil || o.answer != "staying" {
			t.Errorf("a new call: %q, %v", o.answer, o.err)
		}
	}
	select {
	case <-leaving.Done():
		t.Error("the sidecar has ended while a call was running")
	default:
	}
	release()
	releaseOther()
	answers := map[string]int{}
	for _, call := range slow {
		o := settled(t, "running call", call)
		if o.err != nil {
			t.Errorf("a call that was running: %v", o.err)
		}
		answers[o.answer]++
	}
	if answers["leaving"] == 0 {
		t.Errorf("no call was finished by the instance that left: %v", answers)
	}
	if code := leaving.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	stopCalling()
	stopPublishing()
	events.balanced(t)
}

// keepCalling calls without a pause until stop is called; no call may fail.
func keepCalling(t *testing.T, c *sidecast.Client, app, method string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var calling sync.WaitGroup
	for range 4 {
		calling.Go(func() {
			for ctx.Err() == nil {
				bounded, done := context.WithTimeout(context.Background(), soon)
				_, err := c.Invoke(bounded, app, method, nil)
				done()
				if err != nil {
					t.Errorf("a call beside: %v", err)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		calling.Wait()
	}
}

// A call that does not end is cut when the grace period is over, and its caller hears so.
func TestGracePeriodEnds(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Sidecar("host")
	callee, caller := m.Sidecar("callee", "--grace-period", "1s"), m.Sidecar("caller")
	callee.Serve(handlers("callee")...)
	meet(t, caller, "callee", 1)
	call := begin(caller.Client(), "callee", "hang", long)
	running(t, callee, 1)
	callee.Terminate()
	if o := settled(t, "the call that does not end", call); o.err == nil {
		t.Error("it has succeeded")
	} else if kind := fault.KindOf(o.err); kind != fault.Unavailable && kind != fault.Canceled {
		t.Errorf("%v (%v)", o.err, kind)
	}
	callee.Wait(soon)
}

// Streams that last as long as their clients like do not keep a sidecar from ending.
func TestLongStreamsEndWithTheSidecar(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	s := m.Sidecar("streams")
	c := s.Client()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	held, err := c.Lock("").Hold(ctx, "gate")
	if err != nil {
		t.Fatal(err)
	}
	watched := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		for change, err := range c.State("").Watch(ctx, "") {
			if err != nil {
				watched <- err
				return
			}
			if change.Current {
				close(ready)
			}
		}
		watched <- nil
	}()
	<-ready
	began := time.Now()
	s.Interrupt()
	if code := s.Wait(soon); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %s, nearly its grace period", took)
	}
	want(t, "the watch", <-watched, fault.Shutdown)
	<-held.Lost()
}
