//go:build linux

package contrib

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/tests/servers"
)

// attempt is a call with a deadline that nobody reaches whose server answers or is known to be away.
func attempt(t *testing.T, call func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), hung/4)
	defer cancel()
	return call(ctx)
}

// eventually tries call until it works, as a lane does.
func eventually(t *testing.T, what string, call func(ctx context.Context) error) {
	t.Helper()
	for deadline := time.Now().Add(hung); ; time.Sleep(50 * time.Millisecond) {
		err := attempt(t, call)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not work again: %v", what, err)
		}
	}
}

// away checks what a call says whose server was killed.
func away(t *testing.T, what string, err error) {
	t.Helper()
	if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != fault.BackendDown {
		t.Errorf("%s without a server gave %v (%v)", what, err, fault.ReasonOf(err))
	}
}

// mortal is a server that may be killed and started again where it was.
type mortal interface {
	Kill()
	Start(t testing.TB)
}

// killed runs away between the end of a server and its next start.
func killed(t *testing.T, s mortal, away func()) {
	t.Helper()
	s.Kill()
	away()
	s.Start(t)
}

func stateSurvives(t *testing.T, server mortal, c components.Component, settings map[string]string) {
	s := openState(t, c, settings)
	defer s.Close(t.Context())
	set := func(ctx context.Context) error {
		_, err := s.Apply(ctx, []state.Op{{Kind: state.Set, Key: "k", Value: []byte("kept")}})
		return err
	}
	get := func(ctx context.Context) error {
		items, err := s.Get(ctx, []string{"k"})
		if err == nil && (len(items) != 1 || string(items[0].Value) != "kept") {
			t.Fatalf("after the restart there is %v", items)
		}
		return err
	}
	if err := attempt(t, set); err != nil {
		t.Fatal(err)
	}
	killed(t, server, func() {
		away(t, "Get", attempt(t, get))
		away(t, "Apply", attempt(t, set))
	})
	eventually(t, "Get", get)
	eventually(t, "Apply", set)
}

func TestPostgresStateOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfPostgres)
	url := "postgres://postgres@" + server.Address() + "/postgres?sslmode=disable"
	stateSurvives(t, server, postgresV2, map[string]string{"connectionString": url})
}

func TestMySQLStateOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfMySQL)
	stateSurvives(t, server, mysqlState, mysqlAt(server.Address()))
}

func TestEtcdStateOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfEtcd)
	stateSurvives(t, server, etcdV2, etcdAt(server.Address()))
}

func TestRedisOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfRedis)
	settings := redisAt(server.Address(), "0")
	t.Run("state", func(t *testing.T) { stateSurvives(t, server, redisState, settings) })
	t.Run("lock", func(t *testing.T) { lockSurvives(t, server, settings) })
	t.Run("pubsub", func(t *testing.T) {
		maps.Copy(settings, map[string]string{"concurrency": "100", "processingTimeout": "1s", "redeliverInterval": "100ms"})
		brokerSurvives(t, server, redisPubSub, settings)
	})
}

func lockSurvives(t *testing.T, server mortal, settings map[string]string) {
	l := openLock(t, settings)
	defer l.Close(t.Context())
	lease, err := l.Acquire(t.Context(), "door", "ann", time.Minute, false)
	if err != nil {
		t.Fatal(err)
	}
	take := func(ctx context.Context) error {
		_, err := l.Acquire(ctx, "door", "bob", time.Minute, false)
		return err
	}
	renew := func(ctx context.Context) error {
		_, err := l.Renew(ctx, lease, time.Minute)
		return err
	}
	killed(t, server, func() {
		away(t, "Acquire", attempt(t, take))
		away(t, "Renew", attempt(t, renew))
		away(t, "Watch", attempt(t, func(ctx context.Context) error {
			return l.Watch(ctx, "door", func(lock.Status) error { return nil })
		}))
	})
	eventually(t, "Renew", renew)
	if err := attempt(t, take); fault.ReasonOf(err) != fault.LockHeld {
		t.Errorf("another one takes a lock that is held: %v", err)
	}
}

func TestRabbitOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfRabbitMQ)
	brokerSurvives(t, slowToWrite{server}, rabbitPubSub, map[string]string{
		"connectionString": "amqp://guest:guest@" + server.Address(), "reconnectWaitSeconds": "200ms",
	})
}

// slowToWrite is a server that has not always written to disk which queues want a topic when it says so. RabbitMQ 3.10 does
// that within two seconds; where it is killed before, it confirms messages for nobody.
type slowToWrite struct{ *servers.Server }

func (s slowToWrite) Kill() {
	time.Sleep(3 * time.Second)
	s.Server.Kill()
}

func TestJetStreamOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := ownNats(t)
	server.addStream(t, "orders")
	// A message whose settlement was on its way when the server ended comes again when its ack wait has passed.
	brokerSurvives(t, server, jetstreamPubSub, map[string]string{"natsURL": server.url(), "ackWait": "2s"})
}

// brokerSurvives kills the server while messages wait at the server, with the app and for another try. All of them are
// handled in the end, by the feed that there was.
func brokerSurvives(t *testing.T, server mortal, c components.Component, settings map[string]string) {
	b := openBroker(t, c, settings)
	defer b.Close(t.Context())
	f, err := b.Subscribe(patiently(t), "orders", pubsub.Group{Name: "g", AckWait: 2 * hung})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(id string) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			data := fmt.Sprintf(`{"specversion":"1.0","id":%q,"source":"s","type":"t"}`, id)
			return b.Publish(ctx, "orders", []pubsub.Message{{ID: id, Data: []byte(data), ContentType: cloudEvent}})[0]
		}
	}
	const before = 20
	for i := range before {
		if err := attempt(t, publish(fmt.Sprint("before", i))); err != nil {
			t.Fatal(err)
		}
	}
	out := receive(t, f, 3)
	if err := out[0].Retry(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	killed(t, server, func() {
		away(t, "Publish", attempt(t, publish("lost")))
		if err := out[1].Ack(t.Context()); err != nil { // the app has handled it, whatever the server knows of that
			t.Errorf("Ack without a server: %v", err)
		}
	})
	eventually(t, "Publish", publish("after"))
	want := map[string]bool{"after": true}
	for i := range before {
		want[fmt.Sprint("before", i)] = true
	}
	delete(want, out[1].Message().ID)
	delete(want, out[2].Message().ID)
	first := out[0].Message().ID
	tries := map[string]int{first: 1}
	for len(want) > 0 {
		d := receive(t, f, 1)[0]
		id := d.Message().ID
		if tries[id]++; tries[id] < 3 && (id == first || id == "after") { // it comes until it is handled
			if err := d.Retry(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			continue
		}
		delete(want, id)
		if err := d.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := out[2].Ack(t.Context()); err != nil { // its handler took that long
		t.Errorf("Ack of a message that was at work when the server was killed: %v", err)
	}
}

// receive waits for count deliveries.
func receive(t *testing.T, f pubsub.Feed, count int) []pubsub.Delivery {
	t.Helper()
	ctx := patiently(t)
	var got []pubsub.Delivery
	for len(got) < count {
		ds, err := f.Next(ctx, count-len(got))
		if err != nil {
			t.Fatalf("after %d of %d deliveries: %v", len(got), count, err)
		}
		got = append(got, ds...)
	}
	return got
}

func TestKafkaOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfKafka)
	servers.KafkaTopics(t, server.Address(), "orders")
	brokerSurvives(t, server, kafkaPubSub, kafkaAt(server.Address(), nil))
}
