//go:build linux

package contrib

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/pubsub/pubsubtest"
	"github.com/sidecast/sidecast/tests/servers"
)

// kafkaAt is what a manifest says of a server that lets everybody in.
func kafkaAt(address string, more map[string]string) map[string]string {
	settings := map[string]string{"brokers": address, "authType": "none", "initialOffset": "oldest"}
	maps.Copy(settings, more)
	return settings
}

var kafkaBackend = pubsubtest.Backend{
	Durable: true, NoDelay: true, LocalAttempts: true, Beside: true,
	Topics: []string{"a.b", "a_b", "A", "a-b", "a..b", "9"},
	New: func(t testing.TB) pubsubtest.Place {
		return placeOf(t, kafkaPubSub, fmt.Sprintf("p%d-", places.Add(1)), kafkaAt(servers.Kafka(t), nil))
	},
}

func TestKafkaPubSub(t *testing.T) {
	t.Parallel()
	pubsubtest.Run(t, kafkaBackend)
}

func BenchmarkKafkaPubSub(b *testing.B) { pubsubtest.Benchmark(b, kafkaBackend) }

// member is one feed of a group, in a broker of its own as another instance of the app has.
func member(t *testing.T, topic string, settings map[string]string) (pubsub.Broker, pubsub.Feed) {
	t.Helper()
	b := openBroker(t, kafkaPubSub, settings)
	f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung})
	if err != nil {
		t.Fatal(err)
	}
	return b, f
}

// sharers take and handle what comes until enough was handled, and note who had what in which order.
type sharers struct {
	mu      sync.Mutex
	handled map[string]int
	keys    map[string]string // the last message of each key that was handled
	out     map[string]int    // of each key
	wrong   []string
}

func (s *sharers) take(d pubsub.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := d.Message().Key
	if s.out[key]++; s.out[key] > 1 {
		s.wrong = append(s.wrong, "two messages of "+key+" are at work")
	}
}

func (s *sharers) done(t *testing.T, d pubsub.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, key := d.Message().ID, d.Message().Key
	s.out[key]--
	if s.handled[id]++; s.handled[id] == 1 && id < s.keys[key] {
		s.wrong = append(s.wrong, id+" came after "+s.keys[key])
	}
	s.keys[key] = max(s.keys[key], id)
	if err := d.Ack(context.WithoutCancel(t.Context())); err != nil {
		s.wrong = append(s.wrong, err.Error())
	}
}

func (s *sharers) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.handled)
}

func TestKafkaMovesPartitionsBetweenInstancesWithoutLossAndInOrder(t *testing.T) {
	t.Parallel()
	settings := kafkaAt(servers.Kafka(t), nil)
	topic := fmt.Sprintf("moves%d", places.Add(1))
	s := &sharers{handled: map[string]int{}, keys: map[string]string{}, out: map[string]int{}}
	ctx, stop := context.WithCancel(patiently(t))
	var working sync.WaitGroup
	work := func(f pubsub.Feed) {
		working.Go(func() {
			for {
				ds, err := f.Next(ctx, 8)
				if err != nil {
					return
				}
				for _, d := range ds {
					s.take(d)
					working.Go(func() {
						time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond) // a handler takes its time
						s.done(t, d)
					})
				}
			}
		})
	}
	first, f := member(t, topic, settings)
	defer first.Close(t.Context())
	work(f)
	const keys, each = 10, 60
	for n := range each {
		var batch []pubsub.Message
		for k := range keys {
			batch = append(batch, pubsub.Message{ID: fmt.Sprintf("%d/%03d", k, n), Key: fmt.Sprint("key", k), Data: []byte("d")})
		}
		for _, err := range first.Publish(patiently(t), topic, batch) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if n == each/3 || n == 2*each/3 { // another instance comes, and takes over some partitions
			b, f := member(t, topic, settings)
			defer b.Close(t.Context())
			work(f)
		}
	}
	for s.count() < keys*each && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	working.Wait()
	if n := s.count(); n != keys*each {
		t.Errorf("%d of %d messages were handled", n, keys*each)
	}
	for id, n := range s.handled {
		if n != 1 {
			t.Errorf("%s was handled %d times", id, n)
		}
	}
	for _, wrong := range s.wrong {
		t.Error(wrong)
	}
}

// writer is a client of another make.
func writer(t *testing.T, address string) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.AllowAutoTopicCreation(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func TestKafkaRecordsOfOthersAndOurs(t *testing.T) {
	t.Parallel()
	address := servers.Kafka(t)
	topic := fmt.Sprintf("foreign%d", places.Add(1))
	b, f := member(t, topic, kafkaAt(address, map[string]string{"excludeHeaderMetaRegex": "^secret"}))
	defer b.Close(t.Context())
	other := writer(t, address)
	r := &kgo.Record{Topic: topic, Partition: 2, Key: []byte("k"), Value: []byte("plain"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "secret", Value: []byte("x")}, {Key: "__offset", Value: []byte("lie")}}}
	if err := other.ProduceSync(patiently(t), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
	d := receive(t, f, 1)[0]
	m := d.Message()
	want := map[string]string{"h": "v", "__key": "k", "__topic": topic, "__partition": "2", "__offset": "0", "__timestamp": fmt.Sprint(r.Timestamp.UnixMilli())}
	if string(m.Data) != "plain" || m.Key != "k" || m.ID == "" || !maps.Equal(m.Header, want) {
		t.Errorf("got %+v", m)
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}

	// What is published as metadata are headers; some say where the record goes.
	events := []pubsub.Message{{
		ID: "1", Key: "k", Data: []byte(`{"specversion":"1.0","id":"1","source":"s","type":"t"}`), ContentType: cloudEvent,
		Metadata: map[string]string{"partitionKey": "k", "partitionNumber": "3", "ttlInSeconds": "60", "secret": "x"},
	}}
	if err := b.Publish(patiently(t), topic, events)[0]; err != nil {
		t.Fatal(err)
	}
	d = receive(t, f, 1)[0]
	m = d.Message()
	delete(m.Header, "__timestamp")
	want = map[string]string{
		"__key": "k", "__topic": topic, "__partition": "3", "__offset": "0", "partitionKey": "k", "partitionNumber": "3", "ttlInSeconds": "60",
	}
	if m.ID != "1" || m.ContentType != cloudEvent || !maps.Equal(m.Header, want) {
		t.Errorf("got %+v", m)
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]pubsub.Message{
		"a partition that is no number":   {ID: "2", Metadata: map[string]string{"partitionNumber": "x"}},
		"a partition that does not exist": {ID: "2", Metadata: map[string]string{"partitionNumber": "99"}},
		"a message that is too large":     {ID: "2", Data: make([]byte, largest)},
	} {
		if err := b.Publish(patiently(t), topic, []pubsub.Message{m})[0]; err == nil || fault.KindOf(err) == fault.Unavailable {
			t.Errorf("%s gives %v", what, err)
		}
	}
	if err := b.Publish(patiently(t), topic, []pubsub.Message{{ID: "3", Data: []byte("null")}})[0]; err != nil {
		t.Fatal(err)
	}
	if m := receive(t, f, 1)[0].Message(); string(m.Data) != "null" {
		t.Errorf("what ends a key comes as %q", m.Data)
	}
}

// A key goes where the library's client sends it: the numbers are those of IBM's sarama, hash partitioner, 10 partitions.
func TestKafkaSendsAKeyWhereOthersDo(t *testing.T) {
	p := kafkaPartitioner.ForTopic("t")
	for key, want := range map[string]int{"order-1": saramaPartition("order-1", 10), "order-2": saramaPartition("order-2", 10), "": saramaPartition("", 10), "é": saramaPartition("é", 10)} {
		if got := p.Partition(&kgo.Record{Key: []byte(key), Context: t.Context()}, 10); got != want {
			t.Errorf("%q goes to %d, not %d", key, got, want)
		}
	}
}

// saramaPartition is the arithmetic of sarama's NewHashPartitioner.
func saramaPartition(key string, n int32) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	partition := int32(h.Sum32()) % n
	if partition < 0 {
		partition = -partition
	}
	return int(partition)
}

func TestKafkaKeepsTheOrderOfAPartitionWhenAsked(t *testing.T) {
	t.Parallel()
	address := servers.Kafka(t)
	topic := fmt.Sprintf("inorder%d", places.Add(1))
	b, f := member(t, topic, kafkaAt(address, map[string]string{"consumeOrder": "partition"}))
	defer b.Close(t.Context())
	other := writer(t, address)
	for i := range 20 {
		if err := other.ProduceSync(patiently(t), &kgo.Record{Topic: topic, Partition: 1, Key: []byte(fmt.Sprint(i % 3)), Value: []byte(fmt.Sprint(i))}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		ds, err := f.Next(patiently(t), 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(ds) != 1 || string(ds[0].Message().Data) != fmt.Sprint(i) {
			t.Fatalf("got %d messages, the first %q, when %d was due", len(ds), ds[0].Message().Data, i)
		}
		if i == 5 && ds[0].Attempt() == 1 {
			if err := ds[0].Retry(t.Context(), 10*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			ds = receive(t, f, 1)
			if string(ds[0].Message().Data) != "5" {
				t.Fatalf("%q passed a message that is to come again", ds[0].Message().Data)
			}
		}
		if err := ds[0].Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKafkaStopsReadingBehindAMessageThatIsNotHandled(t *testing.T) {
	t.Parallel()
	address := servers.Kafka(t)
	topic := fmt.Sprintf("stuck%d", places.Add(1))
	b, f := member(t, topic, kafkaAt(address, map[string]string{"channelBufferSize": "8"}))
	defer b.Close(t.Context())
	other := writer(t, address)
	var records []*kgo.Record
	for i := range 300 {
		records = append(records, &kgo.Record{Topic: topic, Partition: 0, Value: []byte(fmt.Sprint(i))})
	}
	if err := other.ProduceSync(patiently(t), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	first := receive(t, f, 1)[0]
	got := 1
	for { // the rest, as far as it comes
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		ds, err := f.Next(ctx, 10)
		cancel()
		if err != nil {
			break
		}
		for _, d := range ds {
			got++
			if err := d.Ack(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got > 8+2*mostPolled {
		t.Errorf("%d messages came while the first one was not handled", got)
	}
	if err := first.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	for ; got < len(records); got++ {
		if err := receive(t, f, 1)[0].Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKafkaBinding(t *testing.T) {
	t.Parallel()
	topic := fmt.Sprintf("bound%d", places.Add(1))
	b := openBinding(t, kafkaBinding, kafkaAt(servers.Kafka(t), map[string]string{"topics": topic + ", " + topic + "-other", "publishTopic": topic}))
	for i := range 10 {
		operate(t, b, "create", fmt.Sprint(i), "partitionKey", "k", "h", "v")
	}
	// What passes when a reader is told to end is handled all the same.
	var got []string
	failed := false
	for _, enough := range []int{6, 11} {
		if len(got) >= enough { // all of it may have passed: then there is nothing to wait for
			break
		}
		ctx, stop := context.WithCancel(patiently(t))
		err := b.(binding.Input).Read(ctx, func(e binding.Event) ([]byte, error) {
			if e.Metadata["__key"] != "k" || e.Metadata["h"] != "v" || e.Metadata["__topic"] != topic {
				t.Errorf("metadata: %v", e.Metadata)
			}
			if got = append(got, string(e.Data)); len(got) >= enough {
				stop()
			}
			if string(e.Data) == "4" && !failed {
				failed = true
				return nil, errors.New("not now")
			}
			return nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if want := "0 1 2 3 4 4 5 6 7 8 9"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestKafkaWritesToATopicThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	address, topic := servers.Kafka(t), fmt.Sprintf("anew%d", places.Add(1))
	servers.KafkaTopics(t, address, topic)
	b := openBroker(t, kafkaPubSub, kafkaAt(address, nil))
	defer b.Close(t.Context())
	publish := func(ctx context.Context) error {
		return b.Publish(ctx, topic, []pubsub.Message{{ID: "1"}})[0]
	}
	if err := publish(patiently(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := kadm.NewClient(writer(t, address)).DeleteTopics(patiently(t), topic); err != nil {
		t.Fatal(err)
	}
	servers.KafkaTopics(t, address, topic)
	eventually(t, "Publish", publish)
}

func TestKafkaEndsCallsOfASilentServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfKafka)
	servers.KafkaTopics(t, server.Address(), "silent")
	b, f := member(t, "silent", kafkaAt(server.Address(), nil))
	link := openBinding(t, kafkaBinding, kafkaAt(server.Address(), map[string]string{"topics": "silent", "publishTopic": "silent", "consumerGroup": "h"}))
	if err := b.Publish(patiently(t), "silent", []pubsub.Message{{ID: "0"}})[0]; err != nil {
		t.Fatal(err)
	}
	d := receive(t, f, 1)[0]
	server.Freeze(t)
	ends(t, "Publish", func(ctx context.Context) error { return b.Publish(ctx, "silent", []pubsub.Message{{ID: "1"}})[0] })
	ends(t, "create", func(ctx context.Context) error {
		_, err := link.(binding.Output).Invoke(ctx, asked("create", "1"))
		return err
	})
	ends(t, "Next", func(ctx context.Context) error {
		_, err := f.Next(ctx, 1)
		return err
	})
	ends(t, "Subscribe", func(ctx context.Context) error {
		_, err := b.Subscribe(ctx, "other", pubsub.Group{Name: "g", AckWait: 2 * hung, OnlyNew: true})
		return err
	})
	ends(t, "Open", func(ctx context.Context) error {
		_, err := kafkaPubSub.Open(ctx, host, kafkaAt(server.Address(), nil))
		return err
	})
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Close(ctx); err != nil && fault.KindOf(err) != fault.Timeout {
		t.Errorf("Close: %v", err)
	}
	reading, stop := context.WithCancel(t.Context())
	read := make(chan error)
	go func() {
		read <- link.(binding.Input).Read(reading, func(binding.Event) ([]byte, error) { return nil, nil })
	}()
	stop()
	if err := <-read; err != nil {
		t.Errorf("Read: %v", err)
	}
	server.Thaw()
	if err := b.Close(patiently(t)); err != nil {
		t.Errorf("Close once the server goes on: %v", err)
	}
}
