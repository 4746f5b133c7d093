// Package configtest checks a backend against the contract of package configstore: every sentence of it is a test here, and
// goroutines that outlive a store are a failure.
//
//	configtest.Run(t, func(t *testing.T) configtest.Place { … }, configtest.Traits{})
package configtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/fault"
)

// Place is a new, empty place for settings: the store under test and a way to it that is not the store's own.
type Place struct {
	Store configstore.Store
	// Put writes an item, with that version where a backend's writers say which.
	Put func(key, value, version string)
	// Delete removes one.
	Delete func(key string)
	// Metadata is what a watch of this place needs.
	Metadata map[string]string
}

// Traits says where backends may differ.
type Traits struct {
	// OwnVersions says that the backend makes the versions itself.
	OwnVersions bool
	// Ignore are goroutines of libraries that cannot be stopped.
	Ignore []goleak.Option
}

// Run checks the stores that open returns. Run closes them.
func Run(t *testing.T, open func(t *testing.T) Place, traits Traits) {
	s := &suite{open: open, Traits: traits}
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"Get", s.get}, {"GetAll", s.getAll}, {"Versions", s.versions},
		{"Watch", s.watch}, {"WatchAll", s.watchAll}, {"WatchDelete", s.watchDelete}, {"WatchNoGap", s.watchNoGap}, {"WatchManyWatchers", s.manyWatchers},
		{"WatchEnds", s.watchEnds}, {"Canceled", s.canceled}, {"Closed", s.closed}, {"CloseEndsWatch", s.closeEndsWatch},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Run("Run", test.run) // so that all its cleanups have run before the goroutines are counted
			goleak.VerifyNone(t, append([]goleak.Option{before}, traits.Ignore...)...)
		})
	}
}

type suite struct {
	Traits
	open func(t *testing.T) Place
}

// patience bounds every wait of the suite. Nothing but a broken store takes so long.
const patience = time.Minute

func (s *suite) place(t *testing.T) Place {
	t.Helper()
	p := s.open(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.Store.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return p
}

func (p Place) get(t *testing.T, keys ...string) map[string]configstore.Item {
	t.Helper()
	items, err := p.Store.Get(t.Context(), keys, nil)
	if err != nil {
		t.Fatalf("Get(%q): %v", keys, err)
	}
	return items
}

func values(items map[string]configstore.Item) map[string]string {
	all := map[string]string{}
	for key, item := range items {
		all[key] = item.Value
	}
	return all
}

func (s *suite) get(t *testing.T) {
	p := s.place(t)
	p.Put("a", "1", "1")
	p.Put("b", "2", "1")
	for _, c := range []struct {
		keys []string
		want map[string]string
	}{
		{[]string{"a"}, map[string]string{"a": "1"}}, {[]string{"b", "a", "b"}, map[string]string{"a": "1", "b": "2"}},
		{[]string{"absent"}, map[string]string{}}, {[]string{"absent", "b"}, map[string]string{"b": "2"}},
	} {
		if got := values(p.get(t, c.keys...)); !maps.Equal(got, c.want) {
			t.Errorf("Get(%q) = %v, want %v", c.keys, got, c.want)
		}
	}
	p.Put("a", "text with spaces, ünïcödé and {\"json\": 1}", "2")
	if got := p.get(t, "a")["a"].Value; got != "text with spaces, ünïcödé and {\"json\": 1}" {
		t.Errorf("got %q", got)
	}
	p.Delete("a")
	if got := p.get(t, "a"); len(got) != 0 {
		t.Errorf("a deleted item is %v", got)
	}
}

func (s *suite) getAll(t *testing.T) {
	p := s.place(t)
	if got := p.get(t); len(got) != 0 {
		t.Errorf("an empty place holds %v", got)
	}
	want := map[string]string{}
	for i := range 50 {
		key, value := fmt.Sprintf("key%d", i), fmt.Sprint(i)
		p.Put(key, value, "1")
		want[key] = value
	}
	p.Delete("key7")
	delete(want, "key7")
	if got := values(p.get(t)); !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func (s *suite) versions(t *testing.T) {
	p := s.place(t)
	p.Put("a", "1", "7")
	first := p.get(t, "a")["a"].Version
	p.Put("a", "1", "8")
	second := p.get(t, "a")["a"].Version
	if first == second || !s.OwnVersions && (first != "7" || second != "8") {
		t.Errorf("versions %q and %q", first, second)
	}
}

// watcher is a watch that runs.
type watcher struct {
	mu   sync.Mutex
	told map[string]int // how often each key was told; nil counts under ""
	err  error
	done chan struct{}
	stop func()
}

// watch starts one and returns when it learns of every change.
func (p Place) watch(t *testing.T, keys ...string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{told: map[string]int{}, done: make(chan struct{}), stop: cancel}
	go func() {
		defer close(w.done)
		w.err = p.Store.Watch(ctx, keys, p.Metadata, func(keys []string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, key := range keys {
				w.told[key]++
			}
			if keys == nil {
				w.told[""]++
			}
		})
	}()
	t.Cleanup(func() { cancel(); <-w.done })
	w.eventually(t, "ready", func() bool { return w.count("") > 0 })
	return w
}

func (w *watcher) count(key string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told[key] + w.told[""]
}

func (w *watcher) eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-w.done:
			t.Fatalf("the watch ended before %s: %v", what, w.err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s; told %v", patience, what, w.told)
		}
	}
}

func (s *suite) watch(t *testing.T) {
	p := s.place(t)
	p.Put("a", "0", "1")
	w := p.watch(t, "a", "b", "a")
	for i := range 3 {
		for _, key := range []string{"a", "b"} {
			before := w.count(key)
			p.Put(key, fmt.Sprint(i), fmt.Sprint(i+2))
			w.eventually(t, "a change of "+key, func() bool { return w.count(key) > before })
			if got := p.get(t, key)[key].Value; got != fmt.Sprint(i) {
				t.Errorf("what was told reads as %q", got)
			}
		}
	}
}

func (s *suite) watchAll(t *testing.T) {
	p := s.place(t)
	w := p.watch(t)
	for _, key := range []string{"any", "other", "any"} {
		before := w.count(key)
		p.Put(key, fmt.Sprint(before), fmt.Sprint(before+1))
		w.eventually(t, "a change of "+key, func() bool { return w.count(key) > before })
	}
}

func (s *suite) watchDelete(t *testing.T) {
	p := s.place(t)
	p.Put("a", "1", "1")
	for _, w := range []*watcher{p.watch(t, "a"), p.watch(t)} {
		p.Put("a", "1", "2")
		before := w.count("a")
		p.Delete("a")
		w.eventually(t, "the end of a", func() bool { return w.count("a") > before })
	}
}

// watchNoGap: a change right after the first call is told.
func (s *suite) watchNoGap(t *testing.T) {
	p := s.place(t)
	for i := range 5 {
		w := p.watch(t, "a")
		before := w.count("a")
		p.Put("a", fmt.Sprint(i), fmt.Sprint(i+1))
		w.eventually(t, "a change right after the start", func() bool { return w.count("a") > before })
		w.stop()
	}
}

func (s *suite) manyWatchers(t *testing.T) {
	p := s.place(t)
	var all []*watcher
	for range 12 {
		all = append(all, p.watch(t, "a"))
	}
	before := make([]int, len(all))
	for i, w := range all {
		before[i] = w.count("a")
	}
	p.Put("a", "1", "1")
	for i, w := range all {
		w.eventually(t, "each watcher is told", func() bool { return w.count("a") > before[i] })
	}
	if got := p.get(t, "a"); got["a"].Value != "1" { // the watchers leave room for it
		t.Errorf("got %v", got)
	}
}

func (s *suite) watchEnds(t *testing.T) {
	w := s.place(t).watch(t, "a")
	w.stop()
	<-w.done
	if !errors.Is(w.err, context.Canceled) && fault.KindOf(w.err) != fault.Canceled {
		t.Errorf("the watch ended with %v", w.err)
	}
}

func (s *suite) canceled(t *testing.T) {
	p := s.place(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Store.Get(ctx, []string{"a"}, nil); fault.KindOf(err) != fault.Canceled {
		t.Errorf("Get: %v", err)
	}
	if err := p.Store.Watch(ctx, []string{"a"}, p.Metadata, func([]string) {}); fault.KindOf(err) != fault.Canceled {
		t.Errorf("Watch: %v", err)
	}
}

func (s *suite) closed(t *testing.T) {
	p := s.place(t)
	if err := p.Store.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Store.Get(t.Context(), []string{"a"}, nil); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Get: %v", err)
	}
	if err := p.Store.Watch(t.Context(), []string{"a"}, p.Metadata, func([]string) {}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Watch: %v", err)
	}
}

func (s *suite) closeEndsWatch(t *testing.T) {
	p := s.place(t)
	watches := []*watcher{p.watch(t, "a"), p.watch(t)}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	closing, now := context.WithCancel(ctx)
	now() // who cannot wait for watches need not
	_ = p.Store.Close(closing)
	if err := p.Store.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	for _, w := range watches {
		<-w.done
		if !slices.Contains([]fault.Kind{fault.Unavailable, fault.Canceled}, fault.KindOf(w.err)) {
			t.Errorf("the watch ended with %v", w.err)
		}
	}
}
