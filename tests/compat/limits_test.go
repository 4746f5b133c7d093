package compat

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// many is the body of a save of so many keys.
func many(keys int) string {
	var items []string
	for i := range keys {
		items = append(items, fmt.Sprintf(`{"key":"k%d","value":%d}`, i, i))
	}
	return "[" + strings.Join(items, ",") + "]"
}

// A store of values alone says so, and refuses what it cannot keep.
func TestAStoreWithoutETags(t *testing.T) {
	t.Parallel()
	d := startWith(t, machine.New(t), component("store", "state.memcached", "hosts: "+servers.Memcached(t)), "plain")
	d.expect(204, "", "POST", store, many(20))
	if got := d.expect(200, "7", "GET", store+"/k7", ""); got.header.Get("ETag") != "" {
		t.Errorf("there is an ETag: %v", got.header)
	}
	for _, condition := range []string{`"etag":"1"`, `"options":{"concurrency":"first-write"}`} {
		d.expect(500, `{"errorCode":"ERR_STATE_SAVE",…`, "POST", store, `[{"key":"k7","value":8,`+condition+`}]`)
	}
	d.expect(500, `{"errorCode":"ERR_STATE_DELETE",…`, "DELETE", store+"/k7", "", "If-Match: 1")
	const refused = `{"errorCode":"ERR_STATE_STORE_NOT_SUPPORTED","message":"state store store doesn't support transactions",…`
	d.expect(500, refused, "POST", store+"/transaction", `{"operations":[{"operation":"delete","request":{"key":"k7"}}]}`)
	d.expect(500, refused, "POST", store+"/transaction", "no request") // whatever is asked
	d.expect(200, "7", "GET", store+"/k7", "")
	d.expect(204, "", "DELETE", store+"/k7", "")
	d.expect(204, "", "GET", store+"/k7", "")
	if got := d.do("GET", "/v1.0/metadata", ""); !strings.Contains(got.body, `{"capabilities":["TTL"],"name":"store","type":"state.memcached","version":"v1"}`) {
		t.Errorf("the metadata is %s", got.body)
	}
}

// What a store has no room for in one transaction is saved in several, and a transaction of it is refused.
func TestAStoreWithShortTransactions(t *testing.T) {
	t.Parallel()
	d := startWith(t, machine.New(t), component("store", "state.etcd", "endpoints: "+servers.Etcd(t), "keyPrefixPath: short", "maxTxnOps: 8"), "short")
	d.expect(204, "", "POST", store, many(50))
	d.expect(200, "49", "GET", store+"/k49", "")
	var operations []string
	for i := range 9 {
		operations = append(operations, fmt.Sprintf(`{"operation":"delete","request":{"key":"k%d"}}`, i))
	}
	const refused = `{"errorCode":"ERR_STATE_STORE_TOO_MANY_TRANSACTIONS","message":"the transaction contains 9 operations, which is more than what the state store supports: 8",…`
	d.expect(400, refused, "POST", store+"/transaction", `{"operations":[`+strings.Join(operations, ",")+`]}`)
	d.expect(200, "0", "GET", store+"/k0", "")
	d.expect(204, "", "POST", store+"/transaction", `{"operations":[`+strings.Join(operations[:8], ",")+`]}`)
	d.expect(204, "", "GET", store+"/k0", "")
}

// A save is one call of the store's lane, however many operations it takes of a store that has no batches, or only short ones.
func TestASaveIsOneCall(t *testing.T) {
	t.Parallel()
	yaml := component("plain", "state.memcached", "hosts: "+servers.Memcached(t)) + component("single", "state.mongodb", "host: "+servers.MongoDB(t)) +
		component("short", "state.etcd", "endpoints: "+servers.Etcd(t), "keyPrefixPath: once", "maxTxnOps: 8") + `---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec:
  policies: {rateLimits: {twice: {limit: 2, per: 1h}}}
  targets:
    components:
      plain: {outbound: {rateLimit: twice}}
      single: {outbound: {rateLimit: twice}}
      short: {outbound: {rateLimit: twice}}
`
	d := startWith(t, machine.New(t), yaml, "saves")
	for _, name := range []string{"plain", "single", "short"} {
		d.expect(204, "", "POST", "/v1.0/state/"+name, many(50))
		d.expect(200, "49", "GET", "/v1.0/state/"+name+"/k49", "")
		if got := d.do("GET", "/v1.0/state/"+name+"/k49", ""); got.status == 200 {
			t.Errorf("%s: a third call passes where two are allowed", name)
		}
	}
}
