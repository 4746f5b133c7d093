package compat

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/sidecast/sidecast/tests/machine"
)

// Two components on one table: what one encrypts, the other shows as it is stored.
const sealedResources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: %[1]q}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: sealed}
spec:
  type: state.sqlite
  version: v1
  metadata:
  - {name: connectionString, value: %[2]q}
  - {name: keyPrefix, value: shared}
  - {name: primaryEncryptionKey, secretKeyRef: {name: billing}}
  - {name: secondaryEncryptionKey, secretKeyRef: {name: earlier}}
auth: {secretStore: vault}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: stored}
spec:
  type: state.sqlite
  version: v1
  metadata:
  - {name: connectionString, value: %[2]q}
  - {name: keyPrefix, value: shared}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: broken}
spec:
  type: state.in-memory
  version: v1
  metadata:
  - {name: primaryEncryptionKey, secretKeyRef: {name: short}}
auth: {secretStore: vault}
`

func TestStateIsEncrypted(t *testing.T) {
	t.Parallel()
	const billing, earlier, short = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "a00102030405060708090a0b0c0d0e0f", "abcdef1234567890"
	dir := t.TempDir()
	secrets := filepath.Join(dir, "secrets.json")
	if err := os.WriteFile(secrets, fmt.Appendf(nil, `{"billing":%q,"earlier":%q,"short":%q}`, billing, earlier, short), 0o600); err != nil {
		t.Fatal(err)
	}
	m := machine.New(t)
	d := startWith(t, m, fmt.Sprintf(sealedResources, secrets, filepath.Join(dir, "state.db")), "app")
	c := d.client()
	stored := func(key string) string { return d.do("GET", "/v1.0/state/stored/"+key, "").body }
	sealed := func(key string) {
		t.Helper()
		if text := stored(key); !strings.HasSuffix(text, "||billing") || strings.Contains(text, "secret") {
			t.Errorf("%s is stored as %s", key, text)
		}
	}

	d.expect(204, "", "POST", "/v1.0/state/sealed", `[{"key":"a","value":{"secret":1}},{"key":"b","value":"secret"}]`)
	d.expect(200, `{"secret":1}`, "GET", "/v1.0/state/sealed/a", "")
	d.expect(200, `"secret"`, "GET", "/v1.0/state/sealed/b", "")
	if _, err := c.SaveState(t.Context(), &runtimev1.SaveStateRequest{StoreName: "sealed", States: []*commonv1.StateItem{{Key: "c", Value: []byte("secret")}}}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetState(t.Context(), &runtimev1.GetStateRequest{StoreName: "sealed", Key: "c"}); err != nil || string(got.GetData()) != "secret" || got.GetEtag() == "" {
		t.Errorf("over gRPC: %v, %v", got, err)
	}
	d.expect(204, "", "POST", "/v1.0/state/sealed/transaction", `{"operations":[{"operation":"upsert","request":{"key":"d","value":"secret"}},{"operation":"delete","request":{"key":"b"}}]}`)
	d.expect(204, "", "GET", "/v1.0/state/sealed/b", "")
	for _, key := range []string{"a", "c", "d"} {
		sealed(key)
	}
	etag := d.do("GET", "/v1.0/state/sealed/a", "").header.Get("ETag")
	d.expect(204, "", "POST", "/v1.0/state/sealed", fmt.Sprintf(`[{"key":"a","value":2,"etag":%q}]`, etag))
	if got := d.do("POST", "/v1.0/state/sealed", fmt.Sprintf(`[{"key":"a","value":3,"etag":%q}]`, etag)); got.status != 409 {
		t.Errorf("an ETag of the past: %d %s", got.status, got.body)
	}

	// The native door, whose values are the same.
	client := m.Await("app", d.Process).Client()
	if item, _, err := client.State("sealed").Get(t.Context(), "d"); err != nil || string(item.Value) != `"secret"` {
		t.Errorf("natively: %v, %v", item, err)
	}

	// What a daprd wrote, and what nobody can read.
	d.expect(204, "", "POST", "/v1.0/state/stored", `[{"key":"plain","value":1}]`)
	for key, text := range map[string]string{
		"daprd":   "jUoyWbLRQV9pxo9JlkCFz/W8GPqVU4R8j51n7OXHTMU3tW8=||billing",
		"foreign": "jUoyWbLRQV9pxo9JlkCFz/W8GPqVU4R8j51n7OXHTMU3tW8=||other",
	} {
		if _, err := c.SaveState(t.Context(), &runtimev1.SaveStateRequest{StoreName: "stored", States: []*commonv1.StateItem{{Key: key, Value: []byte(text)}}}); err != nil {
			t.Fatal(err)
		}
	}
	d.expect(200, `{"a":1}`, "GET", "/v1.0/state/sealed/daprd", "")
	d.expect(500, `{"errorCode":"ERR_STATE_GET","message":"fail to get foreign from state store sealed: …`, "GET", "/v1.0/state/sealed/foreign", "")
	d.expect(500, `{"errorCode":"ERR_STATE_GET","message":"fail to get plain from state store sealed: …`, "GET", "/v1.0/state/sealed/plain", "")
	bulk := d.do("POST", "/v1.0/state/sealed/bulk", `{"keys":["daprd","foreign","none"]}`)
	if !strings.Contains(bulk.body, `{"key":"daprd","data":{"a":1},"etag":`) || !strings.Contains(bulk.body, `{"key":"foreign","error":"`) || !strings.HasSuffix(strings.TrimSpace(bulk.body), `{"key":"none"}]`) {
		t.Errorf("in bulk: %s", bulk.body)
	}
	items, err := c.GetBulkState(t.Context(), &runtimev1.GetBulkStateRequest{StoreName: "sealed", Keys: []string{"foreign", "daprd"}})
	if err != nil || items.GetItems()[0].GetError() == "" || string(items.GetItems()[1].GetData()) != `{"a":1}` {
		t.Errorf("in bulk over gRPC: %v, %v", items, err)
	}

	broken := d.do("GET", "/v1.0/state/broken/k", "")
	if broken.status != 500 || !strings.Contains(broken.body, "spec.metadata.primaryEncryptionKey: the encryption key has 64 bits") {
		t.Errorf("a key of the wrong length: %d %s", broken.status, broken.body)
	}
	for _, key := range []string{billing, earlier, short} {
		if strings.Contains(d.Output()+broken.body, key) {
			t.Error("a key is shown")
		}
	}
}
