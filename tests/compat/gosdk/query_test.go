package gosdk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
)

// postgresURL names a PostgreSQL that the tests may use: the store of this SDK's queries. TestGoSDKQueries of tests/compat starts
// one and runs the test with it.
const postgresURL = "SIDECAST_POSTGRES"

func TestStateQueries(t *testing.T) {
	url := os.Getenv(postgresURL)
	if url == "" {
		t.Skipf("%s names no server; tests/compat runs this test with one", postgresURL)
	}
	folder := t.TempDir()
	table := time.Now().UnixNano()
	yaml := fmt.Sprintf("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: people}\nspec:\n  type: state.postgresql\n  version: v1\n  initTimeout: 1m\n  metadata:\n"+
		"  - {name: connectionString, value: %q}\n  - {name: tableName, value: sdk%d}\n  - {name: metadataTableName, value: sdkinfo%d}\n", url, table, table)
	if err := os.WriteFile(filepath.Join(folder, "people.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	c, ctx := sidecar(t, group(t), "app", "--resources-path", folder), t.Context()
	asJSON := map[string]string{"contentType": "application/json"}
	var items []*client.SetStateItem
	for name, text := range map[string]string{"ann": `{"city":"Bern","age":30}`, "bob": `{"city":"Basel","age":40}`, "eve": `{"city":"Bern","age":50}`} {
		items = append(items, &client.SetStateItem{Key: name, Value: []byte(text), Metadata: asJSON})
	}
	if err := c.SaveBulkState(ctx, "people", items...); err != nil {
		t.Fatal(err)
	}
	query := func(text string) *client.QueryResponse {
		t.Helper()
		found, err := c.QueryStateAlpha1(ctx, "people", text, nil)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	const inBern = `{"filter":{"EQ":{"city":"Bern"}},"sort":[{"key":"age","order":"DESC"}],"page":{"limit":1%s}}`
	first := query(fmt.Sprintf(inBern, ""))
	if len(first.Results) != 1 || first.Results[0].Key != "eve" || !strings.Contains(string(first.Results[0].Value), `50`) || first.Results[0].Etag == "" || first.Token == "" {
		t.Fatalf("the first page is %+v", first)
	}
	second := query(fmt.Sprintf(inBern, `,"token":"`+first.Token+`"`))
	if len(second.Results) != 1 || second.Results[0].Key != "ann" {
		t.Errorf("the second page is %+v", second)
	}
	if none := query(`{"filter":{"EQ":{"city":"Chur"}}}`); len(none.Results) != 0 {
		t.Errorf("nobody is %+v", none)
	}
	if old := query(`{"filter":{"AND":[{"GT":{"age":35}},{"IN":{"city":["Basel","Chur"]}}]}}`); len(old.Results) != 1 || old.Results[0].Key != "bob" {
		t.Errorf("found %+v", old)
	}
	// What was found can be written back by its ETag, once.
	found := first.Results[0]
	save := func() error {
		return c.SaveStateWithETag(ctx, "people", found.Key, []byte(`{"city":"Chur"}`), found.Etag, asJSON, client.WithConcurrency(client.StateConcurrencyFirstWrite))
	}
	if err := save(); err != nil {
		t.Error(err)
	}
	if err := save(); err == nil {
		t.Error("an old ETag is taken")
	}
	if _, err := c.QueryStateAlpha1(ctx, "store", `{}`, nil); err == nil || !strings.Contains(err.Error(), "state store does not support querying") {
		t.Errorf("a store that cannot be queried: %v", err)
	}
	if _, err := c.QueryStateAlpha1(ctx, "people", `{"filter":`, nil); err == nil || !strings.Contains(err.Error(), "failed to parse JSON query body") {
		t.Errorf("half a query: %v", err)
	}
}
