package badgerdb

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/dgraph-io/badger/v4"
	"golang.org/x/sys/unix"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// TestAFlushThatFails has the system refuse to flush the value log, and it alone: the one failure that Badger keeps to
// itself. It runs itself again in a process of its own, which cannot flush ever after.
func TestAFlushThatFails(t *testing.T) {
	const flushlessDir = "BADGERDB_TEST_FLUSHLESS"
	if dir := os.Getenv(flushlessDir); dir != "" {
		fmt.Println(flushless(dir))
		os.Exit(0)
	}
	child, said := start(t, flushlessDir, t.TempDir(), "-test.run=^TestAFlushThatFails$")
	_ = child.Wait()
	if strings.HasPrefix(said, "skip") {
		t.Skip(said)
	}
	if said != "ok" {
		t.Error(said)
	}
}

func flushless(dir string) string {
	const logFile = 3 << 20
	db, err := Open(op, testHost, Options{
		Block: components.StateBlock, Dir: dir, MinFree: 1, SyncWrites: true,
		Tune: func(b badger.Options) badger.Options { return b.WithValueThreshold(1000).WithValueLogFileSize(logFile) },
	})
	if err != nil {
		return err.Error()
	}
	long := strings.Repeat("v", 2000) // goes to the value log
	if err := db.Commit(op, func() error { return set(db, "before", long) }); err != nil {
		return "a write before: " + err.Error()
	}
	if err := refuseMsync(2 * logFile); err != nil { // Badger maps twice the size
		return "skip: no system calls can be refused here: " + err.Error()
	}
	if err := set(db, "badger's own", long); err != nil {
		return "Badger has learned to tell of it: bridge can go: " + err.Error()
	}
	db.broken.Store(nil)
	if err := db.Commit(op, func() error { return set(db, "k", long) }); fault.ReasonOf(err) != fault.BackendFailed {
		return fmt.Sprintf("a write that was not flushed: %v", err)
	}
	if err := db.Room(op, 0); fault.ReasonOf(err) != fault.BackendFailed {
		return fmt.Sprintf("a write after it: %v", err)
	}
	if err := has(db, "before"); err != nil {
		return "a read after it: " + err.Error()
	}
	return "ok"
}

// refuseMsync makes the system answer EIO, for the rest of this process, to who would flush a map of that length.
func refuseMsync(length uint32) error {
	const number, lowLength = 0, 16 + 8 // offsets in struct seccomp_data: of nr, of the low half of args[1]
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: skip, K: k}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	filter := []unix.SockFilter{
		load(number), unless(unix.SYS_MSYNC, 3),
		load(lowLength), unless(length, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(syscall.EIO)),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	runtime.LockOSThread() // the two calls must come from one
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}
