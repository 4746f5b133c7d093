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
	if most.Load() > places || served.Load() != calls || e.free != places || e.line.first != nil {
		t.Errorf("%d were inside at once, of %d; %d of %d were served; %d places are free", most.Load(), places, served.Load(), calls, e.free)
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
	if e.free != 1 {
		t.Errorf("%d places are free", e.free)
	}
	p.Leave()
}

// TestLine: who waits gets the place that comes free, goes on without one when that takes too long, and fails with its caller.
func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntrance(1)
		first, second, third := Place{At: e}, Place{At: e}, Place{At: e}
		if err := first.Enter(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := second.Enter(t.Context(), "test"); err != nil || time.Since(began) != patience || second.state.Load() == taken {
			t.Errorf("a call that waited %v got %v, with a place: %v", time.Since(began), err, second.state.Load() == taken)
		}
		second.Leave()
		ctx, cancel := context.WithTimeout(t.Context(), patience/2)
		defer cancel()
		if err := third.Enter(ctx, "test"); fault.KindOf(err) != fault.Timeout {
			t.Errorf("a call whose time was up got %v", err)
		}
		time.AfterFunc(patience/2, first.Leave)
		began = time.Now()
		if err := third.Enter(t.Context(), "test"); err != nil || time.Since(began) != patience/2+still || third.state.Load() != taken {
			t.Errorf("a call in line got %v after %v, with a place: %v", err, time.Since(began), third.state.Load() == taken)
		}
		third.Leave()
		if e.free != 1 || e.line.first != nil {
			t.Errorf("%d places are free and %d calls in line", e.free, length(e.line))
		}
	})
}

// TestStill: a line moves for a while, stands still for an instant, and moves again.
func TestStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntrance(1)
		e.moved = time.Now()
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

func length(l line) (n int) {
	for t := l.first; t != nil; t = t.next {
		n++
	}
	return n
}

// Who stands in line may leave it anywhere, and each of the others goes on when its own patience is over.
func TestPatienceIsEverybodysOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEntrance(1)
		first := Place{At: e}
		if err := first.Enter(t.Context(), "test"); err != nil {
			t.Fatal(err)
		}
		const apart = 100 * time.Millisecond
		var all sync.WaitGroup
		for i := range 8 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 { // the first of them, one in the middle, and later the last
				time.AfterFunc(apart*3/2, cancel)
			}
			all.Go(func() {
				p, began := Place{At: e}, time.Now()
				err := p.Enter(ctx, "test")
				switch waited := time.Since(began); {
				case i%3 == 0 && (fault.KindOf(err) != fault.Canceled || waited != apart*3/2):
					t.Errorf("who left got %v after %v", err, waited)
				case i%3 != 0 && (err != nil || waited != patience || p.state.Load() == taken):
					t.Errorf("number %d got %v after %v, with a place: %v", i, err, waited, p.state.Load() == taken)
				}
			})
			time.Sleep(apart)
		}
		all.Wait()
		synctest.Wait()
		if length(e.line) != 0 || e.timed {
			t.Errorf("%d are in line, timed %v", length(e.line), e.timed)
		}
		first.Leave()
		p := Place{At: e}
		if err := p.Enter(t.Context(), "test"); err != nil || p.state.Load() != taken {
			t.Errorf("the place is lost: %v", err)
		}
	})
}
