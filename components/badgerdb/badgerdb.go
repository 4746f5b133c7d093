// Package badgerdb opens the Badger databases of the embedded backends the same way: tuned for a sidecar's few
// megabytes, in a directory that one process holds at a time, with its log in ours, and guarded against what Badger does
// not survive: a full disk, and a flush that fails.
//
//	db, err := badgerdb.Open(op, host, badgerdb.Options{Block: components.LockBlock, Dir: config.Dir})
//	if err != nil { … } // DIRECTORY_IN_USE names the directory and who has it
//	defer db.Close(ctx, op)
//	if err := db.Room(op, bytes); err != nil { … } // before each write: DISK_FULL, or BACKEND_FAILED for good
//	err = db.Commit(op, txn.Commit)                // nil means committed, and with SyncWrites on the disk
//
// Writes survive the death of the process as soon as they are committed (the write-ahead log is a mapped file), and a
// power cut once SyncWrites or Sync has flushed them.
//
// It does not undo what failed: after a write or a flush that failed, the database takes no more writes until it is
// opened again, for what the disk holds of those before is not known. Reads go on.
package badgerdb

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	badgeroptions "github.com/dgraph-io/badger/v4/options"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// Options of a database.
type Options struct {
	// Block is the block that the database serves; it names the default directory, and the component to use instead where
	// several processes share one.
	Block components.Block
	// Dir holds the data; it is made, readable by its owner alone, when it does not exist. Empty means
	// <block>/<app id>/<component> below the host's data directory.
	Dir string
	// MinFree is how many bytes of the disk writes leave free; 0 means 64 MiB.
	MinFree uint64
	// MemTable is the size of a memtable in bytes; 0 means 4 MiB. A transaction holds about a seventh of it.
	MemTable int64
	// SyncWrites flushes every commit to the disk.
	SyncWrites bool
	// Managed leaves the versions of transactions to the caller.
	Managed bool
	// Tune, if not nil, changes Badger's options before they are used.
	Tune func(badger.Options) badger.Options
}

const (
	defaultMinFree  = 64 << 20
	defaultMemTable = 4 << 20
)

// DB is an open database. All methods may be called concurrently, Close once.
type DB struct {
	*badger.DB
	log    *slog.Logger
	claim  *claim
	space  space
	wrote  atomic.Bool           // since it was opened
	broken atomic.Pointer[error] // why it takes no more writes
}

// Open opens the database. It fails with reason DIRECTORY_IN_USE when another process, or another component of this one,
// has it open, and with DISK_FULL when there is no room for what Badger writes to open.
func Open(op string, host components.Host, o Options) (_ *DB, err error) {
	if o.MinFree == 0 {
		o.MinFree = defaultMinFree
	}
	if o.MemTable == 0 {
		o.MemTable = defaultMemTable
	}
	dir, err := directory(op, host, o)
	if err != nil {
		return nil, err
	}
	d := &DB{log: host.Log, space: space{dir: dir, reserve: o.MinFree, rest: 4 * uint64(o.MemTable), free: freeSpace}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.log = d.log.With("library", "badger")
	if d.claim, err = claimDirectory(op, dir, host, o.Block); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.claim.release()
		}
	}()
	defer Contain(d.log, op, &err)
	if err := d.space.checkRest(op); err != nil {
		return nil, err
	}
	start := badger.Open
	if o.Managed {
		start = badger.OpenManaged
	}
	if d.DB, err = start(d.tuned(dir, o)); err != nil {
		return nil, fault.New(op, fault.BackendFailed, "badger cannot open %s: %w", dir, err)
	}
	return d, nil
}

// tuned keeps an idle database at a few megabytes of memory: small memtables, no caches, since what a sidecar keeps is
// small and the system caches its files; no compression, which would need one; two compactors, the least that Badger
// takes.
func (d *DB) tuned(dir string, o Options) badger.Options {
	b := badger.DefaultOptions(dir).
		WithMemTableSize(o.MemTable).
		WithNumMemtables(1).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2).
		WithNumGoroutines(2).
		WithBaseTableSize(1 << 20).
		WithValueThreshold(64 << 10).
		WithValueLogFileSize(16 << 20).
		WithCompression(badgeroptions.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithMetricsEnabled(false).
		WithSyncWrites(o.SyncWrites).
		WithLogger(bridge{d})
	if o.Tune != nil {
		b = o.Tune(b)
	}
	return b
}

// Room refuses a write of that many bytes, for now with reason DISK_FULL when it would leave less than MinFree on the
// disk, for good with BACKEND_FAILED when one before it failed. Writing to a mapped file on a full disk kills the process,
// so everyone who writes asks first. A look costs microseconds, where a flush costs milliseconds.
func (d *DB) Room(op string, bytes uint64) error {
	if err := d.failed(op); err != nil {
		return err
	}
	if err := d.space.require(op, d.space.reserve+bytes); err != nil {
		return err
	}
	d.wrote.Store(true)
	return nil
}

// Commit calls commit, which commits a transaction or flushes. Nil means that Badger did all of it, flushes that it only
// logs included. A transaction that is too big fails by itself, with TRANSACTION_TOO_LARGE, for Badger sees that before it
// writes; any other failure is for good.
func (d *DB) Commit(op string, commit func() error) error {
	err := commit()
	if errors.Is(err, badger.ErrTxnTooBig) {
		return fault.New(op, fault.TransactionBig, "badger: %w", err)
	}
	if err != nil {
		d.fail(err)
	}
	return d.failed(op)
}

// fail makes err, if it is the first, the reason why the database takes no more writes.
func (d *DB) fail(err error) { d.broken.CompareAndSwap(nil, &err) }

func (d *DB) failed(op string) error {
	if cause := d.broken.Load(); cause != nil {
		return fault.New(op, fault.BackendFailed, "badger failed to write and takes no more writes until it is opened again: %w", *cause)
	}
	return nil
}

// Close closes the database and lets others open its directory. On a full disk it waits for space, as long as ctx allows
// and five seconds at most: what Badger holds in memory is in its log as well, and it would die writing it out. When
// there is none it fails with DISK_FULL and the directory stays claimed: what is running may not meet another database.
func (d *DB) Close(ctx context.Context, op string) (err error) {
	defer Contain(d.log, op, &err)
	if d.wrote.Load() {
		if err := d.space.await(ctx, op); err != nil {
			return err
		}
	}
	defer d.claim.release()
	if err := d.DB.Close(); err != nil {
		return fault.New(op, fault.BackendFailed, "badger: %w", err)
	}
	return nil
}

// Contain turns a panic of the calling goroutine, of Badger most likely, into an error. It is deferred by itself.
func Contain(log *slog.Logger, op string, err *error) {
	if p := recover(); p != nil {
		log.Error("badger panicked", "op", op, "panic", p, "stack", string(debug.Stack()))
		*err = fault.New(op, fault.BackendFailed, "badger panicked: %v", p)
	}
}
