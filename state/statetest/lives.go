package statetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func (s *suite) canceled(t *testing.T) {
	store := s.store(t)
	etag := put(t, store, "k", "1")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for want, ctx := range map[fault.Kind]context.Context{fault.Canceled: canceled, fault.Timeout: expired} {
		if _, err := store.Get(ctx, []string{"k"}); fault.KindOf(err) != want {
			t.Errorf("Get = %v, want %v", err, want)
		}
		if _, err := store.Apply(ctx, []state.Op{{Kind: state.Set, Key: "k", Value: []byte("2")}}); fault.KindOf(err) != want {
			t.Errorf("Apply = %v, want %v", err, want)
		}
		if scanner, ok := store.(state.Scanner); ok {
			if _, err := scanner.Scan(ctx, "", "", 10, false); fault.KindOf(err) != want {
				t.Errorf("Scan = %v, want %v", err, want)
			}
		}
		if w, ok := store.(state.Watcher); ok {
			if err := w.Watch(ctx, "", false, func(state.Event) error { return nil }); fault.KindOf(err) != want {
				t.Errorf("Watch = %v, want %v", err, want)
			}
		}
	}
	holds(t, store, "k", "1", etag)

	// Contexts that end at any moment leave a store that works.
	for i := range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Microsecond)
		_, err := store.Apply(ctx, []state.Op{{Kind: state.Set, Key: "late", Value: []byte("v")}})
		cancel()
		if kind := fault.KindOf(err); kind != fault.None && kind != fault.Timeout {
			t.Errorf("Apply = %v (%v)", err, kind)
		}
	}
	put(t, store, "k", "2")
	holds(t, store, "k", "2", "")
}

func (s *suite) closed(t *testing.T) {
	store := s.store(t)
	put(t, store, "k", "1")
	shut(t, store)
	if _, err := store.Get(t.Context(), []string{"k"}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Get after Close = %v (%v)", err, fault.KindOf(err))
	}
	if _, err := store.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: "k"}}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Apply after Close = %v (%v)", err, fault.KindOf(err))
	}
	if scanner, ok := store.(state.Scanner); ok {
		if _, err := scanner.Scan(t.Context(), "", "", 10, false); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Scan after Close = %v (%v)", err, fault.KindOf(err))
		}
	}
	if w, ok := store.(state.Watcher); ok {
		if err := w.Watch(t.Context(), "", false, func(state.Event) error { return nil }); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Watch after Close = %v (%v)", err, fault.KindOf(err))
		}
	}
	shut(t, store) // closing twice is harmless
}

// closeEndsWatch closes a store that is watched and written.
func (s *suite) closeEndsWatch(t *testing.T) {
	store, w := s.watcher(t)
	l := follow(t, w, "", false)
	l.awaits(t, "the end of the snapshot", isCurrent)
	stopped := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			if _, err := store.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: fmt.Sprint(i % 10)}}); err != nil {
				stopped <- err
				return
			}
		}
	}()
	l.awaits(t, "a write", func(e state.Event) bool { return e.Kind == state.Written })
	shut(t, store)
	for what, ended := range map[string]<-chan error{"Apply": stopped, "Watch": l.ended()} {
		select {
		case err := <-ended:
			if fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%s of a store that closes = %v (%v)", what, err, fault.KindOf(err))
			}
		case <-time.After(patience):
			t.Errorf("%s does not end when the store is closed", what)
		}
	}
}

// ended delivers the error of Watch.
func (l *log) ended() <-chan error {
	ended := make(chan error, 1)
	go func() {
		<-l.done
		ended <- l.err
	}()
	return ended
}

func (s *suite) reopen(t *testing.T) {
	if s.Reopen == nil {
		t.Skip("keeps nothing")
	}
	store := s.open(t)
	defer func() { shut(t, store) }()
	etags := make(map[string]string)
	for i := range 100 {
		key := fmt.Sprint("k", i)
		etags[key] = put(t, store, key, key)
	}
	put(t, store, "deleted", "1")
	remove(t, store, "deleted")
	old := put(t, store, "replaced", "1")
	put(t, store, "replaced", "2")
	apply(t, store,
		state.Op{Kind: state.Set, Key: "expires", TTL: 10 * time.Millisecond})
	apply(t, store,
		state.Op{Kind: state.Set, Key: "stays", TTL: time.Hour})
	expires := read(t, store, "stays").Expires

	for range 2 {
		store = s.Reopen(t, store)
		for key, etag := range etags {
			holds(t, store, key, key, etag)
		}
		lacks(t, store, "deleted")
		holds(t, store, "replaced", "2", "")
		refuses(t, store, fault.Conflict, fault.ETagMismatch, state.Op{Kind: state.Set, Key: "replaced", Match: state.Exact, ETag: old})
		eventually(t, "the item expires", func() bool { return read(t, store, "expires") == nil })
		if item := read(t, store, "stays"); item == nil || !item.Expires.Equal(expires) {
			t.Errorf("an item that expires at %v comes back as %+v", expires, item)
		}
		etags["k0"] = apply(t, store, state.Op{Kind: state.Set, Key: "k0", Value: []byte("k0"), Match: state.Exact, ETag: etags["k0"]})[0]
	}
}
