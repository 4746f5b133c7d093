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

// What has expired is gone at once, not when the library cleans up.
func TestPostgresQueriesHideWhatHasExpired(t *testing.T) {
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
		`{"sort":[{"key":"a'--"}]}`:                          "no name of a field",
		`{"sort":[{"key":"a","order":"ASC; x"}]}`:            "no order",
		`{"page":{"limit":1,"token":"a"}}`:                   "invalid syntax",
		`{"page":{"limit":1,"token":"1; DELETE"}}`:           "invalid syntax",
	} {
		_, err := parseQuery("query", state.Query{Text: []byte(text)})
		if fault.ReasonOf(err) != fault.QueryInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzQuery(f *testing.F) {
	f.Add([]byte(`{"filter":{"AND":[{"EQ":{"a":"b"}},{"IN":{"c":[1]}}]},"sort":[{"key":"a","order":"DESC"}],"page":{"limit":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := parseQuery("query", state.Query{Text: text}); err == nil {
			for _, s := range r.Query.Sort {
				if strings.Contains(s.Key, "'") {
					t.Errorf("%s lets an apostrophe through", text)
				}
			}
		}
	})
}
