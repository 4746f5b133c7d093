package entrance

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// TestPlaces has many calls come and go: never are more inside than there are places, and all of them get in.
func TestPlaces(t *testing.T) {
	const places, calls = 3, 500
	e := newEntrance(places)
	var inside, most, served atomic.Int32
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			p := Place{At: e}
			if err := p.Enter(t.Context(), "test"); err != nil {
				t.Error(err)
				return
			}
			n := inside.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			inside.Add(-1)
			served.Add(1)
			var twice sync.WaitGroup // its lane and its door may both give it back
			twice.Go(p.Leave)
			twice.Go(p.Leave)
			twice.Wait()
		})
	}
	all.Wait()
	if most.Load() > places || served.Load() != calls {
		t.Errorf("%d were inside at once, of %d; %d of %d were served", most.Load(), places, served.Load(), calls)
	}
	empty(t, e)
}

// empty waits until all places are free, which may take as long as a line stands still, and fails when one is lost.
func empty(t *testing.T, e *Entrance) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(e.places) != 0 || e.waiting.Load() != 0 || e.kept.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d places are taken, %d calls in line, %d kept", len(e.places), e.waiting.Load(), e.kept.Load())
		}
	}
}

// TestOnePlaceACall: a call that reads twice takes one place.
func TestOnePlaceACall(t *testing.T) {
	e := newEntrance(2)
	p := Place{At: e}
	for range 2 {
		if err := p.Enter(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.places) != 1 {
		t.Errorf("%d places are taken", len(e.places))
	}
	p.Leave()
}

// TestLine: who waits gets the place that comes free, and fails with its caller.
func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntrance(1)
		first, second, third := Place{At: e}, Place{At: e}, Place{At: e}
		if err := first.Enter(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience/2)
		defer cancel()
		if err := second.Enter(ctx, "test"); fault.KindOf(err) != fault.Timeout || second.state.Load() == taken {
			t.Errorf("a call whose time was up got %v, with a place: %v", err, second.state.Load() == taken)
		}
		second.Leave()
		time.AfterFunc(patience/4, first.Leave)
		began := time.Now()
		if err := third.Enter(t.Context(), "test"); err != nil || time.Since(began) != patience/4+still || third.state.Load() != taken {
			t.Errorf("a call in line got %v after %v, with a place: %v", err, time.Since(began), third.state.Load() == taken)
		}
		third.Leave()
		time.Sleep(2 * patience)
		if len(e.places) != 0 || e.waiting.Load() != 0 || e.watched.Load() {
			t.Errorf("%d places are taken and %d calls in line, looked after: %v", len(e.places), e.waiting.Load(), e.watched.Load())
		}
	})
}

// TestStill: a line moves for a while, stands still for an instant, and moves again.
func TestStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntrance(1)
		first := Place{At: e}
		if err := first.Enter(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var all sync.WaitGroup
		var stood atomic.Int64
		for range 10 {
			all.Go(func() {
				p := Place{At: e}
				if err := p.Enter(t.Context(), "test"); err != nil {
					t.Error(err)
				}
				stood.Store(int64(time.Since(began)))
				time.Sleep(moving / 4) // works
				p.Leave()
			})
		}
		synctest.Wait()
		first.Leave()
		all.Wait()
		// Ten calls of a quarter each; the line stops after five: a quarter more than it may move, since it stops between calls.
		if want := 9*moving/4 + still; time.Duration(stood.Load()) != want {
			t.Errorf("the last of the line got its turn after %v, want %v", time.Duration(stood.Load()), want)
		}
		time.Sleep(still)
	})
}

// TestStuck: calls that hold their places for ever stop the line for a while, and no longer.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const places = 2
		e := newEntrance(places)
		stuck := make([]Place, places)
		for i := range stuck {
			stuck[i].At = e
			if err := stuck[i].Enter(t.Context(), "test"); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				p := Place{At: e}
				if err := p.Enter(t.Context(), "test"); err != nil {
					t.Error(err)
				}
				if waited := time.Since(began); waited < patience || waited > patience+time.Second/10 {
					t.Errorf("a call got in after %v", waited)
				}
				p.Leave()
			})
		}
		all.Wait()
		for i := range stuck { // they come free after all
			stuck[i].Leave()
		}
		time.Sleep(2 * patience)
		if len(e.places) != 0 || e.waiting.Load() != 0 || e.kept.Load() != 0 || e.watched.Load() {
			t.Errorf("%d places are taken, %d calls in line, looked after: %v", len(e.places), e.waiting.Load(), e.watched.Load())
		}
	})
}
