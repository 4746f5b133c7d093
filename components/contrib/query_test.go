//go:build linux

package contrib

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// people are what is queried.
func people(t *testing.T, s state.Store) {
	t.Helper()
	var ops []state.Op
	for i, city := range []string{"Bern", "Basel", "Bern", "Chur", "Bern"} {
		ops = append(ops, state.Op{Key: fmt.Sprint("p", i), Value: fmt.Appendf(nil, `{"city":%q,"age":%d,"name":{"first":"N%d"}}`, city, 20+i, i), JSON: true})
	}
	ops = append(ops, state.Op{Key: "\xff", Value: []byte(`{"city":"Genf","age":1}`), JSON: true}, state.Op{Key: "bytes", Value: []byte("\x00\x01")})
	if _, err := s.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
}

func keysFound(f state.Found) string {
	var keys []string
	for _, item := range f.Items {
		keys = append(keys, item.Key)
	}
	return strings.Join(keys, " ")
}

func TestPostgresQueries(t *testing.T) {
	s := openState(t, postgresV1, postgresSettings("tableName")(t))
	defer s.Close(context.Background())
	people(t, s)
	querier := s.(state.Querier)
	for text, want := range map[string]string{
		`{"filter":{"EQ":{"city":"Bern"}},"sort":[{"key":"age","order":"DESC"}]}`:                                              "p4 p2 p0",
		`{"filter":{"NEQ":{"city":"Bern"}},"sort":[{"key":"city"}]}`:                                                           "p1 p3 \xff",
		`{"filter":{"IN":{"city":["Chur","Basel"]}},"sort":[{"key":"city"}]}`:                                                  "p1 p3",
		`{"filter":{"AND":[{"EQ":{"city":"Bern"}},{"GT":{"age":20}},{"LTE":{"age":24}}]},"sort":[{"key":"age"}]}`:              "p2 p4",
		`{"filter":{"OR":[{"EQ":{"name.first":"N3"}},{"AND":[{"GTE":{"age":21}},{"LT":{"age":22}}]}]},"sort":[{"key":"age"}]}`: "p1 p3",
		`{"filter":{"EQ":{"city":"nowhere"}}}`:                                                                                 "",
	} {
		found, err := querier.Query(t.Context(), state.Query{Text: []byte(text)})
		if got := keysFound(found); err != nil || got != want || found.Token != "" {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	all, err := querier.Query(t.Context(), state.Query{Text: []byte(`{}`)})
	if err != nil || len(all.Items) != 7 || all.Looked != 7 {
		t.Fatalf("all: %v, %v", all, err)
	}
	read, err := s.Get(t.Context(), []string{"p0", "p1", "p2", "p3", "p4", "\xff", "bytes"})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range read {
		if !slices.ContainsFunc(all.Items, func(f state.Item) bool {
			return f.Key == item.Key && f.ETag == item.ETag && string(f.Value) == string(item.Value)
		}) {
			t.Errorf("%q is not found as it is read", item.Key)
		}
	}
}

func TestPostgresQueriesByPage(t *testing.T) {
	s := openState(t, postgresV1, postgresSettings("tableName")(t))
	defer s.Close(context.Background())
	people(t, s)
	var got []string
	token := ""
	for range 10 {
		found, err := s.(state.Querier).Query(t.Context(), state.Query{Text: []byte(`{"filter":{"EQ":{"city":"Bern"}},"sort":[{"key":"age"}],"page":{"limit":2}}`), Token: token})
		if err != nil {
			t.Fatal(err)
		}
		if found.Looked == 0 {
			break
		}
		got, token = append(got, keysFound(found)), found.Token
	}
	if fmt.Sprint(got) != "[p0 p2 p4]" {
		t.Errorf("got %v", got)
	}
}

func TestPostgresQueriesCompareNumbers(t *testing.T) {
	s := openState(t, postgresV1, postgresSettings("tableName")(t))
	defer s.Close(context.Background())
	var ops []state.Op
	for i, value := range []string{"9", "20", "1234567", "1.50", "-3", "12345678901234567890", `"20"`, "true", "null", `{"a":1}`, `"x"`} {
		ops = append(ops, state.Op{Key: fmt.Sprint(i), Value: []byte(`{"n":{"m":` + value + `}}`), JSON: true})
	}
	ops = append(ops, state.Op{Key: "none", Value: []byte(`{}`), JSON: true})
	if _, err := s.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	for filter, want := range map[string]string{
		`{"EQ":{"n.m":1234567}}`:                  "2",
		`{"EQ":{"n.m":1.5}}`:                      "3",
		`{"EQ":{"n.m":1.234567e6}}`:               "2",
		`{"EQ":{"n.m":12345678901234567890}}`:     "5",
		`{"EQ":{"n.m":12345678901234567891}}`:     "",
		`{"EQ":{"n.m":20}}`:                       "1 6",
		`{"EQ":{"n.m":"20"}}`:                     "1 6",
		`{"EQ":{"n.m":true}}`:                     "7",
		`{"EQ":{"n.m":null}}`:                     "8",
		`{"EQ":{"n.m":{"a":1.0}}}`:                "9",
		`{"NEQ":{"n.m":1234567}}`:                 "0 1 10 3 4 5 6 7 9",
		`{"IN":{"n.m":[1234567,1.5,"x",-3.0,7]}}`: "10 2 3 4",
		`{"GT":{"n.m":9}}`:                        "1 2 5",
		`{"GTE":{"n.m":9}}`:                       "0 1 2 5",
		`{"LT":{"n.m":9}}`:                        "3 4",
		`{"LTE":{"n.m":9.0}}`:                     "0 3 4",
		`{"OR":[{"LT":{"n.m":0}},{"AND":[{"GT":{"n.m":10}},{"LT":{"n.m":1000000}}]}]}`: "1 4",
	} {
		found, err := s.(state.Querier).Query(t.Context(), state.Query{Text: []byte(`{"filter":` + filter + `}`)})
		if got := keysFound(found); err != nil || got != want {
			t.Errorf("%s: %q, not %q; %v", filter, got, want, err)
		}
	}
	const sorted = `{"filter":{"GT":{"n.m":-100}},"sort":[{"key":"n.m","order":"%s"}]}`
	for order, want := range map[string]string{"": "4 3 0 1 2 5", "desc": "5 2 1 0 3 4"} {
		found, err := s.(state.Querier).Query(t.Context(), state.Query{Text: fmt.Appendf(nil, sorted, order)})
		if got := keysFound(found); err != nil || got != want {
			t.Errorf("sorted %s: %q, not %q; %v", order, got, want, err)
		}
	}
}

// Whatever is asked, one page is bounded, and its token leads on.
func TestPostgresQueriesHaveBoundedPages(t *testing.T) {
	s := openState(t, postgresV1, postgresSettings("tableName")(t))
	defer s.Close(context.Background())
	var ops []state.Op
	for i := range maxPage + 1 {
		ops = append(ops, state.Op{Key: fmt.Sprintf("%04d", i), Value: []byte(`{"a":1}`), JSON: true})
	}
	for part := range slices.Chunk(ops, 500) {
		if _, err := s.Apply(t.Context(), part); err != nil {
			t.Fatal(err)
		}
	}
	for text, last := range map[string]string{`{}`: "", `{"page":{"limit":-1}}`: "", `{"sort":[{"key":"a"}],"page":{"limit":1000000}}`: "1001"} {
		first, err := s.(state.Querier).Query(t.Context(), state.Query{Text: []byte(text)})
		if err != nil || len(first.Items) != maxPage || first.Token != "1000" {
			t.Errorf("%s: %d items, token %q, %v", text, len(first.Items), first.Token, err)
		}
		second, err := s.(state.Querier).Query(t.Context(), state.Query{Text: []byte(text), Token: first.Token})
		if err != nil || keysFound(second) != "1000" || second.Token != last {
			t.Errorf("%s goes on with %q, token %q, %v", text, keysFound(second), second.Token, err)
		}
	}
}

// What has expired is gone at once, not when the library cleans up.
func TestPostgresQueriesHideWhatHasExpired(t *testing.T) {
	t.Parallel()
	s := openState(t, postgresV1, postgresSettings("tableName")(t))
	defer s.Close(context.Background())
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "brief", Value: []byte(`{"a":1}`), JSON: true, TTL: time.Second}, {Key: "long", Value: []byte(`{"a":1}`), JSON: true, TTL: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	for {
		items, err := s.Get(t.Context(), []string{"brief"})
		if err != nil {
			t.Fatal(err)
		}
		if len(items) == 0 {
			break
		}
	}
	found, err := s.(state.Querier).Query(t.Context(), state.Query{Text: []byte(`{"filter":{"EQ":{"a":"1"}}}`)})
	if err != nil || keysFound(found) != "long" || found.Items[0].Expires.IsZero() {
		t.Errorf("found %v, %v", found, err)
	}
}

// A query never reaches beyond the query: the library puts names of fields into its SQL as they are.
func TestBadQueriesAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:                                       "failed to parse JSON query body",
		`[]`:                                     "failed to parse JSON query body",
		`{"filter":{"LIKE":{"a":"b"}}}`:          `unsupported filter "LIKE"`,
		`{"filter":{"GT":{"a":"b"}}}`:            "string type not permitted",
		`{"filter":{"IN":{"a":[]}}}`:             "empty IN operator",
		`{"filter":{"AND":[]}}`:                  "AND",
		`{"filter":{"EQ":{"a' OR 'a'='a":"b"}}}`: "no name of a field",
		`{"filter":{"OR":[{"LT":{"a'":1}},{"EQ":{"a":1}}]}}`: "no name of a field",
		`{"filter":{"EQ":{"":"b"}}}`:                         "no name of a field",
		`{"filter":{"GT":{"a":true}}}`:                       "GT compares numbers",
		`{"filter":{"LTE":{"a":[1]}}}`:                       "LTE compares numbers",
		`{"filter":{"EQ":{"a":"\u0000"}}}`:                   "NUL",
		`{"filter":{"IN":{"a":["\u0000"]}}}`:                 "NUL",
		`{"filter":{"EQ":{"a":1e200000}}}`:                   "failed to parse JSON query body",
		`{"filter":{"GT":{"a":1e-200000}}}`:                  "beyond what JSONB can hold",
		`{"page":{"limit":1,"token":"-1"}}`:                  "no token",
		`{"filter":` + strings.Repeat(`{"OR":[{"EQ":{"a":2}},`, 101) + `{"EQ":{"a":1}}` + strings.Repeat(`]}`, 101) + `}`: "nested more than 100 deep",
		`{"filter":{"IN":{"a":[1` + strings.Repeat(`,1`, 65535) + `]}}}`:                                                  "65536 values",
		`{"sort":[{"key":"a'--"}]}`:                "no name of a field",
		`{"sort":[{"key":"a","order":"ASC; x"}]}`:  "no order",
		`{"page":{"limit":1,"token":"a"}}`:         "invalid syntax",
		`{"page":{"limit":1,"token":"1; DELETE"}}`: "invalid syntax",
	} {
		_, err := parseQuery("query", state.Query{Text: []byte(text)})
		if fault.ReasonOf(err) != fault.QueryInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v", text, err)
		}
	}
}

func FuzzQuery(f *testing.F) {
	f.Add([]byte(`{"filter":{"AND":[{"EQ":{"a":"b"}},{"IN":{"c":[1]}}]},"sort":[{"key":"a","order":"DESC"}],"page":{"limit":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		q, err := parseQuery("query", state.Query{Text: text})
		if err != nil {
			return
		}
		if sql := q.sql("items"); strings.Count(sql, "'")%2 != 0 || q.limit < 1 || q.limit > maxPage || q.skip < 0 {
			t.Errorf("%s became %s", text, sql)
		}
	})
}
