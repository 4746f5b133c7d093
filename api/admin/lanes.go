package admin

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sidecast/sidecast/actors"
	blocks "github.com/sidecast/sidecast/building_blocks"
)

// laneCollector reads the numbers of all lanes when they are asked for. Lanes exist for apps that presence has shown,
// components and subscriptions only, so the label is bounded by what is there.
type laneCollector struct{ runtime *blocks.Runtime }

func laneDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("sidecast_lane_"+name, help, []string{"lane"}, nil)
}

var (
	laneInFlight = laneDesc("in_flight", "Calls that a lane has admitted and that have not ended.")
	laneQueued   = laneDesc("queued", "Calls that wait for a turn.")
	laneAdmitted = laneDesc("admitted_total", "Attempts that a lane has let through.")
	laneRefused  = laneDesc("refused_total", "Calls that a lane has refused.")
	laneFailed   = laneDesc("failed_total", "Attempts that failed.")
	laneRetried  = laneDesc("retried_total", "Attempts beyond a call's first.")
	laneOpen     = laneDesc("breaker_open", "1 while the lane's breaker is open, 0.5 while it probes, 0 while it is closed.")
	laneRestarts = laneDesc("restarts_total", "Times the lane was restarted by its supervisor.")
)

// scrapeTimeout bounds how long a scrape waits for the actors.
const scrapeTimeout = 2 * time.Second

// Describe sends the descriptions of the lane metrics.
func (c *laneCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{laneInFlight, laneQueued, laneAdmitted, laneRefused, laneFailed, laneRetried, laneOpen, laneRestarts} {
		out <- d
	}
}

// Collect walks the supervision tree.
func (c *laneCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	collect(c.runtime.Tree(ctx), out)
}

func collect(n actors.Node, out chan<- prometheus.Metric) {
	for _, child := range n.Children {
		collect(child, out)
	}
	l := n.Lane
	if l == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, n.Name)
	}
	counter := func(d *prometheus.Desc, v float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, n.Name)
	}
	gauge(laneInFlight, float64(l.InFlight))
	gauge(laneQueued, float64(l.Queued))
	counter(laneAdmitted, float64(l.Admitted))
	counter(laneRefused, float64(l.Refused))
	counter(laneFailed, float64(l.Failed))
	counter(laneRetried, float64(l.Retried))
	gauge(laneOpen, map[string]float64{"open": 1, "half-open": .5}[l.Breaker])
	counter(laneRestarts, float64(n.Restarts))
}
