package contrib

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribstate "github.com/dapr/components-contrib/state"
	postgresv1 "github.com/dapr/components-contrib/state/postgresql/v1"
	postgresv2 "github.com/dapr/components-contrib/state/postgresql/v2"
	"github.com/dapr/kit/logger"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/etag"
)

// MaxValue is the longest value of every store of this package, in bytes.
const MaxValue = 32 << 20

var (
	postgresV1 = stateOf("postgresql", "Items in a table of PostgreSQL, as JSON: the layout of Dapr's version 1.",
		postgresV1Fields, postgresv1.NewPostgreSQLStateStore, isXmin)
	postgresV2 = stateOf("postgresql", "Items in a table of PostgreSQL or a database that speaks its protocol, as bytes: the layout of Dapr's version 2.",
		postgresV2Fields, postgresv2.NewPostgreSQLStateStore, isUUID).Versioned("v2")
	sqliteState = stateOf("sqlite", "Items in a file of SQLite: one machine.", sqliteFields, newSQLite, isUUID)
)

// stateOf makes a component of a store that has transactions and time to live. isETag says whether the store can have given
// a text out as an ETag.
func stateOf(product, doc string, fields func() []components.Field, make func(logger.Logger) contribstate.Store, isETag func(string) bool) components.Component {
	return components.Foreign(components.StateBlock, product, doc, fields, func(ctx context.Context, host components.Host, s components.Settings) (state.Store, error) {
		name := "state." + product
		inner := make(newLogs(host.Log, nil))
		if err := inner.Init(ctx, contribstate.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: s.Values}}); err != nil {
			closeQuietly(inner)
			return nil, badOpen(ctx, name+": open", s, err)
		}
		multi, ok := inner.(contribstate.TransactionalStore)
		if !ok {
			closeQuietly(inner)
			return nil, fault.New(name+": open", fault.Defect, "%T has no transactions", inner)
		}
		own := &store{name: name, inner: inner, multi: multi, isETag: isETag, life: newLife(host.Log)}
		if d := queryable(inner); d != nil {
			own.json = true
			return &queryStore{own, s.Values["tableName"], d.GetDB()}, nil
		}
		return own, nil
	}).Able(ableAs(make, true))
}

// ableAs tells what the stores that make makes say of themselves before they are opened. queries says that they can be
// queried where their database can.
func ableAs(make func(logger.Logger) contribstate.Store, queries bool) func() []string {
	return sync.OnceValue(func() (all []string) {
		defer func() {
			if recover() != nil { // it has to be opened for that
				all = nil
			}
		}()
		inner := make(logs{log: unheard})
		_, transacts := inner.(contribstate.TransactionalStore)
		return abilities(inner, transacts, queries && queryable(inner) != nil)
	})
}

// abilities are the features of a store, without those that are not handed on.
func abilities(inner contribstate.Store, transacts, queries bool) []string {
	all := []string{}
	for _, f := range inner.Features() {
		if f == contribstate.FeatureTransactional && !transacts || f == contribstate.FeatureQueryAPI && !queries {
			continue
		}
		all = append(all, string(f))
	}
	return all
}

// wellKnown are the abilities of the stores that this package makes itself in place of the library's.
func wellKnown() []string { return []string{"ETAG", "TRANSACTIONAL", "TTL", "KEYS_LIKE"} }

// database is a store of the library that statements of ours can query.
type database interface {
	contribstate.Querier
	GetDB() *pgxpool.Pool
}

// queryable is inner as such a store; nil for all others.
func queryable(inner contribstate.Store) database {
	d, _ := inner.(database)
	return d
}

// closeQuietly closes what did not open: the library's own code may not be ready for that.
func closeQuietly(c interface{ Close() error }) {
	defer func() { _ = recover() }()
	_ = c.Close()
}

// closeSafely closes what the library may panic over.
func closeSafely(c interface{ Close() error }) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New("the library", fault.Panicked, "panicked while it closed: %v", p)
		}
	}()
	return c.Close()
}

func isUUID(text string) bool {
	id, err := uuid.Parse(text)
	return err == nil && id.String() == text
}

// isXmin knows the numbers of PostgreSQL's transactions.
func isXmin(text string) bool {
	n, err := strconv.ParseUint(text, 10, 32)
	return err == nil && strconv.FormatUint(n, 10) == text
}

var (
	_ state.Store      = (*store)(nil)
	_ state.Transactor = (*store)(nil)

	_ components.Capable = (*store)(nil)
)

// store makes a store of the library one of ours.
type store struct {
	name   string
	json   bool // what is JSON is stored as such, and not as bytes
	inner  contribstate.Store
	multi  contribstate.TransactionalStore // nil for none
	isETag func(string) bool
	life   *life

	plain, noETags, noTTL bool // see plainState
	partitioned           bool // an item is found by its key and metadataPartition together
	most                  int  // ops of a transaction; 0: nobody says
}

// Capabilities implements components.Capable.
func (s *store) Capabilities() []string {
	return abilities(s.inner, s.Transacts(), queryable(s.inner) != nil)
}

// Transacts implements state.Transactor.
func (s *store) Transacts() bool { return s.multi != nil }

// Apply implements state.Store.
func (s *store) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	op := s.name + ": apply"
	calling, leave, err := s.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	writes, checks, err := s.sort(op, ops)
	if err == nil && s.plain {
		err = s.lacks(op, ops)
	}
	if err == nil && s.plain && len(ops) > 1 {
		err = s.together(op, ops)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case len(checks) > 0 && len(writes) > 0:
		return nil, fault.New(op, fault.NotSupported, "%s cannot check some items and write others in one transaction: make every condition one of a write", s.name)
	case len(checks) > 0:
		err = s.check(calling, op, checks)
	case len(writes) == 1:
		err = s.write(calling, op, writes[0])
	case len(writes) > 1:
		err = s.transact(calling, op, writes)
	}
	if err != nil {
		return nil, s.life.failure(ctx, op, err)
	}
	return s.tags(calling, ops), nil
}

// sort refuses what cannot be, and parts the ops that change something from those that only look. What does neither is
// left out.
func (s *store) sort(op string, ops []state.Op) (writes, checks []state.Op, err error) {
	for _, o := range ops {
		switch {
		case o.Match == state.Exact && !isSuperseded(o.ETag) && !s.isETag(o.ETag):
			return nil, nil, fault.New(op, fault.ETagMalformed, "%q is no ETag of %s", o.ETag, s.name).With("key", o.Key)
		case o.Kind == state.Set && len(o.Value) > MaxValue:
			return nil, nil, tooLarge(op, o)
		case o.Kind == state.Set && seconds(o.TTL) > math.MaxInt32:
			return nil, nil, fault.New(op, fault.TTLInvalid, "a time to live of %v is too long for %s", o.TTL, s.name).With("key", o.Key)
		}
		switch {
		case o.Kind == state.Set, o.Kind == state.Delete && o.Match != state.Absent:
			writes = append(writes, o)
		case o.Match != state.Any: // a Delete of what must not be there deletes nothing
			checks = append(checks, o)
		}
	}
	for _, o := range ops {
		if o.Match == state.Exact && isSuperseded(o.ETag) {
			return nil, nil, mismatch(op, o)
		}
	}
	return writes, checks, nil
}

func tooLarge(op string, o state.Op) error {
	return fault.New(op, fault.ValueTooLarge, "the value of %q has %d bytes, at most %d are allowed", o.Key, len(o.Value), MaxValue).With("key", o.Key)
}

func mismatch(op string, o state.Op) error {
	if o.Match == state.Absent {
		return fault.New(op, fault.ETagMismatch, "%q exists", o.Key).With("key", o.Key)
	}
	return fault.New(op, fault.ETagMismatch, "%q is not at ETag %s", o.Key, o.ETag).With("key", o.Key)
}

// check reads what the ops expect in one query.
func (s *store) check(ctx context.Context, op string, ops []state.Op) error {
	found, err := s.read(ctx, asksOf(ops))
	if err != nil {
		return err
	}
	for _, o := range ops {
		if !o.Holds(found) {
			return mismatch(op, o)
		}
	}
	return nil
}

func keysOf(ops []state.Op) []string {
	keys := make([]string, len(ops))
	for i, o := range ops {
		keys[i] = o.Key
	}
	return keys
}

// ask is what is read: an item is where its writer's metadata have it.
type ask struct {
	key      string
	metadata map[string]string
}

func asksOf(ops []state.Op) []ask {
	asks := make([]ask, len(ops))
	for i, o := range ops {
		asks[i] = ask{o.Key, o.Metadata}
	}
	return asks
}

// write does a single op.
func (s *store) write(ctx context.Context, op string, o state.Op) error {
	err := s.absentFirst(ctx, op, o)
	if err != nil {
		return err
	}
	switch request := s.request(o).(type) {
	case contribstate.SetRequest:
		err = s.inner.Set(ctx, &request)
	case contribstate.DeleteRequest:
		err = s.inner.Delete(ctx, &request)
	}
	if malformed(err) && s.plain {
		return fault.New(op, fault.ETagMalformed, "%q is no ETag of %s", o.ETag, s.name).With("key", o.Key)
	}
	if conflicts(err) {
		return mismatch(op, o)
	}
	return err
}

// transact does several ops. The library does not say which one did not hold: that is looked up.
func (s *store) transact(ctx context.Context, op string, ops []state.Op) error {
	all := make([]contribstate.TransactionalStateOperation, len(ops))
	for i, o := range ops {
		if err := s.absentFirst(ctx, op, o); err != nil {
			return err
		}
		all[i] = s.request(o)
	}
	err := s.multi.Multi(ctx, &contribstate.TransactionalStateRequest{Operations: all, Metadata: Agreed(ops)})
	if !conflicts(err) {
		return err
	}
	conditions := slices.DeleteFunc(slices.Clone(ops), func(o state.Op) bool { return o.Match == state.Any })
	if len(conditions) == 0 {
		return err
	}
	if found, err := s.read(ctx, asksOf(conditions)); err == nil {
		for _, o := range conditions {
			if !o.Holds(found) {
				return mismatch(op, o)
			}
		}
	}
	return mismatch(op, conditions[0])
}

// conflicts says whether err means that an op did not find what it expected.
func conflicts(err error) bool {
	var etagError *contribstate.ETagError
	// The second is how the library's PostgreSQL store says that a first write was not the first.
	return errors.As(err, &etagError) || err != nil && err.Error() == "no item was updated"
}

// malformed says whether err means that the store can never have given an ETag out.
func malformed(err error) bool {
	var etagError *contribstate.ETagError
	return errors.As(err, &etagError) && etagError.Kind() == contribstate.ETagInvalid
}

// request is the library's word for o.
func (s *store) request(o state.Op) contribstate.TransactionalStateOperation {
	var tag *string
	if o.Match == state.Exact {
		tag = &o.ETag
	}
	if o.Kind == state.Delete {
		return contribstate.DeleteRequest{Key: stored(o.Key), ETag: tag, Metadata: untimed(o.Metadata)}
	}
	r := contribstate.SetRequest{Key: stored(o.Key), Value: o.Value, ETag: tag, Metadata: untimed(o.Metadata)}
	if r.Value == nil || o.Value == nil {
		r.Value = []byte{}
	}
	if s.json && o.JSON && isPlainJSON(o.Value) {
		r.Value = json.RawMessage(o.Value)
	}
	if o.Match == state.Absent {
		r.Options.Concurrency = contribstate.FirstWrite
	}
	if o.TTL > 0 {
		if r.Metadata == nil {
			r.Metadata = make(map[string]string, 1)
		}
		r.Metadata[metadataTTL] = strconv.FormatInt(seconds(o.TTL), 10)
	}
	return r
}

// metadataTTL is the time to live of an item, in the metadata of its write.
const metadataTTL = "ttlInSeconds"

// untimed is metadata as the library is given it, without the time to live: that is Op.TTL.
func untimed(metadata map[string]string) map[string]string {
	own := maps.Clone(metadata)
	maps.DeleteFunc(own, func(name, _ string) bool { return strings.EqualFold(name, metadataTTL) })
	return own
}

// seconds rounds up: an item never goes before its time.
func seconds(ttl time.Duration) int64 { return int64((ttl + time.Second - 1) / time.Second) }

// tags reads the ETags of what was set: the library does not tell them. An item that is another by now has been written
// again: its ETag is one that no write will match any more, as is that of an item that cannot be read.
func (s *store) tags(ctx context.Context, ops []state.Op) []string {
	tags := make([]string, len(ops))
	if s.noETags {
		return tags
	}
	var asks []ask
	for _, o := range ops {
		if o.Kind == state.Set {
			asks = append(asks, ask{o.Key, o.Metadata})
		}
	}
	found, err := s.read(ctx, asks)
	for i, o := range ops {
		if o.Kind != state.Set {
			continue
		}
		tags[i] = superseded + etag.New().String()
		if item, ok := found[o.Key]; err == nil && ok && s.same(o, item.Value) {
			tags[i] = item.ETag
		}
	}
	return tags
}

// same says whether value is what o has set.
func (s *store) same(o state.Op, value []byte) bool {
	if bytes.Equal(o.Value, value) {
		return true
	}
	var set, read any
	return s.json && o.JSON && json.Unmarshal(o.Value, &set) == nil && json.Unmarshal(value, &read) == nil && reflect.DeepEqual(set, read)
}

// superseded starts the ETag of a write that another one has followed already.
const superseded = "superseded-"

func isSuperseded(text string) bool {
	tail, ok := strings.CutPrefix(text, superseded)
	_, valid := etag.Parse(tail)
	return ok && valid
}

// Close implements state.Store.
func (s *store) Close(ctx context.Context) error {
	return s.life.close(ctx, s.name+": close", s.inner.Close)
}

// escaped starts the name of a key that no column of text can hold: the key follows in hex.
const escaped = "sidecast-hex:"

// stored is the name of key in the store: the key itself, if it is text.
func stored(key string) string {
	if utf8.ValidString(key) && !strings.ContainsRune(key, 0) && !strings.HasPrefix(key, escaped) {
		return key
	}
	return fmt.Sprint(escaped, hex.EncodeToString([]byte(key)))
}
