package components

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/manifest"
)

// topicFields are the keys that all brokers have in common, with Dapr's meaning. The PubSub block obeys them.
var topicFields = []Field{
	{Key: "allowedTopics", Type: "string", index: -1,
		Doc: "Topics that may be used at all, comma separated; all when left out."},
	{Key: "publishingScopes", Type: "string", index: -1,
		Doc: "Topics that apps may publish to: app1=topic1,topic2;app2=topic3. An app that is not named may publish to all that are not protected, one with no topic to none."},
	{Key: "subscriptionScopes", Type: "string", index: -1,
		Doc: "Topics that apps may subscribe to, written as publishingScopes."},
	{Key: "protectedTopics", Type: "string", index: -1,
		Doc: "Topics that only apps may use whose scopes name them, comma separated."},
	{Key: "consumerID", Type: "string", index: -1,
		Doc: "Consumer group of subscriptions that name none; the app id when left out."},
}

// Topics says which topics of a broker the app may use, and in which consumer group. The zero Topics allows all.
type Topics struct {
	// Group is that of subscriptions which name none; "" means the app id.
	Group string

	allowed, protected []string
	publish, subscribe []string
	publishes, listens bool // a scope names the app
	prefix             string
}

func topicsOf(m Manifest, host Host) Topics {
	text, prefix := map[string]string{}, ""
	for _, e := range m.Metadata {
		text[manifest.FoldKey(e.Key)] = host.expand(e.Value)
		if strings.Contains(e.Value, "{namespace}") {
			prefix = host.Namespace
		}
	}
	t := Topics{Group: strings.TrimSpace(text["consumerid"]), prefix: prefix}
	if m.Type == "pubsub.kafka" { // where the group has a name of its own, which goes before
		t.Group = cmp.Or(strings.TrimSpace(text["consumergroup"]), strings.TrimSpace(text["groupid"]), t.Group)
	}
	t.allowed, t.protected = list(text["allowedtopics"]), list(text["protectedtopics"])
	t.publish, t.publishes = scope(text["publishingscopes"], host.AppID)
	t.subscribe, t.listens = scope(text["subscriptionscopes"], host.AppID)
	return t
}

// OnServer is the name that topic has on the broker's server. Where any value of the manifest has {namespace} in it, that is
// the namespace and topic, as with Dapr: namespaces that share a server share no topic. Scopes and apps know topic alone.
func (t Topics) OnServer(topic string) string { return t.prefix + topic }

// Publish says whether the app may publish to topic.
func (t Topics) Publish(topic string) bool { return t.admit(topic, t.publish, t.publishes) }

// Subscribe says whether the app may subscribe to topic.
func (t Topics) Subscribe(topic string) bool { return t.admit(topic, t.subscribe, t.listens) }

func (t Topics) admit(topic string, scoped []string, named bool) bool {
	switch {
	case len(t.allowed) > 0 && !slices.Contains(t.allowed, topic):
		return false
	case !named && !slices.Contains(t.protected, topic):
		return true
	}
	return slices.Contains(scoped, topic)
}

func list(text string) []string {
	var all []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			all = append(all, item)
		}
	}
	return all
}

// scope is what an entry such as `app1=a,b;app2=` says of app, and whether there is one.
func scope(text, app string) (topics []string, named bool) {
	for entry := range strings.SplitSeq(strings.ReplaceAll(text, " ", ""), ";") {
		if name, names, ok := strings.Cut(entry, "="); ok && name == app {
			topics, named = append(topics, list(names)...), true
		}
	}
	return topics, named
}

// Topics says which topics of the broker of that name the app may use, and whether there is one. It opens nothing.
func (s *Set) Topics(name string) (Topics, bool) {
	if slot := s.current.Load().slots[name]; slot != nil && slot.component.block == PubSubBlock && !slot.denied {
		return slot.topics, true
	}
	return Topics{}, false
}
