package natspubsub

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

func TestFullStreamRefusesAndDropsNothing(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t, t.TempDir(), -1).ClientURL())
	host := hostOn(nc, "small")
	b := openOn(t, host, map[string]string{"maxBytes": "64KiB"})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer b.Close(ctx)
	var stored []string
	for i := 0; ; i++ {
		m := pubsub.Message{ID: fmt.Sprint("m", i), Data: make([]byte, 4096)}
		if err := b.Publish(ctx, "t", []pubsub.Message{m})[0]; err != nil {
			if fault.ReasonOf(err) != fault.JetStreamExhausted {
				t.Errorf("a full stream: %v", err)
			}
			break
		}
		stored = append(stored, m.ID)
	}
	f, err := b.Subscribe(ctx, "t", pubsub.Group{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range stored {
		ds, err := f.Next(ctx, 1)
		if err != nil || ds[0].Message().ID != want {
			t.Fatalf("got %v, %v, want %s", ds, err, want)
		}
	}
	err = b.Publish(ctx, "t", []pubsub.Message{{ID: "d", Delay: time.Second}})[0]
	if fault.KindOf(err) != fault.Unsupported {
		t.Errorf("a delay on a limited stream: %v", err)
	}
	if _, err := open(ctx, host, Config{MaxAge: time.Hour, Partitions: 4}); fault.ReasonOf(err) != fault.BadManifest {
		t.Errorf("another number of partitions: %v", err)
	}
}

// A server whose disk fills up answers nothing to a write that failed. Publishers find out why, and do not wait on.
func TestSilentFullServer(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), -1)
	nc := connect(t, s.ClientURL())
	b := openOn(t, hostOn(nc, "silent"), nil).(*broker)
	ctx := t.Context()
	defer b.Close(context.Background())
	if err := b.js.DeleteStream(ctx, b.names.stream); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe(b.names.root+".>", func(*nats.Msg) {}); err != nil { // takes the messages and says nothing
		t.Fatal(err)
	}
	limits := server.JetStreamAccountLimits{MaxMemory: -1, MaxStore: 0, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1, MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1}
	if err := s.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": limits}); err != nil {
		t.Fatal(err)
	}
	var publishers sync.WaitGroup
	for p := range 4 {
		publishers.Go(func() {
			for _, err := range b.Publish(ctx, "t", []pubsub.Message{{ID: fmt.Sprint(p, "a")}, {ID: fmt.Sprint(p, "b"), Key: "k"}}) {
				if fault.ReasonOf(err) != fault.JetStreamExhausted || fault.RetryAfter(err) == 0 {
					t.Errorf("a publish that is not answered: %v", err)
				}
			}
		})
	}
	publishers.Wait()

	// One that merely is slow is waited for.
	limits.MaxStore = -1
	if err := s.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": limits}); err != nil {
		t.Fatal(err)
	}
	patient, cancel := context.WithTimeout(ctx, 3*silence)
	defer cancel()
	if err := b.Publish(patient, "t", []pubsub.Message{{ID: "late"}})[0]; fault.KindOf(err) != fault.Timeout {
		t.Errorf("a publish to a slow server: %v", err)
	}
}

func TestDelayNeedsANewerServer(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t, t.TempDir(), -1).ClientURL())
	b := openOn(t, hostOn(nc, "old"), nil).(*broker)
	ctx := context.Background()
	defer b.Close(ctx)
	b.schedules.Store(false) // what an older server's answer leads to
	errs := b.Publish(ctx, "t", []pubsub.Message{{ID: "m"}, {ID: "d", Delay: time.Second}})
	if errs[0] != nil || fault.KindOf(errs[1]) != fault.Unsupported {
		t.Errorf("got %v", errs)
	}
	if err := b.Publish(ctx, "t", []pubsub.Message{{ID: "l", Delay: 8 * 24 * time.Hour}})[0]; err == nil {
		t.Error("a delay longer than maxAge was accepted")
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t, t.TempDir(), -1).ClientURL())
	b := openOn(t, hostOn(nc, "large"), nil)
	defer b.Close(context.Background())
	errs := b.Publish(context.Background(), "t", []pubsub.Message{{ID: "a", Key: "k"}, {ID: "b", Key: "k", Data: make([]byte, 2<<20)}, {ID: "c", Key: "k"}})
	if errs[0] != nil || fault.ReasonOf(errs[1]) != fault.BodyTooLarge || errs[2] != nil {
		t.Errorf("got %v", errs)
	}
	for _, part := range []string{"the event has 2097", "takes messages of 1048576", "raise max_payload"} {
		if !strings.Contains(errs[1].Error(), part) {
			t.Errorf("%v does not say %q", errs[1], part)
		}
	}

	// What is just small enough to be stored can become a dead letter.
	largest := func(extra int) pubsub.Message {
		return pubsub.Message{ID: fmt.Sprint("m", extra), Data: make([]byte, 1<<20-pubsub.LetterRoom-len("NATS/1.0\r\n\r\n")+extra)}
	}
	m := largest(0)
	errs = b.Publish(t.Context(), "t", []pubsub.Message{m, largest(1)})
	if errs[0] != nil || fault.ReasonOf(errs[1]) != fault.BodyTooLarge {
		t.Fatalf("at the limit: %v", errs)
	}
	m.ID += "/" + strings.Repeat("g", 200)
	m.Header = map[string]string{pubsub.LetterPrefix + "reason": strings.Repeat("é", 1000)}
	if err := b.Publish(t.Context(), "dead", []pubsub.Message{m})[0]; err != nil {
		t.Errorf("as a dead letter: %v", err)
	}
}

// TestLargeEventsInFlight: however many credits there are, a feed holds a bounded number of bytes, and goes on when it has
// settled them.
func TestLargeEventsInFlight(t *testing.T) {
	t.Parallel()
	const payload, size, events = 8 << 20, 5 << 20, 24
	s, err := newServer(t.TempDir(), -1, payload)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopServer(s) })
	b := openOn(t, hostOn(connect(t, s.ClientURL()), "flight"), nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer b.Close(context.Background())
	var messages []pubsub.Message
	for i := range events {
		m := pubsub.Message{ID: fmt.Sprint("m", i), Data: make([]byte, size)}
		if i%2 == 1 {
			m.Key = fmt.Sprint("k", i)
		}
		messages = append(messages, m)
	}
	for _, err := range b.Publish(ctx, "t", messages) {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := b.Subscribe(ctx, "t", pubsub.Group{Name: "g", AckWait: patience})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for rounds := 0; len(seen) < events; rounds++ {
		var out []pubsub.Delivery
		for {
			brief, done := context.WithTimeout(ctx, 300*time.Millisecond)
			ds, err := f.Next(brief, 1000)
			done()
			if err != nil {
				break
			}
			out = append(out, ds...)
		}
		if got := len(out) * size; got > heldBytes+2*longBytes {
			t.Fatalf("round %d: %d MiB are out", rounds, got>>20)
		}
		for _, d := range out {
			seen[d.Message().ID] = true
			if err := d.Ack(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if ctx.Err() != nil {
			t.Fatalf("%d of %d events came", len(seen), events)
		}
	}
}

// TestLostThings deletes consumer and stream under a feed: the feed fails as the contract says, and a new one works.
func TestLostThings(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t, t.TempDir(), -1).ClientURL())
	b := openOn(t, hostOn(nc, "lost"), nil).(*broker)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer b.Close(ctx)
	for _, remove := range []func() error{
		func() error { return b.js.DeleteConsumer(ctx, b.names.stream, durable("t", "g", -1)) },
		func() error { return b.js.DeleteStream(ctx, b.names.stream) },
	} {
		f, err := b.Subscribe(ctx, "t", pubsub.Group{Name: "g"})
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error)
		go func() {
			_, err := f.Next(ctx, 1)
			failed <- err
		}()
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Next without its consumer: %v", err)
		}
		if err := f.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for b.Publish(ctx, "t", []pubsub.Message{{ID: "m"}})[0] != nil && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	f, err := b.Subscribe(ctx, "t", pubsub.Group{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Next(ctx, 1); err != nil {
		t.Errorf("Next of a stream made again: %v", err)
	}
}

// TestWhatComesWhileNobodyAsks: a message that was on its way to a feed whose Next has returned goes to another feed, long before
// its ack wait ends.
func TestWhatComesWhileNobodyAsks(t *testing.T) {
	t.Parallel()
	nc := connect(t, startServer(t, t.TempDir(), -1).ClientURL())
	b := openOn(t, hostOn(nc, "late"), nil).(*broker)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer b.Close(ctx)
	group := pubsub.Group{Name: "g", AckWait: time.Hour}
	quiet, err := b.Subscribe(ctx, "t", group)
	if err != nil {
		t.Fatal(err)
	}
	a := quiet.(*feed)
	a.mu.Lock()
	a.ask(time.Now(), 1) // as if the server had heard of a recall too late
	a.mu.Unlock()
	if err := nc.FlushWithContext(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(ctx, "t", []pubsub.Message{{ID: "m"}})[0]; err != nil {
		t.Fatal(err)
	}
	other, err := b.Subscribe(ctx, "t", group)
	if err != nil {
		t.Fatal(err)
	}
	ds, err := other.Next(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if m := ds[0].Message(); m.ID != "m" || ds[0].Attempt() != 2 {
		t.Errorf("got attempt %d of %s", ds[0].Attempt(), m.ID)
	}
}
