package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/tests/machine"
)

// document is a file that changes while a sidecar runs.
type document struct {
	t    testing.TB
	file string
}

func newDocument(t testing.TB, text string) document {
	t.Helper()
	return document{t, writeFile(t, "changing.yaml", text)}
}

// write replaces the file as a whole, as editors and deployments do.
func (d document) write(text string) {
	d.t.Helper()
	if err := errors.Join(os.WriteFile(d.file+".new", []byte(text), 0o600), os.Rename(d.file+".new", d.file)); err != nil {
		d.t.Fatal(err)
	}
}

// config replaces the file by a Configuration of that spec.
func (d document) config(spec string) {
	d.t.Helper()
	d.write("apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: config}\nspec:\n" + spec)
}

// until waits for an answer.
func (d *daprd) until(status int, body, method, path, sent string, fields ...string) {
	d.t.Helper()
	machine.Until(d.t, method+" "+path, func() error {
		if got := d.do(method, path, sent, fields...); got.status != status || !strings.Contains(got.body, body) {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
}

// load makes the same requests over and over, each of which must have that status, until stop, which tells when there were
// none.
func (d *daprd) load(status int, method, path, body string) (stop func()) {
	ended := make(chan struct{})
	var working sync.WaitGroup
	var calls atomic.Int64
	for range 4 {
		working.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				r, _ := http.NewRequest(method, "http://"+d.http+path, strings.NewReader(body))
				response, err := http.DefaultClient.Do(r)
				if err != nil {
					d.t.Errorf("%s %s: %v", method, path, err)
					return
				}
				text, err := io.ReadAll(response.Body)
				response.Body.Close()
				if calls.Add(1); err != nil || response.StatusCode != status {
					d.t.Errorf("%s %s: %d %s %v", method, path, response.StatusCode, text, err)
					return
				}
				time.Sleep(time.Millisecond) // two processors are shared by all
			}
		})
	}
	return func() {
		d.t.Helper()
		close(ended)
		working.Wait()
		if calls.Load() == 0 {
			d.t.Errorf("%s %s: no call was made", method, path)
		}
	}
}

// slow is an app whose calls of /slow last until they are let go.
func slow() (app http.Handler, began, let chan struct{}) {
	began, let = make(chan struct{}, 10), make(chan struct{})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			began <- struct{}{}
			<-let
		}
		echo(w, r)
	}), began, let
}

func TestAConfigurationIsReadAgain(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	app, began, let := slow()
	rules := newDocument(t, "")
	rules.config("  accessControl: {defaultAction: allow}\n")
	server := start(t, m, "server", "--app-port", serve(t, app), "--config", rules.file)
	server.await("/v1.0/healthz")
	own := newDocument(t, "")
	own.config("  {}\n")
	vault := "\n---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: vault}\nspec: {type: secretstores.local.env, version: v1, metadata: []}\n"
	client := startWith(t, m, resources+vault, "client", "--config", own.file)
	const call = "/v1.0/invoke/server/method/"
	client.until(200, "", "GET", call+"x", "")
	stop := client.load(204, "GET", "/v1.0/state/store/k", "")
	held := make(chan answer, 1)
	go func() { held <- client.do("POST", call+"slow", "whole") }()
	<-began

	// Who may call, and from which trust domain.
	policy := func(domain string) string {
		return "  accessControl: {defaultAction: deny, policies: [{appId: client, defaultAction: allow, trustDomain: " + domain + ", namespace: default}]}\n"
	}
	rules.config("  accessControl: {defaultAction: deny}\n")
	client.until(403, "access control policy has denied", "GET", call+"x", "")
	rules.config(policy("public"))
	client.until(200, "", "GET", call+"x", "")
	rules.config(policy("shop"))
	client.until(403, "spiffe://public/", "GET", call+"x", "")
	own.config("  accessControl: {trustDomain: shop}\n")
	client.until(200, "", "GET", call+"x", "")

	// Secrets.
	client.until(200, "PATH", "GET", "/v1.0/secrets/vault/PATH", "")
	own.config("  accessControl: {trustDomain: shop}\n  secrets: {scopes: [{storeName: vault, defaultAccess: deny}]}\n")
	client.until(403, "ERR_PERMISSION_DENIED", "GET", "/v1.0/secrets/vault/PATH", "")

	// Features, logging, components.
	own.config("  accessControl: {trustDomain: shop}\n  features: [{name: New, enabled: true}]\n  components: {deny: [lock.in-memory]}\n  logging: {apiLogging: {enabled: true, obfuscateURLs: true}}\n")
	client.until(200, `"New"`, "GET", "/v1.0/metadata", "")
	if got := client.do("GET", "/v1.0/metadata", ""); strings.Contains(got.body, "lock.in-memory") {
		t.Errorf("a denied component is there: %s", got.body)
	}
	client.WaitFor(`HTTP API Called.*method=GetMetadata`, machine.Patience)

	// What takes a restart is told.
	own.config("  accessControl: {trustDomain: shop}\n  metrics: {recordErrorCodes: true}\n")
	client.WaitFor("whether metrics are served, and how .* next start", machine.Patience)

	// Parts of the API, over both protocols.
	own.config("  accessControl: {trustDomain: shop}\n  api: {denied: [{name: metadata, version: v1, protocol: http}, {name: metadata, version: v1, protocol: grpc}]}\n")
	client.until(404, "", "GET", "/v1.0/metadata", "")
	if _, err := client.client().GetMetadata(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "Not Implemented") {
		t.Errorf("got %v", err)
	}
	own.config("  accessControl: {trustDomain: shop}\n")
	client.until(200, "lock.in-memory", "GET", "/v1.0/metadata", "")

	close(let)
	if got := <-held; got.status != 200 || got.body != "whole" {
		t.Errorf("the call that ran meanwhile: %d %s", got.status, got.body)
	}
	stop()
}

func TestTracesGoWhereAChangedConfigurationSays(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	first, one := collector(t)
	second, two := collector(t)
	app, began, let := slow()
	start(t, m, "server", "--app-port", serve(t, app)).await("/v1.0/healthz")
	file := newDocument(t, "")
	tracing := func(url string, rate int) {
		file.config(fmt.Sprintf("  tracing: {samplingRate: %d, zipkin: {endpointAddress: %q}}\n", rate, url))
	}
	tracing(first, 1)
	client := start(t, m, "client", "--config", file.file)
	client.until(200, "", "GET", "/v1.0/invoke/server/method/x", "")
	held := make(chan answer, 1)
	go func() { held <- client.do("GET", "/v1.0/invoke/server/method/slow", "") }()
	<-began
	has := func(spans chan map[string]any, name string) {
		t.Helper()
		for deadline := time.After(machine.Patience); ; {
			select {
			case s := <-spans:
				if s["name"] == name {
					return
				}
			case <-deadline:
				t.Fatalf("the collector does not get %s", name)
			}
		}
	}
	tracing(second, 1)
	client.WaitFor("were read again", machine.Patience)
	client.expect(200, "…", "GET", "/v1.0/invoke/server/method/other", "")
	has(two, "calllocal/server/other")
	close(let)
	if got := <-held; got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
	has(one, "calllocal/server/slow") // began when the first one was in use
	tracing(second, 0)
	machine.Until(t, "no spans", func() error {
		const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		got := client.do("GET", "/v1.0/invoke/server/method/x", "", "traceparent: "+parent)
		if got.header.Get("X-Trace") != parent {
			return fmt.Errorf("the app got the trace %s", got.header.Get("X-Trace"))
		}
		return nil
	})
}

func TestAWrongChangeIsRefusedAsAWhole(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	file := newDocument(t, "")
	file.config("  features: [{name: One, enabled: true}]\n")
	d := start(t, m, "app", "--config", file.file)
	stop := d.load(204, "GET", "/v1.0/state/store/k", "")
	file.config("  features: [{name: Two, enabled: true}]\n  tracing: {samplingrates: 1}\n")
	mistake := file.file + ":6: spec.tracing.samplingrates: there is no such key here"
	line := d.WaitFor("not taken into use", machine.Patience)
	if !strings.Contains(line, mistake) {
		t.Errorf("the log has %s", line)
	}
	d.until(200, mistake, "GET", "/v1.0/metadata", "")
	if got := d.do("GET", "/v1.0/metadata", "").body; !strings.Contains(got, `"One"`) || strings.Contains(got, `"Two"`) {
		t.Errorf("a part of the change is in use: %s", got)
	}
	if out := m.Must("status"); !strings.Contains(out, "! app: changed files are not taken into use") || !strings.Contains(out, mistake) {
		t.Errorf("status says %s", out)
	}
	// A mistake anywhere keeps everything back; without it all is taken.
	file.config("  features: [{name: Two, enabled: true}]\n---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: new}\nspec: {type: state.nowhere, version: v1, metadata: []}\n")
	d.until(200, "there is no component of that type", "GET", "/v1.0/metadata", "")
	if got := d.do("GET", "/v1.0/metadata", "").body; strings.Contains(got, `"Two"`) {
		t.Errorf("a part of the change is in use: %s", got)
	}
	file.config("  features: [{name: Two, enabled: true}]\n")
	d.until(200, `"Two"`, "GET", "/v1.0/metadata", "")
	if got := d.do("GET", "/v1.0/metadata", "").body; strings.Contains(got, "not taken into use") {
		t.Errorf("what was mended is still told: %s", got)
	}
	if out := m.Must("status"); strings.Contains(out, "not taken into use") {
		t.Errorf("status says %s", out)
	}
	stop()
}

func TestSIGHUPReadsFilesAgain(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	file := newDocument(t, "")
	file.config("  features: [{name: HotReload, enabled: false}, {name: One, enabled: true}]\n")
	d := start(t, m, "app", "--config", file.file)
	hangUp := func() {
		t.Helper()
		process, err := os.FindProcess(d.PID())
		if err == nil {
			err = process.Signal(syscall.SIGHUP)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	stop := d.load(204, "GET", "/v1.0/state/store/k", "")
	file.config("  features: [{name: HotReload, enabled: false}, {name: Two, enabled: true}]\n")
	time.Sleep(500 * time.Millisecond) // longer than a change takes where it is followed
	if got := d.do("GET", "/v1.0/metadata", "").body; !strings.Contains(got, `"One"`) {
		t.Errorf("a change was followed though HotReload is off: %s", got)
	}
	hangUp()
	d.until(200, `"Two"`, "GET", "/v1.0/metadata", "")
	file.config("  features: [{name: Three, enabled: true}]\n")
	hangUp()
	d.until(200, `"Three"`, "GET", "/v1.0/metadata", "")
	file.config("  features: [{name: Four, enabled: true}]\n") // followed from now on
	d.until(200, `"Four"`, "GET", "/v1.0/metadata", "")
	stop()
}

func TestComponentsAreReadAgainWhileCallsRun(t *testing.T) {
	t.Parallel()
	file := newDocument(t, component("changing", "state.in-memory"))
	d := start(t, machine.New(t), "app", "--resources-path", file.file)
	others := d.load(204, "GET", "/v1.0/state/store/k", "")
	same := d.load(204, "GET", "/v1.0/state/changing/k", "")
	file.write(component("changing", "state.in-memory") + component("added", "state.in-memory"))
	d.until(204, "", "GET", "/v1.0/state/added/k", "")
	d.expect(204, "", "POST", "/v1.0/state/changing", `[{"key":"k2","value":1}]`)
	file.write(component("changing", "state.in-memory", "keyPrefix: none") + component("added", "state.in-memory"))
	d.until(204, "", "GET", "/v1.0/state/changing/k2", "") // in memory: a new one is empty
	file.write(component("changing", "state.in-memory", "keyPrefix: none") + strings.Replace(component("added", "state.in-memory"), "spec:", "scopes: [another]\nspec:", 1))
	d.until(400, "ERR_STATE_STORE_NOT_FOUND", "GET", "/v1.0/state/added/k", "")
	same()
	file.write("")
	d.until(400, "ERR_STATE_STORE_NOT_FOUND", "GET", "/v1.0/state/changing/k", "")
	others()
}

func TestSubscriptionsAreReadAgainWhileEventsCome(t *testing.T) {
	t.Parallel()
	v1 := func(topic, route, more string) string {
		return "---\napiVersion: dapr.io/v1alpha1\nkind: Subscription\nmetadata: {name: " + topic + "}\nspec: {pubsubname: bus, topic: " + topic + ", route: " + route + "}\n" + more
	}
	v2 := func(topic, route string) string {
		return "---\napiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: " + topic + "}\nspec: {pubsubname: bus, topic: " + topic + ", routes: {rules: [{match: event.type == \"a\", path: " + route + "}], default: /default}}\n"
	}
	app := newSubscriber("[]")
	steady := v1("steady", "/steady", "")
	file := newDocument(t, steady)
	d := start(t, machine.New(t), "app", "--app-port", serve(t, app), "--resources-path", file.file)
	d.subscribed(1)
	var published atomic.Int64
	ended := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if got := d.do("POST", "/v1.0/publish/bus/steady", fmt.Sprint(published.Add(1))); got.status != 204 {
				t.Errorf("publish: %d %s", got.status, got.body)
			}
		}
	})
	came := map[any]bool{} // of the steady topic
	expect := func(topic, path string) {
		t.Helper()
		d.expect(204, "", "POST", "/v1.0/publish/bus/"+topic, "x")
		for {
			got := app.next(t)
			if got.path != "/steady" {
				if got.path != path {
					t.Errorf("%s came to %s", topic, got.path)
				}
				return
			}
			came[got.event["data"]] = true
		}
	}
	routed := func(path string) {
		t.Helper()
		d.until(200, `"path":"`+path+`"`, "GET", "/v1.0/metadata", "")
	}
	file.write(steady + v1("one", "/one", "") + v2("two", "/two"))
	d.subscribed(3)
	expect("one", "/one")
	expect("two?metadata.cloudevent.type=a", "/two")
	file.write(steady + v1("one", "/uno", "") + v2("two", "/due"))
	routed("/uno")
	routed("/due")
	expect("one", "/uno")
	expect("two?metadata.cloudevent.type=a", "/due")
	expect("two", "/default")
	file.write(steady + v1("one", "/uno", "scopes: [another]\n"))
	d.subscribed(1)
	close(ended)
	publishing.Wait()
	for len(came) < int(published.Load()) {
		got := app.next(t)
		if got.path != "/steady" {
			t.Errorf("an event came to %s", got.path)
		}
		came[got.event["data"]] = true
	}
}

func TestPoliciesAreReadAgainWhileCallsRun(t *testing.T) {
	t.Parallel()
	policy := func(name, timeout string) string {
		return "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: " + name + "}\nspec:\n  policies: {timeouts: {t: " + timeout + "}}\n  targets: {apps: {server: {timeout: t}}}\n"
	}
	m := machine.New(t)
	start(t, m, "server", "--app-port", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(300 * time.Millisecond)
		}
		echo(w, r)
	}))).await("/v1.0/healthz")
	file := newDocument(t, "")
	d := start(t, m, "app", "--resources-path", file.file)
	const call = "/v1.0/invoke/server/method/"
	d.until(200, "", "GET", call+"x", "")
	stop := d.load(204, "GET", "/v1.0/state/store/k", "")
	slow := d.load(200, "GET", call+"slow", "")
	file.write(policy("added", "10s"))
	d.until(200, `"added"`, "GET", "/v1.0/metadata", "")
	slow()
	file.write(policy("added", "20ms"))
	d.until(500, "ERR_DIRECT_INVOKE", "GET", call+"slow", "")
	file.write(strings.Replace(policy("added", "20ms"), "spec:", "scopes: [another]\nspec:", 1))
	d.until(200, "", "GET", call+"slow", "")
	file.write(policy("added", "20ms"))
	d.until(500, "ERR_DIRECT_INVOKE", "GET", call+"slow", "")
	file.write("")
	d.until(200, "", "GET", call+"slow", "")
	stop()
}

func TestEndpointsAreReadAgainWhileCallsRun(t *testing.T) {
	t.Parallel()
	at := func(name string, began, let chan struct{}) string {
		return "http://127.0.0.1:" + serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				began <- struct{}{}
				<-let
			}
			fmt.Fprint(w, name+" "+r.Header.Get("Key"))
		}))
	}
	began, let := make(chan struct{}), make(chan struct{})
	first, second := at("first", began, let), at("second", nil, nil)
	doc := func(name, url, more string) string {
		return endpoint(name, more+"spec: {baseUrl: "+url+", headers: [{name: Key, value: "+name+"}]}")
	}
	steady := doc("steady", second, "")
	file := newDocument(t, steady)
	d := start(t, machine.New(t), "app", "--resources-path", file.file)
	stop := d.load(200, "GET", "/v1.0/invoke/steady/method/x", "")
	file.write(steady + doc("changing", first, ""))
	d.until(200, "first changing", "GET", "/v1.0/invoke/changing/method/x", "")
	held := make(chan answer, 1)
	go func() { held <- d.do("GET", "/v1.0/invoke/changing/method/slow", "") }()
	<-began
	file.write(steady + doc("changing", second, ""))
	d.until(200, "second changing", "GET", "/v1.0/invoke/changing/method/x", "")
	file.write(steady + doc("changing", second, "scopes: [another]\n"))
	d.until(500, "ERR_DIRECT_INVOKE", "GET", "/v1.0/invoke/changing/method/x", "")
	close(let)
	if got := <-held; got.status != 200 || got.body != "first changing" {
		t.Errorf("the call that ran meanwhile: %d %s", got.status, got.body)
	}
	var told struct{ HTTPEndpoints []struct{ Name string } }
	if err := json.Unmarshal([]byte(d.do("GET", "/v1.0/metadata", "").body), &told); err != nil || fmt.Sprint(told.HTTPEndpoints) != "[{steady}]" {
		t.Errorf("metadata tells of %v %v", told, err)
	}
	stop()
}
