package contrib

import (
	"cmp"
	"maps"
	"strings"

	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pubsub"
)

// plainPubSub makes a component of a broker of which no more is known than what it says itself. It is held to our contract by
// what holds for all brokers here: a message stays the server's until the app has handled it, see tap. What the library
// acknowledges or repeats before it hands a message over is the library's. The keys of group name the consumer group beside
// consumerID, where the manifest does not.
func plainPubSub(name string, make func(logger.Logger) contribpubsub.PubSub, group ...string) components.Component {
	return plainNamed(name, make, func(values map[string]string, s components.Settings, _ string, g pubsub.Group) {
		values["consumerID"] = cmp.Or(g.Name, publisher)
		for _, key := range group {
			if !s.Given(key) {
				values[key] = values["consumerID"]
			}
		}
	})
}

// plainCheckpoints is plainPubSub for a library that notes how far it has come after each message, handled or not, and, unless
// it is told to keep their order, even before: then it reads all there is into memory, and a process that dies loses it.
func plainCheckpoints(name string, make func(logger.Logger) contribpubsub.PubSub) components.Component {
	return plainNamed(name, make, func(values map[string]string, s components.Settings, _ string, g pubsub.Group) {
		values["consumerID"] = cmp.Or(g.Name, publisher)
		if !s.Given("enableInOrderMessageDelivery") {
			values["enableInOrderMessageDelivery"] = "true"
		}
	}, func(p *product) { p.forgets = true })
}

// plainNamed is plainPubSub where settle names what is on the server.
func plainNamed(name string, make func(logger.Logger) contribpubsub.PubSub,
	settle func(values map[string]string, s components.Settings, topic string, g pubsub.Group), more ...func(*product)) components.Component {
	d := described{block: components.PubSubBlock, product: name, own: func() any { return make(logs{log: unheard}) }}
	p := &product{
		name: "pubsub." + name, make: make, codec: plainCodec, settle: settle,
		options: func(metadata map[string]string) (map[string]string, error) { return maps.Clone(metadata), nil },
	}
	for _, change := range more {
		change(p)
	}
	return components.Described(d.block, name, d.doc, d.fields, p.open)
}

// plainCodec gives a broker what a message has beside its data, and takes what comes: how much of it that is depends on the
// broker. An event has all that matters in its envelope. Nothing tells a copy from another message.
var plainCodec = codec{
	encode: besideData,
	decode: func(m *contribpubsub.NewMessage) (pubsub.Message, string) {
		message := event(m)
		for name, value := range m.Metadata {
			if message.Header == nil {
				message.Header = make(map[string]string, len(m.Metadata))
			}
			message.Header[strings.TrimPrefix(name, "metadata.")] = value
		}
		return named(message), ""
	},
}
