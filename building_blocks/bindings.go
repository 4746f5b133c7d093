package blocks

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/telemetry"
)

// Bindings has systems outside do operations, and gives the app their events. The block owns lanes, the choice of what the app
// hears of, the pace at which events come again, and what an app's answer asks for.
type Bindings struct {
	log        *slog.Logger
	system     *actors.System
	components *components.Set
	app        *App
	state      *State
	lanes      *componentLanes
	rules      *rulebook
	metrics    *telemetry.Metrics
	tracer     *telemetry.Tracer

	mu      sync.Mutex
	inputs  []appchannel.InputBinding // that the app is asked about
	watch   *actors.Worker            // asks it; nil while there are none
	asking  int                       // how often watch was made anew
	reading map[string]*actors.Worker // by name
	ended   map[string]chan struct{}  // closed when nothing that was left reads the binding any more; by name
	leaving sync.WaitGroup            // workers that are being stopped
	stopped bool

	working context.Context // of all events at work
	cut     func()          // ends it
}

func newBindings(d Deps, app *App, state *State, rules *rulebook) *Bindings {
	working, cut := context.WithCancel(context.Background())
	return &Bindings{
		log: d.Log, system: d.System, components: d.Components, app: app, state: state,
		lanes: newComponentLanes(d, rules, "bindings", governance.Binding).under(bindingPolicy),
		rules: rules, metrics: d.Metrics, tracer: d.Tracer, reading: map[string]*actors.Worker{}, ended: map[string]chan struct{}{},
		working: working, cut: cut,
	}
}

// Find is the binding of that name, and whether the app may use one. It opens nothing.
func (b *Bindings) Find(name string) (components.Binding, bool) { return b.components.Binding(name) }

// Invoke has a binding do r.Operation. Trace is the caller's trace context; from then on r.Metadata names the span of the
// operation. An error may come with a response: what the system told beside it.
func (b *Bindings) Invoke(ctx context.Context, component string, r binding.Request, traced call.Header) (response *binding.Response, err error) {
	use, err := b.components.OutputBinding(ctx, component)
	if err != nil {
		return nil, err
	}
	defer use.Release()
	defer func(began time.Time) { b.metrics.Dapr().OutputBinding(use.Name, r.Operation, began, err) }(time.Now())
	if known := use.Backend.Operations(); !slices.Contains(known, r.Operation) {
		return nil, fault.New("", fault.NotSupported, "binding %s does not support operation %s. supported operations:%s",
			component, r.Operation, strings.Join(known, " "))
	}
	ctx, span := b.tracer.Start(ctx, trace.SpanKindClient, &traced, "bindings ", r.Operation, " ", use.Name)
	done := record{b.metrics, telemetry.Op{Block: "bindings", Target: use.Name, Name: r.Operation}, time.Now(), span}
	defer done.end(&err)
	if len(traced) > 0 {
		r.Metadata = withTrace(r.Metadata, traced)
	}
	err = b.lanes.of(use.Name).Do(ctx, resiliency.Call{Op: r.Operation, Header: &traced}, func(ctx context.Context, _ actors.Grant) (err error) {
		response, err = use.Backend.Invoke(ctx, r)
		return err
	})
	return response, err
}

// withTrace is metadata with the trace context.
func withTrace(metadata map[string]string, traced call.Header) map[string]string {
	all := make(map[string]string, len(metadata)+len(traced))
	for key, value := range metadata {
		all[key] = value
	}
	for _, f := range traced {
		all[f.Key] = f.Value
	}
	return all
}

// follow has the app asked about the bindings that there are now. Those that are read go on as far as nothing changed.
func (b *Bindings) follow() {
	taker, ok := b.app.channel.(appchannel.BindingTaker)
	b.mu.Lock()
	defer b.mu.Unlock()
	inputs := b.wanted()
	if b.stopped || slices.Equal(inputs, b.inputs) {
		return
	}
	if !ok {
		b.log.Warn("no binding is read: the app is reached in a way that has no events of bindings", "channel", b.app.channel.Kind())
		return
	}
	b.inputs = inputs
	b.asking++
	asking := b.asking
	if b.watch != nil {
		b.leave(b.watch)
		b.watch = nil
	}
	if len(inputs) == 0 {
		b.read(nil)
		return
	}
	b.watch = b.system.Worker("bindings", func(ctx context.Context) error {
		return taker.Bindings(ctx, inputs, func(names []string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if asking == b.asking && !b.stopped {
				b.read(names)
			}
		})
	})
}

// wanted are the input bindings, by name.
func (b *Bindings) wanted() []appchannel.InputBinding {
	var all []appchannel.InputBinding
	for name, one := range b.components.Inputs() {
		all = append(all, appchannel.InputBinding{Name: name, Route: one.Route, Declared: one.Declared})
	}
	slices.SortFunc(all, func(x, y appchannel.InputBinding) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// read has exactly the named bindings read. b.mu is held.
func (b *Bindings) read(names []string) {
	for name, worker := range b.reading {
		if !slices.Contains(names, name) {
			delete(b.reading, name)
			b.log.Info("the binding is no longer read", "binding", name)
			before, ended := b.ended[name], make(chan struct{})
			b.ended[name] = ended
			b.leaving.Go(func() {
				defer close(ended)
				_ = worker.Stop(b.working)
				if before != nil {
					<-before
				}
			})
		}
	}
	for _, name := range names {
		if b.reading[name] == nil {
			before := b.ended[name]
			b.reading[name] = b.system.Worker("input/"+name+"/worker", func(ctx context.Context) error {
				if before != nil { // a binding is read once at a time
					select {
					case <-before:
					case <-ctx.Done():
						return nil
					}
				}
				return b.readFrom(ctx, name)
			})
		}
	}
}

// leave stops a worker without waiting for it. b.mu is held.
func (b *Bindings) leave(w *actors.Worker) { b.leaving.Go(func() { _ = w.Stop(b.working) }) }

// stop ends the reading: no new events come, and those at work finish. When ctx ends first, what is left is cut off and stays
// with the system that it is from.
func (b *Bindings) stop(ctx context.Context) error {
	defer context.AfterFunc(ctx, b.cut)()
	b.mu.Lock()
	b.stopped = true
	if b.watch != nil {
		b.leave(b.watch)
	}
	for _, worker := range b.reading {
		b.leave(worker)
	}
	clear(b.reading)
	b.mu.Unlock()
	b.leaving.Wait()
	if ctx.Err() != nil {
		b.cut() // those who waited for ctx were faster
		return fault.FromContext("stop bindings", ctx, "the app to handle their events")
	}
	return nil
}
