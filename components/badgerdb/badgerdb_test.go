package badgerdb

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

const op = "test"

// holderDir is the environment variable that makes the test binary the process that is killed.
const holderDir = "BADGERDB_TEST_HOLDER"

var testHost = components.Host{AppID: "orders", Component: "cart"}

func TestMain(m *testing.M) {
	if dir := os.Getenv(holderDir); dir != "" {
		holdInChild(dir)
	}
	goleak.VerifyTestMain(m)
}

// holdInChild opens the database, writes to it without a flush, and waits to be killed.
func holdInChild(dir string) {
	db, err := Open(op, testHost, Options{Block: components.StateBlock, Dir: dir, MinFree: 1})
	if err == nil {
		err = db.Commit(op, func() error { return set(db, "k", "v") })
	}
	fmt.Println("ready", err)
	time.Sleep(time.Minute)
	os.Exit(1)
}

// start runs the test binary as the process that variable makes it, and returns the line it prints.
func start(t *testing.T, variable, dir string, args ...string) (child *exec.Cmd, said string) {
	t.Helper()
	child = exec.Command(os.Args[0], args...)
	child.Env = append(os.Environ(), variable+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said, _ = bufio.NewReader(out).ReadString('\n')
	return child, strings.TrimSpace(said)
}

func openAt(t *testing.T, dir string) *DB {
	t.Helper()
	db, err := Open(op, testHost, Options{Block: components.StateBlock, Dir: dir, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func set(db *DB, key, value string) error {
	return db.Update(func(txn *badger.Txn) error { return txn.Set([]byte(key), []byte(value)) })
}

func has(db *DB, key string) error {
	return db.View(func(txn *badger.Txn) error { _, err := txn.Get([]byte(key)); return err })
}

func shut(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Close(context.Background(), op); err != nil {
		t.Error(err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	child, said := start(t, holderDir, dir)
	if said != "ready <nil>" {
		t.Fatalf("the child said %q", said)
	}
	_, err := Open(op, testHost, Options{Block: components.LockBlock, Dir: dir})
	if fault.ReasonOf(err) != fault.DirectoryInUse {
		t.Fatalf("opening a directory in use gave %v", err)
	}
	for _, part := range []string{dir, fmt.Sprintf("(pid %d)", child.Process.Pid), `component "cart" of app "orders" since`, "`lock.jetstream`"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	db := openAt(t, dir)
	if err := has(db, "k"); err != nil {
		t.Fatalf("what the killed process committed: %v", err)
	}
	if _, err := Open(op, testHost, Options{Dir: dir}); fault.ReasonOf(err) != fault.DirectoryInUse {
		t.Fatalf("opening it twice gave %v", err)
	}
	shut(t, db)
	shut(t, openAt(t, dir))
}

func TestADirectoryThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below"), ""} {
		_, err := Open(op, testHost, Options{Dir: dir})
		if fault.ReasonOf(err) != fault.DirectoryBad || fault.KindOf(err) != fault.Invalid {
			t.Errorf("dir %q: %v", dir, err)
		}
	}
}

func TestTheDefaultDirectoryIsTheComponents(t *testing.T) {
	root := t.TempDir()
	for host, want := range map[[2]string]string{
		{"orders", "cart"}:         "state/orders/cart",
		{"orders", "carts"}:        "state/orders/carts",
		{"../../etc", "../passwd"}: "state/=2E=2E=2F=2E=2E=2Fetc/=2E=2E=2Fpasswd",
	} {
		db, err := Open(op, components.Host{DataDir: root, AppID: host[0], Component: host[1]}, Options{Block: components.StateBlock, MinFree: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer shut(t, db)
		if got := db.Opts().Dir; got != filepath.Join(root, want) {
			t.Errorf("%q has its data in %s", host, got)
		}
	}
}

func TestAFullDiskHasNoRoom(t *testing.T) {
	db := openAt(t, t.TempDir())
	defer shut(t, db)
	free := uint64(100)
	db.space.reserve = 60
	db.space.free = func(string) (uint64, error) { return free, nil }
	if err := db.Room(op, 40); err != nil {
		t.Errorf("with room: %v", err)
	}
	if err := db.Room(op, 41); fault.ReasonOf(err) != fault.DiskFull || fault.RetryAfter(err) == 0 {
		t.Errorf("without room: %v", err)
	}
	free = 1000
	if err := db.Room(op, 41); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestAFullDiskDoesNotOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(op, testHost, Options{Dir: dir, MinFree: math.MaxUint64, MemTable: 1 << 60}); fault.ReasonOf(err) != fault.DiskFull {
		t.Fatalf("got %v", err)
	}
	shut(t, openAt(t, dir)) // the claim was let go
}

func TestCloseWaitsForRoom(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir)
	var looks atomic.Int64
	db.space.free = func(string) (uint64, error) { return uint64(looks.Add(1)) / 4, nil } // 1 is enough
	if err := db.Room(op, 0); fault.ReasonOf(err) != fault.DiskFull {
		t.Fatal(err)
	}
	db.wrote.Store(true)
	shut(t, db)
	if looks.Load() < 4 {
		t.Errorf("closed after %d looks at a full disk", looks.Load())
	}
	shut(t, openAt(t, dir))
}

func TestCloseGivesUpOnAFullDisk(t *testing.T) {
	db := openAt(t, t.TempDir())
	space := db.space
	db.space.free = func(string) (uint64, error) { return 0, nil }
	db.wrote.Store(true)
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if err := db.space.await(context.Background(), op); fault.ReasonOf(err) != fault.DiskFull || time.Since(begun) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := db.Close(ended, op); fault.ReasonOf(err) != fault.DiskFull {
		t.Errorf("Close = %v", err)
	}
	if _, err := Open(op, testHost, Options{Dir: space.dir}); fault.ReasonOf(err) != fault.DirectoryInUse {
		t.Errorf("what could not be closed can be opened: %v", err)
	}
	db.space = space
	shut(t, db)
}

func TestAFailureIsForGood(t *testing.T) {
	dir := t.TempDir()
	db := openAt(t, dir)
	if err := db.Commit(op, func() error { return badger.ErrTxnTooBig }); fault.ReasonOf(err) != fault.TransactionBig {
		t.Errorf("a transaction that is too big: %v", err)
	}
	if err := db.Commit(op, func() error { return set(db, "before", "") }); err != nil {
		t.Fatal(err)
	}
	if err := db.Commit(op, func() error { return os.ErrInvalid }); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("a commit that fails: %v", err)
	}
	if err := db.Room(op, 0); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("there is room after it: %v", err)
	}
	if err := db.Commit(op, func() error { return nil }); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("a commit after it: %v", err)
	}
	if err := has(db, "before"); err != nil {
		t.Errorf("a read after it: %v", err)
	}
	shut(t, db)
	db = openAt(t, dir)
	defer shut(t, db)
	if err := db.Room(op, 0); err != nil {
		t.Errorf("after it was opened again: %v", err)
	}
}

func TestAPanicIsAnError(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, MinFree: 1, Tune: func(badger.Options) badger.Options { panic("badger") }}
	if _, err := Open(op, testHost, o); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("Open = %v", err)
	}
	shut(t, openAt(t, dir)) // the claim was let go
}
