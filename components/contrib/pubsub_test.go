//go:build linux

package contrib

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/pubsub/pubsubtest"
	"github.com/sidecast/sidecast/tests/servers"
)

// places counts the prefixes of topics that tests have used.
var places atomic.Int64

// prefixed is a broker whose topics are a test's own.
type prefixed struct {
	pubsub.Broker
	prefix string
}

func (p prefixed) topic(name string) string {
	if name == "" {
		return ""
	}
	return p.prefix + name
}

func (p prefixed) Publish(ctx context.Context, topic string, messages []pubsub.Message) []error {
	return p.Broker.Publish(ctx, p.topic(topic), messages)
}

func (p prefixed) Subscribe(ctx context.Context, topic string, g pubsub.Group) (pubsub.Feed, error) {
	return p.Broker.Subscribe(ctx, p.topic(topic), g)
}

// placeOf opens brokers of c whose topics start with a prefix of their own.
func placeOf(t testing.TB, c components.Component, prefix string, settings map[string]string) pubsubtest.Place {
	return func() pubsub.Broker { return prefixed{openBroker(t, c, settings), prefix} }
}

func openBroker(t testing.TB, c components.Component, settings map[string]string) pubsub.Broker {
	t.Helper()
	b, err := c.Open(context.Background(), host, maps.Clone(settings))
	if err != nil {
		t.Fatal(err)
	}
	return b.(pubsub.Broker)
}

// redisBackend lets a test have more in flight than the suite ever has, and look for pending messages often.
var redisBackend = pubsubtest.Backend{
	Durable: true, NoDelay: true, NoOrder: true, LocalAttempts: true,
	New: func(t testing.TB) pubsubtest.Place {
		settings := redisSettings(t)
		maps.Copy(settings, map[string]string{
			"concurrency": "200", "processingTimeout": "3s", "redeliverInterval": "100ms",
		})
		return placeOf(t, redisPubSub, "", settings)
	},
}

func TestRedisPubSub(t *testing.T) {
	t.Parallel()
	pubsubtest.Run(t, redisBackend)
}

func BenchmarkRedisPubSub(b *testing.B) { pubsubtest.Benchmark(b, redisBackend) }

var rabbitBackend = pubsubtest.Backend{
	Durable: true, NoDelay: true, NoOrder: true, LocalAttempts: true, OnlyEvents: true, NothingKept: true,
	New: func(t testing.TB) pubsubtest.Place {
		settings := map[string]string{"connectionString": servers.RabbitMQ(t), "prefetchCount": "255"}
		return placeOf(t, rabbitPubSub, fmt.Sprintf("p%d-", places.Add(1)), settings)
	},
}

func TestRabbitPubSub(t *testing.T) {
	t.Parallel()
	pubsubtest.Run(t, rabbitBackend)
}

func TestRabbitSaysWhatItHasAgainstATopic(t *testing.T) {
	t.Parallel()
	settings := map[string]string{"connectionString": servers.RabbitMQ(t), "exchangeKind": "direct"}
	other := openBroker(t, rabbitPubSub, settings)
	defer other.Close(t.Context())
	if err := other.Publish(patiently(t), "taken", []pubsub.Message{{ID: "1"}})[0]; err != nil {
		t.Fatal(err)
	}
	settings["exchangeKind"] = "fanout"
	b := openBroker(t, rabbitPubSub, settings)
	defer b.Close(t.Context())
	_, err := b.Subscribe(patiently(t), "taken", pubsub.Group{Name: "g", AckWait: 2 * hung})
	for _, err := range []error{err, b.Publish(patiently(t), "taken", []pubsub.Message{{ID: "2"}})[0]} {
		if err == nil || !strings.Contains(err.Error(), "inequivalent arg 'type' for exchange 'taken'") {
			t.Errorf("got %v", err)
		}
	}
}

func BenchmarkRabbitPubSub(b *testing.B) { pubsubtest.Benchmark(b, rabbitBackend) }

// natsServer runs a server with JetStream for all tests of t.
func natsServer(t testing.TB) string {
	t.Helper()
	return ownNats(t).url()
}

// natsd is a NATS server that may be killed and started again.
type natsd struct {
	options server.Options
	running *server.Server
}

func ownNats(t testing.TB) *natsd {
	t.Helper()
	n := &natsd{options: server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true}}
	n.Start(t)
	n.options.Port = n.running.Addr().(*net.TCPAddr).Port
	t.Cleanup(n.Kill)
	return n
}

func (n *natsd) Start(t testing.TB) {
	t.Helper()
	options := n.options // the server changes its own
	s, err := server.NewServer(&options)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if n.running = s; !s.ReadyForConnections(hung) {
		t.Fatal("the NATS server does not start")
	}
}

func (n *natsd) Kill() {
	n.running.Shutdown()
	n.running.WaitForShutdown()
}

func (n *natsd) url() string { return n.running.ClientURL() }

// jetStreamAt is a client of the test's own, which ends with it.
func jetStreamAt(t testing.TB, url string) (*nats.Conn, nats.JetStreamContext) {
	t.Helper()
	nc, err := nats.Connect(url, nats.Timeout(hung))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := nc.JetStream(nats.MaxWait(hung))
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

// addStream makes a stream of one subject, both called name.
func (n *natsd) addStream(t testing.TB, name string) {
	t.Helper()
	nc, err := nats.Connect(n.url(), nats.Timeout(hung))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream(nats.MaxWait(hung))
	if err == nil {
		_, err = js.AddStream(&nats.StreamConfig{Name: name, Subjects: []string{name}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// awaitPull returns when a consumer of stream has a pull.
func (n *natsd) awaitPull(t testing.TB, stream string) {
	t.Helper()
	_, js := jetStreamAt(t, n.url())
	for deadline := time.Now().Add(hung); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for consumer := range js.Consumers(stream) {
			if consumer.NumWaiting > 0 {
				return
			}
		}
	}
	t.Fatalf("nobody asks for messages of %s", stream)
}

func jetstreamBackend(t testing.TB) pubsubtest.Backend {
	url := natsServer(t)
	_, js := jetStreamAt(t, url)
	return pubsubtest.Backend{
		Durable: true, NoDelay: true, NoOrder: true, Beside: true,
		Topics: []string{"a.b", "a_b", "ü", "a.b.free", "x/y\\z", "=41", "A"},
		New: func(t testing.TB) pubsubtest.Place {
			n := places.Add(1)
			stream := fmt.Sprintf("p%d", n)
			if _, err := js.AddStream(&nats.StreamConfig{Name: stream, Subjects: []string{stream + ".>"}}); err != nil {
				t.Fatal(err)
			}
			return placeOf(t, jetstreamPubSub, stream+".", map[string]string{"natsURL": url, "streamName": stream, "maxAckPending": "1000"})
		},
	}
}

func TestJetStreamPubSub(t *testing.T) {
	t.Parallel()
	pubsubtest.Run(t, jetstreamBackend(t))
}

func BenchmarkJetStreamPubSub(b *testing.B) { pubsubtest.Benchmark(b, jetstreamBackend(b)) }

// drain takes and acknowledges messages until count different ones came, and says how often each did.
func drain(t *testing.T, f pubsub.Feed, count int) map[string]int {
	t.Helper()
	ctx := patiently(t)
	got := map[string]int{}
	for len(got) < count {
		ds, err := f.Next(ctx, 10)
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		for _, d := range ds {
			got[d.Message().ID]++
			if err := d.Ack(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	return got
}

// TestJetStreamKeepsWhatComesLate lets a message be on its way for longer than its pull is kept: it is delivered when it
// comes, not when its ack wait has passed.
func TestJetStreamKeepsWhatComesLate(t *testing.T) {
	t.Parallel()
	native := ownNats(t)
	native.addStream(t, "orders")
	slow := relayTo(t, native.running.Addr().String())
	far := openBroker(t, jetstreamPubSub, map[string]string{"natsURL": "nats://" + slow.address()})
	defer far.Close(t.Context())
	near := openBroker(t, jetstreamPubSub, map[string]string{"natsURL": native.url()})
	defer near.Close(t.Context())
	f, err := far.Subscribe(patiently(t), "orders", pubsub.Group{Name: "g", AckWait: time.Hour, MaxInFlight: 1})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan pubsub.Delivery, 1)
	go func() {
		defer close(got)
		if ds, err := f.Next(patiently(t), 1); err == nil {
			got <- ds[0]
		}
	}()
	native.awaitPull(t, "orders")
	slow.hold()
	errs := near.Publish(patiently(t), "orders", []pubsub.Message{{ID: "late"}})
	time.Sleep(patience + 2*time.Second) // the message is on its way
	slow.release()
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	if d := <-got; d == nil || d.Message().ID != "late" || d.Attempt() != 1 {
		t.Errorf("got %v", d)
	}
}

func TestJetStreamStoresAnEventInTwoTopicsOfAStream(t *testing.T) {
	t.Parallel()
	backend := jetstreamBackend(t)
	b := backend.New(t)()
	defer b.Close(t.Context())
	event := pubsub.Message{ID: "e", Data: []byte(`{"specversion":"1.0","id":"e","source":"s","type":"t"}`), ContentType: cloudEvent}
	for _, topic := range []string{"orders", "orders.dead", "orders"} { // the third is a copy of the first
		if err := b.Publish(patiently(t), topic, []pubsub.Message{event})[0]; err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range []string{"orders", "orders.dead"} {
		f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung})
		if err != nil {
			t.Fatal(err)
		}
		if got := drain(t, f, 1); got["e"] != 1 {
			t.Errorf("topic %s has %v", topic, got)
		}
	}
}

// The server's limit is told with what to do about it, and what was stored can become a dead letter.
func TestJetStreamSaysWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	b := jetstreamBackend(t).New(t)()
	defer b.Close(t.Context())
	event := pubsub.Message{ID: "e", Data: make([]byte, 1<<20-pubsub.LetterRoom-1000)}
	if err := b.Publish(patiently(t), "t", []pubsub.Message{event})[0]; err != nil {
		t.Fatal(err)
	}
	event.Header = map[string]string{pubsub.LetterPrefix + "reason": strings.Repeat("r", 2000)}
	if err := b.Publish(patiently(t), "dead", []pubsub.Message{event})[0]; err != nil {
		t.Errorf("as a dead letter: %v", err)
	}
	event = pubsub.Message{ID: "f", Data: make([]byte, 1<<20)}
	err := b.Publish(patiently(t), "t", []pubsub.Message{event})[0]
	if fault.ReasonOf(err) != fault.BodyTooLarge || !strings.Contains(err.Error(), "takes messages of 1048576") || !strings.Contains(err.Error(), "raise max_payload") {
		t.Errorf("got %v", err)
	}
}

// A subscription may be to many subjects: as with daprd, each message comes with its own.
func TestJetStreamTellsTheSubject(t *testing.T) {
	t.Parallel()
	url := natsServer(t)
	_, js := jetStreamAt(t, url)
	if _, err := js.AddStream(&nats.StreamConfig{Name: "news", Subjects: []string{"news.>"}}); err != nil {
		t.Fatal(err)
	}
	b := openBroker(t, jetstreamPubSub, map[string]string{"natsURL": url})
	defer b.Close(context.Background())
	f, err := b.Subscribe(patiently(t), "news.*", pubsub.Group{Name: "g", AckWait: 2 * hung})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(patiently(t), "news.ours", []pubsub.Message{{ID: "1", Data: []byte("{}"), Header: map[string]string{"h": "v"}}})[0]; err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish("news.theirs", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []map[string]string{{"Topic": "news.ours", "h": "v"}, {"Topic": "news.theirs"}} {
		ds, err := f.Next(patiently(t), 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := ds[0].Message().Header; !maps.Equal(got, want) {
			t.Errorf("a message comes with %v, not %v", got, want)
		}
		if err := ds[0].Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// The durable name is the component's. Each topic but the first has a consumer of its own beside it, also after a restart: no event
// comes to a subscription that is not of its topic.
func TestJetStreamTopicsShareADurableName(t *testing.T) {
	t.Parallel()
	url := natsServer(t)
	_, js := jetStreamAt(t, url)
	if _, err := js.AddStream(&nats.StreamConfig{Name: "shared", Subjects: []string{"shared.>"}}); err != nil {
		t.Fatal(err)
	}
	topics := []string{"shared.a", "shared.b", "shared.c"}
	for round := range 2 {
		b := openBroker(t, jetstreamPubSub, map[string]string{"natsURL": url, "durableName": "app"})
		feeds := make([]pubsub.Feed, len(topics))
		var opening sync.WaitGroup
		for i, topic := range topics {
			opening.Go(func() {
				var err error
				if feeds[i], err = b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung}); err != nil {
					t.Error(err)
				}
			})
		}
		opening.Wait()
		if t.Failed() {
			return
		}
		for _, topic := range topics {
			if err := b.Publish(patiently(t), topic, []pubsub.Message{{ID: fmt.Sprint(topic, round), Data: []byte("{}")}})[0]; err != nil {
				t.Fatal(err)
			}
		}
		for i, topic := range topics {
			if got := drain(t, feeds[i], 1); got[fmt.Sprint(topic, round)] != 1 {
				t.Errorf("round %d: to %s came %v", round, topic, got)
			}
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	var names []string
	for name := range js.ConsumerNames("shared") {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) != len(topics) || names[0] != "app" {
		t.Errorf("the consumers are %v", names)
	}
}

func TestJetStreamGoesOnWhereTheConsumerOfADaprWas(t *testing.T) {
	t.Parallel()
	url := natsServer(t)
	nc, js := jetStreamAt(t, url)
	if _, err := js.AddStream(&nats.StreamConfig{Name: "orders", Subjects: []string{"orders"}}); err != nil {
		t.Fatal(err)
	}
	seen, err := js.QueueSubscribeSync("orders", "app", nats.Durable("app"), nats.ManualAck(), nats.DeliverSubject("inbox.app"))
	if err != nil {
		t.Fatal(err)
	}
	publish := func(id string) {
		data := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"s","type":"t"}`, id)
		if _, err := js.Publish("orders", []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	publish("1")
	m, err := seen.NextMsg(hung)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AckSync(); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publish("2")
	publish("3")
	for range 2 { // and the second time where the first was
		b := openBroker(t, jetstreamPubSub, map[string]string{"natsURL": url, "durableName": "app", "queueGroupName": "app"})
		f, err := b.Subscribe(patiently(t), "orders", pubsub.Group{Name: "g", AckWait: 2 * hung})
		if err != nil {
			t.Fatal(err)
		}
		if got := drain(t, f, 2); len(got) != 2 || got["1"] != 0 {
			t.Errorf("got %v", got)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
		publish("4")
		publish("5")
	}
}
