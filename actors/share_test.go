package actors

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

func limited(limits ...resiliency.RateLimit) resiliency.Policy {
	return resiliency.Policy{Name: "limited", Limits: limits}
}

var (
	own    = resiliency.RateLimit{Name: "own", Limit: 10, Per: time.Minute, Algorithm: resiliency.FixedWindow}
	common = resiliency.RateLimit{Name: "common", Limit: 10, Per: time.Minute, Algorithm: resiliency.FixedWindow, Global: true}
)

// passes calls the lane so often and counts how many calls passed.
func passes(l *Lane, calls int) (n int) {
	for range calls {
		if l.Do(context.Background(), plain, works) == nil {
			n++
		}
	}
	return n
}

// TestShares: a lane begins with the share that the system says, counts what it is offered, and keeps what it was told
// over a restart and a change of policy.
func TestShares(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Second}, func(t *testing.T, s *System) {
		b := bomb{match: enters}
		s.trap = b.trap
		s.Share(func(lane, limit string) float64 {
			if lane != "shared" || limit != "common" {
				t.Errorf("asked for %s of %s", limit, lane)
			}
			return .5
		})
		l, alone := s.Lane("shared", limited(own, common)), s.Lane("alone", limited(own))
		if sharing := s.Sharing(); len(sharing) != 1 || sharing[0] != l {
			t.Errorf("%v share", sharing)
		}
		if n := passes(l, 8); n != 5 {
			t.Errorf("%d calls pass with half of ten", n)
		}
		if n := passes(alone, 12); n != 10 {
			t.Errorf("%d calls pass the lane's own limit", n)
		}
		d := l.Demands(t.Context())
		if len(d) != 1 || d[0].Limit != "common" || d[0].Calls != 10 || d[0].Per != time.Minute || !d[0].Whole || d[0].Offered != 8 {
			t.Errorf("it was offered %+v", d)
		}
		if d := l.Demands(t.Context()); d[0].Offered != 0 {
			t.Errorf("and then %+v", d)
		}

		l.SetShare("common", .2, true)
		b.armed.Store(true)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		if d := l.Demands(t.Context()); d != nil {
			t.Errorf("a lane that is down was offered %+v", d)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := passes(l, 8); n != 2 {
			t.Errorf("%d calls pass with a fifth of ten after a restart", n)
		}
		if limits := l.Status(t.Context()).Limits; limits[1].Share != .2 || limits[1].State != "local share (fabric lost)" {
			t.Errorf("its limits are %+v", limits)
		}

		l.SetPolicy(limited(own))
		if sharing := s.Sharing(); len(sharing) != 0 {
			t.Errorf("%v share", sharing)
		}
		changed := common
		changed.Algorithm = resiliency.SlidingLog
		l.SetPolicy(limited(changed))
		if n := passes(l, 8); n != 2 {
			t.Errorf("%d calls pass with a fifth of ten under a new policy", n)
		}
	})
}

// TestWaitForALimit: a call waits until it conforms, as one attempt; who goes away meanwhile is told what it waited for.
func TestWaitForALimit(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", limited(resiliency.RateLimit{
			Name: "slow", Algorithm: resiliency.LeakyBucket, Limit: 1, Per: time.Second, MaxWait: 3 * time.Second,
		}))
		began := time.Now()
		for i := range 3 {
			var grants []Grant
			err := l.Do(t.Context(), plain, func(_ context.Context, g Grant) error { grants = append(grants, g); return nil })
			if took := time.Since(began); err != nil || took != time.Duration(i)*time.Second || len(grants) != 1 || grants[0].Attempt != 1 {
				t.Errorf("call %d: %v after %v, grants %v", i, err, took, grants)
			}
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, context.DeadlineExceeded)
		defer cancel()
		gone, leave := context.WithCancel(ctx)
		time.AfterFunc(time.Millisecond, leave)
		wantReason(t, l.Do(gone, plain, works), fault.CallCanceled)
		if s := l.Status(t.Context()); s.InFlight != 0 || s.Queued != 0 {
			t.Errorf("it left %+v", s)
		}
		time.Sleep(time.Hour)
		if n := passes(l, 1); n != 1 {
			t.Error("the lane has stuck")
		}
	})
}
