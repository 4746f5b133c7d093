// Package state is the contract between the State block and its backends: a small set of methods that move bytes, and
// optional abilities found by type assertion. What is true for every backend (validation, key layout, lanes, tracing)
// is in the block; what every backend promises is checked by its conformance suite, state/statetest.
//
//	store, err := badgerstore.Component.Open(ctx, host, config)
//	etags, err := store.Apply(ctx, []state.Op{{Kind: state.Set, Key: "k", Value: v, Match: state.Absent}})
package state

import (
	"context"
	"time"
)

// Store keeps values by key, linearizable per key. All methods may be called concurrently. Keys are any non-empty bytes.
// Byte slices passed in may be reused by the caller when a method returns; those returned belong to the caller.
type Store interface {
	// Get returns the items of those keys that exist and have not expired, in the order of keys.
	Get(ctx context.Context, keys []string) ([]Item, error)
	// Apply does all ops or none, and is durable when it returns as the backend documents. An op whose Match does not hold
	// fails the batch with fault.Conflict, reason ETAG_MISMATCH, and names its key in Meta["key"]. It returns the new ETag
	// for each Set, and "" for the other ops. No key occurs twice in ops. A backend that can only apply single ops fails
	// longer batches with fault.Unsupported before it changes anything.
	Apply(ctx context.Context, ops []Op) ([]string, error)
	// Close returns when nothing of the store is running any more. Methods called later fail with fault.Unavailable.
	Close(ctx context.Context) error
}

// Plain is a Store of values alone: its items have neither an ETag nor a time at which they are said to expire. It fails ops
// whose Match is not Any, and batches of more than one op, with fault.Unsupported.
type Plain interface {
	Plain()
}

// Transactor is a Store that may do no more than one op at a time: what it was opened with decides.
type Transactor interface {
	// Transacts says whether Apply takes batches of more than one op.
	Transacts() bool
}

// Transacts says whether store applies batches of more than one op, all or none. Every store does that does not say otherwise.
func Transacts(store Store) bool {
	for {
		switch s := store.(type) {
		case Plain:
			return false
		case Transactor:
			return s.Transacts()
		case interface{ Unwrap() Store }: // what is between the block and its backend
			store = s.Unwrap()
		default:
			return true
		}
	}
}

// Scanner is a Store that can list.
type Scanner interface {
	// Scan returns up to limit items whose keys start with prefix and are greater than after, in the byte order of keys.
	// Values are left out when keysOnly is set.
	Scan(ctx context.Context, prefix, after string, limit int, keysOnly bool) ([]Item, error)
}

// Bulker is a Store that does many ops at once that do not belong together.
type Bulker interface {
	// ApplyEach does each op for itself, in any order: when it fails, some may be done all the same.
	ApplyEach(ctx context.Context, ops []Op) error
}

// Guided is a Store whose reads can be told what a writer tells it by Op.Metadata, as the partition that an item is in.
type Guided interface {
	// GetWith is Get of items that were written with metadata. It passes over what it does not know of them.
	GetWith(ctx context.Context, keys []string, metadata map[string]string) ([]Item, error)
}

// GetWith has store read, with metadata where it takes some.
func GetWith(ctx context.Context, store Store, keys []string, metadata map[string]string) ([]Item, error) {
	if g, ok := store.(Guided); ok && len(metadata) > 0 {
		return g.GetWith(ctx, keys, metadata)
	}
	return store.Get(ctx, keys)
}

// Watcher is a Store that can tell of changes.
type Watcher interface {
	// Watch calls fn with the present items under prefix (unless onlyChanges), then once with Current, then with each
	// change in the order of each key's writes, until ctx ends or fn fails; it returns that error. Changes of one key may
	// be folded into the latest. Every change acknowledged after Current is seen. Expiry is reported as a Deleted event
	// within a few seconds. A fn that is too slow ends the watch with reason WATCH_OVERRUN instead of filling memory.
	Watch(ctx context.Context, prefix string, onlyChanges bool, fn func(Event) error) error
}

// Querier is a Store that can find items by what their values say.
type Querier interface {
	// Query returns the items that q asks for, whatever their keys; those that have expired are left out. It fails with
	// QUERY_INVALID for a query that it cannot answer, and with fault.Unsupported when it turns out to answer none.
	Query(ctx context.Context, q Query) (Found, error)
}

// Query asks for items by their values.
type Query struct {
	// Text is JSON: a filter, how to sort, and a page, in the language of Dapr's state query API.
	Text []byte
	// Token is that of the page to begin with, where it is not the one in Text.
	Token string
	// Metadata is for the backend.
	Metadata map[string]string
}

// Found is a page of what a query has found.
type Found struct {
	Items []Item
	// Token is that of the next page, "" when there is none. It may turn out to be empty.
	Token string
	// Looked is how many items the page had before any were left out; 0 means that there are no more.
	Looked int
}

// Item is a stored value.
type Item struct {
	Key   string
	Value []byte
	// ETag names this version: it changes with every write and is never reused for the key.
	ETag string
	// Expires is when the item vanishes; zero: never.
	Expires time.Time
}

// OpKind is what an Op does.
type OpKind uint8

// What an Op does.
const (
	Set    OpKind = iota // store Value
	Delete               // remove the item
	Check                // change nothing: only Match counts
)

// Match is what an Op expects of the item before it.
type Match uint8

// What an Op expects.
const (
	Any    Match = iota // nothing
	Exact               // the item exists with ETag
	Absent              // the item does not exist
)

// Op is one step of a batch.
type Op struct {
	Kind  OpKind
	Key   string
	Value []byte
	Match Match
	ETag  string        // for Exact; a backend fails one it can never have given out with fault.Invalid, ETAG_MALFORMED
	TTL   time.Duration // for Set: the item vanishes this long after; 0: never
	// JSON says of a Set that Value is JSON: a Querier keeps it so that it can be queried, and may give it back in other words.
	JSON bool
	// Metadata is what the writer tells the backend itself, which passes over what it does not know.
	Metadata map[string]string
}

// Holds says whether what o expects is so among found, the items that exist now, by key.
func (o Op) Holds(found map[string]Item) bool {
	item, exists := found[o.Key]
	switch o.Match {
	case Exact:
		return exists && item.ETag == o.ETag
	case Absent:
		return !exists
	}
	return true
}

// EventKind is what a watcher learns.
type EventKind uint8

// What a watcher learns.
const (
	Written EventKind = iota // Item was written, or existed when the watch began
	Deleted                  // Item.Key is gone: deleted or expired
	Current                  // all items that existed have been reported
)

// Event is one thing a watcher learns.
type Event struct {
	Kind EventKind
	Item Item
}
