// Package feed tells the watchers of a state store what changed. It is the part of state.Watcher that is the same for
// every store that runs in this process: who watches what, changes of one key folded into the latest, and the end of a
// watcher that is too slow.
//
// The store owns the order. It calls Publish for each change in the order of its commits, under a lock of its own, and
// Subscribe under the same lock together with choosing the snapshot; so a watcher sees each change exactly once, in the
// snapshot or after it:
//
//	s.mu.Lock()
//	sub, snapshot := s.feed.Subscribe(prefix), s.version
//	s.mu.Unlock()
//	defer sub.Cancel()
//	… report the snapshot …
//	return sub.Follow(ctx, fn, s.expire)
//
// A feed starts no goroutine: a watcher's own does its work, and looks for what has expired while it waits.
package feed

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// The most that waits for one watcher; more ends it with fault.WatchOverrun. One event may always wait, whatever its size.
const (
	MaxEvents = 8192
	MaxBytes  = 32 << 20
)

// Interval is how often a watcher that waits looks for what has expired.
const Interval = time.Second

// Feed is the watchers of one store. The zero Feed is ready. All methods may be called concurrently.
type Feed struct {
	mu     sync.Mutex
	subs   map[*Subscription]struct{}
	closed error
}

// Subscribe makes a watcher of all keys with prefix. It learns what is published from now on. Cancel it when done.
func (f *Feed) Subscribe(prefix string) *Subscription {
	s := &Subscription{feed: f, prefix: prefix, wake: make(chan struct{}, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed != nil {
		s.fail(f.closed)
		return s
	}
	if f.subs == nil {
		f.subs = make(map[*Subscription]struct{})
	}
	f.subs[s] = struct{}{}
	return s
}

// Idle reports whether nobody watches.
func (f *Feed) Idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs) == 0
}

// Watched reports whether anybody watches key, so that a store can spare itself the making of an event.
func (f *Feed) Watched(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		if strings.HasPrefix(key, s.prefix) {
			return true
		}
	}
	return false
}

// Publish hands e to the watchers of its key and returns at once. The feed keeps e's value until all have seen it.
func (f *Feed) Publish(e state.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		if strings.HasPrefix(e.Item.Key, s.prefix) {
			s.add(e)
		}
	}
}

// Close ends all watchers, and those still to come, with err.
func (f *Feed) Close(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = err
	for s := range f.subs {
		s.fail(err)
	}
	f.subs = nil
}

// Subscription is one watcher's place in the feed.
type Subscription struct {
	feed   *Feed
	prefix string
	wake   chan struct{} // holds one token while there is something to see

	mu      sync.Mutex
	order   []string // keys of pending, oldest change first
	pending map[string]state.Event
	size    int   // bytes of pending
	err     error // why the subscription ended
}

// Cancel ends the subscription and lets go of what waited for it.
func (s *Subscription) Cancel() {
	s.feed.mu.Lock()
	delete(s.feed.subs, s)
	s.feed.mu.Unlock()
	s.fail(context.Canceled)
}

// Follow calls fn with each event until ctx ends, fn fails, the store is closed or the watcher was too slow, and returns
// that error. While it waits it calls sweep each Interval: the store publishes what has expired.
func (s *Subscription) Follow(ctx context.Context, op string, fn func(state.Event) error, sweep func()) error {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		if ctx.Err() != nil {
			return Ended(op, ctx)
		}
		e, ok, err := s.next()
		if err != nil {
			return err
		}
		if ok {
			e.Item.Value = bytes.Clone(e.Item.Value) // fn's own: other watchers and the store hold the original
			if err := fn(e); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-ticker.C:
			sweep()
		}
	}
}

// Ended is the error of a watch whose ctx ended: errors.Is finds the error of ctx in it.
func Ended(op string, ctx context.Context) error {
	return fault.E(op, fault.KindOf(ctx.Err()), fault.FromContext(op, ctx, "").Reason, ctx.Err())
}

func (s *Subscription) next() (e state.Event, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || len(s.order) == 0 {
		return e, false, s.err
	}
	key := s.order[0]
	s.order[0] = ""
	s.order = s.order[1:]
	e = s.pending[key]
	delete(s.pending, key)
	s.size -= size(e)
	return e, true, nil
}

// add queues e, in the place of an older change of its key if one waits.
func (s *Subscription) add(e state.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if s.pending == nil {
		s.pending = make(map[string]state.Event)
	}
	old, folded := s.pending[e.Item.Key]
	if folded {
		s.size -= size(old)
	} else {
		s.order = append(s.order, e.Item.Key)
	}
	s.pending[e.Item.Key] = e
	s.size += size(e)
	if len(s.order) > 1 && (len(s.order) > MaxEvents || s.size > MaxBytes) {
		s.end(fault.New("watch", fault.WatchOverrun,
			"%d changes of %d bytes waited for this watcher, the most is %d of %d bytes: watch again", len(s.order), s.size, MaxEvents, MaxBytes))
	}
	s.signal()
}

func (s *Subscription) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.end(err)
	}
	s.signal()
}

// end drops what waits. s.mu is held.
func (s *Subscription) end(err error) {
	s.err, s.order, s.pending, s.size = err, nil, nil, 0
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func size(e state.Event) int { return len(e.Item.Key) + len(e.Item.Value) }
