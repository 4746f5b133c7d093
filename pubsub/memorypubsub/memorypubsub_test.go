package memorypubsub

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/pubsub/pubsubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openBroker(t testing.TB, settings map[string]string) pubsub.Broker {
	t.Helper()
	b, err := Component.Open(context.Background(), components.Host{}, settings)
	if err != nil {
		t.Fatal(err)
	}
	return b.(pubsub.Broker)
}

var backend = pubsubtest.Backend{New: func(t testing.TB) pubsubtest.Place {
	return func() pubsub.Broker { return openBroker(t, nil) }
}}

func TestConformance(t *testing.T) { pubsubtest.Run(t, backend) }

func BenchmarkPublishDeliver(b *testing.B) { pubsubtest.Benchmark(b, backend) }

func publish(t *testing.T, b pubsub.Broker, id string) error {
	t.Helper()
	return b.Publish(context.Background(), "t", []pubsub.Message{{ID: id, Data: make([]byte, 100)}})[0]
}

func subscribe(t *testing.T, b pubsub.Broker, g pubsub.Group) pubsub.Feed {
	t.Helper()
	f, err := b.Subscribe(context.Background(), "t", g)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFullTopicRefuses(t *testing.T) {
	for _, settings := range []map[string]string{{"maxMessages": "3"}, {"maxBytes": "1200"}} {
		b := openBroker(t, settings)
		for i := range 5 { // without a group, the oldest make room
			if err := publish(t, b, fmt.Sprint("m", i)); err != nil {
				t.Fatal(err)
			}
		}
		f := subscribe(t, b, pubsub.Group{Name: "g"})
		if kind := fault.KindOf(publish(t, b, "m5")); kind != fault.Exhausted {
			t.Errorf("%v: publish to a full topic: %v", settings, kind)
		}
		got, err := f.Next(context.Background(), 10)
		if err != nil || len(got) != 3 || got[0].Message().ID != "m2" {
			t.Fatalf("%v: got %v, %v", settings, got, err)
		}
		if err := got[1].Ack(context.Background()); err != nil {
			t.Error(err)
		}
		if err := publish(t, b, "m6"); err != nil { // m3 made room
			t.Error(err)
		}
		if kind := fault.KindOf(publish(t, b, "m7")); kind != fault.Exhausted {
			t.Errorf("%v: publish to a full topic: %v", settings, kind)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestKeepsAFewForLaterGroups(t *testing.T) {
	b := openBroker(t, map[string]string{"keep": "2"})
	defer b.Close(context.Background())
	f := subscribe(t, b, pubsub.Group{Name: "g"})
	for i := range 5 {
		if err := publish(t, b, fmt.Sprint("m", i)); err != nil {
			t.Fatal(err)
		}
		got, err := f.Next(context.Background(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := got[0].Ack(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := subscribe(t, b, pubsub.Group{Name: "late"}).Next(context.Background(), 10)
	if err != nil || len(got) != 2 || got[0].Message().ID != "m3" || got[1].Message().ID != "m4" {
		t.Errorf("a later group got %v, %v", got, err)
	}
}

func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		b := openBroker(t, nil)
		defer b.Close(ctx)
		f := subscribe(t, b, pubsub.Group{Name: "g", AckWait: 10 * time.Second})
		next := func(want string, attempt int, after time.Duration) pubsub.Delivery {
			t.Helper()
			start := time.Now()
			got, err := f.Next(ctx, 5)
			if err != nil || len(got) != 1 {
				t.Fatalf("got %v, %v", got, err)
			}
			if id := got[0].Message().ID; id != want || got[0].Attempt() != attempt || time.Since(start) != after {
				t.Fatalf("got %s, attempt %d, after %v; want %s, %d, %v", id, got[0].Attempt(), time.Since(start), want, attempt, after)
			}
			return got[0]
		}
		b.Publish(ctx, "t", []pubsub.Message{{ID: "b", Key: "k", Delay: time.Hour}, {ID: "a", Key: "k"}})
		next("a", 1, 0)
		late := next("a", 2, 10*time.Second) // the ack wait
		time.Sleep(9 * time.Second)
		if err := late.Extend(ctx); err != nil {
			t.Fatal(err)
		}
		d := next("a", 3, 10*time.Second)
		if err := d.Retry(ctx, time.Minute); err != nil {
			t.Fatal(err)
		}
		d = next("a", 4, time.Minute)
		if err := d.Ack(ctx); err != nil {
			t.Fatal(err)
		}
		next("b", 1, time.Hour-(10+9+10+60)*time.Second)
	})
}
