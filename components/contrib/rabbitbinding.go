package contrib

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"time"

	common "github.com/dapr/components-contrib/common/component/rabbitmq"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// rabbitBinding is not the library's: that one says that a message is written when it is not yet, and reads and makes its
// connection anew at the same time without a lock. Queues and messages are the same.
var rabbitBinding = components.Foreign(components.BindingBlock, "rabbitmq", "A queue of RabbitMQ: create writes to it, and its messages are events, one after the other.",
	func() []components.Field {
		return []components.Field{
			field("host", "string", "URL of the server: amqp://user:password@host:5672.", needed, hidden),
			field("queueName", "string", "Name of the queue, which is declared.", needed),
			field("durable", "bool", "The queue outlives a restart of the server.", standard("false")),
			field("deleteWhenUnused", "bool", "The queue goes with its last reader.", standard("false")),
			field("exclusive", "bool", "The queue is of one connection and goes with it: for one direction alone.", standard("false")),
			field("prefetchCount", "int", "Most messages that wait in this process; 0 is all that there are.", standard("100"), within("0", "65535")),
			field("maxPriority", "int", "Makes the queue one of priorities up to this.", within("1", "255")),
			field("ttl", "duration", "How long the queue keeps a message; left out, for ever.", also("ttlInSeconds")),
			field("reconnectWaitInSeconds", "duration", "Pause before a reader's lost connection is made again.", standard("5s")),
			field("contentType", "string", "Accepted and without effect, as with daprd: the metadata contentType of a request says it."),
			field("caCert", "string", "Certificate of the authority that signed the server's, in PEM.", hidden),
			field("clientCert", "string", "Certificate to present to the server, in PEM.", hidden),
			field("clientKey", "string", "Key of that certificate, in PEM.", hidden),
			field("saslExternal", "bool", "Sign in by the client's certificate.", standard("false"), also("externalSasl")),
		}
	}, openRabbitBinding)

// rabbitQueue is a queue as a binding.
type rabbitQueue struct {
	url, name                  string
	config                     amqp.Config
	durable, unused, exclusive bool
	arguments                  amqp.Table
	prefetch                   int
	again                      time.Duration
	host                       components.Host
	life                       *life
	out                        chan struct{} // holds one for each message that is being written

	turn    chan struct{}    // held by whoever uses what follows
	conn    *amqp.Connection // of writing; nil before the first and after a broken one
	channel *amqp.Channel
}

var (
	_ binding.Output = (*rabbitQueue)(nil)
	_ binding.Input  = (*rabbitQueue)(nil)
)

func openRabbitBinding(ctx context.Context, host components.Host, s components.Settings) (*rabbitQueue, error) {
	q := &rabbitQueue{
		url: s.Values["host"], name: s.Values["queueName"], durable: s.Bool("durable"), unused: s.Bool("deleteWhenUnused"), exclusive: s.Bool("exclusive"),
		arguments: amqp.Table{}, prefetch: int(s.Int("prefetchCount")), again: s.Duration("reconnectWaitInSeconds"),
		host: host, life: newLife(host.Log), turn: make(chan struct{}, 1), out: make(chan struct{}, mostOut),
	}
	if ttl := s.Duration("ttl"); ttl > 0 {
		q.arguments["x-message-ttl"] = int(min(ttl.Milliseconds(), math.MaxInt32))
	}
	if most := s.Int("maxPriority"); most > 0 {
		q.arguments["x-max-priority"] = uint8(most)
	}
	if err := q.secure(s); err != nil {
		return nil, err
	}
	const op = "bindings.rabbitmq: open"
	if host.Binding.Output {
		if _, err := q.writer(ctx); err != nil {
			return nil, badOpen(ctx, op, s, err)
		}
	}
	return q, nil
}

// secure reads what the manifest says about TLS and about signing in.
func (q *rabbitQueue) secure(s components.Settings) error {
	if s.Bool("saslExternal") {
		q.config.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	ca, cert, key := s.Values["caCert"], s.Values["clientCert"], s.Values["clientKey"]
	if ca+cert+key == "" {
		return nil
	}
	q.config.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		q.config.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !q.config.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return s.Invalid("caCert", errors.New("holds no certificate"))
		}
	}
	if cert+key != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			return s.Invalid("clientCert", err)
		}
		q.config.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// connect makes a connection with one channel, and the queue.
func (q *rabbitQueue) connect(ctx context.Context) (conn *amqp.Connection, channel *amqp.Channel, err error) {
	config := q.config
	var interrupt func() bool // of what is said first; the client itself knows no context
	config.Dial = func(network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: connecting}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		interrupt = context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		return c, c.SetDeadline(time.Now().Add(connecting)) // until the client takes it back
	}
	conn, err = amqp.DialConfig(q.url, config)
	if err == nil {
		if channel, err = conn.Channel(); err == nil {
			_, err = channel.QueueDeclare(q.name, q.durable, q.unused, q.exclusive, false, q.arguments)
		}
	}
	if interrupt != nil {
		interrupt()
	}
	switch {
	case err == nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil:
		return conn, channel, nil
	}
	q.leave(conn)
	return nil, nil, err
}

// leave closes a connection, or what is left of it.
func (q *rabbitQueue) leave(conn *amqp.Connection) {
	if conn != nil {
		_ = conn.CloseDeadline(time.Now().Add(grace)) // fails on one that is lost
	}
}

// writer is the channel to write on.
func (q *rabbitQueue) writer(ctx context.Context) (*amqp.Channel, error) {
	select {
	case q.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-q.turn }()
	if q.channel != nil && !q.channel.IsClosed() {
		return q.channel, nil
	}
	q.leave(q.conn)
	conn, channel, err := q.connect(ctx)
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		q.leave(conn)
		conn, channel = nil, nil
	}
	q.conn, q.channel = conn, channel
	return channel, err
}

// Operations implements binding.Output.
func (q *rabbitQueue) Operations() []string { return []string{"create"} }

// Invoke implements binding.Output. A message that was sent may arrive although Invoke says that it is not confirmed.
func (q *rabbitQueue) Invoke(ctx context.Context, r binding.Request) (*binding.Response, error) {
	const op = "bindings.rabbitmq: create"
	calling, leave, err := q.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	message, err := publishing(r)
	if err != nil {
		return nil, fault.E(op, fault.None, fault.BadRequest, err)
	}
	_, err = bounded(calling, q.life, q.out, func() (struct{}, error) {
		channel, err := q.writer(calling)
		if err != nil {
			return struct{}{}, err
		}
		sent, err := channel.PublishWithDeferredConfirm("", q.name, false, false, message)
		if err != nil {
			return struct{}{}, err
		}
		confirmed, err := sent.WaitContext(calling)
		if err == nil && !confirmed {
			err = fault.New(op, fault.BackendDown, "the server did not confirm that it has the message")
		}
		return struct{}{}, err
	})
	return nil, q.life.failure(ctx, op, err)
}

// publishing is r as a message.
func publishing(r binding.Request) (amqp.Publishing, error) {
	message := amqp.Publishing{
		DeliveryMode: amqp.Persistent, ContentType: "text/plain", Body: bytes.Clone(r.Data), Headers: make(amqp.Table, len(r.Metadata)),
	}
	for key, value := range r.Metadata {
		message.Headers[key] = value
	}
	ttl, given, err := contribmetadata.TryGetTTL(r.Metadata)
	if err != nil {
		return message, fmt.Errorf("failed to get TTL: %w", err)
	}
	if given {
		message.Expiration = strconv.FormatInt(ttl.Milliseconds(), 10)
	}
	if priority, given, err := contribmetadata.TryGetPriority(r.Metadata); err != nil {
		return message, err
	} else if given {
		message.Priority = priority
	}
	common.ApplyMetadataToPublishing(r.Metadata, &message)
	return message, nil
}

// Read implements binding.Input.
func (q *rabbitQueue) Read(ctx context.Context, handle binding.Handler) error {
	const op = "bindings.rabbitmq: read"
	calling, leave, err := q.life.enter(ctx, op)
	if err != nil {
		return unlessOver(ctx, err)
	}
	defer leave()
	for began := false; ; {
		read, err := q.consume(calling, handle)
		if began = began || read; calling.Err() != nil || !began {
			return unlessOver(ctx, q.life.failure(ctx, op, err))
		}
		q.host.Log.Warn("the connection to the server is lost and made again", "queue", q.name, "after", q.again, "error", err)
		wait := time.NewTimer(q.again)
		select {
		case <-wait.C:
		case <-calling.Done():
		}
		wait.Stop()
	}
}

// consume reads on one connection until ctx ends or that is lost. It returns whether the reading began.
func (q *rabbitQueue) consume(ctx context.Context, handle binding.Handler) (began bool, err error) {
	conn, channel, err := q.connect(ctx)
	if err != nil {
		return false, err
	}
	defer q.leave(conn)
	if err := channel.Qos(q.prefetch, 0, true); err != nil {
		return false, err
	}
	messages, err := channel.Consume(q.name, "", false, false, false, false, nil)
	if err != nil {
		return false, err
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case m, ok := <-messages:
			if !ok {
				return true, nil // why, the library keeps to itself
			}
			if ctx.Err() == nil { // or else it goes back with the connection
				q.deliver(m, handle)
			}
		}
	}
	return true, nil
}

// deliver hands a message over and tells the server what came of it; where it cannot be told, it gives the message out again.
func (q *rabbitQueue) deliver(m amqp.Delivery, handle binding.Handler) {
	e := binding.Event{Data: m.Body, Metadata: make(map[string]string, len(m.Headers))}
	for key, value := range m.Headers {
		if text, ok := value.(string); ok {
			e.Metadata[url.QueryEscape(key)] = text
		}
	}
	var err error
	if _, failed := handle(e); failed != nil {
		err = m.Nack(false, true)
	} else {
		err = m.Ack(false)
	}
	if err != nil {
		q.host.Log.Debug("the server does not hear what came of a message", "error", err)
	}
}

// Close implements binding.Output and binding.Input.
func (q *rabbitQueue) Close(ctx context.Context) error {
	return q.life.close(ctx, "bindings.rabbitmq: close", func() error {
		q.turn <- struct{}{} // nobody comes any more
		q.leave(q.conn)
		return nil
	})
}
