package contrib

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"
	kitstrings "github.com/dapr/kit/strings"
	"github.com/google/uuid"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pubsub"
)

var mqttPubSub = mqttTopics.component("mqtt3", "Topics of an MQTT 3.1.1 server. Subscriptions may have wildcards; one instance of a consumer group reads at a time.")

// mqttTopics is not the library's: that one drops a message that failed from its sight until it connects again, has one session
// for all subscriptions, so that a topic whose messages are not handled keeps the others from theirs, forgets which messages
// it holds when it connects again, and keeps for later what it says was not published. Here each subscription has a session.
var mqttTopics = &product{
	make: func(log logger.Logger) contribpubsub.PubSub { return &mqttLink{log: log} }, fields: mqttFields, codec: mqttCodec,
	settle: func(values map[string]string, s components.Settings, topic string, g pubsub.Group) {
		for _, key := range []string{"retain", "cleanSession"} {
			values[key] = strconv.FormatBool(s.Bool(key))
		}
		values[mqttFilterKey] = topic
		if g.Name == "" {
			values[mqttNameKey] = cmp.Or(s.Values["consumerID"], publisher) + "-" + uuid.NewString()
			return
		}
		hash := sha256.Sum256([]byte(topic))
		values[mqttNameKey] = g.Name + "-" + hex.EncodeToString(hash[:6])
	},
	topic: mqttName, filter: mqttFilter,
	message: func(m *pubsub.Message) error {
		if text := m.Metadata["retain"]; text != "" {
			if _, err := strconv.ParseBool(text); err != nil {
				return fmt.Errorf("retain is %q, neither true nor false", text)
			}
		}
		return nil
	},
	options: func(metadata map[string]string) (map[string]string, error) {
		options := map[string]string{}
		if kitstrings.IsTruthy(metadata[mqttLeaveKey]) {
			options[mqttLeaveKey] = "true"
		}
		return options, nil
	},
	order: func(_ *contribpubsub.NewMessage, key string, _ components.Settings) string { return key },
}

// What settle tells a link beside the settings, and what a subscription may ask for.
const (
	mqttNameKey   = "clientName"
	mqttFilterKey = "filter"
	mqttLeaveKey  = "unsubscribeOnClose"
)

func mqttFields() []components.Field {
	return slices.Concat(mqttConnects(), []components.Field{
		field("qos", "int", "How sure a message is to arrive: 1 is at least once; 2 has the server ask twice; 0 loses what is on its way.", standard("1"), within("0", "2")),
		field("retain", "bool", "The server keeps the last message of a topic for those who subscribe later.", standard("false")),
		field("cleanSession", "bool", "The server forgets a subscription that is not connected, and what comes meanwhile.", standard("false")),
		field("backOffMaxRetries", "int", "Accepted and without effect: retries are the lane's."),
	})
}

// mqttCodec: a message of MQTT 3 is its data alone. An event has its id, key and type in its envelope.
var mqttCodec = codec{
	unique: true,
	encode: func(m *pubsub.Message) map[string]string {
		if retain := m.Metadata["retain"]; retain != "" {
			return map[string]string{"retain": retain}
		}
		return nil
	},
	decode: func(m *contribpubsub.NewMessage) (pubsub.Message, string) {
		message := event(m)
		message.Header = map[string]string{"__topic": m.Topic, "retained": m.Metadata["retained"]}
		return named(message), m.Metadata[tokenKey]
	},
}

// mostTopic is how many bytes a topic may have: section 4.7.3 of MQTT 3.1.1.
const mostTopic = 65535

// mqttName says what is wrong with the name of a topic: section 4.7 of MQTT 3.1.1.
func mqttName(topic string) error {
	if strings.ContainsAny(topic, "+#") {
		return fmt.Errorf("the topic %q has a wildcard of MQTT, which only subscriptions may have", topic)
	}
	return mqttText(topic)
}

func mqttText(topic string) error {
	switch {
	case len(topic) > mostTopic:
		return fmt.Errorf("the topic has %d bytes, at most %d are allowed", len(topic), mostTopic)
	case !utf8.ValidString(topic), strings.ContainsRune(topic, 0):
		return errors.New("the topic is not UTF-8, or has a zero byte")
	}
	return nil
}

// mqttFilter does so with a topic that may have wildcards, and may be shared: $share/{group}/{topic}.
func mqttFilter(filter string) error {
	topic := filter
	if shared, ok := strings.CutPrefix(filter, "$share/"); ok {
		group, rest, _ := strings.Cut(shared, "/")
		if group == "" || strings.ContainsAny(group, "+#") || rest == "" {
			return fmt.Errorf("%q is no shared subscription: $share/{group}/{topic}", filter)
		}
		topic = rest
	}
	levels := strings.Split(topic, "/")
	for i, level := range levels {
		switch {
		case level == "+", level == "#" && i == len(levels)-1:
		case strings.ContainsAny(level, "+#"):
			return fmt.Errorf("the topic %q has a wildcard that is not a whole level, or # before the end", filter)
		}
	}
	return mqttText(filter)
}
