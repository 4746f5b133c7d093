package badgerstore

import (
	"context"
	"errors"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/sidecast/sidecast/components/badgerdb"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/etag"
)

// write is a batch on its way to the writer: what it needs is copied or made by the caller, so that the caller may leave.
type write struct {
	steps []step
	cost  cost
	done  chan error // has room for the answer

	err error // the writer's: why the batch does not hold
}

// step is an op as the writer needs it.
type step struct {
	kind     state.OpKind
	match    state.Match
	key      string
	want     etag.Tag // for Exact
	head     head     // for Set
	envelope []byte   // for Set
}

// cost is what batches take of the room in one of Badger's transactions.
type cost struct {
	entries, tree int64 // in the tree
	bytes         int64 // in all
}

func (c cost) add(d cost) cost {
	return cost{c.entries + d.entries, c.tree + d.tree, c.bytes + d.bytes}
}

// Apply implements state.Store.
func (s *store) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	const op = "state.badger: apply"
	if ctx.Err() != nil {
		return nil, fault.FromContext(op, ctx, "the store")
	}
	w, etags, err := prepare(op, ops, time.Now())
	if err != nil {
		return nil, err
	}
	if err := s.enter(op); err != nil {
		return nil, err
	}
	defer s.gate.RUnlock()
	if !s.fits(w.cost) {
		return nil, fault.New(op, fault.TransactionBig, "%d ops of %d bytes are more than one transaction takes: split it", len(ops), w.cost.bytes)
	}
	select {
	case s.writes <- w:
	case <-ctx.Done():
		return nil, fault.FromContext(op, ctx, "the writer")
	}
	select {
	case err := <-w.done:
		if err != nil {
			return nil, err
		}
		return etags, nil
	case <-ctx.Done():
		return nil, fault.FromContext(op, ctx, "the disk")
	}
}

// prepare checks ops by themselves and makes their entries and ETags.
func prepare(op string, ops []state.Op, now time.Time) (*write, []string, error) {
	w := &write{steps: make([]step, len(ops)), done: make(chan error, 1)}
	etags := make([]string, len(ops))
	for i, o := range ops {
		st := step{kind: o.Kind, match: o.Match, key: o.Key}
		if len(o.Key) == 0 || len(o.Key) > maxKey {
			return nil, nil, fault.New(op, fault.KeyInvalid, "a key has 1 to %d bytes, this one %d", maxKey, len(o.Key))
		}
		if o.Match == state.Exact {
			var ok bool
			if st.want, ok = etag.Parse(o.ETag); !ok {
				return nil, nil, fault.New(op, fault.ETagMalformed, "%q is no ETag of this store: it is 16 hex digits", o.ETag).With("key", o.Key)
			}
		}
		if o.Kind == state.Set {
			if len(o.Value) > maxValue {
				return nil, nil, fault.New(op, fault.ValueTooLarge, "the value of %q has %d bytes, the most is %d", o.Key, len(o.Value), maxValue).With("key", o.Key)
			}
			st.head.tag = etag.New()
			if o.TTL > 0 {
				st.head.expires = max(now.Add(o.TTL).UnixMilli(), 1)
			}
			st.envelope = envelope(st.head, o.Value)
			etags[i] = st.head.tag.String()
		}
		w.steps[i] = st
		w.cost = w.cost.add(st.cost())
	}
	return w, etags, nil
}

// cost is the most a step can take: its entry, and one in the list of expiry that comes or goes with it.
func (st step) cost() cost {
	if st.kind == state.Check {
		return cost{}
	}
	const perEntry = 40 // Badger's version, flags and pointer
	c := cost{entries: 2, tree: int64(2*(len(st.key)+perEntry) + min(len(st.envelope), inline))}
	if st.head.expires != 0 {
		c.entries, c.tree = 3, c.tree+int64(len(st.key)+perEntry)
	}
	c.bytes = int64(len(st.key) + len(st.envelope))
	return c
}

// fits reports whether batches of that cost fit in one of Badger's transactions.
func (s *store) fits(c cost) bool {
	return c.entries+1 < s.db.MaxBatchCount() && c.tree+100 < s.db.MaxBatchSize() && c.bytes <= maxBatch
}

// write is the one writer: it takes all batches that wait, checks them in order, each against those before it, and
// commits those that hold in one transaction, which is one fsync.
func (s *store) write() {
	var next *write
	for {
		if next == nil {
			select {
			case next = <-s.writes:
			case <-s.stop:
				return
			}
		}
		var group []*write
		group, next = s.gather(next)
		err := s.commit(group)
		for _, w := range group {
			if err != nil {
				w.done <- err
			} else {
				w.done <- w.err
			}
		}
		s.fill()
	}
}

// gather returns first and those that wait behind it, and the one that no longer fits.
func (s *store) gather(first *write) (group []*write, rest *write) {
	group = append(group, first)
	total := first.cost
	for {
		select {
		case w := <-s.writes:
			if total = total.add(w.cost); !s.fits(total) {
				return group, w
			}
			group = append(group, w)
		default:
			return group, nil
		}
	}
}

// commit applies the batches of group that hold; those that do not have their err set. An error is that of all.
func (s *store) commit(group []*write) (err error) {
	const op = "state.badger: apply"
	defer badgerdb.Contain(s.log, op, &err)
	view := s.db.NewTransactionAt(s.versions.latest(), false)
	defer view.Discard()
	stage := &stage{op: op, now: time.Now().UnixMilli(), view: view, txn: s.db.NewTransactionAt(0, true), heads: make(map[string]head)}
	defer stage.txn.Discard()
	var bytes int64
	for _, w := range group {
		if w.err = stage.check(w); w.err != nil {
			continue
		}
		if err := stage.put(w); err != nil {
			return err
		}
		bytes += w.cost.bytes
	}
	if len(stage.heads) == 0 {
		return nil // nothing changes
	}
	if err := s.room(op, uint64(bytes)); err != nil {
		return err
	}
	if err := s.commitAt(stage.txn, group...); err != nil {
		return err
	}
	s.ballast.record(group)
	return nil
}

// commitAt commits txn as the next version, makes it visible and tells the watchers of the batches in it.
func (s *store) commitAt(txn *badger.Txn, group ...*write) error {
	const op = "state.badger: apply"
	version := s.versions.latest() + 1
	if err := s.db.Commit(op, func() error { return txn.CommitAt(version, nil) }); err != nil {
		return err
	}
	s.publish.Lock()
	defer s.publish.Unlock()
	s.db.SetDiscardTs(s.versions.advance(version))
	for _, w := range group {
		if w.err != nil {
			continue
		}
		for _, st := range w.steps {
			if st.kind != state.Check && s.feed.Watched(st.key) {
				s.feed.Publish(st.event())
			}
		}
	}
	return nil
}

func (st step) event() state.Event {
	if st.kind == state.Delete {
		return state.Event{Kind: state.Deleted, Item: state.Item{Key: st.key}}
	}
	item := state.Item{Key: st.key, Value: st.envelope[envelopeHead:], ETag: st.head.tag.String()}
	if st.head.expires != 0 {
		item.Expires = time.UnixMilli(st.head.expires)
	}
	return state.Event{Kind: state.Written, Item: item}
}

// stage is a transaction in the making.
type stage struct {
	op    string
	now   int64
	view  *badger.Txn     // of what is committed
	txn   *badger.Txn     // takes the writes
	heads map[string]head // of the keys written
}

// check tells why a batch does not hold after those staged before it.
func (g *stage) check(w *write) error {
	for _, st := range w.steps {
		if st.match == state.Any {
			continue
		}
		present, err := g.head(st.key)
		switch {
		case err != nil:
			return failed(g.op, st.key, err)
		case st.match == state.Exact && (present.tag != st.want || !present.live(g.now)):
			return fault.New(g.op, fault.ETagMismatch, "%q is not at ETag %v", st.key, st.want).With("key", st.key)
		case st.match == state.Absent && present.live(g.now):
			return fault.New(g.op, fault.ETagMismatch, "%q exists", st.key).With("key", st.key)
		}
	}
	return nil
}

// head is what is known of key after the batches staged.
func (g *stage) head(key string) (h head, err error) {
	if h, ok := g.heads[key]; ok {
		return h, nil
	}
	entry, err := g.view.Get(dataKey(key))
	if err != nil {
		if errors.Is(err, badger.ErrKeyNotFound) {
			err = nil
		}
		return h, err
	}
	err = entry.Value(func(raw []byte) (err error) {
		h, _, err = openEnvelope(raw)
		return err
	})
	return h, err
}

// put stages the writes of a batch that holds. An error is Badger's, of a transaction that cannot be used any more.
func (g *stage) put(w *write) error {
	for i := range w.steps {
		if err := g.putStep(&w.steps[i]); err != nil {
			return failed(g.op, w.steps[i].key, err)
		}
	}
	return nil
}

func (g *stage) putStep(st *step) error {
	if st.kind == state.Check {
		return nil
	}
	live, expires, err := g.present(st.key)
	if err != nil {
		return err
	}
	if st.kind == state.Delete && !live {
		st.kind = state.Check // there is nothing to delete; that it has expired, if so, watchers learn from the sweep
		return nil
	}
	g.heads[st.key] = st.head
	if live && expires != 0 {
		if err := g.txn.Delete(expiryKey(expires, st.key)); err != nil {
			return err
		}
	}
	if st.kind == state.Delete {
		return g.txn.Delete(dataKey(st.key))
	}
	if st.head.expires != 0 {
		mark := &badger.Entry{Key: expiryKey(st.head.expires, st.key), Value: st.envelope[1:9], ExpiresAt: st.head.clears() + lateness}
		if err := g.txn.SetEntry(mark); err != nil {
			return err
		}
	}
	return g.txn.SetEntry(&badger.Entry{Key: dataKey(st.key), Value: st.envelope, ExpiresAt: st.head.clears()})
}

// present tells whether key exists after the batches staged and when it expires. It reads the value, which may be long,
// only of items that expire.
func (g *stage) present(key string) (live bool, expires int64, err error) {
	if _, staged := g.heads[key]; !staged {
		entry, err := g.view.Get(dataKey(key))
		if err != nil {
			if errors.Is(err, badger.ErrKeyNotFound) {
				err = nil
			}
			return false, 0, err
		}
		if entry.ExpiresAt() == 0 {
			return true, 0, nil
		}
	}
	h, err := g.head(key)
	return h.live(g.now), h.expires, err
}
