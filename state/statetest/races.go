package statetest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// increments has many writers count in one key, each over the ETag it read: no increment may be lost, none done twice.
func (s *suite) increments(t *testing.T) {
	store := s.store(t)
	const writers, each = 8, 25
	var all errgroup.Group
	for range writers {
		all.Go(func() error {
			for range each {
				if err := increment(t.Context(), store, "counter"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	holds(t, store, "counter", strconv.Itoa(writers*each), "")
}

func increment(ctx context.Context, store state.Store, key string) error {
	for {
		items, err := store.Get(ctx, []string{key})
		if err != nil {
			return err
		}
		op, n := state.Op{Kind: state.Set, Key: key, Match: state.Absent}, 0
		if len(items) == 1 {
			op.Match, op.ETag = state.Exact, items[0].ETag
			if n, err = strconv.Atoi(string(items[0].Value)); err != nil {
				return err
			}
		}
		op.Value = strconv.AppendInt(nil, int64(n+1), 10)
		switch _, err := store.Apply(ctx, []state.Op{op}); {
		case err == nil:
			return nil
		case fault.ReasonOf(err) != fault.ETagMismatch:
			return err
		}
	}
}

// createOnce has many writers create and delete one key: at each time one of them has it.
func (s *suite) createOnce(t *testing.T) {
	store := s.store(t)
	var holders atomic.Int32
	var all errgroup.Group
	for range 6 {
		all.Go(func() error {
			for got := 0; got < 10; {
				etags, err := store.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: "k", Match: state.Absent}})
				if fault.ReasonOf(err) == fault.ETagMismatch {
					continue
				}
				if err != nil {
					return err
				}
				if n := holders.Add(1); n != 1 {
					return fmt.Errorf("%d writers created the key", n)
				}
				got++
				holders.Add(-1)
				if _, err := store.Apply(t.Context(), []state.Op{{Kind: state.Delete, Key: "k", Match: state.Exact, ETag: etags[0]}}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// blindWriters never conflict, whatever else is written.
func (s *suite) blindWriters(t *testing.T) {
	store := s.store(t)
	ops := func(w int) []state.Op {
		ops := []state.Op{{Kind: state.Set, Key: "shared", Value: strconv.AppendInt(nil, int64(w), 10)}, {Kind: state.Delete, Key: "other"}}
		if s.SingleOps {
			return ops[w%2 : w%2+1]
		}
		return ops
	}
	var all errgroup.Group
	for w := range 8 {
		all.Go(func() error {
			for range 25 {
				if _, err := store.Apply(t.Context(), ops(w)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

// isolation moves units between two keys: their sum never changes, and who wrote last in the batch wins both.
func (s *suite) isolation(t *testing.T) {
	if s.SingleOps {
		t.Skip("single ops only")
	}
	store := s.store(t)
	put(t, store, "left", "100")
	put(t, store, "right", "100")
	var wg sync.WaitGroup
	var failed atomic.Value
	for range 6 {
		wg.Go(func() {
			for range 15 {
				if err := move(t.Context(), store, "left", "right"); err != nil {
					failed.Store(err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(err)
	}
	holds(t, store, "left", "10", "")
	holds(t, store, "right", "190", "")
}

func move(ctx context.Context, store state.Store, from, to string) error {
	for {
		items, err := store.Get(ctx, []string{from, to})
		if err != nil {
			return err
		}
		if len(items) != 2 {
			return fmt.Errorf("a Get of two keys returned %d items", len(items))
		}
		a, _ := strconv.Atoi(string(items[0].Value))
		b, _ := strconv.Atoi(string(items[1].Value))
		_, err = store.Apply(ctx, []state.Op{
			{Kind: state.Set, Key: from, Value: []byte(strconv.Itoa(a - 1)), Match: state.Exact, ETag: items[0].ETag},
			{Kind: state.Set, Key: to, Value: []byte(strconv.Itoa(b + 1)), Match: state.Exact, ETag: items[1].ETag},
		})
		if fault.ReasonOf(err) != fault.ETagMismatch {
			return err
		}
	}
}
