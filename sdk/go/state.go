package sidecast

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// State is a state component: values by key, linearizable per key.
type State struct {
	client *Client
	name   string
}

// State is the state component of that name; "" is the default one.
func (c *Client) State(name string) *State { return &State{c, name} }

// Item is a stored value.
type Item struct {
	Key   string
	Value []byte
	// ETag names this version of the item; see IfMatch.
	ETag string
	// TTL is the time left before the item vanishes; 0 when it stays.
	TTL time.Duration
}

func itemOf(i *sidecastv1.Item) Item {
	return Item{Key: i.GetKey(), Value: i.GetValue(), ETag: i.GetEtag(), TTL: i.GetTtl().AsDuration()}
}

func itemsOf(list []*sidecastv1.Item) []Item {
	items := make([]Item, len(list))
	for i := range list {
		items[i] = itemOf(list[i])
	}
	return items
}

// WriteOption changes one write or removal.
type WriteOption interface {
	write(*sidecastv1.Write)
}

type writeOption func(*sidecastv1.Write)

func (o writeOption) write(w *sidecastv1.Write) { o(w) }

// IfMatch lets the write succeed only over the version that etag names; otherwise it fails with fault.Conflict.
func IfMatch(etag string) WriteOption {
	return writeOption(func(w *sidecastv1.Write) { w.Etag = etag })
}

// IfAbsent lets the write succeed only if the item does not exist; otherwise it fails with fault.Conflict.
func IfAbsent() WriteOption {
	return writeOption(func(w *sidecastv1.Write) {
		w.Etag, w.Concurrency = "", sidecastv1.Concurrency_CONCURRENCY_FIRST_WRITE
	})
}

// TTL makes an item vanish, or a lease end, after d.
func TTL(d time.Duration) interface {
	WriteOption
	LockOption
} {
	return ttl(d)
}

type ttl time.Duration

func (d ttl) write(w *sidecastv1.Write) { w.Ttl = durationpb.New(time.Duration(d)) }
func (d ttl) lock(r *lockRequest)       { r.ttl = durationpb.New(time.Duration(d)) }

func writeOf(key string, value []byte, options []WriteOption) *sidecastv1.Write {
	w := &sidecastv1.Write{Key: key, Value: value}
	for _, o := range options {
		o.write(w)
	}
	return w
}

// Get reads one item. An item that does not exist is not an error.
func (s *State) Get(ctx context.Context, key string) (item Item, found bool, err error) {
	r, err := s.client.state.Get(ctx, &sidecastv1.GetRequest{StoreName: s.name, Key: key})
	if err != nil {
		return Item{}, false, err
	}
	return itemOf(r.GetItem()), r.GetFound(), nil
}

// BatchGet reads those items that exist, in the order of keys.
func (s *State) BatchGet(ctx context.Context, keys ...string) ([]Item, error) {
	r, err := s.client.state.BatchGet(ctx, &sidecastv1.BatchGetRequest{StoreName: s.name, Keys: keys})
	if err != nil {
		return nil, err
	}
	return itemsOf(r.GetItems()), nil
}

// Set writes one item and returns its new etag.
func (s *State) Set(ctx context.Context, key string, value []byte, options ...WriteOption) (etag string, err error) {
	r, err := s.client.state.Set(ctx, &sidecastv1.SetRequest{
		StoreName: s.name, Items: []*sidecastv1.Write{writeOf(key, value, options)},
	})
	if err != nil {
		return "", err
	}
	if len(r.GetEtags()) > 0 {
		etag = r.Etags[0]
	}
	return etag, nil
}

// Delete removes one item; of the options only IfMatch counts. Removing what does not exist succeeds without it.
func (s *State) Delete(ctx context.Context, key string, options ...WriteOption) error {
	_, err := s.client.state.Delete(ctx, &sidecastv1.DeleteRequest{
		StoreName: s.name, Key: key, Etag: writeOf(key, nil, options).Etag,
	})
	return err
}

// Operation is one step of a transaction.
type Operation struct{ proto *sidecastv1.Operation }

// Put stores a value.
func Put(key string, value []byte, options ...WriteOption) Operation {
	return Operation{&sidecastv1.Operation{Op: &sidecastv1.Operation_Set{Set: writeOf(key, value, options)}}}
}

// Remove removes an item; of the options only IfMatch counts.
func Remove(key string, options ...WriteOption) Operation {
	removal := &sidecastv1.Removal{Key: key, Etag: writeOf(key, nil, options).Etag}
	return Operation{&sidecastv1.Operation{Op: &sidecastv1.Operation_Delete{Delete: removal}}}
}

// Expect requires that an item still has that etag, or with an empty etag that it does not exist.
func Expect(key, etag string) Operation {
	expectation := &sidecastv1.Expectation{Key: key, Etag: etag}
	return Operation{&sidecastv1.Operation{Op: &sidecastv1.Operation_Expect{Expect: expectation}}}
}

// Transact does all operations or none. It returns the new etag of each Put, and "" for the others.
func (s *State) Transact(ctx context.Context, operations ...Operation) (etags []string, err error) {
	r := &sidecastv1.TransactRequest{StoreName: s.name, Operations: make([]*sidecastv1.Operation, len(operations))}
	for i, o := range operations {
		r.Operations[i] = o.proto
	}
	answer, err := s.client.state.Transact(ctx, r)
	if err != nil {
		return nil, err
	}
	return answer.GetEtags(), nil
}

// ListOption changes what List returns.
type ListOption func(*sidecastv1.ListRequest)

// KeysOnly leaves the values out.
func KeysOnly() ListOption { return func(r *sidecastv1.ListRequest) { r.KeysOnly = true } }

// PageSize is how many items List fetches at a time; at most 1000, and 100 unless set.
func PageSize(n int) ListOption { return func(r *sidecastv1.ListRequest) { r.PageSize = int32(n) } }

// List yields the items whose keys start with prefix, in the byte order of their keys, page by page. An error ends it.
//
//	for item, err := range state.List(ctx, "order/") { … }
func (s *State) List(ctx context.Context, prefix string, options ...ListOption) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		r := &sidecastv1.ListRequest{StoreName: s.name, Prefix: prefix}
		for _, o := range options {
			o(r)
		}
		for {
			page, err := s.client.state.List(ctx, r)
			if err != nil {
				yield(Item{}, err)
				return
			}
			for _, item := range page.GetItems() {
				if !yield(itemOf(item), nil) {
					return
				}
			}
			if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
				return
			}
		}
	}
}

// Change is one thing that a watcher learns.
type Change struct {
	// Item is what was written; for a removal only its Key is set.
	Item    Item
	Deleted bool
	// Current says that all items that existed when the watch began have been told; Item is empty. Once.
	Current bool
}

// Watch yields the items under prefix as they are, then each change, until ctx ends, the loop breaks or an error comes.
func (s *State) Watch(ctx context.Context, prefix string) iter.Seq2[Change, error] {
	return s.watch(ctx, &sidecastv1.StateWatchRequest{StoreName: s.name, Prefix: prefix})
}

// WatchChanges is Watch without the items that exist already.
func (s *State) WatchChanges(ctx context.Context, prefix string) iter.Seq2[Change, error] {
	return s.watch(ctx, &sidecastv1.StateWatchRequest{StoreName: s.name, Prefix: prefix, OnlyChanges: true})
}

func (s *State) watch(ctx context.Context, r *sidecastv1.StateWatchRequest) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		wire, err := s.client.state.Watch(ctx, r)
		for err == nil {
			var event *sidecastv1.StateWatchResponse
			if event, err = wire.Recv(); err != nil {
				break
			}
			var change Change
			switch e := event.GetEvent().(type) {
			case *sidecastv1.StateWatchResponse_Set:
				change.Item = itemOf(e.Set)
			case *sidecastv1.StateWatchResponse_Deleted:
				change.Item.Key, change.Deleted = e.Deleted, true
			case *sidecastv1.StateWatchResponse_Current:
				change.Current = true
			}
			if !yield(change, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(Change{}, failed("watch "+r.Prefix, err))
		}
	}
}

// GetJSON reads one item and its JSON into a T. The etag is that of the item, "" when it does not exist.
func GetJSON[T any](ctx context.Context, s *State, key string) (value T, etag string, err error) {
	item, found, err := s.Get(ctx, key)
	if err != nil || !found {
		return value, "", err
	}
	if err := json.Unmarshal(item.Value, &value); err != nil {
		return value, item.ETag, fault.New("state get "+key, fault.BadRequest, "the value is not the JSON expected: %w", err)
	}
	return value, item.ETag, nil
}

// SetJSON writes value as JSON and returns the item's new etag.
func SetJSON(ctx context.Context, s *State, key string, value any, options ...WriteOption) (etag string, err error) {
	data, err := json.Marshal(value)
	if err != nil {
		return "", fault.E("state set "+key, fault.Invalid, fault.BadRequest, err)
	}
	return s.Set(ctx, key, data, options...)
}
