package blocks

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/telemetry"
)

// componentLanes are the lanes of one block's components, one each. Only components that exist get one.
type componentLanes struct {
	rules   *rulebook
	block   string
	kind    string // of component, as rules name it
	policy  resiliency.Policy
	metrics *telemetry.Metrics
	tracer  *telemetry.Tracer

	mu    sync.Mutex // held to make a lane
	lanes sync.Map   // component → *guard
}

func newComponentLanes(d Deps, rules *rulebook, block, kind string) *componentLanes {
	return &componentLanes{rules: rules, block: block, kind: kind, policy: componentPolicy, metrics: d.Metrics, tracer: d.Tracer}
}

// under is c with another default than that of most components.
func (c *componentLanes) under(policy resiliency.Policy) *componentLanes {
	c.policy = policy
	return c
}

// record is an operation on a component, as metrics and traces are told of it.
type record struct {
	metrics *telemetry.Metrics
	op      telemetry.Op
	began   time.Time
	span    telemetry.Span
}

// begin begins the record of an operation, and its span.
func (c *componentLanes) begin(ctx context.Context, component, op string) (context.Context, record) {
	ctx, span := c.tracer.Start(ctx, trace.SpanKindClient, nil, c.block, " ", op, " ", component)
	return ctx, record{c.metrics, telemetry.Op{Block: c.block, Target: component, Name: op}, time.Now(), span}
}

// end ends it with the outcome that err holds.
func (r record) end(err *error) {
	r.metrics.Observe(r.op, r.began, err)
	r.span.End(err)
}

func (c *componentLanes) of(component string) *guard {
	if lane, ok := c.lanes.Load(component); ok {
		return lane.(*guard)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if lane, ok := c.lanes.Load(component); ok {
		return lane.(*guard)
	}
	lane := c.rules.guard(c.block+"/"+component, false, func(r *governance.Rules) governance.Target {
		return r.Component(c.kind, component, c.policy)
	})
	c.lanes.Store(component, lane)
	return lane
}

// deliveryLanes are the lanes of topics that somebody subscribes to. Topics are the apps' own words, so a lane lives no
// longer than its subscriptions.
type deliveryLanes struct {
	rules *rulebook

	mu    sync.Mutex
	lanes map[string]*deliveryLane // by name
}

type deliveryLane struct {
	*guard
	users int
}

// use returns the lane of a topic until done is called.
func (d *deliveryLanes) use(pubsub, topic string) (lane *guard, done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := "sub/" + pubsub + "/" + topic
	l := d.lanes[name]
	if l == nil {
		l = &deliveryLane{guard: d.rules.guard(name, false, func(r *governance.Rules) governance.Target {
			return r.Delivery(pubsub, deliveryPolicy).Of(topic)
		})}
		d.lanes[name] = l
	}
	l.users++
	return l.guard, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(d.lanes, name)
			_ = l.Close(context.Background()) // nothing runs in it: there is nothing to wait for
		}
	}
}

// whileCurrent is for who uses a component for long: the context also ends when the component is replaced, so that the
// old backend can be closed.
func whileCurrent[T any](ctx context.Context, use components.Use[T]) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-use.Replaced():
			cancel(fault.New("component "+use.Name, fault.ComponentReplaced, "its file changed; start again to use the new one"))
		case <-done:
		}
	}()
	return ctx, sync.OnceFunc(func() {
		close(done)
		cancel(nil)
	})
}

// replacedOr is the error of a context that ended because its component was replaced, or else err.
func replacedOr(ctx context.Context, err error) error {
	var replaced *fault.Error
	if errors.As(context.Cause(ctx), &replaced) && replaced.Reason == fault.ComponentReplaced {
		return replaced
	}
	return err
}
