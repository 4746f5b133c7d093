// Package turnstile is a lock.Locker for one process: who holds each lock and who stands in line is decided in memory,
// and a Journal, if there is one, makes leases outlive the process. lock.memory and lock.badger are made of it.
//
//	locker := turnstile.New(turnstile.Options{Token: last, Leases: stillRunning, Journal: journal})
//
// A lock costs memory while it is held, waited for or watched, and nothing before or after. There is no goroutine per
// lock or lease: one timer stands at the lease that ends first.
package turnstile

import (
	"context"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

// Journal makes leases outlive the process. The locker calls it in the order of the changes, one call at a time; it
// must not block. The function it returns does: it waits until the change is durable, or tells why it is not.
type Journal interface {
	// Holds records that lease is the lock's, with all tokens up to its own used.
	Holds(lease lock.Lease) (wait func() error)
	// Frees records that nobody holds the lock.
	Frees(name string) (wait func() error)
}

// Options of a locker.
type Options struct {
	// Token is one that no lease before had more than.
	Token uint64
	// Leases are those that still run, from before a restart.
	Leases []lock.Lease
	// Journal is nil for leases that end with the process.
	Journal Journal
}

// Locker implements lock.Locker.
type Locker struct {
	journal Journal
	closing chan struct{}
	calls   sync.WaitGroup // those under way; Add under mu and only while not closed

	mu      sync.Mutex
	closed  bool
	table   *table
	timer   *time.Timer  // calls lapse; nil until the first lease
	armed   time.Time    // when timer goes off; zero when it does not
	durable func() error // of the last change the table told; see tell
}

var _ lock.Locker = (*Locker)(nil)

// turn is what a waiter gets: its lease, and the wait for it to be durable.
type turn struct {
	lease   lock.Lease
	durable func() error
}

// New returns a locker that is ready.
func New(o Options) *Locker {
	l := &Locker{journal: o.Journal, closing: make(chan struct{})}
	l.table = newTable(o.Token, l.tell)
	for _, lease := range o.Leases {
		l.table.restore(lease)
	}
	l.arm(time.Now())
	return l
}

// Acquire implements lock.Locker.
func (l *Locker) Acquire(ctx context.Context, name, owner string, ttl time.Duration, wait bool) (lock.Lease, error) {
	const op = "lock: acquire"
	if err := lock.Check(op, name, owner, ttl); err != nil {
		return lock.Lease{}, err
	}
	if ctx.Err() != nil {
		return lock.Lease{}, fault.FromContext(op, ctx, "the lock store")
	}
	if !l.begin() {
		return lock.Lease{}, lock.Closed(op)
	}
	defer l.calls.Done()

	w := &waiter{owner: owner, ttl: ttl, turn: make(chan turn, 1)}
	if err := l.join(op, name, w, wait); err != nil {
		return lock.Lease{}, err
	}
	select {
	case t := <-w.turn:
		return l.take(op, t)
	default:
	}
	select {
	case t := <-w.turn:
		return l.take(op, t)
	case <-ctx.Done():
		l.leave(w)
		return lock.Lease{}, fault.FromContext(op, ctx, "lock "+name)
	case <-l.closing:
		l.leave(w)
		return lock.Lease{}, lock.Closed(op)
	}
}

// join stands w in line, or refuses when the lock is held and the caller does not wait.
func (l *Locker) join(op, name string, w *waiter, wait bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !wait {
		if holder := l.table.holder(now, name); holder != "" {
			return lock.Held(op, name, holder)
		}
	}
	if !l.table.join(now, name, w) {
		return lock.Crowded(op, name)
	}
	l.arm(now)
	return nil
}

// take waits until the lease is durable; one that cannot be made so is given back.
func (l *Locker) take(op string, t turn) (lock.Lease, error) {
	if err := t.durable(); err != nil {
		l.giveBack(t.lease)
		return lock.Lease{}, fault.E(op, fault.KindOf(err), fault.ReasonOf(err), err)
	}
	return t.lease, nil
}

func (l *Locker) leave(w *waiter) {
	l.mu.Lock()
	left := l.table.leave(w)
	l.mu.Unlock()
	if !left {
		l.giveBack((<-w.turn).lease)
	}
}

func (l *Locker) giveBack(lease lock.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.table.release(now, lease)
	l.arm(now)
}

// Renew implements lock.Locker.
func (l *Locker) Renew(ctx context.Context, lease lock.Lease, ttl time.Duration) (lock.Lease, error) {
	const op = "lock: renew"
	if err := lock.CheckRenewal(op, lease.Name, lease.Owner, ttl); err != nil {
		return lock.Lease{}, err
	}
	if !l.begin() {
		return lock.Lease{}, lock.Closed(op)
	}
	defer l.calls.Done()

	l.mu.Lock()
	now := time.Now()
	renewed, ok := l.table.renew(now, lease, ttl)
	durable := l.durable
	l.arm(now)
	l.mu.Unlock()
	if !ok {
		return lock.Lease{}, lock.Lost(op, lease)
	}
	if err := durable(); err != nil {
		return lock.Lease{}, fault.E(op, fault.KindOf(err), fault.ReasonOf(err), err)
	}
	return renewed, nil
}

// Release implements lock.Locker.
func (l *Locker) Release(ctx context.Context, lease lock.Lease) error {
	const op = "lock: release"
	if err := lock.Check(op, lease.Name, lease.Owner, lock.MinTTL); err != nil {
		return err
	}
	if !l.begin() {
		return lock.Closed(op)
	}
	defer l.calls.Done()

	l.mu.Lock()
	now := time.Now()
	ok := l.table.release(now, lease)
	durable := l.durable
	l.arm(now)
	l.mu.Unlock()
	if !ok {
		return lock.Lost(op, lease)
	}
	// The lease has ended whatever the journal says: a record that stays behind ends by its own time.
	_ = durable()
	return nil
}

// Watch implements lock.Locker.
func (l *Locker) Watch(ctx context.Context, name string, fn func(lock.Status) error) error {
	const op = "lock: watch"
	if err := lock.CheckName(op, name); err != nil {
		return err
	}
	if !l.begin() {
		return lock.Closed(op)
	}
	defer l.calls.Done()

	wake := make(chan struct{}, 1)
	l.mu.Lock()
	s := l.table.watch(name, wake)
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.table.unwatch(s, wake)
		l.mu.Unlock()
	}()
	for {
		l.mu.Lock()
		l.table.lapse(time.Now())
		status := s.status()
		l.mu.Unlock()
		if err := fn(status); err != nil {
			return err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return fault.FromContext(op, ctx, "changes of lock "+name)
		case <-l.closing:
			return lock.Closed(op)
		}
	}
}

// Close implements lock.Locker: those in line are answered, and it returns when the last call has.
func (l *Locker) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.closing)
		if l.timer != nil {
			l.timer.Stop()
		}
	}
	l.mu.Unlock()

	idle := make(chan struct{})
	go func() {
		l.calls.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fault.FromContext("lock: close", ctx, "calls under way")
	}
}

// begin counts a call in, unless the locker is closed.
func (l *Locker) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.calls.Add(1)
	return true
}

// tell journals a change of the table and wakes whom it concerns. The caller holds mu.
func (l *Locker) tell(c change) {
	l.durable = none
	if l.journal != nil && !c.line {
		if c.lease != nil {
			l.durable = l.journal.Holds(*c.lease)
		} else {
			l.durable = l.journal.Frees(c.seat.name)
		}
	}
	if c.to != nil {
		c.to.turn <- turn{lease: *c.lease, durable: l.durable}
	}
	for wake := range c.seat.watchers {
		select {
		case wake <- struct{}{}:
		default: // it has not looked since the last change: it will see this one too
		}
	}
}

func none() error { return nil }

// arm makes sure that the timer goes off no later than the next lease ends. It is left to go off too early rather than
// moved at each release. The caller holds mu.
func (l *Locker) arm(now time.Time) {
	next, ok := l.table.next()
	if !ok || l.closed || (!l.armed.IsZero() && !next.Before(l.armed)) {
		return
	}
	l.armed = next
	if l.timer == nil {
		l.timer = time.AfterFunc(next.Sub(now), l.lapse)
		return
	}
	l.timer.Reset(next.Sub(now))
}

// lapse is the timer's: it ends the leases that ran out.
func (l *Locker) lapse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	now := time.Now()
	l.armed = time.Time{}
	l.table.lapse(now)
	l.arm(now)
}
