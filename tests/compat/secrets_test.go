package compat

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/tests/machine"
)

// secretStores are an environment with a prefix and a file of each kind.
func secretStores(flat, multi string) string {
	stores := ""
	for name, entries := range map[string]string{
		"env": "secretstores.local.env, version: v1, metadata: [{name: prefix, value: SHOP_}]", "plainenv": "secretstores.local.env, version: v1, metadata: []",
		"file":  "secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: " + flat + "}, {name: nestedSeparator, value: .}]",
		"multi": "secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: " + multi + "}, {name: multiValued, value: 'true'}]",
		"lost":  "secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: /no/such/file.json}]",
	} {
		stores += "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: " + name + "}\nspec: {type: " + entries + "}\n"
	}
	return stores
}

const (
	flatSecrets  = `{"password": "hunter2", "db": {"user": "me", "keys": ["k<1>", "k2"]}}`
	multiSecrets = `{"password": "hunter2", "db": {"user": "me", "tls": {"key": "k"}}}`
)

func TestSecrets(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Env = []string{"SHOP_DB=hunter3", "SHOP_EMPTY=", "DAPR_HIDDEN=hunter4"}
	metrics := machine.Port(t)
	d := startWith(t, m, resources+secretStores(writeFile(t, "flat.json", flatSecrets), writeFile(t, "multi.json", multiSecrets)), "app",
		"--metrics-port", metrics, "--enable-api-logging", "--log-level", "debug", "--config", configuration(t, `  tracing: {samplingRate: "1", stdout: true}`+"\n"))
	client := d.client()
	for _, c := range []struct{ store, key, want string }{
		{"env", "DB", `{"DB":"hunter3"}`}, {"env", "EMPTY", `{"EMPTY":""}`}, {"env", "NONE", `{"NONE":""}`},
		{"plainenv", "SHOP_DB", `{"SHOP_DB":"hunter3"}`}, {"plainenv", "DAPR_HIDDEN", `{"DAPR_HIDDEN":""}`},
		{"file", "password", `{"password":"hunter2"}`}, {"file", "db.keys.0", `{"db.keys.0":"k\u003c1\u003e"}`},
		{"multi", "db", `{"tls:key":"k","user":"me"}`}, {"multi", "password", `{"password":"hunter2"}`},
	} {
		d.expect(200, c.want, "GET", "/v1.0/secrets/"+c.store+"/"+c.key+"?metadata.version_id=1", "")
		if _, err := client.GetSecret(t.Context(), &runtimev1.GetSecretRequest{StoreName: c.store, Key: c.key}); err != nil {
			t.Errorf("%s of %s over gRPC: %v", c.key, c.store, err)
		}
	}
	got, err := client.GetSecret(t.Context(), &runtimev1.GetSecretRequest{StoreName: "multi", Key: "db", Metadata: map[string]string{"a": "b"}})
	if want := (&runtimev1.GetSecretResponse{Data: map[string]string{"user": "me", "tls:key": "k"}}); err != nil || !proto.Equal(got, want) {
		t.Errorf("over gRPC: %v, %v", got, err)
	}
	d.expect(200, `{"DB":{"DB":"hunter3"},"EMPTY":{"EMPTY":""}}`, "GET", "/v1.0/secrets/env/bulk", "")
	d.expect(200, `{"db.keys.0":{"db.keys.0":"k\u003c1\u003e"},"db.keys.1":{"db.keys.1":"k2"},"db.user":{"db.user":"me"},"password":{"password":"hunter2"}}`, "GET", "/v1.0/secrets/file/bulk", "")
	all, err := client.GetBulkSecret(t.Context(), &runtimev1.GetBulkSecretRequest{StoreName: "multi"})
	if want := (&runtimev1.GetBulkSecretResponse{Data: map[string]*runtimev1.SecretResponse{
		"password": {Secrets: map[string]string{"password": "hunter2"}}, "db": {Secrets: map[string]string{"user": "me", "tls:key": "k"}},
	}}); err != nil || !proto.Equal(all, want) {
		t.Errorf("over gRPC: %v, %v", all, err)
	}

	if body := d.do("GET", "/v1.0/metadata", "").body; !strings.Contains(body, `{"capabilities":["MULTIPLE_KEY_VALUES_PER_SECRET"],"name":"multi"`) ||
		!strings.Contains(body, `{"name":"file","type":"secretstores.local.file","version":"v1"}`) {
		t.Errorf("only the store with parts says that it has them: %s", body)
	}

	for _, c := range []struct {
		store, key, tag, message string
		status                   int
		code                     codes.Code
	}{
		{"nope", "k", "ERR_SECRET_STORE_NOT_FOUND", "failed finding secret store with key nope", 401, codes.InvalidArgument},
		{"store", "k", "ERR_SECRET_STORE_NOT_FOUND", "failed finding secret store with key store", 401, codes.InvalidArgument},
		{"file", "nope", "ERR_SECRET_GET", "failed getting secret with key nope from secret store file: secret nope not found", 500, codes.Internal},
		{"lost", "k", "ERR_SECRET_GET", "failed getting secret with key k from secret store lost: …", 500, codes.Internal},
		{"lost", "bulk", "ERR_SECRET_GET", "failed getting secrets from secret store lost: …", 500, codes.Internal},
	} {
		head, partly := strings.CutSuffix(c.message, "…")
		want := fmt.Sprintf(`{"errorCode":%q,"message":%q}`, c.tag, c.message)
		if partly {
			want = fmt.Sprintf(`{"errorCode":%q,"message":"%s…`, c.tag, head)
		}
		d.expect(c.status, want, "GET", "/v1.0/secrets/"+c.store+"/"+c.key, "")
		if c.key == "bulk" {
			_, err = client.GetBulkSecret(t.Context(), &runtimev1.GetBulkSecretRequest{StoreName: c.store})
		} else {
			_, err = client.GetSecret(t.Context(), &runtimev1.GetSecretRequest{StoreName: c.store, Key: c.key})
		}
		if s := status.Convert(err); s.Code() != c.code || s.Message() != c.message && (!partly || !strings.HasPrefix(s.Message(), head)) || len(s.Details()) > 0 {
			t.Errorf("%s of %s over gRPC: %v %v", c.key, c.store, err, s.Details())
		}
	}
	d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: …`, "GET", "/v1.0/secrets/file/password", "{")
	families := scrape(t, metrics)
	for labels, want := range map[string]float64{
		"component=multi operation=bulk_get success=true namespace=": 1, "component=multi operation=get success=true": 5,
		"component=file operation=get success=false": 2, "component=lost operation=bulk_get success=false": 2,
	} {
		for _, name := range []string{"dapr_component_secret_count", "dapr_component_secret_latencies"} {
			if got := value(families, name, labels); got != want {
				t.Errorf("%s %s is %v, not %v", name, labels, got, want)
			}
		}
	}
	if value(families, "dapr_http_server_request_count", "path=/v1.0/secrets/file status=500") != 1 {
		t.Error("the path of a secret is a label of its own")
	}
	machine.Until(t, "the spans of secrets are written", func() error {
		for _, span := range []string{"name=/v1.0/secrets/file/", "name=/dapr.proto.runtime.v1.Dapr/GetBulkSecret "} {
			if !strings.Contains(d.Output(), span) {
				return fmt.Errorf("there is no %s", span)
			}
		}
		return nil
	})
	if strings.Contains(d.Output(), "hunter") {
		t.Errorf("the log tells secrets: %s", d.Output())
	}

	none := startWith(t, m, resources, "none")
	none.expect(500, `{"errorCode":"ERR_SECRET_STORES_NOT_CONFIGURED","message":"secret store is not configured"}`, "GET", "/v1.0/secrets/kubernetes/x", "")
	_, err = none.client().GetBulkSecret(t.Context(), &runtimev1.GetBulkSecretRequest{StoreName: "kubernetes"})
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "secret store is not configured" {
		t.Error(err)
	}
}

func TestSecretScopes(t *testing.T) {
	t.Parallel()
	flat := writeFile(t, "flat.json", `{"a": "1", "b": "2", "c": "3"}`)
	d := startWith(t, machine.New(t), resources+secretStores(flat, flat), "app", "--config", configuration(t, `
  secrets:
    scopes:
    - {storeName: file, defaultAccess: allow, deniedSecrets: [b]}
    - {storeName: multi, defaultAccess: deny, allowedSecrets: [c]}
    - {storeName: env, defaultAccess: deny}
`))
	refused := func(store, key string) {
		t.Helper()
		message := fmt.Sprintf("access denied by policy to get %q from %q", key, store)
		d.expect(403, fmt.Sprintf(`{"errorCode":"ERR_PERMISSION_DENIED","message":%q}`, message), "GET", "/v1.0/secrets/"+store+"/"+key, "")
		_, err := d.client().GetSecret(context.Background(), &runtimev1.GetSecretRequest{StoreName: store, Key: key})
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != message {
			t.Errorf("got %v", err)
		}
	}
	d.expect(200, `{"a":"1"}`, "GET", "/v1.0/secrets/file/a", "")
	refused("file", "b")
	d.expect(200, `{"a":{"a":"1"},"c":{"c":"3"}}`, "GET", "/v1.0/secrets/file/bulk", "")
	d.expect(200, `{"c":"3"}`, "GET", "/v1.0/secrets/multi/c", "")
	refused("multi", "a")
	d.expect(200, `{"c":{"c":"3"}}`, "GET", "/v1.0/secrets/multi/bulk", "")
	refused("env", "HOME")
	d.expect(200, `{}`, "GET", "/v1.0/secrets/env/bulk", "")
}

// TestChangedSecretsAreTaken: what a file says now, the API, components and endpoints have without a restart.
func TestChangedSecretsAreTaken(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	flat := filepath.Join(folder, "secrets.json")
	say := func(key string) {
		t.Helper()
		next := filepath.Join(folder, "next.json") // as editors and Kubernetes do: whole, by renaming
		text := fmt.Sprintf(`{"key": %q, "dir": %q}`, key, filepath.Join(folder, key))
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, flat); err != nil {
			t.Fatal(err)
		}
	}
	say("one")
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Key")) }))
	yaml := resources + secretStores(flat, flat) + endpoint("ext", `auth: {secretStore: file}
spec:
  baseUrl: http://127.0.0.1:`+server+`
  headers: [{name: Key, secretKeyRef: {name: key}}]`) + `---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: kept}
auth: {secretStore: file}
spec: {type: state.badger, version: v1, metadata: [{name: dir, secretKeyRef: {name: dir}}]}
`
	d := startWith(t, machine.New(t), yaml, "app")
	d.expect(200, "one", "GET", "/v1.0/invoke/ext/method/x", "")
	d.expect(204, "", "POST", "/v1.0/state/kept", `[{"key":"where","value":1}]`)
	d.expect(200, "1", "GET", "/v1.0/state/kept/where", "")
	say("two")
	d.expect(200, `{"key":"two"}`, "GET", "/v1.0/secrets/file/key", "")
	machine.Until(t, "the endpoint gets the new secret", func() error {
		if got := d.do("GET", "/v1.0/invoke/ext/method/x", ""); got.status != 200 || got.body != "two" {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	machine.Until(t, "the component is opened with the new secret", func() error {
		if got := d.do("GET", "/v1.0/state/kept/where", ""); got.status != 204 { // another folder, in which there is nothing
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	d.expect(204, "", "POST", "/v1.0/state/kept", `[{"key":"where","value":2}]`)
}
