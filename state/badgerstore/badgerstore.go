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
// that compaction does not copy them; space of values that are gone is won back file by file, 66 MiB each, as
// fast as values are written: a small store that is written all the time takes three or four of them. Badger maps these
// files, so what was written to them lately counts as memory of the process, though the system may take it back. Items with a time to live have a second, small entry, by
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
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/badgerdb"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/feed"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	Dir     string           `meta:"dir" doc:"Directory that holds the data; created if it is not there. Left out: state/<app id>/<component> below the sidecar's data directory."`
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

	// logFile is how long a file of the value log may be before the next one is begun. Badger maps twice as much, and looks
	// at the length between batches; so it has to be more than maxBatch and its headers, or the map would have to move,
	// under readers. It is no more than that, because what is mapped and was written counts as memory.
	logFile = 66 << 20
)

type store struct {
	log  *slog.Logger
	db   *badgerdb.DB
	room func(op string, bytes uint64) error // refuses a write that the disk has no room for

	versions versions
	feed     feed.Feed
	publish  sync.Mutex // orders what the feed learns: commits, expiry and the start of watches
	swept    time.Time  // watchers know of what expired before; guarded by publish

	writes  chan *write   // to the writer
	stop    chan struct{} // closed to end the writer and the collector
	running sync.WaitGroup
	ballast ballast

	gate   sync.RWMutex // held for reading by whoever uses db, for writing by Close
	closed bool
}

func open(_ context.Context, host components.Host, c Config) (state.Store, error) {
	const op = "state.badger: open"
	db, err := badgerdb.Open(op, host, badgerdb.Options{
		Block: components.StateBlock, Dir: c.Dir, MinFree: uint64(c.MinFree), MemTable: memtable, SyncWrites: c.Sync, Managed: true,
		Tune: func(b badger.Options) badger.Options {
			return b.
				WithDetectConflicts(false). // there is one writer
				WithValueThreshold(inline).
				WithValueLogFileSize(logFile).
				WithVerifyValueChecksum(true).
				WithExternalMagic(layout)
		},
	})
	if err != nil {
		return nil, err
	}
	s := &store{log: host.Log, db: db, room: db.Room, writes: make(chan *write), stop: make(chan struct{}), ballast: newBallast()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.versions.committed = db.MaxVersion()
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
	defer badgerdb.Contain(s.log, op, &err)
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
	defer badgerdb.Contain(s.log, op, &err)
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

// Close implements state.Store. On a full disk it waits for space; see badgerdb.DB.Close.
func (s *store) Close(ctx context.Context) error {
	s.feed.Close(closedError("state.badger: watch"))
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.stop)
	s.running.Wait()
	return s.db.Close(ctx, "state.badger: close")
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
