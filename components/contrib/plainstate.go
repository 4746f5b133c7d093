package contrib

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribstate "github.com/dapr/components-contrib/state"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// plainState makes a component of a store of which no more is known than what it says itself: its datasheet, and its features.
// What it has not (ETags, time to live, transactions) is refused before anything is changed.
func plainState(product, version string, make func(logger.Logger) contribstate.Store) components.Component {
	d := described{components.StateBlock, product, version, func() any { return make(logs{log: unheard}) }}
	return components.Described(d.block, product, d.doc, d.fields, openPlainState("state."+product, make)).Versioned(version).Able(ableAs(make, false))
}

// openPlainState opens such a store. Its calls are bounded, and end with their context: many a client hears of none.
func openPlainState(name string, make func(logger.Logger) contribstate.Store) func(context.Context, components.Host, components.Settings) (state.Store, error) {
	return func(ctx context.Context, host components.Host, s components.Settings) (state.Store, error) {
		l := newLife(host.Log)
		inner := make(newLogs(host.Log, nil))
		err := initialize(ctx, l, inner, func() error {
			return inner.Init(ctx, contribstate.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: maps.Clone(s.Values)}})
		})
		if err != nil {
			return nil, badOpen(ctx, name+": open", s, err)
		}
		b := &boundedStore{Store: inner, life: l, slots: makeSlots()}
		features := inner.Features()
		own := &store{name: name, inner: b, isETag: func(text string) bool { return text != "" }, life: l, plain: true,
			noETags: !contribstate.FeatureETag.IsPresent(features), noTTL: !contribstate.FeatureTTL.IsPresent(features)}
		if _, ok := inner.(contribstate.TransactionalStore); ok && contribstate.FeatureTransactional.IsPresent(features) {
			own.multi = b
		}
		if bounded, ok := inner.(contribstate.TransactionalStoreMultiMaxSize); ok {
			own.most = bounded.MultiMaxSize()
		}
		own.json = name == "state.aerospike" // it keeps the fields of an object
		own.partitioned = name == "state.azure.cosmosdb"
		return &plainStore{own}, nil
	}
}

// metadataPartition is the partition of an item, in the metadata of its writes and reads; without it that is the key.
const metadataPartition = "partitionKey"

var (
	_ state.Store  = (*plainStore)(nil)
	_ state.Bulker = (*plainStore)(nil)
	_ state.Guided = (*plainStore)(nil)
)

// plainStore is a store of which not even that is known whether it has transactions.
type plainStore struct{ *store }

// ApplyEach implements state.Bulker, by a call for each op: some stores have no transactions, and others have none of any
// length or of any items.
func (s *plainStore) ApplyEach(ctx context.Context, ops []state.Op) error {
	op := s.name + ": apply"
	calling, leave, err := s.life.enter(ctx, op)
	if err != nil {
		return err
	}
	defer leave()
	writes, checks, err := s.sort(op, ops)
	if err == nil {
		err = s.lacks(op, ops)
	}
	if err == nil && len(checks) > 0 {
		err = s.life.failure(ctx, op, s.check(calling, op, checks))
	}
	if err != nil {
		return err
	}
	errs, room := make([]error, len(writes)), make(chan struct{}, parallel)
	var work sync.WaitGroup
	for i, o := range writes {
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			errs[i] = s.life.failure(ctx, op, s.write(calling, op, o))
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

// makeSlots is room for as many calls as a lane lets pass.
func makeSlots() chan struct{} { return make(chan struct{}, mostOut) }

// initialize runs init, and closes what comes too late or not at all.
func initialize(ctx context.Context, l *life, inner interface{ Close() error }, init func() error) error {
	quiet()
	_, err := detached(ctx, l, func() (struct{}, error) {
		err := init()
		if err != nil || ctx.Err() != nil {
			closeQuietly(inner)
		}
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return struct{}{}, err
	})
	return err
}

// boundedStore has each call of a store wait for no longer than its context, and bounds how many are at work. What they are
// given is theirs.
type boundedStore struct {
	contribstate.Store
	life  *life
	slots chan struct{}
}

func (b *boundedStore) Get(ctx context.Context, r *contribstate.GetRequest) (*contribstate.GetResponse, error) {
	return bounded(ctx, b.life, b.slots, func() (*contribstate.GetResponse, error) { return b.Store.Get(ctx, r) })
}

func (b *boundedStore) BulkGet(ctx context.Context, r []contribstate.GetRequest, o contribstate.BulkGetOpts) ([]contribstate.BulkGetResponse, error) {
	return bounded(ctx, b.life, b.slots, func() ([]contribstate.BulkGetResponse, error) { return b.Store.BulkGet(ctx, r, o) })
}

func (b *boundedStore) Set(ctx context.Context, r *contribstate.SetRequest) error {
	own := ownSet(*r)
	_, err := bounded(ctx, b.life, b.slots, func() (struct{}, error) { return struct{}{}, b.Store.Set(ctx, &own) })
	return err
}

func (b *boundedStore) Delete(ctx context.Context, r *contribstate.DeleteRequest) error {
	_, err := bounded(ctx, b.life, b.slots, func() (struct{}, error) { return struct{}{}, b.Store.Delete(ctx, r) })
	return err
}

// Multi implements contribstate.TransactionalStore for a store that does.
func (b *boundedStore) Multi(ctx context.Context, r *contribstate.TransactionalStateRequest) error {
	own := *r
	own.Operations = slices.Clone(r.Operations)
	for i, o := range own.Operations {
		if set, ok := o.(contribstate.SetRequest); ok {
			own.Operations[i] = ownSet(set)
		}
	}
	_, err := bounded(ctx, b.life, b.slots, func() (struct{}, error) {
		return struct{}{}, b.Store.(contribstate.TransactionalStore).Multi(ctx, &own)
	})
	return err
}

// Close implements contribstate.Store.
func (b *boundedStore) Close() error { return closeSafely(b.Store) }

func ownSet(r contribstate.SetRequest) contribstate.SetRequest {
	switch value := r.Value.(type) {
	case []byte:
		r.Value = bytes.Clone(value)
	case json.RawMessage:
		r.Value = json.RawMessage(bytes.Clone(value))
	}
	return r
}

// lacks says what a plain store cannot do of the ops.
func (s *store) lacks(op string, ops []state.Op) error {
	for _, o := range ops {
		switch {
		case s.noETags && o.Match != state.Any:
			return fault.New(op, fault.NotSupported, "%s has no ETags: it cannot tell whether an item is as expected", s.name).With("key", o.Key)
		case s.noTTL && o.TTL > 0:
			return fault.New(op, fault.NotSupported, "%s has no time to live", s.name).With("key", o.Key)
		}
	}
	return nil
}

// together says why several ops cannot be done as one.
func (s *store) together(op string, ops []state.Op) error {
	switch {
	case s.multi == nil:
		return fault.New(op, fault.NotSupported, "%s has no transactions: write one item after the other", s.name)
	case s.most > 0 && len(ops) > s.most:
		return fault.New(op, fault.TransactionBig, "%d operations; %s takes at most %d in one transaction", len(ops), s.name, s.most).With("most", strconv.Itoa(s.most))
	case s.partitioned && Agreed(ops)[metadataPartition] == "":
		return fault.New(op, fault.NotSupported, "a transaction of %s is of one partition: give all its operations, or the request, the same %s, and each read of what they write", s.name, metadataPartition)
	}
	return nil
}

// absentFirst looks whether an item is there that must not be: not every store does so itself, where it gets no ETag.
func (s *store) absentFirst(ctx context.Context, op string, o state.Op) error {
	if !s.plain || o.Match != state.Absent {
		return nil
	}
	found, err := s.read(ctx, asksOf([]state.Op{o}))
	if err == nil && !o.Holds(found) {
		err = mismatch(op, o)
	}
	return err
}
