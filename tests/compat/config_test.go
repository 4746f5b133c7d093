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
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/tests/machine"
)

// configuration writes a Configuration with that spec and returns its file.
func configuration(t testing.TB, spec string) string {
	t.Helper()
	return writeFile(t, "config.yaml", "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: config}\nspec:\n"+spec)
}

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// denied is the text of a refusal by access control.
func denied(caller, operation, verb string) string {
	return "access control policy has denied access to id: spiffe://public/ns/default/" + caller + " operation: " + operation + " verb: " + verb
}

func TestAccessControlOfAnHTTPApp(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	rules := configuration(t, `
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies:
    - appId: cart
      defaultAction: deny
      trustDomain: public
      namespace: default
      operations:
      - {name: /price/*, httpVerb: [GET], action: allow}
      - {name: /other, httpVerb: ["*"], action: allow}
    - appId: foreign
      defaultAction: allow
      trustDomain: elsewhere
      namespace: default
`)
	app := serve(t, http.HandlerFunc(echo))
	server := start(t, m, "server", "--app-port", app, "--config", rules)
	server.await("/v1.0/healthz")
	cart, till := start(t, m, "cart"), start(t, m, "till")
	foreign := start(t, m, "foreign", "--config", configuration(t, "  accessControl: {trustDomain: elsewhere}\n"))
	homely := start(t, m, "homely")
	refusal := func(caller, operation, verb string) string {
		return `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: server, err: rpc error: code = PermissionDenied desc = ` +
			denied(caller, operation, verb) + `"}`
	}
	cart.expect(200, "", "GET", "/v1.0/invoke/server/method/PRICE/1", "")
	cart.expect(200, "x", "PATCH", "/v1.0/invoke/server/method/other", "x")
	cart.expect(403, refusal("cart", "price/1", "POST"), "POST", "/v1.0/invoke/server/method/price/1", "")
	cart.expect(403, refusal("cart", "secret", "GET"), "GET", "/v1.0/invoke/server/method/price/../secret", "")
	till.expect(403, refusal("till", "price/1", "GET"), "GET", "/v1.0/invoke/server/method/price/1", "")
	till.expect(403, refusal("till", "", "GET"), "GET", "/v1.0/invoke/server/method/", "") // the root has no name
	homely.expect(403, refusal("homely", "x", "GET"), "GET", "/v1.0/invoke/server/method/x", "")
	foreign.expect(200, "", "GET", "/v1.0/invoke/server/method/anything", "")
	server.expect(200, "", "GET", "/v1.0/invoke/server/method/anything", "") // an app is not kept from itself
	// As a stream, too.
	big := strings.Repeat("x", 2<<20)
	if got := till.do("POST", "/v1.0/invoke/server/method/other", big); got.status != 403 || !strings.Contains(got.body, denied("till", "other", "POST")) {
		t.Errorf("a stream: %d %.200s", got.status, got.body)
	}
	if got := cart.do("POST", "/v1.0/invoke/server/method/other", big); got.status != 200 || got.body != big {
		t.Errorf("a stream: %d, %d bytes", got.status, len(got.body))
	}

	_, err := till.client().InvokeService(context.Background(), &runtimev1.InvokeServiceRequest{Id: "server", Message: &commonv1.InvokeRequest{
		Method: "price/1", HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_GET},
	}})
	want := "failed to invoke, id: server, err: rpc error: code = PermissionDenied desc = " + denied("till", "price/1", "GET")
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != want {
		t.Errorf("over gRPC: %v\nwant %s", err, want)
	}
}

func TestAccessControlOfAGRPCApp(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	rules := configuration(t, `
  accessControl:
    policies:
    - appId: cart
      defaultAction: deny
      trustDomain: public
      namespace: default
      operations:
      - {name: Allowed, action: allow}
      - {name: /dapr.proto.runtime.v1.AppCallbackHealthCheck/**, action: allow}
`)
	start(t, m, "server", "--app-port", grpcApp(t), "--app-protocol", "grpc", "--config", rules).await("/v1.0/healthz")
	cart, till := start(t, m, "cart"), start(t, m, "till")
	invoke := func(d *daprd, method string) error {
		_, err := d.client().InvokeService(context.Background(), &runtimev1.InvokeServiceRequest{Id: "server", Message: &commonv1.InvokeRequest{Method: method}})
		return err
	}
	if err := invoke(cart, "Allowed"); status.Code(err) == codes.PermissionDenied {
		t.Error(err)
	}
	if err := invoke(till, "Refused"); status.Code(err) == codes.PermissionDenied {
		t.Error(err) // the default is to allow
	}
	if err := invoke(cart, "allowed"); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), denied("cart", "allowed", "NONE")) {
		t.Errorf("got %v", err)
	}
	proxied := metadata.AppendToOutgoingContext(context.Background(), "dapr-app-id", "server")
	conn := dial(t, cart.grpc)
	if err := conn.Invoke(proxied, "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		t.Error(err)
	}
	err := conn.Invoke(proxied, "/pkg.Other/Method", &emptypb.Empty{}, &emptypb.Empty{})
	if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != denied("cart", "/pkg.Other/Method", "NONE") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTheAllowedPartsOfTheAPI(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	d := start(t, m, "narrow", "--config", configuration(t, `
  api:
    allowed:
    - {name: state, version: v1, protocol: http}
    - {name: publish, version: v1, protocol: grpc}
    denied:
    - {name: metadata, version: v1, protocol: grpc}
`))
	d.expect(204, "", "GET", "/v1.0/healthz/outbound", "")
	d.expect(204, "", "GET", "/v1.0/state/store/none", "")
	d.expect(404, "404 page not found", "GET", "/v1.0/metadata", "")
	d.expect(404, "404 page not found", "POST", "/v1.0/publish/bus/topic", "x")
	d.expect(404, "404 page not found", "GET", "/v1.0/invoke/other/method/x", "")
	d.expect(405, "", "POST", "/v1.0/state/store/key", "")
	client := d.client()
	if _, err := client.PublishEvent(context.Background(), &runtimev1.PublishEventRequest{PubsubName: "bus", Topic: "t"}); err != nil {
		t.Error(err)
	}
	_, err := client.GetState(context.Background(), &runtimev1.GetStateRequest{StoreName: "store", Key: "k"})
	if s := status.Convert(err); s.Code() != codes.Unimplemented || s.Message() != "Not Implemented" || len(s.Details()) != 1 {
		t.Errorf("got %v", err)
	}
	if _, err := client.GetMetadata(context.Background(), &runtimev1.GetMetadataRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v", err)
	}

	// A part that is denied is none: its paths are invocations like any other.
	other := start(t, m, "other", "--config", configuration(t, "  api: {denied: [{name: state, version: v1, protocol: http}]}\n"))
	other.expect(404, `{"errorCode":"ERR_DIRECT_INVOKE",…`, "GET", "/v1.0/state/store/none", "")
	other.expect(200, `{…`, "GET", "/v1.0/metadata", "")
}

// collector is a Zipkin that keeps the spans it is sent.
func collector(t testing.TB) (url string, spans chan map[string]any) {
	spans = make(chan map[string]any, 1000)
	port := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var all []map[string]any
		if err := json.NewDecoder(r.Body).Decode(&all); err != nil || r.Method != "POST" || r.URL.Path != "/api/v2/spans" {
			t.Errorf("the collector got %s %s: %v", r.Method, r.URL, err)
		}
		for _, s := range all {
			spans <- s
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	return "http://127.0.0.1:" + port + "/api/v2/spans", spans
}

func TestTracing(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	url, spans := collector(t)
	parents := make(chan string, 10)
	app := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/traced" {
			parents <- r.Header.Get("traceparent")
		}
	}))
	start(t, m, "server", "--app-port", app).await("/v1.0/healthz")
	traced := start(t, m, "traced", "--config", configuration(t, fmt.Sprintf("  tracing: {samplingRate: 1, stdout: true, zipkin: {endpointAddress: %q}}\n", url)))
	silent := start(t, m, "silent", "--config", configuration(t, fmt.Sprintf("  tracing: {samplingRate: 0, zipkin: {endpointAddress: %q}}\n", url)))
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	silent.expect(200, "", "GET", "/v1.0/invoke/server/method/traced", "", "traceparent: "+parent)
	if got := <-parents; got != parent {
		t.Errorf("without spans a trace passes through as it is, not as %q", got)
	}
	traced.expect(200, "", "GET", "/v1.0/invoke/server/method/traced", "", "traceparent: "+parent)
	got := <-parents
	if got == parent || !strings.HasPrefix(got, parent[:35]) {
		t.Errorf("the app got the trace %q", got)
	}
	traced.expect(204, "", "GET", "/v1.0/state/store/k", "", "traceparent: "+parent)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
	if _, err := traced.client().GetState(ctx, &runtimev1.GetStateRequest{StoreName: "store", Key: "k"}); err != nil {
		t.Fatal(err)
	}
	traced.Terminate()
	traced.Wait(machine.Patience)
	close(spans)
	names := map[any]int{}
	for s := range spans {
		names[s["name"]]++
		service, _ := s["localEndpoint"].(map[string]any)
		if s["traceId"] != parent[3:35] || s["parentId"] != parent[36:52] || s["kind"] != "CLIENT" || service["serviceName"] != "traced" {
			t.Errorf("the collector got %v", s)
		}
	}
	if names["calllocal/server/traced"] != 1 || names["/v1.0/state/store/k"] != 1 || names["/dapr.proto.runtime.v1.dapr/getstate"] != 1 {
		t.Errorf("the collector got the spans %v before the sidecar ended", names)
	}
	if !strings.Contains(traced.Output(), "trace="+parent[3:35]) {
		t.Errorf("no span is in the log: %s", traced.Output())
	}
}

func TestLoggingOfTheAPI(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	open := start(t, m, "open", "--config", configuration(t, "  logging: {apiLogging: {enabled: true}}\n"))
	hidden := start(t, m, "hidden", "--config", configuration(t, "  logging: {apiLogging: {enabled: true, obfuscateURLs: true, omitHealthChecks: true}}\n"))
	off := start(t, m, "off", "--enable-api-logging=false", "--config", configuration(t, "  logging: {apiLogging: {enabled: true}}\n"))
	for _, d := range []*daprd{open, hidden, off} {
		d.expect(204, "", "GET", "/v1.0/state/store/private", "")
		d.do("GET", "/v1.0/invoke/nobody/method/private", "", "User-Agent: probe")
		if _, err := d.client().GetState(context.Background(), &runtimev1.GetStateRequest{StoreName: "store", Key: "k"}); err != nil {
			t.Error(err)
		}
		d.Terminate()
		d.Wait(machine.Patience)
	}
	for _, c := range []struct {
		d         *daprd
		has, lack []string
	}{
		{open, []string{`method="GET /v1.0/healthz/outbound"`, `method="GET /v1.0/state/store/private"`, "useragent=probe", "v1.Dapr/GetState"}, nil},
		{hidden, []string{"method=GetState", "method=InvokeService/nobody", "v1.Dapr/GetState"}, []string{"/private", "Healthz"}},
		{off, nil, []string{"API Called"}},
	} {
		for _, text := range c.has {
			if !strings.Contains(c.d.Output(), text) {
				t.Errorf("%s is not in the log:\n%s", text, c.d.Output())
			}
		}
		for _, text := range c.lack {
			for line := range strings.Lines(c.d.Output()) {
				if strings.Contains(line, "API Called") && strings.Contains(line, text) {
					t.Errorf("%s is in the log: %s", text, line)
				}
			}
		}
	}
}

func TestComponentsFeaturesAndMetricsOfAConfiguration(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	metrics := machine.Port(t)
	first := configuration(t, "  components: {deny: [lock.in-memory/v1, state.in-memory/v2]}\n  metric: {enabled: true}\n")
	second := configuration(t, "  features: [{name: Preview, enabled: true}]\n  metrics: {enabled: false}\n")
	d := start(t, m, "configured", "--config", first, "--config", second, "--metrics-port", metrics)
	var told struct {
		EnabledFeatures []string
		Components      []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(d.expect(200, "{…", "GET", "/v1.0/metadata", "").body), &told); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(told.EnabledFeatures) != "[HotReload Preview WorkflowsRemoteActivityReminder _SubtleCrypto]" || fmt.Sprint(told.Components) != "[{bus} {store}]" {
		t.Errorf("metadata tells of %+v", told)
	}
	if response, err := http.Get("http://127.0.0.1:" + metrics + "/metrics"); err == nil {
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		t.Errorf("metrics are served: %.100s", body)
	}
}

// What daprd leaves out or passes over is not silently missing here; what is for others is passed over.
func TestMistakesInFilesKeepASidecarFromStarting(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	const head = "apiVersion: dapr.io/v1alpha1\nmetadata: {name: x}\n"
	for text, want := range map[string]string{
		head + "kind: Component\nspec: {type: [1], version: v1}\n":                                             "4: spec.type: must be a single value, not a list",
		head + "kind: Subscription\nspec: {pubsubname: bus, route: /x}\n":                                      "4: spec.topic: is missing",
		head + "kind: Subscription\nspec: {pubsubname: bus, topic: t, route: /x, metadata: {rawPayload: no!}}": "4: spec.metadata.rawPayload: ",
		head + "kind: Resiliency\nspec: {policies: {timeouts: {a: soon}}}\n":                                   `4: spec.policies.timeouts.a: "soon" is not a duration`,
		head + "kind: HTTPEndpoint\nspec: {}\n":                                                                "4: spec.baseUrl: is missing",
		"a: [1\n":                                                                                              "1: is not YAML",
	} {
		file := writeFile(t, "x.yaml", text)
		if r := m.Command("daprd", "--app-id", "a", "--resources-path", filepath.Dir(file)); r.Code != 1 || !strings.Contains(r.Err, file+":"+want) {
			t.Errorf("%s: %d %s", text, r.Code, r.Err)
		}
	}
	startWith(t, m, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {}\n", "app")
}

func TestAConfigurationWithAMistakeIsToldWithItsLine(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	file := configuration(t, "  tracing: {samplingrates: 1}\n")
	r := m.Command("daprd", "--app-id", "a", "--config", file)
	if r.Code != 1 || !strings.Contains(r.Err, file+":5: spec.tracing.samplingrates: there is no such key here") || !strings.Contains(r.Err, `did you mean "samplingRate"?`) {
		t.Errorf("%d %s", r.Code, r.Err)
	}
	if r := m.Command("lint", filepath.Dir(file)); r.Code != 2 || !strings.Contains(r.Out, "spec.tracing.samplingrates") {
		t.Errorf("lint: %d %s %s", r.Code, r.Out, r.Err)
	}
	// In a folder of resources a Configuration says nothing, as with daprd.
	d := startWith(t, m, "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {api: {denied: [{name: metadata, version: v1, protocol: http}]}}\n", "folder")
	d.expect(200, "{…", "GET", "/v1.0/metadata", "")
	if !strings.Contains(d.Output(), "a Configuration counts only in a file of --config") {
		t.Errorf("nothing is said of the Configuration in a folder: %s", d.Output())
	}
}
