package actors

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a system that the test closes, and waits for.
func open(t *testing.T, o Options) *System {
	t.Helper()
	s := NewSystem(o)
	t.Cleanup(func() { shut(t, s) })
	return s
}

func shut(t *testing.T, s *System) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

// bubble runs a test with time of its own, and a system that ends within it.
func bubble(t *testing.T, o Options, f func(t *testing.T, s *System)) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSystem(o)
		f(t, s)
		shut(t, s)
		time.Sleep(10 * time.Millisecond) // the library counts dead letters for a millisecond, in a goroutine that nobody waits for
	})
}

var (
	plain      = resiliency.Call{Op: "op"}
	idempotent = resiliency.Call{Op: "op", Idempotent: true}
)

func works(context.Context, Grant) error { return nil }

func fails(reason fault.Reason) func(context.Context, Grant) error {
	return func(context.Context, Grant) error { return fault.New("attempt", reason, "it failed") }
}

// hold occupies a slot of l until the returned function is called, which waits for the call to end.
func hold(t *testing.T, l *Lane) (release func()) {
	t.Helper()
	in, out := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		err := l.Do(context.Background(), plain, func(context.Context, Grant) error {
			close(in)
			<-out
			return nil
		})
		if err != nil {
			t.Errorf("the call that held a slot: %v", err)
		}
	})
	<-in
	return func() { close(out); group.Wait() }
}

// eventually polls a condition that other goroutines make true.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func queued(l *Lane, n int) func() bool {
	return func() bool { return l.Status(context.Background()).Queued == n }
}

func wantReason(t *testing.T, err error, reason fault.Reason) *fault.Error {
	t.Helper()
	var f *fault.Error
	if !errors.As(err, &f) || f.Reason != reason {
		t.Fatalf("got %v, want %s", err, reason)
	}
	return f
}

func TestCallSucceeds(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{Name: "p", MaxInFlight: 1})
	for range 3 {
		var got Grant
		if err := l.Do(t.Context(), plain, func(_ context.Context, g Grant) error { got = g; return nil }); err != nil {
			t.Fatal(err)
		}
		if got.Attempt != 1 || got.Endpoint != "" || got.racer != 0 {
			t.Errorf("grant %+v", got)
		}
	}
	if s := l.Status(t.Context()); s.Admitted != 3 || s.Policy != "p" || s.InFlightLimit != 1 {
		t.Errorf("status %+v", s)
	}
}

func TestFailureNamesTheLane(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{Name: "p"})
	f := wantReason(t, l.Do(t.Context(), plain, fails(fault.AppFailed)), fault.AppFailed)
	if f.Meta["lane"] != "l" || f.Meta["policy"] != "p" || f.Meta["attempts"] != "1" {
		t.Errorf("meta %v", f.Meta)
	}
	cause := errors.New("plain")
	if err := l.Do(t.Context(), plain, func(context.Context, Grant) error { return cause }); !errors.Is(err, cause) {
		t.Errorf("lost the cause: %v", err)
	}
}

func TestRetryWaits(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", resiliency.Policy{MaxInFlight: 1, Retry: resiliency.Retry{Max: 3, Initial: time.Second}})
		begun, attempts := time.Now(), 0
		err := l.Do(t.Context(), idempotent, func(_ context.Context, g Grant) error {
			if attempts++; g.Attempt != attempts {
				t.Errorf("attempt %d is numbered %d", attempts, g.Attempt)
			}
			if attempts < 3 {
				return fault.New("attempt", fault.InstanceLost, "gone")
			}
			return nil
		})
		if took := time.Since(begun); err != nil || took != 3*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		if s := l.Status(t.Context()); s.Retried != 2 || s.Failed != 2 || s.InFlight != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestRetryRestsWithoutSlot(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", resiliency.Policy{MaxInFlight: 1, Retry: resiliency.Retry{Max: 1, Initial: time.Hour}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Do(ctx, idempotent, fails(fault.InstanceLost)) }()
		synctest.Wait()
		if err := l.Do(t.Context(), plain, works); err != nil {
			t.Errorf("while another rests: %v", err)
		}
		cancel()
		f := wantReason(t, <-done, fault.CallCanceled)
		if !strings.Contains(f.Error(), "INSTANCE_LOST") {
			t.Errorf("%v does not tell the failure before", f)
		}
	})
}

func TestAttemptTimeout(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", resiliency.Policy{AttemptTimeout: time.Second, Retry: resiliency.Retry{Max: 1, Initial: time.Second}})
		begun := time.Now()
		err := l.Do(t.Context(), idempotent, func(ctx context.Context, g Grant) error {
			<-ctx.Done()
			return ctx.Err()
		})
		f := wantReason(t, err, fault.AttemptTimeout)
		if took := time.Since(begun); took != 3*time.Second || f.Meta["attempts"] != "2" || f.Kind != fault.Timeout {
			t.Errorf("%v after %v", f, took)
		}
	})
}

func TestCallTimeout(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", resiliency.Policy{CallTimeout: time.Second, MaxInFlight: 1, MaxQueue: 1, Retry: resiliency.Retry{Max: -1}})
		running := make(chan error, 1)
		go func() {
			running <- l.Do(t.Context(), idempotent, func(ctx context.Context, g Grant) error { <-ctx.Done(); return ctx.Err() })
		}()
		synctest.Wait()
		begun := time.Now()
		waiting := l.Do(t.Context(), plain, works)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("waited %v", took)
		}
		// Both end at the same moment: the one that waits may just have got the slot of the other.
		if waiting != nil && fault.KindOf(waiting) != fault.Timeout {
			t.Errorf("the one that waited: %v", waiting)
		}
		wantReason(t, <-running, fault.DeadlineExceeded)
	})
}

func TestSpentDeadlineIsRefused(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{})
	past, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for range 20 {
		wantReason(t, l.Do(past, plain, works), fault.BudgetSpent)
	}
	wantReason(t, l.Do(t.Context(), resiliency.Call{Op: "op", Deadline: time.Now().Add(-1)}, works), fault.BudgetSpent)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantReason(t, l.Do(gone, plain, works), fault.CallCanceled)
	if s := l.Status(t.Context()); s.Admitted != 0 || s.Refused != 22 {
		t.Errorf("status %+v", s)
	}
}

func TestQueueRefusesEarly(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{MaxInFlight: 1, MaxQueue: 1})
	release := hold(t, l)
	waited := make(chan error, 1)
	go func() { waited <- l.Do(t.Context(), plain, works) }()
	eventually(t, "one waits", queued(l, 1))
	f := wantReason(t, l.Do(t.Context(), plain, works), fault.QueueFull)
	if f.Kind != fault.Exhausted || f.RetryAfter <= 0 {
		t.Errorf("%v, retry after %v", f, f.RetryAfter)
	}
	release()
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

func TestCallerLeavesTheQueue(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{MaxInFlight: 1, MaxQueue: 1})
	release := hold(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- l.Do(ctx, plain, works) }()
	eventually(t, "one waits", queued(l, 1))
	cancel()
	wantReason(t, <-left, fault.CallCanceled)
	eventually(t, "its place is free", queued(l, 0))
	release()
	if err := l.Do(t.Context(), plain, works); err != nil {
		t.Error(err)
	}
}

func TestAttemptPanics(t *testing.T) {
	var log bytes.Buffer
	l := open(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Lane("l", resiliency.Policy{MaxInFlight: 1})
	f := wantReason(t, l.Do(t.Context(), plain, func(context.Context, Grant) error { panic("ouch") }), fault.Panicked)
	if !strings.Contains(f.Error(), "ouch") || !strings.Contains(log.String(), "TestAttemptPanics") {
		t.Errorf("%v, logged %s", f, log.String())
	}
	if err := l.Do(t.Context(), plain, works); err != nil {
		t.Error(err)
	}
}

func TestBreakersAreInTheLog(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, _ *System) {
		var log bytes.Buffer
		s := NewSystem(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		l := s.Lane("app/pricing", resiliency.Policy{Breaker: resiliency.Breaker{Failures: 2, OpenFor: time.Second, Probes: 1}})
		for range 2 {
			wantReason(t, l.Do(t.Context(), plain, fails(fault.InstanceLost)), fault.InstanceLost)
		}
		for range 3 {
			wantReason(t, l.Do(t.Context(), plain, works), fault.BreakerOpen)
		}
		time.Sleep(2 * time.Second)
		wantReason(t, l.Do(t.Context(), plain, fails(fault.InstanceLost)), fault.InstanceLost) // a probe
		time.Sleep(2 * time.Second)
		if err := l.Do(t.Context(), plain, works); err != nil {
			t.Error(err)
		}
		shut(t, s)
		var told []string
		for line := range strings.Lines(log.String()) {
			told = append(told, line[strings.Index(line, "level="):])
		}
		if len(told) != 2 || !strings.HasPrefix(told[0], `level=WARN msg="the breaker opened: calls are refused until probes succeed" lane=app/pricing why="2 calls in a row failed`) ||
			told[1] != "level=INFO msg=\"the breaker has closed again\" lane=app/pricing\n" {
			t.Errorf("the log says %q", told)
		}
	})
}

func TestAttemptExits(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{MaxInFlight: 1})
	var group sync.WaitGroup
	group.Go(func() {
		_ = l.Do(context.Background(), plain, func(context.Context, Grant) error { runtime.Goexit(); return nil })
	})
	group.Wait()
	eventually(t, "the slot is free", func() bool { return l.Do(t.Context(), plain, works) == nil })
}

func TestBalancedLane(t *testing.T) {
	l := open(t, Options{}).BalancedLane("app/orders", resiliency.Policy{Retry: resiliency.Retry{Max: 2, Initial: time.Millisecond}})
	f := wantReason(t, l.Do(t.Context(), plain, works), fault.AppNotFound)
	if f.Kind != fault.Unavailable || f.Meta["attempts"] != "3" {
		t.Errorf("%v %v", f, f.Meta)
	}
	l.SetEndpoints([]resiliency.Endpoint{{ID: "a"}, {ID: "b"}, {ID: "c"}})
	went := map[string]int{}
	for range 30 {
		if err := l.Do(t.Context(), plain, func(_ context.Context, g Grant) error { went[g.Endpoint]++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if went["a"] != 10 || went["b"] != 10 || went["c"] != 10 {
		t.Errorf("went to %v", went)
	}
	var tried []string
	err := l.Do(t.Context(), plain, func(_ context.Context, g Grant) error {
		tried = append(tried, g.Endpoint)
		return fault.New("attempt", fault.NoResponders, "nobody")
	})
	f = wantReason(t, err, fault.NoResponders)
	if len(tried) != 3 || tried[0] == tried[1] || tried[1] == tried[2] || tried[0] == tried[2] || f.Meta["endpoint"] != tried[2] {
		t.Errorf("tried %v, told %v", tried, f.Meta)
	}
}

func TestSetPolicyOfARunningLane(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{MaxInFlight: 1, MaxQueue: 5})
	release := hold(t, l)
	var waited [3]chan error
	for i := range waited {
		waited[i] = make(chan error, 1)
		go func() { waited[i] <- l.Do(t.Context(), plain, works) }()
	}
	eventually(t, "three wait", queued(l, 3))
	l.SetPolicy(resiliency.Policy{Name: "wide", MaxInFlight: 4})
	for _, w := range waited {
		if err := <-w; err != nil {
			t.Error(err)
		}
	}
	if s := l.Status(t.Context()); s.Policy != "wide" || s.InFlightLimit != 4 {
		t.Errorf("status %+v", s)
	}
	release()
}

func TestDrain(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{MaxInFlight: 1, MaxQueue: 1, Retry: resiliency.Retry{Max: 9, Initial: time.Hour}})
	resting := make(chan error, 1)
	go func() { resting <- l.Do(t.Context(), idempotent, fails(fault.InstanceLost)) }()
	eventually(t, "one rests", func() bool { return l.Status(t.Context()).Failed == 1 })
	release := hold(t, l)
	waiting := make(chan error, 1)
	go func() { waiting <- l.Do(t.Context(), plain, works) }()
	eventually(t, "one waits", queued(l, 1))
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	wantReason(t, l.Drain(short), fault.DeadlineExceeded)
	wantReason(t, l.Do(t.Context(), plain, works), fault.LaneDraining)
	if f := wantReason(t, <-resting, fault.InstanceLost); !strings.Contains(f.Error(), "not tried again") {
		t.Errorf("%v does not say why there was no retry", f)
	}
	release()
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if err := l.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLaneClose(t *testing.T) {
	s := open(t, Options{})
	l := s.Lane("l", resiliency.Policy{Name: "old"})
	if s.Lane("l", resiliency.Policy{Name: "new"}) != l {
		t.Error("the first lane did not stay")
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantReason(t, l.Do(t.Context(), plain, works), fault.LaneDraining)
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if again := s.Lane("l", resiliency.Policy{Name: "new"}); again == l || again.Do(t.Context(), plain, works) != nil {
		t.Error("no new lane")
	}
}

func TestSystemClose(t *testing.T) {
	s := NewSystem(Options{})
	l := s.Lane("l", resiliency.Policy{MaxInFlight: 1, MaxQueue: 1})
	release := hold(t, l)
	waiting := make(chan error, 1)
	go func() { waiting <- l.Do(t.Context(), plain, works) }()
	eventually(t, "one waits", queued(l, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); fault.KindOf(err) != fault.Timeout {
		t.Errorf("close with a call in flight: %v", err)
	}
	wantReason(t, <-waiting, fault.Shutdown)
	wantReason(t, l.Do(t.Context(), plain, works), fault.Shutdown)
	wantReason(t, s.Lane("other", resiliency.Policy{}).Do(t.Context(), plain, works), fault.Shutdown)
	release()
	l.SetPolicy(resiliency.Policy{})
	l.SetEndpoints(nil)
	if s := l.Status(t.Context()); s.Refused == 0 {
		t.Errorf("status %+v", s)
	}
	if err := errors.Join(l.Drain(t.Context()), l.Close(t.Context()), s.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// TestMailboxIsBounded: calls that come faster than the actor can even refuse them are refused without it.
func TestMailboxIsBounded(t *testing.T) {
	s := open(t, Options{})
	gate := make(chan struct{})
	s.trap = func(_ string, message any) {
		if _, ok := message.(resiliency.Enter); ok {
			<-gate
		}
	}
	l := s.Lane("l", resiliency.Policy{})
	l.room.Store(10)
	var refused, done atomic.Int64
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			switch err := l.Do(t.Context(), plain, works); fault.ReasonOf(err) {
			case fault.QueueFull:
				refused.Add(1)
			case "":
				done.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	// Ten wait in the mailbox, and one may be with the actor.
	eventually(t, "the others are refused", func() bool { return refused.Load() >= 89 })
	close(gate)
	group.Wait()
	if refused.Load()+done.Load() != 100 {
		t.Errorf("%d done, %d refused", done.Load(), refused.Load())
	}
}

// TestQuiet: starting, working and stopping is no news.
func TestQuiet(t *testing.T) {
	var log bytes.Buffer
	s := NewSystem(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err := s.Lane("l", resiliency.Policy{}).Do(t.Context(), plain, works); err != nil {
		t.Fatal(err)
	}
	s.Worker("w", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	shut(t, s)
	if log.Len() != 0 {
		t.Errorf("logged %s", log.String())
	}
}

// TestAttemptEndedByItsPeer: the peer of an attempt sees its time run out a moment early; that is the attempt's timeout, as
// long as it is not the call's own.
func TestAttemptEndedByItsPeer(t *testing.T) {
	for name, c := range map[string]struct {
		policy resiliency.Policy
		early  time.Duration
		want   fault.Reason
	}{
		"a moment early":       {resiliency.Policy{CallTimeout: time.Minute, AttemptTimeout: time.Second}, time.Millisecond, fault.AttemptTimeout},
		"no bound but its own": {resiliency.Policy{AttemptTimeout: time.Second}, time.Millisecond, fault.AttemptTimeout},
		"long before":          {resiliency.Policy{CallTimeout: time.Minute, AttemptTimeout: time.Second}, 500 * time.Millisecond, fault.DeadlineExceeded},
		"the call's own time":  {resiliency.Policy{CallTimeout: time.Second}, time.Millisecond, fault.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, s *System) {
				err := s.Lane("l", c.policy).Do(t.Context(), plain, func(context.Context, Grant) error {
					time.Sleep(time.Second - c.early)
					return fault.New("peer", fault.DeadlineExceeded, "the deadline passed")
				})
				wantReason(t, err, c.want)
			})
		})
	}
}

// An attempt whose context ends with its call's, by a cancel and not by a deadline, says that it was canceled: it is the call
// that says why.
func TestACanceledAttemptOfACallThatIsOver(t *testing.T) {
	policy := resiliency.Policy{CallTimeout: time.Second, Breaker: resiliency.Breaker{Failures: 1, OpenFor: time.Hour}}
	for name, c := range map[string]struct {
		leave time.Duration // when the caller does
		want  fault.Reason
		after string
	}{
		"its time is up":      {time.Minute, fault.DeadlineExceeded, "open"},
		"its caller has gone": {time.Millisecond, fault.CallCanceled, "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, s *System) {
				l := s.Lane("l", policy)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(c.leave, cancel)
				err := l.Do(ctx, plain, func(ctx context.Context, _ Grant) error {
					<-ctx.Done()
					return fault.New("peer", fault.CallCanceled, "the stream was closed")
				})
				wantReason(t, err, c.want)
				if got := l.Status(t.Context()).Breaker; got != c.after {
					t.Errorf("the breaker is %s, want %s", got, c.after)
				}
			})
		})
	}
}
