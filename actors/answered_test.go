package actors

import (
	"context"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// What a lane learns of its target's speed is the time until an answer begins, where an attempt says when that was.
func TestAnAttemptTookUntilItsAnswerBegan(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		slowTrips := resiliency.Policy{Name: "p", Breaker: resiliency.Breaker{SlowRatio: .5, SlowAfter: time.Second, WindowCalls: 2, MinCalls: 2}}
		for name, c := range map[string]struct {
			said  bool
			state string
		}{"said": {true, "closed"}, "not said": {false, "open"}} {
			l := s.Lane(name, slowTrips)
			for range 2 {
				_ = l.Do(t.Context(), plain, func(_ context.Context, g Grant) error {
					time.Sleep(time.Millisecond)
					if c.said {
						g.Answered(time.Now(), true)
					}
					time.Sleep(time.Hour)
					return nil
				})
			}
			if got := l.Status(t.Context()).Breaker; got != c.state {
				t.Errorf("%s: the breaker is %s, want %s", name, got, c.state)
			}
		}
		Grant{}.Answered(time.Now(), true) // of nobody's attempt
	})
}

// Timeouts are for the head of an answer: whoever leaves after it says nothing of the target.
func TestTheTimeOfAnAnsweredAttemptIsNotUp(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		for name, p := range map[string]resiliency.Policy{
			"call": {Name: "p", CallTimeout: time.Second}, "attempt": {Name: "p", AttemptTimeout: time.Second},
		} {
			p.Breaker = resiliency.Breaker{Failures: 1}
			l := s.Lane(name, p)
			err := l.Do(t.Context(), plain, func(_ context.Context, g Grant) error {
				g.Answered(time.Now(), true)
				time.Sleep(time.Hour)
				return fault.New("attempt", fault.CallCanceled, "the caller left")
			})
			wantReason(t, err, fault.CallCanceled)
			if status := l.Status(t.Context()); status.TimedOut != 0 || status.Breaker != "closed" {
				t.Errorf("%s: the lane counts %+v", name, status)
			}
		}
	})
}

// Both lanes of an attempt that passes through two hear when its answer began.
func TestAnAttemptBehindTwoLanes(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, s *System) {
		slowTrips := resiliency.Policy{Name: "p", Breaker: resiliency.Breaker{SlowRatio: .5, SlowAfter: time.Second, WindowCalls: 1, MinCalls: 1}}
		first, second := s.Lane("first", slowTrips), s.Lane("second", slowTrips)
		_ = first.Do(t.Context(), plain, func(ctx context.Context, outer Grant) error {
			return second.Do(ctx, plain, func(_ context.Context, g Grant) error {
				g.Behind(outer).Answered(time.Now(), true)
				time.Sleep(time.Hour)
				return nil
			})
		})
		for _, l := range []*Lane{first, second} {
			if got := l.Status(t.Context()).Breaker; got != "closed" {
				t.Errorf("the breaker of the lane %s is %s", l.Name(), got)
			}
		}
	})
}
