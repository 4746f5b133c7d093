package contrib

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"
	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/uuid"

	"github.com/sidecast/sidecast/fault"
)

// mqttLink is a client that publishes, or one that has the session of a subscription, over one connection after the other.
// The server sends a message again on each connection until it is acknowledged, under the packet identifier that it had
// (section 4.4 of MQTT 3.1.1): so one that is at work here, or was handled while nothing could be acknowledged, is known again.
type mqttLink struct {
	log           logger.Logger
	server        *mqttServer
	name, filter  string
	qos           byte
	retain, clean bool
	leave         bool // the server shall forget the subscription when it ends

	ctx     context.Context // ends with the link
	stop    context.CancelFunc
	accept  Accept         // nil where the link publishes
	running sync.WaitGroup // Add within running, or under mu and only while not closed

	mu     sync.Mutex
	closed bool
	conn   *mqttConn              // nil while there is none
	known  map[uint16]mqttArrival // those that were not acknowledged, and events that were lately, by the packet identifier
	acked  [remembered]mqttAcked  // the latter; the oldest goes when there are too many
	oldest int
	loose  int // messages at work that the server sent once and for all
}

// mqttConn is one connection. Its context ends with it.
type mqttConn struct {
	client mqtt.Client
	ctx    context.Context
	lost   context.CancelCauseFunc
	since  time.Time
}

// mqttArrival is what is remembered of a message.
type mqttArrival struct {
	token string
	sum   [sha256.Size]byte // of topic and data
}

// mqttAcked is a message whose acknowledgement may not have come to the server before its connection broke.
type mqttAcked struct {
	id    uint16
	token string
}

// mqttCall is the context of a handler's call with one message. That it has a deadline, far away, tells that it ends when the
// message was acknowledged; see acknowledging.
type mqttCall struct{ context.Context }

func (mqttCall) Deadline() (time.Time, bool) { return farAway, true }

var (
	_ contribpubsub.PubSub = (*mqttLink)(nil)
	_ batchPublisher       = (*mqttLink)(nil)
	_ Ordered              = (*mqttLink)(nil)
)

// Init implements contribpubsub.PubSub. A publisher connects.
func (m *mqttLink) Init(ctx context.Context, md contribpubsub.Metadata) (err error) {
	values := md.Properties
	if m.server, _, err = mqttServerOf(values); err != nil {
		return err
	}
	qos, err := strconv.ParseUint(values["qos"], 10, 2)
	if err != nil {
		return fmt.Errorf("qos: %w", err)
	}
	m.qos, m.name, m.filter = byte(qos), values[mqttNameKey], values[mqttFilterKey]
	m.retain, m.clean = values["retain"] == "true", values["cleanSession"] == "true"
	m.known = map[uint16]mqttArrival{}
	if m.filter != "" {
		return nil
	}
	m.clean = true // or else the client would keep what it could not publish, and say that it could not
	return m.begin(ctx, context.Background())
}

func (*mqttLink) Features() []contribpubsub.Feature                 { return nil }
func (*mqttLink) GetComponentMetadata() contribmetadata.MetadataMap { return nil }

// Subscribe implements contribpubsub.PubSub.
func (m *mqttLink) Subscribe(ctx context.Context, r contribpubsub.SubscribeRequest, handler contribpubsub.Handler) error {
	return m.SubscribeInOrder(ctx, r, func(ctx context.Context, message *contribpubsub.NewMessage) func() error {
		return func() error { return handler(ctx, message) }
	})
}

// SubscribeInOrder implements Ordered.
func (m *mqttLink) SubscribeInOrder(ctx context.Context, r contribpubsub.SubscribeRequest, accept Accept) error {
	m.accept, m.leave = accept, r.Metadata[mqttLeaveKey] != ""
	return m.begin(ctx, ctx)
}

// Close implements contribpubsub.PubSub. What was handled has been acknowledged.
func (m *mqttLink) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	if m.stop != nil {
		m.stop()
	}
	m.running.Wait()
	return nil
}

// begin connects, and stays connected until life ends or the link is closed.
func (m *mqttLink) begin(ctx, life context.Context) error {
	m.ctx, m.stop = context.WithCancel(life)
	conn, err := m.dial(ctx, false)
	if err != nil {
		return err
	}
	m.use(conn)
	m.running.Go(func() { m.keep(conn) })
	return nil
}

func (m *mqttLink) use(conn *mqttConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conn = conn
}

func (m *mqttLink) now() *mqttConn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conn
}

// dial makes a connection. Again says that the session, if the server still has it, has the subscription.
func (m *mqttLink) dial(ctx context.Context, again bool) (*mqttConn, error) {
	conn := &mqttConn{since: time.Now()}
	conn.ctx, conn.lost = context.WithCancelCause(m.ctx)
	options := m.server.options(m.name, m.clean).SetAutoReconnect(false).SetOrderMatters(true).
		SetKeepAlive(20 * time.Second).SetWriteTimeout(connecting).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { conn.lost(err) }).
		SetDefaultPublishHandler(func(_ mqtt.Client, message mqtt.Message) { m.arrived(conn, message) })
	conn.client = mqtt.NewClient(options)
	token := conn.client.Connect().(*mqtt.ConnectToken)
	err := await(ctx, token)
	if err != nil && refusedName(token) {
		err = fault.E("pubsub.mqtt3", fault.None, fault.BackendFailed, fmt.Errorf("the server does not let %s in: %w", m.name, err))
	}
	if err == nil && m.filter != "" && !(again && token.SessionPresent()) {
		err = m.subscribe(ctx, conn)
	}
	if err != nil {
		m.hangUp(conn)
		return nil, err
	}
	return conn, nil
}

// refusedName says whether the server answered, and would not have the client.
func refusedName(token *mqtt.ConnectToken) bool {
	select {
	case <-token.Done():
		return token.ReturnCode() > packets.Accepted && token.ReturnCode() <= packets.ErrRefusedNotAuthorised
	default:
		return false
	}
}

// refusedFilter is the answer to a subscription that the server does not make: section 3.9.3 of MQTT 3.1.1.
const refusedFilter = 0x80

func (m *mqttLink) subscribe(ctx context.Context, conn *mqttConn) error {
	token := conn.client.Subscribe(m.filter, m.qos, nil).(*mqtt.SubscribeToken)
	if err := await(ctx, token); err != nil {
		return err
	}
	for _, answer := range token.Result() {
		if answer == refusedFilter {
			return fault.New("pubsub.mqtt3", fault.BackendFailed, "the server refuses the subscription to %s", m.filter)
		}
		if answer < m.qos {
			m.log.Warnf("the server grants %s with QoS %d alone: what is on its way may be lost", m.filter, answer)
		}
	}
	return nil
}

// hangUp ends a connection, after what is to be written.
func (m *mqttLink) hangUp(conn *mqttConn) {
	conn.client.Disconnect(goodbye)
	conn.lost(context.Canceled)
}

const (
	// soonest and latest bound the pause before a connection is made again.
	soonest, latest = 250 * time.Millisecond, 5 * time.Second
	// brief is how long a connection lasts at most that somebody else has ended: the server closes the one that has the name of
	// a newer one, and takes the next.
	brief = 30 * time.Second
	// contested is how many of those in a row are no accident, and yielding how long the other one is left alone then.
	contested, yielding = 4, time.Minute
)

// keep makes the connection again when it is lost.
func (m *mqttLink) keep(conn *mqttConn) {
	for ended := 0; ; {
		select {
		case <-m.ctx.Done():
			m.part(conn)
			return
		case <-conn.ctx.Done():
		}
		if m.ctx.Err() != nil {
			m.part(conn)
			return
		}
		m.use(nil)
		m.log.Warnf("the connection of the client %s is lost and made again: %v", m.name, context.Cause(conn.ctx))
		wait := soonest
		if ended++; m.filter == "" || time.Since(conn.since) > brief || !errors.Is(context.Cause(conn.ctx), io.EOF) {
			ended = 0
		}
		if ended >= contested {
			m.log.Errorf("the server has ended %d connections of the client %s soon after they came about: another instance seems to have "+
				"the same consumerID. It is left alone for %s. A session of MQTT 3 is that of one instance: give each a consumerID of its own, "+
				"with the topic $share/{group}/%s where they are to share its messages", ended, m.name, yielding, m.filter)
			wait = yielding
		}
		tries := 0
		if conn, tries = m.again(wait); conn == nil {
			return
		}
		if tries > 1 { // the server was away
			ended = 0
		}
		m.use(conn)
	}
}

// again dials until it has success; it returns nil when the link ends before.
func (m *mqttLink) again(wait time.Duration) (conn *mqttConn, tries int) {
	for {
		pause(m.ctx, wait)
		if m.ctx.Err() != nil {
			return nil, tries
		}
		tries++
		conn, err := m.dial(m.ctx, true)
		if err == nil {
			return conn, tries
		}
		m.log.Warnf("the client %s does not connect: %v", m.name, err)
		wait = min(max(2*wait, soonest), latest)
	}
}

// part ends the last connection.
func (m *mqttLink) part(conn *mqttConn) {
	m.use(nil)
	if m.leave && conn.client.IsConnectionOpen() {
		if err := await(context.Background(), conn.client.Unsubscribe(m.filter)); err != nil {
			m.log.Warnf("the server was not told that the subscription of %s has ended: %v", m.name, err)
		}
	}
	m.hangUp(conn)
}

// mostLoose is how many messages may be here that the server does not wait for. Those beyond are lost, as they may be.
const mostLoose = 1000

// arrived lines a message up, and acknowledges it when it was handled. The client calls it with one after the other.
func (m *mqttLink) arrived(conn *mqttConn, message mqtt.Message) {
	token, ok := m.enter(message)
	if !ok {
		return
	}
	calling, done := context.WithCancel(conn.ctx)
	if message.Qos() == 0 { // it is handled, whatever becomes of the connection
		calling, done = context.WithCancel(m.ctx)
	}
	wait := m.accept(mqttCall{calling}, &contribpubsub.NewMessage{
		Topic: message.Topic(), Data: message.Payload(),
		Metadata: map[string]string{tokenKey: token, "retained": strconv.FormatBool(message.Retained())},
	})
	go func() {
		defer m.running.Done()
		defer done()
		err := wait()
		if err == nil && conn.ctx.Err() == nil {
			message.Ack() // returns when it is about to be written
		}
		m.left(message, token, err == nil && conn.ctx.Err() == nil)
	}()
}

// enter names a message, and adds it to what is running.
func (m *mqttLink) enter(message mqtt.Message) (token string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.accept == nil {
		return "", false
	}
	token = uuid.NewString()
	if message.Qos() == 0 {
		if m.loose >= mostLoose {
			m.log.Warnf("messages of QoS 0 are lost: %d wait to be handled", m.loose)
			return "", false
		}
		m.loose++
	} else {
		arrival := mqttArrival{token, sha256.Sum256(fmt.Appendf(nil, "%s\x00%s", message.Topic(), message.Payload()))}
		if before, there := m.known[message.MessageID()]; there && message.Duplicate() && before.sum == arrival.sum {
			token = before.token
		} else {
			m.known[message.MessageID()] = arrival
		}
	}
	m.running.Add(1)
	return token, true
}

// left is told that a message is not at work any more. One that was acknowledged is forgotten, for its packet identifier may be
// another's from then on, with the same data. That of an event is not: its data has its id.
func (m *mqttLink) left(message mqtt.Message, token string, acknowledged bool) {
	isEvent := acknowledged && event(&contribpubsub.NewMessage{Data: message.Payload()}).ContentType == cloudEvent
	m.mu.Lock()
	defer m.mu.Unlock()
	id := message.MessageID()
	switch {
	case message.Qos() == 0:
		m.loose--
	case !acknowledged || m.known[id].token != token:
	case isEvent:
		if old := m.acked[m.oldest]; m.known[old.id].token == old.token {
			delete(m.known, old.id)
		}
		m.acked[m.oldest] = mqttAcked{id, token}
		m.oldest = (m.oldest + 1) % remembered
	default:
		delete(m.known, id)
	}
}

// Publish implements contribpubsub.PubSub.
func (m *mqttLink) Publish(ctx context.Context, r *contribpubsub.PublishRequest) error {
	return m.publishBatch(ctx, []*contribpubsub.PublishRequest{r})[0]
}

// publishBatch implements batchPublisher. A message that was sent may be stored although it was not confirmed.
func (m *mqttLink) publishBatch(ctx context.Context, requests []*contribpubsub.PublishRequest) []error {
	errs := make([]error, len(requests))
	conn := m.now()
	if conn == nil || !conn.client.IsConnectionOpen() {
		for i := range errs {
			errs[i] = fault.New("pubsub.mqtt3", fault.BackendDown, "the server is not connected")
		}
		return errs
	}
	sent := make(chan mqtt.Token, len(requests))
	m.running.Go(func() { // sending waits while the server does not read
		defer close(sent)
		for _, r := range requests {
			if ctx.Err() != nil || conn.ctx.Err() != nil {
				return
			}
			retain := m.retain
			if text := r.Metadata["retain"]; text != "" {
				retain, _ = strconv.ParseBool(text) // it was checked
			}
			sent <- conn.client.Publish(r.Topic, m.qos, retain, r.Data)
		}
	})
	for i := range errs {
		errs[i] = m.confirmed(ctx, conn, sent)
	}
	return errs
}

// confirmed waits until the next message of sent is the server's.
func (m *mqttLink) confirmed(ctx context.Context, conn *mqttConn, sent <-chan mqtt.Token) error {
	var token mqtt.Token
	select {
	case token = <-sent:
	case <-ctx.Done():
	case <-conn.ctx.Done():
	}
	if token != nil {
		select {
		case <-token.Done():
			if token.Error() == nil {
				return nil
			}
		case <-ctx.Done():
		case <-conn.ctx.Done():
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case token != nil && token.Error() != nil:
		return fault.E("pubsub.mqtt3", fault.None, fault.BackendDown, token.Error())
	}
	return fault.New("pubsub.mqtt3", fault.BackendDown, "the connection was lost before the server confirmed the message")
}
