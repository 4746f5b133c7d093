package contrib

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/components-contrib/pubsub/rabbitmq"
	"github.com/dapr/components-contrib/pubsub/redis"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pubsub"
)

var (
	redisPubSub  = redisStreams.component("redis", "Topics in streams of Redis or a server that speaks its protocol, 5 or newer.")
	rabbitPubSub = rabbitQueues.component("rabbitmq", "Topics as exchanges of RabbitMQ, groups as queues: a topic without a group keeps nothing.")
)

// publisher is the group of the instance that publishes.
const publisher = "sidecast-publisher"

// redisStreams: the library acknowledges a message that failed, unless its subscription has ended; those that are pending
// are looked for after processingTimeout.
var redisStreams = &product{
	make: redis.NewRedisStreams, fields: redisPubSubFields, codec: metadataCodec, spins: "error reading from stream",
	settle: func(values map[string]string, s components.Settings, _ string, g pubsub.Group) {
		milliseconds(values, "processingTimeout")
		milliseconds(values, "redeliverInterval") // the library reads it in no other form
		values["consumerID"] = g.Name
		if g.Name == "" {
			values["consumerID"], values["concurrency"] = publisher, "1"
		}
	},
	prepare: func(ctx context.Context, b *broker, topic, group string) error {
		client, _, err := redisClient(ctx, b.product.name+": subscribe "+topic, b.host, b.settings, contribmetadata.PubSubType)
		if err != nil {
			return err
		}
		defer client.Close()
		err = client.XGroupCreateMkStream(ctx, topic, group, "$")
		if err != nil && strings.HasPrefix(err.Error(), "BUSYGROUP") {
			return nil // it goes on where it was
		}
		return err
	},
}

// milliseconds writes the duration of key as a plain number of milliseconds, if it is one with a unit.
func milliseconds(values map[string]string, key string) {
	if d, err := time.ParseDuration(values[key]); err == nil {
		values[key] = strconv.FormatInt(d.Milliseconds(), 10)
	}
}

// rabbitQueues: the library drops a message that failed, unless it is told to give it back; it says that a message is
// published when the server has not confirmed it, and when it was called off. Its Close waits for ever for a subscription that is
// being made again.
var rabbitQueues = &product{
	make: rabbitmq.NewRabbitMQ, fields: rabbitFields, codec: amqpCodec, lost: "did not receive confirmation",
	refused: []string{"Exception (403)", "Exception (405)", "Exception (406)"}, again: "error in subscriber for",
	settle: func(values map[string]string, s components.Settings, _ string, g pubsub.Group) {
		values["requeueInFailure"], values["publisherConfirm"], values["publishMessagePropertiesToMetadata"] = "true", "true", "true"
		values["consumerID"] = g.Name
		if g.Name == "" {
			// A publish that waits before it connects again might never come to it: its caller has a deadline.
			values["consumerID"], values["reconnectWaitSeconds"] = publisher, "0s"
		}
		if s.Given("connectionString") {
			delete(values, "hostname") // a default that is not meant
		}
		if values["prefetchCount"] == "0" { // which is all that there are, and may be more than there is memory
			values["prefetchCount"] = "255"
		}
	},
	topic: func(topic string) error {
		if len(topic) > longest {
			return fmt.Errorf("the topic has %d bytes, the name of an exchange at most %d", len(topic), longest)
		}
		return nil
	},
	message: func(m *pubsub.Message) error {
		if ttl, _, _ := contribmetadata.TryGetTTL(m.Metadata); ttl.Milliseconds() > math.MaxUint32 { // the server would close the channel
			return fmt.Errorf("the ttl is %s, at most %s are allowed", ttl, math.MaxUint32*time.Millisecond)
		}
		for _, name := range rabbitTexts {
			if err := checkText(name, m.Metadata[name]); err != nil {
				return err
			}
		}
		return nil
	},
	beside: func(m *contribpubsub.NewMessage, s components.Settings) map[string]string {
		if !s.Bool("publishMessagePropertiesToMetadata") {
			return nil
		}
		return amqpProperties(m)
	},
	options: rabbitOptions,
}

// checkText refuses a text that the client would cut to its length modulo 256.
func checkText(name, text string) error {
	if len(text) > longest {
		return fmt.Errorf("the %s has %d bytes, at most %d are allowed", name, len(text), longest)
	}
	return nil
}

// rabbitOptions are those of a queue and of how it is bound. The library would try for ever with one that cannot be.
func rabbitOptions(metadata map[string]string) (map[string]string, error) {
	options := map[string]string{}
	for _, key := range []string{"routingKey", "queueType", "maxPriority", "queueName", "singleActiveConsumer"} {
		value := metadata[key]
		if value == "" {
			continue
		}
		options[key] = value
		switch key {
		case "routingKey":
			for part := range strings.SplitSeq(value, ",") {
				if err := checkText("routingKey", part); err != nil {
					return nil, err
				}
			}
		case "queueType":
			if value != "classic" && value != "quorum" {
				return nil, fmt.Errorf("queueType is %q; valid: classic, quorum", value)
			}
		case "maxPriority":
			if n, err := strconv.ParseUint(value, 10, 0); err != nil || n == 0 {
				return nil, fmt.Errorf("maxPriority is %q, not a number from 1 to 255", value)
			}
		case "queueName":
			if len(value) > longest {
				return nil, fmt.Errorf("queueName has %d bytes, at most %d are allowed", len(value), longest)
			}
		}
	}
	for _, key := range []string{"maxLen", "maxLenBytes"} {
		if metadata[key] != "" { // it would make a number of it that AMQP has not, and try for ever
			return nil, fmt.Errorf("%s cannot be that of one subscription: make it the component's", key)
		}
	}
	return options, nil
}

// consumerName makes a name of JetStream of any text: what a name may not hold is written in hex.
func consumerName(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "=%02x", c)
		}
	}
	return b.String()
}
