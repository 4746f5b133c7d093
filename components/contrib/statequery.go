package contrib

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dapr/components-contrib/state/query"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

var _ state.Querier = (*queryStore)(nil)

// queryStore is a store whose items can be queried: PostgreSQL's of version 1. It asks the library's database itself: the
// library compares the text of numbers, and loads what is there without a bound.
type queryStore struct {
	*store
	table string
	pool  *pgxpool.Pool // the library's
}

// maxPage is the most items of a page, and what one has that no limit is asked for.
const maxPage = 1000

// Query implements state.Querier.
func (s *queryStore) Query(ctx context.Context, q state.Query) (state.Found, error) {
	op := s.name + ": query"
	asked, err := parseQuery(op, q)
	if err != nil {
		return state.Found{}, err
	}
	calling, leave, err := s.life.enter(ctx, op)
	if err != nil {
		return state.Found{}, err
	}
	defer leave()
	rows, err := s.pool.Query(calling, asked.sql(s.table), asked.params...)
	if err != nil {
		return state.Found{}, s.life.failure(ctx, op, err)
	}
	items, err := pgx.CollectRows(rows, rowItem)
	if err != nil {
		return state.Found{}, s.life.failure(ctx, op, err)
	}
	found := state.Found{Items: items, Looked: len(items)}
	if asked.paged || len(items) == asked.limit {
		found.Token = strconv.FormatInt(asked.skip+int64(len(items)), 10)
	}
	return found, nil
}

// rowItem reads an item as the library lays it out: bytes are base64 in a string of JSON.
func rowItem(row pgx.CollectableRow) (state.Item, error) {
	var (
		item    state.Item
		binary  bool
		etag    uint32
		expires *time.Time
	)
	if err := row.Scan(&item.Key, &item.Value, &binary, &etag, &expires); err != nil {
		return item, err
	}
	item.Key, item.ETag = original(item.Key), strconv.FormatUint(uint64(etag), 10)
	if expires != nil {
		item.Expires = expires.UTC().Truncate(time.Second)
	}
	if !binary {
		return item, nil
	}
	var text string
	err := json.Unmarshal(item.Value, &text)
	if err == nil {
		item.Value, err = base64.StdEncoding.DecodeString(text)
	}
	return item, err
}

// search is a query in the words of PostgreSQL.
type search struct {
	where, order string
	params       []any
	limit        int
	skip         int64
	paged        bool // a limit was asked for
}

func (s *search) sql(table string) string {
	text := "SELECT key, value, isbinary, xmin AS etag, expiredate FROM " + table + " WHERE (expiredate IS NULL OR expiredate >= CURRENT_TIMESTAMP)"
	if s.where != "" {
		text += " AND " + s.where
	}
	// By key at last: pages of an order that leaves something open would lose items.
	return fmt.Sprintf("%s ORDER BY %skey LIMIT %d OFFSET %d", text, s.order, s.limit, s.skip)
}

// parseQuery reads a query and refuses what cannot be one, before the server is asked.
func parseQuery(op string, q state.Query) (*search, error) {
	var fields query.QueryFields
	err := json.Unmarshal(q.Text, &fields)
	if err == nil {
		fields.Filters = nil
		digits := json.NewDecoder(bytes.NewReader(q.Text))
		digits.UseNumber()
		err = digits.Decode(&fields)
	}
	var filter query.Filter
	if err == nil && len(fields.Filters) > 0 {
		filter, err = query.ParseFilter(fields.Filters)
	}
	if err != nil {
		return nil, fault.New(op, fault.QueryInvalid, "failed to parse JSON query body: %w", err)
	}
	if q.Token != "" {
		fields.Page.Token = q.Token
	}
	s := &search{limit: maxPage, paged: fields.Page.Limit > 0}
	if s.paged {
		s.limit = min(fields.Page.Limit, maxPage)
	}
	if err := s.read(filter, fields); err != nil {
		return nil, fault.E(op, fault.None, fault.QueryInvalid, err)
	}
	return s, nil
}

func (s *search) read(filter query.Filter, fields query.QueryFields) (err error) {
	if filter != nil {
		if s.where, err = s.condition(filter, 0); err != nil {
			return err
		}
	}
	if len(s.params) > math.MaxUint16 { // of PostgreSQL's protocol
		return fmt.Errorf("the filter has %d values, at most %d are allowed", len(s.params), math.MaxUint16)
	}
	for _, by := range fields.Sort {
		order := strings.ToUpper(by.Order)
		if order != "" && order != query.ASC && order != query.DESC {
			return fmt.Errorf("%q is no order: write %s or %s", by.Order, query.ASC, query.DESC)
		}
		f, err := fieldOf(by.Key)
		if err != nil {
			return err
		}
		s.order += strings.TrimSpace(f.value+" "+order) + ", " // jsonb's own order: numbers go by their value
	}
	if token := fields.Page.Token; token != "" {
		if s.skip, err = strconv.ParseInt(token, 10, 64); err == nil && s.skip < 0 {
			err = fmt.Errorf("%q is no token of a page", token)
		}
	}
	return err
}

// jsonField is where a value of an item is: as jsonb, and as text.
type jsonField struct{ value, text string }

// fieldOf refuses the names that end the text in which they become part of the SQL.
func fieldOf(name string) (jsonField, error) {
	if name == "" || strings.ContainsAny(name, "'\x00") {
		return jsonField{}, fmt.Errorf("%q is no name of a field: it must not be empty or hold an apostrophe", name)
	}
	parts := strings.Split(name, ".")
	last := "'" + parts[len(parts)-1] + "'"
	path := "value"
	for _, part := range parts[:len(parts)-1] {
		path += "->'" + part + "'"
	}
	return jsonField{value: path + "->" + last, text: path + "->>" + last}, nil
}

// maxConditions is how deep AND and OR may be within each other.
const maxConditions = 100

// condition is f in SQL; what it compares with becomes parameters.
func (s *search) condition(f query.Filter, depth int) (string, error) {
	if depth > maxConditions {
		return "", fmt.Errorf("the filter is nested more than %d deep", maxConditions)
	}
	switch f := f.(type) {
	case *query.EQ:
		return s.equal(f.Key, f.Val)
	case *query.NEQ:
		equal, err := s.equal(f.Key, f.Val)
		return "NOT " + equal, err
	case *query.GT:
		return s.compare("GT", f.Key, ">", f.Val)
	case *query.GTE:
		return s.compare("GTE", f.Key, ">=", f.Val)
	case *query.LT:
		return s.compare("LT", f.Key, "<", f.Val)
	case *query.LTE:
		return s.compare("LTE", f.Key, "<=", f.Val)
	case *query.IN:
		if len(f.Vals) == 0 {
			return "", fmt.Errorf("empty IN operator for key %q", f.Key)
		}
		return join(" OR ", f.Vals, func(v any) (string, error) { return s.equal(f.Key, v) })
	case *query.AND:
		return join(" AND ", f.Filters, func(f query.Filter) (string, error) { return s.condition(f, depth+1) })
	case *query.OR:
		return join(" OR ", f.Filters, func(f query.Filter) (string, error) { return s.condition(f, depth+1) })
	}
	return "", fmt.Errorf("unsupported filter type %T", f)
}

func join[T any](word string, parts []T, condition func(T) (string, error)) (string, error) {
	conditions := make([]string, len(parts))
	for i, part := range parts {
		var err error
		if conditions[i], err = condition(part); err != nil {
			return "", err
		}
	}
	return "(" + strings.Join(conditions, word) + ")", nil
}

// param adds a parameter and returns its place.
func (s *search) param(text string) string {
	s.params = append(s.params, text)
	return "$" + strconv.Itoa(len(s.params))
}

// equal compares by meaning, and with text and numbers also by text, as daprd does: 7 is "7".
func (s *search) equal(key string, value any) (string, error) {
	f, err := fieldOf(key)
	if err != nil {
		return "", err
	}
	if text, ok := value.(string); ok {
		if strings.ContainsRune(text, 0) {
			return "", fmt.Errorf("the text for %q holds NUL, which no text of PostgreSQL does", key)
		}
		return "(" + f.text + " = " + s.param(text) + ")", nil
	}
	text, err := plain(key, value)
	if err != nil {
		return "", err
	}
	at := s.param(text)
	return fmt.Sprintf("(%s = %s::text::jsonb OR %s = %s)", f.value, at, f.text, at), nil
}

// compare compares numbers: what is none is not found.
func (s *search) compare(name, key, operator string, value any) (string, error) {
	f, err := fieldOf(key)
	if err != nil {
		return "", err
	}
	switch v := value.(type) {
	case json.Number:
	case string:
		return "", fmt.Errorf("unsupported type of value %s; string type not permitted", v)
	default:
		return "", fmt.Errorf("unsupported value of %q: %s compares numbers", key, name)
	}
	text, err := plain(key, value)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("CASE WHEN jsonb_typeof(%s) = 'number' THEN (%s)::numeric %s %s::text::numeric END", f.value, f.text, operator, s.param(text)), nil
}

// plain is value in JSON that PostgreSQL can hold.
func plain(key string, value any) (string, error) {
	text, err := json.Marshal(value)
	if err == nil && !isPlainJSON(text) {
		err = fmt.Errorf("the value for %q is beyond what JSONB can hold", key)
	}
	return string(text), err
}

// original is the key whose name in the store is name.
func original(name string) string {
	if digits, ok := strings.CutPrefix(name, escaped); ok {
		if key, err := hex.DecodeString(digits); err == nil {
			return string(key)
		}
	}
	return name
}
