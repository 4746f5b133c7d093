package badgerstore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
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
				dir := s.(*store).space.dir
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

func TestTheDefaultDirectoryIsTheApps(t *testing.T) {
	root := t.TempDir()
	for app, want := range map[string]string{"orders": "orders", "../../etc": "=2E=2E=2F=2E=2E=2Fetc"} {
		s, err := open(t.Context(), components.Host{AppID: app, DataDir: root}, Config{MinFree: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.(*store).space.dir; got != filepath.Join(root, "state", want) {
			t.Errorf("app %q has its data in %s", app, got)
		}
		shut(t, s.(*store))
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
	const size, writes = 1 << 20, 500
	for i := range writes {
		if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: string(rune('a' + i%10)), Value: make([]byte, size)}}); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s.collectOnce()
		used := logged(t, s.db.Opts().Dir)
		if used <= 4*logFile { // the file that is written is twice as long as it will get, and has holes
			t.Logf("%d MiB written, %d MiB kept", writes*size>>20, used>>20)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d MiB written, %d MiB kept", writes*size>>20, used>>20)
		}
	}
	if items, err := s.Scan(t.Context(), "", "", 100, false); err != nil || len(items) != 10 || len(items[9].Value) != size {
		t.Errorf("%d items are left, %v", len(items), err)
	}
}

// logged is how long the files of the value log are.
func logged(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.vlog"))
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
