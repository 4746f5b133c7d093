package components

import "testing"

func TestTopicsFollowTheirScopes(t *testing.T) {
	m := Manifest{Metadata: []Entry{
		{Key: "allowedTopics", Value: "a, b,c"},
		{Key: "protectedTopics", Value: "c"},
		{Key: "publishingScopes", Value: "orders=a,c; silent="},
		{Key: "subscriptionScopes", Value: "orders=b"},
		{Key: "ConsumerID", Value: "{namespace}"},
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
		if publish != c.publish || subscribe != c.subscribe || topics.Group != "test."+c.app {
			t.Errorf("%s publishes to %q, not %q, and subscribes to %q, not %q, in the group %s", c.app, publish, c.publish, subscribe, c.subscribe, topics.Group)
		}
	}
	if topics := topicsOf(m, Host{AppID: "x", Namespace: "test"}); topics.OnServer("a") != "testa" {
		t.Errorf("topic a is %q on a server that namespaces share", topics.OnServer("a"))
	}
	if topics := topicsOf(Manifest{Metadata: m.Metadata[:4]}, Host{AppID: "x", Namespace: "test"}); topics.OnServer("a") != "a" {
		t.Errorf("topic a is %q on a server", topics.OnServer("a"))
	}
	if all := topicsOf(Manifest{}, Host{AppID: "x"}); !all.Publish("t") || !all.Subscribe("t") {
		t.Error("without scopes a topic is refused")
	}
}

func TestKafkaNamesTheGroupInItsOwnWay(t *testing.T) {
	for want, entries := range map[string][]Entry{
		"one":   {{Key: "consumerGroup", Value: "one"}, {Key: "consumerID", Value: "two"}},
		"two":   {{Key: "consumerID", Value: "two"}},
		"three": {{Key: "groupID", Value: "three"}, {Key: "consumerID", Value: "two"}},
	} {
		if got := topicsOf(Manifest{Type: "pubsub.kafka", Metadata: entries}, Host{}).Group; got != want {
			t.Errorf("the group is %q, want %q", got, want)
		}
		if got := topicsOf(Manifest{Type: "pubsub.redis", Metadata: entries}, Host{}).Group; got != "two" {
			t.Errorf("another broker's group is %q", got)
		}
	}
}
