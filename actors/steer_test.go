package actors

import (
	"context"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// TestOverrideOutlivesPoliciesAndRestarts: what an operator changed holds until it is taken back.
func TestOverrideOutlivesPoliciesAndRestarts(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Second}, func(t *testing.T, s *System) {
		b := bomb{match: enters}
		s.trap = b.trap
		l := s.Lane("l", resiliency.Policy{Name: "first", MaxInFlight: 8, MaxQueue: 4})
		one, none := 1, 0
		changed, err := l.Override(resiliency.Override{MaxInFlight: &one, MaxQueue: &none})
		want := []resiliency.Change{{What: "in flight", From: "8", To: "1"}, {What: "queue", From: "4", To: "0"}}
		if err != nil || !reflect.DeepEqual(changed, want) {
			t.Fatalf("changed %+v, %v", changed, err)
		}
		holds := func(when, policy string) {
			t.Helper()
			synctest.Wait()
			release := hold(t, l)
			f := wantReason(t, l.Do(t.Context(), plain, works), fault.QueueFull)
			release()
			if got := l.Status(t.Context()); got.InFlightLimit != 1 || got.QueueLimit != 0 || len(got.Overridden) != 2 || f.Meta["policy"] != policy {
				t.Errorf("%s: %+v, refused by policy %s", when, got, f.Meta["policy"])
			}
		}
		holds("at once", "first")
		l.SetPolicy(resiliency.Policy{Name: "second", MaxInFlight: 16, MaxQueue: 16})
		holds("after a new policy", "second")
		b.armed.Store(true)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		time.Sleep(2 * time.Second)
		holds("after a restart", "second")

		want = []resiliency.Change{{What: "in flight", From: "1", To: "16"}, {What: "queue", From: "0", To: "16"}}
		if got := l.Reset(); !reflect.DeepEqual(got, want) {
			t.Errorf("reset %+v", got)
		}
		if got := l.Status(t.Context()); got.InFlightLimit != 16 || got.QueueLimit != 16 || got.Overridden != nil || l.Reset() != nil {
			t.Errorf("after the reset %+v", got)
		}
	})
}

// TestOverrideThatCannotBeChangesNothing: not even the part of it that could.
func TestOverrideThatCannotBeChangesNothing(t *testing.T) {
	l := open(t, Options{}).Lane("l", resiliency.Policy{
		Name: "p", MaxInFlight: 8, MaxQueue: 4, Limits: []resiliency.RateLimit{{Name: "all", Limit: 5, Per: time.Second}},
	})
	two, minus, none := 2, -1, 0
	for name, o := range map[string]resiliency.Override{
		"negative":         {MaxInFlight: &two, MaxQueue: &minus},
		"unknown rate":     {MaxInFlight: &two, Rates: map[string]resiliency.Rate{"each": {Limit: 1, Per: time.Second}}},
		"queue of nothing": {MaxInFlight: &none},
	} {
		changed, err := l.Override(o)
		wantReason(t, err, fault.BadRequest)
		if got := l.Status(t.Context()); changed != nil || got.InFlightLimit != 8 || got.QueueLimit != 4 || got.Overridden != nil {
			t.Errorf("%s: changed %+v, now %+v", name, changed, got)
		}
	}
	three := 3
	if _, err := l.Override(resiliency.Override{Rates: map[string]resiliency.Rate{"all": {Limit: 9, Per: time.Minute}}}); err != nil {
		t.Fatal(err)
	}
	if changed, err := l.Override(resiliency.Override{MaxQueue: &three}); err != nil || len(changed) != 1 {
		t.Errorf("%+v, %v", changed, err)
	}
	if p := l.policy.Load(); p.Limits[0].Limit != 9 || p.Limits[0].Per != time.Minute || p.MaxQueue != 3 || l.Configured().Limits[0].Limit != 5 {
		t.Errorf("the policy is %+v", p)
	}
}

// TestAdmission: a paused lane keeps calls until it is resumed, a drained one turns them away; both outlive a restart.
func TestAdmission(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Second}, func(t *testing.T, s *System) {
		b := bomb{match: enters}
		s.trap = b.trap
		l := s.Lane("l", resiliency.Policy{Name: "p", MaxInFlight: 4, MaxQueue: 4})
		if was := l.SetAdmission(resiliency.Held); was != resiliency.Admitting {
			t.Errorf("it was %q", was)
		}
		var worked atomic.Bool
		answer := make(chan error, 1)
		enter := func(ctx context.Context) {
			go func() {
				answer <- l.Do(ctx, plain, func(context.Context, Grant) error { worked.Store(true); return nil })
			}()
			synctest.Wait()
		}
		enter(t.Context())
		if got := l.Status(t.Context()); got.Queued != 1 || got.Admission != resiliency.Held || worked.Load() {
			t.Errorf("paused: %+v, worked %v", got, worked.Load())
		}
		if was := l.SetAdmission(resiliency.Admitting); was != resiliency.Held {
			t.Errorf("it was %q", was)
		}
		if err := <-answer; err != nil || !worked.Load() {
			t.Errorf("resumed: %v, worked %v", err, worked.Load())
		}
		l.SetAdmission(resiliency.TurnedAway)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneDraining)

		b.armed.Store(true)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		time.Sleep(2 * time.Second)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneDraining)
		if got := l.Status(t.Context()); got.Admission != resiliency.TurnedAway {
			t.Errorf("after a restart: %+v", got)
		}
	})
}

// TestStatusOfALaneThatIsDown: what it has counted is known all the same, with the refusals that nobody told it of.
func TestStatusOfALaneThatIsDown(t *testing.T) {
	bubble(t, Options{RestartAfter: time.Second}, func(t *testing.T, s *System) {
		b := bomb{match: enters}
		s.trap = b.trap
		l := s.Lane("l", resiliency.Policy{Name: "p", MaxInFlight: 1})
		release := hold(t, l)
		wantReason(t, l.Do(t.Context(), plain, works), fault.QueueFull)
		b.armed.Store(true)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		wantReason(t, l.Do(t.Context(), plain, works), fault.LaneRestarted)
		for range 2 { // asking changes nothing
			got := l.Status(t.Context())
			refused := map[fault.Reason]uint64{fault.QueueFull: 1, fault.LaneRestarted: 2} // one met the panic, one the lane that was down
			if got.Admitted != 1 || got.Refused != 3 || !reflect.DeepEqual(got.RefusedFor, refused) || got.Policy != "p" || got.InFlightLimit != 1 {
				t.Errorf("it shows %+v", got)
			}
		}
		release()
	})
}

// TestObserve: each decision is shown in the goroutine that it is about, with that goroutine's context.
func TestObserve(t *testing.T) {
	type key struct{}
	var seen []Decided
	s := open(t, Options{Observe: func(ctx context.Context, d Decided) {
		if d.Lane != "l" || ctx.Value(key{}) != "mine" {
			t.Errorf("lane %s, context of %v", d.Lane, ctx.Value(key{}))
		}
		seen = append(seen, d)
	}})
	l := s.Lane("l", resiliency.Policy{Retry: resiliency.Retry{Max: 1, Initial: time.Millisecond}})
	ctx := context.WithValue(t.Context(), key{}, "mine")
	wantReason(t, l.Do(ctx, idempotent, fails(fault.BackendDown)), fault.BackendDown)
	var verbs []string
	for _, d := range seen {
		verbs = append(verbs, d.Verb.String())
	}
	if want := []string{"go", "again", "go", "give-up"}; !reflect.DeepEqual(verbs, want) {
		t.Fatalf("saw %v, want %v", verbs, want)
	}
	if seen[1].After == 0 || fault.ReasonOf(seen[1].Err) != fault.BackendDown || seen[2].Attempt != 2 {
		t.Errorf("saw %+v", seen)
	}
}
