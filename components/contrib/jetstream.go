package contrib

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

var jetstreamPubSub = components.Foreign(components.PubSubBlock, "jetstream",
	"Topics as subjects in streams of a NATS server that is not the fabric, and that has the streams.", jetstreamFields, openJetStream).When("natsURL")

// dialling is how long the server may take to accept a connection. The driver's two seconds are short for a busy machine.
const dialling = 10 * time.Second

const jetstreamName = "pubsub.jetstream"

// natsBroker reads Dapr's settings and stores what Dapr stores, an event as the data of a message, without the library's
// code: that pushes whatever the server has to the process, cannot open the consumer of a group again once it was closed,
// and lets the server take an event that moves to the dead-letter topic of the same stream for a copy of itself. Here
// messages are pulled, as many as are asked for, and attempts are the server's.
type natsBroker struct {
	settings components.Settings
	host     components.Host
	nc       *nats.Conn
	js       jetstream.JetStream
	api      string        // what the subjects of JetStream's requests begin with
	ended    chan struct{} // closed when the connection is
	life     *life

	mu    sync.Mutex
	feeds map[*natsFeed]bool
	link  context.Context // ends when the connection breaks; the next one has another
	cut   context.CancelCauseFunc
}

var _ pubsub.Broker = (*natsBroker)(nil)

// connected makes a new link.
func (b *natsBroker) connected(*nats.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.link, b.cut = context.WithCancelCause(context.Background())
}

// disconnected ends those calls that wait for an answer by the connection that broke: it will not come.
func (b *natsBroker) disconnected(*nats.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut(nats.ErrDisconnected)
}

// linkNow is a context that ends with the connection there is, or has ended.
func (b *natsBroker) linkNow() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.link
}

// linked is a context that ends with ctx or the connection, whichever is first.
func (b *natsBroker) linked(ctx context.Context) (calling context.Context, done func()) {
	link := b.linkNow()
	calling, cut := context.WithCancelCause(ctx)
	if link.Err() != nil {
		cut(context.Cause(link))
	}
	stop := context.AfterFunc(link, func() { cut(context.Cause(link)) })
	return calling, func() {
		stop()
		cut(nil)
	}
}

// answeredBy is err, or that the connection broke while calling was at work.
func answeredBy(calling context.Context, err error) error {
	if err != nil && context.Cause(calling) == nats.ErrDisconnected {
		return nats.ErrDisconnected
	}
	return err
}

func openJetStream(_ context.Context, host components.Host, s components.Settings) (pubsub.Broker, error) {
	const op = jetstreamName + ": open"
	b := &natsBroker{settings: s, host: host, ended: make(chan struct{}), life: newLife(host.Log), feeds: map[*natsFeed]bool{}}
	options := []nats.Option{
		nats.Name(s.Values["name"]), nats.MaxReconnects(-1), nats.Timeout(dialling), nats.ClosedHandler(func(*nats.Conn) { close(b.ended) }),
		nats.DisconnectErrHandler(b.disconnected), nats.ReconnectHandler(b.connected),
	}
	b.connected(nil)
	for _, pair := range [][2]string{{"jwt", "seedKey"}, {"tls_client_cert", "tls_client_key"}} {
		for i, key := range pair {
			if s.Given(key) && !s.Given(pair[1-i]) {
				return nil, s.Invalid(key, fmt.Errorf("needs %s beside it", pair[1-i]))
			}
		}
	}
	switch {
	case s.Given("jwt"):
		options = append(options, nats.UserJWT(
			func() (string, error) { return s.Values["jwt"], nil },
			func(nonce []byte) ([]byte, error) { return sign(s.Values["seedKey"], nonce) }))
	case s.Given("tls_client_cert"):
		options = append(options, nats.ClientCert(s.Values["tls_client_cert"], s.Values["tls_client_key"]))
	case s.Given("token"):
		options = append(options, nats.Token(s.Values["token"]))
	}
	nc, err := nats.Connect(s.Values["natsURL"], options...)
	switch {
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrTimeout):
		return nil, fault.E(op, fault.None, fault.BackendDown, err)
	case err != nil && reasonOf(err) != fault.BackendFailed, err != nil && answered(err):
		return nil, fault.E(op, fault.None, reasonOf(err), err)
	case err != nil:
		return nil, s.Invalid("natsURL", err)
	}
	b.nc = nc
	switch domain, prefix := s.Values["domain"], s.Values["apiPrefix"]; {
	case domain != "":
		b.api = "$JS." + domain + ".API."
		b.js, err = jetstream.NewWithDomain(nc, domain)
	case prefix != "":
		b.api = strings.TrimSuffix(prefix, ".") + "."
		b.js, err = jetstream.NewWithAPIPrefix(nc, prefix)
	default:
		b.api = jetstream.DefaultAPIPrefix
		b.js, err = jetstream.New(nc)
	}
	if err != nil {
		nc.Close()
		return nil, s.Invalid("domain", err)
	}
	return b, nil
}

// sign answers the server's challenge with the key of seed.
func sign(seed string, nonce []byte) ([]byte, error) {
	pair, err := nkeys.FromSeed([]byte(seed))
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	return pair.Sign(nonce)
}

// failure is the fault of a call of ctx; see life.
func (b *natsBroker) failure(ctx context.Context, op string, err error) error {
	if err != nil && ctx.Err() == nil && b.life.ctx.Err() != nil {
		return closedError(op)
	}
	return natsFailure(ctx, op, err)
}

// natsFailure is the fault of what JetStream or its client says.
func natsFailure(ctx context.Context, op string, err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fault.FromContext(op, ctx, "the NATS server")
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrStreamNotFound):
		return fault.New(op, fault.JetStreamRefused, "no stream of the server has the topic as a subject: create one: %w", err)
	case errors.As(err, &api):
		return fault.E(op, fault.None, fault.JetStreamRefused, err)
	case errors.Is(err, nats.ErrMsgAlreadyAckd):
		return fault.E(op, fault.None, fault.AckUnknown, err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting):
		return fault.E(op, fault.None, fault.BackendDown, err)
	}
	return failure(ctx, op, err)
}

// besideHeader is where a message keeps what it has beside its data, for those that know of it.
const besideHeader = "Sidecast-Message"

// beside is what a message has beside its data.
type beside struct {
	ID, Key, ContentType string
	Header               map[string]string
}

// Publish implements pubsub.Broker. Of two messages of one topic and ID the server keeps the first, within the stream's
// window for duplicates.
func (b *natsBroker) Publish(ctx context.Context, topic string, messages []pubsub.Message) []error {
	op := jetstreamName + ": publish " + topic
	errs := make([]error, len(messages))
	calling, leave, err := b.life.enter(ctx, op)
	if err == nil {
		defer leave()
		err = checkSubject(op, topic)
	}
	for i := range messages {
		switch m := &messages[i]; {
		case err != nil:
			errs[i] = err
		case m.Delay < 0:
			errs[i] = fault.New(op, fault.DelayInvalid, "the delay is negative: %s", m.Delay)
		case m.Delay > 0:
			errs[i] = fault.New(op, fault.NotSupported, "%s with natsURL cannot delay messages: pubsub.jetstream without it can", jetstreamName)
		default:
			errs[i] = b.failure(ctx, op, b.publish(calling, op, topic, m))
		}
	}
	return errs
}

func (b *natsBroker) publish(ctx context.Context, op, topic string, m *pubsub.Message) error {
	text, err := json.Marshal(beside{m.ID, m.Key, m.ContentType, m.Header})
	if err != nil {
		return err
	}
	message := &nats.Msg{Subject: topic, Data: m.Data, Header: nats.Header{}}
	message.Header.Set(besideHeader, base64.StdEncoding.EncodeToString(text))
	message.Header.Set(nats.MsgIdHdr, consumerName(topic+" "+m.ID))
	room := min(pubsub.LetterRoom, b.nc.MaxPayload()/8)
	for name := range m.Header {
		if strings.HasPrefix(name, pubsub.LetterPrefix) { // what it was made of had to leave the room
			room = 0
		}
	}
	if size := int64(message.Size()); size > b.nc.MaxPayload()-room {
		return fault.New(op, fault.BodyTooLarge, "the event has %d bytes with its envelope and header, and this NATS server takes messages of %d, less %d for a dead letter's header: "+
			"raise max_payload in its configuration, or keep the payload in a state store and publish its key", size, b.nc.MaxPayload(), room)
	}
	calling, done := b.linked(ctx)
	defer done()
	if calling.Err() == nil { // or else the driver keeps it until there is a connection
		_, err = b.js.PublishMsg(calling, message, jetstream.WithRetryAttempts(0)) // the lane retries
	} else {
		err = calling.Err()
	}
	return answeredBy(calling, err)
}

func checkSubject(op, topic string) error {
	switch {
	case topic == "":
		return fault.New(op, fault.TopicInvalid, "the topic is empty")
	case strings.ContainsAny(topic, " \t\r\n"), strings.HasPrefix(topic, "."), strings.HasSuffix(topic, "."), strings.Contains(topic, ".."):
		return fault.New(op, fault.TopicInvalid, "the topic %q is no subject of NATS", topic)
	}
	return nil
}

// Subscribe implements pubsub.Broker. A topic with wildcards subscribes to all that it matches.
func (b *natsBroker) Subscribe(ctx context.Context, topic string, g pubsub.Group) (pubsub.Feed, error) {
	op := jetstreamName + ": subscribe " + topic
	calling, leave, err := b.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := checkSubject(op, topic); err != nil {
		return nil, err
	}
	if g.Name == "" {
		return nil, fault.New(op, fault.BadRequest, "the group has no name")
	}
	calling, done := b.linked(calling)
	defer done()
	consumer, err := b.consumer(calling, topic, g)
	if err = answeredBy(calling, err); err != nil {
		return nil, b.failure(ctx, op, err)
	}
	info := consumer.CachedInfo()
	f := &natsFeed{
		b: b, op: op, next: b.api + "CONSUMER.MSG.NEXT." + info.Stream + "." + info.Name,
		out: map[*natsDelivery]bool{}, bell: make(chan struct{}, 1),
	}
	if err := f.open(); err != nil {
		return nil, b.failure(ctx, op, err)
	}
	f.ctx, f.cancel = context.WithCancel(b.life.ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.feeds[f] = true
	return f, nil
}

// consumer finds the durable consumer of the group, or makes it.
func (b *natsBroker) consumer(ctx context.Context, topic string, g pubsub.Group) (jetstream.Consumer, error) {
	s, stream := b.settings, b.settings.Values["streamName"]
	if stream == "" {
		var err error
		if stream, err = b.js.StreamNameBySubject(ctx, topic); err != nil {
			return nil, err
		}
	}
	name := s.Values["durableName"]
	if name == "" {
		name = consumerName(cmp.Or(s.Values["queueGroupName"], g.Name) + "-" + topic)
	}
	wanted, err := b.wanted(topic, g)
	if err != nil {
		return nil, err
	}
	found, err := b.durable(ctx, stream, name, wanted)
	if errors.Is(err, errOtherSubject) { // the component's durable name is that of another topic's consumer
		found, err = b.durable(ctx, stream, consumerName(name+"-"+topic), wanted)
	}
	return found, err
}

// errOtherSubject says that a consumer would not give out what is wanted.
var errOtherSubject = errors.New("the consumer of that name is for another subject")

// givesOut says whether a consumer gives out the messages of a subject.
func givesOut(c jetstream.ConsumerConfig, subject string) bool {
	return c.FilterSubject == "" && len(c.FilterSubjects) == 0 || c.FilterSubject == subject || slices.Contains(c.FilterSubjects, subject)
}

// durable finds the consumer of that name, or makes it.
func (b *natsBroker) durable(ctx context.Context, stream, name string, wanted jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	there, err := b.js.Consumer(ctx, stream, name)
	if err == nil && there.CachedInfo().Config.DeliverSubject != "" || errors.Is(err, jetstream.ErrNotPullConsumer) {
		push, err := b.js.PushConsumer(ctx, stream, name)
		if err != nil {
			return nil, err
		}
		if !givesOut(push.CachedInfo().Config, wanted.FilterSubject) {
			return nil, errOtherSubject
		}
		name += "-pull"
		wanted.DeliverPolicy, wanted.OptStartTime = jetstream.DeliverByStartSequencePolicy, nil
		wanted.OptStartSeq = push.CachedInfo().AckFloor.Stream + 1
		there, err = b.js.Consumer(ctx, stream, name)
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, err
		}
	} else if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, err
	}
	if there == nil {
		wanted.Durable = name
		made, err := b.js.CreateConsumer(ctx, stream, wanted)
		if !errors.Is(err, jetstream.ErrConsumerExists) {
			return made, err
		}
		if there, err = b.js.Consumer(ctx, stream, name); err != nil { // someone was faster
			return nil, err
		}
	}
	now := there.CachedInfo().Config // it goes on where it was
	if !givesOut(now, wanted.FilterSubject) {
		return nil, errOtherSubject
	}
	now.AckWait, now.MaxAckPending, now.MaxDeliver, now.BackOff = wanted.AckWait, wanted.MaxAckPending, wanted.MaxDeliver, wanted.BackOff
	return b.js.UpdateConsumer(ctx, stream, now)
}

// wanted is the consumer that settings and group ask for.
func (b *natsBroker) wanted(topic string, g pubsub.Group) (jetstream.ConsumerConfig, error) {
	s := b.settings
	c := jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: topic, AckWait: cmp.Or(s.Duration("ackWait"), g.AckWait),
		MaxDeliver: cmp.Or(int(s.Int("maxDeliver")), -1), MaxAckPending: cmp.Or(g.MaxInFlight, int(s.Int("maxAckPending")), 1000),
		Replicas: int(s.Int("replicas")), MemoryStorage: s.Bool("memoryStorage"),
	}
	for _, text := range strings.FieldsFunc(s.Values["backOff"], func(r rune) bool { return r == ',' || r == ' ' }) {
		d, err := time.ParseDuration(text)
		if err != nil {
			return c, s.Invalid("backOff", err)
		}
		c.BackOff = append(c.BackOff, d)
	}
	switch policy := s.Values["deliverPolicy"]; {
	case policy == "last":
		c.DeliverPolicy = jetstream.DeliverLastPolicy
	case policy == "new", policy == "all" && g.OnlyNew:
		c.DeliverPolicy = jetstream.DeliverNewPolicy
	case policy == "sequence":
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, uint64(max(s.Int("startSequence"), 1))
	case policy == "time":
		at := time.Unix(s.Int("startTime"), 0)
		c.DeliverPolicy, c.OptStartTime = jetstream.DeliverByStartTimePolicy, &at
	}
	return c, nil
}

// Close implements pubsub.Broker.
func (b *natsBroker) Close(ctx context.Context) error {
	b.life.refuse()
	b.mu.Lock()
	feeds := make([]*natsFeed, 0, len(b.feeds))
	for f := range b.feeds {
		feeds = append(feeds, f)
	}
	b.mu.Unlock()
	for _, f := range feeds {
		_ = f.Close(ctx) // it fails only when ctx ends, which is told below
	}
	return b.life.close(ctx, jetstreamName+": close", func() error {
		_ = b.nc.FlushTimeout(time.Second) // settlements that are on their way; without a connection they are lost anyway
		b.nc.Close()
		<-b.ended
		return nil
	})
}
