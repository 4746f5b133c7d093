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
	fields func() []components.Field
	// settle sets what the library needs and the manifest leaves open, of a subscription or, without a group, of the
	// publisher.
	settle func(values map[string]string, s components.Settings, topic string, g pubsub.Group)
	// prepare makes a new group begin at what is published from now on; nil where it does so anyway, or settle sees to it.
	prepare func(ctx context.Context, b *broker, topic, group string) error
	// topic says what is wrong with a topic; nil where there is nothing that could be.
	topic func(topic string) error
	// filter does so of what is subscribed to, where that is more than the name of a topic; nil where it is not.
	filter func(filter string) error
	// message says what is wrong with a message, as topic does.
	message func(m *pubsub.Message) error
	// options are those of a subscription that the library is told of, of its metadata; nil where it knows none.
	options func(metadata map[string]string) (map[string]string, error)
	// codec moves what a message has beside its data.
	codec codec
	// beside is what of a message its subscribers are told besides what codec decodes, if the manifest wants it; nil where nothing is.
	beside func(m *contribpubsub.NewMessage, s components.Settings) map[string]string
	// order is what a message is in order with, where the library keeps the place of each in the order that the server has
	// them in; nil where it does not.
	order func(m *contribpubsub.NewMessage, key string, s components.Settings) string
	// moves says that the server takes messages back to give them to others.
	moves bool
	// forgets says that the library takes for done what a handler gives back, unless the handler never returns.
	forgets bool
	// lost are the words with which the library logs that a publish failed which it then calls done.
	lost string
	// spins are the words with which it logs that it could not read: it tries again at once, however long its server is away.
	spins string
	// refused are the words with which it logs that the server will not have the subscription: it tries again for ever.
	refused []string
	// again are the words with which it logs, holding no lock, that its subscription has failed and is made again.
	again string
	// bulk says that several messages go with one request, where its broker can.
	bulk bool
}

// component makes the product known to the runtime.
func (p *product) component(name, doc string) components.Component {
	p.name = "pubsub." + name
	return components.Foreign(components.PubSubBlock, name, doc, p.fields, p.open)
}

func (p *product) open(ctx context.Context, host components.Host, s components.Settings) (pubsub.Broker, error) {
	return brokerOf(ctx, host, s, p)
}

func brokerOf(ctx context.Context, host components.Host, s components.Settings, p *product) (pubsub.Broker, error) {
	b := &broker{product: p, host: host, settings: s, life: newLife(host.Log), taps: map[tapKey]*tap{}, turn: make(chan struct{}, 1)}
	inner, err := b.connect(ctx, p.name+": open", "", pubsub.Group{}, b.heard)
	if err != nil {
		return nil, err
	}
	b.publisher = inner
	return b, nil
}

var (
	_ pubsub.Broker    = (*broker)(nil)
	_ pubsub.Immediate = (*broker)(nil)
)

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

// Immediate implements pubsub.Immediate, by what the library says of itself.
func (b *broker) Immediate() bool {
	return contribpubsub.FeatureBulkSubscribeImmediate.IsPresent(b.publisher.Features())
}

// connect makes an instance of the library's component.
func (b *broker) connect(ctx context.Context, op, topic string, g pubsub.Group, seen func(string)) (contribpubsub.PubSub, error) {
	values := maps.Clone(b.settings.Values)
	if b.product.settle != nil {
		b.product.settle(values, b.settings, topic, g)
	}
	inner := b.product.make(newLogs(b.host.Log, seen))
	err := initialize(ctx, b.life, inner, func() error {
		return inner.Init(ctx, contribpubsub.Metadata{Base: contribmetadata.Base{Name: b.host.Component, Properties: values}})
	})
	if err != nil {
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
		err = checkTopic(op, topic, b.product.topic)
	}
	var fit []int
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
				fit = append(fit, i)
			}
		}
	}
	b.publishAll(calling, topic, messages, fit, errs)
	for _, i := range fit {
		errs[i] = b.life.failure(ctx, op, errs[i])
	}
	return errs
}

// batchPublisher writes many messages at once, in order, and hears when it is called off.
type batchPublisher interface {
	publishBatch(ctx context.Context, requests []*contribpubsub.PublishRequest) []error
}

// publishAll stores the messages at those places: at once where the broker can, or one after the other.
func (b *broker) publishAll(ctx context.Context, topic string, messages []pubsub.Message, places []int, errs []error) {
	if batch, ok := b.publisher.(batchPublisher); ok && len(places) > 0 {
		requests := make([]*contribpubsub.PublishRequest, len(places))
		for i, at := range places {
			requests[i] = b.request(topic, &messages[at])
		}
		for i, err := range batch.publishBatch(ctx, requests) {
			errs[places[i]] = err
		}
		return
	}
	if len(places) > 1 && b.publishBulk(ctx, topic, messages, places, errs) {
		return
	}
	for _, i := range places {
		errs[i] = b.publish(ctx, topic, &messages[i])
	}
}

func (b *broker) checkMessage(op string, m *pubsub.Message) error {
	if b.product.message != nil {
		if err := b.product.message(m); err != nil {
			return fault.E(op, fault.None, fault.BadRequest, err)
		}
	}
	return nil
}

func checkTopic(op, topic string, check func(string) error) error {
	if topic == "" {
		return fault.New(op, fault.TopicInvalid, "the topic is empty")
	}
	if check != nil {
		if err := check(topic); err != nil {
			return fault.E(op, fault.None, fault.TopicInvalid, err)
		}
	}
	return nil
}

// publish stores one message. The library does not always hear when it is called off, and may then say that it was done.
func (b *broker) publish(ctx context.Context, topic string, m *pubsub.Message) error {
	request := b.request(topic, m)
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

func (b *broker) request(topic string, m *pubsub.Message) *contribpubsub.PublishRequest {
	request := &contribpubsub.PublishRequest{
		Data: bytes.Clone(m.Data), PubsubName: b.host.Component, Topic: topic, Metadata: b.product.codec.encode(m),
	}
	if m.ContentType != "" {
		request.ContentType = new(m.ContentType)
	}
	return request
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
	check := b.product.topic
	if b.product.filter != nil {
		check = b.product.filter
	}
	if err := checkTopic(op, topic, check); err != nil {
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
		return closeSafely(b.publisher)
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
