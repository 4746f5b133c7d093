package daprapi

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidecast/sidecast/actors"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/telemetry"
)

// ScrapedMetrics are those of Dapr's that are asked for when they are scraped, and cost calls nothing.
func ScrapedMetrics() []telemetry.DaprMetric {
	policy := []string{"flow_direction", "name", "namespace", "policy", "status", "target"}
	return []telemetry.DaprMetric{
		{Name: "dapr_runtime_component_loaded", Type: "counter", Help: "The number of successfully loaded components."},
		{Name: "dapr_runtime_component_init_total", Type: "counter", Help: "The number of initialized components.", Labels: []string{"component"}},
		{Name: "dapr_runtime_component_init_fail_total", Type: "counter", Help: "The number of component initialization failures.", Labels: []string{"component", "componentName", "reason"}},
		{Name: "dapr_resiliency_loaded", Type: "counter", Help: "Number of resiliency policies loaded.", Labels: []string{"name", "namespace"}},
		{Name: "dapr_resiliency_count", Type: "counter", Help: "Number of times a resiliency policyKey has been applied to a building block.", Labels: policy},
		{Name: "dapr_resiliency_activations_total", Type: "counter", Help: "Number of times a resiliency policyKey has been activated in a building block after a failure or after a state change.", Labels: policy},
		{Name: "dapr_resiliency_cb_state", Type: "gauge", Help: "A resiliency policy's current CircuitBreakerState state: 1 for the one that it is in.", Labels: policy},
	}
}

// scraped collects ScrapedMetrics.
type scraped struct {
	blocks    *blocks.Blocks
	rules     telemetry.LabelRules
	namespace string
	metrics   map[string]*scrapedMetric
}

type scrapedMetric struct {
	telemetry.DaprMetric
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// NewCollector collects ScrapedMetrics of one sidecar, whose labels rules rewrite. The namespace is that of the resources: "" where
// the sidecar is told none.
func NewCollector(b *blocks.Blocks, rules telemetry.LabelRules, appID, namespace string) prometheus.Collector {
	c := &scraped{blocks: b, rules: rules, namespace: namespace, metrics: map[string]*scrapedMetric{}}
	for _, m := range ScrapedMetrics() {
		fixed := prometheus.Labels{"app_id": rules.Label(m.Name, "app_id", appID)}
		one := &scrapedMetric{m, prometheus.NewDesc(m.Name, m.Help, m.Labels, fixed), prometheus.CounterValue}
		if m.Type == "gauge" {
			one.kind = prometheus.GaugeValue
		}
		c.metrics[m.Name] = one
	}
	return c
}

// Describe sends the descriptions.
func (c *scraped) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		out <- m.desc
	}
}

// Collect asks the components and the lanes.
func (c *scraped) Collect(out chan<- prometheus.Metric) {
	sums := map[string]*series{} // what rules make one series of is counted together
	defer func() {
		for _, s := range sums {
			out <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value, s.labels...)
		}
	}()
	send := func(name string, value float64, labels ...string) {
		m := c.metrics[name]
		for i := range labels {
			labels[i] = c.rules.Label(name, m.Labels[i], labels[i])
		}
		key := name + "\xff" + strings.Join(labels, "\xff")
		if sums[key] == nil {
			sums[key] = &series{scrapedMetric: m, labels: labels}
		}
		sums[key].value += value
	}
	components := c.blocks.Runtime.Describe().Components
	types := map[string]float64{}
	for _, one := range components {
		if one.State == "degraded" {
			send("dapr_runtime_component_init_fail_total", 1, one.Type, one.Name, "init")
		} else {
			types[one.Type]++
		}
	}
	send("dapr_runtime_component_loaded", float64(len(components)))
	for kind, n := range types {
		send("dapr_runtime_component_init_total", n, kind)
	}
	rules := c.blocks.Rules()
	for name, n := range rules.Documents() {
		send("dapr_resiliency_loaded", float64(n), name, c.namespace)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for at, u := range c.uses(c.blocks.Runtime.Tree(ctx), rules) {
		u.send(at, c.namespace, send)
	}
}

type series struct {
	*scrapedMetric
	labels []string
	value  float64
}

// policyAt is a place where a policy of a Resiliency resource is applied.
type policyAt struct{ name, target, direction string }

// uses sums up what the lanes of one such place have done; those of the topics of a component are one.
type uses struct {
	policy            resiliency.Policy // what the resource says, and nothing else
	calls, tripped    uint64            // tripped: refused by the breaker
	retried, timedOut uint64
	turned            map[string]uint64 // breaker states entered
	states            map[string]bool   // it is in
}

func (c *scraped) uses(n actors.Node, rules *governance.Rules) map[policyAt]*uses {
	all := map[policyAt]*uses{}
	var walk func(actors.Node)
	walk = func(n actors.Node) {
		for _, child := range n.Children {
			walk(child)
		}
		if n.Lane == nil {
			return
		}
		at, policy, ok := placeOf(n.Name, rules)
		if !ok {
			return
		}
		u := all[at]
		if u == nil {
			u = &uses{policy: policy, turned: map[string]uint64{}, states: map[string]bool{}}
			all[at] = u
		}
		u.calls += n.Lane.Admitted
		u.tripped += n.Lane.RefusedFor[fault.BreakerOpen]
		u.retried, u.timedOut = u.retried+n.Lane.Retried, u.timedOut+n.Lane.TimedOut
		for state, times := range n.Lane.Turned.All {
			u.turned[breakerState(state)] += times
		}
		if !strings.HasSuffix(n.Name, streamLane) { // whose breaker is another
			u.states[breakerState(n.Lane.Breaker)] = true
		}
	}
	walk(n)
	return all
}

// streamLane ends the name of the lane of an app's streams.
const streamLane = "/streams"

// placeOf is what a lane's name says of where it stands, and what Dapr's resources say of it.
func placeOf(lane string, rules *governance.Rules) (at policyAt, p resiliency.Policy, ok bool) {
	block, name, _ := strings.Cut(lane, "/")
	if resiliency.IsRuleLane(lane) || name == "" {
		return at, p, false
	}
	at.direction = "outbound"
	switch block {
	case "app":
		name = strings.TrimSuffix(name, streamLane)
		at.target, p = "app_"+name, rules.App(name, p).Policy
	case "state":
		at.target, p = governance.Statestore+"_"+name, rules.Component(governance.Statestore, name, p).Policy
	case "pubsub":
		at.target, p = governance.Pubsub+"_"+name, rules.Component(governance.Pubsub, name, p).Policy
	case "lock":
		at.target, p = governance.Lock+"_"+name, rules.Component(governance.Lock, name, p).Policy
	case "secrets":
		at.target, p = governance.Secretstore+"_"+name, rules.Component(governance.Secretstore, name, p).Policy
	case "configuration":
		at.target, p = governance.Configuration+"_"+name, rules.Component(governance.Configuration, name, p).Policy
	case "settings":
		at.target, at.direction, p = governance.Configuration+"_"+name, "inbound", rules.Inbound(governance.Configuration, name, p).Policy
	case "crypto":
		at.target, p = governance.Crypto+"_"+name, rules.Component(governance.Crypto, name, p).Policy
	case "conversation":
		at.target, p = governance.Conversation+"_"+name, rules.Component(governance.Conversation, name, p).Policy
	case "bindings":
		at.target, p = governance.Binding+"_"+name, rules.Component(governance.Binding, name, p).Policy
	case "input":
		at.target, at.direction, p = governance.Binding+"_"+name, "inbound", rules.Inbound(governance.Binding, name, p).Policy
	case "sub":
		name, _, _ = strings.Cut(name, "/")
		at.target, at.direction, p = governance.Pubsub+"_"+name, "inbound", rules.Delivery(name, p).Policy
	}
	document, _, named := strings.Cut(p.Name, "/")
	if named {
		at.name = document
	}
	return at, p, p.Name != ""
}

// breakerState is a state of a breaker in Dapr's words, which has no ramp.
func breakerState(state string) string {
	if state == "ramping" {
		return "half-open"
	}
	return state
}

func (u *uses) send(at policyAt, namespace string, send func(string, float64, ...string)) {
	tell := func(metric string, value uint64, policy, status string) {
		send(metric, float64(value), at.direction, at.name, namespace, policy, status, at.target)
	}
	const count, activations, state = "dapr_resiliency_count", "dapr_resiliency_activations_total", "dapr_resiliency_cb_state"
	if u.policy.CallTimeout > 0 || u.policy.AttemptTimeout > 0 {
		tell(count, u.calls, "timeout", "")
		tell(activations, u.timedOut, "timeout", "")
	}
	if u.policy.Retry.Max != 0 {
		tell(count, u.calls, "retry", "")
		tell(activations, u.retried, "retry", "")
	}
	if u.policy.Breaker.OpenFor <= 0 {
		return
	}
	tell(count, u.calls, "circuitbreaker", "closed")
	tell(count, u.tripped, "circuitbreaker", "open")
	for _, s := range []string{"closed", "half-open", "open", "unknown"} {
		if u.turned[s] > 0 {
			tell(activations, u.turned[s], "circuitbreaker", s)
		}
		is := uint64(0)
		if u.states[s] {
			is = 1
		}
		tell(state, is, "circuitbreaker", s)
	}
}
