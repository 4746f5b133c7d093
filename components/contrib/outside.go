package contrib

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
)

// Ordered is a broker of the library's kind that has its messages lined up in the order in which they come.
type Ordered interface {
	// SubscribeInOrder is Subscribe. Accept takes one message after the other and returns what waits until it was handled, as
	// a Handler does.
	SubscribeInOrder(ctx context.Context, r contribpubsub.SubscribeRequest, accept Accept) error
}

// Accept lines a message up; wait returns when it was handled.
type Accept func(ctx context.Context, m *contribpubsub.NewMessage) (wait func() error)

// OpenBroker makes a broker of this runtime of one of the library's kind that is not the library's. Each subscription has an
// instance of its own; consumerID, in the values that one is initialized with, is its group. Messages carry what the publisher
// says to the broker as their metadata, and their header beside it.
func OpenBroker(ctx context.Context, host components.Host, s components.Settings, typ string, make func(logger.Logger) contribpubsub.PubSub) (pubsub.Broker, error) {
	return brokerOf(ctx, host, s, &product{
		name: typ, make: make, codec: bareCodec, bulk: true,
		settle: func(values map[string]string, s components.Settings, _ string, g pubsub.Group) {
			consumer := host.AppID
			for key, value := range values {
				if strings.EqualFold(key, "consumerID") {
					delete(values, key)
					if value != "" {
						consumer = value
					}
				}
			}
			if g.Name != "" {
				consumer = g.Name
			}
			values["consumerID"] = consumer
		},
		options: func(metadata map[string]string) (map[string]string, error) { return maps.Clone(metadata), nil },
	})
}

// bareCodec adds nothing to what a message has: it is for brokers that others read, too.
var bareCodec = codec{
	encode: besideData,
	decode: func(m *contribpubsub.NewMessage) (pubsub.Message, string) {
		message := event(m)
		message.Header = maps.Clone(m.Metadata)
		return named(message), ""
	},
}

// publishBulk stores the messages at those places of messages with one request, where the broker can; done is false where it
// cannot.
func (b *broker) publishBulk(ctx context.Context, topic string, messages []pubsub.Message, places []int, errs []error) (done bool) {
	bulk, ok := b.publisher.(contribpubsub.BulkPublisher)
	if !ok || !b.product.bulk {
		return false
	}
	request := &contribpubsub.BulkPublishRequest{PubsubName: b.host.Component, Topic: topic}
	for _, i := range places {
		m := &messages[i]
		request.Entries = append(request.Entries, contribpubsub.BulkMessageEntry{
			EntryId: strconv.Itoa(i), Event: bytes.Clone(m.Data), ContentType: m.ContentType, Metadata: b.product.codec.encode(m),
		})
	}
	answer, err := detached(ctx, b.life, func() (contribpubsub.BulkPublishResponse, error) { return bulk.BulkPublish(ctx, request) })
	if fault.ReasonOf(err) == fault.NotSupported {
		return false
	}
	for _, i := range places {
		errs[i] = err
	}
	if err != nil && len(answer.FailedEntries) == 0 {
		return true
	}
	for _, i := range places {
		errs[i] = nil
	}
	for _, failed := range answer.FailedEntries {
		if i, e := strconv.Atoi(failed.EntryId); e == nil && i >= 0 && i < len(errs) {
			errs[i] = failed.Error
		}
	}
	return true
}

// Agreed are the metadata that all ops have, as those of their transaction. There is one op or more.
func Agreed(ops []state.Op) map[string]string {
	all := untimed(ops[0].Metadata)
	maps.DeleteFunc(all, func(name, value string) bool {
		return slices.ContainsFunc(ops[1:], func(o state.Op) bool {
			other, ok := o.Metadata[name]
			return !ok || other != value
		})
	})
	return all
}

// KeyName is the name of a key in stores that hold text alone, KeyOf the key of a name.
func KeyName(key string) string { return stored(key) }
func KeyOf(name string) string  { return original(name) }
