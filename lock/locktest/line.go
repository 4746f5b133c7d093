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

// serve stands n waiters in line at the lockers by turns, and checks that they come in in that order.
func (b *bench) serve(n int, lockers ...lock.Locker) {
	b.Helper()
	lease := b.acquire(lockers[0], name, "first", long)
	line := make([]<-chan got, n)
	for i := range line {
		line[i] = b.stand(b.ctx, lockers[i%len(lockers)], name, fmt.Sprint("waiter ", i), long, i)
	}
	holder := lockers[0]
	for i, waiter := range line {
		b.release(holder, lease)
		next := b.get(waiter)
		if want := fmt.Sprint("waiter ", i); next.Owner != want || next.Token <= lease.Token {
			b.Fatalf("after %+v came %+v, want %s", lease, next, want)
		}
		for _, later := range line[i+1:] {
			select {
			case g := <-later:
				b.Fatalf("%+v %v came before its turn", g.lease, g.err)
			default:
			}
		}
		lease, holder = next, lockers[i%len(lockers)]
	}
	b.release(holder, lease)
}

func firstComeFirstServed(t *testing.T, b *bench) { b.serve(10, b.open()) }

func sharedLine(t *testing.T, b *bench) { b.serve(10, b.open(), b.open()) }

func waitersAreAhead(t *testing.T, b *bench) {
	l := b.open()
	lease := b.acquire(l, name, "ann", long)
	waiter := b.stand(b.ctx, l, name, "bob", long, 0)
	b.release(l, lease)
	_, err := l.Acquire(b.ctx, name, "eve", long, false) // bob holds it by now, or is about to
	b.want(err, fault.LockHeld)
	b.release(l, b.get(waiter))
}

func leavesTheLine(t *testing.T, b *bench) {
	l := b.open()
	lease := b.acquire(l, name, "ann", long)
	canceled, cancel := context.WithCancel(b.ctx)
	defer cancel()
	one := b.stand(canceled, l, name, "bob", long, 0)
	limited, stop := context.WithTimeout(b.ctx, 300*time.Millisecond)
	defer stop()
	two := b.wait(limited, l, name, "cid", long)
	three := b.stand(b.ctx, l, name, "dan", long, 1)
	cancel()
	b.fails(one, fault.Canceled)
	b.fails(two, fault.Timeout)
	b.until(l, name, "one waiting", func(s lock.Status) bool { return s.Waiting == 1 })
	b.release(l, lease)
	if next := b.get(three); next.Owner != "dan" {
		t.Fatalf("%q came in", next.Owner)
	}
}

func endedWait(t *testing.T, b *bench) {
	l := b.open()
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	b.fails(b.wait(ctx, l, name, "ann", long), fault.Canceled)
	b.acquire(l, name, "bob", long)
}

func expiryLetsIn(t *testing.T, b *bench) {
	l := b.open()
	lease := b.acquire(l, name, "ann", 3*lock.MinTTL)
	one := b.stand(b.ctx, l, name, "bob", lock.MinTTL, 0)
	two := b.stand(b.ctx, l, name, "cid", long, 1)
	first := b.get(one)
	if late := time.Since(lease.Expires); late < 0 {
		t.Fatalf("let in %v before the lease ended", -late)
	}
	second := b.get(two)
	if late := time.Since(first.Expires); late < 0 {
		t.Fatalf("let in %v before the lease ended", -late)
	}
	if !(lease.Token < first.Token && first.Token < second.Token) {
		t.Fatalf("tokens %d, %d, %d", lease.Token, first.Token, second.Token)
	}
	lost(b, l, lease)
	lost(b, l, first)
}

func watchSees(t *testing.T, b *bench) { watches(t, b, b.open(), nil) }

func watchSeesOther(t *testing.T, b *bench) { watches(t, b, b.open(), b.open()) }

// watches checks what a watcher at one locker learns of what happens at another, or the same.
func watches(t *testing.T, b *bench, at, from lock.Locker) {
	if from == nil {
		from = at
	}
	seen := make(chan lock.Status, 100)
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- at.Watch(ctx, name, func(s lock.Status) error { seen <- s; return nil })
	}()
	expect := func(what string, ok func(lock.Status) bool) {
		t.Helper()
		for {
			select {
			case s := <-seen:
				if ok(s) {
					return
				}
			case <-time.After(patience):
				t.Fatalf("the watcher did not see %s", what)
			}
		}
	}
	held := func(owner string, waiting int) func(lock.Status) bool {
		return func(s lock.Status) bool {
			return s.Lease != nil && s.Lease.Owner == owner && s.Lease.Name == name && s.Waiting == waiting
		}
	}
	expect("a free lock", func(s lock.Status) bool { return s.Lease == nil && s.Waiting == 0 })
	lease := b.acquire(from, name, "ann", long)
	expect("ann", func(s lock.Status) bool {
		return held("ann", 0)(s) && s.Lease.Token == lease.Token && time.Until(s.Lease.Expires) > 20*time.Second
	})
	waiter := b.wait(b.ctx, from, name, "bob", 3*lock.MinTTL)
	expect("one waiting", held("ann", 1))
	b.release(from, lease)
	b.get(waiter)
	expect("bob", held("bob", 0))
	expect("the end of bob's lease", func(s lock.Status) bool { return s.Lease == nil && s.Waiting == 0 })
	b.release(from, b.acquire(from, name, "cid", long))
	dan := b.acquire(from, name, "dan", long)
	expect("dan", held("dan", 0))
	b.release(from, dan)
	expect("a free lock", func(s lock.Status) bool { return s.Lease == nil && s.Waiting == 0 })
	cancel()
	if err := <-ended; fault.KindOf(err) != fault.Canceled {
		t.Fatalf("the watch ended with %v", err)
	}
}

func watchEnds(t *testing.T, b *bench) {
	l := b.open()
	mine := errors.New("mine")
	if err := l.Watch(b.ctx, name, func(lock.Status) error { return mine }); !errors.Is(err, mine) {
		t.Fatalf("the watch ended with %v", err)
	}
	ctx, cancel := context.WithTimeout(b.ctx, 50*time.Millisecond)
	defer cancel()
	if err := l.Watch(ctx, name, func(lock.Status) error { return nil }); fault.KindOf(err) != fault.Timeout {
		t.Fatalf("the watch ended with %v", err)
	}
}

func closeAnswers(t *testing.T, b *bench) {
	l := b.store.Open(b)
	lease := b.acquire(l, name, "ann", long)
	var line []<-chan got
	for i := range 5 {
		line = append(line, b.stand(b.ctx, l, name, fmt.Sprint("waiter ", i), long, i))
	}
	watching, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() {
		ended <- l.Watch(b.ctx, name, func(lock.Status) error { watching <- struct{}{}; return nil })
	}()
	<-watching
	b.close(l)
	for _, waiter := range line {
		b.fails(waiter, fault.Unavailable)
	}
	if err := <-ended; fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("the watch ended with %v", err)
	}
	b.close(l) // again
	_, err := l.Acquire(b.ctx, "other", "ann", time.Second, false)
	b.want(err, fault.Shutdown)
	_, err = l.Renew(b.ctx, lease, time.Second)
	b.want(err, fault.Shutdown)
	b.want(l.Release(b.ctx, lease), fault.Shutdown)
	b.want(l.Watch(b.ctx, name, func(lock.Status) error { return nil }), fault.Shutdown)
	if b.Shared { // the line is empty, the lease still runs
		other := b.open()
		b.until(other, name, "an empty line", func(s lock.Status) bool { return s.Lease != nil && s.Waiting == 0 })
	}
}
