//go:build linux

package contrib

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/pubsub/pubsubtest"
	"github.com/sidecast/sidecast/tests/servers"
)

var mqttBackend = pubsubtest.Backend{
	Durable: true, NoDelay: true, LocalAttempts: true, OnlyEvents: true, NothingKept: true,
	New: func(t testing.TB) pubsubtest.Place {
		return placeOf(t, mqttPubSub, mqttPlace(), mqttAt(servers.MQTT(t), nil))
	},
}

func TestMQTTPubSub(t *testing.T) {
	t.Parallel()
	pubsubtest.Run(t, mqttBackend)
}

func BenchmarkMQTTPubSub(b *testing.B) { pubsubtest.Benchmark(b, mqttBackend) }

// mqttAt is what a manifest says of a server.
func mqttAt(url string, more map[string]string) map[string]string {
	settings := map[string]string{"url": url}
	maps.Copy(settings, more)
	return settings
}

// mqttPlace is what the topics of a test begin with.
func mqttPlace() string { return fmt.Sprintf("p%d-", places.Add(1)) }

func TestMQTTOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfMQTT) // it writes what it has confirmed a moment later
	brokerSurvives(t, slowToWrite{server}, mqttPubSub, mqttAt("mqtt://"+server.Address(), nil))
}

// subscribed is a feed of the group g.
func subscribed(t *testing.T, b pubsub.Broker, topic string, metadata map[string]string) pubsub.Feed {
	t.Helper()
	f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung, Metadata: metadata})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// anEvent is an event of that id.
func anEvent(id string) pubsub.Message {
	data := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"s","type":"t"}`, id)
	return pubsub.Message{ID: id, Data: []byte(data), ContentType: cloudEvent}
}

func published(t *testing.T, b pubsub.Broker, topic string, messages ...pubsub.Message) {
	t.Helper()
	for _, err := range b.Publish(patiently(t), topic, messages) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A message that is at work while the connection breaks, or is handled before there is another, does not come again.
func TestMQTTKnowsItsMessagesAgain(t *testing.T) {
	t.Parallel()
	at, err := url.Parse(servers.MQTT(t))
	if err != nil {
		t.Fatal(err)
	}
	r := relayTo(t, at.Host)
	near, far := openBroker(t, mqttPubSub, mqttAt(at.String(), nil)), openBroker(t, mqttPubSub, mqttAt("mqtt://"+r.address(), nil))
	defer near.Close(t.Context())
	defer far.Close(t.Context())
	topic := mqttPlace() + "again"
	f := subscribed(t, far, topic, nil)
	published(t, near, topic, anEvent("0"), anEvent("1"), anEvent("2"), anEvent("3"))
	out := map[string]pubsub.Delivery{}
	for _, d := range receive(t, f, 4) {
		out[d.Message().ID] = d
	}
	var link *mqttLink
	for _, tap := range far.(*broker).taps {
		link = tap.inner.(*mqttLink)
	}
	for range 3 {
		conn := link.now()
		r.cut()
		<-conn.ctx.Done()
		for link.now() == conn {
			time.Sleep(time.Millisecond)
		}
		for _, id := range []string{"0", "1", "2"} {
			if d := out[id]; d != nil { // one of them each time
				if err := d.Ack(t.Context()); err != nil {
					t.Error(err)
				}
				delete(out, id)
				break
			}
		}
		for link.now() == nil {
			time.Sleep(time.Millisecond)
		}
	}
	if err := out["3"].Ack(t.Context()); err != nil { // on another connection than it came by
		t.Error(err)
	}
	published(t, near, topic, anEvent("end"))
	for d := receive(t, f, 1)[0]; ; d = receive(t, f, 1)[0] {
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
		if d.Message().ID == "end" {
			break
		}
		t.Errorf("%s came again", d.Message().ID)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	published(t, near, topic, anEvent("last"))
	if d := receive(t, subscribed(t, far, topic, nil), 1)[0]; d.Message().ID != "last" {
		t.Errorf("%s was not acknowledged", d.Message().ID)
	}
}

// said is a log to look into.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) has(words string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), words)
}

// Of two instances with one name one says so and yields, and between them they lose nothing.
func TestMQTTTellsThatANameIsTaken(t *testing.T) {
	t.Parallel()
	topic, log := mqttPlace()+"taken", &said{}
	hearing := components.Host{Log: slog.New(slog.NewTextHandler(log, nil))}
	ctx, stop := context.WithCancel(patiently(t))
	defer stop()
	var mu sync.Mutex
	var working sync.WaitGroup
	handled := map[string]bool{}
	var first pubsub.Broker
	for range 2 {
		b, err := mqttPubSub.Open(t.Context(), hearing, mqttAt(servers.MQTT(t), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close(t.Context())
		first = b.(pubsub.Broker)
		f := subscribed(t, first, topic, nil)
		working.Go(func() {
			for {
				ds, err := f.Next(ctx, 10)
				if err != nil {
					return
				}
				for _, d := range ds {
					mu.Lock()
					handled[d.Message().ID] = true
					mu.Unlock()
					_ = d.Ack(context.WithoutCancel(ctx))
				}
			}
		})
	}
	const words = "another instance seems to have the same consumerID"
	count := 0
	for ; !log.has(words) && ctx.Err() == nil; count++ {
		published(t, first, topic, anEvent(fmt.Sprint(count)))
		time.Sleep(10 * time.Millisecond)
	}
	if !log.has(words) || !log.has("$share/{group}/"+topic) {
		t.Error("no instance says that the name is taken")
	}
	for {
		mu.Lock()
		n := len(handled)
		mu.Unlock()
		if n == count || ctx.Err() != nil {
			if n != count {
				t.Errorf("%d of %d were handled", n, count)
			}
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	working.Wait()
}

func TestMQTTWildcardsRetainedAndShared(t *testing.T) {
	t.Parallel()
	b := openBroker(t, mqttPubSub, mqttAt(servers.MQTT(t), nil))
	defer b.Close(t.Context())
	place := mqttPlace()
	kept := anEvent("kept")
	kept.Metadata = map[string]string{"retain": "true"}
	published(t, b, place+"/a/kept", kept)
	for filter, names := range map[string][]string{
		"/#": {"", "/a", "/a/b/c"}, "/+/b": {"/x/b", "//b"}, "/a/kept": nil,
	} {
		f := subscribed(t, b, place+filter, nil)
		if filter != "/+/b" {
			d := receive(t, f, 1)[0]
			if m := d.Message(); m.ID != "kept" || m.Header["retained"] != "true" || m.Header["__topic"] != place+"/a/kept" {
				t.Errorf("%s: got %+v", filter, m)
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
		for _, name := range names {
			published(t, b, place+name, pubsub.Message{Data: []byte("raw\x00")})
			d := receive(t, f, 1)[0]
			if m := d.Message(); string(m.Data) != "raw\x00" || m.Header["__topic"] != place+name || m.Header["retained"] != "false" || m.ContentType != binary {
				t.Errorf("%s: got %+v", filter, m)
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	// Sessions of different names share what one filter brings.
	feeds := map[string]pubsub.Feed{}
	for _, name := range []string{"one", "two"} {
		f, err := b.Subscribe(patiently(t), "$share/team/"+place+"s/+", pubsub.Group{Name: name, AckWait: 2 * hung})
		if err != nil {
			t.Fatal(err)
		}
		feeds[name] = f
	}
	for i := range 10 {
		published(t, b, place+"s/x", anEvent(fmt.Sprint(i)))
	}
	got := map[string]int{}
	for _, f := range feeds {
		for _, d := range receive(t, f, 5) {
			got[d.Message().ID]++
		}
	}
	if len(got) != 10 {
		t.Errorf("two sessions share %v", got)
	}
}

// What a subscription leaves behind at the server is its session, unless it asks for none.
func TestMQTTSessionsEndWhenAsked(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]struct {
		settings, metadata map[string]string
		kept               bool
	}{
		"as it is":           {kept: true},
		"unsubscribeOnClose": {metadata: map[string]string{"unsubscribeOnClose": "true"}},
		"cleanSession":       {settings: map[string]string{"cleanSession": "true"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := openBroker(t, mqttPubSub, mqttAt(servers.MQTT(t), at.settings))
			defer b.Close(t.Context())
			topic := mqttPlace() + "session"
			if err := subscribed(t, b, topic, at.metadata).Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			published(t, b, topic, anEvent("meanwhile"))
			f := subscribed(t, b, topic, at.metadata)
			published(t, b, topic, anEvent("later"))
			want := "later"
			if at.kept {
				want = "meanwhile"
			}
			d := receive(t, f, 1)[0]
			if d.Message().ID != want {
				t.Errorf("got %s, want %s", d.Message().ID, want)
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestMQTTQualities(t *testing.T) {
	t.Parallel()
	for _, qos := range []string{"0", "1", "2"} {
		b := openBroker(t, mqttPubSub, mqttAt(servers.MQTT(t), map[string]string{"qos": qos, "backOffMaxRetries": "3"}))
		defer b.Close(t.Context())
		topic := mqttPlace() + "qos"
		f := subscribed(t, b, topic, nil)
		for i := range 50 {
			published(t, b, topic, anEvent(fmt.Sprint(i)))
		}
		if got := drain(t, f, 50); len(got) != 50 {
			t.Errorf("qos %s: got %v", qos, got)
		}
	}
}

func TestMQTTRefusesWhatCannotBe(t *testing.T) {
	t.Parallel()
	b := openBroker(t, mqttPubSub, mqttAt(servers.MQTT(t), nil))
	defer b.Close(t.Context())
	odd := anEvent("odd")
	odd.Metadata = map[string]string{"retain": "maybe"}
	for topic, m := range map[string]pubsub.Message{
		"a/+": anEvent("1"), "#": anEvent("2"), "a\x00b": anEvent("3"), "\xff": anEvent("4"), strings.Repeat("t", 1<<16): anEvent("5"), "fine": odd,
	} {
		if err := b.Publish(patiently(t), topic, []pubsub.Message{m})[0]; fault.KindOf(err) != fault.Invalid {
			t.Errorf("%.20q takes %s: %v", topic, m.ID, err)
		}
	}
	for _, filter := range []string{"a/b+", "#/a", "a#", "$share/g", "$share//a", "$share/+/a", "a\x00"} {
		if _, err := b.Subscribe(patiently(t), filter, pubsub.Group{Name: "g", AckWait: 2 * hung}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q can be subscribed to: %v", filter, err)
		}
	}
	for key, value := range map[string]string{"url": "nowhere", "qos": "3", "caCert": "x", "clientKey": "x", "retain": "maybe", "consumerGroup": "g"} {
		c, err := mqttPubSub.Open(t.Context(), host, mqttAt(servers.MQTT(t), map[string]string{key: value}))
		if fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), key) {
			t.Errorf("%s %q gives %v", key, value, err)
		}
		if err == nil {
			_ = c.Close(t.Context())
		}
	}
}

func TestMQTTEndsCallsOfASilentServer(t *testing.T) {
	t.Parallel()
	at, err := url.Parse(servers.MQTT(t))
	if err != nil {
		t.Fatal(err)
	}
	r := relayTo(t, at.Host)
	settings := mqttAt("mqtt://"+r.address(), nil)
	b := openBroker(t, mqttPubSub, settings)
	topic := mqttPlace() + "silent"
	f := subscribed(t, b, topic, nil)
	published(t, b, topic, anEvent("0"))
	d := receive(t, f, 1)[0]
	r.silence()
	ends(t, "Publish", func(ctx context.Context) error { return b.Publish(ctx, topic, []pubsub.Message{anEvent("1")})[0] })
	ends(t, "Next", func(ctx context.Context) error {
		_, err := f.Next(ctx, 1)
		return err
	})
	ends(t, "Subscribe", func(ctx context.Context) error {
		_, err := b.Subscribe(ctx, topic+"2", pubsub.Group{Name: "g", AckWait: 2 * hung})
		return err
	})
	ends(t, "Open", func(ctx context.Context) error {
		_, err := mqttPubSub.Open(ctx, host, settings)
		return err
	})
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
	closes(t, r, b.Close)
}

// encrypted stands before a server and takes TLS connections of clients that show the certificate.
func encrypted(t *testing.T, target, certificate, key string) string {
	t.Helper()
	own, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(certificate))
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(func() { _ = l.Close() })
	running.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", target)
			if err != nil {
				_ = from.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				running.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				})
			}
		}
	})
	return l.Addr().String()
}

func TestMQTTEncrypts(t *testing.T) {
	t.Parallel()
	at, err := url.Parse(servers.MQTT(t))
	if err != nil {
		t.Fatal(err)
	}
	certificate, key := papers(t)
	address := encrypted(t, at.Host, certificate, key)
	settings := mqttAt("mqtts://"+address, map[string]string{"caCert": certificate, "clientCert": certificate, "clientKey": key})
	b := openBroker(t, mqttPubSub, settings)
	defer b.Close(t.Context())
	topic := mqttPlace() + "secret"
	f := subscribed(t, b, topic, nil)
	published(t, b, topic, anEvent("1"))
	if got := drain(t, f, 1); got["1"] != 1 {
		t.Errorf("got %v", got)
	}
	for _, missing := range []string{"caCert", "client"} {
		less := maps.Clone(settings)
		maps.DeleteFunc(less, func(key, _ string) bool { return strings.HasPrefix(key, missing) })
		if c, err := mqttPubSub.Open(t.Context(), host, less); err == nil {
			_ = c.Close(t.Context())
			t.Errorf("it connects without %s", missing)
		}
	}
}
