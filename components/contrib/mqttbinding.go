package contrib

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// mqttBinding is not the library's: that one leaves a client behind with each attempt to connect that fails, which goes on
// trying, and takes the connection from its successors once the server is back. Client names and topics are the same.
var mqttBinding = components.Foreign(components.BindingBlock, "mqtt3", "A topic of an MQTT 3 server, at least once: create publishes to it, or to the topic that the metadata names, and its messages are events.",
	func() []components.Field {
		return slices.Concat(mqttConnects(), []components.Field{
			field("topic", "string", "The topic, which may have wildcards where messages are only read.", needed),
			field("consumerID", "string", "What the names of the clients begin with. Instances need one each: {uuid} makes one, but forgets what was on its way.", needed),
			field("retain", "bool", "The server keeps the last message for those who come later.", standard("false")),
			field("cleanSession", "bool", "The server forgets the reader when it leaves, and what comes meanwhile.", standard("false")),
			field("qos", "int", "Accepted and without effect, as with daprd: it is 1."),
			field("backOffMaxRetries", "int", "Accepted and without effect: a message that fails comes again until it is handled."),
		})
	}, openMQTTBinding)

// mqttTopic is a topic as a binding.
type mqttTopic struct {
	server        *mqttServer
	topic, name   string
	retain, clean bool
	host          components.Host
	life          *life
	out           chan struct{} // holds one for each message that is being written
	producer      mqtt.Client   // nil where the manifest wants no output
	restarts      atomic.Int64  // of connections, before anything is sent on the new one
}

var (
	_ binding.Output = (*mqttTopic)(nil)
	_ binding.Input  = (*mqttTopic)(nil)
)

func openMQTTBinding(ctx context.Context, host components.Host, s components.Settings) (*mqttTopic, error) {
	server, key, err := mqttServerOf(s.Values)
	if err != nil {
		return nil, s.Invalid(key, err)
	}
	m := &mqttTopic{
		server: server, topic: s.Values["topic"], name: s.Values["consumerID"], retain: s.Bool("retain"), clean: s.Bool("cleanSession"),
		host: host, life: newLife(host.Log), out: make(chan struct{}, mostOut),
	}
	if host.Binding.Output {
		if m.producer, err = m.connect(ctx, "-producer", nil); err != nil {
			return nil, badOpen(ctx, "bindings.mqtt3: open", s, err)
		}
	}
	return m, nil
}

// connect makes a client that stays connected. Connected is called each time that it is.
func (m *mqttTopic) connect(ctx context.Context, role string, connected func(mqtt.Client)) (mqtt.Client, error) {
	log := m.host.Log.With("client", m.name+role)
	options := m.server.options(m.name+role, m.clean).
		SetOrderMatters(false). // or else one handler at work keeps the connection from all else
		SetMaxReconnectInterval(5 * time.Second).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			log.Warn("the connection to the server is lost and made again", "error", err)
		}).
		SetReconnectingHandler(func(mqtt.Client, *mqtt.ClientOptions) { m.restarts.Add(1) })
	if connected != nil {
		options.SetOnConnectHandler(connected)
	}
	client := mqtt.NewClient(options)
	if err := await(ctx, client.Connect()); err != nil {
		client.Disconnect(0)
		return nil, err
	}
	return client, nil
}

// Operations implements binding.Output.
func (m *mqttTopic) Operations() []string { return []string{"create"} }

// Invoke implements binding.Output. A message that was sent may arrive although Invoke says that it is not confirmed.
func (m *mqttTopic) Invoke(ctx context.Context, r binding.Request) (*binding.Response, error) {
	const op = "bindings.mqtt3: create"
	calling, leave, err := m.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if !m.producer.IsConnectionOpen() { // the client would keep the message, and all that follow
		return nil, fault.New(op, fault.BackendDown, "the server is not connected")
	}
	topic, data := cmp.Or(r.Metadata["topic"], m.topic), append([]byte(nil), r.Data...)
	if err := mqttName(topic); err != nil { // the server would end the connection, and the client take the message for delivered
		return nil, fault.E(op, fault.None, fault.BadRequest, err)
	}
	_, err = bounded(calling, m.life, m.out, func() (struct{}, error) {
		before := m.restarts.Load()
		err := await(calling, m.producer.Publish(topic, atLeastOnce, m.retain, data))
		if err == nil && m.restarts.Load() != before { // the client sends it again, and says before that it is done
			err = fault.New(op, fault.BackendDown, "the connection was lost before the server confirmed the message")
		}
		return struct{}{}, err
	})
	return nil, m.life.failure(ctx, op, err)
}

// Read implements binding.Input. The server gives a message out again only when the reader comes back, so what fails is
// repeated here.
func (m *mqttTopic) Read(ctx context.Context, handle binding.Handler) error {
	const op = "bindings.mqtt3: read"
	calling, leave, err := m.life.enter(ctx, op)
	if err != nil {
		return unlessOver(ctx, err)
	}
	defer leave()
	r := newReading(handle, true)
	broken := make(chan error, 1)
	client, err := m.connect(calling, "-consumer", func(client mqtt.Client) {
		err := await(calling, client.Subscribe(m.topic, atLeastOnce, func(_ mqtt.Client, message mqtt.Message) {
			_, _ = r.pass(binding.Event{Data: message.Payload(), Metadata: map[string]string{"topic": message.Topic()}}, message.Ack)
		}))
		if err != nil && client.IsConnectionOpen() {
			select {
			case broken <- fmt.Errorf("the server refuses the subscription: %w", err):
			default:
			}
		}
	})
	if err != nil {
		return unlessOver(ctx, m.life.failure(ctx, op, err))
	}
	select {
	case <-calling.Done():
	case err = <-broken:
	}
	r.close()
	client.Disconnect(goodbye)
	return unlessOver(ctx, m.life.failure(ctx, op, err))
}

// Close implements binding.Output and binding.Input.
func (m *mqttTopic) Close(ctx context.Context) error {
	return m.life.close(ctx, "bindings.mqtt3: close", func() error {
		if m.producer != nil {
			m.producer.Disconnect(goodbye)
		}
		return nil
	})
}
