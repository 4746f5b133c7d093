//go:build linux

package contrib

import (
	"context"
	"fmt"
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
	warm, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "warm", AckWait: time.Minute, Metadata: map[string]string{"routingKey": "red,green"}})
	if err != nil {
		t.Fatal(err)
	}
	cold, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "cold", AckWait: time.Minute, Metadata: map[string]string{"routingKey": "blue"}})
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
		_, err := b.Subscribe(t.Context(), topic, pubsub.Group{Name: "g", AckWait: time.Minute, Metadata: map[string]string{"routingKey": keys}})
		if fault.ReasonOf(err) != fault.BadRequest || !strings.Contains(err.Error(), "routingKey") {
			t.Errorf("subscribe by %d bytes: %v", len(keys), err)
		}
	}
	f, err := b.Subscribe(patiently(t), topic, pubsub.Group{Name: "g", AckWait: time.Minute, Metadata: map[string]string{"routingKey": "short," + long}})
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

func TestRabbitPriorities(t *testing.T) {
	t.Parallel()
	b := openBroker(t, rabbitPubSub, map[string]string{"connectionString": servers.RabbitMQ(t), "concurrencyMode": "single", "prefetchCount": "1"})
	defer b.Close(context.Background())
	topic := fmt.Sprintf("urgent%d", places.Add(1))
	group := pubsub.Group{Name: "g", AckWait: time.Minute, Metadata: map[string]string{"maxPriority": "5"}}
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

func TestRabbitQueueTypes(t *testing.T) {
	t.Parallel()
	b := openBroker(t, rabbitPubSub, map[string]string{"connectionString": servers.RabbitMQ(t), "durable": "true"})
	defer b.Close(context.Background())
	topic := fmt.Sprintf("agreed%d", places.Add(1))
	group := func(queueType string) pubsub.Group {
		return pubsub.Group{Name: "g", AckWait: time.Minute, Metadata: map[string]string{"queueType": queueType}}
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
	named := pubsub.Group{Name: "g", AckWait: time.Minute, Metadata: map[string]string{"queueName": topic + "-mine", "singleActiveConsumer": "true"}}
	if f, err = b.Subscribe(patiently(t), topic, named); err != nil {
		t.Fatal(err)
	}
	told(t, b, topic, "2", "", "")
	if got := heeds(t, f, 1); got != "2" {
		t.Errorf("in a queue of another name came %s", got)
	}
}
