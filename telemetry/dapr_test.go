package telemetry

import (
	"fmt"
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
	m.EnableDapr("app", "default")
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
	for path, want := range map[string]string{
		"/v1.0/state/store/key": "/v1.0/state/store", "/v1.0/state/store/a/b": "/v1.0/state/store", "/v1.0/state/store": "/v1.0/state/store",
		"/v1.0/invoke/a/method/b": "/v1.0/invoke/a/method/b", "/": "/", "": "", "//x": "//x",
	} {
		if got := pathLabel(path); got != want {
			t.Errorf("%q is %q, not %q", path, got, want)
		}
	}
}
