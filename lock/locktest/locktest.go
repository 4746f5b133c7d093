// Package locktest checks that a backend keeps every promise of lock.Locker. A backend's test is one call:
//
//	func TestLocker(t *testing.T) {
//		locktest.Run(t, locktest.Backend{New: func(t testing.TB) locktest.Store { … }, Shared: true, Durable: true})
//	}
//
// Leases are at least a second long, so the tests that let one run out do it together, in parallel.
package locktest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

// Backend is what the suite must know of a backend.
type Backend struct {
	// New makes an empty store for one test and removes it when the test ends.
	New func(t testing.TB) Store
	// Shared says that several lockers may be open on one store, and share its locks.
	Shared bool
	// Durable says that a lease outlives the locker that gave it.
	Durable bool
}

// Store is where lockers of one test keep their locks.
type Store struct {
	// Open opens a locker on the store. The suite closes it.
	Open func(t testing.TB) lock.Locker
	// Left counts what free locks have left in the store; nil when there is nowhere to leave anything.
	Left func(t testing.TB) int
}

// patience is how long the suite waits for what should happen at once: it ends hangs, it measures nothing.
const patience = time.Minute

// long is a lease that does not run out during a test.
const long = 10 * time.Minute

// Run checks every promise of lock.Locker.
func Run(t *testing.T, b Backend) {
	tests := map[string]func(*testing.T, *bench){
		"one holder at a time":                     oneHolder,
		"held is refused at once":                  heldIsRefused,
		"the same owner is refused like any other": sameOwnerIsRefused,
		"a lock with waiters is refused":           waitersAreAhead,
		"waiters are served in order":              firstComeFirstServed,
		"a waiter that goes away leaves the line":  leavesTheLine,
		"a wait that has ended does not begin":     endedWait,
		"a failed acquire holds nothing":           failedHoldsNothing,
		"an expired lease lets the first in":       expiryLetsIn,
		"an expired lease is free":                 expiredIsFree,
		"renewal keeps the lock":                   renewKeeps,
		"a lost lease is told":                     lostIsTold,
		"an expired lease is lost":                 expiredIsLost,
		"tokens grow":                              tokensGrow,
		"lease and name are checked":               requestIsChecked,
		"any name will do":                         anyName,
		"watch sees changes":                       watchSees,
		"watch ends":                               watchEnds,
		"close answers all":                        closeAnswers,
		"free locks leave nothing":                 nothingIsLeft,
		"a restart keeps leases and tokens":        restartKeeps,
		"a model agrees":                           modelAgrees,
	}
	if b.Shared {
		tests["two lockers share one line"] = sharedLine
		tests["two lockers exclude each other"] = sharedExclusion
		tests["a lease is good at any locker"] = leaseTravels
		tests["watch sees the other locker"] = watchSeesOther
	}
	t.Run("locker", func(t *testing.T) {
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
				t.Cleanup(cancel)
				test(t, &bench{TB: t, Backend: b, ctx: ctx, store: b.New(t)})
			})
		}
	})
}

// bench is what one test works at.
type bench struct {
	testing.TB
	Backend
	ctx   context.Context
	store Store
}

func (b *bench) open() lock.Locker {
	b.Helper()
	l := b.store.Open(b)
	b.Cleanup(func() { b.close(l) })
	return l
}

func (b *bench) close(l lock.Locker) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		b.Errorf("close: %v", err)
	}
}

func (b *bench) acquire(l lock.Locker, name, owner string, ttl time.Duration) lock.Lease {
	b.Helper()
	sent := time.Now()
	lease, err := l.Acquire(b.ctx, name, owner, ttl, false)
	if err != nil {
		b.Fatalf("acquire %q for %q: %v", name, owner, err)
	}
	if lease.Name != name || lease.Owner != owner || lease.TTL != ttl || lease.Token == 0 {
		b.Fatalf("acquire %q for %q gave %+v", name, owner, lease)
	}
	if lease.Expires.Before(sent) || lease.Expires.After(time.Now().Add(ttl)) {
		b.Fatalf("a lease of %v expires %v from now", ttl, time.Until(lease.Expires))
	}
	return lease
}

func (b *bench) release(l lock.Locker, lease lock.Lease) {
	b.Helper()
	if err := l.Release(b.ctx, lease); err != nil {
		b.Fatalf("release %q with token %d: %v", lease.Name, lease.Token, err)
	}
}

// wait acquires in the background and sends what came of it.
func (b *bench) wait(ctx context.Context, l lock.Locker, name, owner string, ttl time.Duration) <-chan got {
	ch := make(chan got, 1)
	go func() {
		lease, err := l.Acquire(ctx, name, owner, ttl, true)
		ch <- got{lease, err}
	}()
	return ch
}

// stand is wait that returns once the waiter is in line behind ahead others.
func (b *bench) stand(ctx context.Context, l lock.Locker, name, owner string, ttl time.Duration, ahead int) <-chan got {
	b.Helper()
	ch := b.wait(ctx, l, name, owner, ttl)
	b.until(l, name, fmt.Sprintf("%d waiting", ahead+1), func(s lock.Status) bool { return s.Waiting >= ahead+1 })
	return ch
}

type got struct {
	lease lock.Lease
	err   error
}

func (b *bench) get(ch <-chan got) lock.Lease {
	b.Helper()
	select {
	case g := <-ch:
		if g.err != nil {
			b.Fatalf("acquire: %v", g.err)
		}
		return g.lease
	case <-time.After(patience):
		b.Fatal("a waiter was not let in")
	}
	panic("unreachable")
}

func (b *bench) fails(ch <-chan got, kinds ...fault.Kind) {
	b.Helper()
	select {
	case g := <-ch:
		for _, kind := range kinds {
			if fault.KindOf(g.err) == kind {
				return
			}
		}
		b.Fatalf("acquire gave %+v, %v; want a failure of kind %v", g.lease, g.err, kinds)
	case <-time.After(patience):
		b.Fatal("a waiter was not answered")
	}
}

// until watches name until its state is as wanted.
func (b *bench) until(l lock.Locker, name, what string, ok func(lock.Status) bool) lock.Status {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	var last lock.Status
	err := l.Watch(ctx, name, func(s lock.Status) error {
		last = s
		if ok(s) {
			return errSeen
		}
		return nil
	})
	if !errors.Is(err, errSeen) {
		b.Fatalf("watch %q ended with %v before %s; last %+v %+v", name, err, what, last, last.Lease)
	}
	return last
}

var errSeen = errors.New("seen")

func (b *bench) want(err error, reason fault.Reason) {
	b.Helper()
	if fault.ReasonOf(err) != reason {
		b.Fatalf("got %v, want reason %s", err, reason)
	}
}
