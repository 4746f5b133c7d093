package badgerlock

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/badgerdb"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/lock/locktest"
)

const childDir = "BADGERLOCK_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		holdInChild(dir)
	}
	goleak.VerifyTestMain(m)
}

func openIn(t testing.TB, dir string) *locker {
	l, err := open(context.Background(), components.Host{DataDir: dir, AppID: "a.b"}, Config{Sync: true})
	if err != nil {
		t.Fatal(err)
	}
	return l.(*locker)
}

var backend = locktest.Backend{Durable: true, New: func(t testing.TB) locktest.Store {
	dir := t.TempDir()
	var last *locker
	return locktest.Store{
		Open: func(t testing.TB) lock.Locker {
			last = openIn(t, dir)
			return last
		},
		Left: func(t testing.TB) int { return holders(t, last.journal.db) },
	}
}}

func holders(t testing.TB, db *badgerdb.DB) (n int) {
	err := db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(holderPrefix)})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			n++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestLocker(t *testing.T) { locktest.Run(t, backend) }

func BenchmarkLocker(b *testing.B) { locktest.Benchmark(b, backend) }

// holdInChild takes and frees locks, keeps one, tells it, and waits to be killed.
func holdInChild(dir string) {
	ctx := context.Background()
	l, err := open(ctx, components.Host{DataDir: dir, AppID: "a.b"}, Config{Sync: true})
	if err != nil {
		panic(err)
	}
	for i := range 1500 { // more than a block of tokens
		lease, err := l.Acquire(ctx, fmt.Sprint("free ", i%5), "child", time.Hour, false)
		if err == nil {
			err = l.Release(ctx, lease)
		}
		if err != nil {
			panic(err)
		}
	}
	lease, err := l.Acquire(ctx, "held", "child", time.Hour, false)
	if err != nil {
		panic(err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(lease)
	time.Sleep(time.Minute)
	os.Exit(1)
}

func TestKilledHolder(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var held lock.Lease
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&held); err != nil {
		t.Fatal(err)
	}
	_, err = open(t.Context(), components.Host{DataDir: dir, AppID: "a.b"}, Config{})
	if fault.ReasonOf(err) != fault.DirectoryInUse {
		t.Fatalf("opening a directory in use gave %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	l := openIn(t, dir)
	defer l.Close(context.Background())
	if _, err := l.Acquire(t.Context(), "held", "other", time.Second, false); fault.ReasonOf(err) != fault.LockHeld {
		t.Fatalf("the lock of the killed process: %v", err)
	}
	for i := range 5 {
		lease, err := l.Acquire(t.Context(), fmt.Sprint("free ", i), "other", time.Second, false)
		if err != nil || lease.Token <= held.Token {
			t.Fatalf("after token %d: %+v, %v", held.Token, lease, err)
		}
	}
	if err := l.Release(t.Context(), held); err != nil {
		t.Fatalf("release by the lease of the killed process: %v", err)
	}
}

// A disk that is full at the wrong moment: leases fail and are given back, and no token is given out twice, not even the
// tokens whose bound was to be written by the transaction that failed.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	l := openIn(t, dir)
	before, err := l.Acquire(t.Context(), "held", "ann", time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	room := l.journal.room
	full := func(op string, _ uint64) error { return fault.New(op, fault.DiskFull, "no room") }
	setRoom := func(to func(string, uint64) error) {
		quiet := l.journal.Frees("nobody's") // so that run does not look at room while it changes
		_ = quiet()
		l.journal.mu.Lock()
		l.journal.room = to
		l.journal.mu.Unlock()
	}
	setRoom(full)
	for range tokenBlock + 10 {
		if lease, err := l.Acquire(t.Context(), "other", "ann", time.Hour, false); fault.ReasonOf(err) != fault.DiskFull {
			t.Fatalf("a lease that could not be written: %+v, %v", lease, err)
		}
	}
	if err := l.Release(t.Context(), before); err != nil {
		t.Fatalf("release: %v", err)
	}
	setRoom(room)
	last, err := l.Acquire(t.Context(), "other", "ann", time.Hour, false)
	if err != nil {
		t.Fatalf("acquire with room again: %v", err)
	}
	if err := l.Release(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	_ = l.Close(context.Background())
	again := openIn(t, dir)
	defer again.Close(context.Background())
	lease, err := again.Acquire(t.Context(), "other", "bob", time.Hour, false)
	if err != nil || lease.Token <= last.Token {
		t.Fatalf("after token %d: %+v, %v", last.Token, lease, err)
	}
}
