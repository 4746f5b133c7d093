package natslock

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

// undoTime is how long a call whose caller has gone may take to leave nothing behind, before it is left to the background.
const undoTime = time.Second

// wait stands p in line until it holds the lock.
func (r *room) wait(ctx context.Context, op string, p place) (lock.Lease, error) {
	w := &waiter{place: p, wake: make(chan struct{}, 1), granted: make(chan lock.Lease, 1)}
	r.mu.Lock()
	r.waiters = append(r.waiters, w)
	r.mu.Unlock()

	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	look, joined, ask := firstLook, false, false
	for {
		st, err := r.amend(ctx, op, ask, func(s state, v view) (step, error) {
			if !joined && len(s.line) >= lock.MaxWaiting && !slices.Contains(s.line, p.id) {
				return step{}, lock.Crowded(op, r.name)
			}
			return settle(s, v), nil
		}, nil)
		switch {
		case err == nil:
			joined = true
		case ctx.Err() == nil && !joined && !r.granted(w): // whoever waits already goes on waiting; who comes now is told
			r.forgo(op, w)
			return lock.Lease{}, err
		default:
			look = firstLook
		}
		var tick <-chan time.Time // the first in line looks by itself, the others are woken when they are the first
		pause := until(st.again, r.l.clock.guess(), look)
		if r.first(w) {
			timer.Reset(pause)
			tick = timer.C
		}
		select {
		case lease := <-w.granted:
			return lease, nil
		case <-w.wake:
			ask = false
		case <-tick:
			if ask = pause == look; ask {
				look = min(2*look, lastLook)
			}
		case <-ctx.Done():
			r.forgo(op, w)
			return lock.Lease{}, fault.FromContext(op, ctx, "lock "+r.name)
		case <-r.l.closing:
			r.forgo(op, w)
			return lock.Lease{}, lock.Closed(op)
		}
	}
}

// until is the time from now to at, or most if that is less or at is zero.
func until(at, now time.Time, most time.Duration) time.Duration {
	if at.IsZero() {
		return most
	}
	return min(max(at.Sub(now), time.Millisecond), most)
}

func (r *room) first(w *waiter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiters) > 0 && r.waiters[0] == w
}

func (r *room) granted(w *waiter) bool { return len(w.granted) > 0 }

// forgo ends w's wait: it leaves the line, or gives back the lock that it was just given.
func (r *room) forgo(op string, w *waiter) {
	r.mu.Lock()
	i := slices.Index(r.waiters, w)
	if i >= 0 {
		r.waiters = slices.Delete(r.waiters, i, i+1)
	}
	r.wakeLocked()
	stored, unsure := w.stored, w.unsure
	r.mu.Unlock()
	if !stored {
		return
	}

	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	var err error
	if i < 0 {
		err = r.release(ctx, op, <-w.granted)
	} else {
		_, err = r.amend(ctx, op, unsure, func(s state, v view) (step, error) { return vacate(s, v, w.id), nil }, nil)
	}
	if (err != nil && fault.ReasonOf(err) != fault.LockLost) || unsure {
		r.l.doubtful(r.name, w.id)
	}
}

// vacate is settle for a lock that the place is to have nothing to do with any more.
func vacate(s state, v view, id string) step {
	if s.holder != nil && s.holder.ID == id {
		return free(s, v)
	}
	return settle(s, v)
}

// try takes the lock if it is free and nobody waits.
func (r *room) try(ctx context.Context, op string, p place) (lock.Lease, error) {
	if r.waiting() {
		return lock.Lease{}, lock.Held(op, r.name, "")
	}
	var lease lock.Lease
	_, err := r.amend(ctx, op, true, func(s state, v view) (step, error) {
		next, by, ok := takeover(s, p, v)
		if !ok {
			return step{}, lock.Held(op, r.name, by)
		}
		return step{next: next, write: true, granted: -1}, nil
	}, func(_ step, s state, sent time.Time) {
		lease = lock.Lease{Name: r.name, Owner: p.owner, Token: s.holder.Token, TTL: p.ttl, Expires: sent.Add(p.ttl)}
		r.remember(s, lease)
	})
	if err != nil {
		r.l.doubt(r.name, p.id, err)
	}
	return lease, err
}

// renew gives the lease another ttl.
func (r *room) renew(ctx context.Context, op string, lease lock.Lease, ttl time.Duration) (lock.Lease, error) {
	_, err := r.amend(ctx, op, false, func(s state, v view) (step, error) {
		if !holds(s, v, lease) {
			return step{}, lock.Lost(op, lease)
		}
		h := *s.holder
		ttl = cmp.Or(ttl, h.TTL)
		h.TTL = ttl
		s.holder, s.since = &h, time.Time{}
		return step{next: s, write: true, granted: -1}, nil
	}, func(_ step, s state, sent time.Time) {
		lease.TTL, lease.Expires = ttl, sent.Add(ttl)
		r.remember(s, lease)
	})
	if err != nil {
		return lock.Lease{}, err
	}
	return lease, nil
}

// release ends the lease. The first in line, if it is of this locker, has the lock with the same write.
func (r *room) release(ctx context.Context, op string, lease lock.Lease) error {
	_, err := r.amend(ctx, op, false, func(s state, v view) (step, error) {
		if !holds(s, v, lease) {
			return step{}, lock.Lost(op, lease)
		}
		return free(s, v), nil
	}, func(st step, s state, _ time.Time) {
		if s.blank() {
			r.l.memos.freed(r.key, s.rev)
		} else if st.granted < 0 {
			r.l.memos.forget(r.key)
		}
	})
	return err
}

// holds says that the lease still runs, by the strict reading: others may allow for clocks, its holder may not.
func holds(s state, v view, lease lock.Lease) bool {
	return s.held(v.now, 0) && s.holder.Token == lease.Token && s.holder.Owner == lease.Owner
}

// watch tells fn the state of the lock at each change.
func (r *room) watch(ctx context.Context, op string, fn func(lock.Status) error) error {
	wake := make(chan struct{}, 1)
	r.mu.Lock()
	r.watchers[wake] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.watchers, wake)
		r.mu.Unlock()
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var last *lock.Status
	for look, ask := firstLook, true; ; {
		s, _, err := r.look(ctx, op, ask)
		var now time.Time
		if err == nil {
			now, err = r.l.clock.now(ctx)
		}
		switch {
		case err != nil && last == nil:
			return err
		case err == nil:
			status := r.status(s, now)
			if last == nil || !same(*last, status) {
				if err := fn(status); err != nil {
					return err
				}
				last, look = &status, firstLook
			}
		}
		var change time.Time
		if s.held(now, r.l.clock.grace()) {
			change = s.ends(r.l.clock.grace())
		}
		wait := until(change, now, look)
		timer.Reset(wait)
		select {
		case <-wake:
			ask = false
		case <-timer.C:
			if ask = wait == look; ask {
				look = min(2*look, lastLook)
			}
		case <-ctx.Done():
			return fault.FromContext(op, ctx, "changes of lock "+r.name)
		case <-r.l.closing:
			return lock.Closed(op)
		}
	}
}

// status is s as watchers see it, by this process's clock.
func (r *room) status(s state, now time.Time) lock.Status {
	status := lock.Status{Waiting: s.waiting(now)}
	if h := s.holder; s.held(now, r.l.clock.grace()) {
		status.Lease = &lock.Lease{
			Name: r.name, Owner: h.Owner, Token: h.Token, TTL: h.TTL,
			Expires: time.Now().Add(s.ends(0).Sub(now)),
		}
	}
	return status
}

// same says that a watcher need not be told b after a. When a lease ends is not known to the microsecond.
func same(a, b lock.Status) bool {
	if a.Waiting != b.Waiting || (a.Lease == nil) != (b.Lease == nil) {
		return false
	}
	if a.Lease == nil {
		return true
	}
	return a.Lease.Token == b.Lease.Token && a.Lease.TTL == b.Lease.TTL && a.Lease.Expires.Sub(b.Lease.Expires).Abs() < 100*time.Millisecond
}
