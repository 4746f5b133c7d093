package contrib

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribstate "github.com/dapr/components-contrib/state"
	postgresv1 "github.com/dapr/components-contrib/state/postgresql/v1"
	postgresv2 "github.com/dapr/components-contrib/state/postgresql/v2"
	"github.com/dapr/components-contrib/state/sqlite"
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
	sqliteState = stateOf("sqlite", "Items in a file of SQLite: one machine.", sqliteFields, sqlite.NewSQLiteStateStore, isUUID)
)

// stateOf makes a component of a store that has transactions and time to live. isETag says whether the store can have given
// a text out as an ETag.
func stateOf(product, doc string, fields []components.Field, make func(logger.Logger) contribstate.Store, isETag func(string) bool) components.Component {
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
		if asked, ok := inner.(interface {
			contribstate.Querier
			GetDB() *pgxpool.Pool
		}); ok {
			own.json = true
			return &queryStore{own, s.Values["tableName"], asked.GetDB()}, nil
		}
		return own, nil
	})
}

// closeQuietly closes what did not open: the library's own code may not be ready for that.
func closeQuietly(c interface{ Close() error }) {
	defer func() { _ = recover() }()
	_ = c.Close()
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

var _ state.Store = (*store)(nil)

// store makes a store of the library one of ours.
type store struct {
	name   string
	json   bool // what is JSON is stored as such, and not as bytes
	inner  contribstate.Store
	multi  contribstate.TransactionalStore
	isETag func(string) bool
	life   *life
}

// Apply implements state.Store.
func (s *store) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	op := s.name + ": apply"
	calling, leave, err := s.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	writes, checks, err := s.sort(op, ops)
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
	found, err := s.read(ctx, keysOf(ops))
	if err != nil {
		return err
	}
	for _, o := range ops {
		if !holds(o, found) {
			return mismatch(op, o)
		}
	}
	return nil
}

func holds(o state.Op, found map[string]state.Item) bool {
	item, exists := found[o.Key]
	switch o.Match {
	case state.Exact:
		return exists && item.ETag == o.ETag
	case state.Absent:
		return !exists
	}
	return true
}

func keysOf(ops []state.Op) []string {
	keys := make([]string, len(ops))
	for i, o := range ops {
		keys[i] = o.Key
	}
	return keys
}

// write does a single op.
func (s *store) write(ctx context.Context, op string, o state.Op) error {
	var err error
	switch request := s.request(o).(type) {
	case contribstate.SetRequest:
		err = s.inner.Set(ctx, &request)
	case contribstate.DeleteRequest:
		err = s.inner.Delete(ctx, &request)
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
		all[i] = s.request(o)
	}
	err := s.multi.Multi(ctx, &contribstate.TransactionalStateRequest{Operations: all})
	if !conflicts(err) {
		return err
	}
	conditions := slices.DeleteFunc(slices.Clone(ops), func(o state.Op) bool { return o.Match == state.Any })
	if len(conditions) == 0 {
		return err
	}
	if found, err := s.read(ctx, keysOf(conditions)); err == nil {
		for _, o := range conditions {
			if !holds(o, found) {
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

// request is the library's word for o.
func (s *store) request(o state.Op) contribstate.TransactionalStateOperation {
	var tag *string
	if o.Match == state.Exact {
		tag = &o.ETag
	}
	if o.Kind == state.Delete {
		return contribstate.DeleteRequest{Key: stored(o.Key), ETag: tag}
	}
	r := contribstate.SetRequest{Key: stored(o.Key), Value: o.Value, ETag: tag}
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
		r.Metadata = map[string]string{"ttlInSeconds": strconv.FormatInt(seconds(o.TTL), 10)}
	}
	return r
}

// seconds rounds up: an item never goes before its time.
func seconds(ttl time.Duration) int64 { return int64((ttl + time.Second - 1) / time.Second) }

// tags reads the ETags of what was set: the library does not tell them. An item that is another by now has been written
// again: its ETag is one that no write will match any more, as is that of an item that cannot be read.
func (s *store) tags(ctx context.Context, ops []state.Op) []string {
	tags := make([]string, len(ops))
	var keys []string
	for _, o := range ops {
		if o.Kind == state.Set {
			keys = append(keys, o.Key)
		}
	}
	found, err := s.read(ctx, keys)
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

// isPlainJSON says whether PostgreSQL can keep a value as JSON: it refuses text that is not UTF-8, escapes that stand for NUL or
// for half a character, numbers too long for its numeric, and nesting too deep for its stack. Those are kept as bytes.
func isPlainJSON(value []byte) bool {
	return utf8.Valid(value) && json.Valid(value) && !oddEscape.Match(value) && fitsJSONB(value)
}

var oddEscape = regexp.MustCompile(`(?i)\\u(0000|d[89a-f])`)

// maxNesting and maxDigits stay far below what a server of the smallest stack, and a float64, can hold.
const (
	maxNesting = 500
	maxDigits  = 300
)

// fitsJSONB looks at the numbers and the nesting of valid JSON.
func fitsJSONB(value []byte) bool {
	depth := 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '"':
			for i++; value[i] != '"'; i++ {
				if value[i] == '\\' {
					i++
				}
			}
		case c == '[' || c == '{':
			if depth++; depth > maxNesting {
				return false
			}
		case c == ']' || c == '}':
			depth--
		case c == '-' || c >= '0' && c <= '9':
			start := i
			for i+1 < len(value) && strings.IndexByte("+-.eE0123456789", value[i+1]) >= 0 {
				i++
			}
			if !fitsNumeric(value[start : i+1]) {
				return false
			}
		}
	}
	return true
}

// fitsNumeric says whether a number of JSON has at most maxDigits digits when it is written out.
func fitsNumeric(number []byte) bool {
	if len(number) > maxDigits {
		return false
	}
	at := bytes.IndexAny(number, "eE")
	if at < 0 {
		return true
	}
	exponent, err := strconv.Atoi(string(number[at+1:]))
	return err == nil && max(exponent, -exponent) <= maxDigits-at
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
