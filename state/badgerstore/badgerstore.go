// Package badgerstore is `state.badger`: a durable store in a directory of this machine, the default of the runtime.
//
// # What is promised
//
// With `sync` (the default) a write is on the disk when it is acknowledged: it survives the end of the process and of the
// machine. Writers that wait at the same time share one fsync. With `sync: false` a write is in the page cache when it is
// acknowledged: it survives the end of the process, kill -9 included, but not a power cut.
//
// Reads see every write acknowledged before they began and do not wait for those under way. A batch is applied whole or
// not at all, also across a crash. One process at a time has the directory; a second one fails with DIRECTORY_IN_USE.
// Several processes share state through `state.jetstream`.
//
// # Limits
//
// A key has at most 60,000 bytes, a value 64 MiB. A batch holds at most 64 MiB, and no more ops than a thousand with keys
// of 100 bytes; more with shorter keys, fewer with longer ones. More fails with TRANSACTION_TOO_LARGE.
//
// # A full disk
//
// Badger writes through memory maps, where a full disk is a signal that ends the process. So writes are refused with
// DISK_FULL, before they begin, while less than `minFree` is left; reads go on, and writes resume by themselves. The
// reserve covers what Badger writes in the background. It cannot cover another program that fills a disk with more than
// minFree to spare within the moment between the look and the write.
//
// # Cost
//
// An idle store takes a few MiB of memory and a dozen sleeping goroutines. Values over 256 bytes go to a value log, so
// that compaction does not copy them; space of values that are gone is won back each minute, in files of 100 MB: even a
// small store that is written all the time takes a few of them. Items with a time to live have a second, small entry, by
// which watchers learn of their end.
//
//	apiVersion: dapr.io/v1alpha1
//	kind: Component
//	metadata: {name: statestore}
//	spec:
//	  type: state.badger
//	  metadata:
//	    - {name: dir, value: /var/lib/orders/state}
package badgerstore

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strconv"
	"runtime/debug"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/feed"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	Dir     string           `meta:"dir" doc:"Directory that holds the data; created if it is not there. Left out: state/<app id> below the sidecar's data directory."`
	Sync    bool             `meta:"sync" default:"true" doc:"Fsync before a write is acknowledged. Without it a power cut may take the last writes."`
	MinFree components.Bytes `meta:"minFree" default:"64MiB" min:"1MiB" doc:"Writes are refused while the disk has less than this free."`
}

// Component makes the backend known to the runtime.
var Component = components.State("badger", "Durable store in a local directory.", open)

var (
	_ state.Store   = (*store)(nil)
	_ state.Scanner = (*store)(nil)
	_ state.Watcher = (*store)(nil)
)

const (
	maxKey   = 60_000
	maxValue = 64 << 20
	maxBatch = 64<<20 + 64<<10 // bytes of one batch: the largest value with its key
)

var logFile, ballastKey = envInt("RSS_V", 96) << 20, envInt("RSS_K", maxKey)

func envInt(n string, d int) int {
	if v, err := strconv.Atoi(os.Getenv(n)); err == nil {
		return v
	}
	return d
}

type store struct {
	kick chan struct{}
	log   *slog.Logger
	db    *badger.DB
	claim *claim
	space space

	versions versions
	feed     feed.Feed
	publish  sync.Mutex // orders what the feed learns: commits, expiry and the start of watches
	swept    time.Time  // watchers know of what expired before; guarded by publish

	writes  chan *write   // to the writer
	stop    chan struct{} // closed to end the writer and the collector
	running sync.WaitGroup
	broken  error // why the database takes no more writes; the writer's
	ballast ballast

	gate   sync.RWMutex // held for reading by whoever uses db, for writing by Close
	closed bool
	wrote  bool // since the store was opened; the writer's, then Close's
}

// options are Badger's, for a store that is small when idle: small memtables, no caches (tables are mapped, not
// compressed), few compactors. A value log file takes any batch whole, so that its map never has to move under readers.
func options(dir string, sync bool, log *slog.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(logger{log}).
		WithSyncWrites(sync).
		WithDetectConflicts(false). // there is one writer
		WithMemTableSize(memtable).
		WithNumMemtables(1).
		WithNumLevelZeroTables(2).
		WithNumLevelZeroTablesStall(6).
		WithNumCompactors(2).
		WithCompression(0).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithValueThreshold(inline).
		WithValueLogFileSize(int64(logFile)).
		WithVerifyValueChecksum(true).
		WithMetricsEnabled(false).
		WithExternalMagic(layout)
}

func open(_ context.Context, host components.Host, c Config) (_ state.Store, err error) {
	const op = "state.badger: open"
	dir, err := directory(host, c.Dir)
	if err != nil {
		return nil, err
	}
	held, err := claimDirectory(dir, host.AppID)
	if err != nil {
		return nil, err
	}
	s := &store{
		log: host.Log, claim: held, space: space{dir: dir, reserve: uint64(c.MinFree), free: freeSpace},
		writes: make(chan *write), stop: make(chan struct{}), kick: make(chan struct{}, 1),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			held.release()
		}
	}()
	defer s.contain(op, &err)
	if err := s.space.checkRest(op); err != nil {
		return nil, err
	}
	if s.db, err = badger.OpenManaged(options(dir, c.Sync, s.log)); err != nil {
		return nil, fault.New(op, fault.BackendFailed, "badger cannot open %s: %w", dir, err)
	}
	s.versions.committed = s.db.MaxVersion()
	s.running.Go(s.write)
	s.running.Go(s.collect)
	return s, nil
}

// enter lets the caller use the database until it unlocks the gate.
func (s *store) enter(op string) error {
	s.gate.RLock()
	if s.closed {
		s.gate.RUnlock()
		return closedError(op)
	}
	return nil
}

// contain turns a panic of the calling goroutine, of Badger most likely, into an error.
func (s *store) contain(op string, err *error) {
	if p := recover(); p != nil {
		s.log.Error("badger panicked", "op", op, "panic", p, "stack", string(debug.Stack()))
		*err = fault.New(op, fault.BackendFailed, "badger panicked: %v", p)
	}
}

// Get implements state.Store.
func (s *store) Get(ctx context.Context, keys []string) (found []state.Item, err error) {
	const op = "state.badger: get"
	if ctx.Err() != nil {
		return nil, fault.FromContext(op, ctx, "the store")
	}
	if err := s.enter(op); err != nil {
		return nil, err
	}
	defer s.gate.RUnlock()
	defer s.contain(op, &err)
	version := s.versions.begin()
	defer s.versions.end(version)
	txn := s.db.NewTransactionAt(version, false)
	defer txn.Discard()

	now := time.Now().UnixMilli()
	found = make([]state.Item, 0, len(keys))
	for _, key := range keys {
		entry, err := txn.Get(dataKey(key))
		if err == badger.ErrKeyNotFound {
			continue
		}
		if err != nil {
			return nil, failed(op, key, err)
		}
		item, live, err := decode(entry, now, true)
		if err != nil {
			return nil, failed(op, key, err)
		}
		if live {
			found = append(found, item)
		}
	}
	return found, nil
}

// Scan implements state.Scanner.
func (s *store) Scan(ctx context.Context, prefix, after string, limit int, keysOnly bool) ([]state.Item, error) {
	const op = "state.badger: scan"
	if ctx.Err() != nil {
		return nil, fault.FromContext(op, ctx, "the store")
	}
	version := s.versions.begin()
	defer s.versions.end(version)
	found, _, err := s.page(ctx, op, version, page{prefix: prefix, after: after, items: limit, keysOnly: keysOnly})
	return found, err
}

// page is a part of a list. It ends with the items-th item or when the values have more than bytes, if that is not zero.
type page struct {
	prefix, after string
	items, bytes  int
	keysOnly      bool
}

// page lists what a version of the store holds. More reports that there may be another page.
func (s *store) page(ctx context.Context, op string, version uint64, p page) (found []state.Item, more bool, err error) {
	if err := s.enter(op); err != nil {
		return nil, false, err
	}
	defer s.gate.RUnlock()
	defer s.contain(op, &err)
	txn := s.db.NewTransactionAt(version, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: dataKey(p.prefix)})
	defer it.Close()

	now, size := time.Now().UnixMilli(), 0
	from := dataKey(p.prefix)
	if p.after >= p.prefix {
		from = append(dataKey(p.after), 0)
	}
	for it.Seek(from); it.Valid(); it.Next() {
		if len(found) >= p.items || p.bytes > 0 && size > p.bytes {
			return found, true, nil
		}
		if ctx.Err() != nil {
			return nil, false, fault.FromContext(op, ctx, "the store")
		}
		item, live, err := decode(it.Item(), now, !p.keysOnly)
		if err != nil {
			return nil, false, failed(op, string(it.Item().Key()), err)
		}
		if live {
			found = append(found, item)
			size += len(item.Key) + len(item.Value)
		}
	}
	return found, false, nil
}

// Close implements state.Store. On a full disk it waits for space, as long as ctx allows and five seconds at most: what
// the store holds in memory is in its log as well, and Badger would die writing it out.
func (s *store) Close(ctx context.Context) (err error) {
	const op = "state.badger: close"
	s.feed.Close(closedError("state.badger: watch"))
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.stop)
	s.running.Wait()
	defer s.contain(op, &err)
	if s.wrote {
		if err := s.space.await(ctx, op); err != nil {
			return err // still claimed: what is running may not meet another store in its directory
		}
	}
	defer s.claim.release()
	if err := s.db.Close(); err != nil {
		return fault.New(op, fault.BackendFailed, "badger: %w", err)
	}
	return nil
}

func closedError(op string) *fault.Error {
	return fault.New(op, fault.Shutdown, "the store is closed")
}

func failed(op, key string, err error) *fault.Error {
	return fault.New(op, fault.BackendFailed, "badger, on %q: %w", key, err).With("key", key)
}

// decode reads an entry of the database. Live is false for an item that has expired.
func decode(entry *badger.Item, now int64, withValue bool) (item state.Item, live bool, err error) {
	err = entry.Value(func(raw []byte) error {
		h, value, err := openEnvelope(raw)
		if err != nil {
			return err
		}
		if live = h.live(now); !live {
			return nil
		}
		item = state.Item{Key: string(entry.Key()[1:]), ETag: h.tag.String()}
		if h.expires != 0 {
			item.Expires = time.UnixMilli(h.expires)
		}
		if withValue {
			item.Value = bytes.Clone(value)
			if item.Value == nil {
				item.Value = []byte{}
			}
		}
		return nil
	})
	return item, live, err
}
