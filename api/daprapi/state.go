package daprapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// stateItem is one item of a request to save, delete or transact, however it came in.
type stateItem struct {
	remove                   bool
	key                      string
	value                    []byte
	etag                     *string
	metadata                 map[string]string
	concurrency, consistency string
	contentType              string
	fromJSON                 bool // the value is JSON, whatever it means
}

// checkStore says whether there is a state store of that name.
func (s *Server) checkStore(name string) error {
	switch found, any := s.component(components.StateBlock, name); {
	case !any:
		return s.noStore(http.StatusInternalServerError, codes.FailedPrecondition, "NOT_CONFIGURED", "state store "+name+" is not configured")
	case !found:
		return s.noStore(http.StatusBadRequest, codes.InvalidArgument, "NOT_FOUND", "state store "+name+" is not found")
	}
	return nil
}

// noStore is the problem of a store that there is not. The app is named over HTTP alone.
func (s *Server) noStore(http int, grpc codes.Code, what, message string) *problem {
	p := problem{http: http, grpc: grpc, tag: "ERR_STATE_STORE_" + what, message: message, details: s.stateInfo("DAPR_STATE_" + what)}
	unnamed := p
	unnamed.details = []protoadapt.MessageV1{errorInfo("DAPR_STATE_"+what, nil)}
	p.grpcWords = &unnamed
	return &p
}

func (s *Server) stateInfo(reason string) []protoadapt.MessageV1 {
	return []protoadapt.MessageV1{errorInfo(reason, map[string]string{"appID": s.o.AppID})}
}

// storeProblem is a problem with a store as a whole.
func storeProblem(http int, grpc codes.Code, tag, reason, store, message string, metadata map[string]string) *problem {
	return &problem{http: http, grpc: grpc, tag: tag, message: message, details: []protoadapt.MessageV1{
		&errdetails.ResourceInfo{ResourceType: "state", ResourceName: store}, errorInfo(reason, metadata),
	}}
}

// prefixEnd stands between a key and the prefix that its store gives it.
const prefixEnd = "||"

// illegalKey says what is wrong with a key that a prefix could be mistaken in.
func illegalKey(key string) string {
	return fmt.Sprintf("input key/keyPrefix '%s' can't contain '%s'", key, prefixEnd)
}

// checkStateKey refuses the keys that a prefix could be mistaken in.
func checkStateKey(store, key string) error {
	if !strings.Contains(key, prefixEnd) {
		return nil
	}
	message := illegalKey(key)
	p := storeProblem(http.StatusBadRequest, codes.InvalidArgument, "ERR_MALFORMED_REQUEST", "DAPR_STATE_ILLEGAL_KEY", store, message, nil)
	violation := &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: key, Description: message}}}
	p.details = append([]protoadapt.MessageV1{violation}, p.details...)
	return p
}

// overHTTP is the problem of a key over HTTP, where daprd tells it as the error of an error. Named says that the violation names
// the key.
func overHTTP(err error, named bool) error {
	inner := problemOf(err)
	p := *inner
	p.message = inner.Error()
	violation := &errdetails.BadRequest_FieldViolation{Description: p.message}
	if given, ok := inner.details[0].(*errdetails.BadRequest); ok && named {
		violation.Field = given.FieldViolations[0].Field
	}
	p.details = append([]protoadapt.MessageV1{&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{violation}}}, inner.details[1:]...)
	return &p
}

// op is an item as the block takes it, for a store of that type. An ETag always counts; without one, first-write wants the item
// not to exist.
func (i *stateItem) op(kind string) (state.Op, error) {
	op := state.Op{Kind: state.Set, Key: i.key, Value: i.value, JSON: i.fromJSON, Metadata: i.metadata}
	if i.remove {
		op.Kind, op.Value, op.JSON = state.Delete, nil, false
	}
	switch i.consistency {
	case "", "strong", "eventual": // every store of ours is linearizable per key
	default:
		return op, fmt.Errorf("unrecognized consistency model '%s'", i.consistency)
	}
	switch i.concurrency {
	case "", "first-write", "last-write":
	default:
		return op, fmt.Errorf("unrecognized concurrency model '%s'", i.concurrency)
	}
	switch {
	case i.etag != nil && *i.etag != "":
		op.Match, op.ETag = state.Exact, *i.etag
	case i.concurrency == "first-write":
		op.Match = state.Absent
	}
	if i.remove {
		return op, nil
	}
	ttl, err := blocks.ItemTTL(i.metadata)
	op.TTL = ttl
	return op, inStoresWords(kind, i.metadata, err)
}

// inStoresWords gives an error of a time to live the text of Dapr's store of that type. That in memory takes any negative one for none.
func inStoresWords(kind string, metadata map[string]string, err error) error {
	if err == nil {
		return nil
	}
	switch kind {
	case "state.in-memory":
		_, err = strconv.Atoi(metadata["ttlInSeconds"])
		return err
	case "state.redis":
		return fmt.Errorf("failed to parse ttl from metadata: %w", err)
	}
	return fmt.Errorf("error parsing TTL: %w", err)
}

// applyEach does one batch of independent writes: each is done or fails for itself. What has no condition goes in few batches,
// the rest one by one. It is measured as what, Dapr's name of it.
func (s *Server) applyEach(ctx context.Context, what, store string, items []stateItem) (err error) {
	defer s.foldMalformed(what, store, &err)
	defer func(began time.Time) { s.o.Metrics.StateDone(store, what, began, err) }(time.Now())
	var batch []state.Op
	at := map[string]int{} // in batch, by key: the last write of a key is the one that counts
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := s.o.Blocks.State.ApplyEach(ctx, store, batch)
		batch = batch[:0]
		clear(at)
		return err
	}
	var errs []error
	kind := s.typeOf(store)
	for i := range items {
		op, err := items[i].op(kind)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		switch before, twice := at[op.Key]; {
		case op.Match != state.Any:
			if twice {
				errs = append(errs, flush())
			}
			_, err = s.o.Blocks.State.Apply(ctx, store, []state.Op{op})
			errs = append(errs, err)
		case twice:
			batch[before] = op
		default:
			at[op.Key] = len(batch)
			if batch = append(batch, op); len(batch) == blocks.MaxStateKeys {
				errs = append(errs, flush())
			}
		}
	}
	return errors.Join(append(errs, flush())...)
}

// transact does all items or none. A key that occurs more than once ends as its last operation says.
// Metadata are of the request: operations have them, too, but for a time to live, which is each item's own.
func (s *Server) transact(ctx context.Context, store string, items []stateItem, metadata map[string]string, trace call.Header) (err error) {
	defer s.foldMalformed("transaction", store, &err)
	var tell func(components.Outbox) ([]blocks.Draft, error)
	if s.o.Blocks.State.HasOutbox(store) {
		stored, published, err := projections(items)
		if err != nil {
			return err
		}
		items, tell = stored, s.told(stored, published, trace)
	}
	ops := make([]state.Op, 0, len(items))
	at := map[string]int{}
	kind := s.typeOf(store)
	for i := range items {
		op, err := items[i].op(kind)
		if err != nil {
			return err
		}
		op.Metadata = inherited(op.Metadata, metadata)
		before, twice := at[op.Key]
		if !twice {
			at[op.Key] = len(ops)
			ops = append(ops, op)
			continue
		}
		first := ops[before]
		switch {
		case op.Match == state.Exact, op.Match == state.Absent && first.Kind == state.Set:
			return etagMismatch(fmt.Errorf("key %q was changed before in the same transaction", op.Key))
		default:
			op.Match, op.ETag = first.Match, first.ETag
			ops[before] = op
		}
	}
	began := time.Now()
	_, err = s.o.Blocks.State.Transact(ctx, store, ops, tell)
	s.o.Metrics.StateDone(store, "transaction", began, err)
	if fault.ReasonOf(err) == fault.OutboxUnusable {
		return s.outboxProblem(err)
	}
	return err
}

// checkTransactions says whether a store has transactions. One that cannot be opened is left to fail as with any other call.
func (s *Server) checkTransactions(ctx context.Context, store string) error {
	if able, err := s.o.Blocks.State.HasTransactions(ctx, store); able || err != nil {
		return nil
	}
	p := storeProblem(http.StatusInternalServerError, codes.Unimplemented, "ERR_STATE_STORE_NOT_SUPPORTED", "DAPR_STATE_TRANSACTIONS_NOT_SUPPORTED",
		store, fmt.Sprintf("state store %s doesn't support transactions", store), nil)
	p.details = append([]protoadapt.MessageV1{&errdetails.Help{Links: []*errdetails.Help_Link{{
		Description: "Check the list of state stores and the features they support",
		Url:         "https://docs.dapr.io/reference/components-reference/supported-state-stores/",
	}}}}, p.details...)
	return p
}

// inherited is own with those of the request that it lacks.
func inherited(own, request map[string]string) map[string]string {
	if len(request) == 0 {
		return own
	}
	all := maps.Clone(request)
	delete(all, "ttlInSeconds")
	maps.Copy(all, own)
	return all
}

// etagMismatch is the fault of a write that comes too late.
func etagMismatch(err error) error { return fault.E("state", fault.Conflict, fault.ETagMismatch, err) }

// foldMalformed makes an ETag that the store cannot have given out one that does not match, where Dapr's own store of that
// type takes any text for an ETag: all but those whose ETags are numbers to them. To Redis they are numbers of what is set alone.
func (s *Server) foldMalformed(what, store string, err *error) {
	if fault.ReasonOf(*err) != fault.ETagMalformed {
		return
	}
	switch s.typeOf(store) {
	case "state.redis":
		if what != "delete" && what != "bulk_delete" {
			return
		}
	case "state.in-memory", "state.sqlite", "state.sqlite3", "state.mysql", "state.etcd", "state.mongodb":
	default:
		return
	}
	*err = etagMismatch(*err)
}

// stateText is the text of a store's error, where an ETag is at fault with the words that Dapr's stores use.
func stateText(err error) string {
	switch fault.ReasonOf(err) {
	case fault.ETagMismatch:
		return "possible etag mismatch. error from state store: " + err.Error()
	case fault.ETagMalformed:
		return "invalid etag value: " + err.Error()
	}
	return err.Error()
}

// stateProblem is the problem of a failed write.
func stateProblem(err error, tag, format string, args ...any) error {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	status, code := http.StatusInternalServerError, codes.Internal
	switch fault.ReasonOf(err) {
	case fault.ETagMismatch:
		status, code = http.StatusConflict, codes.Aborted
	case fault.ETagMalformed:
		status, code = http.StatusBadRequest, codes.InvalidArgument
	}
	return basic(status, code, tag, format, append(slices.Clone(args), stateText(err))...).of(err).as(err, format, args...)
}

// read returns the items of keys, which may be any number, by key. No item has the empty key. Metadata are for the store.
func (s *Server) read(ctx context.Context, store string, keys []string, metadata map[string]string) (map[string]state.Item, error) {
	if slices.Contains(keys, "") {
		keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key == "" })
	}
	found := make(map[string]state.Item, len(keys))
	for len(keys) > 0 {
		n := min(len(keys), blocks.MaxStateKeys)
		items, err := s.o.Blocks.State.GetWith(ctx, store, keys[:n], metadata)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			found[item.Key] = item
		}
		keys = keys[n:]
	}
	return found, nil
}

// readBulk is read, and tells of each item by itself that no key of the store opens.
func (s *Server) readBulk(ctx context.Context, store string, keys []string, metadata map[string]string) (found map[string]state.Item, sealed map[string]error, err error) {
	found, err = s.read(ctx, store, keys, metadata)
	if fault.ReasonOf(err) != fault.ValueUndecryptable {
		return found, nil, err
	}
	found, sealed = make(map[string]state.Item, len(keys)), make(map[string]error)
	for _, key := range keys {
		one, err := s.read(ctx, store, []string{key}, metadata)
		switch {
		case fault.ReasonOf(err) == fault.ValueUndecryptable:
			sealed[key] = err
		case err != nil:
			return nil, nil, err
		default:
			maps.Copy(found, one)
		}
	}
	return found, sealed, nil
}

// query asks a store for items by their values.
func (s *Server) query(ctx context.Context, store string, q state.Query) (state.Found, error) {
	began := time.Now()
	found, err := s.o.Blocks.State.Query(ctx, store, q)
	switch {
	case err == nil:
		s.o.Metrics.StateDone(store, "query", began, nil)
		return found, nil
	case fault.ReasonOf(err) == fault.NotSupported:
		return found, storeProblem(http.StatusInternalServerError, codes.Internal, "ERR_STATE_STORE_NOT_SUPPORTED",
			"DAPR_STATE_QUERYING_NOT_SUPPORTED", store, "state store does not support querying", nil)
	}
	if w := (*components.Worded)(nil); errors.As(err, &w) {
		s.o.Metrics.StateDone(store, "query", began, err)
		return found, inWords(w)
	}
	text := err.Error()
	if known := (*fault.Error)(nil); fault.ReasonOf(err) == fault.QueryInvalid && errors.As(err, &known) {
		text = known.Err.Error()
	} else {
		s.o.Metrics.StateDone(store, "query", began, err)
	}
	return found, storeProblem(http.StatusInternalServerError, codes.Internal, "ERR_STATE_QUERY",
		"DAPR_STATE_QUERY_FAILED", store, fmt.Sprintf("state store %s query failed: %s", store, text), nil).of(err)
}

// itemMetadata is what a store tells about an item beside its value.
func itemMetadata(item state.Item) map[string]string {
	if item.Expires.IsZero() {
		return nil
	}
	return map[string]string{"ttlExpireTime": item.Expires.UTC().Format(time.RFC3339)}
}
