package memorypubsub

import (
	"context"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

func TestWildcards(t *testing.T) {
	ctx := context.Background()
	b := openBroker(t, nil)
	defer b.Close(ctx)
	feeds := map[string]pubsub.Feed{}
	for _, topic := range []string{"orders*", "orders/new", "*"} {
		for _, group := range []string{"g", "h"} { // each gets all, and the second changes nothing for the first
			f, err := b.Subscribe(ctx, topic, pubsub.Group{Name: group})
			if err != nil {
				t.Fatal(err)
			}
			feeds[topic+" "+group] = f
		}
	}
	for _, topic := range []string{"orders", "orders/new", "orders/old", "order", "end"} {
		if err := b.Publish(ctx, topic, []pubsub.Message{{ID: topic}})[0]; err != nil {
			t.Fatal(err)
		}
	}
	for topic, want := range map[string][]string{
		"orders*": {"orders/new", "orders/old"}, "orders/new": {"orders/new"}, "*": {"orders", "orders/new", "orders/old", "order", "end"},
	} {
		for _, group := range []string{"g", "h"} {
			for _, id := range want {
				got, err := feeds[topic+" "+group].Next(ctx, 1)
				if err != nil || got[0].Message().ID != id {
					t.Fatalf("%s %s got %v, %v; want %s", topic, group, got, err, id)
				}
				if err := got[0].Ack(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestMetadataOfThePublisherIsDelivered(t *testing.T) {
	ctx := context.Background()
	b := openBroker(t, nil)
	defer b.Close(ctx)
	f := subscribe(t, b, pubsub.Group{Name: "g"})
	b.Publish(ctx, "t", []pubsub.Message{{ID: "1", Header: map[string]string{"h": "v"}, Metadata: map[string]string{"H": "v", "color": "red"}}})
	got, err := f.Next(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if header := got[0].Message().Header; len(header) != 2 || header["h"] != "v" || header["color"] != "red" {
		t.Errorf("the header is %v", header)
	}
}

// A wildcard that nobody reads keeps nobody from publishing when it is full; one that is read refuses before anything is stored.
func TestFullWildcards(t *testing.T) {
	ctx := context.Background()
	b := openBroker(t, map[string]string{"maxMessages": "2"})
	defer b.Close(ctx)
	own, err := b.Subscribe(ctx, "orders/new", pubsub.Group{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	wild, err := b.Subscribe(ctx, "orders*", pubsub.Group{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	publish := func() error {
		err := b.Publish(ctx, "orders/new", []pubsub.Message{{ID: "1"}})[0]
		if err != nil {
			return err
		}
		got, err := own.Next(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		return got[0].Ack(ctx)
	}
	for range 2 {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // nothing of what was refused came to the topic itself
		if err := publish(); fault.ReasonOf(err) != fault.TopicFull {
			t.Fatalf("a wildcard that is read and full: %v", err)
		}
	}
	if err := wild.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := publish(); err != nil {
			t.Fatalf("a wildcard that nobody reads: %v", err)
		}
	}
}
