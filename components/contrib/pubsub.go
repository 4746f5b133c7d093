package contrib

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// product is a broker of the library, and what is particular to it.
type product struct {
	name   string // the component's type
	make   func(logger.Logger) contribpubsub.PubSub
	fields []components.Field
	// settle sets what the library needs and the manifest leaves open, of a subscription or, without a group, of the
	// publisher.
	settle func(values map[string]string, s components.Settings, topic string, g pubsub.Group)
	// prepare makes a new group begin at what is published from now on; nil where it does so anyway, or settle sees to it.
	prepare func(ctx context.Context, b *broker, topic, group string) error
	// topic says what is wrong with a topic; nil where there is nothing that could be.
	topic func(topic string) error
	// message says what is wrong with a message, as topic does.
	message func(m *pubsub.Message) error
	// options are those of a subscription that the library is told of, of its metadata; nil where it knows none.
	options func(metadata map[string]string) (map[string]string, error)
	// codec moves what a message has beside its data.
	codec codec
	// lost are the words with which the library logs that a publish failed which it then calls done.
	lost string
	// spins are the words with which it logs that it could not read: it tries again at once, however long its server is away.
	spins string
	// refused are the words with which it logs that the server will not have the subscription: it tries again for ever.
	refused []string
}

// component makes the product known to the runtime.
func (p *product) component(name, doc string) components.Component {
	p.name = "pubsub." + name
	return components.Foreign(components.PubSubBlock, name, doc, p.fields, func(ctx context.Context, host components.Host, s components.Settings) (pubsub.Broker, error) {
		b := &broker{product: p, host: host, settings: s, life: newLife(host.Log), taps: map[tapKey]*tap{}, turn: make(chan struct{}, 1)}
		inner, err := b.connect(ctx, p.name+": open", "", pubsub.Group{}, b.heard)
		if err != nil {
			return nil, err
		}
		b.publisher = inner
		return b, nil
	})
}

var _ pubsub.Broker = (*broker)(nil)

// broker makes a broker of the library one of ours. It has one connection for publishing and one for each subscription, so
// that the end of a subscription is the end of all that belongs to it.
type broker struct {
	product   *product
	host      components.Host
	settings  components.Settings
	publisher contribpubsub.PubSub
	life      *life

	turn   chan struct{} // held by the publish that heard is about
	unsure bool          // what the library logged since; belongs to the holder of turn

	mu   sync.Mutex
	taps map[tapKey]*tap
}

// connect makes an instance of the library's component.
func (b *broker) connect(ctx context.Context, op, topic string, g pubsub.Group, seen func(string)) (contribpubsub.PubSub, error) {
	values := maps.Clone(b.settings.Values)
	if b.product.settle != nil {
		b.product.settle(values, b.settings, topic, g)
	}
	quiet()
	inner := b.product.make(newLogs(b.host.Log, seen))
	if err := inner.Init(ctx, contribpubsub.Metadata{Base: contribmetadata.Base{Name: b.host.Component, Properties: values}}); err != nil {
		closeQuietly(inner)
		return nil, badOpen(ctx, op, b.settings, err)
	}
	return inner, nil
}

// Publish implements pubsub.Broker.
func (b *broker) Publish(ctx context.Context, topic string, messages []pubsub.Message) []error {
	errs := make([]error, len(messages))
	op := b.product.name + ": publish " + topic
	calling, leave, err := b.life.enter(ctx, op)
	if err == nil {
		defer leave()
		err = b.checkTopic(op, topic)
	}
	for i := range messages {
		switch m := &messages[i]; {
		case err != nil:
			errs[i] = err
		case m.Delay < 0:
			errs[i] = fault.New(op, fault.DelayInvalid, "the delay is negative: %s", m.Delay)
		case m.Delay > 0:
			errs[i] = fault.New(op, fault.NotSupported, "%s cannot delay messages: use a broker that can, like pubsub.jetstream without natsURL", b.product.name)
		default:
			if errs[i] = b.checkMessage(op, m); errs[i] == nil {
				errs[i] = b.life.failure(ctx, op, b.publish(calling, topic, m))
			}
		}
	}
	return errs
}

func (b *broker) checkMessage(op string, m *pubsub.Message) error {
	if b.product.message != nil {
		if err := b.product.message(m); err != nil {
			return fault.E(op, fault.None, fault.BadRequest, err)
		}
	}
	return nil
}

func (b *broker) checkTopic(op, topic string) error {
	if topic == "" {
		return fault.New(op, fault.TopicInvalid, "the topic is empty")
	}
	if b.product.topic != nil {
		if err := b.product.topic(topic); err != nil {
			return fault.E(op, fault.None, fault.TopicInvalid, err)
		}
	}
	return nil
}

// publish stores one message. The library does not always hear when it is called off, and may then say that it was done.
func (b *broker) publish(ctx context.Context, topic string, m *pubsub.Message) error {
	request := &contribpubsub.PublishRequest{
		Data: bytes.Clone(m.Data), PubsubName: b.host.Component, Topic: topic, Metadata: b.product.codec.encode(m),
	}
	if m.ContentType != "" {
		request.ContentType = new(m.ContentType)
	}
	if b.product.lost != "" {
		select {
		case b.turn <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	_, err := detached(ctx, b.life, func() (struct{}, error) {
		if b.product.lost != "" {
			defer func() { <-b.turn }()
			b.unsure = false
		}
		err := b.publisher.Publish(ctx, request)
		switch {
		case err == nil && ctx.Err() != nil:
			err = context.Cause(ctx)
		case err == nil && b.unsure:
			err = fault.New(b.product.name, fault.BackendDown, "the server did not confirm that it has the message")
		}
		return struct{}{}, err
	})
	return err
}

// heard is told what the publisher's library logs. It logs from the goroutine of the publish that holds the turn; what it
// logs on its own account between two of them does no harm.
func (b *broker) heard(text string) {
	if b.product.lost != "" && strings.Contains(text, b.product.lost) {
		b.unsure = true
	}
}

// Subscribe implements pubsub.Broker.
func (b *broker) Subscribe(ctx context.Context, topic string, g pubsub.Group) (pubsub.Feed, error) {
	op := b.product.name + ": subscribe " + topic
	calling, leave, err := b.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := b.checkTopic(op, topic); err != nil {
		return nil, err
	}
	if g.Name == "" {
		return nil, fault.New(op, fault.BadRequest, "the group has no name")
	}
	options, err := b.options(op, g)
	if err != nil {
		return nil, err
	}
	g.Metadata = options
	feed, err := b.feed(calling, op, tapKey{topic, g.Name, fmt.Sprint(options)}, g)
	if err != nil {
		return nil, b.life.failure(ctx, op, err)
	}
	return feed, nil
}

// options are what the library is told of g's metadata.
func (b *broker) options(op string, g pubsub.Group) (map[string]string, error) {
	if b.product.options == nil {
		return map[string]string{}, nil
	}
	options, err := b.product.options(g.Metadata)
	if err != nil {
		return nil, fault.E(op, fault.None, fault.BadRequest, err)
	}
	return options, nil
}

// feed adds a feed to the tap of key, which it makes if there is none.
func (b *broker) feed(ctx context.Context, op string, key tapKey, g pubsub.Group) (pubsub.Feed, error) {
	for {
		if b.life.isClosed() {
			return nil, closedError(op)
		}
		b.mu.Lock()
		t := b.taps[key]
		if t == nil {
			var err error
			if t, err = newTap(b, op, key); err != nil {
				b.mu.Unlock()
				return nil, err
			}
			b.taps[key] = t
		}
		b.mu.Unlock()
		f, err := t.join(ctx, g)
		if err != errTapClosed {
			return f, err
		}
		if err := t.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// forget takes t out of the taps that feeds may join.
func (b *broker) forget(t *tap) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taps[t.key] == t {
		delete(b.taps, t.key)
	}
}

// Close implements pubsub.Broker.
func (b *broker) Close(ctx context.Context) error {
	b.life.refuse()
	b.shut()
	return b.life.close(ctx, b.product.name+": close", func() error {
		b.shut() // what the last calls have opened
		return b.publisher.Close()
	})
}

// shut begins to end all taps.
func (b *broker) shut() {
	b.mu.Lock()
	taps := slices.Collect(maps.Values(b.taps))
	b.mu.Unlock()
	for _, t := range taps {
		t.shut()
	}
}
