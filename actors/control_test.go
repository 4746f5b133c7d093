package actors

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// crashLane makes the lane's actor fail on its next call, by the bomb that traps it, and waits until it is back.
func crashLane(t *testing.T, l *Lane, b *bomb) {
	t.Helper()
	b.armed.Store(true)
	wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
	time.Sleep(time.Minute)
	synctest.Wait()
}

func TestMaxWait(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		p := resiliency.Policy{MaxInFlight: 1, MaxQueue: 5, Queue: resiliency.Queue{MaxWait: time.Second}}
		l := s.Lane("l", p)
		release := hold(t, l)
		begun := time.Now()
		f := wantReason(t, l.Do(t.Context(), plain, works), fault.QueueShed)
		if took := time.Since(begun); took != time.Second || f.RetryAfter <= 0 || !fault.NotSent(f) {
			t.Errorf("after %v: %#v", took, f)
		}
		if s := l.Status(t.Context()); s.Refused != 1 || s.Queued != 0 || s.Waited.Count != 1 || s.Waited.Sum != time.Second {
			t.Errorf("status %+v", s)
		}

		waiting := make(chan error, 1)
		go func() { waiting <- l.Do(t.Context(), plain, works) }()
		time.Sleep(900 * time.Millisecond)
		release()
		if err := <-waiting; err != nil {
			t.Errorf("a call that waited less: %v", err)
		}

		release = hold(t, l)
		begun = time.Now()
		go func() { waiting <- l.Do(t.Context(), plain, works) }()
		time.Sleep(500 * time.Millisecond)
		p.Queue.MaxWait = 3 * time.Second
		l.SetPolicy(p)
		wantReason(t, <-waiting, fault.QueueShed)
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("under a longer bound it was shed after %v", took)
		}
		release()
	})
}

// TestManyOverdue: tickets that were told to be overdue are not used again while the lane may still look at them.
func TestManyOverdue(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{MaxInFlight: 2, MaxQueue: 1000, Queue: resiliency.Queue{MaxWait: time.Microsecond}})
	answers := make(chan error, 64)
	for range cap(answers) {
		go func() {
			for range 50 {
				err := l.Do(t.Context(), plain, func(context.Context, Grant) error { time.Sleep(time.Microsecond); return nil })
				if err != nil && fault.ReasonOf(err) != fault.QueueShed {
					answers <- err
					return
				}
			}
			answers <- nil
		}()
	}
	for range cap(answers) {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "nothing runs or waits", func() bool {
		s := l.Status(t.Context())
		return s.InFlight == 0 && s.Queued == 0
	})
}

// TestHold: a held lane lets nobody in, whatever its bounds, until an operator lets it go on; neither policies nor a
// restart do.
func TestHold(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		b := bomb{match: enters}
		s.trap = b.trap
		p := resiliency.Policy{MaxInFlight: 1, Queue: resiliency.Queue{MaxWait: time.Second}}
		l := s.Lane("l", p)
		l.SetAdmission(resiliency.Held)
		crashLane(t, l, &b)
		l.SetPolicy(p)

		bounded, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		wantReason(t, l.Do(bounded, plain, works), fault.DeadlineExceeded)

		const callers = 50
		var running, done atomic.Int64
		for range callers {
			go func() {
				err := l.Do(t.Context(), plain, func(context.Context, Grant) error {
					if running.Add(1) > 1 {
						t.Error("more than one runs")
					}
					time.Sleep(time.Millisecond)
					running.Add(-1)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				done.Add(1)
			}()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := l.Status(t.Context()); s.Queued != callers || s.InFlight != 0 || s.Admission != resiliency.Held || done.Load() != 0 {
			t.Errorf("held: %+v, %d done", s, done.Load())
		}
		l.SetAdmission(resiliency.Admitting)
		time.Sleep(time.Second / 2)
		if n := done.Load(); n != callers {
			t.Errorf("%d of %d done", n, callers)
		}
	})
}

func TestDrainOfHeldLane(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", resiliency.Policy{})
		l.SetAdmission(resiliency.Held)
		waiting := make(chan error, 1)
		go func() { waiting <- l.Do(t.Context(), plain, works) }()
		synctest.Wait()
		if err := l.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		wantReason(t, <-waiting, fault.LaneDraining)
	})
}

func TestTurnAway(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", resiliency.Policy{})
		l.SetAdmission(resiliency.TurnedAway)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneDraining)
		l.SetAdmission(resiliency.Admitting)
		if err := l.Do(t.Context(), plain, works); err != nil {
			t.Error(err)
		}
	})
}

// TestForceBreaker: what an operator forces outlives policies and restarts of the lane.
func TestForceBreaker(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		b := bomb{match: enters}
		s.trap = b.trap
		l := s.Lane("l", resiliency.Policy{})
		l.ForceBreaker(resiliency.ForcedOpen)
		crashLane(t, l, &b)
		l.SetPolicy(resiliency.Policy{Breaker: resiliency.Breaker{Failures: 1, OpenFor: time.Hour}})
		f := wantReason(t, l.Do(t.Context(), plain, works), fault.BreakerOpen)
		if !strings.Contains(f.Error(), "operator") || f.RetryAfter <= 0 {
			t.Errorf("refused with %v", f)
		}

		l.ForceBreaker(resiliency.ForcedClosed)
		crashLane(t, l, &b)
		for range 3 {
			wantReason(t, l.Do(t.Context(), plain, fails(fault.InstanceLost)), fault.InstanceLost)
		}

		l.ForceBreaker(resiliency.NotForced)
		wantReason(t, l.Do(t.Context(), plain, fails(fault.InstanceLost)), fault.InstanceLost)
		wantReason(t, l.Do(t.Context(), plain, works), fault.BreakerOpen)
		if s := l.Status(t.Context()); s.Breaker != "open" || s.BreakerForced {
			t.Errorf("status %+v", s)
		}
	})
}
