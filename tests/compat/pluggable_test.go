package compat

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/plugintest"
)

// sockets gives the machine's sidecars a folder for sockets of pluggable components.
func sockets(t testing.TB, m *machine.Machine) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sockets") // a path that a socket can have
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kept, _ := filepath.Glob(dir + "-*.json*")
		for _, file := range append(kept, dir) {
			_ = os.RemoveAll(file)
		}
	})
	m.Env = append(m.Env, "DAPR_COMPONENTS_SOCKETS_FOLDER="+dir)
	return dir
}

// plugIn runs a program with components of every kind beside the machine's sidecars, and waits until it listens.
func plugIn(t testing.TB, m *machine.Machine, name string, without ...string) {
	t.Helper()
	plug(t, sockets(t, m), name, without...)
}

func plug(t testing.TB, dir, name string, without ...string) *plugintest.Process {
	t.Helper()
	socket := filepath.Join(dir, name+".sock")
	before, _ := os.Stat(socket)
	p := plugintest.Start(t, socket, dir+"-"+name+".json", without...)
	machine.Until(t, "the plug-in listens", func() error {
		now, err := os.Stat(socket)
		if err == nil && before != nil && os.SameFile(before, now) && before.ModTime().Equal(now.ModTime()) {
			return fmt.Errorf("its socket is that of the one before")
		}
		return err
	})
	return p
}

// awaitSubscription waits until the program has the subscription to orders: it keeps no events for those that come later.
func awaitSubscription(t testing.TB, dir, name string) {
	t.Helper()
	machine.Until(t, "the program has the subscription", func() error {
		kept, err := os.ReadFile(dir + "-" + name + ".json")
		if err == nil && !strings.Contains(string(kept), `"orders"`) {
			err = fmt.Errorf("it has %s", kept)
		}
		return err
	})
}

// pluggedApp is an app that remembers events of a topic and of a binding.
type pluggedApp struct {
	mu    sync.Mutex
	heard []string
	fails int // events of the binding that it still refuses
}

func (a *pluggedApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case r.URL.Path == "/dapr/subscribe":
		fmt.Fprint(w, `[{"pubsubname":"bus","topic":"orders","route":"/orders","metadata":{"own":"kept"}}]`)
	case r.Method == http.MethodOptions:
	case r.URL.Path == "/orders":
		var e struct {
			Data any `json:"data"`
		}
		_ = json.Unmarshal(body, &e)
		a.heard = append(a.heard, fmt.Sprint("order ", e.Data))
	case r.URL.Path == "/io":
		if a.fails > 0 {
			a.fails--
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		a.heard = append(a.heard, "event "+string(body))
		fmt.Fprint(w, `"thanks"`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (a *pluggedApp) has(all ...string) func() error {
	return func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, one := range all {
			if !slices.Contains(a.heard, one) {
				return fmt.Errorf("%q is not among %q", one, a.heard)
			}
		}
		return nil
	}
}

// plugged are components of every kind of the program called plugged.
func plugged() string {
	return component("store", "state.plugged", "keyPrefix: none") + component("bus", "pubsub.plugged", "own: setting") + component("io", "bindings.plugged", "own: setting") +
		component("safe", "secretstores.plugged") + `---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: guarded}
spec:
  type: bindings.plugged
  version: v1
  metadata:
  - {name: direction, value: output}
  - {name: pass, secretKeyRef: {name: db, key: password}}
auth: {secretStore: safe}
`
}

func TestPluggableComponents(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	dir := sockets(t, m)
	plug(t, dir, "plugged")
	plug(t, dir, "small", "PubSub", "InputBinding", "OutputBinding", "SecretStore", "QueriableStateStore", "Many")
	app := &pluggedApp{fails: 1}
	d := startWith(t, m, plugged()+component("few", "state.small"), "app", "--app-port", serve(t, app))

	d.expect(204, "", "POST", "/v1.0/state/store", `[{"key":"a","value":{"n":1}},{"key":"b","value":{"n":2},"metadata":{"ttlInSeconds":"60"}}]`)
	got := d.expect(200, `{"n":1}`, "GET", "/v1.0/state/store/a", "")
	if got.header.Get("ETag") == "" {
		t.Error("an item has no ETag")
	}
	d.expect(204, "", "POST", "/v1.0/state/store", `[{"key":"a","value":{"n":3},"etag":"`+got.header.Get("ETag")+`","options":{"concurrency":"first-write"}}]`)
	d.expect(409, `{"errorCode":"ERR_STATE_SAVE","message":"failed saving state in state store store: possible etag mismatch. error from state store: …`,
		"POST", "/v1.0/state/store", `[{"key":"a","value":1,"etag":"`+got.header.Get("ETag")+`"}]`)
	d.expect(400, `{"errorCode":"ERR_STATE_SAVE","message":"failed saving state in state store store: invalid etag value: …`,
		"POST", "/v1.0/state/store", `[{"key":"a","value":1,"etag":"nonsense"}]`)
	d.expect(204, "", "POST", "/v1.0/state/store/transaction",
		`{"operations":[{"operation":"upsert","request":{"key":"c","value":{"n":4}}},{"operation":"delete","request":{"key":"b"}}]}`)
	d.expect(204, "", "GET", "/v1.0/state/store/b", "")
	var many []string
	for n := range plugintest.FewOps + 1 {
		many = append(many, fmt.Sprintf(`{"operation":"upsert","request":{"key":"few%d","value":1}}`, n))
	}
	few := fmt.Sprintf("the transaction contains %d operations, which is more than what the state store supports: %d", plugintest.FewOps+1, plugintest.FewOps)
	if got := d.do("POST", "/v1.0/state/few/transaction", `{"operations":[`+strings.Join(many, ",")+`]}`); got.status != 400 || !strings.Contains(got.body, few) {
		t.Errorf("more operations than the store takes: %d %s", got.status, got.body)
	}
	d.expect(204, "", "POST", "/v1.0/state/few/transaction", `{"operations":[`+strings.Join(many[1:], ",")+`]}`)
	const two = `"operations":[{"operation":"upsert","request":{"key":"d","value":1}},{"operation":"upsert","request":{"key":"e","value":1}}]`
	for what, refused := range map[string]answer{
		"a write": d.do("POST", "/v1.0/state/store", `[{"key":"a","value":1,"metadata":{"refuse":"please"}}]`), "a deletion": d.do("DELETE", "/v1.0/state/store/a?metadata.refuse=please", ""),
		"a read": d.do("GET", "/v1.0/state/store/a?metadata.refuse=please", ""), "a bulk": d.do("POST", "/v1.0/state/store/bulk", `{"keys":["a","c"],"metadata":{"refuse":"please"}}`),
		"another bulk":  d.do("POST", "/v1.0/state/store/bulk?metadata.refuse=please", `{"keys":["a","c"],"metadata":{"other":"o"}}`),
		"a transaction": d.do("POST", "/v1.0/state/store/transaction", `{"metadata":{"refuse":"all"},`+two+`}`),
	} {
		if refused.status != 500 || !strings.Contains(refused.body, "the metadata says to refuse it") {
			t.Errorf("metadata of %s: %d %s", what, refused.status, refused.body)
		}
	}
	refuse := map[string]string{"refuse": "all"}
	item := &commonv1.StateItem{Key: "d", Value: []byte("1")}
	for what, ask := range map[string]func() error{
		"a read": func() error {
			_, err := d.client().GetState(t.Context(), &runtimev1.GetStateRequest{StoreName: "store", Key: "a", Metadata: refuse})
			return err
		},
		"a bulk": func() error {
			_, err := d.client().GetBulkState(t.Context(), &runtimev1.GetBulkStateRequest{StoreName: "store", Keys: []string{"a", "c"}, Metadata: refuse})
			return err
		},
		"a transaction": func() error {
			_, err := d.client().ExecuteStateTransaction(t.Context(), &runtimev1.ExecuteStateTransactionRequest{
				StoreName: "store", Metadata: refuse, Operations: []*runtimev1.TransactionalStateOperation{{OperationType: "upsert", Request: item}},
			})
			return err
		},
	} {
		if err := ask(); err == nil || !strings.Contains(err.Error(), "the metadata says to refuse it") {
			t.Errorf("metadata of %s over gRPC: %v", what, err)
		}
	}
	bulk := d.do("POST", "/v1.0/state/store/bulk", `{"keys":["a","c","none"]}`)
	if !strings.Contains(bulk.body, `{"n":3}`) || !strings.Contains(bulk.body, `{"n":4}`) {
		t.Errorf("bulk: %s", bulk.body)
	}
	if found := d.do("POST", "/v1.0-alpha1/state/store/query", `{"filter":{"EQ":{"n":4}}}`); !strings.Contains(found.body, `"key":"c"`) || strings.Contains(found.body, `"key":"a"`) {
		t.Errorf("query: %d %s", found.status, found.body)
	}
	if got := d.do("POST", "/v1.0-alpha1/state/store/query", `{"filter":{"LIKE":{"n":4}}}`); got.status != 500 || !strings.Contains(got.body, `state store store query failed: failed to parse JSON query body: unsupported filter \"LIKE\"`) {
		t.Errorf("a query with a filter that there is not: %d %s", got.status, got.body)
	}
	d.expect(418, `{"errorCode":"ERR_STATE_GET","message":"fail to get worded from state store store: api error: code = ResourceExhausted desc = come back tomorrow"}`,
		"GET", "/v1.0/state/store/"+plugintest.WordedKey, "")
	d.expect(418, `{"errorCode":"ERR_STATE_GET","message":"fail to get worded-canceled from state store store: api error: code = Canceled desc = come back tomorrow"}`,
		"GET", "/v1.0/state/store/"+plugintest.CanceledKey, "")
	_, err := d.client().GetState(t.Context(), &runtimev1.GetStateRequest{StoreName: "store", Key: plugintest.WordedKey})
	s := status.Convert(err)
	if len(s.Details()) != 1 || s.Code() != codes.ResourceExhausted || s.Message() != "come back tomorrow" || s.Details()[0].(*errdetails.ErrorInfo).GetReason() != "QUOTA" {
		t.Errorf("a worded error: %v %v", err, s.Details())
	}

	awaitSubscription(t, dir, "plugged")
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders", `7`, "Content-Type: application/json")
	d.expect(204, "", "POST", "/v1.0-alpha1/publish/bulk/bus/orders", `[{"entryId":"1","event":"x","contentType":"text/plain"},{"entryId":"2","event":"y","contentType":"text/plain"}]`)
	machine.Until(t, "the events come", app.has("order 7", "order x", "order y"))

	response := d.expect(200, "", "POST", "/v1.0/bindings/io", `{"operation":"create","data":"ping","metadata":{"own":"kept"}}`)
	if response.header.Get("Metadata.made") != "yes" {
		t.Errorf("the response has %v", response.header)
	}
	machine.Until(t, "the event comes", app.has(`event "ping"`))
	machine.Until(t, "the answer gets back", func() error {
		if got := d.do("POST", "/v1.0/bindings/io", `{"operation":"answers"}`); got.body != `["\"thanks\""]` {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	d.expect(500, `{"errorCode":"ERR_INVOKE_OUTPUT_BINDING","message":"error invoking output binding io: binding io does not support operation x. supported operations:create answers settings hang"}`,
		"POST", "/v1.0/bindings/io", `{"operation":"x"}`)
	d.expect(200, `{"direction":"output","pass":"from-the-plug-in"}`, "POST", "/v1.0/bindings/guarded", `{"operation":"settings"}`)
	d.expect(200, `{"password":"from-the-plug-in","user":"me"}`, "GET", "/v1.0/secrets/safe/db", "")
	d.expect(200, `{"db":{"password":"from-the-plug-in","user":"me"},"token":{"token":"t0k3n"}}`, "GET", "/v1.0/secrets/safe/bulk", "")
	d.expect(200, `{"version_id":"2"}`, "GET", "/v1.0/secrets/safe/said?metadata.version_id=2", "")
	d.expect(200, `{"db":{"password":"from-the-plug-in","user":"me"},"said":{"version_id":"2"},"token":{"token":"t0k3n"}}`,
		"GET", "/v1.0/secrets/safe/bulk?metadata.version_id=2", "")

	known, err := d.client().GetMetadata(t.Context(), &runtimev1.GetMetadataRequest{})
	if err != nil {
		t.Fatal(err)
	}
	can := map[string]string{}
	for _, c := range known.GetRegisteredComponents() {
		can[c.GetName()+" "+c.GetType()] = strings.Join(c.GetCapabilities(), " ")
	}
	for component, want := range map[string]string{
		"store state.plugged": "ETAG TRANSACTIONAL QUERY_API TTL ACTOR", "bus pubsub.plugged": "BULK_PUBSUB", "io bindings.plugged": "INPUT_BINDING OUTPUT_BINDING",
		"guarded bindings.plugged": "OUTPUT_BINDING", "safe secretstores.plugged": "",
	} {
		if got, ok := can[component]; !ok || got != want {
			t.Errorf("%s can do %q, want %q", component, got, want)
		}
	}
}

// TestPluggableStoresWithoutTransactions: several items are saved at once, but not in a transaction.
func TestPluggableStoresWithoutTransactions(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	plugIn(t, m, "plain", "Bulk", "TransactionalStateStore", "TransactionalStoreMultiMaxSize", "QueriableStateStore")
	d := startWith(t, m, component("store", "state.plain"), "app")
	api := d.client()
	_, err := api.SaveState(t.Context(), &runtimev1.SaveStateRequest{StoreName: "store", States: []*commonv1.StateItem{
		{Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("2")}, {Key: "c", Value: []byte("3")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := api.GetBulkState(t.Context(), &runtimev1.GetBulkStateRequest{StoreName: "store", Keys: []string{"a", "b", "c"}})
	if err != nil || len(got.GetItems()) != 3 || string(got.GetItems()[2].GetData()) != "3" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := api.DeleteBulkState(t.Context(), &runtimev1.DeleteBulkStateRequest{StoreName: "store", States: []*commonv1.StateItem{{Key: "a"}, {Key: "b"}}}); err != nil {
		t.Error(err)
	}
	d.expect(204, "", "GET", "/v1.0/state/store/a", "")
	for _, operations := range []string{ // of one or more
		`{"operation":"upsert","request":{"key":"x","value":1}}`,
		`{"operation":"upsert","request":{"key":"x","value":1}},{"operation":"upsert","request":{"key":"y","value":1}}`,
	} {
		d.expect(500, `{"errorCode":"ERR_STATE_STORE_NOT_SUPPORTED","message":"state store store doesn't support transactions",…`,
			"POST", "/v1.0/state/store/transaction", `{"operations":[`+operations+`]}`)
	}
	d.expect(204, "", "GET", "/v1.0/state/store/x", "")
	_, err = api.ExecuteStateTransaction(t.Context(), &runtimev1.ExecuteStateTransactionRequest{StoreName: "store", Operations: []*runtimev1.TransactionalStateOperation{
		{OperationType: "upsert", Request: &commonv1.StateItem{Key: "x", Value: []byte("1")}},
	}})
	if s := status.Convert(err); s.Code() != codes.Unimplemented || s.Message() != "state store store doesn't support transactions" {
		t.Errorf("a transaction over gRPC: %v", err)
	}
	if got := d.do("POST", "/v1.0-alpha1/state/store/query", `{}`); got.status != 500 || !strings.Contains(got.body, "ERR_STATE_STORE_NOT_SUPPORTED") {
		t.Errorf("a query: %d %s", got.status, got.body)
	}
}

// TestPluggableComponentsComeAndGo: a program may start after its sidecar, be killed and be started again.
func TestPluggableComponentsComeAndGo(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	dir := sockets(t, m)
	app := &pluggedApp{}
	d := startWith(t, m, plugged(), "app", "--app-port", serve(t, app))
	missing := d.do("GET", "/v1.0/state/store/a", "")
	if missing.status != 500 || !strings.Contains(missing.body, "no program in the folder "+dir+" brings it") {
		t.Errorf("without its program: %d %s", missing.status, missing.body)
	}
	save := func(key string) func() error {
		return func() error {
			if got := d.do("POST", "/v1.0/state/store", `[{"key":"`+key+`","value":"kept"}]`); got.status != 204 {
				return fmt.Errorf("%d %s", got.status, got.body)
			}
			return nil
		}
	}
	published := 0
	publish := func() error {
		if got := d.do("POST", "/v1.0/publish/bus/orders", fmt.Sprint(published), "Content-Type: application/json"); got.status != 204 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		published++
		return nil
	}

	p := plug(t, dir, "plugged")
	machine.Until(t, "the store works", save("a"))
	machine.Until(t, "the broker hands on", func() error {
		if err := publish(); err != nil {
			return err
		}
		app.mu.Lock()
		defer app.mu.Unlock()
		if len(app.heard) == 0 {
			return fmt.Errorf("nothing was heard")
		}
		return nil
	})
	first := published
	machine.Until(t, "it publishes", publish)

	p.Kill()
	machine.Until(t, "the loss is noticed", func() error {
		got := d.do("GET", "/v1.0/state/store/a", "")
		if got.status != 500 || !strings.Contains(got.body, filepath.Join(dir, "plugged.sock")) {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	p = plug(t, dir, "plugged")
	machine.Until(t, "the store works again", save("b"))
	d.expect(200, `"kept"`, "GET", "/v1.0/state/store/a", "")
	for range 20 {
		machine.Until(t, "it publishes again", publish)
	}
	p.Kill()
	plug(t, dir, "plugged")
	var all []string
	for n := first; n < published; n++ {
		all = append(all, fmt.Sprint("order ", n))
	}
	machine.Until(t, "what was acknowledged comes", app.has(all...))
	machine.Until(t, "the binding works", func() error {
		if got := d.do("POST", "/v1.0/bindings/io", `{"operation":"create","data":"late"}`); got.status != 200 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	machine.Until(t, "its event comes", app.has(`event "late"`))
	d.Terminate()
	if code := d.Wait(machine.Patience); code != 0 {
		t.Errorf("it ended with %d: %s", code, d.Output())
	}
}

// TestTypesOfPlugIns: what commands say of types that programs bring, or would.
func TestTypesOfPlugIns(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "all.yaml"), []byte(component("store", "state.plugged", "any: key")+component("other", "state.somewhere")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/tmp/dapr-components-sockets"); err != nil {
		want := "there is no component of that type, and there is no folder /tmp/dapr-components-sockets with the sockets of pluggable components"
		if r := m.Command("lint", folder); r.Code != 2 || strings.Count(r.Out, want) != 2 {
			t.Errorf("lint without a folder: %d %s", r.Code, r.Out)
		}
		if r := m.Command("daprd", "--app-id", "a", "--resources-path", folder); r.Code != 1 || !strings.Contains(r.Err, want) {
			t.Errorf("daprd without a folder: %d %s", r.Code, r.Err)
		}
	}
	sockets := sockets(t, m)
	plug(t, sockets, "plugged")
	plug(t, sockets, "redis")
	machine.Until(t, "the types are listed", func() error {
		if r := m.Command("components", "--available"); !strings.Contains(r.Out, "state.plugged") || !strings.Contains(r.Out, "secretstores.plugged") || strings.Contains(r.Out, "plugged *") {
			return fmt.Errorf("%d %s", r.Code, r.Out)
		}
		return nil
	})
	lines := strings.Split(m.Command("components", "--available").Out, "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return !strings.HasPrefix(line, "state.redis ") })
	if len(lines) != 1 || !strings.Contains(lines[0], filepath.Join(sockets, "redis.sock")) {
		t.Errorf("of a type that the sidecar has itself it lists %q", lines)
	}
	if r := m.Command("components", "describe", "state.plugged"); r.Code != 0 || !strings.Contains(r.Out, "plugged.sock") {
		t.Errorf("describe: %d %s", r.Code, r.Out)
	}
	if r := m.Command("lint", folder); r.Code != 0 || strings.Contains(r.Out, "state.plugged") || !strings.Contains(r.Out, "warning: spec.type: no program in the folder") {
		t.Errorf("lint: %d %s %s", r.Code, r.Out, r.Err)
	}
}

// TestBulksOfPlugInsWithoutPatience: an app that takes bulks is given what there is, where the program does not want it to wait.
func TestBulksOfPlugInsWithoutPatience(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	dir := sockets(t, m)
	plug(t, dir, "plugged", "Patience")
	heard := make(chan int, 2)
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dapr/subscribe":
			fmt.Fprint(w, `[{"pubsubname":"bus","topic":"orders","route":"/orders","bulkSubscribe":{"enabled":true,"maxMessagesCount":100,"maxAwaitDurationMs":3600000}}]`)
		case "/orders":
			var bulk struct {
				Entries []struct {
					EntryID string `json:"entryId"`
				} `json:"entries"`
			}
			if err := json.NewDecoder(r.Body).Decode(&bulk); err != nil {
				t.Error(err)
			}
			for _, e := range bulk.Entries {
				fmt.Fprintf(w, `{"statuses":[{"entryId":%q,"status":"SUCCESS"}]}`, e.EntryID)
			}
			heard <- len(bulk.Entries)
		}
	})
	d := startWith(t, m, component("bus", "pubsub.plugged"), "app", "--app-port", serve(t, app))
	awaitSubscription(t, dir, "plugged")
	for range 2 {
		d.expect(204, "", "POST", "/v1.0/publish/bus/orders", `7`, "Content-Type: application/json")
		if got := receive(t, heard); got != 1 {
			t.Errorf("a bulk of %d events", got)
		}
	}
}

// TestRetriesOfPublishesByCode: what a program refuses to store is tried again as the policy has it for the protocol of whoever
// publishes.
func TestRetriesOfPublishesByCode(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	plugIn(t, m, "plugged")
	policy := `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    retries:
      web: {policy: constant, duration: 1ms, maxRetries: 2, matching: {httpStatusCodes: "429,500-599"}}
      rpc: {policy: constant, duration: 1ms, maxRetries: 2, matching: {gRPCStatusCodes: "8,14"}}
      all: {policy: constant, duration: 1ms, maxRetries: 2}
  targets:
    components:
      web: {outbound: {retry: web}}
      rpc: {outbound: {retry: rpc}}
      all: {outbound: {retry: all}}
`
	resources := policy
	for _, name := range []string{"web", "rpc", "all"} {
		resources += "---\n" + component(name, "pubsub.plugged")
	}
	d := startWith(t, m, resources, "app")
	client := d.client()
	for i, c := range []struct {
		pubsub         string
		code           codes.Code
		overWeb, byRPC int
	}{
		{"web", codes.Unavailable, 3, 3},
		{"web", codes.ResourceExhausted, 3, 3},
		{"web", codes.FailedPrecondition, 1, 3},
		{"rpc", codes.Unavailable, 3, 3},
		{"rpc", codes.FailedPrecondition, 3, 1},
		{"rpc", codes.Unknown, 3, 1},
		{"all", codes.FailedPrecondition, 3, 3},
	} {
		code := fmt.Sprint(int(c.code))
		tried := func(topic string, times int, said string) {
			t.Helper()
			if !strings.Contains(said, fmt.Sprintf("try %d of %s", times, topic)) {
				t.Errorf("%s by %s, %v: not %d tries: %s", topic, c.pubsub, c.code, times, said)
			}
		}
		d.expect(204, "", "POST", "/v1.0/publish/"+c.pubsub+"/fine", `1`) // or the breaker opens
		topic := fmt.Sprint("web", i)
		r := d.do("POST", "/v1.0/publish/"+c.pubsub+"/"+topic+"?metadata.code="+code, `1`)
		tried(topic, c.overWeb, r.body)
		topic = fmt.Sprint("webs", i)
		r = d.do("POST", "/v1.0-alpha1/publish/bulk/"+c.pubsub+"/"+topic,
			`[{"entryId":"1","event":1,"contentType":"application/json","metadata":{"code":"`+code+`"}}]`, "Content-Type: application/json")
		tried(topic, c.overWeb, r.body)
		topic = fmt.Sprint("rpc", i)
		md := map[string]string{"code": code}
		_, err := client.PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: c.pubsub, Topic: topic, Data: []byte("1"), Metadata: md})
		tried(topic, c.byRPC, fmt.Sprint(err))
		topic = fmt.Sprint("rpcs", i)
		answer, err := client.BulkPublishEvent(t.Context(), &runtimev1.BulkPublishRequest{
			PubsubName: c.pubsub, Topic: topic,
			Entries: []*runtimev1.BulkPublishRequestEntry{{EntryId: "1", Event: []byte("1"), ContentType: "text/plain", Metadata: md}},
		})
		tried(topic, c.byRPC, fmt.Sprint(answer, err))
	}
}
