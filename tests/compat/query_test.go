package compat

import (
	"fmt"
	"strings"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// queryResources are stores of a server, in tables of a number.
const queryResources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: people}
spec:
  type: state.postgresql
  version: v1
  initTimeout: 1m
  metadata:
  - {name: connectionString, value: %[1]q}
  - {name: tableName, value: people%[2]d}
  - {name: metadataTableName, value: peopleinfo%[2]d}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: sealed}
spec:
  type: state.postgresql
  version: v1
  initTimeout: 1m
  metadata:
  - {name: connectionString, value: %[1]q}
  - {name: tableName, value: sealed%[2]d}
  - {name: metadataTableName, value: sealedinfo%[2]d}
  - {name: primaryEncryptionKey, secretKeyRef: {name: QUERY_KEY}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: second}
spec:
  type: state.postgresql
  version: v2
  initTimeout: 1m
  metadata: [{name: connectionString, value: %[1]q}]
`

func TestStateQueries(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Env = append(m.Env, "QUERY_KEY=000102030405060708090a0b0c0d0e0f")
	resources := fmt.Sprintf(queryResources, servers.Postgres(t), time.Now().UnixNano())
	d, other := startWith(t, m, resources, "app"), startWith(t, m, resources, "other")
	d.expect(204, "", "POST", "/v1.0/state/people", `[
		{"key":"ann","value":{"city":"Bern","age":30}},{"key":"bob","value":{"city":"Basel","age":40}},{"key":"eve","value":{"city":"Bern","age":50}}]`)
	other.expect(204, "", "POST", "/v1.0/state/people", `[{"key":"max","value":{"city":"Bern","age":1}}]`)
	const query = "/v1.0-alpha1/state/people/query"
	ask := func(text string) string { return strings.Join(strings.Fields(text), "") }

	got := d.expect(200, `{"results":[{"key":"ann","data":{"age":30,"city":"Bern"},"etag":…`, "POST", query, ask(`{"filter":{"EQ":{"city":"Bern"}},"sort":[{"key":"age"}]}`))
	if strings.Contains(got.body, "max") || !strings.Contains(got.body, `{"key":"eve","data":{"age":50,"city":"Bern"},"etag":"`) || strings.Contains(got.body, "token") {
		t.Errorf("found %s", got.body)
	}
	if got.header.Get("Content-Type") != "application/json" {
		t.Errorf("the answer is %s", got.header.Get("Content-Type"))
	}
	d.expect(204, "", "PUT", query, `{"filter":{"EQ":{"city":"Chur"}}}`)
	// A page begins with the other app's item, which is left out.
	const pages = `{"filter":{"EQ":{"city":"Bern"}},"sort":[{"key":"age"}],"page":{"limit":1%s}}`
	if got := d.do("POST", query, fmt.Sprintf(pages, "")); !strings.Contains(got.body, `"key":"ann"`) || !strings.HasSuffix(strings.TrimSpace(got.body), `"token":"2"}`) {
		t.Errorf("the first page is %s", got.body)
	}
	d.expect(204, "", "POST", query, fmt.Sprintf(pages, `,"token":"3"`))

	c := d.client()
	found, err := c.QueryStateAlpha1(t.Context(), &runtimev1.QueryStateRequest{StoreName: "people", Query: fmt.Sprintf(pages, `,"token":"2"`)})
	if err != nil || len(found.GetResults()) != 1 || found.GetResults()[0].GetKey() != "eve" || found.GetToken() != "3" || found.GetResults()[0].GetEtag() == "" {
		t.Errorf("over gRPC: %v, %v", found, err)
	}
	// Over gRPC a value is bytes unless its content type says JSON, as with daprd.
	if _, err := c.SaveState(t.Context(), &runtimev1.SaveStateRequest{StoreName: "people", States: []*commonv1.StateItem{
		{Key: "json", Value: []byte(`{"city":"Genf"}`), Metadata: map[string]string{"contentType": "application/json"}}, {Key: "bytes", Value: []byte(`{"city":"Genf"}`)},
	}}); err != nil {
		t.Fatal(err)
	}
	found, err = c.QueryStateAlpha1(t.Context(), &runtimev1.QueryStateRequest{StoreName: "people", Query: `{"filter":{"EQ":{"city":"Genf"}}}`})
	if err != nil || len(found.GetResults()) != 1 || found.GetResults()[0].GetKey() != "json" {
		t.Errorf("of JSON and bytes were found %v, %v", found, err)
	}

	const failed = `{"errorCode":"ERR_STATE_QUERY","message":"state store people query failed: `
	const details = `"details":[{"@type":"type.googleapis.com/google.rpc.ResourceInfo","description":"","owner":"","resource_name":"people","resource_type":"state"},` +
		`{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":null,"reason":"DAPR_STATE_QUERY_FAILED"}]}`
	d.expect(500, failed+`failed to parse JSON query body: unexpected end of JSON input",`+details, "POST", query, "")
	d.expect(500, failed+`unsupported type of value x; string type not permitted",…`, "POST", query, `{"filter":{"GT":{"city":"x"}}}`)
	d.expect(500, failed+`\"a' OR 'a'='a\" is no name of a field: …`, "POST", query, `{"filter":{"EQ":{"a' OR 'a'='a":1}}}`)
	_, err = c.QueryStateAlpha1(t.Context(), &runtimev1.QueryStateRequest{StoreName: "people", Query: "{"})
	fails(t, err, codes.Internal, "DAPR_STATE_QUERY_FAILED", "state store people query failed: failed to parse JSON query body: unexpected end of JSON input")

	d.expect(500, `{"errorCode":"ERR_STATE_QUERY","message":"state store sealed query failed: cannot query encrypted store",…`, "POST", "/v1.0-alpha1/state/sealed/query", `{}`)
	d.expect(500, `{"errorCode":"ERR_STATE_STORE_NOT_SUPPORTED","message":"state store does not support querying",…`, "POST", "/v1.0-alpha1/state/second/query", `{}`)
	d.expect(400, `{"errorCode":"ERR_STATE_STORE_NOT_FOUND","message":"state store none is not found",…`, "POST", "/v1.0-alpha1/state/none/query", `{}`)

	metadata := d.do("GET", "/v1.0/metadata", "").body
	for _, want := range []string{
		`{"capabilities":["ETAG","TRANSACTIONAL","TTL","KEYS_LIKE","QUERY_API","ACTOR"],"name":"people","type":"state.postgresql","version":"v1"}`,
		`{"capabilities":["ETAG","TRANSACTIONAL","TTL","KEYS_LIKE","ACTOR"],"name":"second","type":"state.postgresql","version":"v2"}`,
	} {
		if !strings.Contains(metadata, want) {
			t.Errorf("metadata lacks %s: %s", want, metadata)
		}
	}
}
