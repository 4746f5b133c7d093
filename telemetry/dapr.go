package telemetry

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// millis are Dapr's buckets of latencies, in milliseconds; sizes those of bodies, in bytes.
var (
	millis = []float64{
		1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 650, 800,
		1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
	}
	sizes = []float64{1 << 10, 2 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30, 4 << 30}
)

const (
	// maxSeries is how many series a metric of Dapr's has at most. What comes after has OtherLabel where apps choose the words.
	maxSeries  = 500
	OtherLabel = "_other"
)

// DaprMetric describes one of the metrics that have Dapr's names.
type DaprMetric struct {
	// Name is the whole name, Type `counter`, `gauge` or `histogram`.
	Name, Type, Help string
	// Labels beside app_id.
	Labels []string

	callers bool   // app_id is not the sidecar's, but that of who calls, and one of the labels that are counted
	free    string // the labels, separated by spaces, whose values apps make up
	buckets []float64
}

var httpLabels = []string{"method", "path", "status"}

// The metrics of daprd v1.18, pkg/diagnostics, as far as there is something here to measure. Dapr's names are of OpenCensus
// views, in which its exporter replaces what Prometheus does not allow.
var (
	httpServerRequests  = DaprMetric{Name: "dapr_http_server_request_count", Type: "counter", Help: "Count of HTTP requests processed by the server.", Labels: httpLabels, free: "path"}
	httpServerResponses = DaprMetric{Name: "dapr_http_server_response_count", Type: "counter", Help: "The number of HTTP responses.", Labels: httpLabels, free: "path"}
	httpServerLatency   = DaprMetric{Name: "dapr_http_server_latency", Type: "histogram", Help: "HTTP request end-to-end latency in server, in milliseconds.", Labels: httpLabels, free: "path", buckets: millis}
	httpServerIn        = DaprMetric{Name: "dapr_http_server_request_bytes", Type: "histogram", Help: "HTTP request body size if set as ContentLength (uncompressed) in server.", buckets: sizes}
	httpServerOut       = DaprMetric{Name: "dapr_http_server_response_bytes", Type: "histogram", Help: "HTTP response body size (uncompressed) in server.", buckets: sizes}

	grpcServerCompleted = DaprMetric{Name: "dapr_grpc_io_server_completed_rpcs", Type: "counter", Help: "Count of RPCs by method and status.", Labels: []string{"grpc_server_method", "grpc_server_status"}, free: "grpc_server_method"}
	grpcServerLatency   = DaprMetric{Name: "dapr_grpc_io_server_server_latency", Type: "histogram", Help: "Time between first byte of request received to last byte of response sent, or terminal error, in milliseconds.", Labels: []string{"grpc_server_method", "grpc_server_status"}, free: "grpc_server_method", buckets: millis}
	grpcServerIn        = DaprMetric{Name: "dapr_grpc_io_server_received_bytes_per_rpc", Type: "histogram", Help: "Total bytes received across all messages per RPC.", Labels: []string{"grpc_server_method"}, free: "grpc_server_method", buckets: sizes}
	grpcServerOut       = DaprMetric{Name: "dapr_grpc_io_server_sent_bytes_per_rpc", Type: "histogram", Help: "Total bytes sent in across all response messages per RPC.", Labels: []string{"grpc_server_method"}, free: "grpc_server_method", buckets: sizes}

	httpClientSent      = DaprMetric{Name: "dapr_http_client_sent_bytes", Type: "histogram", Help: "Total bytes sent in request body (not including headers).", Labels: httpLabels, free: "path", buckets: sizes}
	httpClientReceived  = DaprMetric{Name: "dapr_http_client_received_bytes", Type: "histogram", Help: "Total bytes received in response bodies, as far as their length is told (not including headers but including error responses with bodies).", buckets: sizes}
	httpClientLatency   = DaprMetric{Name: "dapr_http_client_roundtrip_latency", Type: "histogram", Help: "Time between first byte of request headers sent to the head of the response received, or terminal error, in milliseconds.", Labels: httpLabels, free: "path", buckets: millis}
	httpClientCompleted = DaprMetric{Name: "dapr_http_client_completed_count", Type: "counter", Help: "Count of completed requests.", Labels: httpLabels, free: "path"}
	httpProbes          = DaprMetric{Name: "dapr_http_healthprobes_completed_count", Type: "counter", Help: "Count of completed health probes.", Labels: []string{"status"}}
	httpProbeLatency    = DaprMetric{Name: "dapr_http_healthprobes_roundtrip_latency", Type: "histogram", Help: "Time between first byte of health probes headers sent to last byte of response received, or terminal error, in milliseconds.", Labels: []string{"status"}, buckets: millis}

	grpcClientSent      = DaprMetric{Name: "dapr_grpc_io_client_sent_bytes_per_rpc", Type: "histogram", Help: "Total bytes sent across all request messages per RPC.", Labels: []string{"grpc_client_method"}, free: "grpc_client_method", buckets: sizes}
	grpcClientReceived  = DaprMetric{Name: "dapr_grpc_io_client_received_bytes_per_rpc", Type: "histogram", Help: "Total bytes received across all response messages per RPC.", Labels: []string{"grpc_client_method"}, free: "grpc_client_method", buckets: sizes}
	grpcClientLatency   = DaprMetric{Name: "dapr_grpc_io_client_roundtrip_latency", Type: "histogram", Help: "Time between first byte of request sent to last byte of response received, or terminal error, in milliseconds.", Labels: []string{"grpc_client_method", "grpc_client_status"}, free: "grpc_client_method", buckets: millis}
	grpcClientCompleted = DaprMetric{Name: "dapr_grpc_io_client_completed_rpcs", Type: "counter", Help: "Count of RPCs by method and status.", Labels: []string{"grpc_client_method", "grpc_client_status"}, free: "grpc_client_method"}
	grpcProbes          = DaprMetric{Name: "dapr_grpc_io_healthprobes_completed_count", Type: "counter", Help: "Count of completed health probes.", Labels: []string{"grpc_client_status"}}
	grpcProbeLatency    = DaprMetric{Name: "dapr_grpc_io_healthprobes_roundtrip_latency", Type: "histogram", Help: "Time between first byte of health probes sent to last byte of response received, or terminal error, in milliseconds.", Labels: []string{"grpc_client_status"}, buckets: millis}

	errorCodes = DaprMetric{Name: "dapr_error_code_total", Type: "counter", Help: "Total number of times an error with a specific error code was encountered. Where a Configuration says recordErrorCodes.", Labels: []string{"category", "error_code"}}

	stateCount   = DaprMetric{Name: "dapr_component_state_count", Type: "counter", Help: "The number of operations performed on the state component.", Labels: []string{"component", "namespace", "operation", "success"}}
	stateLatency = DaprMetric{Name: "dapr_component_state_latencies", Type: "histogram", Help: "The latency of the response from the state component, in milliseconds.", Labels: []string{"component", "namespace", "operation", "success"}, buckets: millis}

	secretCount   = DaprMetric{Name: "dapr_component_secret_count", Type: "counter", Help: "The number of operations performed on the secret component.", Labels: []string{"component", "namespace", "operation", "success"}}
	secretLatency = DaprMetric{Name: "dapr_component_secret_latencies", Type: "histogram", Help: "The latency of the response from the secret component, in milliseconds.", Labels: []string{"component", "namespace", "operation", "success"}, buckets: millis}

	configurationCount   = DaprMetric{Name: "dapr_component_configuration_count", Type: "counter", Help: "The number of operations performed on the configuration component.", Labels: []string{"component", "namespace", "operation", "success"}}
	configurationLatency = DaprMetric{Name: "dapr_component_configuration_latencies", Type: "histogram", Help: "The latency of the response from the configuration component, in milliseconds.", Labels: []string{"component", "namespace", "operation", "success"}, buckets: millis}

	cryptoCount         = DaprMetric{Name: "dapr_component_crypto_count", Type: "counter", Help: "The number of operations performed on the crypto component.", Labels: []string{"component", "namespace", "operation", "success"}}
	cryptoLatency       = DaprMetric{Name: "dapr_component_crypto_latencies", Type: "histogram", Help: "The latency of the response from the crypto component, in milliseconds.", Labels: []string{"component", "namespace", "operation", "success"}, buckets: millis}
	conversationCount   = DaprMetric{Name: "dapr_component_conversation_count", Type: "counter", Help: "The number of operations performed on the conversation component.", Labels: []string{"component", "namespace", "success"}}
	conversationLatency = DaprMetric{Name: "dapr_component_conversation_latencies", Type: "histogram", Help: "The latency of the response from the conversation component, in milliseconds.", Labels: []string{"component", "namespace", "success"}, buckets: millis}

	egressCount       = DaprMetric{Name: "dapr_component_pubsub_egress_count", Type: "counter", Help: "The number of outgoing messages published to the pub/sub component.", Labels: []string{"component", "namespace", "success", "topic"}, free: "topic"}
	egressLatency     = DaprMetric{Name: "dapr_component_pubsub_egress_latencies", Type: "histogram", Help: "The latency of the response from the pub/sub component, in milliseconds.", Labels: []string{"component", "namespace", "success", "topic"}, free: "topic", buckets: millis}
	bulkEgressCount   = DaprMetric{Name: "dapr_component_pubsub_egress_bulk_count", Type: "counter", Help: "The number of bulk publish calls to the pub/sub component.", Labels: []string{"component", "namespace", "success", "topic"}, free: "topic"}
	bulkEgressLatency = DaprMetric{Name: "dapr_component_pubsub_egress_bulk_latencies", Type: "histogram", Help: "The latency of the response for the bulk publish call from the pub/sub component, in milliseconds.", Labels: []string{"component", "namespace", "success", "topic"}, free: "topic", buckets: millis}
	ingressCount      = DaprMetric{Name: "dapr_component_pubsub_ingress_count", Type: "counter", Help: "The number of incoming messages arriving from the pub/sub component.", Labels: []string{"component", "namespace", "process_status", "status", "topic"}, free: "topic"}
	ingressLatency    = DaprMetric{Name: "dapr_component_pubsub_ingress_latencies", Type: "histogram", Help: "The consuming app event processing latency, in milliseconds.", Labels: []string{"component", "namespace", "process_status", "status", "topic"}, free: "topic", buckets: millis}
	bulkIngressCount  = DaprMetric{Name: "dapr_component_pubsub_ingress_bulk_count", Type: "counter", Help: "The number of incoming bulk subscribe calls arriving from the bulk pub/sub component.", Labels: []string{"component", "namespace", "process_status", "topic"}, free: "topic"}
	bulkIngressTime   = DaprMetric{Name: "dapr_component_pubsub_ingress_bulk_latencies", Type: "histogram", Help: "The consuming app event processing latency for the bulk pub/sub component, in milliseconds.", Labels: []string{"component", "namespace", "process_status", "topic"}, free: "topic", buckets: millis}
	bulkIngressEvents = DaprMetric{Name: "dapr_component_pubsub_ingress_bulk_event_count", Type: "counter", Help: "Total number of incoming messages arriving from the bulk pub/sub component via Bulk Subscribe.", Labels: []string{"component", "namespace", "process_status", "topic"}, free: "topic"}

	outputCount   = DaprMetric{Name: "dapr_component_output_binding_count", Type: "counter", Help: "The number of operations invoked on the output binding component.", Labels: []string{"component", "namespace", "operation", "success"}, free: "operation"}
	outputLatency = DaprMetric{Name: "dapr_component_output_binding_latencies", Type: "histogram", Help: "The latency of the response from the output binding component, in milliseconds.", Labels: []string{"component", "namespace", "operation", "success"}, free: "operation", buckets: millis}
	inputCount    = DaprMetric{Name: "dapr_component_input_binding_count", Type: "counter", Help: "The number of incoming events arriving from the input binding component.", Labels: []string{"component", "namespace", "success"}}
	inputLatency  = DaprMetric{Name: "dapr_component_input_binding_latencies", Type: "histogram", Help: "The triggered app event processing latency, in milliseconds.", Labels: []string{"component", "namespace", "success"}, buckets: millis}

	invocationSent     = DaprMetric{Name: "dapr_runtime_service_invocation_req_sent_total", Type: "counter", Help: "The number of requests sent via service invocation.", Labels: []string{"dst_app_id", "type"}, free: "dst_app_id"}
	invocationReceived = DaprMetric{Name: "dapr_runtime_service_invocation_req_recv_total", Type: "counter", Help: "The number of requests received via service invocation.", Labels: []string{"src_app_id"}, free: "src_app_id"}
	invocationReplied  = DaprMetric{Name: "dapr_runtime_service_invocation_res_sent_total", Type: "counter", Help: "The number of responses sent via service invocation.", Labels: []string{"dst_app_id", "status"}, free: "dst_app_id"}
	invocationAnswered = DaprMetric{Name: "dapr_runtime_service_invocation_res_recv_total", Type: "counter", Help: "The number of responses received via service invocation.", Labels: []string{"src_app_id", "status", "type"}, free: "src_app_id"}
	appAllowed         = DaprMetric{Name: "dapr_runtime_acl_app_policy_action_allowed_total", Type: "counter", Help: "The number of requests allowed by the app specific action specified in the access control policy. The labels are the caller's.", Labels: []string{"namespace", "trustDomain"}, callers: true, free: "app_id namespace"}
	appBlocked         = DaprMetric{Name: "dapr_runtime_acl_app_policy_action_blocked_total", Type: "counter", Help: "The number of requests blocked by the app specific action specified in the access control policy. The labels are the caller's.", Labels: []string{"namespace", "trustDomain"}, callers: true, free: "app_id namespace"}
	globalAllowed      = DaprMetric{Name: "dapr_runtime_acl_global_policy_action_allowed_total", Type: "counter", Help: "The number of requests allowed by the global action specified in the access control policy. The labels are the caller's.", Labels: []string{"namespace", "trustDomain"}, callers: true, free: "app_id namespace"}
	globalBlocked      = DaprMetric{Name: "dapr_runtime_acl_global_policy_action_blocked_total", Type: "counter", Help: "The number of requests blocked by the global action specified in the access control policy. The labels are the caller's.", Labels: []string{"namespace", "trustDomain"}, callers: true, free: "app_id namespace"}
	invocationLatency  = DaprMetric{Name: "dapr_runtime_service_invocation_res_recv_latency_ms", Type: "histogram", Help: "The latency of service invocation response, in milliseconds.", Labels: []string{"src_app_id", "status"}, free: "src_app_id", buckets: millis}
)

// DaprMetrics are all metrics that a Dapr feeds.
func DaprMetrics() []DaprMetric {
	return []DaprMetric{
		httpServerRequests, httpServerResponses, httpServerLatency, httpServerIn, httpServerOut,
		httpClientSent, httpClientReceived, httpClientLatency, httpClientCompleted, httpProbes, httpProbeLatency,
		grpcServerCompleted, grpcServerLatency, grpcServerIn, grpcServerOut,
		grpcClientSent, grpcClientReceived, grpcClientLatency, grpcClientCompleted, grpcProbes, grpcProbeLatency,
		errorCodes,
		stateCount, stateLatency,
		secretCount, secretLatency, configurationCount, configurationLatency,
		cryptoCount, cryptoLatency, conversationCount, conversationLatency,
		egressCount, egressLatency, bulkEgressCount, bulkEgressLatency, ingressCount, ingressLatency, bulkIngressCount, bulkIngressTime, bulkIngressEvents,
		outputCount, outputLatency, inputCount, inputLatency,
		invocationSent, invocationReceived, invocationReplied, invocationAnswered, invocationLatency,
		appAllowed, appBlocked, globalAllowed, globalBlocked,
	}
}

// Dapr feeds metrics with the names, labels and units of daprd's. A nil Dapr feeds nothing and costs nothing. All methods may
// be called concurrently.
type Dapr struct {
	namespace string
	options   DaprOptions
	paths     *pathLabels
	families  map[string]*family
}

// EnableDapr adds Dapr's metrics. It is called before anything is measured.
func (m *Metrics) EnableDapr(appID, namespace string, o DaprOptions) {
	d := &Dapr{namespace: namespace, options: o, paths: newPathLabels(o), families: map[string]*family{}}
	for _, metric := range DaprMetrics() {
		if metric.Name == errorCodes.Name && !o.ErrorCodes || metric.Name == httpServerResponses.Name && o.LowCardinality {
			continue
		}
		if metric.buckets != nil && &metric.buckets[0] == &millis[0] && len(o.Buckets) > 0 {
			metric.buckets = o.Buckets
		}
		f := newFamily(metric, o.Rules.Label(metric.Name, "app_id", appID), o.Rules[metric.Name])
		d.families[metric.Name] = f
		m.registry.MustRegister(f.collector())
	}
	m.dapr = d
}

// Dapr is where Dapr's metrics are fed; nil unless they were enabled.
func (m *Metrics) Dapr() *Dapr {
	if m == nil {
		return nil
	}
	return m.dapr
}

// Rules are those of all metrics; nil where there are none.
func (d *Dapr) Rules() LabelRules {
	if d == nil {
		return nil
	}
	return d.options.Rules
}

// family is a metric with its series, of which it bounds the number.
type family struct {
	metric    DaprMetric
	rules     map[string][]Replacement // by label
	free      []bool                   // which labels apps make up
	counters  *prometheus.CounterVec
	histogram *prometheus.HistogramVec
	series    sync.Map // of joined values → prometheus.Counter or prometheus.Observer
	count     atomic.Int64
}

func newFamily(m DaprMetric, appID string, rules map[string][]Replacement) *family {
	fixed := prometheus.Labels{"app_id": appID}
	if m.callers {
		m.Labels, fixed = append([]string{"app_id"}, m.Labels...), nil
	}
	f := &family{metric: m, rules: rules, free: make([]bool, len(m.Labels))}
	for i, label := range m.Labels {
		for _, free := range strings.Fields(m.free) {
			f.free[i] = f.free[i] || free == label
		}
	}
	if m.Type == "histogram" {
		f.histogram = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: m.buckets, ConstLabels: fixed}, m.Labels)
	} else {
		f.counters = prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help, ConstLabels: fixed}, m.Labels)
	}
	return f
}

func (f *family) collector() prometheus.Collector {
	if f.histogram != nil {
		return f.histogram
	}
	return f.counters
}

// add counts n, or observes it.
func (f *family) add(n float64, values ...string) {
	if f.rules != nil { // before series are counted: that there be fewer is what rules are for
		for i, label := range f.metric.Labels {
			values[i] = replaced(values[i], f.rules[label])
		}
	}
	key := strings.Join(values, "\xff")
	one, ok := f.series.Load(key)
	if !ok {
		one = f.make(key, values)
	}
	switch s := one.(type) {
	case prometheus.Counter:
		s.Add(n)
	case prometheus.Observer:
		s.Observe(n)
	}
}

// make finds the series of values. Beyond the bound nothing is remembered: the series of all others is looked up each time.
func (f *family) make(key string, values []string) any {
	full := f.count.Add(1) > maxSeries
	own := make([]string, len(values))
	for i, value := range values {
		own[i] = strings.ToValidUTF8(value, "�")
		if full && f.free[i] {
			own[i] = OtherLabel
		}
	}
	var one any
	if f.histogram != nil {
		one = f.histogram.WithLabelValues(own...)
	} else {
		one = f.counters.WithLabelValues(own...)
	}
	if !full {
		one, _ = f.series.LoadOrStore(key, one)
	}
	return one
}

func inMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (d *Dapr) add(m *DaprMetric, n float64, values ...string) {
	if f := d.families[m.Name]; f != nil {
		f.add(n, values...)
	}
}

// HTTPServed records a request to the HTTP API. In is its declared size, -1 when it has none.
func (d *Dapr) HTTPServed(method, path string, status int, in, out int64, took time.Duration) {
	if d == nil {
		return
	}
	method, path, code := d.method(method), d.paths.label(path), strconv.Itoa(status)
	d.add(&httpServerRequests, 1, method, path, code)
	d.add(&httpServerResponses, 1, method, path, code)
	d.add(&httpServerLatency, inMillis(took), method, path, code)
	d.add(&httpServerIn, float64(max(in, 0)))
	d.add(&httpServerOut, float64(out))
}

// method is the label of a verb.
func (d *Dapr) method(verb string) string {
	if d.options.ExcludeVerbs {
		return ""
	}
	switch verb {
	case "GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE":
		return verb
	}
	return "UNKNOWN"
}

// Failed records an error of the API, by its code.
func (d *Dapr) Failed(code, category string) {
	if d != nil {
		d.add(&errorCodes, 1, category, code)
	}
}

// RPCServed records an RPC; sizes of streams are -1, and not recorded.
func (d *Dapr) RPCServed(method, status string, in, out int, took time.Duration) {
	if d == nil {
		return
	}
	d.add(&grpcServerCompleted, 1, method, status)
	d.add(&grpcServerLatency, inMillis(took), method, status)
	if in >= 0 {
		d.add(&grpcServerIn, float64(in), method)
		d.add(&grpcServerOut, float64(out), method)
	}
}

// StateDone records an operation on a state store, by Dapr's name of it.
func (d *Dapr) StateDone(component, operation string, began time.Time, err error) {
	if d == nil {
		return
	}
	success := strconv.FormatBool(err == nil)
	d.add(&stateCount, 1, component, d.namespace, operation, success)
	d.add(&stateLatency, inMillis(time.Since(began)), component, d.namespace, operation, success)
}

// SecretDone records an operation on a secret store, by Dapr's name of it.
func (d *Dapr) SecretDone(component, operation string, began time.Time, err error) {
	if d == nil {
		return
	}
	success := strconv.FormatBool(err == nil)
	d.add(&secretCount, 1, component, d.namespace, operation, success)
	d.add(&secretLatency, inMillis(time.Since(began)), component, d.namespace, operation, success)
}

// ConfigurationDone records an operation on a configuration store, by Dapr's name of it.
func (d *Dapr) ConfigurationDone(component, operation string, began time.Time, err error) {
	if d == nil {
		return
	}
	success := strconv.FormatBool(err == nil)
	d.add(&configurationCount, 1, component, d.namespace, operation, success)
	d.add(&configurationLatency, inMillis(time.Since(began)), component, d.namespace, operation, success)
}

// CryptoDone records an operation on a crypto component: `get` for one that gives a key out, `crypto_op` for all others.
func (d *Dapr) CryptoDone(component, operation string, began time.Time, err error) {
	if d == nil {
		return
	}
	success := strconv.FormatBool(err == nil)
	d.add(&cryptoCount, 1, component, d.namespace, operation, success)
	d.add(&cryptoLatency, inMillis(time.Since(began)), component, d.namespace, operation, success)
}

// ConversationDone records an answer of a conversation component.
func (d *Dapr) ConversationDone(component string, began time.Time, err error) {
	if d == nil {
		return
	}
	success := strconv.FormatBool(err == nil)
	d.add(&conversationCount, 1, component, d.namespace, success)
	d.add(&conversationLatency, inMillis(time.Since(began)), component, d.namespace, success)
}

// Published records the publication of an event, or of a bulk of them.
func (d *Dapr) Published(component, topic string, bulk bool, began time.Time, err error) {
	if d == nil {
		return
	}
	count, latency := &egressCount, &egressLatency
	if bulk {
		count, latency = &bulkEgressCount, &bulkEgressLatency
	}
	success := strconv.FormatBool(err == nil)
	d.add(count, 1, component, d.namespace, success, topic)
	d.add(latency, inMillis(time.Since(began)), component, d.namespace, success, topic)
}

// Delivered records what became of the delivery of an event: `success`, `retry` or `drop`, and what the app said; "" for
// the same. An event that the app has not seen took no time.
func (d *Dapr) Delivered(component, topic, became, said string, bulk bool, took time.Duration) {
	if d == nil {
		return
	}
	if bulk {
		d.add(&bulkIngressEvents, 1, component, d.namespace, strings.ToUpper(became), topic) // as daprd writes it there, and there alone
		return
	}
	if said == "" {
		said = became
	}
	d.add(&ingressCount, 1, component, d.namespace, became, said, topic)
	if took > 0 {
		d.add(&ingressLatency, inMillis(took), component, d.namespace, became, said, topic)
	}
}

// OutputBinding records an operation of a binding.
func (d *Dapr) OutputBinding(component, operation string, began time.Time, err error) {
	if d == nil {
		return
	}
	success := strconv.FormatBool(err == nil)
	d.add(&outputCount, 1, component, d.namespace, operation, success)
	d.add(&outputLatency, inMillis(time.Since(began)), component, d.namespace, operation, success)
}

// InputBinding records an event of a binding, and how long the app took for it.
func (d *Dapr) InputBinding(component string, began time.Time, err error) {
	if d == nil {
		return
	}
	success := strconv.FormatBool(err == nil)
	d.add(&inputCount, 1, component, d.namespace, success)
	d.add(&inputLatency, inMillis(time.Since(began)), component, d.namespace, success)
}

// Invoked records a call to another app and its answer: a status of HTTP, or a code of gRPC.
func (d *Dapr) Invoked(app string, streaming bool, status int, began time.Time) {
	if d == nil {
		return
	}
	kind := "unary"
	if streaming {
		kind = "streaming"
	}
	code := strconv.Itoa(status)
	d.add(&invocationSent, 1, app, kind)
	d.add(&invocationAnswered, 1, app, code, kind)
	if !streaming {
		d.add(&invocationLatency, inMillis(time.Since(began)), app, code)
	}
}

// Served records a call of another app to the local one, and the answer it got.
func (d *Dapr) Served(app string, status int) {
	if d == nil {
		return
	}
	d.add(&invocationReceived, 1, app)
	d.add(&invocationReplied, 1, app, strconv.Itoa(status))
}

// Admitted records whether a call of another app to the local one was allowed, by what a Configuration says of the caller's app or of
// all. Where none says anything, that is a call that all may make.
func (d *Dapr) Admitted(app, namespace, trustDomain string, byApp, allowed bool) {
	if d == nil {
		return
	}
	m := &globalBlocked
	switch {
	case byApp && allowed:
		m = &appAllowed
	case byApp:
		m = &appBlocked
	case allowed:
		m = &globalAllowed
	}
	d.add(m, 1, app, namespace, trustDomain)
}
