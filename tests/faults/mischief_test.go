package faults

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/mischief"
)

// unruly serves an app that does harm by rules, and tells its port.
func unruly(t *testing.T, protocol, rules string) (app *mischief.App, port string) {
	t.Helper()
	plan, err := mischief.Parse(rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the harm's seed is %d", plan.Seed)
	app = &mischief.App{Plan: plan, Work: time.Millisecond}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	if protocol == "grpc" {
		server := app.GRPC()
		serving.Go(func() { _ = server.Serve(listener) })
		t.Cleanup(func() { server.Stop(); serving.Wait() })
	} else {
		server := &http.Server{Handler: app}
		serving.Go(func() { _ = server.Serve(listener) })
		t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	}
	return app, strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
}

// Whatever an app does to its calls, each gets one answer, its own, or a failure with a reason; and never does the app see
// more calls at once than it was said to take.
func TestStormOfHarm(t *testing.T) {
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			const most, callers, each = 8, 40, 25
			app, port := unruly(t, protocol, "10%:delay=10ms 8%:error=STORE_FULL 8%:error 6%:cut 6%:panic 6%:slow=100us")
			m := machine.New(t)
			m.Sidecar("unruly", "--app-port", port, "--app-protocol", protocol, "--app-max-concurrency", strconv.Itoa(most))
			caller := m.Sidecar("caller")
			meet(t, caller, "unruly", 1)
			c := caller.Client()
			machine.Until(t, "the app is reached", func() error { return try(c, "unruly", "well/x", "x") })

			var good, failed atomic.Int64
			done := make(chan struct{})
			var calls sync.WaitGroup
			for i := range callers {
				calls.Go(func() {
					for n := range each {
						body := fmt.Sprintf("call %d of caller %d", n, i)
						ctx, cancel := context.WithTimeout(t.Context(), long)
						answer, err := c.Invoke(ctx, "unruly", "work", []byte(body), sidecast.Idempotent())
						cancel()
						switch {
						case err == nil && answer.Status >= 400: // what an HTTP app answers is its own affair
							failed.Add(1)
						case err == nil && string(answer.Data) != body:
							t.Errorf("%q was answered with %q", body, answer.Data)
						case err == nil:
							good.Add(1)
						case fault.ReasonOf(err) == "" || fault.ReasonOf(err) == fault.DeadlineExceeded:
							t.Errorf("%q: %v", body, err)
						default:
							failed.Add(1)
						}
					}
				})
			}
			go func() { calls.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(2 * long):
				t.Fatalf("%d of %d calls were answered", good.Load()+failed.Load(), callers*each)
			}
			if good.Load()+failed.Load() != callers*each || good.Load() == 0 || failed.Load() == 0 {
				t.Errorf("of %d calls %d were served and %d failed", callers*each, good.Load(), failed.Load())
			}
			for _, kind := range []mischief.Kind{mischief.Delay, mischief.Error, mischief.Cut, mischief.Panic, mischief.Slow} {
				if app.Plan.Met(kind) == 0 {
					t.Errorf("no call met a %s", kind)
				}
			}
			if n := app.Most(); n > most {
				t.Errorf("the app saw %d calls at once, it takes %d", n, most)
			}
			machine.Until(t, "the storm is over", func() error { return try(c, "unruly", "well/x", "x") })
		})
	}
}

// The callers of a target that hangs give up and ask again, for as long as another target serves a long row of calls: it
// serves them all, and none of the others is served before the target is well again.
func TestRetriesToAHungTargetHinderNoOther(t *testing.T) {
	app, port := unruly(t, "http", "100%:hang")
	m := machine.New(t)
	m.Sidecar("stuck", "--app-port", port)
	quick, caller := m.Sidecar("quick"), m.Sidecar("caller")
	quick.Serve(handlers("quick")...)
	meet(t, caller, "stuck", 1)
	meet(t, caller, "quick", 1)
	c := caller.Client()
	machine.Until(t, "the app is reached", func() error { return try(c, "stuck", "well/x", "x") })

	ctx, cancel := context.WithCancel(t.Context())
	var served, gaveUp atomic.Int64
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			for ctx.Err() == nil {
				bounded, done := context.WithTimeout(ctx, 200*time.Millisecond)
				_, err := c.Invoke(bounded, "stuck", "work", []byte("x"), sidecast.Idempotent())
				done()
				if err == nil {
					served.Add(1)
				}
				gaveUp.Add(1)
				select {
				case <-time.After(fault.RetryAfter(err)):
				case <-ctx.Done():
				}
			}
		})
	}
	machine.Until(t, "calls hang, and callers have given up", func() error {
		if app.Plan.Met(mischief.Hang) == 0 || gaveUp.Load() < 50 {
			return fmt.Errorf("%d hang, %d times somebody gave up", app.Plan.Met(mischief.Hang), gaveUp.Load())
		}
		return nil
	})
	before := gaveUp.Load()
	for n := 0; n < 300 || gaveUp.Load() == before; n++ {
		if o := settled(t, "quick", begin(c, "quick", "echo", long)); o.err != nil {
			t.Fatalf("call %d to another target: %v", n, o.err)
		}
	}
	cancel()
	callers.Wait()
	if n := served.Load(); n > 0 {
		t.Errorf("%d calls were served by a target that hangs", n)
	}
	machine.Until(t, "the target is well again", func() error { return try(c, "stuck", "well/x", "x") })
}
