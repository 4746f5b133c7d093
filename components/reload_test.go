package components

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// ledger opens stores and notes what was done to each.
type ledger struct {
	mu     sync.Mutex
	opened []*entryOfLedger
}

type entryOfLedger struct {
	dir    string
	closed int
}

func (l *ledger) component() Component {
	return stateTest(func(_ context.Context, _ Host, c testConfig) (state.Store, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		e := &entryOfLedger{dir: c.Dir}
		l.opened = append(l.opened, e)
		return &fakeStore{config: c, close: func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			e.closed++
			return nil
		}}, nil
	})
}

// open counts the stores that are open.
func (l *ledger) open() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.opened {
		n += 1 - e.closed
	}
	return n
}

func at(dir string) Manifest {
	m := cart()
	m.Metadata = []Entry{{Key: "dir", Value: dir, Line: 5}}
	return m
}

func TestReloadKeepsWhatDidNotChange(t *testing.T) {
	var l ledger
	s := NewSet(Options{Known: []Component{l.component()}, Documents: docs(at("a"))})
	defer closeSet(t, s)
	first := mustState(t, s)
	first.Release()
	moved := at("a")
	moved.Source.Line, moved.Metadata[0].Line = 20, 25
	s.Reload(docs(moved))
	second := mustState(t, s)
	second.Release()
	if first.Backend != second.Backend || len(l.opened) != 1 {
		t.Error("a component that only moved in its file was opened again")
	}
}

func TestReloadLetsCallsInFlightFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		s := NewSet(Options{Known: []Component{l.component()}, Documents: docs(at("a"))})
		old := mustState(t, s)
		s.Reload(docs(at("b")))
		select {
		case <-old.Replaced():
		default:
			t.Error("the holder of a replaced backend is not told")
		}
		fresh := mustState(t, s)
		synctest.Wait()
		if fresh.Backend.(*fakeStore).config.Dir != "b" || l.open() != 2 {
			t.Errorf("got %q with %d open", fresh.Backend.(*fakeStore).config.Dir, l.open())
		}
		old.Release()
		synctest.Wait()
		if l.open() != 1 || l.opened[0].closed != 1 {
			t.Errorf("%d open after the last use of the old one", l.open())
		}
		fresh.Release()
		s.Reload(nil)
		synctest.Wait()
		if _, err := s.State(context.Background(), "cart"); fault.ReasonOf(err) != fault.ComponentNotFound || l.open() != 0 {
			t.Errorf("after removal: %v, %d open", err, l.open())
		}
		closeSet(t, s)
	})
}

// A directory that only one process may hold is handed over without a failed call.
func TestReloadHandsOverWhatOnlyOneCanHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Bool
		exclusive := stateTest(func(context.Context, Host, testConfig) (state.Store, error) {
			if held.Swap(true) {
				return nil, fault.New("open", fault.DirectoryInUse, "the directory is in use")
			}
			return &fakeStore{close: func() error { held.Store(false); return nil }}, nil
		})
		s := NewSet(Options{Known: []Component{exclusive}, Documents: docs(at("a"))})
		old := mustState(t, s)
		s.Reload(docs(at("b")))
		go func() {
			time.Sleep(handover / 2)
			old.Release()
		}()
		mustState(t, s).Release()

		old = mustState(t, s)
		s.Reload(docs(at("c")))
		if _, err := s.State(context.Background(), "cart"); fault.ReasonOf(err) != fault.ComponentDegraded {
			t.Errorf("got %v", err)
		}
		old.Release()
		synctest.Wait() // no time passes: the retry waits for the old one, not for its clock
		mustState(t, s).Release()
		closeSet(t, s)
	})
}

func TestReloadFollowsTheSecretStore(t *testing.T) {
	m := cart(Entry{Key: "password", Secret: &SecretRef{"redis", "password"}})
	m.SecretStore = "vault"
	vault := Manifest{Name: "vault", Type: "secretstores.test"}
	s := NewSet(Options{Known: testComponents, Documents: docs(m, vault)})
	defer closeSet(t, s)
	first := mustState(t, s)
	first.Release()
	vault.InitTimeout = time.Minute
	s.Reload(docs(m, vault))
	second := mustState(t, s)
	second.Release()
	if first.Backend == second.Backend {
		t.Error("a component whose secret store changed was not opened again")
	}
}

func TestReloadsAreTold(t *testing.T) {
	var l ledger
	s := NewSet(Options{Known: []Component{l.component()}, Documents: docs(at("a"))})
	changed := s.Changed()
	over := func() bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	if over() {
		t.Error("told of a change before there is one")
	}
	s.Reload(docs(at("b")))
	if !over() {
		t.Error("a reload is not told")
	}
	if changed = s.Changed(); over() {
		t.Error("a reload is told twice")
	}
	closeSet(t, s)
	if !over() {
		t.Error("the end is not told")
	}
}

func TestReloadWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var closed atomic.Int32
		slow := stateTest(func(_ context.Context, _ Host, c testConfig) (state.Store, error) {
			time.Sleep(time.Second)
			return &fakeStore{config: c, close: func() error { closed.Add(1); return nil }}, nil
		})
		s := NewSet(Options{Known: []Component{slow}, Documents: docs(at("a"))})
		go func() {
			time.Sleep(time.Second / 2)
			s.Reload(docs(at("b")))
		}()
		use := mustState(t, s)
		if use.Backend.(*fakeStore).config.Dir != "b" {
			t.Error("a caller that waited got the replaced component")
		}
		use.Release()
		closeSet(t, s)
		if closed.Load() != 2 {
			t.Errorf("closed %d of 2", closed.Load())
		}
	})
}

func TestCloseSaysWhatIsStillInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		s := NewSet(Options{Known: []Component{l.component()}, Documents: docs(at("a"))})
		use := mustState(t, s)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Close(ctx); fault.KindOf(err) != fault.Timeout || !strings.Contains(err.Error(), "cart") {
			t.Errorf("got %v", err)
		}
		if l.open() != 1 {
			t.Error("a backend in use was closed")
		}
		use.Release()
		closeSet(t, s)
		if l.opened[0].closed != 1 {
			t.Errorf("closed %d times", l.opened[0].closed)
		}
	})
}

func mustState(t interface {
	Helper()
	Fatal(...any)
}, s *Set) Use[state.Store] {
	t.Helper()
	use, err := s.State(context.Background(), "cart")
	if err != nil {
		t.Fatal(err)
	}
	return use
}

// Uses, releases and reloads in any order: no backend is closed while it is used, none is left, each is closed once.
func TestSwapProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l ledger
		s := NewSet(Options{Known: []Component{l.component()}, Documents: docs(at("0"))})
		now := "0"
		var held []Use[state.Store]
		closedOf := func(u Use[state.Store]) int {
			l.mu.Lock()
			defer l.mu.Unlock()
			n := 0
			for _, e := range l.opened {
				if e.dir == u.Backend.(*fakeStore).config.Dir {
					n = e.closed // directories are not used again before the next change, so the last one counts
				}
			}
			return n
		}
		changes := 0
		t.Repeat(map[string]func(*rapid.T){
			"use": func(t *rapid.T) {
				if len(held) == 0 || held[0].Backend.(*fakeStore).config.Dir == now { // the handover would wait for itself
					use := mustState(t, s)
					if got := use.Backend.(*fakeStore).config.Dir; got != now {
						t.Fatalf("got %s, want %s", got, now)
					}
					held = append(held, use)
				}
			},
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				held[i].Release()
				held = append(held[:i], held[i+1:]...)
			},
			"change": func(t *rapid.T) {
				changes++
				now = fmt.Sprint(changes)
				s.Reload(docs(at(now)))
			},
			"keep": func(t *rapid.T) { s.Reload(docs(at(now))) },
			"": func(t *rapid.T) {
				for _, u := range held {
					if closedOf(u) != 0 {
						t.Fatalf("%s was closed while it is used", u.Backend.(*fakeStore).config.Dir)
					}
				}
			},
		})
		for _, u := range held {
			u.Release()
		}
		if err := s.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, e := range l.opened {
			if e.closed != 1 {
				t.Fatalf("%s was closed %d times", e.dir, e.closed)
			}
		}
	})
}

// The same with many callers at once; the race detector and the counts judge.
func TestSwapUnderLoad(t *testing.T) {
	type tracked struct {
		fakeStore
		users, closes atomic.Int32
	}
	var mu sync.Mutex
	var all []*tracked
	c := State("test", "", func(context.Context, Host, testConfig) (state.Store, error) {
		b := &tracked{}
		b.close = func() error {
			if n := b.users.Load(); n != 0 {
				t.Errorf("closed with %d users", n)
			}
			b.closes.Add(1)
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, b)
		return b, nil
	})
	s := NewSet(Options{Known: []Component{c}, Documents: docs(at("0"))})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 2000 {
				use, err := s.State(context.Background(), "cart")
				if err != nil {
					t.Error(err)
					return
				}
				b := use.Backend.(*tracked)
				b.users.Add(1)
				if b.closes.Load() != 0 {
					t.Error("used after it was closed")
				}
				b.users.Add(-1)
				use.Release()
			}
		})
	}
	for i := range 50 {
		s.Reload(docs(at(fmt.Sprint(i))))
	}
	callers.Wait()
	closeSet(t, s)
	for _, b := range all {
		if n := b.closes.Load(); n != 1 {
			t.Errorf("closed %d times", n)
		}
	}
}

const storeYAML = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: cart}\nspec:\n  type: state.test\n  metadata: [{name: dir, value: %s}]\n"

// Real files: a folder is replaced, linked anew as Kubernetes does it, removed and made again, broken and mended.
func TestWatchReloadsFiles(t *testing.T) {
	var l ledger
	known := []Component{l.component()}
	root := t.TempDir()
	folder := filepath.Join(root, "components")
	file := filepath.Join(folder, "cart.yaml")
	write := func(dir string) {
		t.Helper()
		must(t, os.MkdirAll(folder, 0o755))
		must(t, os.WriteFile(file+".new", fmt.Appendf(nil, storeYAML, dir), 0o644))
		must(t, os.Rename(file+".new", file))
	}
	write("first")
	seen := See([]string{folder})
	first, err := Load(context.Background(), []string{folder}, known)
	must(t, err)
	s := NewSet(Options{Known: known, Documents: first})
	defer closeSet(t, s)

	ctx, cancel := context.WithCancel(context.Background())
	var failed atomic.Value
	ended := make(chan error)
	go func() {
		ended <- Watch(ctx, seen, func() {
			docs, err := Load(ctx, []string{folder}, known)
			if err != nil {
				failed.Store(err)
				return
			}
			s.Reload(docs)
		})
	}()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	await := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within 10 s", what)
			}
		}
	}
	dir := func(want string) func() bool {
		return func() bool {
			use := mustState(t, s)
			defer use.Release()
			return use.Backend.(*fakeStore).config.Dir == want
		}
	}

	write("third") // the watch may not have begun: it tells of what changed since the files were seen
	await("a rename", dir("third"))

	must(t, os.WriteFile(file, []byte("kind: Componet\napiVersion: x\n"), 0o644))
	await("a wrong file", func() bool { return failed.Load() != nil })
	if !dir("third")() {
		t.Error("a wrong file changed something")
	}
	write("fourth")
	await("a mended file", dir("fourth"))

	must(t, os.Rename(folder, folder+".old"))
	write("fifth")
	await("a replaced folder", dir("fifth"))

	must(t, os.RemoveAll(folder))
	for _, version := range []string{"v1", "v2"} {
		must(t, os.MkdirAll(filepath.Join(root, version), 0o755))
		must(t, os.WriteFile(filepath.Join(root, version, "cart.yaml"), fmt.Appendf(nil, storeYAML, version), 0o644))
	}
	must(t, os.Mkdir(folder, 0o755))
	must(t, os.Symlink("../v1", filepath.Join(folder, "..data")))
	must(t, os.Symlink("..data/cart.yaml", file))
	await("a folder made of links", dir("v1"))
	must(t, os.Symlink("../v2", filepath.Join(folder, "..data_tmp")))
	must(t, os.Rename(filepath.Join(folder, "..data_tmp"), filepath.Join(folder, "..data")))
	await("a swapped link", dir("v2"))
	must(t, os.WriteFile(filepath.Join(root, "v2", "cart.yaml"), fmt.Appendf(nil, storeYAML, "v3"), 0o644))
	await("a change behind a link", dir("v3"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
