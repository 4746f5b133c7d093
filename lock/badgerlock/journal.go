package badgerlock

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/sidecast/sidecast/components/badgerdb"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

// The database holds one record a held lock, under holderPrefix and its name, and under boundKey a number that no token
// is greater than. The bound is moved a block at a time, with the record of the lease that needs it.
const (
	holderPrefix = "holder/"
	boundKey     = "bound"
	tokenBlock   = 1000
)

// record is a held lock in the database.
type record struct {
	Owner   string        `json:"owner"`
	Token   uint64        `json:"token"`
	TTL     time.Duration `json:"ttl"`
	Expires time.Time     `json:"expires"`
}

// journal is the turnstile.Journal of a database. Changes are written in order by one goroutine, all that came while
// the one before was written in a single transaction and flush.
type journal struct {
	db      *badgerdb.DB
	room    func(op string, bytes uint64) error // refuses a write that the disk has no room for
	sync    bool
	kick    chan struct{} // room for one
	stopped chan struct{}

	mu     sync.Mutex
	batch  *batch // takes changes until run takes it
	bound  uint64 // the greatest that a batch has been asked to write
	ending bool

	closing sync.Once
	closed  error
}

// batch is what one transaction writes: for each lock its last change, nil for free.
type batch struct {
	changes map[string]*lock.Lease
	bound   uint64 // 0 leaves it
	done    chan struct{}
	err     error // read after done
}

func newJournal(db *badgerdb.DB, bound uint64, flush bool) *journal {
	j := &journal{db: db, room: db.Room, sync: flush, bound: bound, kick: make(chan struct{}, 1), stopped: make(chan struct{}), batch: newBatch()}
	go j.run()
	return j
}

func newBatch() *batch {
	return &batch{changes: make(map[string]*lock.Lease), done: make(chan struct{})}
}

// Holds implements turnstile.Journal.
func (j *journal) Holds(lease lock.Lease) func() error { return j.add(lease.Name, &lease) }

// Frees implements turnstile.Journal.
func (j *journal) Frees(name string) func() error { return j.add(name, nil) }

func (j *journal) add(name string, lease *lock.Lease) func() error {
	j.mu.Lock()
	b := j.batch
	b.changes[name] = lease
	if lease != nil && lease.Token > j.bound {
		j.bound = lease.Token + tokenBlock
		b.bound = j.bound
	}
	j.mu.Unlock()
	j.wake()
	return func() error {
		<-b.done
		return b.err
	}
}

func (j *journal) wake() {
	select {
	case j.kick <- struct{}{}:
	default: // run has not yet looked since the last one
	}
}

// run writes batches until the journal is closed.
func (j *journal) run() {
	defer close(j.stopped)
	for range j.kick {
		j.mu.Lock()
		b, ending := j.batch, j.ending
		j.batch = newBatch()
		j.mu.Unlock()
		if len(b.changes) > 0 || b.bound > 0 {
			b.err = j.write(b)
		}
		if b.err != nil && b.bound > 0 {
			j.pass(b.bound)
		}
		close(b.done)
		if ending {
			return
		}
	}
}

// pass gives the bound of a batch that failed to the next one, whose leases rely on it.
func (j *journal) pass(bound uint64) {
	j.mu.Lock()
	j.batch.bound = max(j.batch.bound, bound)
	j.mu.Unlock()
}

func (j *journal) write(b *batch) error {
	const op = "lock badger: write"
	const perChange = 4 << 10 // more than a record and its name
	if err := j.room(op, uint64(1+len(b.changes))*perChange); err != nil {
		return err
	}
	flush := false
	entries := make([]*badger.Entry, 0, 1+len(b.changes))
	if b.bound > 0 {
		entries = append(entries, badger.NewEntry([]byte(boundKey), binary.BigEndian.AppendUint64(nil, b.bound)))
	}
	for name, lease := range b.changes {
		e := &badger.Entry{Key: []byte(holderPrefix + name)}
		if lease != nil {
			flush = j.sync
			e.Value = encode(*lease)
			e.ExpiresAt = uint64(lease.Expires.Add(time.Minute).Unix()) // for leases that nobody is left to end
		}
		entries = append(entries, e)
	}
	return j.db.Commit(op, func() error {
		err := j.commit(entries)
		if err == nil && flush {
			err = j.db.Sync()
		}
		return err
	})
}

// commit writes the entries in order; one without a value deletes. Each stands for itself, so that a batch too large for
// one transaction may become several.
func (j *journal) commit(entries []*badger.Entry) error {
	txn := j.db.NewTransaction(true)
	defer func() { txn.Discard() }()
	for _, e := range entries {
		err := apply(txn, e)
		if errors.Is(err, badger.ErrTxnTooBig) {
			if err = txn.Commit(); err == nil {
				txn = j.db.NewTransaction(true)
				err = apply(txn, e)
			}
		}
		if err != nil {
			return err
		}
	}
	return txn.Commit()
}

func apply(txn *badger.Txn, e *badger.Entry) error {
	if e.Value == nil {
		return txn.Delete(e.Key)
	}
	return txn.SetEntry(e)
}

func encode(lease lock.Lease) []byte {
	// Round drops the monotonic reading, which means nothing to the next process.
	value, err := json.Marshal(record{Owner: lease.Owner, Token: lease.Token, TTL: lease.TTL, Expires: lease.Expires.Round(0)})
	if err != nil {
		panic(err) // a struct of plain fields
	}
	return value
}

// close writes what is left and closes the database.
func (j *journal) close(ctx context.Context) error {
	j.closing.Do(func() {
		j.mu.Lock()
		j.ending = true
		j.mu.Unlock()
		j.wake()
		<-j.stopped
		j.closed = j.db.Close(ctx, "lock badger: close")
	})
	return j.closed
}

// recall reads what the process before left: a number that no token is greater than, and the leases that still run.
func recall(db *badgerdb.DB) (token uint64, leases []lock.Lease, err error) {
	now := time.Now()
	err = db.View(func(txn *badger.Txn) error {
		item, err := txn.Get([]byte(boundKey))
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil // a new directory
		}
		if err != nil {
			return err
		}
		if err := item.Value(func(v []byte) error { token = binary.BigEndian.Uint64(v); return nil }); err != nil {
			return err
		}
		it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte(holderPrefix), PrefetchValues: true, PrefetchSize: 100})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			item := it.Item()
			var r record
			if err := item.Value(func(v []byte) error { return json.Unmarshal(v, &r) }); err != nil {
				return err
			}
			left := min(r.Expires.Sub(now), r.TTL) // never more than was asked for, whatever the clock did meanwhile
			if left > 0 {
				name := string(item.Key()[len(holderPrefix):])
				leases = append(leases, lock.Lease{Name: name, Owner: r.Owner, Token: r.Token, TTL: r.TTL, Expires: now.Add(left)})
			}
		}
		return nil
	})
	if err != nil {
		return 0, nil, fault.New("lock badger: open", fault.BackendFailed, "read the locks: %w", err)
	}
	return token, leases, nil
}
