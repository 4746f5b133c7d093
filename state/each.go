package state

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/sidecast/sidecast/fault"
)

// alongside is how many ops are done at a time, where a store knows no batches.
const alongside = 16

// ApplyEach has store do ops that do not belong together, in as few batches as it takes: as one, or in parts where that is too
// big, or 16 ops at a time, each for itself, where it has no batches. When it fails, some may be done all the same.
func ApplyEach(ctx context.Context, store Store, ops []Op) error {
	if b, ok := store.(Bulker); ok {
		return b.ApplyEach(ctx, ops)
	}
	_, err := store.Apply(ctx, ops)
	if err == nil || len(ops) < 2 {
		return err
	}
	switch fault.ReasonOf(err) {
	case fault.NotSupported:
		return singly(ctx, store, ops)
	case fault.TransactionBig:
		most := mostOf(err, len(ops))
		err := ApplyEach(ctx, store, ops[:most])
		if isAway(err) {
			return err
		}
		return errors.Join(err, ApplyEach(ctx, store, ops[most:]))
	}
	return err
}

// mostOf is how many of so many ops to try, whose batch was too big: what the error says, or half of them.
func mostOf(err error, ops int) int {
	var big *fault.Error
	if errors.As(err, &big) {
		if most, err := strconv.Atoi(big.Meta["most"]); err == nil && most > 0 && most < ops {
			return most
		}
	}
	return ops / 2
}

// isAway says whether err would be that of any other op as well: the store cannot be reached, or there is no time left.
func isAway(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Unavailable || kind == fault.Timeout || kind == fault.Canceled
}

// singly does each op by itself. What is wrong with one of them does not keep the others from being done; what is wrong with
// the store ends it, and is the error then.
func singly(ctx context.Context, store Store, ops []Op) error {
	var (
		next    atomic.Int64
		broken  atomic.Pointer[error]
		panicks atomic.Pointer[string]
		workers sync.WaitGroup
	)
	errs := make([]error, len(ops))
	for range min(alongside, len(ops)) {
		workers.Go(func() {
			defer func() {
				if cause := recover(); cause != nil {
					text := fmt.Sprintf("%v\n%s", cause, debug.Stack())
					panicks.Store(&text)
				}
			}()
			for broken.Load() == nil && panicks.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(ops) {
					return
				}
				_, err := store.Apply(ctx, ops[i:i+1])
				if isAway(err) {
					broken.Store(&err)
				}
				errs[i] = err
			}
		})
	}
	workers.Wait()
	if text := panicks.Load(); text != nil {
		panic(*text) // where the caller's guard sees it
	}
	if err := broken.Load(); err != nil {
		return *err
	}
	return errors.Join(errs...)
}
