// Package pubsubtest checks that a backend keeps every promise of pubsub.Broker. A backend's test is one call:
//
//	func TestConformance(t *testing.T) {
//		pubsubtest.Run(t, pubsubtest.Backend{New: func(t testing.TB) pubsubtest.Place {
//			return func() pubsub.Broker { … }
//		}})
//	}
//
// Run holds one test for each sentence of the contract, Model plays random operations against a model of it, and
// Benchmark measures a message's way from Publish to Ack. Where time is part of a promise (the ack wait, a delay), the
// suite waits for what must come and asserts only that it does not come early.
package pubsubtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// Backend is what the suite runs on.
type Backend struct {
	// New makes an empty place for one test. Tests run in parallel: places must not share topics.
	New func(t testing.TB) Place
	// Durable says that a place keeps messages and positions of groups when its broker is closed and opened again.
	Durable bool
	// NoDelay says that the backend's server cannot delay; then it must refuse as Unsupported.
	NoDelay bool
	// NoOrder says that messages of a key are like any others.
	NoOrder bool
	// NothingKept says that a topic keeps no message for groups to come.
	NothingKept bool
	// LocalAttempts says that attempts are counted anew when the last feed of a group has closed.
	LocalAttempts bool
	// OnlyEvents says that a message comes with what its CloudEvent says, and that what is beside the data may be lost. The
	// suite publishes events then.
	OnlyEvents bool
	// Beside says that a message comes with headers of the backend's own beside those that it was published with.
	Beside bool
	// Topics are the names of topics that the backend is tried with; nil means any text.
	Topics []string
}

// ordered skips a test of the order of a key.
func (r *room) ordered() {
	if r.backend.NoOrder {
		r.Skip("this backend keeps no order")
	}
}

// keeps skips a test of what a topic keeps for later groups.
func (r *room) keeps() {
	if r.backend.NothingKept {
		r.Skip("this backend keeps nothing for groups to come")
	}
}

// dressed is messages as the backend carries them.
func (b Backend) dressed(messages []pubsub.Message) []pubsub.Message {
	if !b.OnlyEvents {
		return messages
	}
	events := slices.Clone(messages)
	for i, m := range events {
		envelope := map[string]string{"specversion": "1.0", "id": m.ID, "source": "test", "type": "test"}
		if m.Key != "" {
			envelope["partitionkey"] = m.Key
		}
		data, err := json.Marshal(envelope)
		if err != nil {
			panic(err) // texts have a form in JSON
		}
		events[i].Data, events[i].ContentType = data, "application/cloudevents+json"
	}
	return events
}

// Place opens a broker on the messages that the place holds. It fails the test when it cannot.
type Place func() pubsub.Broker

// patience is how long the suite waits for what must happen: it ends hangs, it measures nothing.
const patience = time.Minute

// longWait is an ack wait that does not run out during a test.
const longWait = 10 * time.Minute

// Run runs the suite.
func Run(t *testing.T, backend Backend) {
	tests := []struct {
		name string
		run  func(r *room)
	}{
		{"a message arrives as it was published", roundTrip},
		{"names of topics and groups may hold anything", anyNames},
		{"a batch has a result for each message and keeps its order", batch},
		{"a canceled publish has a result for each message", canceledPublish},
		{"each group gets everything", groups},
		{"members of a group share", members},
		{"a new group starts at the oldest message kept", kept},
		{"a new group with OnlyNew starts at what is published from now on", onlyNew},
		{"what is published after Subscribe is delivered to a later feed", laterFeed},
		{"nothing is lost around Subscribe", aroundSubscribe},
		{"a message is delivered again after the ack wait", ackWait},
		{"a message is delivered again after Close of the feed", feedClose},
		{"a message is delivered again after Retry, not before its delay", retry},
		{"attempts are counted", attempts},
		{"Extend keeps the message of a slow handler", extend},
		{"an acknowledged message is not delivered again", acked},
		{"a delivery is settled once", settledOnce},
		{"a late answer does not let the next message of the key pass", lateAnswer},
		{"messages of a key come one at a time and in order", keyOrder},
		{"order holds while a message of the key is given back for later", keyRetry},
		{"different keys run in parallel", keysParallel},
		{"messages without a key run in parallel", parallel},
		{"one credit is enough for keyed and unkeyed messages", oneCredit},
		{"a delayed message waits, the others do not", delay},
		{"Next returns no more than it was asked for", neverMore},
		{"nothing is kept from the other feeds beyond the credits", nothingHeld},
		{"credits that nobody claims do not keep messages", unclaimed},
		{"no more than MaxInFlight are out", maxInFlight},
		{"Next ends with its context and the feed goes on", contextEnd},
		{"what is closed says so", closed},
		{"what cannot be is refused", invalid},
		{"a broker opened again goes on where it was", reopen},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(newRoom(t, backend))
		})
	}
	t.Run("random operations agree with the model", func(t *testing.T) {
		t.Parallel()
		Model(t, backend)
	})
}

// room is one test with its broker.
type room struct {
	testing.TB
	ctx     context.Context
	backend Backend
	open    Place
	b       pubsub.Broker
}

func newRoom(t testing.TB, backend Backend) *room {
	open := backend.New(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	r := &room{TB: t, ctx: ctx, backend: backend, open: open, b: open()}
	t.Cleanup(func() {
		defer cancel()
		if err := r.b.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

func (r *room) subscribe(topic string, g pubsub.Group) pubsub.Feed {
	r.Helper()
	if g.AckWait == 0 {
		g.AckWait = longWait
	}
	f, err := r.b.Subscribe(r.ctx, topic, g)
	if err != nil {
		r.Fatalf("Subscribe(%q, %+v): %v", topic, g, err)
	}
	return f
}

func (r *room) publish(topic string, messages ...pubsub.Message) {
	r.Helper()
	errs := r.b.Publish(r.ctx, topic, r.backend.dressed(messages))
	if len(errs) != len(messages) {
		r.Fatalf("Publish of %d messages returned %d results", len(messages), len(errs))
	}
	for i, err := range errs {
		if err != nil {
			r.Fatalf("Publish(%q): message %d: %v", topic, i, err)
		}
	}
}

// numbered makes messages from..to-1 of a key; ID and data are the prefix and the number.
func numbered(prefix, key string, from, to int) (messages []pubsub.Message) {
	for i := from; i < to; i++ {
		id := fmt.Sprintf("%s%d", prefix, i)
		messages = append(messages, pubsub.Message{ID: id, Key: key, Data: []byte(id)})
	}
	return messages
}

// next waits for at least one delivery of at most n.
func (r *room) next(f pubsub.Feed, n int) []pubsub.Delivery {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, patience)
	defer cancel()
	got, err := f.Next(ctx, n)
	if err != nil {
		r.Fatalf("Next(%d): %v", n, err)
	}
	if len(got) == 0 || len(got) > n {
		r.Fatalf("Next(%d) returned %d deliveries", n, len(got))
	}
	return got
}

func (r *room) one(f pubsub.Feed) pubsub.Delivery {
	r.Helper()
	return r.next(f, 1)[0]
}

// take waits for count deliveries and leaves them unsettled.
func (r *room) take(f pubsub.Feed, count int) (got []pubsub.Delivery) {
	r.Helper()
	for len(got) < count {
		got = append(got, r.next(f, count-len(got))...)
	}
	return got
}

// consume waits for count deliveries, acknowledges each as it comes, and returns their IDs.
func (r *room) consume(f pubsub.Feed, count int) (ids []string) {
	r.Helper()
	for len(ids) < count {
		for _, d := range r.next(f, min(count-len(ids), 10)) {
			ids = append(ids, d.Message().ID)
			r.ack(d)
		}
	}
	return ids
}

func (r *room) ack(d pubsub.Delivery) {
	r.Helper()
	if err := d.Ack(r.ctx); err != nil {
		r.Fatalf("Ack of %s: %v", d.Message().ID, err)
	}
}

func (r *room) retry(d pubsub.Delivery, delay time.Duration) {
	r.Helper()
	if err := d.Retry(r.ctx, delay); err != nil {
		r.Fatalf("Retry of %s: %v", d.Message().ID, err)
	}
}

func (r *room) close(f pubsub.Feed) {
	r.Helper()
	if err := f.Close(r.ctx); err != nil {
		r.Fatalf("Close of the feed: %v", err)
	}
}

// none fails when a delivery comes within d.
func (r *room) none(f pubsub.Feed, d time.Duration) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, d)
	defer cancel()
	got, err := f.Next(ctx, 1)
	for _, d := range got {
		r.Errorf("unexpected delivery of %s, attempt %d", d.Message().ID, d.Attempt())
	}
	if err != nil && fault.KindOf(err) != fault.Timeout {
		r.Errorf("Next at the end of its context: %v, not a Timeout", err)
	}
}

func (r *room) kind(what string, err error, want fault.Kind) {
	r.Helper()
	if fault.KindOf(err) != want {
		r.Errorf("%s: %v (%s), want kind %s", what, err, fault.KindOf(err), want)
	}
}

func ids(messages []pubsub.Message) []string {
	var all []string
	for _, m := range messages {
		all = append(all, m.ID)
	}
	return all
}

func (r *room) sameSet(what string, got, want []string) {
	r.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// sameOrder compares in order, as far as the backend keeps one.
func (r *room) sameOrder(what string, got, want []string) {
	r.Helper()
	if r.backend.NoOrder {
		r.sameSet(what, got, want)
		return
	}
	if !slices.Equal(got, want) {
		r.Errorf("%s: got %v, want %v", what, got, want)
	}
}
