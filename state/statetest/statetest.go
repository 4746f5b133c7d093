// Package statetest checks a backend against the contract of package state: every sentence of the contract is a test
// here, random batches are compared with a map, and goroutines that outlive a store are a failure.
//
//	func TestConformance(t *testing.T) {
//		statetest.Run(t, func(t *testing.T) state.Store { return open(t, t.TempDir()) }, statetest.Traits{MaxValue: 64 << 20})
//	}
//
//	func BenchmarkStore(b *testing.B) { statetest.Bench(b, store) }
package statetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// Traits says where backends may differ.
type Traits struct {
	// MaxValue is the longest value the backend documents: it is stored, and one byte more fails with VALUE_TOO_LARGE.
	MaxValue int
	// SingleOps says that batches of more than one op fail with fault.Unsupported before they change anything.
	SingleOps bool
	// NoChecks says that a batch that only looks at some items and writes others fails with fault.Unsupported before it
	// changes anything.
	NoChecks bool
	// BlindChecks says that an ETag which can never have been given out is, in a Check, one that does not match.
	BlindChecks bool
	// Plain says that the backend has values alone: items have neither an ETag nor a time at which they are said to expire, and
	// ops that expect something fail with fault.Unsupported before they change anything. It implies SingleOps.
	Plain bool
	// AnyETag says that the backend does not tell an ETag that it can never have given out from others.
	AnyETag bool
	// TTLUnit is the unit in which the backend keeps times to live, rounded up; 0 means a millisecond.
	TTLUnit time.Duration
	// Reopen closes the store and opens one with the same data; nil for a backend that keeps nothing.
	Reopen func(t *testing.T, s state.Store) state.Store
	// Parallel runs the tests at once. Then it is for TestMain to look for goroutines that are left.
	Parallel bool
}

// Run checks the stores that open returns. Each must be new and empty; Run closes it. When tests are parallel, so are calls of open.
func Run(t *testing.T, open func(t *testing.T) state.Store, traits Traits) {
	traits.SingleOps = traits.SingleOps || traits.Plain
	s := &suite{open: open, Traits: traits}
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"Get", s.get}, {"Set", s.set}, {"Delete", s.delete}, {"Check", s.check}, {"Bytes", s.bytes}, {"JSON", s.json}, {"Aliasing", s.aliasing},
		{"ETagChanges", s.etagChanges}, {"Exact", s.exact}, {"Absent", s.absent}, {"Malformed", s.malformed},
		{"Batch", s.batch}, {"BatchConflict", s.batchConflict}, {"SingleOps", s.singleOps}, {"NoChecks", s.noChecks}, {"Each", s.each}, {"Plain", s.plain},
		{"TTL", s.ttl}, {"TTLAndMatch", s.ttlAndMatch}, {"TTLReplaced", s.ttlReplaced},
		{"LargeValue", s.largeValue}, {"TooLarge", s.tooLarge},
		{"Increments", s.increments}, {"CreateOnce", s.createOnce}, {"BlindWriters", s.blindWriters}, {"Isolation", s.isolation},
		{"Scan", s.scan}, {"ScanPages", s.scanPages}, {"ScanHides", s.scanHides},
		{"Watch", s.watch}, {"WatchOnlyChanges", s.watchOnlyChanges}, {"WatchPrefix", s.watchPrefix}, {"WatchOrder", s.watchOrder},
		{"WatchNoGap", s.watchNoGap}, {"WatchExpiry", s.watchExpiry}, {"WatchEnds", s.watchEnds}, {"WatchOverrun", s.watchOverrun},
		{"Canceled", s.canceled}, {"Closed", s.closed}, {"CloseEndsWatch", s.closeEndsWatch}, {"Reopen", s.reopen}, {"Model", s.model},
	} {
		t.Run(test.name, func(t *testing.T) {
			if traits.Plain && slices.Contains(needETags, test.name) {
				t.Skip("the store has no ETags")
			}
			if traits.Parallel {
				t.Parallel()
				test.run(t)
				return
			}
			before := goleak.IgnoreCurrent()
			t.Run("Run", test.run) // so that all its cleanups have run before the goroutines are counted
			goleak.VerifyNone(t, before)
		})
	}
}

// needETags are the tests of what a Plain store does not have.
var needETags = []string{
	"Check", "ETagChanges", "Exact", "Absent", "Malformed", "TTL", "TTLAndMatch", "TTLReplaced", "Increments", "CreateOnce", "Reopen",
}

type suite struct {
	Traits
	open func(t *testing.T) state.Store
}

// patience bounds every wait of the suite. Nothing but a broken store takes so long.
const patience = 20 * time.Second

// store opens a store that is closed when the test ends.
func (s *suite) store(t *testing.T) state.Store {
	t.Helper()
	store := s.open(t)
	t.Cleanup(func() { shut(t, store) })
	return store
}

func shut(t *testing.T, store state.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := store.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func (s *suite) scanner(t *testing.T) (state.Store, state.Scanner) {
	t.Helper()
	store := s.store(t)
	scanner, ok := store.(state.Scanner)
	if !ok {
		t.Skipf("%T does not list", store)
	}
	return store, scanner
}

func (s *suite) watcher(t *testing.T) (state.Store, state.Watcher) {
	t.Helper()
	store := s.store(t)
	watcher, ok := store.(state.Watcher)
	if !ok {
		t.Skipf("%T does not watch", store)
	}
	return store, watcher
}

// apply is Apply that must succeed; it returns the ETags.
func apply(t *testing.T, store state.Store, ops ...state.Op) []string {
	t.Helper()
	etags, err := store.Apply(t.Context(), ops)
	if err != nil {
		t.Fatalf("Apply(%s): %v", show(ops), err)
	}
	if len(etags) != len(ops) {
		t.Fatalf("Apply of %d ops returned %d ETags", len(ops), len(etags))
	}
	return etags
}

// put stores a value and returns its ETag.
func put(t *testing.T, store state.Store, key, value string) string {
	t.Helper()
	return apply(t, store, state.Op{Kind: state.Set, Key: key, Value: []byte(value)})[0]
}

func remove(t *testing.T, store state.Store, key string) {
	t.Helper()
	apply(t, store, state.Op{Kind: state.Delete, Key: key})
}

// read returns the item of key, or nil.
func read(t *testing.T, store state.Store, key string) *state.Item {
	t.Helper()
	items, err := store.Get(t.Context(), []string{key})
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	switch {
	case len(items) == 0:
		return nil
	case len(items) > 1 || items[0].Key != key:
		t.Fatalf("Get(%q) returned %v", key, items)
	}
	return &items[0]
}

// holds fails the test unless key has value and etag; "" for the ETag means any.
func holds(t *testing.T, store state.Store, key, value, etag string) {
	t.Helper()
	item := read(t, store, key)
	switch {
	case item == nil:
		t.Fatalf("%q does not exist, want %q", key, value)
	case string(item.Value) != value:
		t.Fatalf("%q = %q, want %q", key, item.Value, value)
	case etag != "" && item.ETag != etag:
		t.Fatalf("%q has ETag %q, want %q", key, item.ETag, etag)
	}
}

func lacks(t *testing.T, store state.Store, key string) {
	t.Helper()
	if item := read(t, store, key); item != nil {
		t.Fatalf("%q = %q, want nothing", key, item.Value)
	}
}

// refuses fails the test unless applying ops fails with that kind and reason, and returns the error.
func refuses(t *testing.T, store state.Store, kind fault.Kind, reason fault.Reason, ops ...state.Op) error {
	t.Helper()
	_, err := store.Apply(t.Context(), ops)
	if fault.KindOf(err) != kind || fault.ReasonOf(err) != reason {
		t.Fatalf("Apply(%s) = %v (%v, %v), want %v, %v", show(ops), err, fault.KindOf(err), fault.ReasonOf(err), kind, reason)
	}
	return err
}

// show is ops as a failing test shows them.
func show(ops []state.Op) string {
	var b strings.Builder
	for i, op := range ops[:min(len(ops), 10)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %q", [...]string{"set", "delete", "check"}[op.Kind], op.Key)
		if op.Kind == state.Set {
			fmt.Fprintf(&b, " to %d bytes for %v", len(op.Value), op.TTL)
		}
		switch op.Match {
		case state.Exact:
			fmt.Fprintf(&b, " if at %q", op.ETag)
		case state.Absent:
			b.WriteString(" if absent")
		}
	}
	return b.String()
}

// eventually fails the test unless cond holds within patience.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
