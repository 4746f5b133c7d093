package statetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// log is what a watcher has seen.
type log struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	events []state.Event
	err    error // of Watch, when done is closed
}

// follow starts a watch that records what it sees and ends with the test.
func follow(t *testing.T, w state.Watcher, prefix string, onlyChanges bool) *log {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l := &log{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		l.err = w.Watch(ctx, prefix, onlyChanges, func(e state.Event) error {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.events = append(l.events, e)
			return nil
		})
	}()
	t.Cleanup(func() { l.stop(t) })
	return l
}

func (l *log) stop(t *testing.T) error {
	t.Helper()
	l.cancel()
	select {
	case <-l.done:
	case <-time.After(patience):
		t.Fatal("Watch does not end with its context")
	}
	return l.err
}

func (l *log) seen() []state.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]state.Event(nil), l.events...)
}

// awaits waits until an event satisfies cond.
func (l *log) awaits(t *testing.T, what string, cond func(state.Event) bool) {
	t.Helper()
	eventually(t, what, func() bool {
		for _, e := range l.seen() {
			if cond(e) {
				return true
			}
		}
		return false
	})
}

func isCurrent(e state.Event) bool { return e.Kind == state.Current }

func isWritten(key, value string) func(state.Event) bool {
	return func(e state.Event) bool {
		return e.Kind == state.Written && e.Item.Key == key && string(e.Item.Value) == value
	}
}

func isDeleted(key string) func(state.Event) bool {
	return func(e state.Event) bool { return e.Kind == state.Deleted && e.Item.Key == key }
}

// text is the events as "+key=value", "-key" and "current".
func text(events []state.Event) string {
	var b strings.Builder
	for _, e := range events {
		switch e.Kind {
		case state.Written:
			fmt.Fprintf(&b, "+%s=%s ", e.Item.Key, e.Item.Value)
		case state.Deleted:
			fmt.Fprintf(&b, "-%s ", e.Item.Key)
		case state.Current:
			b.WriteString("current ")
		}
	}
	return strings.TrimSpace(b.String())
}

func (s *suite) watch(t *testing.T) {
	store, w := s.watcher(t)
	put(t, store, "gone", "1")
	remove(t, store, "gone")
	etag := put(t, store, "k", "1")
	l := follow(t, w, "", false)
	l.awaits(t, "the end of the snapshot", isCurrent)
	if got := text(l.seen()); got != "+k=1 current" {
		t.Fatalf("the snapshot is %s", got)
	}
	if got := l.seen()[0].Item.ETag; got != etag {
		t.Errorf("the snapshot has ETag %q, want %q", got, etag)
	}
	etag = put(t, store, "k", "2")
	l.awaits(t, "a change", isWritten("k", "2"))
	remove(t, store, "k")
	l.awaits(t, "a deletion", isDeleted("k"))
	put(t, store, "new", "1")
	l.awaits(t, "a new key", isWritten("new", "1"))
	if got := text(l.seen()); got != "+k=1 current +k=2 -k +new=1" {
		t.Errorf("seen %s", got)
	}
	if got := l.seen()[2].Item.ETag; got != etag {
		t.Errorf("the change has ETag %q, want %q", got, etag)
	}
}

func (s *suite) watchOnlyChanges(t *testing.T) {
	store, w := s.watcher(t)
	put(t, store, "old", "1")
	l := follow(t, w, "", true)
	l.awaits(t, "the end of the snapshot", isCurrent)
	put(t, store, "new", "1")
	l.awaits(t, "a change", isWritten("new", "1"))
	if got := text(l.seen()); got != "current +new=1" {
		t.Errorf("seen %s", got)
	}
}

func (s *suite) watchPrefix(t *testing.T) {
	store, w := s.watcher(t)
	keys := []string{"a||b", "a||c", "a|", "a", "b", "a||", "aa||b", "A||b"}
	for _, key := range keys {
		put(t, store, key, "1")
	}
	for _, prefix := range []string{"a||", "a|", "a", "a||b"} {
		l := follow(t, w, prefix, false)
		l.awaits(t, "the end of the snapshot", isCurrent)
		for i, key := range keys {
			put(t, store, key, prefix+strconv.Itoa(i))
		}
		put(t, store, prefix+"\xff", "end "+prefix)
		l.awaits(t, "the last change", isWritten(prefix+"\xff", "end "+prefix))
		seen := make(map[string]int)
		for _, e := range l.seen() {
			seen[e.Item.Key]++
		}
		for _, key := range keys {
			if want := strings.HasPrefix(key, prefix); (seen[key] >= 2) != want || !want && seen[key] > 0 {
				t.Errorf("under %q: %q was seen %d times", prefix, key, seen[key])
			}
		}
		remove(t, store, prefix+"\xff")
		if err := l.stop(t); fault.KindOf(err) != fault.Canceled {
			t.Errorf("a watch whose context ended returned %v", err)
		}
	}
}

// watchOrder has writers count up in keys of their own while watchers look: a count never goes back and the last is seen.
func (s *suite) watchOrder(t *testing.T) {
	store, w := s.watcher(t)
	const writers, last = 4, 60
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			for i := 1; i <= last; i++ {
				op := state.Op{Kind: state.Set, Key: "w" + strconv.Itoa(n), Value: []byte(strconv.Itoa(i))}
				if _, err := store.Apply(t.Context(), []state.Op{op}); err != nil {
					t.Errorf("Apply: %v", err)
				}
			}
		})
	}
	logs := []*log{follow(t, w, "", false), follow(t, w, "w", true), follow(t, w, "w1", false)}
	logs[0].awaits(t, "the end of the snapshot", isCurrent)
	wg.Wait()
	for n := range writers {
		if n == 1 {
			logs[2].awaits(t, "the last write of w1", isWritten("w1", strconv.Itoa(last)))
		}
		logs[0].awaits(t, "the last write", isWritten("w"+strconv.Itoa(n), strconv.Itoa(last)))
	}
	for _, l := range logs {
		at := make(map[string]int)
		for _, e := range l.seen() {
			if e.Kind != state.Written {
				continue
			}
			i, _ := strconv.Atoi(string(e.Item.Value))
			if i <= at[e.Item.Key] {
				t.Errorf("%s went from %d to %d", e.Item.Key, at[e.Item.Key], i)
			}
			at[e.Item.Key] = i
		}
	}
}

// watchNoGap starts watches while a writer works: what the snapshot lacks must come as a change.
func (s *suite) watchNoGap(t *testing.T) {
	store, w := s.watcher(t)
	const last = 300
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range last {
			op := state.Op{Kind: state.Set, Key: fmt.Sprintf("k%03d", i), Value: []byte("v")}
			if _, err := store.Apply(t.Context(), []state.Op{op}); err != nil {
				t.Errorf("Apply: %v", err)
			}
		}
	}()
	var logs []*log
	for range 10 {
		l := follow(t, w, "k", false)
		l.awaits(t, "the end of the snapshot", isCurrent)
		logs = append(logs, l)
	}
	<-written
	for _, l := range logs {
		l.awaits(t, "the last write", isWritten(fmt.Sprintf("k%03d", last-1), "v"))
		seen := make(map[string]int)
		for _, e := range l.seen() {
			seen[e.Item.Key]++
		}
		for i := range last {
			if n := seen[fmt.Sprintf("k%03d", i)]; n != 1 {
				t.Errorf("k%03d was seen %d times", i, n)
			}
		}
	}
}

func (s *suite) watchExpiry(t *testing.T) {
	store, w := s.watcher(t)
	set := func(key string, ttl time.Duration) {
		apply(t, store, state.Op{Kind: state.Set, Key: key, Value: []byte("1"), TTL: ttl})
	}
	var all, changes *log
	var before, replaced, after string
	for soon := 300 * time.Millisecond; ; soon *= 2 { // until the machine is quick enough to write again what expires soon
		place := fmt.Sprint(soon, "/")
		before, replaced, after = place+"before", place+"replaced", place+"after"
		began := time.Now()
		set(before, 5*soon)
		set(replaced, soon)
		all, changes = follow(t, w, place, false), follow(t, w, place, true)
		for _, l := range []*log{all, changes} {
			l.awaits(t, "the end of the snapshot", isCurrent)
		}
		put(t, store, replaced, "2")
		if time.Since(began) < soon-tick {
			break
		}
	}
	set(after, 200*time.Millisecond)
	for _, l := range []*log{all, changes} {
		for _, key := range []string{before, after} {
			l.awaits(t, key+" expires", isDeleted(key))
		}
	}
	for _, l := range []*log{all, changes} {
		deletions := 0
		for _, e := range l.seen() {
			if e.Kind == state.Deleted {
				deletions++
			}
			if isDeleted(replaced)(e) {
				t.Errorf("a key that was written again expired")
			}
		}
		if deletions != 2 {
			t.Errorf("seen %s", text(l.seen()))
		}
	}
	holds(t, store, replaced, "2", "")
}

func (s *suite) watchEnds(t *testing.T) {
	store, w := s.watcher(t)
	put(t, store, "k", "1")
	enough := errors.New("enough")
	for _, kind := range []state.EventKind{state.Written, state.Current} {
		err := w.Watch(t.Context(), "", false, func(e state.Event) error {
			if e.Kind == kind {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Errorf("Watch = %v, want the error of fn", err)
		}
	}
	for _, within := range []time.Duration{0, 100 * time.Microsecond, time.Millisecond, 50 * time.Millisecond} { // before it begins, and later
		ctx, cancel := context.WithTimeout(t.Context(), within)
		err := w.Watch(ctx, "", false, func(state.Event) error { return nil })
		cancel()
		if fault.KindOf(err) != fault.Timeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Watch for %v = %v (%v), want the error of the context", within, err, fault.KindOf(err))
		}
	}
}

// watchOverrun blocks a watcher while fifty MiB are written. The writers do not wait for it. When it goes on it is told
// that it was overrun, unless the backend could keep the changes for it: then it sees the last of them.
func (s *suite) watchOverrun(t *testing.T) {
	store, w := s.watcher(t)
	blocked, released, last := make(chan struct{}), make(chan struct{}), make(chan struct{})
	block, reached := sync.OnceFunc(func() { close(blocked); <-released }), sync.OnceFunc(func() { close(last) })
	release := sync.OnceFunc(func() { close(released) })
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		cancel()
		release()
	}()
	go func() {
		ended <- w.Watch(ctx, "", true, func(e state.Event) error {
			switch {
			case e.Kind == state.Current:
			case e.Item.Key == "last":
				reached()
			default:
				block()
			}
			return nil
		})
	}()
	eventually(t, "the watcher is blocked", func() bool {
		put(t, store, "first", "1")
		select {
		case <-blocked:
			return true
		default:
			return false
		}
	})
	value := make([]byte, min(s.MaxValue, 512<<10))
	for i := range (50 << 20) / len(value) {
		apply(t, store, state.Op{Kind: state.Set, Key: fmt.Sprintf("many/%d", i), Value: value})
		if i >= 75 { // not all at once: a store may be bounded
			remove(t, store, fmt.Sprintf("many/%d", i-75))
		}
	}
	put(t, store, "last", "1")
	release()
	select {
	case err := <-ended:
		if fault.ReasonOf(err) != fault.WatchOverrun {
			t.Errorf("Watch = %v, want %v", err, fault.WatchOverrun)
		}
		return
	case <-last:
	case <-time.After(patience):
		t.Error("a slow watcher neither learns that it was overrun nor what it missed")
	}
	cancel()
	<-ended
}
