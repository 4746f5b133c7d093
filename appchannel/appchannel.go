// Package appchannel is how a sidecar reaches its app: over the stream the app opened (App.Serve), or over callbacks to
// the app's port by gRPC or plain HTTP. All three are a Channel and are tested by one suite.
//
// A channel does one attempt of one piece of work and tells what came of it. Limits, queues, timeouts and retries belong
// to the lanes in front of it.
package appchannel

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/routing"
)

// Channel delivers work to the app. All methods may be called concurrently and answer when ctx ends at the latest.
type Channel interface {
	// Kind is `stream`, `grpc`, `http` or `none`.
	Kind() string
	// Invoke hands the app a call and returns its answer. An error of the app's own handler is a fault with the kind and
	// reason the app gave; fault.Unavailable with a NotSent reason means that the app never saw the call.
	Invoke(ctx context.Context, req *call.Request) (*call.Response, error)
	// Stream hands the app a streaming call and returns when both directions have ended.
	Stream(ctx context.Context, req *call.Request, stream call.ServerStream) error
	// Deliver hands the app an event.
	Deliver(ctx context.Context, event *Event) (Outcome, error)
	// Subscriptions tells which events the app wants, and calls again whenever that changes, until ctx ends. Nil says that an app
	// that takes work has not told: what it said before holds.
	Subscriptions(ctx context.Context, changed func([]Subscription)) error
	// Ready is nil when the app takes work, or says why it does not. It does no I/O.
	Ready() error
	// Close lets running work end, then the connections to the app, and waits.
	Close(ctx context.Context) error
}

// Greeter is a Channel to an app that is asked once what it is, before anything else.
type Greeter interface {
	// Greet waits until the app is ready, and asks it.
	Greet(ctx context.Context)
}

// Event is one delivery of an event as the app sees it.
type Event struct {
	ID, PubSub, Topic, Route   string
	Source, Type, Subject, Key string
	Time                       time.Time
	ContentType                string
	Data                       []byte
	// Header holds CloudEvent extensions (traceparent among them) or the header fields of a raw event.
	Header call.Header
	// Beside is what the broker tells beside the event, under the broker's names.
	Beside map[string]string
	// Envelope is the whole CloudEvent in JSON, for apps that want it; nil for raw events.
	Envelope []byte
	// Delivery is 1 at the first delivery to the group.
	Delivery int
	// Raw says that the subscriber asked for payloads as they are stored.
	Raw bool
	// Bulk allows to hand the event over together with others of the same subscription; nil does not.
	Bulk *Bulk
}

// Verdict is what the app says about an event.
type Verdict uint8

// What the app says about an event.
const (
	Success Verdict = iota // handled
	Retry                  // deliver again
	Drop                   // cannot be handled: to the dead-letter topic
)

// Outcome is an app's answer to an event.
type Outcome struct {
	Verdict Verdict
	// Delay is when a retry may come; zero leaves it to the policy.
	Delay time.Duration
	// Reason is why, for the log and the dead letter.
	Reason string
	// Undeliverable says that the app has not seen the event, because it cannot be said in the app's protocol; the verdict is
	// Retry. A dead-letter topic gets it at once.
	Undeliverable bool
	// Status is what an app over HTTP answered, for traces; 0 where it speaks something else or was not asked.
	Status int
}

func unsayable(err error) Outcome {
	return Outcome{Verdict: Retry, Reason: "the event cannot be said in the app's protocol: " + err.Error(), Undeliverable: true}
}

// NoRoute is why an event was dropped whose path an app over HTTP does not have.
const NoRoute = "the app has no such route (404)"

// Subscription is an event the app wants.
type Subscription struct {
	// PubSub is the component, Topic the topic, Group the consumer group ("" means the app id), Route the path or handler.
	PubSub, Topic, Group, Route string
	// DeadLetterTopic takes what was dropped or delivered MaxDeliveries times in vain; "" means none.
	DeadLetterTopic string
	// MaxDeliveries is 0 for the default: 5 with a dead-letter topic, no limit without.
	MaxDeliveries int
	// AckWait is how long a delivery may go unanswered once its handler is gone; 0 means 10 s.
	AckWait time.Duration
	// Raw delivers payloads as they are stored; OnlyNew starts a new group at what comes from now on.
	Raw, OnlyNew bool
	// Routes lead events by their content, in order; what none leads anywhere goes to Route, or where that is empty nowhere.
	// With no Routes all goes to Route.
	Routes []routing.Route
	// Bulk asks for several events at once; nil for one at a time. Apps on HTTP and Dapr's on gRPC take them so, others do not.
	Bulk *Bulk
	// Metadata is what the subscription was asked for with, for people and for Dapr's metadata API. Where RawPayload can make
	// nothing of it, no event can be given to the app.
	Metadata map[string]string
	// Declared says that a manifest asks, not the app.
	Declared bool
}

// RawPayload is what the metadata of an event or a subscription say of payloads: whether they are raw. The error is in Dapr's words.
func RawPayload(metadata map[string]string) (bool, error) {
	text := metadata["rawPayload"]
	if text == "" {
		return false, nil
	}
	raw, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("rawPayload value must be a valid boolean: actual is '%s'", text)
	}
	return raw, nil
}

// Bulk bounds what is handed over at once: at most Most events, and none waits longer than Wait for the others.
type Bulk struct {
	Most int
	Wait time.Duration
}

// Equal says whether s and o ask for the same.
func (s Subscription) Equal(o Subscription) bool {
	if !routing.Equal(s.Routes, o.Routes) {
		return false
	}
	s.Routes, o.Routes = nil, nil
	return reflect.DeepEqual(s, o)
}
