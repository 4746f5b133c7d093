package telemetry

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestDaprsMetricsAreBoundedAndCostNothingWhenOff(t *testing.T) {
	m := NewMetrics()
	off := m.Dapr()
	if n := testing.AllocsPerRun(100, func() {
		off.HTTPServed("GET", "/x", 200, 0, 0, time.Second)
		off.Delivered("bus", "t", "success", "", false, time.Second)
		off.StateDone("s", "get", time.Time{}, nil)
	}); n != 0 {
		t.Errorf("metrics that are off allocate %v times", n)
	}
	m.EnableDapr("app", "default", DaprOptions{})
	on := m.Dapr()
	for i := range 3 * maxSeries {
		on.Published("bus", fmt.Sprint("topic", i), false, time.Now(), nil)
	}
	on.Published("bus", "topic0", false, time.Now(), nil)
	f := on.families["dapr_component_pubsub_egress_count"]
	if n := testutil.CollectAndCount(f.counters); n != maxSeries+1 {
		t.Errorf("%d series", n)
	}
	for topic, want := range map[string]float64{"topic0": 2, OtherLabel: 2 * maxSeries} {
		if got := testutil.ToFloat64(f.counters.WithLabelValues("bus", "default", "true", topic)); got != want {
			t.Errorf("%s is counted %v times, not %v", topic, got, want)
		}
	}
}

func TestPathLabels(t *testing.T) {
	paths := []string{"/orders/{id}", "/v1.0/publish/{bus}/", "/v1.0/invoke/{app_id}/method/orders/{id}"}
	for _, c := range []struct {
		options DaprOptions
		want    map[string]string
	}{
		{DaprOptions{}, map[string]string{
			"/v1.0/state/store/key": "/v1.0/state/store", "/v1.0/state/store/a/b": "/v1.0/state/store", "/v1.0/state/store": "/v1.0/state/store",
			"/v1.0/invoke/a/method/b": "/v1.0/invoke/a/method/b", "/": "/", "": "", "//x": "/x", "x": "/x", "/v1.0//secrets/s/k": "/v1.0/secrets/s",
			"/v1.0/actors/type/7/timers/t": "/v1.0/actors/type/{id}/timers", "/v1.0/actors/type/7": "/v1.0/actors/type/7", "/actors/type/7/method/m": "actors/type/{id}/method/m",
			"/v1.0/workflows/w/7": "/v1.0/workflows/w/{instanceId}", "/v1.0/workflows/w/name/start": "/v1.0/workflows/w/name/start",
			"/v1.0/workflows/w/7/raiseEvent/e": "/v1.0/workflows/w/{instanceId}/raiseEvent/{eventName}", "/v1.0/workflows/w/7/pause": "/v1.0/workflows/w/{instanceId}/pause",
			"/v1.0/workflows/w": "/v1.0/workflows/w",
		}},
		{DaprOptions{LowCardinality: true}, map[string]string{"/v1.0/state/store/key": "", "/x": "", "/healthz": "/healthz", "/dapr/config": "/dapr/config"}},
		{DaprOptions{Paths: paths}, map[string]string{
			"/orders/7": "/orders/{id}", "orders/7": "/orders/{id}", "/v1.0/invoke/a/method/orders/7": "/v1.0/invoke/{app_id}/method/orders/{id}",
			"/v1.0/publish/b/t": "/v1.0/publish/{bus}/", "/orders/7/x": "/orders/7/x",
			"/v1.0/state/store/key": "/v1.0/state/store",
		}},
		{DaprOptions{Paths: append(paths, "/"), LowCardinality: true}, map[string]string{"/orders/7": "/orders/{id}", "/x": "/"}},
		{DaprOptions{Paths: paths, LowCardinality: true}, map[string]string{"/orders/7": "/orders/{id}", "/x": ""}},
		{DaprOptions{Paths: []string{"/v1.0/state/store"}, LowCardinality: true}, map[string]string{"/v1.0/state/store/key": "/v1.0/state/store"}},
	} {
		labels := newPathLabels(c.options)
		for path, want := range c.want {
			if got := labels.label(path); got != want {
				t.Errorf("%+v: %q is %q, not %q", c.options, path, got, want)
			}
		}
	}
}

// The app of these metrics is who calls, and a rule for it is one for a label like any other.
func TestAdmissionsAreCountedByTheCaller(t *testing.T) {
	rules := LabelRules{}
	rules.Add("dapr_runtime_acl_app_policy_action_blocked_total", "app_id", Replacement{regexp.MustCompile(`cart-.*`), "carts"})
	m := NewMetrics()
	m.EnableDapr("own", "default", DaprOptions{Rules: rules})
	d := m.Dapr()
	d.Admitted("cart-1", "shop", "public", true, false)
	d.Admitted("cart-2", "shop", "public", true, false)
	d.Admitted("cart", "shop", "public", true, true)
	d.Admitted("cart", "shop", "public", false, false)
	d.Admitted("cart", "shop", "public", false, true)
	(*Dapr)(nil).Admitted("cart", "shop", "public", false, true)
	for name, want := range map[string]struct {
		app   string
		count float64
	}{
		"app_policy_action_blocked": {"carts", 2}, "app_policy_action_allowed": {"cart", 1},
		"global_policy_action_blocked": {"cart", 1}, "global_policy_action_allowed": {"cart", 1},
	} {
		counters := d.families["dapr_runtime_acl_"+name+"_total"].counters
		if n := testutil.ToFloat64(counters.WithLabelValues(want.app, "shop", "public")); n != want.count || testutil.CollectAndCount(counters) != 1 {
			t.Errorf("%s is %v in %d series", name, n, testutil.CollectAndCount(counters))
		}
	}
	if _, err := m.registry.Gather(); err != nil {
		t.Error(err)
	}
}

func TestOptionsOfDaprsMetrics(t *testing.T) {
	rules := LabelRules{}
	rules.Add("dapr_http_server_request_count", "path", Replacement{regexp.MustCompile(`/orders/\d+`), "/orders/{id}"}, Replacement{regexp.MustCompile(`^/v1\.0(.*)`), "$1"})
	rules.Add("http/server/request_count", "method", Replacement{regexp.MustCompile(`P.*T`), "WRITE"})
	rules.Add("error_code_total", "app_id", Replacement{regexp.MustCompile(`a`), "A"})
	m := NewMetrics()
	m.EnableDapr("a", "default", DaprOptions{Rules: rules, Buckets: []float64{7, 70}, ErrorCodes: true})
	d := m.Dapr()
	for i := range 2 * maxSeries { // rewritten paths do not count towards the bound
		d.HTTPServed("POST", fmt.Sprint("/v1.0/orders/", i), 200, 1, 1, time.Millisecond)
	}
	d.Failed("ERR_X", "common")
	requests := d.families["dapr_http_server_request_count"].counters
	if n := testutil.ToFloat64(requests.WithLabelValues("WRITE", "/orders/{id}", "200")); n != 2*maxSeries || testutil.CollectAndCount(requests) != 1 {
		t.Errorf("%v requests in %d series", n, testutil.CollectAndCount(requests))
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range families {
		switch f.GetName() {
		case "dapr_http_server_latency":
			if b := f.GetMetric()[0].GetHistogram().GetBucket(); len(b) != 2 || b[0].GetUpperBound() != 7 {
				t.Errorf("buckets %v", b)
			}
			found++
		case "dapr_http_server_request_bytes":
			if b := f.GetMetric()[0].GetHistogram().GetBucket(); len(b) != len(sizes) {
				t.Errorf("buckets of sizes %v", b)
			}
			found++
		case "dapr_error_code_total":
			if got := f.GetMetric()[0].String(); !strings.Contains(got, `"A"`) || !strings.Contains(got, "ERR_X") {
				t.Errorf("got %s", got)
			}
			found++
		}
	}
	if found != 3 {
		t.Errorf("%d of 3 metrics", found)
	}
	low := NewMetrics()
	low.EnableDapr("a", "default", DaprOptions{LowCardinality: true, ExcludeVerbs: true})
	low.Dapr().HTTPServed("POST", "/x", 200, 1, 1, time.Millisecond)
	low.Dapr().Failed("ERR_X", "common")
	if n := testutil.ToFloat64(low.Dapr().families["dapr_http_server_request_count"].counters.WithLabelValues("", "", "200")); n != 1 {
		t.Errorf("%v requests without path and verb", n)
	}
	if low.Dapr().families["dapr_http_server_response_count"] != nil || low.Dapr().families["dapr_error_code_total"] != nil {
		t.Error("there are metrics that daprd has not")
	}
}
