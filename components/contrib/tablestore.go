package contrib

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/sidecast/sidecast/state"
)

// tableStore is what the stores have in common that keep an item as a row, or a document, under an ETag of their own making, and
// talk to its server by statements of their own.
type tableStore struct {
	name    string        // the component's type
	timeout time.Duration // of a call
	life    *life
	reason  func(error) error // gives an error of the server the reason that the driver does not know
}

// mostKeys is how many keys a statement names.
const mostKeys = 5000

// get reads the items of keys, with as few statements as have room for them. read adds what it finds by the name it is stored under.
func (t *tableStore) get(ctx context.Context, keys []string, read func(ctx context.Context, keys []string, found map[string]state.Item) error) ([]state.Item, error) {
	op := t.name + ": get"
	calling, leave, err := t.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	bounded, cancel := context.WithTimeout(calling, t.timeout)
	defer cancel()
	found := make(map[string]state.Item, len(keys))
	for some := range slices.Chunk(keys, mostKeys) {
		if err := read(bounded, some, found); err != nil {
			return nil, t.failure(ctx, op, err)
		}
	}
	var items []state.Item
	for _, key := range keys {
		if item, ok := found[stored(key)]; ok {
			item.Key = key
			items = append(items, item)
		}
	}
	return items, nil
}

// apply does ops, each Set of which has its ETag in tags. refuse says what cannot be, before the server is asked.
func (t *tableStore) apply(ctx context.Context, ops []state.Op, refuse func(op string, ops []state.Op) error,
	do func(ctx context.Context, op string, ops []state.Op, tags []string) error) ([]string, error) {
	op := t.name + ": apply"
	calling, leave, err := t.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	tags := make([]string, len(ops))
	if err := refuse(op, ops); err != nil || len(ops) == 0 {
		return tags, err
	}
	for i, o := range ops {
		if o.Kind == state.Set {
			tags[i] = uuid.NewString()
		}
	}
	bounded, cancel := context.WithTimeout(calling, t.timeout)
	defer cancel()
	if err := do(bounded, op, ops, tags); err != nil {
		return nil, t.failure(ctx, op, err)
	}
	return tags, nil
}

// failure is the fault of a call of ctx.
func (t *tableStore) failure(ctx context.Context, op string, err error) error {
	if ctx.Err() == nil && t.life.ctx.Err() == nil && !atDeadline(ctx, err) {
		err = t.reason(err)
	}
	return t.life.failure(ctx, op, err)
}
