// Package blocks is what an app can ask of its sidecar: Invocation, PubSub, State, Lock, Bindings, Secrets, Configuration, Crypto and Conversation, one type each. A block holds
// what is true for every backend and every front door: validation, key layout, envelopes, deadlines, lanes, metrics and
// traces. The front doors in api/ translate to and from these types and decide nothing.
//
//	b := blocks.New(blocks.Deps{…})
//	price, err := b.Invocation.Invoke(ctx, &call.Request{App: "pricing", Method: "price", Body: order})
//
// Every method answers exactly once, at its context's deadline at the latest; its errors are faults.
package blocks

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/telemetry"
)

// Self is who this sidecar is.
type Self struct{ AppID, Instance, Namespace, Version string }

// Deps is what the blocks stand on. All of it outlives them.
type Deps struct {
	Self       Self
	Log        *slog.Logger
	System     *actors.System
	Fabric     *fabric.Fabric
	Components *components.Set
	App        appchannel.Channel
	Metrics    *telemetry.Metrics
	Tracer     *telemetry.Tracer // nil makes no spans
	// AppMaxConcurrency is the most calls and events the app is given at once; 0 means DefaultAppConcurrency.
	AppMaxConcurrency int
	// Rules are what documents say about resiliency; nil says nothing. SetRules replaces them.
	Rules *governance.Rules
	// JoinNamespace makes the sidecar a member of another namespace of its fabric, under CallerName; nil keeps it and its app to
	// their own: no calls go out of it and none from others are taken.
	JoinNamespace func(ctx context.Context, namespace string) (*fabric.Fabric, error)
	// Access decides who may call the app; nil lets all. App.SetAccess replaces it.
	Access *access.List
	// Secrets says which secrets the app may read; nil lets it read all.
	Secrets access.SecretScopes
	// Pipeline is the middleware that requests to HTTP servers outside the fabric pass; nil is none.
	Pipeline *pipeline.Client
	// MaxDeliveries is how often an event is delivered before it goes to the dead-letter topic of a subscription that does not
	// say; 0 means 5. What a retry policy makes of one delivery counts once.
	MaxDeliveries int
	// AsDaprd leaves calls to other apps the time they take and the errors they get, unless documents say otherwise, and asks the
	// app what it subscribes to only once there is a broker.
	AsDaprd bool
	// Shutdown asks the process to drain and end.
	Shutdown func()
}

// Blocks are the building blocks of one sidecar.
type Blocks struct {
	App        *App
	Invocation *Invocation
	PubSub     *PubSub
	State      *State
	Lock       *Lock
	Bindings   *Bindings
	Secrets    *Secrets
	Crypto     *Crypto
	// Conversation is with language models.
	Conversation *Conversation
	// Configuration is the settings of the app, not those of the sidecar.
	Configuration *Configuration
	Runtime       *Runtime

	rules  *rulebook
	tracer *telemetry.Tracer
}

// New builds the blocks. Nothing runs until Start.
func New(d Deps) *Blocks {
	rules := newRulebook(d.System, d.Rules)
	app := newApp(d, rules)
	events := newPubSub(d, app, rules)
	invocation := newInvocation(d, rules)
	app.fallback.invoke = invocation.invokeOnce
	store := newState(d, rules)
	store.outbox = newOutbox(d, store, events)
	return &Blocks{
		App:           app,
		Invocation:    invocation,
		PubSub:        events,
		State:         store,
		Lock:          newLock(d, rules),
		Bindings:      newBindings(d, app, store, rules),
		Secrets:       newSecrets(d, rules),
		Crypto:        newCrypto(d, rules),
		Conversation:  newConversation(d, rules),
		Configuration: newConfiguration(d, app, rules),
		Runtime:       &Runtime{deps: d, started: time.Now(), pubsub: events, shutdown: d.Shutdown},
		rules:         rules,
		tracer:        d.Tracer,
	}
}

// Traced reports whether calls have spans.
func (b *Blocks) Traced() bool { return b.tracer.Records() }

// Under is ctx below the trace that a caller names in traceparent, tracestate and baggage, which get looks up.
func (b *Blocks) Under(ctx context.Context, get func(key string) string) context.Context {
	return b.tracer.Under(ctx, get)
}

// Tracing reports whether calls belong to traces, with spans or without.
func (b *Blocks) Tracing() bool { return b.tracer.Traces() }

// Below is Under for a front door that answers with the trace that a call belongs to. It costs: a call that brings no trace to
// a sidecar without spans has nothing to answer with. Where there are spans, that of the call has begun, and is ended by the door.
func (b *Blocks) Below(ctx context.Context, kind trace.SpanKind, name string, get func(key string) string) (context.Context, *telemetry.Answer) {
	return b.tracer.Below(ctx, kind, name, get)
}

// SetRules puts rules into force, in lanes that run without a call being dropped, and in those that come; nil rules say
// nothing.
func (b *Blocks) SetRules(rules *governance.Rules) { b.rules.set(rules) }

// Rules are those in force; nil says nothing.
func (b *Blocks) Rules() *governance.Rules { return b.rules.current() }

// Reloaded takes components into account that were changed.
func (b *Blocks) Reloaded() {
	b.State.outbox.follow()
	b.Bindings.follow()
}

// Start takes calls from the fabric, subscribes to what the app and the manifests ask for and reads bindings.
func (b *Blocks) Start(ctx context.Context, declared []appchannel.Subscription) error {
	b.Invocation.start()
	b.PubSub.start(declared)
	b.State.outbox.follow()
	b.Bindings.follow()
	return b.App.start()
}

// Close leaves the other namespaces that calls went to.
func (b *Blocks) Close(ctx context.Context) error { return b.Invocation.neighbors.close(ctx) }

// StopIntake ends what brings new work: subscriptions and bindings first take no more, then finish what they hold.
func (b *Blocks) StopIntake(ctx context.Context) error {
	defer b.Invocation.outside.close()
	return errors.Join(b.StopEvents(ctx), b.Configuration.stop(ctx))
}

// StopEvents ends the subscriptions and input bindings alone: no new events come, and those at work end, when ctx ends at the
// latest. It may be called more than once, and at the same time: what one call cuts off the others no longer wait for.
func (b *Blocks) StopEvents(ctx context.Context) error {
	var read error
	var reading sync.WaitGroup
	reading.Go(func() { read = b.Bindings.stop(ctx) })
	err := b.PubSub.stop(ctx)
	reading.Wait()
	return errors.Join(err, read)
}
