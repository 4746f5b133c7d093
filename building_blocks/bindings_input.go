package blocks

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/telemetry"
)

// handedBack is the pace at which a binding is told that the app failed: by failures in a row, for most systems give an event
// out again at once.
var handedBack = resiliency.Retry{Max: -1, Initial: 100 * time.Millisecond, MaxInterval: 5 * time.Second, Multiplier: 2, Jitter: .2}

// longestHandBack bounds the pause that an app asks for: it holds the event, and with many bindings all that come behind it.
const longestHandBack = time.Minute

// reader moves the events of one binding to the app.
type reader struct {
	block    *Bindings
	event    appchannel.InputBinding
	taker    appchannel.BindingTaker
	lane     *guard
	ending   context.Context // ends when no more events are read
	failures atomic.Int32    // in a row
}

// readFrom gives the app the events of a binding until ctx ends. It fails when they cannot be read, or the component is
// replaced.
func (b *Bindings) readFrom(ctx context.Context, name string) error {
	use, err := b.components.InputBinding(ctx, name)
	if err != nil {
		return err
	}
	defer use.Release()
	current, cancel := whileCurrent(ctx, use)
	defer cancel()
	lane := b.rules.guard("input/"+name, false, func(r *governance.Rules) governance.Target {
		return r.Inbound(governance.Binding, name, deliveryPolicy)
	})
	defer func() { _ = lane.Close(context.Background()) }() // nothing runs in it: there is nothing to wait for
	r := &reader{
		block: b, event: appchannel.InputBinding{Name: name, Route: use.Binding.Route}, lane: lane, ending: current,
		taker: b.app.channel.(appchannel.BindingTaker), // or else nothing is read
	}
	b.log.Info("the binding is read", "binding", name, "type", use.Type)
	if err := replacedOr(current, use.Backend.Read(current, r.handle)); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// handle gives the app an event, and does what its answer asks for.
func (r *reader) handle(e binding.Event) ([]byte, error) {
	answer, err := r.deliver(e)
	if err == nil {
		r.failures.Store(0)
		return answer, nil
	}
	wait := handBack(err, int(r.failures.Add(1)))
	r.block.log.Info("an event of a binding was not handled", "binding", r.event.Name, "error", err)
	_ = pause(r.ending, wait)
	return nil, err
}

// handBack is how long a binding is not told that the app failed: as long as the app asks for, within bounds.
func handBack(err error, failures int) time.Duration {
	return cmp.Or(min(fault.RetryAfter(err), longestHandBack), handedBack.Pace(failures))
}

func (r *reader) deliver(e binding.Event) (body []byte, err error) {
	b, name := r.block, r.event.Name
	event := &appchannel.BindingEvent{InputBinding: r.event, Data: e.Data, Metadata: e.Metadata, Header: traceIn(e.Metadata)}
	defer b.metrics.Observe(telemetry.Op{Block: "bindings", Target: name, Name: "read"}, time.Now(), &err)
	defer func(began time.Time) { b.metrics.Dapr().InputBinding(name, began, err) }(time.Now())
	var answer *appchannel.BindingAnswer
	answered := 0
	_, overHTTP := r.taker.(*appchannel.HTTP)
	ctx, span := b.tracer.Read(b.working, &event.Header, name, overHTTP)
	defer func() { span.EndAnswered(&err, answered) }()
	err = r.lane.Do(ctx, resiliency.Call{Op: "read", Idempotent: true, Header: &event.Header}, func(ctx context.Context, _ actors.Grant) (err error) {
		if answer, err = b.app.takeBinding(ctx, r.taker, event); answer != nil {
			answered = answer.Status
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	b.obey(ctx, name, answer)
	return answer.Body, nil
}

// traceIn is the trace context that an event came with.
func traceIn(metadata map[string]string) call.Header {
	var header call.Header
	for _, key := range []string{"traceparent", "tracestate", "baggage"} {
		if value := metadata[key]; value != "" {
			header.Add(key, value)
		}
	}
	return header
}

// takeBinding gives the app an event of a binding, in the app's own lane.
func (a *App) takeBinding(ctx context.Context, taker appchannel.BindingTaker, event *appchannel.BindingEvent) (answer *appchannel.BindingAnswer, err error) {
	err = a.lane.Lane.Do(ctx, resiliency.Call{Op: event.Name, Idempotent: true}, func(ctx context.Context, _ actors.Grant) error {
		if err := a.channel.Ready(); err != nil {
			return err
		}
		var err error
		if answer, err = taker.TakeBinding(ctx, event); err != nil {
			return err
		}
		if answer.Status == 0 || answer.Status/100 == 2 {
			return nil
		}
		failure := fault.E("binding "+event.Name, fault.KindFromHTTP(answer.Status), fault.AppFailed, errStatus(answer.Status))
		failure.RetryAfter = call.RetryAfter(answer.Header.Get("retry-after"), time.Now())
		return failure
	})
	return answer, err
}

// obey does what an answer asks for: first it saves state, then it sends on. The app has handled the event, so what fails is
// written to the log, and the event does not come again for it.
func (b *Bindings) obey(ctx context.Context, name string, answer *appchannel.BindingAnswer) {
	if len(answer.State) > 0 {
		if err := b.save(ctx, answer); err != nil {
			b.log.Error("the state that the app answered a binding's event with is not saved", "binding", name, "store", answer.StoreName, "error", err)
		}
	}
	send := func(to string) error {
		_, err := b.Invoke(ctx, to, binding.Request{Operation: "create", Data: answer.Data}, nil)
		if err != nil {
			b.log.Error("what the app answered a binding's event with is not sent on", "binding", name, "to", to, "error", err)
		}
		return err
	}
	if answer.Parallel {
		var sending sync.WaitGroup
		for _, to := range answer.To {
			sending.Go(func() { _ = send(to) })
		}
		sending.Wait()
		return
	}
	for _, to := range answer.To {
		if send(to) != nil {
			return // as with daprd, the rest is not sent
		}
	}
}

// save writes the items of an answer, all or none. The last one of a key counts.
func (b *Bindings) save(ctx context.Context, answer *appchannel.BindingAnswer) error {
	if found, _ := b.components.Has(components.StateBlock, answer.StoreName); !found {
		return fault.New("state "+answer.StoreName, fault.ComponentNotFound, "no component has that name")
	}
	ops, at := make([]state.Op, 0, len(answer.State)), map[string]int{}
	for _, item := range answer.State {
		op, err := stateOp(item)
		if err != nil {
			return err
		}
		if before, twice := at[op.Key]; twice {
			ops[before] = op
			continue
		}
		at[op.Key] = len(ops)
		ops = append(ops, op)
	}
	_, err := b.state.Apply(ctx, answer.StoreName, ops)
	return err
}
