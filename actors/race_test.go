package actors

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

var hedged = resiliency.Policy{Name: "p", MaxInFlight: 8, Hedge: resiliency.Hedge{After: 20 * time.Millisecond, Max: 2}}

// takes is an attempt that answers with its endpoint after a time of its own, unless its context ends first.
func takes(times map[string]time.Duration) func(context.Context, Grant) (string, error) {
	return func(ctx context.Context, g Grant) (string, error) {
		select {
		case <-time.After(times[g.Endpoint]):
			return g.Endpoint, nil
		case <-ctx.Done():
			return "cancelled " + g.Endpoint, ctx.Err()
		}
	}
}

func balancedLane(s *System, p resiliency.Policy, ids ...string) *Lane {
	l := s.BalancedLane("l", p)
	for _, id := range ids {
		l.SetEndpoints(append(*l.endpoints.Load(), resiliency.Endpoint{ID: id}))
	}
	return l
}

func TestHedgeAnswersForASlowAttempt(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := balancedLane(s, hedged, "slow")
		begun := time.Now()
		answer := make(chan string)
		go func() {
			got, err := Do(t.Context(), l, idempotent, takes(map[string]time.Duration{"slow": time.Hour, "fast": time.Millisecond}))
			if err != nil {
				t.Error(err)
			}
			answer <- got
		}()
		time.Sleep(10 * time.Millisecond)
		l.SetEndpoints([]resiliency.Endpoint{{ID: "slow"}, {ID: "fast"}})
		if got := <-answer; got != "fast" || time.Since(begun) != 21*time.Millisecond {
			t.Errorf("%s answered after %v", got, time.Since(begun))
		}
		status := l.Status(t.Context())
		if status.InFlight != 0 || status.Hedged != 1 || status.Admitted != 1 || status.Failed != 0 {
			t.Errorf("the lane counts %+v", status)
		}
	})
}

func TestFirstAttemptCancelsItsHedges(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", hedged)
		var cancelled atomic.Int32
		got, err := Do(t.Context(), l, idempotent, func(ctx context.Context, g Grant) (int, error) {
			if g.racer == 0 {
				time.Sleep(50 * time.Millisecond)
				return 0, nil
			}
			<-ctx.Done()
			cancelled.Add(1)
			return g.racer, ctx.Err()
		})
		if got != 0 || err != nil || cancelled.Load() != 2 {
			t.Errorf("attempt %d answered with %v after %d hedges were cancelled", got, err, cancelled.Load())
		}
		if status := l.Status(t.Context()); status.InFlight != 0 || status.Hedged != 2 {
			t.Errorf("the lane counts %+v", status)
		}
	})
}

// TestHedgeAnswersForAFailedAttempt: an attempt that fails while its hedge runs waits for the hedge, and is retried only
// if that fails too.
func TestHedgeAnswersForAFailedAttempt(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		policy := hedged
		policy.Hedge.Max = 1
		policy.Retry = resiliency.Retry{Max: 1, Initial: time.Second}
		policy.Breaker = resiliency.Breaker{Failures: 100}
		l := s.Lane("l", policy)
		for _, hedgeFails := range []bool{false, true} {
			var attempts atomic.Int32
			got, err := Do(t.Context(), l, idempotent, func(ctx context.Context, g Grant) (int, error) {
				attempts.Add(1)
				time.Sleep(30 * time.Millisecond)
				if g.racer == 0 && g.Attempt == 1 || hedgeFails {
					return g.racer, fault.New("attempt", fault.InstanceLost, "it failed")
				}
				return g.racer, nil
			})
			if hedgeFails {
				f := wantReason(t, err, fault.InstanceLost)
				if attempts.Load() != 4 || f.Meta["attempts"] != "2" {
					t.Errorf("%d attempts made: %v", attempts.Load(), f)
				}
			} else if got != 1 || err != nil || attempts.Load() != 2 {
				t.Errorf("racer %d answered, %v, after %d attempts", got, err, attempts.Load())
			}
		}
		if status := l.Status(t.Context()); status.InFlight != 0 || status.Failed != 5 {
			t.Errorf("the lane counts %+v", status)
		}
	})
}

// TestTheFirstAnswerThatBeginsCounts: from then on the other attempt is given up, and what comes of the answer is what
// comes of the call.
func TestTheFirstAnswerThatBeginsCounts(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		policy := hedged
		policy.Hedge.Max = 1
		policy.CallTimeout = time.Minute // which the rest of an answer may outlast
		for racer := range 2 {
			for _, breaks := range []bool{false, true} {
				l := s.Lane(fmt.Sprint(racer, breaks), policy)
				begun := time.Now()
				var given time.Duration // after which the other was given up
				got, err := Do(t.Context(), l, idempotent, func(ctx context.Context, g Grant) (int, error) {
					if g.racer != racer {
						<-ctx.Done()
						given = time.Since(begun)
						return -1, ctx.Err()
					}
					time.Sleep(30 * time.Millisecond)
					g.Answered(time.Now(), true)
					time.Sleep(time.Hour)
					if breaks {
						return racer, fault.New("attempt", fault.InstanceLost, "it broke off")
					}
					return racer, nil
				})
				want, wantGiven := fault.Reason(""), 30*time.Millisecond
				if racer == 1 {
					wantGiven += policy.Hedge.After
				}
				if breaks {
					want = fault.InstanceLost
				}
				if got != racer || fault.ReasonOf(err) != want || given != wantGiven {
					t.Errorf("racer %d answered, breaks off %v: racer %d counts, %v, the other is given up after %v", racer, breaks, got, err, given)
				}
				status := l.Status(t.Context())
				if status.InFlight != 0 || status.TimedOut != 0 || (status.Failed == 1) != breaks {
					t.Errorf("racer %d, breaks off %v: the lane counts %+v", racer, breaks, status)
				}
			}
		}
	})
}

// TestAHedgeThatAnsweredAndExits: an attempt that ends its goroutine when its answer has begun leaves no answer.
func TestAHedgeThatAnsweredAndExits(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", hedged)
		_, err := Do(t.Context(), l, idempotent, func(ctx context.Context, g Grant) (int, error) {
			if g.racer == 1 {
				g.Answered(time.Now(), true)
				runtime.Goexit()
			}
			<-ctx.Done()
			return 0, ctx.Err()
		})
		wantReason(t, err, fault.Defect)
		if status := l.Status(t.Context()); status.InFlight != 0 {
			t.Errorf("the lane counts %+v", status)
		}
	})
}

func TestOnlyIdempotentCallsAreHedged(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		l := s.Lane("l", hedged)
		slow := func(context.Context, Grant) (int, error) { time.Sleep(time.Second); return 0, nil }
		if _, err := Do(t.Context(), l, plain, slow); err != nil {
			t.Error(err)
		}
		if err := l.Do(t.Context(), idempotent, func(ctx context.Context, g Grant) error { _, err := slow(ctx, g); return err }); err != nil {
			t.Error(err)
		}
		if status := l.Status(t.Context()); status.Hedged != 0 {
			t.Errorf("the lane counts %+v", status)
		}
	})
}

// TestHedgesInAStorm: whatever attempts do, also panic or end their goroutine, every call gets one answer, no more run
// than the lane allows, and none is left.
func TestHedgesInAStorm(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Millisecond}, func(t *testing.T, s *System) {
		policy := hedged
		policy.Retry = resiliency.Retry{Max: 2, Initial: time.Millisecond}
		policy.MaxQueue = 1000
		l := s.Lane("l", policy)
		var running, answers, exits atomic.Int32
		attempt := func(ctx context.Context, g Grant) (int, error) {
			if n := running.Add(1); int(n) > policy.MaxInFlight {
				t.Errorf("%d attempts run", n)
			}
			defer running.Add(-1)
			select {
			case <-time.After(time.Duration(rand.IntN(80)) * time.Millisecond):
			case <-ctx.Done():
				return 0, ctx.Err()
			}
			switch rand.IntN(8) {
			case 0:
				panic("boom")
			case 1:
				return 0, errors.New("it failed")
			case 2:
				return 0, fault.New("attempt", fault.InstanceLost, "it failed")
			case 3:
				exits.Add(1)
				runtime.Goexit()
			}
			return 7, nil
		}
		var callers sync.WaitGroup
		for range 300 {
			callers.Go(func() {
				ended := false
				defer func() {
					if ended {
						answers.Add(1)
					} else {
						exits.Add(-1) // of the caller's own attempt
					}
				}()
				got, err := Do(t.Context(), l, idempotent, attempt)
				if ended = true; (err == nil) != (got == 7) {
					t.Errorf("answered %d, %v", got, err)
				}
			})
		}
		callers.Wait()
		status := l.Status(t.Context())
		if running.Load() != 0 || status.InFlight != 0 || status.Queued != 0 {
			t.Errorf("%d attempts run after the storm; the lane counts %+v", running.Load(), status)
		}
		if answers.Load() == 0 || exits.Load() < 0 || status.Hedged == 0 {
			t.Errorf("%d answers, %d hedges, exits off by %d", answers.Load(), status.Hedged, exits.Load())
		}
	})
}
