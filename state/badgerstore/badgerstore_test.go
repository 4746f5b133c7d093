package badgerstore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		writeUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

func openAt(t testing.TB, dir string, sync bool) *store {
	t.Helper()
	s, err := open(context.Background(), components.Host{AppID: "test"}, Config{Dir: dir, Sync: sync, MinFree: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return s.(*store)
}

func shut(t testing.TB, s *store) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func conformance(sync bool) func(t *testing.T) {
	return func(t *testing.T) {
		statetest.Run(t, func(t *testing.T) state.Store { return openAt(t, t.TempDir(), sync) }, statetest.Traits{
			MaxValue: maxValue,
			Reopen: func(t *testing.T, s state.Store) state.Store {
				dir := s.(*store).db.Opts().Dir
				shut(t, s.(*store))
				return openAt(t, dir, sync)
			},
		})
	}
}

func TestConformance(t *testing.T) { conformance(true)(t) }

func TestConformanceWithoutSync(t *testing.T) { conformance(false)(t) }

func BenchmarkStore(b *testing.B) {
	for name, sync := range map[string]bool{"Sync": true, "NoSync": false} {
		b.Run(name, func(b *testing.B) {
			s := openAt(b, b.TempDir(), sync)
			defer shut(b, s)
			statetest.Bench(b, s)
		})
	}
}

func TestASecondProcessIsToldWhoHasTheDirectory(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, true)
	_, err := open(t.Context(), components.Host{AppID: "second"}, Config{Dir: dir, MinFree: 1 << 20})
	if fault.ReasonOf(err) != fault.DirectoryInUse {
		t.Fatalf("a second store opens with %v", err)
	}
	for _, part := range []string{dir, "pid ", `app "test"`, "since ", "state.jetstream"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	shut(t, s)
	shut(t, openAt(t, dir, true))
}

func TestADirectoryThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []Config{{Dir: file}, {Dir: filepath.Join(file, "below")}, {}} {
		_, err := open(t.Context(), components.Host{}, c)
		if fault.ReasonOf(err) != fault.DirectoryBad || fault.KindOf(err) != fault.Invalid {
			t.Errorf("dir %q: %v", c.Dir, err)
		}
	}
}

func TestTheDefaultDirectoryIsTheComponents(t *testing.T) {
	root := t.TempDir()
	for _, component := range []string{"carts", "users"} { // both at once
		s, err := open(t.Context(), components.Host{AppID: "orders", Component: component, DataDir: root}, Config{MinFree: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer shut(t, s.(*store))
		if got := s.(*store).db.Opts().Dir; got != filepath.Join(root, "state", "orders", component) {
			t.Errorf("component %q has its data in %s", component, got)
		}
	}
}

func TestATransactionThatIsTooBigChangesNothing(t *testing.T) {
	s := openAt(t, t.TempDir(), true)
	defer shut(t, s)
	small := func(n int) (ops []state.Op) {
		for i := range n {
			ops = append(ops, state.Op{Kind: state.Set, Key: strings.Repeat("k", 100) + string(rune(i+1000)), Value: make([]byte, 1<<10)})
		}
		return ops
	}
	large := func(n int) (ops []state.Op) {
		for i := range n {
			ops = append(ops, state.Op{Kind: state.Set, Key: string(rune(i + 1000)), Value: make([]byte, 16<<20)})
		}
		return ops
	}
	for _, c := range []struct {
		ops  []state.Op
		fits bool
	}{{small(1000), true}, {small(3000), false}, {large(4), true}, {large(5), false}} {
		_, err := s.Apply(t.Context(), c.ops)
		if c.fits != (err == nil) || !c.fits && fault.ReasonOf(err) != fault.TransactionBig {
			t.Errorf("%d ops: %v", len(c.ops), err)
		}
	}
	items, err := s.Get(t.Context(), []string{string(rune(1004))})
	if err != nil || len(items) != 0 {
		t.Errorf("a batch that was refused left %v, %v", items, err)
	}
}

func TestAPanicOfBadgerIsAnError(t *testing.T) {
	s := openAt(t, t.TempDir(), true)
	db := s.db
	defer func() { s.db = db; shut(t, s) }()
	s.db = nil
	if _, err := s.Get(t.Context(), []string{"k"}); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("Get = %v", err)
	}
	if _, err := s.Scan(t.Context(), "", "", 1, false); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("Scan = %v", err)
	}
	w, _, err := prepare("apply", []state.Op{{Kind: state.Set, Key: "k"}}, s.swept)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.commit([]*write{w}); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("commit = %v", err)
	}
}

func TestTheSpaceOfValuesThatAreGoneIsWonBack(t *testing.T) {
	s := openAt(t, t.TempDir(), false)
	defer shut(t, s)
	var writing atomic.Bool
	s.room = func(op string, bytes uint64) error {
		if writing.Load() && op == collectOp {
			return fault.New(op, fault.DiskFull, "not beside writes: see collect_test.go")
		}
		return s.db.Room(op, bytes)
	}
	writing.Store(true)
	overwrite(t, s, 500)
	writing.Store(false)
	for deadline := time.Now().Add(20 * time.Second); logged(t, s) > 4*logFile; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d MiB are kept", logged(t, s)>>20)
		}
		s.collectOnce()
	}
	if items, err := s.Scan(t.Context(), "", "", 100, false); err != nil || len(items) != 10 || len(items[9].Value) != 1<<20 {
		t.Errorf("%d items are left, %v", len(items), err)
	}
}

// overwrite writes that many MiB to ten keys.
func overwrite(t *testing.T, s *store, writes int) {
	t.Helper()
	for i := range writes {
		if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: string(rune('a' + i%10)), Value: make([]byte, 1<<20)}}); err != nil {
			t.Fatal(err)
		}
	}
}

// logged is how long the files of the value log are. The one that is written is twice as long as it will get, and has
// holes.
func logged(t *testing.T, s *store) (bytes int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.db.Opts().Dir, "*.vlog"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			bytes += info.Size()
		}
	}
	return bytes
}

// TestTheMapOfTheValueLogNeverMoves writes the largest batch at the very end of a file. Were the file made longer for it,
// its map could move away under readers.
func TestTheMapOfTheValueLogNeverMoves(t *testing.T) {
	s := openAt(t, t.TempDir(), false)
	defer shut(t, s)
	const spare = 1 << 10
	for _, op := range []state.Op{
		{Kind: state.Set, Key: "a", Value: make([]byte, logFile/2)},
		{Kind: state.Set, Key: "b", Value: make([]byte, logFile/2-spare)},
		{Kind: state.Set, Key: strings.Repeat("k", maxKey), Value: make([]byte, maxValue)},
	} {
		if _, err := s.Apply(t.Context(), []state.Op{op}); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(s.db.Opts().Dir, "*.vlog"))
	if err != nil || len(names) != 2 {
		t.Fatalf("the log is %v, %v: one full file and a new one was the idea", names, err)
	}
	if info, err := os.Stat(names[0]); err != nil || info.Size() <= logFile+maxValue-spare || info.Size() >= 2*logFile {
		t.Errorf("%s has %d bytes, its map %d; %v", names[0], info.Size(), 2*logFile, err)
	}
}
