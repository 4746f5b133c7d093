//go:build linux

package contrib

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/tests/servers"
)

// registry answers for one schema, as long as it is open.
type registry struct {
	*httptest.Server
	asked  atomic.Int64
	closed atomic.Bool
}

func newRegistry(t *testing.T) *registry {
	r := &registry{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.asked.Add(1)
		user, password, _ := request.BasicAuth()
		known := strings.HasSuffix(request.URL.Path, "-value/versions/latest") || request.URL.Path == "/schemas/ids/7"
		if request.URL.Path == "/schemas/ids/8" {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"error_code": 40403, "message": "Schema 8 not found"}`)
			return
		}
		if r.closed.Load() || user != "me" || password != "hush" || !known {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"id": 7, "schema": "{\"type\":\"record\",\"name\":\"order\",\"fields\":[{\"name\":\"id\",\"type\":\"int\"}]}"}`)
	}))
	t.Cleanup(r.Close)
	return r
}

func TestKafkaSpeaksAvro(t *testing.T) {
	t.Parallel()
	address, topic, r := servers.Kafka(t), fmt.Sprintf("avro%d", places.Add(1)), newRegistry(t)
	b := openBroker(t, kafkaPubSub, kafkaAt(address, map[string]string{
		"schemaRegistryURL": r.URL + "/", "schemaRegistryAPIKey": "me", "schemaRegistryAPISecret": "hush",
	}))
	defer b.Close(t.Context())
	group := func(name string, metadata map[string]string) pubsub.Feed {
		t.Helper()
		f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: name, AckWait: 2 * hung, Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	avro, plain := group("a", map[string]string{"valueSchemaType": "Avro"}), group("b", nil)
	publish := func(data string) error {
		return b.Publish(patiently(t), topic, []pubsub.Message{{ID: "1", Key: "k", Data: []byte(data), Metadata: map[string]string{"valueSchemaType": "avro"}}})[0]
	}
	for range 3 {
		if err := publish(`{"id": 150}`); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			f    pubsub.Feed
			want []byte
		}{{avro, []byte(`{"id":150}`)}, {plain, []byte{0, 0, 0, 0, 7, 0xac, 0x02}}} {
			d := receive(t, c.f, 1)[0]
			if !bytes.Equal(d.Message().Data, c.want) {
				t.Errorf("got %q, want %q", d.Message().Data, c.want)
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if n := r.asked.Load(); n != 2 {
		t.Errorf("the registry was asked %d times", n)
	}
	if err := publish(`{"no": "order"}`); err == nil {
		t.Error("what the schema does not describe is published")
	}
	_, err := b.Subscribe(t.Context(), topic, pubsub.Group{Name: "c", Metadata: map[string]string{"valueSchemaType": "xml"}})
	if fault.ReasonOf(err) != fault.BadRequest {
		t.Errorf("an unknown type of schema gives %v", err)
	}
}

// A library that panics ends nothing.
func TestKafkaOutlivesAPanicOfAvro(t *testing.T) {
	reader := &kafkaReader{log: newLogs(discard, nil), convert: func(context.Context, *kgo.Record) ([]byte, error) { panic("bytes") }}
	if _, err := reader.converted(t.Context(), &kgo.Record{}); fault.ReasonOf(err) != fault.Panicked {
		t.Errorf("a panic gives %v", err)
	}
}

// What is not readable now nor later is the lane's, which makes a dead letter of it, and the partition goes on.
func TestKafkaGivesTheLaneWhatIsNoAvro(t *testing.T) {
	t.Parallel()
	address, topic, r := servers.Kafka(t), fmt.Sprintf("noavro%d", places.Add(1)), newRegistry(t)
	b := openBroker(t, kafkaPubSub, kafkaAt(address, map[string]string{
		"schemaRegistryURL": r.URL, "schemaRegistryAPIKey": "me", "schemaRegistryAPISecret": "hush",
	}))
	defer b.Close(t.Context())
	f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung, Metadata: map[string]string{"valueSchemaType": "Avro"}})
	if err != nil {
		t.Fatal(err)
	}
	other := writer(t, address)
	for _, c := range []struct{ value, data, why string }{
		{"\x00\x00\x00\x00\x07\x02", `{"id":1}`, ""},
		{"plain text", "plain text", "is not Avro"},
		{"\x00\x00\x00\x00\x08\x02", "\x00\x00\x00\x00\x08\x02", "Schema 8 not found"},
		{"\x00\x00\x00\x00\x07", "\x00\x00\x00\x00\x07", "short buffer"},
		{"\x00\x00\x00\x00\x07\x04", `{"id":2}`, ""},
	} {
		if err := other.ProduceSync(patiently(t), &kgo.Record{Topic: topic, Partition: 1, Key: []byte("k"), Value: []byte(c.value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		d := receive(t, f, 1)[0]
		unreadable := d.(pubsub.Unreadable).Unreadable()
		if string(d.Message().Data) != c.data || (unreadable == nil) != (c.why == "") || unreadable != nil && !strings.Contains(unreadable.Error(), c.why) {
			t.Errorf("%q comes as %q, unreadable: %v", c.value, d.Message().Data, unreadable)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for status, body := range map[int]string{404: "no such page", 500: `{"error_code": 40403}`, 503: ""} {
		if _, never := errors.AsType[unreadableError](refusedSchema(status, "/", []byte(body))); never {
			t.Errorf("a registry that answers %d %s has no schema", status, body)
		}
	}
}

// A registry that does not answer keeps a group from sharing out its partitions for a bounded time, however much there is to read.
func TestKafkaBoundsTheConversionOfWhatItPolls(t *testing.T) {
	t.Parallel()
	address, topic := servers.Kafka(t), fmt.Sprintf("bounded%d", places.Add(1))
	servers.KafkaTopics(t, address, topic)
	bounded := make(chan bool, 1)
	reader := &kafkaReader{
		group: topic,
		convert: func(ctx context.Context, r *kgo.Record) ([]byte, error) {
			_, has := ctx.Deadline()
			bounded <- has
			return r.Value, nil
		},
		handle: func(*kafkaCall, *kgo.Record, []byte) error { return nil },
	}
	if err := kafkaSubscriber(t, address).connection.read(reader, []string{topic}); err != nil {
		t.Fatal(err)
	}
	defer reader.close()
	fill(t, writer(t, address), topic, 0, 0, 1)
	select {
	case has := <-bounded:
		if !has {
			t.Error("the conversion has no bound")
		}
	case <-patiently(t).Done():
		t.Error("nothing comes")
	}
}

func TestKafkaWaitsForASchemaAndKeepsTheOrder(t *testing.T) {
	t.Parallel()
	address, topic, r := servers.Kafka(t), fmt.Sprintf("late%d", places.Add(1)), newRegistry(t)
	r.closed.Store(true)
	b := openBroker(t, kafkaPubSub, kafkaAt(address, map[string]string{
		"schemaRegistryURL": r.URL, "schemaRegistryAPIKey": "me", "schemaRegistryAPISecret": "hush",
	}))
	defer b.Close(t.Context())
	f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung, Metadata: map[string]string{"valueSchemaType": "Avro"}})
	if err != nil {
		t.Fatal(err)
	}
	other := writer(t, address)
	for i := range 5 {
		record := &kgo.Record{Topic: topic, Partition: 1, Key: []byte("k"), Value: []byte{0, 0, 0, 0, 7, byte(2 * i)}}
		if err := other.ProduceSync(patiently(t), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(hung); r.asked.Load() < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the registry is not asked again")
		}
	}
	r.closed.Store(false)
	for i := range 5 {
		d := receive(t, f, 1)[0]
		if want := fmt.Sprintf(`{"id":%d}`, i); string(d.Message().Data) != want {
			t.Errorf("got %s, want %s", d.Message().Data, want)
		}
		if err := d.Ack(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
