package admin

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// TestLaneMetrics reads the numbers of a lane that has done a bit of everything.
func TestLaneMetrics(t *testing.T) {
	d := open(t, "")
	lane := d.system.Lane("app/pricing", resiliency.Policy{
		Name: "p", MaxInFlight: 1, MaxQueue: 1, Limits: []resiliency.RateLimit{{Name: "all", Limit: 240, Per: time.Minute}},
		Retry:   resiliency.Retry{Max: 1, Initial: time.Millisecond},
		Breaker: resiliency.Breaker{Failures: 2, OpenFor: time.Hour},
	})
	works := func(context.Context, actors.Grant) error { return nil }
	in, out, ended := make(chan struct{}), make(chan struct{}), make(chan error, 2)
	go func() {
		ended <- lane.Do(t.Context(), resiliency.Call{}, func(context.Context, actors.Grant) error { close(in); <-out; return nil })
	}()
	<-in
	go func() { ended <- lane.Do(t.Context(), resiliency.Call{}, works) }()
	for lane.Status(t.Context()).Queued == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := lane.Do(t.Context(), resiliency.Call{}, works); fault.ReasonOf(err) != fault.QueueFull {
		t.Fatal(err)
	}
	wants := func(when string, lines ...string) {
		t.Helper()
		_, body := d.ask("GET", "/metrics", "")
		for _, line := range lines {
			if !strings.Contains(body, "\nsidecast_lane_"+line+"\n") {
				t.Errorf("%s: no line %s in\n%s", when, line, body)
			}
		}
	}
	wants("while it runs", `in_flight{lane="app/pricing"} 1`, `in_flight_limit{lane="app/pricing"} 1`, `queued{lane="app/pricing"} 1`,
		`queue_limit{lane="app/pricing"} 1`, `refused_total{lane="app/pricing",reason="QUEUE_FULL"} 1`, `admitted_total{lane="app/pricing"} 1`,
		`breaker_state{lane="app/pricing",state="closed"} 1`, `breaker_state{lane="app/pricing",state="open"} 0`, `breaker_share{lane="app/pricing"} 1`,
		`rate_limit{lane="app/pricing",limit="all"} 4`, `rate_limit_share{lane="app/pricing",limit="all"} 1`, `rate_limit_refused_total{lane="app/pricing",limit="all"} 0`)
	if _, body := d.ask("GET", "/metrics", ""); strings.Contains(body, `breaker_state{lane="unknown-apps"`) || strings.Contains(body, `breaker_share{lane="unknown-apps"`) ||
		!strings.Contains(body, `admitted_total{lane="unknown-apps"}`) {
		t.Errorf("a lane without a breaker tells of one, or nothing at all:\n%s", body)
	}
	close(out)
	for range 2 {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	failing := func(context.Context, actors.Grant) error { return fault.New("op", fault.BackendDown, "down") }
	if err := lane.Do(t.Context(), resiliency.Call{Idempotent: true}, failing); err == nil {
		t.Fatal("it worked")
	}
	wants("open", `in_flight{lane="app/pricing"} 0`, `failed_total{lane="app/pricing"} 2`, `retried_total{lane="app/pricing"} 1`,
		`breaker_state{lane="app/pricing",state="open"} 1`, `breaker_transitions_total{lane="app/pricing",state="open"} 1`,
		`breaker_transitions_total{lane="app/pricing",state="half-open"} 0`, `breaker_share{lane="app/pricing"} 0`, `breaker_forced{lane="app/pricing"} 0`,
		`queue_seconds_count{lane="app/pricing"} 1`, `queue_seconds_bucket{lane="app/pricing",le="+Inf"} 1`, `restarts_total{lane="app/pricing"} 0`)
	for _, order := range []string{`"breaker": "closed"`, `"admission": "drained"`, `"limits": {"inFlight": 7, "rates": {"all": "2/s"}}`} {
		if code, body := d.order(`{"lane": "app/pricing", ` + order + `}`); code != 200 {
			t.Fatal(body)
		}
	}
	wants("steered", `breaker_forced{lane="app/pricing"} 1`, `admitting{lane="app/pricing"} 0`, `overridden{lane="app/pricing"} 2`, `rate_limit{lane="app/pricing",limit="all"} 2`,
		`in_flight_limit{lane="app/pricing"} 7`, `shedding{lane="app/pricing"} 0`, `hedged_total{lane="app/pricing"} 0`, `fallbacks_total{lane="app/pricing"} 0`)
}

// TestLaneLabelsAreBounded: lanes beyond the bound share one label, which sums them up; a lane keeps its own while it is
// there, whatever comes before it in the alphabet.
func TestLaneLabelsAreBounded(t *testing.T) {
	var lanes []actors.Node
	add := func(name string) {
		status := &actors.LaneStatus{RefusedFor: map[fault.Reason]uint64{fault.QueueFull: 2}}
		status.Admitted, status.Breaker, status.BreakerShare = 3, "closed", 1
		status.Waited.Observe(2 * time.Millisecond)
		lanes = append(lanes, actors.Node{Name: name, Kind: "lane", Lane: status})
	}
	for i := range maxLanes {
		add(fmt.Sprintf("m%03d", i))
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&laneCollector{
		tree:  func(context.Context) actors.Node { return actors.Node{Children: lanes} },
		named: make(map[string]bool),
	})
	wants := func(metrics int, text string, names ...string) {
		t.Helper()
		for _, name := range names {
			if n, err := testutil.GatherAndCount(registry, name); err != nil || n != metrics {
				t.Errorf("%s: %d series, want %d (%v)", name, n, metrics, err)
			}
		}
		w := httptest.NewRecorder()
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/", nil))
		if got := w.Body.String(); !strings.Contains(got, text) {
			t.Errorf("no %q in %s", text, got)
		}
	}
	const admitted, refused, queue, share = "sidecast_lane_admitted_total", "sidecast_lane_refused_total", "sidecast_lane_queue_seconds", "sidecast_lane_breaker_share"
	wants(maxLanes, `lane="m199"`, admitted)
	lanes = slices.Insert(lanes, 0, lanes[0]) // a newcomer, the first in the alphabet
	lanes[0].Name = "a"
	add("z")
	wants(maxLanes+1, admitted+`{lane="_other"} 6`, admitted)
	wants(maxLanes+1, refused+`{lane="_other",reason="QUEUE_FULL"} 4`, refused)
	wants(maxLanes+1, queue+`_bucket{lane="_other",le="0.002"} 2`, queue)
	wants(maxLanes, `lane="m000"`, share) // shares are not added up
	lanes = slices.Delete(lanes, 1, 2)    // m000 goes: the newcomer has series of its own now
	wants(maxLanes+1, admitted+`{lane="a"} 3`, admitted)
	wants(maxLanes+1, admitted+`{lane="_other"} 3`, admitted)
}
