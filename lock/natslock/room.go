package natslock

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

const (
	// tries is how often a write is tried when others change the entry at the same time.
	tries = 64
	// firstLook and lastLook bound how long a waiter or watcher trusts that news would have come: the first news after a
	// subscription can be missed in a cluster, later ones only when a connection breaks.
	firstLook = 500 * time.Millisecond
	lastLook  = 8 * time.Second
)

// room is where the callers of one locker meet that deal with the same lock. It exists while there are any. Those who
// wait write the entry for each other: one write stands all of them in line.
type room struct {
	l         *locker
	name, key string
	turn      chan struct{}      // room for one: held by who reads and writes the entry
	callers   int                // in the room; guarded by l.mu
	sub       *nats.Subscription // guarded by l.mu

	mu       sync.Mutex
	follows  bool // news come to the room
	known    bool // state is right as far as this locker has heard
	state    state
	heard    uint64 // counts news, so that a read does not overwrite what came meanwhile
	waiters  []*waiter
	watchers map[chan struct{}]struct{}
}

// waiter is one caller of Acquire.
type waiter struct {
	place
	wake    chan struct{}   // room for one
	granted chan lock.Lease // room for one
	stored  bool            // an entry that names it was stored, or may have been; guarded by room.mu
	unsure  bool            // … may have been
}

// enter makes the caller one of those in the room; with follow the room hears news.
func (l *locker) enter(op, name string, follow bool) (*room, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := keyOf(name)
	r := l.rooms[key]
	if r == nil {
		r = &room{l: l, name: name, key: key, turn: make(chan struct{}, 1), watchers: make(map[chan struct{}]struct{})}
	}
	if follow && r.sub == nil {
		sub, err := l.bucket.subscribe(op, key, l.news)
		if err != nil {
			return nil, err
		}
		r.sub = sub
		r.mu.Lock()
		r.follows, r.known = true, false
		r.mu.Unlock()
	}
	r.callers++
	l.rooms[key] = r
	return r, nil
}

func (l *locker) leave(r *room) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.callers--; r.callers > 0 {
		return
	}
	delete(l.rooms, r.key)
	if r.sub != nil {
		_ = r.sub.Unsubscribe() // fails only when the connection is closed, and the subscription with it
	}
}

// waited says that callers of this locker wait for the lock.
func (l *locker) waited(name string) bool {
	l.mu.Lock()
	r := l.rooms[keyOf(name)]
	l.mu.Unlock()
	return r != nil && r.waiting()
}

func (r *room) waiting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.waiters) > 0
}

// hear takes in news, or the outcome of a write.
func (r *room) hear(s state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known && s.rev < r.state.rev {
		return
	}
	r.heard++
	r.state, r.known = s, r.follows
	r.wakeLocked()
}

// doubt makes whoever looks next ask the server.
func (r *room) doubt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = false
}

// missed makes everyone in the room look again, and ask the server.
func (r *room) missed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known = false
	r.wakeLocked()
}

// wakeLocked wakes the first of those who wait, who acts for all, and the watchers.
func (r *room) wakeLocked() {
	if len(r.waiters) > 0 {
		poke(r.waiters[0].wake)
	}
	for wake := range r.watchers {
		poke(wake)
	}
}

func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// look returns the state as this locker knows it, or asks when it does not or when it is told to.
func (r *room) look(ctx context.Context, op string, ask bool) (s state, asked bool, err error) {
	r.mu.Lock()
	s, known, heard := r.state, r.known, r.heard
	r.mu.Unlock()
	if known && !ask {
		return s, false, nil
	}
	s, err = r.l.bucket.read(ctx, op, r.key)
	if err != nil {
		return state{}, true, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.heard == heard && r.follows {
		changed := !r.known || r.state.rev != s.rev
		r.state, r.known = s, true
		if changed {
			r.wakeLocked()
		}
	}
	return s, true, nil
}

// amend changes the entry. decide is given the latest state and tells the next one; it is asked again when the entry was
// changed meanwhile, and an error of it counts only when it was given what the server has. stored is called after the
// write, with the state as stored and the time just before it was sent.
func (r *room) amend(ctx context.Context, op string, ask bool, decide func(s state, v view) (step, error), stored func(st step, s state, sent time.Time)) (step, error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return step{}, fault.FromContext(op, ctx, "other callers of lock "+r.name)
	}
	defer func() { <-r.turn }()
	for try := range tries {
		s, asked, err := r.look(ctx, op, ask)
		if err != nil {
			return step{}, err
		}
		now, err := r.l.clock.now(ctx)
		if err != nil {
			return step{}, err
		}
		waiters, v := r.view(now)
		st, err := decide(s, v)
		if err != nil && !asked {
			ask = true
			continue
		}
		if err != nil || !st.write {
			return st, err
		}
		sent := time.Now()
		rev, err := r.l.bucket.write(ctx, op, r.key, st.next, s.rev)
		if err == errChanged {
			ask = true
			r.pause(ctx, try)
			continue
		}
		if err != nil {
			if unsure(err) {
				r.written(waiters, true)
			}
			r.doubt()
			return step{}, err
		}
		r.written(waiters, false)
		after := st.next.stored(rev, r.l.clock.guess())
		if st.granted >= 0 {
			r.grant(waiters[st.granted], after, sent)
		}
		r.hear(after)
		if stored != nil {
			stored(st, after, sent)
		}
		return st, nil
	}
	return step{}, fault.New(op, fault.BackendDown, "lock %q was changed by others %d times while this call tried to", r.name, tries)
}

// pause lets others finish before the next try, a little longer each time.
func (r *room) pause(ctx context.Context, try int) {
	if try == 0 {
		return
	}
	t := time.NewTimer(rand.N(min(time.Duration(try)*time.Millisecond, 20*time.Millisecond)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// view is how this locker sees the lock now, and the waiters it is about.
func (r *room) view(now time.Time) ([]*waiter, view) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := view{me: r.l.id, now: now, grace: r.l.clock.grace(), mine: make([]place, len(r.waiters))}
	for i, w := range r.waiters {
		v.mine[i] = w.place
	}
	return slices.Clone(r.waiters), v
}

// written marks the waiters that an entry names which was stored or, unsure, may have been.
func (r *room) written(waiters []*waiter, unsure bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range waiters {
		w.stored = true
		w.unsure = w.unsure || unsure
	}
}

// grant tells w that it holds the lock. The waiter may just have left: then it finds the lease and gives it back.
func (r *room) grant(w *waiter, s state, sent time.Time) {
	lease := lock.Lease{Name: r.name, Owner: w.owner, Token: s.holder.Token, TTL: w.ttl, Expires: sent.Add(w.ttl)}
	r.remember(s, lease)
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.waiters, w); i >= 0 {
		r.waiters = slices.Delete(r.waiters, i, i+1)
	}
	w.granted <- lease
}

// remember keeps a lease that is not waited for at hand; one that is has to look at the line anyway.
func (r *room) remember(s state, lease lock.Lease) {
	if len(s.line) == 0 {
		r.l.memos.hold(r.key, s.rev, s.holder.ID, lease)
		return
	}
	r.l.memos.forget(r.key)
}
