package governance

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sidecast/sidecast/resiliency"
)

// Rules are what documents say about the targets of one sidecar. They never change; a reload makes new ones. Nil Rules
// say nothing, and every target keeps its default.
type Rules struct {
	apps       map[string]*target
	components map[string]componentRules
	local      *target
	sergo      []operation // at the local app
	book       *book
	documents  map[string]int // of kind Resiliency, by name
}

// Documents are the names of the Resiliency documents, and how many there are of each.
func (r *Rules) Documents() map[string]int {
	if r == nil {
		return nil
	}
	return r.documents
}

type componentRules struct{ outbound, inbound *target }

// target is what documents say about one.
type target struct {
	named      bool // by a document
	settings   settings
	operations []operation // the most specific first
}

type operation struct {
	pattern  pattern
	app      string // of an OpenSergo rule: whose app it is for, "" every one's
	settings settings
}

// Target is how the calls to one target are guarded: by the policy of its lane and, before it, by that of the first
// operation that matches.
type Target struct {
	Policy     resiliency.Policy
	Operations []Operation
	// Apart is the policy of streams and of calls in pieces where these have a lane of their own; nil where they pass that of
	// the others.
	Apart *resiliency.Policy
}

// Of is the target of a single operation: of the rules only the one for it.
func (t Target) Of(operation string) Target {
	i := slices.IndexFunc(t.Operations, func(o Operation) bool { return o.Matches("", operation) })
	if i < 0 {
		t.Operations = nil
	} else {
		t.Operations = t.Operations[i : i+1]
	}
	return t
}

// Operation is a rule for some operations of a target. Its policy says only what the rule does: it has no defaults.
type Operation struct {
	// Name tells it from the others of the target.
	Name   string
	Policy resiliency.Policy
	// Decides is what the rule does in place of the target.
	Decides resiliency.Decided

	pattern pattern
}

// Matches tells whether the rule is for an operation: a method, a path, a topic or what a component does. Verb is that of
// HTTP, "" where there is none.
func (o *Operation) Matches(verb, operation string) bool { return o.pattern.matches(verb, operation) }

// The types of components as Dapr names them in its default policies.
const (
	Statestore    = "Statestore"
	Pubsub        = "Pubsub"
	Lock          = "Lock"
	Secretstore   = "Secretstore"
	Configuration = "Configuration"
	Crypto        = "Crypto"
	Binding       = "Binding"
	Conversation  = "Conversation"
)

// App is how calls to another app are guarded. Base is what holds where no document says otherwise.
func (r *Rules) App(id string, base resiliency.Policy) Target {
	if r == nil {
		return Target{Policy: base}
	}
	if t, ok := r.apps[id]; ok {
		return t.over(base)
	}
	if built, ok := r.book.builtIn(); ok {
		built.NotHere, built.Lost = base.Retry.NotHere, base.Retry.Lost
		base.Name, base.Retry = builtInService, built
	}
	return Target{Policy: r.book.defaults("App").over(base)}
}

// AppWithPieces is App, and how streams to it are guarded and calls whose bodies travel in pieces: as its calls are, where that can
// be. Pieces is what holds for them where no document says otherwise.
//
// A rate limit, a bound of those in flight or a breaker that a document gives an app counts all that goes to it, so they pass the
// lane of its calls. Otherwise they have one of their own, and do not take the places of calls. Where a document does not say how
// many may be in flight, the bound of pieces keeps some for calls there, too.
func (r *Rules) AppWithPieces(id string, calls, pieces resiliency.Policy) Target {
	t, own := r.App(id, calls), stream(r.App(id, pieces).Policy)
	s := r.settingsOf(id)
	if !s.counts() {
		t.Apart = &own
		return t
	}
	t.Policy.Pieces = &resiliency.Pieces{CallTimeout: own.CallTimeout, AttemptTimeout: own.AttemptTimeout}
	if !s.concurrency.bounds() {
		t.Policy.Pieces.MaxInFlight = own.MaxInFlight
	}
	return t
}

// settingsOf is what documents say of an app, by its name or of all.
func (r *Rules) settingsOf(id string) *settings {
	if r == nil {
		return nil
	}
	if t, ok := r.apps[id]; ok {
		return &t.settings
	}
	return r.book.defaults("App")
}

// Component is how the operations of a component of that type are guarded.
func (r *Rules) Component(kind, name string, base resiliency.Policy) Target {
	if r == nil {
		return Target{Policy: base}
	}
	t := Target{Policy: r.book.defaults(kind+"ComponentOutbound", "ComponentOutbound", "Component").over(base)}
	if c, ok := r.components[name]; ok {
		t = c.outbound.over(base)
	}
	t.Policy.Retry.On = noConflict(t.Policy.Retry.On)
	for i := range t.Operations {
		t.Operations[i].Policy.Retry.On = noConflict(t.Operations[i].Policy.Retry.On)
	}
	return t
}

// noConflict leaves the answers of a backend out of every failure: an ETag that does not match and a lock that another
// holds are no failures that may pass, for Dapr either.
func noConflict(m resiliency.Match) resiliency.Match {
	if slices.Equal(m.Kinds, anyKind()) {
		m.Kinds = anyButConflict()
	}
	return m
}

// Delivery is how the events of a pub/sub component are delivered. Its operations are topics.
func (r *Rules) Delivery(pubsub string, base resiliency.Policy) Target {
	return r.Inbound(Pubsub, pubsub, base)
}

// Inbound is how the app is given what comes from a component of that type.
func (r *Rules) Inbound(kind, name string, base resiliency.Policy) Target {
	if r == nil {
		return Target{Policy: base}
	}
	if c, ok := r.components[name]; ok {
		return c.inbound.over(base)
	}
	return Target{Policy: r.book.defaults(kind+"ComponentInbound", "ComponentInbound", "Component").over(base)}
}

// Local is how calls to the local app are guarded, whoever makes them.
func (r *Rules) Local(base resiliency.Policy) Target {
	if r == nil {
		return Target{Policy: base}
	}
	t := r.local.over(base)
	for _, rule := range r.sergo {
		t.merge(rule.guard(new(settings)))
	}
	slices.SortStableFunc(t.Operations, func(a, b Operation) int { return a.pattern.compare(b.pattern) })
	return t
}

// merge adds a rule: to that of the same operations if there is one.
func (t *Target) merge(o Operation) {
	for i := range t.Operations {
		if own := &t.Operations[i]; own.Name == o.Name {
			own.Policy, _ = joined(own.Policy, o.Policy)
			return
		}
	}
	t.Operations = append(t.Operations, o)
}

// joined is a policy that refuses what either of two refuses. Of two breakers that cannot be one, the first counts.
func joined(a, b resiliency.Policy) (both resiliency.Policy, ok bool) {
	both = a
	both.Name += "+" + b.Name
	both.Limits = slices.Clip(a.Limits)
	for _, limit := range b.Limits {
		both.Limits = withLimit(both.Limits, limit)
	}
	if b.MaxInFlight > 0 && (a.MaxInFlight == 0 || b.MaxInFlight < a.MaxInFlight) {
		both.MaxInFlight, both.MaxQueue, both.Queue = b.MaxInFlight, b.MaxQueue, b.Queue
	}
	breaker, ok := bothBreakers(a.Breaker, b.Breaker)
	if ok {
		both.Breaker = breaker
	}
	both.Fallback = cmp.Or(a.Fallback, b.Fallback)
	return both, ok
}

// withLimit adds a limit under a name that no other has. One that is there already is not counted twice.
func withLimit(limits []resiliency.RateLimit, limit resiliency.RateLimit) []resiliency.RateLimit {
	name := limit.Name
	for n := 2; ; n++ {
		at := slices.IndexFunc(limits, func(l resiliency.RateLimit) bool { return l.Name == limit.Name })
		if at < 0 {
			return append(limits, limit)
		}
		own := limits[at]
		own.Answer = limit.Answer
		if own == limit {
			return limits
		}
		limit.Name = fmt.Sprintf("%s-%d", name, n)
	}
}

func breaks(b resiliency.Breaker) bool {
	return b.Failures > 0 || b.Ratio > 0 || b.SlowRatio > 0 || b.Trip != nil
}

// over lays what documents say about a target over its default.
func (t *target) over(base resiliency.Policy) Target {
	if t == nil {
		return Target{Policy: base}
	}
	all := Target{Policy: t.settings.over(base)}
	for _, o := range t.operations {
		all.Operations = append(all.Operations, o.guard(&t.settings))
	}
	return all
}

// guard is the rule for an operation of a target.
func (o operation) guard(target *settings) Operation {
	s := o.settings
	decides := s.attempted(target)
	return Operation{Name: o.pattern.text, Policy: s.over(resiliency.Policy{}), Decides: decides, pattern: o.pattern}
}
