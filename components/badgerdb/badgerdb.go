// Package badgerdb opens the Badger databases of the embedded backends the same way: tuned for a sidecar's few
// megabytes, in a directory that one process holds at a time, with its log in ours, and with a guard against writing to
// a disk that is full.
//
//	db, err := badgerdb.Open("lock badger", badgerdb.Options{Dir: dir, Log: host.Log})
//	if err != nil { … } // DIRECTORY_IN_USE names the directory and the process
//	defer db.Close()
//	if err := db.Room(op); err != nil { … } // before each write: DISK_FULL
//
// Writes survive the death of the process as soon as they are committed (the write-ahead log is a mapped file), and a
// power cut once SyncWrites or Sync has flushed them.
package badgerdb

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	badgeroptions "github.com/dgraph-io/badger/v4/options"
	"github.com/dustin/go-humanize"
	"github.com/gofrs/flock"
	"github.com/shirou/gopsutil/v4/disk"

	"github.com/sidecast/sidecast/fault"
)

// Options of a database. Tune may change Badger's own options last.
type Options struct {
	// Dir holds the data; it is made, readable by its owner alone, when it does not exist.
	Dir string
	// MemTable is the size of a memtable in bytes; 0 means 4 MiB. A transaction holds about a seventh of it.
	MemTable int64
	// SyncWrites flushes every commit to the disk.
	SyncWrites bool
	// Tune, if not nil, changes Badger's options before they are used.
	Tune func(badger.Options) badger.Options
	// Log gets what Badger has to say; nil drops it.
	Log *slog.Logger
}

// DB is an open database.
type DB struct {
	*badger.DB
	dir   string
	guard *flock.Flock
	free  atomic.Uint64 // bytes, when last asked
	asked atomic.Int64  // when, in Unix nanoseconds
}

// reserve is what has to be free for a write: room for the files that Badger maps before it fills them. Writing to a
// mapped file on a full disk kills the process.
const reserve = 64 << 20

// pidFile is locked by the process that has the directory open, and names it.
const pidFile = "sidecast.pid"

// Open opens the database in o.Dir. It fails with reason DIRECTORY_IN_USE when another process, or another component of
// this one, has it open.
func Open(op string, o Options) (*DB, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fault.New(op, fault.DirectoryBad, "%w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.New(op, fault.DirectoryBad, "%w", err)
	}
	guard, err := claim(op, dir)
	if err != nil {
		return nil, err
	}
	d := &DB{dir: dir, guard: guard}
	if err := d.Room(op); err != nil {
		_ = guard.Unlock()
		return nil, err
	}
	d.DB, err = badger.Open(tuned(dir, o))
	if err != nil {
		_ = guard.Unlock()
		return nil, fault.New(op, fault.BackendFailed, "open the database in %s: %w", dir, err)
	}
	return d, nil
}

// Room fails with reason DISK_FULL when the disk has too little space left for a write. It asks the system twice a
// second at most; a system that does not tell is taken to have room.
func (d *DB) Room(op string) error {
	const fresh = 500 * time.Millisecond
	now := time.Now().UnixNano()
	if asked := d.asked.Load(); now-asked > int64(fresh) && d.asked.CompareAndSwap(asked, now) {
		free := uint64(math.MaxUint64)
		if usage, err := disk.Usage(d.dir); err == nil {
			free = usage.Free
		}
		d.free.Store(free)
	}
	if free := d.free.Load(); free < reserve {
		return fault.New(op, fault.DiskFull, "%s is left on the disk of %s, a write needs %s", humanize.IBytes(free), d.dir, humanize.IBytes(reserve)).After(time.Second)
	}
	return nil
}

// Close closes the database and lets others open its directory.
func (d *DB) Close() error {
	err := d.DB.Close()
	_ = d.guard.Unlock()
	return err
}

// claim takes the directory for this process and writes its id where the next one that tries can read it.
func claim(op, dir string) (*flock.Flock, error) {
	path := filepath.Join(dir, pidFile)
	guard := flock.New(path, flock.SetPermissions(0o600))
	locked, err := guard.TryLock()
	if err != nil {
		return nil, fault.New(op, fault.DirectoryBad, "%w", err)
	}
	if !locked {
		return nil, fault.New(op, fault.DirectoryInUse, "directory %s is in use by %s: stop that one, or name another directory", dir, user(path)).With("dir", dir)
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		_ = guard.Unlock()
		return nil, fault.New(op, fault.DirectoryBad, "%w", err)
	}
	return guard, nil
}

func user(path string) string {
	content, err := os.ReadFile(path)
	pid, notNumber := strconv.Atoi(strings.TrimSpace(string(content)))
	switch {
	case err != nil || notNumber != nil:
		return "another process"
	case pid == os.Getpid():
		return "another component of this process"
	}
	return fmt.Sprintf("process %d", pid)
}

// tuned keeps an idle database at a few megabytes of memory: no caches, since what a sidecar keeps is small and the
// system caches its files; no compression, which would need one; two compactors, the least that Badger takes.
func tuned(dir string, o Options) badger.Options {
	const threshold = 64 << 10
	b := badger.DefaultOptions(dir).
		WithMemTableSize(4 << 20).
		WithNumMemtables(2).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2).
		WithNumGoroutines(2).
		WithBaseTableSize(1 << 20).
		WithValueThreshold(threshold).
		WithValueLogFileSize(16 << 20).
		WithCompression(badgeroptions.None).
		WithBlockCacheSize(0).
		WithMetricsEnabled(false).
		WithSyncWrites(o.SyncWrites).
		WithLogger(logger(o.Log))
	if o.MemTable > 0 {
		b = b.WithMemTableSize(o.MemTable)
	}
	if o.Tune != nil {
		b = o.Tune(b)
	}
	return b
}

// logger gives Badger's log to ours. What Badger calls info is of interest to its developers only.
func logger(log *slog.Logger) badger.Logger {
	if log == nil {
		return nil
	}
	return bridge{log.With("library", "badger")}
}

type bridge struct{ log *slog.Logger }

func (b bridge) Errorf(format string, args ...any)   { b.log.Error(line(format, args)) }
func (b bridge) Warningf(format string, args ...any) { b.log.Warn(line(format, args)) }
func (b bridge) Infof(format string, args ...any)    { b.log.Debug(line(format, args)) }
func (b bridge) Debugf(format string, args ...any)   {}

func line(format string, args []any) string { return strings.TrimSpace(fmt.Sprintf(format, args...)) }
