package blocks

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/state"
)

// Bounds of one state request.
const (
	MaxStateKeys = 1000 // keys of a bulk read, operations of a transaction, items of a page
	defaultPage  = 100
	maxTTL       = 10 * 365 * 24 * time.Hour
)

// keySeparator stands between the prefix a component gives its keys and the app's own key.
const keySeparator = "||"

// State keeps values by key in state components, linearizable per key. Keys are the app's own: the component's keyPrefix
// decides who shares them. The block owns key layout, limits and ETag rules; a backend only moves bytes.
type State struct {
	components *components.Set
	lanes      *componentLanes
	last       lastGood[[]state.Item]
	outbox     *outbox
}

func newState(d Deps, rules *rulebook) *State {
	return &State{components: d.Components, lanes: newComponentLanes(d, rules, "state", governance.Statestore)}
}

// do runs work on the named component in its lane.
func (s *State) do(ctx context.Context, component, op string, idempotent bool,
	work func(ctx context.Context, use components.Use[state.Store]) error) (err error) {
	use, err := s.components.State(ctx, component)
	if err != nil {
		return err
	}
	defer use.Release()
	ctx, record := s.lanes.begin(ctx, use.Name, op)
	defer record.end(&err)
	return s.lanes.of(use.Name).Do(ctx, resiliency.Call{Op: op, Idempotent: idempotent},
		func(ctx context.Context, _ actors.Grant) error { return work(ctx, use) })
}

// Get returns the items of those keys that exist, in the order of keys. Where the policy falls back on last good answers
// they may be older ones; their ETags are too, so that a write based on them meets a conflict.
func (s *State) Get(ctx context.Context, component string, keys []string) (items []state.Item, err error) {
	return s.GetWith(ctx, component, keys, nil)
}

// GetWith is Get, with metadata for the backend: those that the items were written with, where it finds them by some.
func (s *State) GetWith(ctx context.Context, component string, keys []string, metadata map[string]string) (items []state.Item, err error) {
	if len(keys) > MaxStateKeys {
		return nil, fault.New("state: get", fault.BadRequest, "%d keys asked for; at most %d are allowed", len(keys), MaxStateKeys)
	}
	for _, key := range keys {
		if err := checkKey("state: get", key); err != nil {
			return nil, err
		}
	}
	use, err := s.components.State(ctx, component)
	if err != nil {
		return nil, err
	}
	defer use.Release()
	failed := error(nil) // before a fallback answered
	ctx, record := s.lanes.begin(ctx, use.Name, "get")
	defer record.end(&failed)
	prefix := keyPrefix(use.KeyPrefix)
	return pass(ctx, s.lanes.of(use.Name), "", resiliency.Call{Op: "get", Idempotent: true},
		func(ctx context.Context, _ actors.Grant) ([]state.Item, error) {
			items, err := state.GetWith(ctx, use.Backend, withPrefix(prefix, keys), metadata)
			for i := range items {
				items[i].Key = strings.TrimPrefix(items[i].Key, prefix)
			}
			return items, err
		},
		func(ctx context.Context, lane *actors.Lane, items []state.Item, err error) ([]state.Item, error) {
			failed = err
			return s.lastOr(ctx, lane, func() key { return readKey(component, keys, metadata) }, items, err)
		})
}

// lastOr passes on what came of a Get in lane, or the last good items in its place if the policy says so.
func (s *State) lastOr(ctx context.Context, lane *actors.Lane, of func() key, items []state.Item, err error) ([]state.Item, error) {
	if err == nil {
		if rule := lane.Policy().Keeps(); rule != nil && sizeOf(items) <= maxKept {
			s.last.keep(rule, of(), items)
		}
		return items, nil
	}
	rule := lane.FallbackFor(err)
	if rule == nil || !rule.LastGood {
		return nil, err
	}
	kept, _, ok := s.last.find(rule, of())
	if !ok {
		return nil, err
	}
	fellBack(ctx, lane, "last-good")
	return slices.Clone(kept), nil
}

// readKey tells reads apart.
func readKey(component string, keys []string, metadata map[string]string) key {
	parts := append([]string{component, strconv.Itoa(len(keys))}, keys...)
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		parts = append(parts, name, metadata[name])
	}
	return partsKey(parts...)
}

func sizeOf(items []state.Item) int {
	size := 0
	for i := range items {
		size += len(items[i].Key) + len(items[i].Value)
	}
	return size
}

// Apply does all ops or none and returns the new ETag for each Set. It publishes nothing, whatever the component's outbox.
func (s *State) Apply(ctx context.Context, component string, ops []state.Op) (etags []string, err error) {
	if err := checkOps(ops); err != nil {
		return nil, err
	}
	return s.apply(ctx, component, ops, nil)
}

// ApplyEach does ops that do not belong together: when it fails, some may be done all the same. It publishes nothing.
func (s *State) ApplyEach(ctx context.Context, component string, ops []state.Op) error {
	if err := checkOps(ops); err != nil || len(ops) == 0 {
		return err
	}
	own := make([]state.Op, len(ops))
	return s.do(ctx, component, "apply", false, func(ctx context.Context, use components.Use[state.Store]) error {
		prefix := keyPrefix(use.KeyPrefix)
		for i, op := range ops {
			op.Key = prefix + op.Key
			own[i] = op
		}
		return ownKey(state.ApplyEach(ctx, use.Backend, own), prefix)
	})
}

// apply does ops, and beside them records of the outbox, whose keys are whole.
func (s *State) apply(ctx context.Context, component string, ops []state.Op, records []outboxRecord) (etags []string, err error) {
	if len(ops) == 0 {
		return nil, nil
	}
	own := make([]state.Op, len(ops))
	err = s.do(ctx, component, "apply", false, func(ctx context.Context, use components.Use[state.Store]) error {
		prefix := keyPrefix(use.KeyPrefix)
		for i, op := range ops {
			op.Key = prefix + op.Key
			own[i] = op
		}
		var err error
		if _, ok := use.Backend.(state.Scanner); !ok && len(records) > 0 {
			etags, err = s.outbox.applySlotted(ctx, use.Backend, own, records)
			return ownKey(err, prefix)
		}
		more, err := s.outbox.ops(records)
		if err == nil {
			etags, err = use.Backend.Apply(ctx, append(own, more...))
		}
		return ownKey(err, prefix)
	})
	return etags[:min(len(etags), len(ops))], err
}

// HasTransactions says whether the component does several ops at once, all or none. It opens the component.
func (s *State) HasTransactions(ctx context.Context, component string) (bool, error) {
	use, err := s.components.State(ctx, component)
	if err != nil {
		return false, err
	}
	defer use.Release()
	return state.Transacts(use.Backend), nil
}

// HasOutbox says whether the transactions of the component publish what they write.
func (s *State) HasOutbox(component string) bool { return s.box(component).On() }

func (s *State) box(component string) components.Outbox {
	return s.components.Outbox(cmp.Or(component, "statestore"))
}

// Transact is Apply, and publishes what it writes where the component has an outbox: each event at least once if ops are
// done, and never if they are not. It does not wait until they are published. Tell makes the events; nil makes one of each
// Set, with the value as its data and the key as its subject.
func (s *State) Transact(ctx context.Context, component string, ops []state.Op, tell func(components.Outbox) ([]Draft, error)) ([]string, error) {
	if err := checkOps(ops); err != nil {
		return nil, err
	}
	box := s.box(component)
	if !box.On() {
		return s.apply(ctx, component, ops, nil)
	}
	name := cmp.Or(component, "statestore")
	if err := s.outbox.check(name, box); err != nil {
		return nil, err
	}
	drafts := written(ops)
	if tell != nil {
		var err error
		if drafts, err = tell(box); err != nil {
			return nil, err
		}
	}
	records, err := s.outbox.records(ctx, name, box, drafts)
	if err != nil {
		return nil, err
	}
	committed := false
	defer func() {
		if !committed { // a panic as well
			s.outbox.release(records)
		}
	}()
	if n := len(ops) + len(records); n > MaxStateKeys {
		return nil, fault.New("state: transact", fault.TransactionBig, "%d operations and %d records of their events; at most %d are allowed together", len(ops), len(records), MaxStateKeys)
	}
	etags, err := s.apply(ctx, component, ops, records)
	if err != nil {
		return nil, err
	}
	committed = true
	s.outbox.hold(records)
	return etags, nil
}

// written are the events that tell of ops.
func written(ops []state.Op) []Draft {
	var drafts []Draft
	for _, op := range ops {
		if op.Kind != state.Set {
			continue
		}
		contentType := binaryType
		if json.Valid(op.Value) {
			contentType = "application/json"
		}
		drafts = append(drafts, Draft{
			Data: op.Value, ContentType: contentType, Header: call.Header{{Key: attributePart + "subject", Value: op.Key}},
		})
	}
	return drafts
}

// List returns a page of items whose keys start with prefix, and the token of the next page, "" at the end.
func (s *State) List(ctx context.Context, component, prefix string, size int, token string, keysOnly bool) (items []state.Item, next string, err error) {
	switch {
	case size < 0:
		return nil, "", fault.New("state: list", fault.BadRequest, "page_size is %d; it must not be negative", size)
	case size == 0:
		size = defaultPage
	case size > MaxStateKeys:
		size = MaxStateKeys
	}
	after := ""
	if token != "" {
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || !strings.HasPrefix(string(raw), prefix) {
			return nil, "", fault.New("state: list", fault.PageInvalid, "the page token is not one that List gave out for prefix %q", prefix)
		}
		after = string(raw)
	}
	err = s.do(ctx, component, "list", true, func(ctx context.Context, use components.Use[state.Store]) error {
		scanner, ok := use.Backend.(state.Scanner)
		if !ok {
			return unsupported("list", use.Name, use.Type)
		}
		own, from := keyPrefix(use.KeyPrefix), ""
		if after != "" {
			from = own + after
		}
		var err error
		items, err = scanner.Scan(ctx, own+prefix, from, size, keysOnly)
		for i := range items {
			items[i].Key = strings.TrimPrefix(items[i].Key, own)
		}
		return err
	})
	if len(items) == size {
		next = base64.RawURLEncoding.EncodeToString([]byte(items[size-1].Key))
	}
	items = slices.DeleteFunc(items, func(item state.Item) bool { return strings.HasPrefix(item.Key, recordMark) })
	return items, next, err
}

// Query returns a page of those items of the app's that q asks for, and the token of the next page, which is "" when there is
// none. A page may be shorter than q says: items of others, under other prefixes, are left out of it.
func (s *State) Query(ctx context.Context, component string, q state.Query) (found state.Found, err error) {
	err = s.do(ctx, component, "query", true, func(ctx context.Context, use components.Use[state.Store]) error {
		querier, ok := use.Backend.(state.Querier)
		if !ok {
			return unsupported("be queried", use.Name, use.Type)
		}
		own := keyPrefix(use.KeyPrefix)
		page := q
		for {
			if found, err = querier.Query(ctx, page); err != nil {
				return err
			}
			found.Items = slices.DeleteFunc(found.Items, func(item state.Item) bool {
				key, ours := strings.CutPrefix(item.Key, own)
				return !ours || strings.HasPrefix(key, recordMark)
			})
			for i := range found.Items {
				found.Items[i].Key = strings.TrimPrefix(found.Items[i].Key, own)
			}
			if len(found.Items) > 0 || found.Looked == 0 || found.Token == "" {
				return nil
			}
			page.Token = found.Token
		}
	})
	return found, err
}

// Watch calls fn with the present items under prefix, then with each change, until ctx ends or fn fails. It lasts as long
// as the watcher likes and so takes no turn in the component's lane.
func (s *State) Watch(ctx context.Context, component, prefix string, onlyChanges bool, fn func(state.Event) error) error {
	use, err := s.components.State(ctx, component)
	if err != nil {
		return err
	}
	defer use.Release()
	watcher, ok := use.Backend.(state.Watcher)
	if !ok {
		return unsupported("watch", use.Name, use.Type)
	}
	ctx, cancel := whileCurrent(ctx, use)
	defer cancel()
	own := keyPrefix(use.KeyPrefix)
	err = watcher.Watch(ctx, own+prefix, onlyChanges, func(e state.Event) error {
		if strings.HasPrefix(e.Item.Key, recordMark) { // of a store whose keys have no prefix
			return nil
		}
		e.Item.Key = strings.TrimPrefix(e.Item.Key, own)
		return fn(e)
	})
	return replacedOr(ctx, err)
}

func checkOps(ops []state.Op) error {
	if len(ops) > MaxStateKeys {
		return fault.New("state: apply", fault.TransactionBig, "%d operations; at most %d are allowed", len(ops), MaxStateKeys)
	}
	seen := make(map[string]struct{}, len(ops))
	for i := range ops {
		op := &ops[i]
		if err := checkKey("state: apply", op.Key); err != nil {
			return err
		}
		if _, twice := seen[op.Key]; twice {
			return fault.New("state: apply", fault.BadRequest, "key %q occurs twice; each key may occur once", op.Key)
		}
		seen[op.Key] = struct{}{}
		if op.TTL < 0 || op.TTL > maxTTL {
			return fault.New("state: set", fault.TTLInvalid, "the ttl of key %q is %s; it must be positive and at most %s", op.Key, op.TTL, maxTTL)
		}
	}
	return nil
}

func checkKey(op, key string) error {
	if strings.Contains(key, keySeparator) {
		return fault.New(op, fault.KeyInvalid, "key %q holds %q, which keys may not", key, keySeparator)
	}
	return checkName(op, "the key", key, maxKey, fault.KeyInvalid)
}

func keyPrefix(prefix string) string {
	if prefix == "" {
		return ""
	}
	return prefix + keySeparator
}

func withPrefix(prefix string, keys []string) []string {
	own := make([]string, len(keys))
	for i, key := range keys {
		own[i] = prefix + key
	}
	return own
}

// ownKey gives the key in a conflict back its own name, for programs and for people.
func ownKey(err error, prefix string) error {
	var e *fault.Error
	if prefix == "" || !errors.As(err, &e) || e.Meta["key"] == "" || e.Err == nil {
		return err
	}
	own := e.With("key", strings.TrimPrefix(e.Meta["key"], prefix))
	own.Err = errors.New(strings.ReplaceAll(e.Err.Error(), prefix, ""))
	return own
}

func unsupported(what, name, kind string) error {
	return fault.New("component "+name, fault.NotSupported, "%s cannot %s", kind, what)
}
