package appchannel

import (
	"context"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// None is the Channel of a sidecar that has no app: one that only calls, publishes and stores. Ready is nil because there
// is nothing to wait for; every piece of work fails as not sent.
var None Channel = none{}

type none struct{}

func (none) Kind() string { return "none" }

func (none) Invoke(_ context.Context, req *call.Request) (*call.Response, error) {
	return nil, noApp("invoke " + req.Method)
}

func (none) Stream(_ context.Context, req *call.Request, _ call.ServerStream) error {
	return noApp("invoke " + req.Method)
}

func (none) Deliver(_ context.Context, event *Event) (Outcome, error) {
	return Outcome{}, noApp("deliver " + event.Topic)
}

func (none) Subscriptions(ctx context.Context, changed func([]Subscription)) error {
	changed(nil)
	<-ctx.Done()
	return nil
}

func (none) Ready() error { return nil }

func (none) Close(context.Context) error { return nil }

func noApp(op string) error {
	return fault.New(op, fault.NoApp, "this sidecar runs without an app")
}
