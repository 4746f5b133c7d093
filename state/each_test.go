package state_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// narrow takes so many ops at a time, one where most is 1, and tells of it like a store that has no batches, or one whose batches
// have a bound. An op takes a second.
type narrow struct {
	state.Store
	most    int
	silent  bool // about the bound
	fails   map[string]error
	mu      sync.Mutex
	batches int // that were done
	done    map[string]string
	at      int // ops at work
	highest int
}

func (n *narrow) Apply(_ context.Context, ops []state.Op) ([]string, error) {
	switch {
	case len(ops) > n.most && n.most == 1:
		return nil, fault.New("narrow: apply", fault.NotSupported, "no batches")
	case len(ops) > n.most && n.silent:
		return nil, fault.New("narrow: apply", fault.TransactionBig, "too big")
	case len(ops) > n.most:
		return nil, fault.New("narrow: apply", fault.TransactionBig, "too big").With("most", strconv.Itoa(n.most))
	}
	n.mu.Lock()
	n.batches++
	n.at++
	n.highest = max(n.highest, n.at)
	n.mu.Unlock()
	time.Sleep(time.Second)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at--
	for _, o := range ops {
		if err := n.fails[o.Key]; err != nil {
			return nil, err
		}
		if string(o.Value) == "panic" {
			panic("of " + o.Key)
		}
		n.done[o.Key] = string(o.Value)
	}
	return make([]string, len(ops)), nil
}

func sets(n int) []state.Op {
	ops := make([]state.Op, n)
	for i := range ops {
		ops[i] = state.Op{Kind: state.Set, Key: fmt.Sprint("k", i), Value: fmt.Append(nil, i)}
	}
	return ops
}

func TestApplyEach(t *testing.T) {
	for name, test := range map[string]struct {
		store   *narrow
		batches int
		seconds time.Duration
		highest int
	}{
		"one batch":        {&narrow{most: 100}, 1, 1, 1},
		"a bound":          {&narrow{most: 8}, 13, 13, 1},
		"a bound not told": {&narrow{most: 8, silent: true}, 16, 16, 1},
		"no batches":       {&narrow{most: 1}, 100, 7, 16},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, began := test.store, time.Now()
				s.done = make(map[string]string)
				if err := state.ApplyEach(t.Context(), s, sets(100)); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began) / time.Second; s.batches != test.batches || took != test.seconds || s.highest != test.highest {
					t.Errorf("%d batches, %d at a time, took %d s; want %d, %d and %d s", s.batches, s.highest, took, test.batches, test.highest, test.seconds)
				}
				for _, o := range sets(100) {
					if s.done[o.Key] != string(o.Value) {
						t.Errorf("%s is %q", o.Key, s.done[o.Key])
					}
				}
			})
		})
	}
}

func TestApplyEachWhereSomeFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		large := fault.New("narrow: apply", fault.ValueTooLarge, "too large").With("key", "k3")
		s := &narrow{most: 1, done: make(map[string]string), fails: map[string]error{"k3": large}}
		if err := state.ApplyEach(t.Context(), s, sets(100)); fault.ReasonOf(err) != fault.ValueTooLarge || len(s.done) != 99 {
			t.Errorf("an op that cannot be done: %v, and %d are", err, len(s.done))
		}
		down := fault.New("narrow: apply", fault.BackendDown, "away")
		s = &narrow{most: 1, done: make(map[string]string), fails: map[string]error{"k3": large, "k20": down}}
		if err := state.ApplyEach(t.Context(), s, sets(100)); fault.ReasonOf(err) != fault.BackendDown || s.batches > 3*16 {
			t.Errorf("a store that is away: %v, after %d ops", err, s.batches)
		}
		s = &narrow{most: 8, done: make(map[string]string), fails: map[string]error{"k3": down}}
		if err := state.ApplyEach(t.Context(), s, sets(100)); fault.ReasonOf(err) != fault.BackendDown || s.batches != 1 {
			t.Errorf("a store that is away: %v, after %d batches", err, s.batches)
		}
	})
}

// A panic is the caller's, who has a guard, and not that of a goroutine, which has none.
func TestApplyEachPanicsWhereItIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ops := sets(3)
		ops[1].Value = []byte("panic")
		defer func() {
			if text := fmt.Sprint(recover()); !strings.Contains(text, "of k1") || !strings.Contains(text, "narrow") {
				t.Errorf("it panicked with %s", text)
			}
		}()
		_ = state.ApplyEach(t.Context(), &narrow{most: 1, done: make(map[string]string)}, ops)
	})
}
