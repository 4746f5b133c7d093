package blocks

import (
	"context"
	"testing"

	"github.com/sidecast/sidecast/appchannel"
)

// slowToTell is an app that takes work before it has said what it wants.
type slowToTell struct {
	*testApp
	wants chan []appchannel.Subscription
}

func (a *slowToTell) Subscriptions(ctx context.Context, changed func([]appchannel.Subscription)) error {
	for {
		select {
		case wanted := <-a.wants:
			changed(wanted)
		case <-ctx.Done():
			return nil
		}
	}
}

// What has gathered before the app says where it wants its events goes there, and not where a manifest has them go; an app that
// cannot say gets them as the manifest says.
func TestEventsWaitUntilTheAppHasSaidWhatItWants(t *testing.T) {
	const n = 20
	for name, wanted := range map[string][]appchannel.Subscription{
		"asked":    {{Topic: "orders", Route: "asked"}},
		"declared": nil,
	} {
		routes := make(chan string, n)
		app := &slowToTell{wants: make(chan []appchannel.Subscription), testApp: &testApp{deliver: func(_ context.Context, e *appchannel.Event) (appchannel.Outcome, error) {
			routes <- e.Route
			return appchannel.Outcome{}, nil
		}}}
		one := sidecarKnowing(t, t.TempDir(), "one", app, nil, nil)
		one.PubSub.Declare(t.Context(), []appchannel.Subscription{{Topic: "orders", Route: "declared"}})
		for range n {
			if _, err := one.PubSub.Publish(t.Context(), "", "orders", Draft{Data: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the subscription", func() bool {
			subs := one.PubSub.Subscriptions()
			return len(subs) == 1 && subs[0].State == "active"
		})
		if len(routes) > 0 {
			t.Errorf("%s: an event came before the app was asked", name)
		}
		app.wants <- wanted
		for range n {
			if route := <-routes; route != name {
				t.Errorf("%s: an event came to %s", name, route)
			}
		}
	}
}
