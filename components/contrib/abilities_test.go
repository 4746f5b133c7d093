package contrib

import (
	"slices"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/components"
)

// TestAbilitiesOfStores: before a store is opened it is told what the library says of it, as far as it is handed on.
func TestAbilitiesOfStores(t *testing.T) {
	sql := "ETAG TRANSACTIONAL TTL KEYS_LIKE"
	want := map[string]string{
		"redis v1": sql, "mysql v1": sql, "etcd v1": sql, "etcd v2": sql, "mongodb v1": sql, "sqlite v1": sql, "sqlite3 v1": sql, "postgresql v1": sql + " QUERY_API",
		"postgres v1": sql + " QUERY_API", "postgresql v2": sql, "postgres v2": sql, "cockroachdb v2": sql, "yugabyte v2": sql, "yugabytedb v2": sql,
	}
	for _, c := range All() {
		name := strings.TrimPrefix(c.Type(), "state.") + " " + c.Version()
		if c.Block() != components.StateBlock || c.Type() == "state.memcached" {
			continue
		}
		set := components.NewSet(components.Options{Known: []components.Component{c}, BuiltIn: []components.Manifest{{Name: "store", Type: c.Type(), Version: c.Version()}}})
		got := slices.Sorted(slices.Values(set.Statuses()[0].Capabilities))
		if expected := slices.Sorted(slices.Values(strings.Fields(want[name]))); !slices.Equal(got, expected) {
			t.Errorf("state.%s can do %v, want %v", name, got, expected)
		}
		if err := set.Close(t.Context()); err != nil {
			t.Error(err)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("there are no %v", want)
	}
}
