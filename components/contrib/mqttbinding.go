package contrib

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// mqttBinding is not the library's: that one leaves a client behind with each attempt to connect that fails, which goes on
// trying, and takes the connection from its successors once the server is back. Client names and topics are the same.
var mqttBinding = components.Foreign(components.BindingBlock, "mqtt3", "A topic of an MQTT 3 server, at least once: create publishes to it, or to the topic that the metadata names, and its messages are events.",
	[]components.Field{
		field("url", "string", "URL of the server: mqtt://user:password@host:1883, or mqtts: with TLS.", needed, hidden),
		field("topic", "string", "The topic, which may have wildcards where messages are only read.", needed),
		field("consumerID", "string", "What the names of the clients begin with. Instances need one each: {uuid} makes one, but forgets what was on its way.", needed),
		field("retain", "bool", "The server keeps the last message for those who come later.", standard("false")),
		field("cleanSession", "bool", "The server forgets the reader when it leaves, and what comes meanwhile.", standard("false")),
		field("qos", "int", "Accepted and without effect, as with daprd: it is 1."),
		field("backOffMaxRetries", "int", "Accepted and without effect: a message that fails comes again until it is handled."),
		field("caCert", "string", "Certificate of the authority that signed the server's, in PEM.", hidden),
		field("clientCert", "string", "Certificate to present to the server, in PEM.", hidden),
		field("clientKey", "string", "Key of that certificate, in PEM.", hidden),
	}, openMQTTBinding)

const (
	atLeastOnce = 1
	// connecting is how long a connection may take to come about, publishing how long the server may take to confirm.
	connecting = 10 * time.Second
	// goodbye is how long what is on its way has to leave, in milliseconds.
	goodbye = 200
)

// mqttTopic is a topic as a binding.
type mqttTopic struct {
	server        *url.URL
	tls           *tls.Config
	topic, name   string
	retain, clean bool
	host          components.Host
	life          *life
	out           chan struct{} // holds one for each message that is being written
	producer      mqtt.Client   // nil where the manifest wants no output
}

var (
	_ binding.Output = (*mqttTopic)(nil)
	_ binding.Input  = (*mqttTopic)(nil)
)

func openMQTTBinding(ctx context.Context, host components.Host, s components.Settings) (*mqttTopic, error) {
	server, err := url.Parse(s.Values["url"])
	if err != nil || server.Host == "" {
		return nil, s.Invalid("url", errors.New("is no URL with a host"))
	}
	m := &mqttTopic{
		server: server, topic: s.Values["topic"], name: s.Values["consumerID"], retain: s.Bool("retain"), clean: s.Bool("cleanSession"),
		tls: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: server.Hostname()}, host: host, life: newLife(host.Log),
		out: make(chan struct{}, mostOut),
	}
	if pem := s.Values["caCert"]; pem != "" {
		m.tls.RootCAs = x509.NewCertPool()
		if !m.tls.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return nil, s.Invalid("caCert", errors.New("holds no certificate"))
		}
	}
	if cert, key := s.Values["clientCert"], s.Values["clientKey"]; cert != "" || key != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			return nil, s.Invalid("clientCert", err)
		}
		m.tls.Certificates = []tls.Certificate{pair}
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
	scheme := m.server.Scheme
	switch scheme {
	case "mqtt":
		scheme = "tcp"
	case "mqtts", "tcps", "tls":
		scheme = "ssl"
	}
	password, _ := m.server.User.Password()
	log := m.host.Log.With("client", m.name+role)
	options := mqtt.NewClientOptions().AddBroker(scheme + "://" + m.server.Host).SetClientID(m.name + role).
		SetUsername(m.server.User.Username()).SetPassword(password).SetTLSConfig(m.tls).SetCleanSession(m.clean).
		SetOrderMatters(false). // or else one handler at work keeps the connection from all else
		SetAutoAckDisabled(true).SetConnectTimeout(connecting).SetMaxReconnectInterval(5 * time.Second).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			log.Warn("the connection to the server is lost and made again", "error", err)
		})
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

// await waits for what a client was asked to do.
func await(ctx context.Context, token mqtt.Token) error {
	late := time.NewTimer(connecting)
	defer late.Stop()
	select {
	case <-token.Done():
		return token.Error()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late.C:
		return fault.New("bindings.mqtt3", fault.BackendDown, "the server does not answer")
	}
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
	_, err = bounded(calling, m.life, m.out, func() (struct{}, error) {
		return struct{}{}, await(calling, m.producer.Publish(topic, atLeastOnce, m.retain, data))
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
