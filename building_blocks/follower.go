package blocks

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// follower is one subscription to settings. A backend only says what may have changed; the follower reads that, compares it
// with what it has told, and tells the difference. So nothing is missed while the backend is away, and what waits for a slow
// subscriber is the names of keys.
type follower struct {
	c       *Configuration
	request ConfigurationRequest
	id      string
	cancel  func()
	fn      func(id string, items map[string]configstore.Item) error

	begun bool
	known map[string][sha256.Size]byte // what was told or there at the beginning, by key
}

func newFollower(c *Configuration, r ConfigurationRequest, cancel func(), fn func(string, map[string]configstore.Item) error) *follower {
	return &follower{c: c, request: r, cancel: cancel, fn: fn, known: make(map[string][sha256.Size]byte)}
}

// told is an error of fn.
type told struct{ error }

func (t told) Unwrap() error { return t.error }

const (
	firstPause = 100 * time.Millisecond // before a component that was lost is watched again
	lastPause  = 10 * time.Second
)

// run follows the component through its losses and replacements.
func (f *follower) run(ctx context.Context) error {
	wait := firstPause
	for {
		began := time.Now()
		err := f.session(ctx)
		t, ours := err.(told)
		switch {
		case ctx.Err() != nil:
			return nil
		case ours:
			return t.error
		case !f.begun || over(err):
			return err
		}
		if time.Since(began) > lastPause {
			wait = firstPause
		}
		if fault.ReasonOf(err) != fault.ComponentReplaced {
			f.c.log.Warn("settings cannot be watched; trying again", "component", f.request.Component, "keys", f.request.Keys, "after", wait, "error", err)
			if !sleep(ctx, wait) {
				return nil
			}
			wait = min(2*wait, lastPause)
		}
	}
}

// sleep is false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session watches the component until it is replaced or lost.
func (f *follower) session(ctx context.Context) error {
	use, err := f.c.components.Configuration(ctx, f.request.Component)
	if err != nil {
		return err
	}
	defer use.Release()
	ctx, cancel := whileCurrent(ctx, use)
	defer cancel()
	w, err := f.watch(ctx, use)
	if err != nil {
		return replacedOr(ctx, err)
	}
	defer w.stop()
	for {
		select {
		case <-w.hints.wake:
		case <-w.ended:
			return replacedOr(ctx, w.err)
		case <-ctx.Done():
			return replacedOr(ctx, ctx.Err())
		}
		if err := f.look(ctx, use, w.hints); err != nil {
			return replacedOr(ctx, err)
		}
	}
}

// look reads what may have changed, and tells what has.
func (f *follower) look(ctx context.Context, use components.Use[configstore.Store], hints *hints) error {
	keys, all := hints.take()
	if all {
		keys = f.request.Keys
	} else if keys = f.wanted(keys); len(keys) == 0 {
		return nil
	}
	items, err := f.c.read(ctx, use, keys, nil)
	if err != nil {
		return err
	}
	changed := f.compare(items, keys, all)
	switch {
	case !f.begun:
		f.begun = true
		err = f.fn(f.id, nil)
	case len(changed) > 0:
		err = f.fn(f.id, changed)
	}
	if err != nil {
		return told{err}
	}
	return nil
}

// wanted are those of keys that the subscription is for.
func (f *follower) wanted(keys []string) []string {
	if len(f.request.Keys) == 0 {
		return keys
	}
	return slices.DeleteFunc(keys, func(key string) bool { return !slices.Contains(f.request.Keys, key) })
}

// compare remembers items, which are all that exist of keys, and returns those that are others than before.
func (f *follower) compare(items map[string]configstore.Item, keys []string, all bool) map[string]configstore.Item {
	changed := make(map[string]configstore.Item)
	for key, item := range items {
		sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", item.Version, item.Value, item.Metadata))
		if old, ok := f.known[key]; !ok || old != sum {
			f.known[key], changed[key] = sum, item
		}
	}
	gone := func(key string) {
		if _, exists := items[key]; !exists {
			delete(f.known, key)
			changed[key] = configstore.Item{}
		}
	}
	if all {
		for key := range f.known {
			gone(key)
		}
		return changed
	}
	for _, key := range keys {
		if _, ok := f.known[key]; ok {
			gone(key)
		}
	}
	return changed
}

// hints are the keys that may have changed since they were taken last.
type hints struct {
	wake chan struct{} // holds one token while there are any

	mu   sync.Mutex
	keys map[string]struct{}
	all  bool
}

// mostHints is how many keys are told apart; beyond that all may have changed.
const mostHints = 1000

func newHints() *hints { return &hints{wake: make(chan struct{}, 1), keys: make(map[string]struct{})} }

// add never waits.
func (h *hints) add(keys []string) {
	h.mu.Lock()
	h.all = h.all || keys == nil
	for _, key := range keys {
		h.keys[key] = struct{}{}
	}
	if h.all = h.all || len(h.keys) > mostHints; h.all {
		clear(h.keys)
	}
	h.mu.Unlock()
	h.signal()
}

func (h *hints) signal() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hints) take() (keys []string, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.keys {
		keys = append(keys, key)
	}
	all = h.all
	h.all = false
	clear(h.keys)
	return keys, all
}

// watching is a watch of a backend that runs.
type watching struct {
	hints  *hints
	cancel func()
	ended  chan struct{}
	err    error // written before ended is closed
}

func (w *watching) stop() {
	w.cancel()
	<-w.ended
}

// watch has the backend tell of changes: one that begins passes the component's lane.
func (f *follower) watch(ctx context.Context, use components.Use[configstore.Store]) (w *watching, err error) {
	begin, record := f.c.lanes.begin(ctx, use.Name, "subscribe")
	defer record.end(&err)
	err = f.c.lanes.of(use.Name).Do(begin, resiliency.Call{Op: "subscribe"}, func(attempt context.Context, _ actors.Grant) error {
		w = f.start(ctx, use)
		select {
		case <-w.hints.wake:
			w.hints.signal() // it is still to be looked at
			return nil
		case <-w.ended:
			return w.err
		case <-attempt.Done():
			w.stop()
			return fault.FromContext("configuration: subscribe", attempt, "the component to watch its settings")
		}
	})
	return w, err
}

func (f *follower) start(ctx context.Context, use components.Use[configstore.Store]) *watching {
	w := &watching{hints: newHints(), ended: make(chan struct{})}
	ctx, w.cancel = context.WithCancel(ctx)
	go func() {
		defer close(w.ended)
		defer w.cancel()
		w.err = contained(f.c.log, "configuration: watch", func() error { return use.Backend.Watch(ctx, f.request.Keys, f.request.Metadata, w.hints.add) })
	}()
	return w
}
