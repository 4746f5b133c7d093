package blocks

import (
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
)

// Defaults are the policies of targets that no document names.
func Defaults() governance.Defaults {
	return governance.Defaults{
		App: targetPolicy, Component: componentPolicy, Delivery: deliveryPolicy, Local: appPolicy(0),
		AppUnderDaprd: (&Deps{AsDaprd: true}).base(targetPolicy),
		Kinds:         map[string]resiliency.Policy{governance.Binding: bindingPolicy, governance.Conversation: conversationPolicy},
	}
}

// DefaultAppConcurrency is how many calls and events an app is given at once when nobody says.
const DefaultAppConcurrency = 1024

// appQueue is how many calls may wait for a turn at the local app: enough for a burst, little enough that the last in line
// is served while its caller still waits.
const appQueue = 256

// targetPolicy guards calls to another app. Retries happen only where trying again cannot do the work twice: before the
// call was sent, or when the caller says it is idempotent.
var targetPolicy = resiliency.Policy{
	Name:        "default-app",
	CallTimeout: 30 * time.Second,
	Retry: resiliency.Retry{
		Max: 5, Initial: 50 * time.Millisecond, MaxInterval: 2 * time.Second, Multiplier: 2, Jitter: .5,
		NotHere: []fault.Reason{fault.NoApp},
	},
	Breaker:     resiliency.Breaker{Failures: 50, OpenFor: 2 * time.Second, Probes: 1},
	MaxInFlight: 2048,
	MaxQueue:    2048,
}

// base is the default of calls to apps and servers outside. A sidecar that was started as daprd has no timeout and no breaker for
// them that no document sets, for daprd has none: its apps may take their time, and answer with as many errors as they like. It
// refuses a call to an app that fails its health check, or whose middleware cannot be had, at once, as daprd does, unless there is
// another instance. Where an instance was lost with a call of a verb that may be repeated, it is made again: daprd does so with all
// verbs.
func (d *Deps) base(p resiliency.Policy) resiliency.Policy {
	if d.AsDaprd {
		p.CallTimeout, p.Breaker = 0, resiliency.Breaker{}
		p.Retry.NotHere = []fault.Reason{fault.NoApp, fault.AppUnhealthy, fault.ComponentDegraded}
		p.Retry.Lost = true
	}
	return p
}

// unknownPolicy guards calls to apps that presence does not know (yet).
var unknownPolicy = resiliency.Policy{
	Name:        "unknown-app",
	CallTimeout: 30 * time.Second,
	Retry:       resiliency.Retry{Max: 4, Initial: 50 * time.Millisecond, MaxInterval: time.Second, Multiplier: 2, Jitter: .5},
	MaxInFlight: 256,
	MaxQueue:    256,
}

// streamPolicy guards the opening and the life of streams, which may last as long as their callers like.
var streamPolicy = resiliency.Policy{
	Name:        "default-stream",
	Retry:       targetPolicy.Retry,
	MaxInFlight: 1024,
	MaxQueue:    256,
}

// componentPolicy guards a component. A backend that does not answer is asked again only for what is safe to repeat.
var componentPolicy = resiliency.Policy{
	Name:        "default-component",
	CallTimeout: 15 * time.Second,
	Retry:       resiliency.Retry{Max: 3, Initial: 50 * time.Millisecond, MaxInterval: time.Second, Multiplier: 2, Jitter: .5},
	Breaker:     resiliency.Breaker{Failures: 20, OpenFor: time.Second, Probes: 1},
	MaxInFlight: 512,
	MaxQueue:    2048,
}

// bindingPolicy guards a binding. What its system thinks of a request says little about how the system does, so there is no
// breaker unless a document has one; and an operation may take long.
var bindingPolicy = resiliency.Policy{
	Name:        "default-binding",
	CallTimeout: 5 * time.Minute,
	Retry:       componentPolicy.Retry,
	MaxInFlight: 512,
	MaxQueue:    2048,
}

// conversationPolicy guards a conversation. What a model thinks of a request says little about how it does, an answer takes
// long, and each costs.
var conversationPolicy = resiliency.Policy{
	Name:        "default-conversation",
	CallTimeout: 5 * time.Minute,
	Retry:       componentPolicy.Retry,
	MaxInFlight: 512,
	MaxQueue:    2048,
}

// waitPolicy guards the lines of locks: a waiter costs little and waits as long as its deadline lets it.
var waitPolicy = resiliency.Policy{
	Name:        "lock-wait",
	MaxInFlight: 8192,
}

// deliveryTimeout bounds one handler's work on one event.
const deliveryTimeout = 10 * time.Minute

// deliveryPolicy guards the delivery of one subscription's events. It does not retry: an event that was not handled goes
// back to its broker, which keeps it while it waits.
var deliveryPolicy = resiliency.Policy{
	Name:           "default-subscription",
	AttemptTimeout: deliveryTimeout,
}

// settingPolicy guards what the app is told of its settings: it is told again for as long as an app takes to start anew.
var settingPolicy = resiliency.Policy{
	Name:           "default-setting",
	AttemptTimeout: time.Minute,
	Retry:          resiliency.Retry{Max: 10, Initial: 100 * time.Millisecond, MaxInterval: 5 * time.Second, Multiplier: 2, Jitter: .5},
}

// appPolicy guards the local app. It does not retry: the caller's own lane does.
func appPolicy(maxConcurrency int) resiliency.Policy {
	if maxConcurrency == 0 {
		maxConcurrency = DefaultAppConcurrency
	}
	return resiliency.Policy{Name: "app-max-concurrency", MaxInFlight: maxConcurrency, MaxQueue: appQueue}
}
