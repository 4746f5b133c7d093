package blocks

import (
	"strings"
	"testing"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/components"
)

// A subscription of a component that is not there, or not for the app or the topic, waits for one: nothing fails meanwhile.
func TestSubscriptionsWaitForTheirComponent(t *testing.T) {
	got := &inbox{}
	app := got.app()
	app.subs = []appchannel.Subscription{{PubSub: "later", Topic: "orders"}}
	one := sidecarAs(t, t.TempDir(), "one", "one-1", app, 0, nil)
	state := func(want string) {
		t.Helper()
		eventually(t, "the state "+want, func() bool {
			all := one.PubSub.Subscriptions()
			return len(all) == 1 && strings.Contains(all[0].State, want)
		})
	}
	later := func(m components.Manifest) {
		m.Name, m.Type = "later", "pubsub.memory"
		one.PubSub.components.Reload(&components.Documents{Components: []components.Manifest{m}})
	}
	state("COMPONENT_NOT_FOUND")
	later(components.Manifest{Scopes: []string{"another"}})
	state("COMPONENT_DENIED")
	later(components.Manifest{Metadata: []components.Entry{{Key: "allowedTopics", Value: "others"}}})
	state("TOPIC_DENIED")
	later(components.Manifest{})
	state("active")
	if _, err := one.PubSub.Publish(t.Context(), "later", "orders", Draft{Data: []byte("1"), ContentType: "application/json"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event", got.has(1))
	workers := 0
	for _, node := range one.Runtime.Tree(t.Context()).Children {
		if strings.HasPrefix(node.Name, "sub/later/") && node.Kind == "worker" {
			if workers++; node.Restarts != 0 {
				t.Errorf("%s was restarted %d times", node.Name, node.Restarts)
			}
		}
	}
	if workers != 1 {
		t.Errorf("%d workers", workers)
	}
}

// What waits for a component does not hold up the end of the sidecar, and one that nobody wants any more is gone.
func TestSubscriptionsThatWaitEnd(t *testing.T) {
	one := sidecarAs(t, t.TempDir(), "one", "one-1", &testApp{}, 0, nil)
	one.PubSub.Declare(t.Context(), []appchannel.Subscription{{PubSub: "never", Topic: "orders"}})
	eventually(t, "it waits", func() bool {
		all := one.PubSub.Subscriptions()
		return len(all) == 1 && strings.Contains(all[0].State, "COMPONENT_NOT_FOUND")
	})
	one.PubSub.Declare(t.Context(), nil)
	eventually(t, "it is gone", func() bool {
		for _, node := range one.Runtime.Tree(t.Context()).Children {
			if strings.HasPrefix(node.Name, "sub/never/") {
				return false
			}
		}
		return true
	})
}
