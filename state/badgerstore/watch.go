package badgerstore

import (
	"context"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/sidecast/sidecast/components/badgerdb"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/etag"
	"github.com/sidecast/sidecast/state/feed"
)

// Watch implements state.Watcher.
func (s *store) Watch(ctx context.Context, prefix string, onlyChanges bool, fn func(state.Event) error) error {
	const op = "state.badger: watch"
	if ctx.Err() != nil {
		return feed.Ended(op, ctx)
	}
	if err := s.enter(op); err != nil {
		return err
	}
	s.publish.Lock() // nothing is committed between the snapshot and the first change
	if s.feed.Idle() {
		s.swept = time.Now() // what has expired before is of interest to nobody
	}
	sub, version := s.feed.Subscribe(prefix), s.versions.begin()
	s.publish.Unlock()
	s.gate.RUnlock()
	defer sub.Cancel()

	err := s.snapshot(ctx, op, version, prefix, onlyChanges, fn)
	s.versions.end(version)
	if err != nil {
		return err
	}
	if err := fn(state.Event{Kind: state.Current}); err != nil {
		return err
	}
	return sub.Follow(ctx, op, fn, s.sweep)
}

// snapshot calls fn with what version holds under prefix, unless nobody wants it. It reads in pages, so that a slow
// watcher holds up neither memory nor Badger's files, only the collection of old versions.
func (s *store) snapshot(ctx context.Context, op string, version uint64, prefix string, unwanted bool, fn func(state.Event) error) error {
	for p, more := (page{prefix: prefix, items: 256, bytes: 1 << 20}), !unwanted; more; {
		var found []state.Item
		var err error
		if found, more, err = s.page(ctx, op, version, p); err != nil {
			return err
		}
		for _, item := range found {
			if ctx.Err() != nil {
				return feed.Ended(op, ctx)
			}
			if err := fn(state.Event{Kind: state.Written, Item: item}); err != nil {
				return err
			}
			p.after = item.Key
		}
	}
	return nil
}

// sweep tells the watchers what has expired since the last sweep. Those that wait call it.
func (s *store) sweep() {
	const op = "state.badger: sweep"
	if s.enter(op) != nil {
		return
	}
	defer s.gate.RUnlock()
	var err error
	defer badgerdb.Contain(s.log, op, &err) // logged there
	s.publish.Lock()
	defer s.publish.Unlock()
	now := time.Now()
	if now.Sub(s.swept) < feed.Interval/2 {
		return
	}
	if err = s.publishExpired(s.swept.UnixMilli(), now.UnixMilli()); err != nil {
		s.log.Error("cannot tell watchers what has expired", "error", err)
		return
	}
	s.swept = now
}

// publishExpired tells of the items that expired after one time and not after the other. s.publish is held: no write can
// come between the look at an item and the news that it is gone.
func (s *store) publishExpired(after, until int64) error {
	txn := s.db.NewTransactionAt(s.versions.latest(), false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{Prefix: []byte{'x'}})
	defer it.Close()
	for it.Seek(expiryKey(after+1, "")); it.Valid(); it.Next() {
		expires, key := splitExpiryKey(it.Item().Key())
		if expires > until {
			return nil
		}
		if !s.feed.Watched(key) {
			continue
		}
		tag, err := it.Item().ValueCopy(nil)
		if err != nil {
			return err
		}
		stage := &stage{view: txn}
		present, err := stage.head(key)
		if err != nil {
			return err
		}
		// Badger may have dropped the item already; what is there instead was written later, and has been told of.
		if present == (head{}) || present == (head{tag: tagOf(tag), expires: expires}) {
			s.feed.Publish(state.Event{Kind: state.Deleted, Item: state.Item{Key: key}})
		}
	}
	return nil
}

func tagOf(b []byte) (t etag.Tag) {
	for _, c := range b {
		t = t<<8 | etag.Tag(c)
	}
	return t
}
