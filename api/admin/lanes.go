package admin

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidecast/sidecast/actors"
	blocks "github.com/sidecast/sidecast/building_blocks"
)

// maxLanes is how many lanes have series of their own. Those beyond it share the label otherLanes.
const (
	maxLanes   = 200
	otherLanes = "_other"
)

// scrapeTimeout bounds how long a scrape waits for the actors.
const scrapeTimeout = 2 * time.Second

// LaneMetric documents a metric of lanes.
type LaneMetric struct {
	// Name is all of it; Type is `gauge`, `counter` or `histogram`.
	Name, Type string
	// Labels beside `lane`.
	Labels []string
	Help   string

	desc *prometheus.Desc
}

func laneMetric(kind, name, help string, labels ...string) *LaneMetric {
	name = "sidecast_lane_" + name
	return &LaneMetric{name, kind, labels, help, prometheus.NewDesc(name, help, append([]string{"lane"}, labels...), nil)}
}

var (
	laneInFlight      = laneMetric("gauge", "in_flight", "Calls that a lane has admitted and that have not ended.")
	laneInFlightLimit = laneMetric("gauge", "in_flight_limit", "Most calls in flight now; 0 is no limit.")
	laneQueued        = laneMetric("gauge", "queued", "Calls that wait for a turn.")
	laneQueueLimit    = laneMetric("gauge", "queue_limit", "Most calls that may wait now.")
	laneAdmitting     = laneMetric("gauge", "admitting", "1 while the lane takes calls, 0 while an operator has paused or drained it.")
	laneOverridden    = laneMetric("gauge", "overridden", "Values of the lane's policy that an operator has changed.")
	laneAdmitted      = laneMetric("counter", "admitted_total", "Calls that a lane has let through.")
	laneRefused       = laneMetric("counter", "refused_total", "Calls that a lane has refused.", "reason")
	laneFailed        = laneMetric("counter", "failed_total", "Attempts that failed.")
	laneRetried       = laneMetric("counter", "retried_total", "Attempts beyond a call's first.")
	laneHedged        = laneMetric("counter", "hedged_total", "Attempts that were started beside another.")
	laneFallbacks     = laneMetric("counter", "fallbacks_total", "Calls that a fallback answered.")
	laneQueueSeconds  = laneMetric("histogram", "queue_seconds", "Time that calls which had to wait were in the queue.")
	laneState         = laneMetric("gauge", "breaker_state", "1 for the state that the breaker is in: closed, open, half-open or ramping. Of lanes that have one.", "state")
	laneTurned        = laneMetric("counter", "breaker_transitions_total", "Times that the breaker came into a state.", "state")
	laneForced        = laneMetric("gauge", "breaker_forced", "1 while an operator holds the breaker in its state.")
	laneShare         = laneMetric("gauge", "breaker_share", "Share of the calls that the breaker lets pass, 0 to 1.")
	laneLimitRate     = laneMetric("gauge", "rate_limit", "Calls a second that a rate limit admits, all sidecars of a global one together.", "limit")
	laneLimitShare    = laneMetric("gauge", "rate_limit_share", "Part of a rate limit that is this sidecar's own now: 1 of a local one.", "limit")
	laneLimitRefused  = laneMetric("counter", "rate_limit_refused_total", "Calls that a rate limit has refused.", "limit")
	laneShedding      = laneMetric("gauge", "shedding", "Share of the calls that overload protection sheds now, 0 to 1.")
	laneRestarts      = laneMetric("counter", "restarts_total", "Times the lane was restarted by its supervisor.")
)

// LaneMetrics are all metrics of lanes.
func LaneMetrics() []*LaneMetric {
	return []*LaneMetric{
		laneInFlight, laneInFlightLimit, laneQueued, laneQueueLimit, laneAdmitting, laneOverridden, laneAdmitted, laneRefused,
		laneFailed, laneRetried, laneHedged, laneFallbacks, laneQueueSeconds, laneState, laneTurned, laneForced, laneShare,
		laneLimitRate, laneLimitShare, laneLimitRefused, laneShedding,
		laneRestarts,
	}
}

// laneCollector reads the numbers of all lanes when they are asked for, so that they cost calls nothing.
type laneCollector struct {
	tree func(context.Context) actors.Node

	mu sync.Mutex
	// named are the lanes that have series of their own: the first that were seen, as long as they are there.
	named map[string]bool
}

func newLaneCollector(runtime *blocks.Runtime) *laneCollector {
	return &laneCollector{tree: runtime.Tree, named: make(map[string]bool)}
}

// Describe sends the descriptions of the lane metrics.
func (c *laneCollector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range LaneMetrics() {
		out <- m.desc
	}
}

// Collect walks the supervision tree.
func (c *laneCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	lanes := lanesOf(c.tree(ctx), nil)
	c.name(lanes)
	var others readings
	for _, n := range lanes {
		if c.isNamed(n.Name) {
			var own readings
			own.read(n)
			own.send(n.Name, out)
			continue
		}
		others.read(n)
	}
	if len(others.values) > 0 {
		others.forgetShares()
		others.send(otherLanes, out)
	}
}

func lanesOf(n actors.Node, lanes []actors.Node) []actors.Node {
	if n.Lane != nil {
		lanes = append(lanes, n)
	}
	for _, child := range n.Children {
		lanes = lanesOf(child, lanes)
	}
	return lanes
}

// name gives series to lanes, as far as there are any left. A lane keeps its own as long as it is there.
func (c *laneCollector) name(lanes []actors.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	there := make(map[string]bool, len(lanes))
	for _, n := range lanes {
		there[n.Name] = true
	}
	maps.DeleteFunc(c.named, func(name string, _ bool) bool { return !there[name] })
	for _, n := range lanes {
		if len(c.named) == maxLanes {
			return
		}
		c.named[n.Name] = true
	}
}

func (c *laneCollector) isNamed(lane string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.named[lane]
}

// series is one number of a lane.
type series struct {
	metric *LaneMetric
	label  string // the value of the metric's own label, if it has one
}

// readings are the numbers of one lane, or the sums of those of several.
type readings struct {
	values  map[series]float64
	waits   uint64
	waited  time.Duration
	buckets map[float64]uint64 // by bound in seconds; not cumulative
}

// read adds the numbers of a lane.
func (r *readings) read(n actors.Node) {
	l := n.Lane
	if r.values == nil {
		r.values, r.buckets = make(map[series]float64), make(map[float64]uint64)
	}
	add := func(m *LaneMetric, label string, v float64) { r.values[series{m, label}] += v }
	add(laneInFlight, "", float64(l.InFlight))
	add(laneInFlightLimit, "", float64(l.InFlightLimit))
	add(laneQueued, "", float64(l.Queued))
	add(laneQueueLimit, "", float64(l.QueueLimit))
	add(laneAdmitting, "", truth(l.Admission == ""))
	add(laneOverridden, "", float64(len(l.Overridden)))
	add(laneAdmitted, "", float64(l.Admitted))
	for reason, times := range l.RefusedFor {
		add(laneRefused, string(reason), float64(times))
	}
	add(laneFailed, "", float64(l.Failed))
	add(laneRetried, "", float64(l.Retried))
	add(laneHedged, "", float64(l.Hedged))
	add(laneFallbacks, "", float64(l.Fallbacks))
	for state, times := range l.Turned.All {
		if l.Breaker != "" {
			add(laneState, state, truth(state == l.Breaker))
		}
		if l.Breaker != "" || times > 0 {
			add(laneTurned, state, float64(times))
		}
	}
	if l.Breaker != "" {
		add(laneForced, "", truth(l.BreakerForced))
		add(laneShare, "", l.BreakerShare)
	}
	add(laneShedding, "", l.Shedding)
	for _, limit := range l.Limits {
		share := 1.0
		if limit.Scope == "global" {
			share = limit.Share
		}
		add(laneLimitRate, limit.Name, float64(limit.Limit)/limit.Per.Seconds())
		add(laneLimitShare, limit.Name, share)
		add(laneLimitRefused, limit.Name, float64(limit.Refused))
	}
	add(laneRestarts, "", float64(n.Restarts))
	r.waits += l.Waited.Count
	r.waited += l.Waited.Sum
	for bound, times := range l.Waited.All {
		r.buckets[bound.Seconds()] += times
	}
}

// forgetShares leaves out what does not add up.
func (r *readings) forgetShares() {
	maps.DeleteFunc(r.values, func(s series, _ float64) bool {
		return s.metric == laneShare || s.metric == laneLimitRate || s.metric == laneLimitShare || s.metric == laneShedding
	})
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// send makes metrics of the readings.
func (r *readings) send(lane string, out chan<- prometheus.Metric) {
	for s, v := range r.values {
		labels := []string{lane}
		if len(s.metric.Labels) > 0 {
			labels = append(labels, s.label)
		}
		kind := prometheus.GaugeValue
		if s.metric.Type == "counter" {
			kind = prometheus.CounterValue
		}
		out <- prometheus.MustNewConstMetric(s.metric.desc, kind, v, labels...)
	}
	upTo := uint64(0)
	cumulative := make(map[float64]uint64, len(r.buckets))
	for _, bound := range slices.Sorted(maps.Keys(r.buckets)) {
		upTo += r.buckets[bound]
		cumulative[bound] = upTo
	}
	out <- prometheus.MustNewConstHistogram(laneQueueSeconds.desc, r.waits, r.waited.Seconds(), cumulative, lane)
}
