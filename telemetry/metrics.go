// Package telemetry measures and traces what the blocks do. Metrics are Prometheus histograms whose labels come from
// bounded sets (block, target, operation, kind of error: never a method, key or topic the app made up); traces are
// OpenTelemetry spans, made only when the standard OTEL_ variables name an exporter.
//
//	m := telemetry.NewMetrics()
//	defer m.Observe(telemetry.Op{Block: "state", Target: "statestore", Name: "get"}, time.Now(), &err)
package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/sidecast/sidecast/fault"
)

// buckets reach from a tenth of a millisecond, where a local state read is, to half a minute.
var buckets = []float64{
	.0001, .00025, .0005, .00075, .001, .0015, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30,
}

// Op names what is measured. Its values must come from bounded sets.
type Op struct {
	// Block is `invocation`, `pubsub`, `state`, `lock` or `app`.
	Block string
	// Target is a component, or an app id that presence knows.
	Target string
	// Name is the operation: `invoke`, `publish`, `get`.
	Name string
}

// Metrics owns the process's registry. All methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry
	seconds  *prometheus.HistogramVec
	series   sync.Map // seriesKey → prometheus.Observer: With on a vector hashes and locks, this does not
	dapr     *Dapr    // nil unless enabled
}

type seriesKey struct {
	op   Op
	kind fault.Kind
}

// NewMetrics makes a registry that holds the Go runtime's and the process's own metrics too.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "sidecast_operation_seconds",
			Help:    "Time an operation of a building block took, by its outcome.",
			Buckets: buckets,
		}, []string{"block", "target", "operation", "kind"}),
	}
	m.registry.MustRegister(m.seconds, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registry is where other collectors of this process register, and what /metrics serves.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Observe records one operation. It is made for defer: err is read when the operation returns.
func (m *Metrics) Observe(op Op, began time.Time, err *error) {
	key := seriesKey{op, fault.KindOf(*err)}
	observer, ok := m.series.Load(key)
	if !ok {
		observer, _ = m.series.LoadOrStore(key,
			m.seconds.WithLabelValues(op.Block, op.Target, op.Name, key.kind.String()))
	}
	observer.(prometheus.Observer).Observe(time.Since(began).Seconds())
}
