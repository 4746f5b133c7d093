//go:build linux

package contrib

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/tests/servers"
)

// told publishes an event with what the broker is told of it.
func told(t *testing.T, b pubsub.Broker, topic, id, key, value string) {
	t.Helper()
	m := pubsub.Message{ID: id, Data: fmt.Appendf(nil, `{"specversion":"1.0","id":%q,"source":"s","type":"t"}`, id), ContentType: cloudEvent, Metadata: map[string]string{key: value}}
	if err := b.Publish(patiently(t), topic, []pubsub.Message{m})[0]; err != nil {
		t.Fatal(err)
	}
}

// heeds returns the ids of the next n events, and acknowledges them one by one.
func heeds(t *testing.T, f pubsub.Feed, n int) string {
	t.Helper()
	var ids []string
	for range n {
		ds, err := f.Next(patiently(t), 1)
		if err != nil {
			t.Fatalf("after %v: %v", ids, err)
		}
		ids = append(ids, ds[0].Message().ID)
		if err := ds[0].Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(ids, " ")
}

func TestRabbitRoutesByKey(t *testing.T) {
	t.Parallel()
	b := openBroker(t, rabbitPubSub, map[string]string{"connectionString": servers.RabbitMQ(t), "exchangeKind": "direct"})
	defer b.Close(context.Background())
	topic := fmt.Sprintf("routed%d", places.Add(1))
	warm, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "warm", AckWait: 2 * hung, Metadata: map[string]string{"routingKey": "red,green"}})
	if err != nil {
		t.Fatal(err)
	}
	cold, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "cold", AckWait: 2 * hung, Metadata: map[string]string{"routingKey": "blue"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{"red", "blue", "none", "green"} {
		told(t, b, topic, fmt.Sprint(i, key), "routingKey", key)
	}
	told(t, b, topic, "4blue", "routingKey", "blue")
	if got := heeds(t, warm, 2); got != "0red 3green" && got != "3green 0red" {
		t.Errorf("to red and green came %s", got)
	}
	if got := heeds(t, cold, 2); got != "1blue 4blue" && got != "4blue 1blue" {
		t.Errorf("to blue came %s", got)
	}
}

// The client cuts a longer one without a word, and the message goes elsewhere.
func TestRabbitRoutingKeysAreWholeOrRefused(t *testing.T) {
	t.Parallel()
	b := openBroker(t, rabbitPubSub, map[string]string{"connectionString": servers.RabbitMQ(t), "exchangeKind": "direct"})
	defer b.Close(context.Background())
	topic := fmt.Sprintf("long%d", places.Add(1))
	long := strings.Repeat("k", longest)
	for _, keys := range []string{long + "k", "short," + strings.Repeat("k", 300)} {
		_, err := b.Subscribe(t.Context(), topic, pubsub.Group{Name: "g", AckWait: 2 * hung, Metadata: map[string]string{"routingKey": keys}})
		if fault.ReasonOf(err) != fault.BadRequest || !strings.Contains(err.Error(), "routingKey") {
			t.Errorf("subscribe by %d bytes: %v", len(keys), err)
		}
	}
	f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung, Metadata: map[string]string{"routingKey": "short," + long}})
	if err != nil {
		t.Fatal(err)
	}
	errs := b.Publish(patiently(t), topic, []pubsub.Message{
		{ID: "cut", Metadata: map[string]string{"routingKey": strings.Repeat("k", 256+longest)}}, // would arrive as long
		{ID: "whole", Metadata: map[string]string{"routingKey": long}},
	})
	if fault.ReasonOf(errs[0]) != fault.BadRequest || !strings.Contains(errs[0].Error(), "routingKey has 511 bytes") || errs[1] != nil {
		t.Errorf("publish: %v", errs)
	}
	if got := heeds(t, f, 1); got != "whole" {
		t.Errorf("came %s", got)
	}
}

// Dapr's page about the broker and the library's own tests have settings that mean nothing, or too much.
func TestRabbitTakesTheSettingsOfDaprsExamples(t *testing.T) {
	t.Parallel()
	b := openBroker(t, rabbitPubSub, map[string]string{
		"connectionString": servers.RabbitMQ(t), "durable": "false", "deletedWhenUnused": "false", "autoAck": "false", "deliveryMode": "0", "requeueInFailure": "false",
		"prefetchCount": "0", "reconnectWait": "0", "concurrencyMode": "parallel", "publisherConfirm": "false", "enableDeadLetter": "true", "maxLen": "3000",
		"maxLenBytes": "10485760", "exchangeKind": "fanout", "saslExternal": "false", "ttlInSeconds": "60", "clientName": "pod", "heartBeat": "10s",
	})
	defer b.Close(context.Background())
	topic := fmt.Sprintf("example%d", places.Add(1))
	f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung})
	if err != nil {
		t.Fatal(err)
	}
	told(t, b, topic, "whole", "priority", "0")
	if got := heeds(t, f, 1); got != "whole" {
		t.Errorf("came %s", got)
	}
}

func TestRabbitPriorities(t *testing.T) {
	t.Parallel()
	b := openBroker(t, rabbitPubSub, map[string]string{"connectionString": servers.RabbitMQ(t), "concurrencyMode": "single", "prefetchCount": "1"})
	defer b.Close(context.Background())
	topic := fmt.Sprintf("urgent%d", places.Add(1))
	group := pubsub.Group{Name: "g", AckWait: 2 * hung, Metadata: map[string]string{"maxPriority": "5"}}
	f, err := b.Subscribe(patiently(t), topic, group)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(t.Context()); err != nil { // the queue stays
		t.Fatal(err)
	}
	for i, priority := range []string{"1", "5", "3"} {
		told(t, b, topic, fmt.Sprint(i), "priority", priority)
	}
	if f, err = b.Subscribe(patiently(t), topic, group); err != nil {
		t.Fatal(err)
	}
	if got := heeds(t, f, 3); got != "1 2 0" {
		t.Errorf("of priorities 1, 5 and 3 came %s", got)
	}
}

// The server drops what has waited for longer than its publisher wants it to, as with daprd. What is no time is passed over.
func TestRabbitDropsWhatIsTooOld(t *testing.T) {
	t.Parallel()
	b := openBroker(t, rabbitPubSub, map[string]string{"connectionString": servers.RabbitMQ(t), "concurrencyMode": "single"})
	defer b.Close(context.Background())
	topic := fmt.Sprintf("aging%d", places.Add(1))
	group := pubsub.Group{Name: "g", AckWait: 2 * hung}
	f, err := b.Subscribe(patiently(t), topic, group)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(t.Context()); err != nil { // the queue stays
		t.Fatal(err)
	}
	told(t, b, topic, "old", "ttl", "1ms")
	told(t, b, topic, "kept", "ttlInSeconds", "600")
	told(t, b, topic, "now", "ttlInSeconds", "0")
	told(t, b, topic, "never", "ttlInSeconds", "never")
	time.Sleep(100 * time.Millisecond) // longer than the first may wait
	if f, err = b.Subscribe(patiently(t), topic, group); err != nil {
		t.Fatal(err)
	}
	if got := heeds(t, f, 2); got != "kept never" && got != "never kept" {
		t.Errorf("came %s", got)
	}
	errs := b.Publish(patiently(t), topic, []pubsub.Message{{ID: "1", Metadata: map[string]string{"ttlInSeconds": "4294968"}}})
	if fault.ReasonOf(errs[0]) != fault.BadRequest || !strings.Contains(errs[0].Error(), "the ttl is 1193h2m48s, at most 1193h2m47.295s are allowed") {
		t.Errorf("a time that the server cannot count: %v", errs[0])
	}
}

// What a publisher says of a message goes into its properties, and subscribers are told them who want that, as with daprd.
func TestRabbitTellsProperties(t *testing.T) {
	t.Parallel()
	for want, told := range map[string]map[string]string{
		"false": {},
		"true":  {"metadata.messageid": "m", "metadata.correlationid": "c", "metadata.contenttype": "x/y", "metadata.type": "t"},
	} {
		b := openBroker(t, rabbitPubSub, map[string]string{"connectionString": servers.RabbitMQ(t), "publishMessagePropertiesToMetadata": want, "concurrencyMode": "single", "prefetchCount": "1"})
		defer b.Close(context.Background())
		topic := fmt.Sprintf("told%d", places.Add(1))
		f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: 2 * hung})
		if err != nil {
			t.Fatal(err)
		}
		said := map[string]string{"messageID": "m", "correlationID": "c", "contentType": "x/y", "type": "t"}
		if errs := b.Publish(patiently(t), topic, []pubsub.Message{{ID: "1", Data: []byte("1"), Metadata: said}, {ID: "2", Data: []byte("2"), ContentType: "text/plain"}}); errs[0] != nil || errs[1] != nil {
			t.Fatal(errs)
		}
		for _, all := range []map[string]string{told, {"metadata.messageid": "2", "metadata.contenttype": "text/plain"}} {
			if want == "false" {
				all = nil
			}
			ds, err := f.Next(patiently(t), 1)
			if err != nil {
				t.Fatal(err)
			}
			if got := ds[0].Message().Header; !maps.Equal(got, all) {
				t.Errorf("with %s, a message comes with %v, not %v", want, got, all)
			}
			if err := ds[0].Ack(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		long := b.Publish(patiently(t), topic, []pubsub.Message{{ID: "1", Metadata: map[string]string{"type": strings.Repeat("t", longest+1)}}})
		if fault.ReasonOf(long[0]) != fault.BadRequest || !strings.Contains(long[0].Error(), "the type has 256 bytes") {
			t.Errorf("a type that is too long: %v", long[0])
		}
	}
}

func TestRabbitQueueTypes(t *testing.T) {
	t.Parallel()
	b := openBroker(t, rabbitPubSub, map[string]string{"connectionString": servers.RabbitMQ(t), "durable": "true"})
	defer b.Close(context.Background())
	topic := fmt.Sprintf("agreed%d", places.Add(1))
	group := func(queueType string) pubsub.Group {
		return pubsub.Group{Name: "g", AckWait: 2 * hung, Metadata: map[string]string{"queueType": queueType}}
	}
	f, err := b.Subscribe(patiently(t), topic, group("quorum"))
	if err != nil {
		t.Fatal(err)
	}
	told(t, b, topic, "1", "priority", "no number") // the library passes over it
	if got := heeds(t, f, 1); got != "1" {
		t.Errorf("got %s", got)
	}
	if _, err := b.Subscribe(patiently(t), topic, group("classic")); err == nil || !strings.Contains(err.Error(), "inequivalent arg 'x-queue-type'") {
		t.Errorf("as a classic queue: %v", err)
	}
	for key, value := range map[string]string{"queueType": "stream", "maxPriority": "high", "queueName": strings.Repeat("q", 256), "maxLen": "7"} {
		if _, err := b.Subscribe(t.Context(), topic, pubsub.Group{Name: "g", Metadata: map[string]string{key: value}}); fault.ReasonOf(err) != fault.BadRequest || !strings.Contains(err.Error(), key) {
			t.Errorf("%s %s: %v", key, value, err)
		}
	}
	named := pubsub.Group{Name: "g", AckWait: 2 * hung, Metadata: map[string]string{"queueName": topic + "-mine", "singleActiveConsumer": "true"}}
	if f, err = b.Subscribe(patiently(t), topic, named); err != nil {
		t.Fatal(err)
	}
	told(t, b, topic, "2", "", "")
	if got := heeds(t, f, 1); got != "2" {
		t.Errorf("in a queue of another name came %s", got)
	}
}
