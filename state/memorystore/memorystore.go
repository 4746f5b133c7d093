// Package memorystore is `state.memory`: a store that lives and dies with the sidecar.
//
// It keeps every promise of the State contract but one: nothing is durable. A restart forgets all, and each sidecar has
// its own. It is for tests, caches and trying things out.
//
// It never holds more than maxBytes; what does not fit fails with fault.Exhausted, reason STORE_FULL, and changes
// nothing. Items that have expired make room by themselves. An item costs its key, its value and 128 bytes. A Scan
// sorts the keys under its prefix each time.
//
//	apiVersion: dapr.io/v1alpha1
//	kind: Component
//	metadata: {name: cache}
//	spec:
//	  type: state.memory
//	  metadata:
//	    - {name: maxBytes, value: 16MiB}
package memorystore

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidecast/sidecast/agenda"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/etag"
	"github.com/sidecast/sidecast/state/feed"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	MaxBytes components.Bytes `meta:"maxBytes" default:"64MiB" min:"1KiB" doc:"Most memory the items may take: keys, values and 128 bytes for each."`
}

// Component makes the backend known to the runtime.
var Component = components.State("memory", "Store in the sidecar's memory: bounded, and gone when the sidecar stops.", open)

var (
	_ state.Store   = (*store)(nil)
	_ state.Scanner = (*store)(nil)
	_ state.Watcher = (*store)(nil)
)

func open(_ context.Context, _ components.Host, c Config) (state.Store, error) {
	return &store{limit: int64(c.MaxBytes), items: make(map[string]*item), expiry: newExpiry()}, nil
}

// overhead is what an item costs beside its key and value: its struct, its place in the map and in the agenda.
const overhead = 128

type store struct {
	limit int64
	feed  feed.Feed

	mu     sync.RWMutex
	items  map[string]*item
	expiry *agenda.Agenda[*item] // those that expire
	used   int64
	closed bool
}

// newExpiry lines items up by the time they expire.
func newExpiry() *agenda.Agenda[*item] {
	return agenda.New(func(a, b *item) bool { return a.expires.Before(b.expires) }, func(i *item) *agenda.Place { return &i.place })
}

// item is immutable but for place.
type item struct {
	key     string
	value   []byte
	tag     etag.Tag
	expires time.Time
	place   agenda.Place
}

func (i *item) cost() int64 { return int64(len(i.key)+len(i.value)) + overhead }

func (i *item) export(withValue bool) state.Item {
	out := state.Item{Key: i.key, ETag: i.tag.String(), Expires: i.expires}
	if withValue {
		out.Value = append([]byte{}, i.value...)
	}
	return out
}

// live returns the item of key if it exists at now. s.mu is held.
func (s *store) live(key string, now time.Time) *item {
	i := s.items[key]
	if i == nil || !i.expires.IsZero() && !now.Before(i.expires) {
		return nil
	}
	return i
}

// Get implements state.Store.
func (s *store) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	const op = "state.memory: get"
	if ctx.Err() != nil {
		return nil, fault.FromContext(op, ctx, "the store")
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, closedError(op)
	}
	now := time.Now()
	found := make([]state.Item, 0, len(keys))
	for _, key := range keys {
		if i := s.live(key, now); i != nil {
			found = append(found, i.export(true))
		}
	}
	return found, nil
}

// Apply implements state.Store.
func (s *store) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	const op = "state.memory: apply"
	if ctx.Err() != nil {
		return nil, fault.FromContext(op, ctx, "the store")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, closedError(op)
	}
	now := time.Now()
	s.expire(now)
	grows, err := s.check(op, ops, now)
	if err != nil {
		return nil, err
	}
	if grows > 0 && s.used+grows > s.limit {
		return nil, fault.New(op, fault.StoreFull, "%d of %d bytes are taken and this write needs %d more: delete something or raise maxBytes", s.used, s.limit, grows)
	}
	etags := make([]string, len(ops))
	for n, o := range ops {
		switch o.Kind {
		case state.Set:
			i := &item{key: o.Key, value: bytes.Clone(o.Value), tag: etag.New()}
			if o.TTL > 0 {
				i.expires = now.Add(o.TTL)
			}
			s.remove(o.Key)
			s.insert(i)
			s.feed.Publish(state.Event{Kind: state.Written, Item: state.Item{Key: i.key, Value: i.value, ETag: i.tag.String(), Expires: i.expires}})
			etags[n] = i.tag.String()
		case state.Delete:
			if s.remove(o.Key) {
				s.feed.Publish(deleted(o.Key))
			}
		}
	}
	return etags, nil
}

// check tells whether ops may be applied and by how many bytes the store grows if they are. s.mu is held.
func (s *store) check(op string, ops []state.Op, now time.Time) (grows int64, err error) {
	for _, o := range ops {
		present := s.live(o.Key, now)
		switch o.Match {
		case state.Exact:
			tag, ok := etag.Parse(o.ETag)
			if !ok {
				return 0, fault.New(op, fault.ETagMalformed, "%q is no ETag of this store: it is 16 hex digits", o.ETag).With("key", o.Key)
			}
			if present == nil || present.tag != tag {
				return 0, fault.New(op, fault.ETagMismatch, "%q is not at ETag %s", o.Key, o.ETag).With("key", o.Key)
			}
		case state.Absent:
			if present != nil {
				return 0, fault.New(op, fault.ETagMismatch, "%q exists", o.Key).With("key", o.Key)
			}
		}
		if o.Kind != state.Check && present != nil {
			grows -= present.cost()
		}
		if o.Kind == state.Set {
			cost := int64(len(o.Key)+len(o.Value)) + overhead
			if cost > s.limit {
				return 0, fault.New(op, fault.ValueTooLarge, "the value of %q has %d bytes, all items together may have %d", o.Key, len(o.Value), s.limit).With("key", o.Key)
			}
			grows += cost
		}
	}
	return grows, nil
}

// Scan implements state.Scanner.
func (s *store) Scan(ctx context.Context, prefix, after string, limit int, keysOnly bool) ([]state.Item, error) {
	const op = "state.memory: scan"
	if ctx.Err() != nil {
		return nil, fault.FromContext(op, ctx, "the store")
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, closedError(op)
	}
	sorted := s.sorted(prefix, after)
	found := make([]state.Item, 0, min(limit, len(sorted)))
	for _, i := range sorted[:cap(found)] {
		found = append(found, i.export(!keysOnly))
	}
	return found, nil
}

// sorted is the items under prefix after a key, in the order of their keys. s.mu is held.
func (s *store) sorted(prefix, after string) []*item {
	now := time.Now()
	var found []*item
	for key := range s.items {
		if i := s.live(key, now); i != nil && key > after && strings.HasPrefix(key, prefix) {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b *item) int { return strings.Compare(a.key, b.key) })
	return found
}

// Watch implements state.Watcher.
func (s *store) Watch(ctx context.Context, prefix string, onlyChanges bool, fn func(state.Event) error) error {
	const op = "state.memory: watch"
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return closedError(op)
	}
	sub := s.feed.Subscribe(prefix)
	defer sub.Cancel()
	var snapshot []*item
	if !onlyChanges {
		snapshot = s.sorted(prefix, "")
	}
	s.mu.RUnlock()

	for n, i := range snapshot {
		if ctx.Err() != nil {
			return feed.Ended(op, ctx)
		}
		if err := fn(state.Event{Kind: state.Written, Item: i.export(true)}); err != nil {
			return err
		}
		snapshot[n] = nil // a slow watcher holds what is left, not what it had
	}
	if err := fn(state.Event{Kind: state.Current}); err != nil {
		return err
	}
	return sub.Follow(ctx, op, fn, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.expire(time.Now())
	})
}

// Close implements state.Store.
func (s *store) Close(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.items, s.expiry, s.used = nil, newExpiry(), 0
	s.feed.Close(closedError("state.memory: watch"))
	return nil
}

// expire removes what has expired and tells the watchers. s.mu is held.
func (s *store) expire(now time.Time) {
	for s.expiry.Len() > 0 && !now.Before(s.expiry.First().expires) {
		key := s.expiry.First().key
		s.remove(key)
		s.feed.Publish(deleted(key))
	}
}

// insert adds i, whose key is not there. s.mu is held.
func (s *store) insert(i *item) {
	s.items[i.key] = i
	s.used += i.cost()
	if !i.expires.IsZero() {
		s.expiry.Add(i)
	}
}

// remove drops the item of key and reports whether there was one. s.mu is held.
func (s *store) remove(key string) bool {
	i := s.items[key]
	if i == nil {
		return false
	}
	delete(s.items, key)
	s.used -= i.cost()
	s.expiry.Remove(i)
	return true
}

func deleted(key string) state.Event {
	return state.Event{Kind: state.Deleted, Item: state.Item{Key: key}}
}

func closedError(op string) *fault.Error {
	return fault.New(op, fault.Shutdown, "the store is closed")
}
