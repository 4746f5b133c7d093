package compat

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/tests/machine"
)

// daprMetrics are the names, types and labels of daprd v1.18.3, from pkg/diagnostics and the exporter it has.
const daprMetrics = `
dapr_component_configuration_count counter app_id component namespace operation success
dapr_component_configuration_latencies histogram app_id component namespace operation success
dapr_component_input_binding_count counter app_id component namespace success
dapr_component_input_binding_latencies histogram app_id component namespace success
dapr_component_output_binding_count counter app_id component namespace operation success
dapr_component_output_binding_latencies histogram app_id component namespace operation success
dapr_component_pubsub_egress_bulk_count counter app_id component namespace success topic
dapr_component_pubsub_egress_bulk_latencies histogram app_id component namespace success topic
dapr_component_pubsub_egress_count counter app_id component namespace success topic
dapr_component_pubsub_egress_latencies histogram app_id component namespace success topic
dapr_component_pubsub_ingress_bulk_count counter app_id component namespace process_status topic
dapr_component_pubsub_ingress_bulk_event_count counter app_id component namespace process_status topic
dapr_component_pubsub_ingress_bulk_latencies histogram app_id component namespace process_status topic
dapr_component_pubsub_ingress_count counter app_id component namespace process_status status topic
dapr_component_pubsub_ingress_latencies histogram app_id component namespace process_status status topic
dapr_component_secret_count counter app_id component namespace operation success
dapr_component_secret_latencies histogram app_id component namespace operation success
dapr_component_state_count counter app_id component namespace operation success
dapr_component_state_latencies histogram app_id component namespace operation success
dapr_error_code_total counter app_id category error_code
dapr_grpc_io_client_completed_rpcs counter app_id grpc_client_method grpc_client_status
dapr_grpc_io_client_received_bytes_per_rpc histogram app_id grpc_client_method
dapr_grpc_io_client_roundtrip_latency histogram app_id grpc_client_method grpc_client_status
dapr_grpc_io_client_sent_bytes_per_rpc histogram app_id grpc_client_method
dapr_grpc_io_healthprobes_completed_count counter app_id grpc_client_status
dapr_grpc_io_healthprobes_roundtrip_latency histogram app_id grpc_client_status
dapr_grpc_io_server_completed_rpcs counter app_id grpc_server_method grpc_server_status
dapr_grpc_io_server_received_bytes_per_rpc histogram app_id grpc_server_method
dapr_grpc_io_server_sent_bytes_per_rpc histogram app_id grpc_server_method
dapr_grpc_io_server_server_latency histogram app_id grpc_server_method grpc_server_status
dapr_http_client_completed_count counter app_id method path status
dapr_http_client_received_bytes histogram app_id
dapr_http_client_roundtrip_latency histogram app_id method path status
dapr_http_client_sent_bytes histogram app_id method path status
dapr_http_healthprobes_completed_count counter app_id status
dapr_http_healthprobes_roundtrip_latency histogram app_id status
dapr_http_server_latency histogram app_id method path status
dapr_http_server_request_bytes histogram app_id
dapr_http_server_request_count counter app_id method path status
dapr_http_server_response_bytes histogram app_id
dapr_http_server_response_count counter app_id method path status
dapr_resiliency_activations_total counter app_id flow_direction name namespace policy status target
dapr_resiliency_cb_state gauge app_id flow_direction name namespace policy status target
dapr_resiliency_count counter app_id flow_direction name namespace policy status target
dapr_resiliency_loaded counter app_id name namespace
dapr_runtime_acl_global_policy_action_allowed_total counter app_id namespace trustDomain
dapr_runtime_component_init_fail_total counter app_id component componentName reason
dapr_runtime_component_init_total counter app_id component
dapr_runtime_component_loaded counter app_id
dapr_runtime_service_invocation_req_recv_total counter app_id src_app_id
dapr_runtime_service_invocation_req_sent_total counter app_id dst_app_id type
dapr_runtime_service_invocation_res_recv_latency_ms histogram app_id src_app_id status
dapr_runtime_service_invocation_res_recv_total counter app_id src_app_id status type
dapr_runtime_service_invocation_res_sent_total counter app_id dst_app_id status
`

const measured = resources + `
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: env}
spec: {type: secretstores.local.env, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec: {type: configuration.jetstream, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: broken}
spec:
  type: state.badger
  version: v1
  metadata: [{name: dir, value: /proc/no/such}]
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: shield}
spec:
  policies:
    timeouts: {soon: 5s}
    retries: {twice: {policy: constant, duration: 1ms, maxRetries: 2}}
    circuitBreakers: {quick: {maxRequests: 1, timeout: 1h, trip: consecutiveFailures >= 3}}
  targets:
    apps:
      other: {timeout: soon, retry: twice, circuitBreaker: quick}
`

func scrape(t *testing.T, port string) map[string]*dto.MetricFamily {
	t.Helper()
	response, err := http.Get("http://127.0.0.1:" + port + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// described is each family of Dapr's with its type and labels, as in daprMetrics.
func described(families map[string]*dto.MetricFamily) []string {
	var all []string
	for name, family := range families {
		if !strings.HasPrefix(name, "dapr_") {
			continue
		}
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		all = append(all, name+" "+strings.ToLower(family.GetType().String())+" "+strings.Join(labels, " "))
	}
	slices.Sort(all)
	return all
}

// value is that of the series with all of these labels, written `name=value name=value`; -1 when there is none.
func value(families map[string]*dto.MetricFamily, name, labels string) float64 {
	for _, m := range families[name].GetMetric() {
		have := map[string]string{}
		for _, l := range m.GetLabel() {
			have[l.GetName()] = l.GetValue()
		}
		matches := true
		for _, pair := range strings.Fields(labels) {
			label, want, _ := strings.Cut(pair, "=")
			matches = matches && have[label] == want
		}
		if matches {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return -1
}

func TestMetricsHaveDaprsNames(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	events := newSubscriber(`[{"pubsubname":"bus","topic":"orders","route":"/orders"},{"pubsubname":"bus","topic":"many","route":"/many","bulkSubscribe":{"enabled":true}}]`)
	says := map[string]int{"retried": 503, "gone": 404}
	events.says = func(path string, event map[string]any) (int, string) {
		if path == "/many" {
			entry := event["entries"].([]any)[0].(map[string]any)
			return 200, fmt.Sprintf(`{"statuses":[{"entryId":%q,"status":"SUCCESS"}]}`, entry["entryId"])
		}
		if status := says[fmt.Sprint(event["data"])]; status != 0 {
			says[fmt.Sprint(event["data"])] = 0
			return status, ""
		}
		return 200, ""
	}
	metrics := machine.Port(t)
	d := startWith(t, m, measured, "app", "--metrics-port", metrics, "--app-port", serve(t, events))
	d.subscribed(2)
	otherMetrics := machine.Port(t)
	bindings := component("tick", "bindings.cron", "schedule: @every 1s") + component("files", "bindings.localstorage", "rootPath: "+t.TempDir())
	other := startWith(t, m, measured+bindings, "other", "--metrics-port", otherMetrics, "--enable-app-health-check",
		"--config", configuration(t, "  metrics: {recordErrorCodes: true}\n"), "--app-port", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/bad") {
				w.WriteHeader(http.StatusInternalServerError)
			}
			_, _ = io.WriteString(w, "hello")
		})))
	other.await("/v1.0/healthz")

	grpcMetrics := machine.Port(t)
	rpcs := startWith(t, m, measured, "rpcs", "--metrics-port", grpcMetrics, "--enable-app-health-check", "--app-protocol", "grpc", "--app-port", grpcApp(t))
	rpcs.await("/v1.0/healthz")

	d.expect(204, "", "POST", store, `[{"key":"a","value":1}]`)
	d.expect(200, "1", "GET", store+"/a", "")
	d.expect(409, "{…", "POST", store, `[{"key":"a","value":1,"etag":"77"}]`)
	d.expect(200, "[…", "POST", store+"/bulk", `{"keys":["a"]}`)
	d.expect(204, "", "POST", store+"/transaction", `{"operations":[{"operation":"upsert","request":{"key":"t","value":1}}]}`)
	d.expect(204, "", "DELETE", store+"/a", "")
	d.expect(500, "{…", "GET", "/v1.0/state/broken/a", "")
	d.expect(200, `{"PWD":…`, "GET", "/v1.0/secrets/env/PWD", "")
	d.expect(204, "", "GET", "/v1.0/configuration/settings", "")
	client := d.client()
	if _, err := client.DeleteBulkState(t.Context(), &runtimev1.DeleteBulkStateRequest{StoreName: "store", States: []*commonv1.StateItem{{Key: "a"}}}); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"plain", "retried", "gone"} {
		d.expect(204, "", "POST", "/v1.0/publish/bus/orders", data)
	}
	for range 4 { // one of them comes twice
		events.next(t)
	}
	d.expect(204, "", "POST", "/v1.0/publish/bulk/bus/many", `[{"entryId":"1","event":"x","contentType":"text/plain"}]`)
	events.next(t)
	d.expect(200, "hello", "GET", "/v1.0/invoke/other/method/good", "")
	d.expect(500, "hello", "GET", "/v1.0/invoke/other/method/bad", "")
	if _, err := client.InvokeService(t.Context(), &runtimev1.InvokeServiceRequest{Id: "other", Message: &commonv1.InvokeRequest{
		Method: "good", HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_GET}, Data: nil,
	}}); err == nil {
		t.Error("the breaker lets a call pass")
	}

	var families map[string]*dto.MetricFamily
	for _, want := range []struct {
		name, labels string
		value        float64
	}{
		{"dapr_component_state_count", "component=store operation=set success=true namespace=", 1},
		{"dapr_component_state_count", "component=store operation=set success=false", 1},
		{"dapr_component_state_count", "component=store operation=get success=true", 1},
		{"dapr_component_state_count", "component=store operation=bulk_get success=true", 1},
		{"dapr_component_state_count", "component=store operation=transaction success=true", 1},
		{"dapr_component_state_count", "component=store operation=delete success=true", 1},
		{"dapr_component_state_count", "component=store operation=bulk_delete success=true", 1},
		{"dapr_component_state_latencies", "component=store operation=bulk_delete success=true", 1},
		{"dapr_component_pubsub_egress_count", "component=bus topic=orders success=true", 3},
		{"dapr_component_pubsub_egress_bulk_count", "component=bus topic=many success=true", 1},
		{"dapr_component_pubsub_ingress_count", "component=bus topic=orders process_status=success status=success", 2},
		{"dapr_component_pubsub_ingress_count", "component=bus topic=orders process_status=retry status=retry", 1},
		{"dapr_component_pubsub_ingress_count", "component=bus topic=orders process_status=drop status=drop", 1},
		{"dapr_component_pubsub_ingress_latencies", "component=bus topic=orders process_status=success", 2},
		{"dapr_component_pubsub_ingress_bulk_event_count", "component=bus topic=many process_status=SUCCESS", 1},
		{"dapr_component_pubsub_ingress_bulk_count", "component=bus topic=many process_status=", 1},
		{"dapr_component_pubsub_ingress_bulk_latencies", "component=bus topic=many process_status=", 1},
		{"dapr_http_server_request_count", "method=GET path=/v1.0/state/store status=200", 1},
		{"dapr_http_server_request_count", "method=GET path=/v1.0/invoke/other/method/good status=200", 1},
		{"dapr_http_server_latency", "method=POST path=/v1.0/publish/bus/orders status=204", 3},
		{"dapr_grpc_io_server_completed_rpcs", "grpc_server_method=/dapr.proto.runtime.v1.Dapr/DeleteBulkState grpc_server_status=OK", 1},
		{"dapr_grpc_io_server_received_bytes_per_rpc", "grpc_server_method=/dapr.proto.runtime.v1.Dapr/DeleteBulkState", 1},
		{"dapr_runtime_service_invocation_req_sent_total", "dst_app_id=other type=unary", 3},
		{"dapr_runtime_service_invocation_res_recv_total", "src_app_id=other status=200 type=unary", 1},
		{"dapr_runtime_service_invocation_res_recv_total", "src_app_id=other status=500 type=unary", 1},
		{"dapr_runtime_component_loaded", "app_id=app", 6},
		{"dapr_runtime_component_init_total", "component=pubsub.jetstream", 1},
		{"dapr_runtime_component_init_fail_total", "component=state.badger componentName=broken reason=init", 1},
		{"dapr_resiliency_loaded", "name=shield namespace=", 1},
		{"dapr_resiliency_count", "name=shield policy=retry target=app_other flow_direction=outbound", 2},
		{"dapr_resiliency_activations_total", "name=shield policy=retry target=app_other", 2},
		{"dapr_resiliency_activations_total", "name=shield policy=circuitbreaker target=app_other status=open", 1},
		{"dapr_resiliency_cb_state", "target=app_other policy=circuitbreaker status=open", 1},
		{"dapr_resiliency_cb_state", "target=app_other policy=circuitbreaker status=closed", 0},
	} {
		machine.Until(t, want.name+" "+want.labels, func() error { // an event is counted when the app has had it
			families = scrape(t, metrics)
			if got := value(families, want.name, want.labels); got != want.value {
				return fmt.Errorf("is %v, not %v: %v", got, want.value, families[want.name].GetMetric())
			}
			return nil
		})
	}
	if body := d.do("GET", "/v1.0/metadata", "").body; !strings.Contains(strings.ReplaceAll(body, " ", ""), `"resiliencies":[{"name":"shield"}]`) {
		t.Errorf("metadata does not name the resiliency resource: %s", body)
	}
	other.expect(200, "…", "POST", "/v1.0/bindings/files", `{"operation":"create","data":"x"}`)
	other.expect(500, "{…", "POST", "/v1.0/bindings/files", `{"operation":"get","metadata":{"fileName":"none"}}`)
	other.expect(500, "{…", "POST", "/v1.0/bindings/files", `{"operation":"unknown"}`)
	outside := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	other.expect(418, "", "GET", "/v1.0/invoke/http://127.0.0.1:"+outside+"/method/outside", "")
	machine.Until(t, "an event of a binding", func() error {
		if n := value(scrape(t, otherMetrics), "dapr_component_input_binding_count", "component=tick namespace= success=true"); n < 1 {
			return fmt.Errorf("counted %v", n)
		}
		return nil
	})
	for _, labels := range []string{"operation=create success=true", "operation=get success=false", "operation=unknown success=false"} {
		if n := value(scrape(t, otherMetrics), "dapr_component_output_binding_count", "component=files namespace= "+labels); n != 1 {
			t.Errorf("counted %v operations of a binding with %s", n, labels)
		}
	}
	d.expect(200, "…", "POST", "/v1.0/invoke/rpcs/method/x", "")
	stream, err := dial(t, d.grpc).NewStream(metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "rpcs"), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/test.Streams/Echo")
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseSend()
	if err := stream.RecvMsg(&emptypb.Empty{}); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	other.expect(400, "{…", "GET", "/v1.0/state/nostore/a", "")
	if _, err := other.client().GetState(t.Context(), &runtimev1.GetStateRequest{StoreName: "nostore"}); err == nil {
		t.Error("there is a store")
	}
	other.expect(500, "{…", "GET", "/v1.0/invoke/nobody/method/x", "")
	for _, want := range []struct {
		port, name, labels string
		value              float64
	}{
		{metrics, "dapr_http_client_completed_count", "method=POST path=/orders status=200", 2},
		{metrics, "dapr_http_client_completed_count", "method=POST path=/orders status=404", 1},
		{metrics, "dapr_http_client_roundtrip_latency", "method=POST path=/orders status=503", 1},
		{metrics, "dapr_http_client_completed_count", "method=GET path=/dapr/subscribe status=200", 1},
		{metrics, "dapr_http_client_sent_bytes", "method=POST path=/many", 1},
		{otherMetrics, "dapr_http_client_completed_count", "method=GET path=/good status=200", 1},
		{otherMetrics, "dapr_http_client_completed_count", "method=GET path=/bad status=500", 3},
		{otherMetrics, "dapr_http_client_completed_count", "method=GET path=/outside status=418", 1},
		{otherMetrics, "dapr_runtime_acl_global_policy_action_allowed_total", "app_id=app trustDomain=public", 4},
		{grpcMetrics, "dapr_grpc_io_client_completed_rpcs", "grpc_client_method=/dapr.proto.runtime.v1.AppCallback/OnInvoke grpc_client_status=OK", 1},
		{grpcMetrics, "dapr_grpc_io_client_sent_bytes_per_rpc", "grpc_client_method=/dapr.proto.runtime.v1.AppCallback/OnInvoke", 1},
		{grpcMetrics, "dapr_grpc_io_client_roundtrip_latency", "grpc_client_method=/test.Streams/Echo grpc_client_status=OK", 1},
		{grpcMetrics, "dapr_grpc_io_client_sent_bytes_per_rpc", "grpc_client_method=/test.Streams/Echo", -1},
		{otherMetrics, "dapr_error_code_total", "category=state error_code=ERR_STATE_STORE_NOT_FOUND", 2},
		{otherMetrics, "dapr_error_code_total", "category=service-invocation error_code=ERR_DIRECT_INVOKE", 2}, // one of them is an answer of an app
	} {
		machine.Until(t, want.name+" "+want.labels, func() error {
			if got := value(scrape(t, want.port), want.name, want.labels); got != want.value {
				return fmt.Errorf("is %v, not %v", got, want.value)
			}
			return nil
		})
	}
	for port, probes := range map[string]string{otherMetrics: "dapr_http_healthprobes_completed_count status=200", grpcMetrics: "dapr_grpc_io_healthprobes_completed_count grpc_client_status=OK"} {
		name, labels, _ := strings.Cut(probes, " ")
		if value(scrape(t, port), name, labels) < 1 {
			t.Errorf("no %s", probes)
		}
	}

	served := scrape(t, otherMetrics)
	for name, family := range scrape(t, grpcMetrics) {
		if served[name] == nil {
			served[name] = family
		}
	}
	if got := value(served, "dapr_runtime_service_invocation_req_recv_total", "src_app_id=app"); got != 4 {
		t.Errorf("the other has had %v calls of the app", got)
	}
	if got := value(served, "dapr_runtime_service_invocation_res_sent_total", "dst_app_id=app status=500"); got != 3 {
		t.Errorf("the other has sent %v answers", got)
	}
	for name, family := range served { // what the other alone has
		if families[name] == nil {
			families[name] = family
		}
	}
	got, want := described(families), strings.Split(strings.TrimSpace(daprMetrics), "\n")
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("daprd has no %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("missing: %s", line)
		}
	}
}

func TestMetricsAreAsTheConfigurationSays(t *testing.T) {
	t.Parallel()
	metrics := machine.Port(t)
	d := start(t, machine.New(t), "app", "--metrics-port", metrics, "--config", configuration(t, `
  metric: {recordErrorCodes: false, latencyDistributionBuckets: [1], http: {increasedCardinality: true}}
  metrics:
    latencyDistributionBuckets: [5, 500]
    http: {increasedCardinality: false, pathMatching: ["/v1.0/state/{store}/"], excludeVerbs: true}
    rules:
    - name: dapr_http_server_request_count
      labels: [{name: status, regex: {good: "^2..$", 4xx: "^4.*"}}]
    - name: dapr_runtime_component_init_total
      labels: [{name: component, regex: {any: ".+"}}]
`))
	d.expect(204, "", "GET", store+"/a", "")
	d.expect(204, "", "GET", store+"/b", "")
	d.expect(404, "{…", "POST", "/v1.0/publish/nobus/x", "")
	families := scrape(t, metrics)
	for _, want := range []struct {
		name, labels string
		value        float64
	}{
		{"dapr_http_server_request_count", "path=/v1.0/state/{store}/ status=good method=", 2},
		{"dapr_http_server_request_count", "path= status=4xx method=", 1},
		{"dapr_http_server_latency", "path= status=404 method=", 1},
		{"dapr_runtime_component_init_total", "component=any", 3},
	} {
		if got := value(families, want.name, want.labels); got != want.value {
			t.Errorf("%s %s is %v, not %v: %v", want.name, want.labels, got, want.value, families[want.name].GetMetric())
		}
	}
	if families["dapr_http_server_response_count"] != nil || families["dapr_error_code_total"] != nil {
		t.Error("there are metrics that daprd has not")
	}
	buckets := families["dapr_http_server_latency"].GetMetric()[0].GetHistogram().GetBucket()
	if len(buckets) != 3 || buckets[0].GetUpperBound() != 5 || buckets[1].GetUpperBound() != 500 {
		t.Errorf("the buckets are %v", buckets)
	}
}

func TestMetricsOfAppsWordsAreBounded(t *testing.T) {
	t.Parallel()
	metrics := machine.Port(t)
	d := start(t, machine.New(t), "app", "--metrics-port", metrics)
	for i := range 1200 {
		d.do("GET", fmt.Sprintf("/v1.0/none/%d", i), "")
	}
	families := scrape(t, metrics)
	if n := len(families["dapr_http_server_request_count"].GetMetric()); n < 100 || n > 600 {
		t.Errorf("1200 paths have %d series", n)
	}
	if value(families, "dapr_http_server_request_count", "path=_other method=GET") < 600 {
		t.Error("paths beyond the bound are not counted together")
	}
}

func TestSidecarsThatAreNoDaprdHaveNoMetricsOfDapr(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	sidecar := m.Sidecar("plain")
	if _, body, err := sidecar.HTTP("/metrics"); err != nil || strings.Contains(body, "dapr_") || !strings.Contains(body, "sidecast_lane_admitted_total") {
		t.Errorf("metrics: %v %s", err, body)
	}
}
