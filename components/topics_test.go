package components

import "testing"

func TestTopicsFollowTheirScopes(t *testing.T) {
	m := Manifest{Metadata: []Entry{
		{Key: "allowedTopics", Value: "a, b,c"},
		{Key: "protectedTopics", Value: "c"},
		{Key: "publishingScopes", Value: "orders=a,c; silent="},
		{Key: "subscriptionScopes", Value: "orders=b"},
		{Key: "ConsumerID", Value: "{namespace}-{appID}"},
	}}
	for _, c := range []struct {
		app, publish, subscribe string
	}{
		{"orders", "ac", "b"},
		{"silent", "", "ab"},
		{"other", "ab", "ab"},
	} {
		topics := topicsOf(m, Host{AppID: c.app, Namespace: "test"})
		publish, subscribe := "", ""
		for _, topic := range []string{"a", "b", "c", "d"} {
			if topics.Publish(topic) {
				publish += topic
			}
			if topics.Subscribe(topic) {
				subscribe += topic
			}
		}
		if publish != c.publish || subscribe != c.subscribe || topics.Group != "test-"+c.app {
			t.Errorf("%s publishes to %q, not %q, and subscribes to %q, not %q", c.app, publish, c.publish, subscribe, c.subscribe)
		}
	}
	if all := topicsOf(Manifest{}, Host{AppID: "x"}); !all.Publish("t") || !all.Subscribe("t") {
		t.Error("without scopes a topic is refused")
	}
}
