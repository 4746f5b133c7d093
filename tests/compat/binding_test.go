package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/tests/machine"
)

// component is the manifest of a component without secrets, whose server may be slow beside other tests; settings are
// `key: value`.
func component(name, kind string, settings ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "---\napiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: %s}\nspec:\n  type: %s\n  version: v1\n  initTimeout: 1m\n  metadata:\n", name, kind)
	for _, s := range settings {
		key, value, _ := strings.Cut(s, ": ")
		fmt.Fprintf(&b, "  - {name: %s, value: %q}\n", key, value)
	}
	if len(settings) == 0 {
		b.WriteString("  []\n")
	}
	return b.String()
}

// outside is an HTTP server that an output binding speaks to: it answers with what it was asked.
func outside(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Asked", r.Method+" "+r.URL.Path)
	w.Header().Set("X-Own", r.Header.Get("X-Own"))
	w.Header().Set("X-Trace", r.Header.Get("Traceparent"))
	w.Header().Set("X-Baggage", r.Header.Get("Baggage"))
	switch r.URL.Path {
	case "/missing":
		w.WriteHeader(http.StatusNotFound)
	case "/busy":
		w.WriteHeader(http.StatusTooManyRequests)
	case "/empty":
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_, _ = w.Write(body)
}

const brokenTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestOutputBindings(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	yaml := resources + component("files", "bindings.localstorage", "rootPath: "+folder) +
		component("web", "bindings.http", "url: http://127.0.0.1:"+serve(t, http.HandlerFunc(outside))) +
		component("clock", "bindings.cron", "schedule: @yearly") +
		component("mute", "bindings.localstorage", "rootPath: "+folder, "direction: input")
	d := startWith(t, machine.New(t), yaml, "app")
	call := func(_, method, name, body string, status int, want string, fields ...string) answer {
		t.Helper()
		return d.expect(status, want, method, "/v1.0/bindings/"+name, body, fields...)
	}
	const failed = `{"errorCode":"ERR_INVOKE_OUTPUT_BINDING","message":"error invoking output binding `
	call("a file", "POST", "files", `{"operation":"create","data":"hello","metadata":{"fileName":"a/b.txt"}}`, 200, `{"fileName":"a/b.txt"}`)
	if data, err := os.ReadFile(filepath.Join(folder, "a/b.txt")); err != nil || string(data) != "hello" {
		t.Errorf("the file holds %q (%v)", data, err)
	}
	call("a file by PUT", "PUT", "files", `{"operation":"create","data":{"n":12345678901234567890, "b":"<"},"metadata":{"fileName":"n"}}`, 200, `{"fileName":"n"}`)
	call("numbers as they are", "POST", "files", `{"operation":"get","metadata":{"fileName":"n"}}`, 200, `{"n":12345678901234567890,"b":"<"}`)
	call("nothing to tell", "POST", "files", `{"operation":"delete","metadata":{"fileName":"n"}}`, 204, "")
	call("gone", "POST", "files", `{"operation":"get","metadata":{"fileName":"n"}}`, 500, failed+`files: file not found: …`)
	call("escape", "POST", "files", `{"operation":"get","metadata":{"fileName":"../../etc/passwd"}}`, 500, failed+`files: file not found: `+folder+`…`)
	call("no operation", "POST", "files", `{"data":1}`, 500, failed+`files: operation field is missing from request"}`)
	call("an unknown operation", "POST", "files", `{"operation":"explode"}`, 500, failed+`files: binding files does not support operation explode. supported operations:create get list delete"}`)
	for _, name := range []string{"nope", "store", "clock", "mute"} {
		call("no output binding", "POST", name, `{"operation":"create"}`, 500, failed+name+`: couldn't find output binding `+name+`"}`)
	}
	call("no JSON", "POST", "files", `{`, 400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: unexpected EOF"}`)
	call("wrong JSON", "POST", "files", `{"metadata":{"a":1}}`, 400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: json: cannot unmarshal number into Go struct field OutputBindingRequest.metadata of type string"}`)
	call("bad baggage", "POST", "files", `{"operation":"list"}`, 400, "invalid baggage header: …", "baggage: ;;")
	d.expect(404, `{"errorCode":"ERR_DIRECT_INVOKE",…`, "GET", "/v1.0/bindings/files", "")

	got := call("a web server", "POST", "web", `{"operation":"post","data":{"a":1},"metadata":{"path":"x/y","X-Own":"mine","own":"not"}}`, 200, `{"a":1}`,
		"traceparent: "+brokenTrace, "baggage: a=1")
	for key, want := range map[string]string{
		"metadata.statusCode": "200", "metadata.status": "200 OK", "metadata.X-Asked": "POST /x/y", "metadata.X-Own": "mine",
		"metadata.X-Baggage": "a=1", "Content-Type": "application/json",
	} {
		if got.header.Get(key) != want {
			t.Errorf("%s is %q, not %q", key, got.header.Get(key), want)
		}
	}
	if trace := got.header.Get("metadata.X-Trace"); !strings.HasPrefix(trace, brokenTrace[:35]) {
		t.Errorf("the trace %q does not go on in %q", brokenTrace, trace)
	}
	got = call("an error of the web server", "POST", "web", `{"operation":"get","metadata":{"path":"/missing"}}`, 500, failed+`web: received status code 404"}`)
	if got.header.Get("metadata.statusCode") != "404" {
		t.Errorf("the metadata of a failed request is %v", got.header)
	}
	call("a web server's own limit", "POST", "web", `{"operation":"get","metadata":{"path":"/busy"}}`, 500, failed+`web: received status code 429"}`)
	call("an error that is none", "POST", "web", `{"operation":"get","metadata":{"path":"/missing","errorIfNot2XX":"false"}}`, 200, "")
	call("an answer without a body", "POST", "web", `{"operation":"delete","metadata":{"path":"/empty"}}`, 200, "")

	var m struct {
		Components []struct {
			Name         string
			Capabilities []string
		}
	}
	_ = json.Unmarshal([]byte(d.do("GET", "/v1.0/metadata", "").body), &m)
	can := map[string]string{}
	for _, c := range m.Components {
		can[c.Name] = strings.Join(c.Capabilities, " ")
	}
	if can["files"] != "OUTPUT_BINDING" || can["web"] != "OUTPUT_BINDING" || can["clock"] != "INPUT_BINDING" || can["mute"] != "" {
		t.Errorf("the capabilities are %v", can)
	}
}

func TestOutputBindingsOverGRPC(t *testing.T) {
	t.Parallel()
	yaml := component("files", "bindings.localstorage", "rootPath: "+t.TempDir()) +
		component("web", "bindings.http", "url: http://127.0.0.1:"+serve(t, http.HandlerFunc(outside)))
	d := startWith(t, machine.New(t), yaml, "app")
	client := d.client()
	call := func(name, operation, data string, md map[string]string, options ...grpc.CallOption) (*runtimev1.InvokeBindingResponse, error) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", brokenTrace, "X-Own", "lower", "own", "meta")
		return client.InvokeBinding(ctx, &runtimev1.InvokeBindingRequest{Name: name, Operation: operation, Data: []byte(data), Metadata: md}, options...)
	}
	if got, err := call("files", "create", "\x00\x01", map[string]string{"fileName": "f"}); err != nil || string(got.GetData()) != `{"fileName":"f"}` {
		t.Errorf("got %v (%v)", got, err)
	}
	if got, err := call("files", "get", "", map[string]string{"fileName": "f"}); err != nil || string(got.GetData()) != "\x00\x01" {
		t.Errorf("got %v (%v)", got, err)
	}
	if got, err := call("files", "delete", "", map[string]string{"fileName": "f"}); err != nil || len(got.GetData()) > 0 {
		t.Errorf("got %v (%v)", got, err)
	}
	var header metadata.MD
	got, err := call("web", "put", "body", map[string]string{"path": "/p"}, grpc.Header(&header))
	if err != nil || string(got.GetData()) != "body" || got.GetMetadata()["X-Asked"] != "PUT /p" || got.GetMetadata()["statusCode"] != "200" {
		t.Errorf("got %v (%v)", got, err)
	}
	if trace := got.GetMetadata()["X-Trace"]; !strings.HasPrefix(trace, brokenTrace[:35]) {
		t.Errorf("the trace does not go on in %q", trace)
	}
	if h := header.Get("metadata.statuscode"); len(h) != 1 || h[0] != "200" {
		t.Errorf("the header is %v", header)
	}
	for _, c := range []struct{ name, operation, path, want string }{
		{"web", "get", "/missing", "web: received status code 404"},
		{"web", "", "", "web: operation field is missing from request"},
		{"web", "explode", "", "web: binding web does not support operation explode. supported operations:create get head post put patch delete options trace"},
		{"nope", "get", "", "nope: couldn't find output binding nope"},
	} {
		header = nil
		_, err := call(c.name, c.operation, "", map[string]string{"path": c.path}, grpc.Header(&header))
		s := status.Convert(err)
		info, _ := append(s.Details(), nil)[0].(*errdetails.ErrorInfo)
		if s.Code() != codes.Internal || s.Message() != "error invoking output binding "+c.want || info.GetReason() != "ERR_INVOKE_OUTPUT_BINDING" || info.GetDomain() != "dapr.io" {
			t.Errorf("%v answers %v %v", c, s, s.Details())
		}
		if c.path != "" && (len(header.Get("metadata.statuscode")) != 1 || header.Get("metadata.statuscode")[0] != "404") {
			t.Errorf("the header beside an error is %v", header)
		}
	}
}

// boundApp is an HTTP app with bindings: says tells what it answers.
type boundApp struct {
	routes []string
	says   func(r *http.Request, body string) (status int, answer string)
	got    chan string // path and body
	asked  chan string // by OPTIONS
}

func newBoundApp(routes ...string) *boundApp {
	return &boundApp{routes: routes, got: make(chan string, 1000), asked: make(chan string, 1000),
		says: func(*http.Request, string) (int, string) { return 200, "" }}
}

func (a *boundApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	has := false
	for _, route := range a.routes {
		has = has || route == r.URL.Path
	}
	switch {
	case r.Method == http.MethodOptions:
		a.asked <- r.URL.Path + r.Header.Get("dapr-app-id")
		if has && !strings.HasSuffix(r.URL.Path, "405") {
			return
		}
		if has {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPost && has:
		body, _ := io.ReadAll(r.Body)
		status, answer := a.says(r, string(body))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
		a.got <- r.URL.Path + " " + string(body)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestInputBindingsOfHTTPApps(t *testing.T) {
	t.Parallel()
	app := newBoundApp("/tick", "/own/path", "/tock-405", "/unasked")
	kinds := make(chan string, 1000)
	app.says = func(r *http.Request, _ string) (int, string) {
		if r.URL.Path == "/tick" {
			kinds <- r.Header.Get("Content-Type") + " " + fmt.Sprint(r.Header.Get("Readtimeutc") != "") + " " + fmt.Sprint(r.Header.Get("Traceparent") != "")
		}
		return 200, ""
	}
	const every = "schedule: @every 1s"
	yaml := component("tick", "bindings.cron", every) +
		component("routed", "bindings.cron", every, "route: /own/path") +
		component("tock-405", "bindings.cron", every) +
		component("nobody", "bindings.cron", every) +
		component("unasked", "bindings.cron", every, "direction: input") +
		component("others", "bindings.cron", every) + "scopes: [another]\n"
	d := startWith(t, machine.New(t), yaml, "app", "--app-port", serve(t, app))
	d.await("/v1.0/healthz")
	seen := map[string]bool{}
	for len(seen) < 4 {
		seen[receive(t, app.got)] = true
	}
	if want := map[string]bool{"/tick ": true, "/own/path ": true, "/tock-405 ": true, "/unasked ": true}; fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("got %v, not %v", seen, want)
	}
	if got := receive(t, kinds); got != "application/json true true" {
		t.Errorf("an event comes with %q", got)
	}
	asked := map[string]bool{}
	for len(app.asked) > 0 {
		asked[<-app.asked] = true
	}
	if want := map[string]bool{"/tick": true, "/own/path": true, "/tock-405": true, "/nobody": true}; fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked for %v, not %v", asked, want)
	}
}

func TestAppsMayTakeTheirTimeToSayWhatTheyWant(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	app := newBoundApp("/tick")
	at := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions && asked.Add(1) == 1 {
			<-r.Context().Done() // it does not say
			return
		}
		app.ServeHTTP(w, r)
	}))
	start := func(timeout string) *daprd {
		asked.Store(0)
		return startWith(t, machine.New(t), component("tick", "bindings.cron", "schedule: @every 1s"), "app", "--app-port", at, "--app-binding-options-timeout", timeout)
	}
	d := start("50ms")
	receive(t, app.got) // it is asked again
	d.Interrupt()
	d.Wait(machine.Patience)
	d = start("10h") // longer than anybody waits
	machine.Until(t, "the app is asked", func() error {
		if asked.Load() == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for len(app.got) > 0 {
		<-app.got
	}
	d.Interrupt()
	if code := d.Wait(machine.Patience); code != 0 || len(app.got) > 0 || asked.Load() != 1 {
		t.Errorf("the sidecar ended with code %d; the app was asked %d times and got %d events", code, asked.Load(), len(app.got))
	}
}

func TestAnswersToBindingsAreObeyed(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	app := newBoundApp("/tick")
	app.says = func(*http.Request, string) (int, string) {
		return 200, `{"storeName":"store","state":[{"key":"k","value":{"n":1}},{"key":"k2","value":"text"}],"to":["web","nope","files"],"data":{"m":2},"concurrency":"parallel"}`
	}
	sent := make(chan string, 1000)
	web := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sent <- r.Method + " " + string(body)
	}))
	yaml := resources + component("tick", "bindings.cron", "schedule: @every 1s") + component("web", "bindings.http", "url: http://127.0.0.1:"+web) +
		component("files", "bindings.localstorage", "rootPath: "+folder)
	d := startWith(t, machine.New(t), yaml, "app", "--app-port", serve(t, app))
	if got := receive(t, sent); got != `POST {"m":2}` {
		t.Errorf("the web server got %q", got)
	}
	machine.Until(t, "the file", func() error {
		files, _ := filepath.Glob(filepath.Join(folder, "*"))
		if len(files) == 0 {
			return fmt.Errorf("there is none")
		}
		data, err := os.ReadFile(files[0])
		if string(data) != `{"m":2}` {
			return fmt.Errorf("it holds %q (%v)", data, err)
		}
		return nil
	})
	d.expect(200, `{"n":1}`, "GET", "/v1.0/state/store/k", "")
	d.expect(200, `"text"`, "GET", "/v1.0/state/store/k2", "")
}

// An inbound policy has the app asked again for one event, an outbound one the system for one operation.
func TestPoliciesGuardBindings(t *testing.T) {
	t.Parallel()
	events, asked := &tries{}, &tries{}
	app := newBoundApp("/tick")
	app.says = func(r *http.Request, _ string) (int, string) {
		at := r.Header.Get("Readtimeutc") // of one event
		if events.count(at) < 3 {
			return 503, ""
		}
		return 200, ""
	}
	web := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" || asked.count(r.URL.Path) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	yaml := component("web", "bindings.http", "url: http://127.0.0.1:"+web) + component("tick", "bindings.cron", "schedule: @every 1s", "direction: input") + `
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: shield}
spec:
  policies:
    retries: {twice: {policy: constant, duration: 1ms, maxRetries: 2}}
    circuitBreakers: {quick: {maxRequests: 1, timeout: 1h, trip: consecutiveFailures >= 3}}
  targets:
    components:
      web: {outbound: {retry: twice, circuitBreaker: quick}}
      tick: {inbound: {retry: twice}}
`
	metrics := machine.Port(t)
	d := startWith(t, machine.New(t), yaml, "app", "--metrics-port", metrics, "--app-port", serve(t, app))
	d.expect(200, "", "POST", "/v1.0/bindings/web", `{"operation":"post","metadata":{"path":"/shaky"}}`)
	for range 3 {
		receive(t, app.got)
	}
	machine.Until(t, "a handled event", func() error {
		if n := value(scrape(t, metrics), "dapr_component_input_binding_count", "component=tick success=true"); n < 1 {
			return fmt.Errorf("counted %v", n)
		}
		return nil
	})
	d.expect(500, `{"errorCode":"ERR_INVOKE_OUTPUT_BINDING","message":"error invoking output binding web: …`, "POST", "/v1.0/bindings/web", `{"operation":"post","metadata":{"path":"/broken"}}`)
	d.expect(500, `{"errorCode":"ERR_INVOKE_OUTPUT_BINDING",…`, "POST", "/v1.0/bindings/web", `{"operation":"post","metadata":{"path":"/fine"}}`)
	if n := asked.of("/fine"); n != 0 {
		t.Errorf("an open breaker let %d requests pass", n)
	}
	families := scrape(t, metrics)
	for _, labels := range []string{"target=Binding_web policy=retry flow_direction=outbound", "target=Binding_tick policy=retry flow_direction=inbound"} {
		if n := value(families, "dapr_resiliency_activations_total", labels); n < 2 {
			t.Errorf("%s was activated %v times", labels, n)
		}
	}
}

// An app that is unwell gets no events, one that hangs keeps nothing from ending, and what is at work when the sidecar is told to
// stop is handled first.
func TestBindingsAndTheLifeOfApps(t *testing.T) {
	t.Parallel()
	app := newBoundApp("/tick", "/slow")
	var well atomic.Bool
	well.Store(true)
	hang := make(chan struct{})
	defer close(hang)
	begun := make(chan string, 1000)
	app.says = func(r *http.Request, _ string) (int, string) {
		if r.URL.Path == "/slow" {
			begun <- r.URL.Path
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}
		return 200, ""
	}
	at := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			if !well.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return
		}
		app.ServeHTTP(w, r)
	}))
	yaml := component("tick", "bindings.cron", "schedule: @every 1s") + component("slow", "bindings.cron", "schedule: @every 1s")
	d := startWith(t, machine.New(t), yaml, "app", "--app-port", at, "--enable-app-health-check", "--app-health-probe-interval", "1",
		"--app-health-threshold", "1", "--dapr-graceful-shutdown-seconds", "2")
	receive(t, app.got)
	receive(t, begun)
	well.Store(false)
	machine.Until(t, "no reading", func() error {
		if !strings.Contains(d.Output(), "the binding is no longer read") {
			return fmt.Errorf("the log does not say so")
		}
		return nil
	})
	for len(app.got) > 0 {
		<-app.got
	}
	well.Store(true)
	receive(t, app.got)
	d.Interrupt()
	if code := d.Wait(machine.Patience); code != 1 { // a handler hangs, and is cut off
		t.Errorf("the sidecar ended with code %d", code)
	}
}

// boundServer is a gRPC app with bindings.
type boundServer struct {
	runtimev1.UnimplementedAppCallbackServer
	got   chan *runtimev1.BindingEventRequest
	fails error // to tell its bindings
}

func (a *boundServer) ListInputBindings(context.Context, *emptypb.Empty) (*runtimev1.ListInputBindingsResponse, error) {
	if a.fails != nil {
		return nil, a.fails
	}
	return &runtimev1.ListInputBindingsResponse{Bindings: []string{"tick", "unknown"}}, nil
}

func (a *boundServer) OnBindingEvent(_ context.Context, in *runtimev1.BindingEventRequest) (*runtimev1.BindingEventResponse, error) {
	a.got <- in
	if in.GetName() == "unasked" {
		return nil, status.Error(codes.Internal, "no")
	}
	return &runtimev1.BindingEventResponse{
		StoreName: "store", States: []*commonv1.StateItem{{Key: "k", Value: []byte("bytes")}},
		To: []string{"files"}, Data: []byte("no JSON"),
	}, nil
}

func TestInputBindingsOfGRPCApps(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	app := &boundServer{got: make(chan *runtimev1.BindingEventRequest, 1000)}
	at := serveGRPC(t, func(s *grpc.Server) { runtimev1.RegisterAppCallbackServer(s, app) })
	const every = "schedule: @every 1s"
	yaml := resources + component("tick", "bindings.cron", every) + component("nobody", "bindings.cron", every) +
		component("unasked", "bindings.cron", every, "direction: input") + component("files", "bindings.localstorage", "rootPath: "+folder)
	d := startWith(t, machine.New(t), yaml, "app", "--app-port", at, "--app-protocol", "grpc")
	seen := map[string]bool{}
	for len(seen) < 2 {
		got := receive(t, app.got)
		seen[got.GetName()] = true
		if got.GetMetadata()["readTimeUTC"] == "" {
			t.Errorf("the metadata is %v", got.GetMetadata())
		}
	}
	if seen["nobody"] {
		t.Error("the app got what it did not ask for")
	}
	machine.Until(t, "the file", func() error {
		files, _ := filepath.Glob(filepath.Join(folder, "*"))
		if len(files) == 0 {
			return fmt.Errorf("there is none")
		}
		data, err := os.ReadFile(files[0])
		if string(data) != "no JSON" { // localstorage takes a JSON text for what it says
			return fmt.Errorf("it holds %q (%v)", data, err)
		}
		return nil
	})
	d.expect(200, "bytes", "GET", "/v1.0/state/store/k", "")
}

// An app of Rust's SDK panics where it is asked for its bindings, by which its server cuts the call off.
func TestAnAppThatFailsToTellItsBindingsHasNamedNone(t *testing.T) {
	t.Parallel()
	app := &boundServer{got: make(chan *runtimev1.BindingEventRequest, 1000), fails: status.Error(codes.Canceled, "stream terminated by RST_STREAM")}
	at := serveGRPC(t, func(s *grpc.Server) { runtimev1.RegisterAppCallbackServer(s, app) })
	yaml := component("tick", "bindings.cron", "schedule: @every 1s") + component("unasked", "bindings.cron", "schedule: @every 1s", "direction: input")
	startWith(t, machine.New(t), yaml, "app", "--app-port", at, "--app-protocol", "grpc")
	for range 2 {
		if got := receive(t, app.got); got.GetName() != "unasked" {
			t.Errorf("the app got %s", got.GetName())
		}
	}
}
