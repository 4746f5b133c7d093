package locktest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

const name = "door"

// contend lets many callers take the lock many times, and checks that they are alone and that tokens grow.
func (b *bench) contend(lockers ...lock.Locker) {
	const callers, rounds = 24, 8
	var inside, last atomic.Int64
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			l := lockers[c%len(lockers)]
			for range rounds {
				lease, err := l.Acquire(b.ctx, name, fmt.Sprint("owner", c), long, true)
				if err != nil {
					b.Errorf("acquire: %v", err)
					return
				}
				if n := inside.Add(1); n != 1 {
					b.Errorf("%d hold the lock", n)
				}
				if before := last.Swap(int64(lease.Token)); before >= int64(lease.Token) {
					b.Errorf("token %d came after %d", lease.Token, before)
				}
				inside.Add(-1)
				if err := l.Release(b.ctx, lease); err != nil {
					b.Errorf("release: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

func oneHolder(t *testing.T, b *bench) { b.contend(b.open()) }

func heldIsRefused(t *testing.T, b *bench) {
	l := b.open()
	lease := b.acquire(l, name, "ann", long)
	_, err := l.Acquire(b.ctx, name, "bob", long, false)
	b.want(err, fault.LockHeld)
	if fault.KindOf(err) != fault.Conflict {
		t.Fatalf("held is of kind %v", fault.KindOf(err))
	}
	b.acquire(l, "another door", "bob", long)
	b.release(l, lease)
	b.acquire(l, name, "bob", long)
}

func sameOwnerIsRefused(t *testing.T, b *bench) {
	l := b.open()
	lease := b.acquire(l, name, "ann", long)
	_, err := l.Acquire(b.ctx, name, "ann", long, false)
	b.want(err, fault.LockHeld)
	second := b.stand(b.ctx, l, name, "ann", long, 0)
	b.release(l, lease)
	if next := b.get(second); next.Token <= lease.Token {
		t.Fatalf("token %d came after %d", next.Token, lease.Token)
	}
	b.want(l.Release(b.ctx, lease), fault.LockLost) // the same owner's older lease is lost all the same
}

func failedHoldsNothing(t *testing.T, b *bench) {
	l := b.open()
	for range 20 {
		ctx, cancel := context.WithCancel(b.ctx)
		ch := b.wait(ctx, l, name, "ann", long)
		cancel() // races with the grant
		if g := <-ch; g.err == nil {
			b.release(l, g.lease)
		}
		eventuallyFree(b, l)
	}
}

// eventuallyFree takes the lock and gives it back, allowing for a lease that is just being undone.
func eventuallyFree(b *bench, l lock.Locker) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	lease, err := l.Acquire(ctx, name, "next", long, true)
	if err != nil {
		b.Fatalf("a failed acquire left the lock held: %v", err)
	}
	b.release(l, lease)
}

func expiredIsFree(t *testing.T, b *bench) {
	l := b.open()
	first := b.acquire(l, name, "ann", lock.MinTTL)
	b.until(l, name, "free", func(s lock.Status) bool { return s.Lease == nil })
	second := b.acquire(l, name, "bob", long)
	if second.Token <= first.Token {
		t.Fatalf("token %d came after %d", second.Token, first.Token)
	}
}

func renewKeeps(t *testing.T, b *bench) {
	l := b.open()
	lease := b.acquire(l, name, "ann", 4*time.Second)
	waiter := b.stand(b.ctx, l, name, "bob", long, 0)
	for began := time.Now(); time.Since(began) < 6*time.Second; time.Sleep(200 * time.Millisecond) {
		renewed, err := l.Renew(b.ctx, lease, 4*time.Second)
		if err != nil {
			t.Fatalf("renew: %v", err)
		}
		if renewed.Token != lease.Token || renewed.Name != name || renewed.Owner != "ann" || !renewed.Expires.After(lease.Expires) {
			t.Fatalf("renewing %+v gave %+v", lease, renewed)
		}
		lease = renewed
	}
	select {
	case g := <-waiter:
		t.Fatalf("let in while the lock was held: %+v %v", g.lease, g.err)
	default:
	}
	same, err := l.Renew(b.ctx, lease, 0)
	if err != nil || same.TTL != lease.TTL || same.Expires.Before(lease.Expires) {
		t.Errorf("a renewal without a length made %v of %v, error %v", same, lease, err)
	}
	longer, err := l.Renew(b.ctx, lease, time.Minute)
	if err != nil || longer.TTL != time.Minute || time.Until(longer.Expires) < 50*time.Second {
		t.Fatalf("renewing for a minute gave %+v, %v", longer, err)
	}
	b.release(l, longer)
	if next := b.get(waiter); next.Token <= lease.Token {
		t.Fatalf("token %d came after %d", next.Token, lease.Token)
	}
}

func lostIsTold(t *testing.T, b *bench) {
	l := b.open()
	never := lock.Lease{Name: "nobody's", Owner: "ann", Token: 7}
	lost(b, l, never)
	lease := b.acquire(l, name, "ann", long)
	for _, wrong := range []lock.Lease{
		{Name: name, Owner: "bob", Token: lease.Token},
		{Name: name, Owner: "ann", Token: lease.Token - 1},
		{Name: name, Owner: "ann", Token: lease.Token + 1},
		{Name: name, Owner: "ann"},
	} {
		lost(b, l, wrong)
	}
	b.release(l, lease)
	lost(b, l, lease)
	b.acquire(l, name, "bob", long)
	lost(b, l, lease)
}

func lost(b *bench, l lock.Locker, lease lock.Lease) {
	b.Helper()
	_, err := l.Renew(b.ctx, lease, long)
	b.want(err, fault.LockLost)
	b.want(l.Release(b.ctx, lease), fault.LockLost)
}

func expiredIsLost(t *testing.T, b *bench) {
	l := b.open()
	lease := b.acquire(l, name, "ann", lock.MinTTL)
	b.until(l, name, "free", func(s lock.Status) bool { return s.Lease == nil })
	lost(b, l, lease)
}

func tokensGrow(t *testing.T, b *bench) {
	l := b.open()
	var last uint64
	for i := range 50 {
		lease := b.acquire(l, name, fmt.Sprint("owner", i%3), long)
		if lease.Token <= last {
			t.Fatalf("token %d came after %d", lease.Token, last)
		}
		last = lease.Token
		b.release(l, lease)
	}
}

func requestIsChecked(t *testing.T, b *bench) {
	l := b.open()
	for _, ttl := range []time.Duration{-time.Second, 0, time.Second - 1, lock.MaxTTL + 1} {
		_, err := l.Acquire(b.ctx, name, "ann", ttl, true)
		b.want(err, fault.LeaseShort)
	}
	for _, bad := range []string{"", strings.Repeat("x", lock.MaxLength+1), "\xff"} {
		_, err := l.Acquire(b.ctx, bad, "ann", time.Second, true)
		b.want(err, fault.LockName)
		_, err = l.Acquire(b.ctx, name, bad, time.Second, true)
		b.want(err, fault.LockName)
		b.want(l.Watch(b.ctx, bad, func(lock.Status) error { return nil }), fault.LockName)
	}
	lease := b.acquire(l, name, "ann", lock.MaxTTL)
	for _, ttl := range []time.Duration{-1, time.Second - 1, lock.MaxTTL + 1} {
		_, err := l.Renew(b.ctx, lease, ttl)
		b.want(err, fault.LeaseShort)
	}
	lease, err := l.Renew(b.ctx, lease, lock.MaxTTL)
	if err != nil || lease.TTL != lock.MaxTTL {
		b.Errorf("renewed as %+v, %v", lease, err)
	}
	b.release(l, lease)
}

func anyName(t *testing.T, b *bench) {
	l := b.open()
	names := []string{"a.b", "a b", "*", ">", "a/b", "$x", "=41", "A", "a", "ключ", "line\nbreak", "\x00", strings.Repeat("é", lock.MaxLength/2)}
	leases := make([]lock.Lease, len(names))
	for i, n := range names {
		leases[i] = b.acquire(l, n, n, long)
	}
	for i, n := range names {
		_, err := l.Acquire(b.ctx, n, "other", long, false)
		b.want(err, fault.LockHeld)
		b.release(l, leases[i])
	}
}

func nothingIsLeft(t *testing.T, b *bench) {
	if b.store.Left == nil {
		t.Skip("there is nowhere to leave anything")
	}
	l := b.open()
	for i := range 100 {
		b.release(l, b.acquire(l, fmt.Sprint("door ", i), "ann", long))
	}
	deadline := time.Now().Add(patience)
	for b.store.Left(b) > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if n := b.store.Left(b); n > 0 {
		t.Fatalf("%d records are left of 100 free locks", n)
	}
}

func restartKeeps(t *testing.T, b *bench) {
	l := b.store.Open(b)
	free := b.acquire(l, "free", "ann", long)
	b.release(l, free)
	held := b.acquire(l, name, "ann", long)
	short := b.acquire(l, "short", "ann", lock.MinTTL)
	b.close(l)

	l = b.open()
	if next := b.acquire(l, "free", "bob", long); next.Token <= free.Token {
		t.Fatalf("token %d came after %d", next.Token, free.Token)
	}
	if !b.Durable {
		if next := b.acquire(l, name, "bob", long); next.Token <= held.Token {
			t.Fatalf("token %d came after %d", next.Token, held.Token)
		}
		return
	}
	_, err := l.Acquire(b.ctx, name, "bob", long, false)
	b.want(err, fault.LockHeld)
	renewed, err := l.Renew(b.ctx, held, time.Minute)
	if err != nil || renewed.Token != held.Token {
		t.Fatalf("renewing a lease from before the restart gave %+v, %v", renewed, err)
	}
	waiter := b.stand(b.ctx, l, name, "bob", long, 0)
	b.release(l, renewed)
	if next := b.get(waiter); next.Token <= held.Token {
		t.Fatalf("token %d came after %d", next.Token, held.Token)
	}
	b.until(l, "short", "free", func(s lock.Status) bool { return s.Lease == nil })
	if next := b.acquire(l, "short", "bob", long); next.Token <= short.Token {
		t.Fatalf("token %d came after %d", next.Token, short.Token)
	}
}

func sharedExclusion(t *testing.T, b *bench) { b.contend(b.open(), b.open(), b.open()) }

func leaseTravels(t *testing.T, b *bench) {
	one, two := b.open(), b.open()
	lease := b.acquire(one, name, "ann", long)
	_, err := two.Acquire(b.ctx, name, "bob", long, false)
	b.want(err, fault.LockHeld)
	renewed, err := two.Renew(b.ctx, lease, time.Minute)
	if err != nil || renewed.Token != lease.Token {
		t.Fatalf("renewing at the other locker gave %+v, %v", renewed, err)
	}
	if _, err := one.Renew(b.ctx, lease, time.Minute); err != nil {
		t.Fatalf("renewing after the other locker did: %v", err)
	}
	b.release(two, lease)
	lost(b, one, lease)
	next := b.acquire(two, name, "bob", long)
	lost(b, one, lease)
	b.release(one, next)
}
