package blocks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// hanging is the handler of an app that works on its first event until it is cut off.
func hanging(began chan<- struct{}) func(context.Context, *appchannel.Event) (appchannel.Outcome, error) {
	return func(ctx context.Context, _ *appchannel.Event) (appchannel.Outcome, error) {
		began <- struct{}{}
		<-ctx.Done()
		return appchannel.Outcome{}, fault.FromContext("hang", ctx, "nothing")
	}
}

func TestHandlerThatHangsHoldsNoStopAndItsEventGoesToAnother(t *testing.T) {
	dir := t.TempDir()
	// An ack wait that outlasts the test, and a single delivery: what was cut off must come back by itself, and not as a
	// dead letter.
	sub := appchannel.Subscription{Topic: "orders", Group: "g", AckWait: time.Hour, MaxDeliveries: 1, DeadLetterTopic: "dead"}
	for _, withdrawn := range []bool{false, true} {
		began, seen := make(chan struct{}, 1), make(chan *appchannel.Event, 1)
		sub.Topic += "+"
		one := sidecar(t, dir, "one"+sub.Topic, &testApp{deliver: hanging(began)}, 0)
		one.PubSub.Declare(t.Context(), []appchannel.Subscription{sub})
		id, err := one.PubSub.Publish(t.Context(), "", sub.Topic, Draft{Data: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		<-began
		if withdrawn {
			one.PubSub.Declare(t.Context(), nil)
		}
		two := sidecar(t, dir, "two"+sub.Topic, &testApp{deliver: func(_ context.Context, e *appchannel.Event) (appchannel.Outcome, error) {
			seen <- e
			return appchannel.Outcome{}, nil
		}}, 0)
		two.PubSub.Declare(t.Context(), []appchannel.Subscription{sub})

		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			_ = one.StopIntake(ctx) // tells that the handler still ran
		}()
		select {
		case <-stopped:
		case <-time.After(20 * time.Second):
			t.Fatal("a handler that hangs holds the stop")
		}
		cancel()
		select {
		case e := <-seen:
			if e.ID != id || e.Delivery != 2 {
				t.Errorf("delivery %d of %s", e.Delivery, e.ID)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("the event did not come back")
		}
	}
}

// A stop without a bound of its own and one with it, at the same time, over a handler that does not even end when it is cut off:
// neither waits for it, and the one whose time was up tells.
func TestHandlerThatNeverReturnsHoldsNoStop(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	b := sidecar(t, t.TempDir(), "app", &testApp{deliver: func(context.Context, *appchannel.Event) (appchannel.Outcome, error) {
		close(began)
		<-release
		return appchannel.Outcome{}, nil
	}}, 0)
	t.Cleanup(func() { close(release) })
	b.PubSub.Declare(t.Context(), []appchannel.Subscription{{Topic: "t", Group: "g", AckWait: time.Hour}})
	if _, err := b.PubSub.Publish(t.Context(), "", "t", Draft{Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	<-began
	unbounded, bounded := make(chan error, 1), make(chan error, 1)
	go func() { unbounded <- b.StopEvents(context.Background()) }()
	eventually(t, "the first stop has begun", func() bool { return len(b.PubSub.Subscriptions()) == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	go func() { bounded <- b.StopEvents(ctx) }()
	for name, stopped := range map[string]chan error{"bounded": bounded, "unbounded": unbounded} {
		select {
		case err := <-stopped:
			if name == "bounded" && fault.KindOf(err) != fault.Timeout {
				t.Errorf("the stop whose time was up gives %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("the handler holds the %s stop", name)
		}
	}
}

func TestInFlightCountsWhatTheAppWorksOn(t *testing.T) {
	began := make(chan struct{}, 1)
	release := make(chan struct{})
	one := sidecar(t, t.TempDir(), "one", &testApp{deliver: func(context.Context, *appchannel.Event) (appchannel.Outcome, error) {
		began <- struct{}{}
		<-release
		return appchannel.Outcome{}, nil
	}}, 0)
	one.PubSub.Declare(t.Context(), []appchannel.Subscription{{Topic: "orders"}})
	inFlight := func(n int) func() bool {
		return func() bool {
			subs := one.PubSub.Subscriptions()
			return len(subs) == 1 && subs[0].State == "active" && subs[0].InFlight == n
		}
	}
	eventually(t, "an idle subscription", inFlight(0))
	if _, err := one.PubSub.Publish(t.Context(), "", "orders", Draft{}); err != nil {
		t.Fatal(err)
	}
	<-began
	if !inFlight(1)() {
		t.Errorf("while one is at work: %+v", one.PubSub.Subscriptions())
	}
	close(release)
	eventually(t, "an idle subscription again", inFlight(0))
}

func TestSubscribeRefusesWhatCannotBe(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	for reason, sub := range map[fault.Reason]appchannel.Subscription{
		fault.TopicInvalid:      {Topic: "orders", DeadLetterTopic: "a\nb"},
		fault.ComponentNotFound: {Topic: "orders", PubSub: "nosuch"},
	} {
		err := one.PubSub.Subscribe(t.Context(), sub, &scriptedSink{}, func(string) { t.Error("opened") })
		wantReason(t, err, reason)
	}
	for _, sub := range []appchannel.Subscription{
		{Topic: "orders", AckWait: time.Nanosecond}, {Topic: "orders", AckWait: -1}, {Topic: "orders", MaxDeliveries: -1},
		{Topic: "orders", DeadLetterTopic: "orders"},
	} {
		err := one.PubSub.Subscribe(t.Context(), sub, &scriptedSink{}, func(string) { t.Error("opened") })
		wantReason(t, err, fault.BadRequest)
	}
}

func TestLanesLiveAsLongAsTheirSubscriptions(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	lanes := func() (n int) {
		for _, node := range one.Runtime.Tree(t.Context()).Children {
			if strings.HasPrefix(node.Name, "sub/") {
				n++
			}
		}
		return n
	}
	var ending sync.WaitGroup
	ctx, end := context.WithCancel(t.Context())
	defer end()
	opened := make(chan struct{}, 6)
	for i := range 6 { // two of each topic
		ending.Go(func() {
			sub := appchannel.Subscription{Topic: fmt.Sprint("t", i/2), Group: fmt.Sprint("g", i)}
			if err := one.PubSub.Subscribe(ctx, sub, &scriptedSink{}, func(string) { opened <- struct{}{} }); err != nil {
				t.Error(err)
			}
		})
	}
	for range 6 {
		<-opened
	}
	if lanes() != 3 {
		t.Errorf("%d lanes, want one of each topic", lanes())
	}
	end()
	ending.Wait()
	if lanes() != 0 {
		t.Errorf("%d lanes are left", lanes())
	}
}

// scriptedSink takes n events and does with each what deliver says.
type scriptedSink struct {
	takes    chan int
	deliver  func(context.Context) (appchannel.Outcome, error)
	returned atomic.Int32
}

func (s *scriptedSink) Take(ctx context.Context, most int) (int, error) {
	select {
	case n := <-s.takes:
		return n, nil
	case <-ctx.Done():
		return 0, fault.FromContext("take", ctx, "credit")
	}
}
func (s *scriptedSink) Return(n int) { s.returned.Add(int32(n)) }
func (s *scriptedSink) Deliver(ctx context.Context, _ *appchannel.Event) (appchannel.Outcome, error) {
	return s.deliver(ctx)
}

// brokenFeed gives out one delivery and then breaks.
type brokenFeed struct {
	first  chan pubsub.Delivery
	panics bool
}

func (f *brokenFeed) Next(context.Context, int) ([]pubsub.Delivery, error) {
	select {
	case d := <-f.first:
		return []pubsub.Delivery{d}, nil
	default:
		if f.panics {
			panic("boom")
		}
		return nil, fault.New("feed", fault.JetStreamRefused, "broken")
	}
}
func (f *brokenFeed) Close(context.Context) error { return nil }

// observed is a delivery that notes how it was settled.
type observed struct {
	stored
	attempt int
	mu      sync.Mutex
	said    []string
	ack     func() error
}

func (o *observed) Attempt() int { return o.attempt }
func (o *observed) note(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.said = append(o.said, what)
}
func (o *observed) Ack(context.Context) error {
	o.note("ack")
	if o.ack != nil {
		return o.ack()
	}
	return nil
}
func (o *observed) Retry(context.Context, time.Duration) error { o.note("retry"); return nil }

func testConsumer(b *Blocks, sink Sink, feed pubsub.Feed, sub appchannel.Subscription) *consumer {
	if sub.AckWait == 0 {
		sub.AckWait = minAckWait
	}
	return &consumer{
		block: b.PubSub, sub: sub, sink: sink, feed: feed, lane: testGuard(b), unseen: newUnseen(), log: b.PubSub.log,
	}
}

func TestFeedThatBreaksDoesNotWaitForAHandlerThatHangs(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	d := &observed{attempt: 1}
	feed := &brokenFeed{first: make(chan pubsub.Delivery, 1)}
	feed.first <- d
	sink := &scriptedSink{takes: make(chan int, 2), deliver: func(ctx context.Context) (appchannel.Outcome, error) {
		<-ctx.Done()
		return appchannel.Outcome{}, fault.FromContext("hang", ctx, "nothing")
	}}
	sink.takes <- 1
	sink.takes <- 3
	ended := make(chan error, 1)
	go func() { ended <- testConsumer(one, sink, feed, appchannel.Subscription{Topic: "t"}).run(t.Context()) }()
	select {
	case err := <-ended:
		wantReason(t, err, fault.JetStreamRefused)
	case <-time.After(20 * time.Second):
		t.Fatal("the subscription is not made again while a handler hangs")
	}
	if len(d.said) != 0 {
		t.Errorf("a delivery that was cut off was settled: %v", d.said)
	}
	if sink.returned.Load() != 3 {
		t.Errorf("%d credits came back, want the 3 that brought nothing", sink.returned.Load())
	}
}

func TestCreditComesBackWhenAFeedPanics(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	began := make(chan struct{})
	sink := &scriptedSink{takes: make(chan int, 2), deliver: func(ctx context.Context) (appchannel.Outcome, error) {
		close(began)
		<-ctx.Done()
		return appchannel.Outcome{}, fault.FromContext("hang", ctx, "nothing")
	}}
	feed := &brokenFeed{first: make(chan pubsub.Delivery, 1), panics: true}
	d := &observed{attempt: 1}
	feed.first <- d
	sink.takes <- 1
	ended := make(chan any, 1)
	go func() {
		defer func() { ended <- recover() }()
		_ = testConsumer(one, sink, feed, appchannel.Subscription{Topic: "t", AckWait: time.Hour}).run(t.Context())
	}()
	<-began
	sink.takes <- 3
	select {
	case cause := <-ended:
		if cause != "boom" {
			t.Errorf("ended with %v", cause)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a feed that panics hangs")
	}
	if sink.returned.Load() != 3 || len(d.said) != 0 {
		t.Errorf("%d credits came back; the delivery that was out: %v", sink.returned.Load(), d.said)
	}
}

func TestCreditComesBackWhenTheLaneRefuses(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	sink := &scriptedSink{deliver: func(context.Context) (appchannel.Outcome, error) {
		t.Error("delivered")
		return appchannel.Outcome{}, nil
	}}
	c := testConsumer(one, sink, nil, appchannel.Subscription{Topic: "t", MaxDeliveries: 1, DeadLetterTopic: "dead"})
	if err := c.lane.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := &observed{attempt: 7}
	c.deliver(t.Context(), t.Context(), d, turn{})
	if sink.returned.Load() != 1 {
		t.Errorf("%d credits came back", sink.returned.Load())
	}
	if len(d.said) != 1 || d.said[0] != "retry" {
		t.Errorf("an event that the app never saw: %v", d.said)
	}
}

func TestSettling(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	ended, end := context.WithCancel(t.Context())
	end()
	canceled := fault.New("deliver", fault.CallCanceled, "gone")
	for name, test := range map[string]struct {
		ctx     context.Context
		max     int
		cutOffs int
		outcome appchannel.Outcome
		failure error
		want    string
	}{
		"success":                         {failure: nil, want: "ack"},
		"success at the last moment":      {ctx: ended, want: "ack"},
		"retry":                           {outcome: appchannel.Outcome{Verdict: appchannel.Retry}, want: "retry"},
		"retry at the last moment":        {ctx: ended, outcome: appchannel.Outcome{Verdict: appchannel.Retry}, want: "retry"},
		"retry, the last delivery":        {max: 3, outcome: appchannel.Outcome{Verdict: appchannel.Retry}, want: "ack"}, // dropped
		"drop":                            {outcome: appchannel.Outcome{Verdict: appchannel.Drop}, want: "ack"},
		"no such handler":                 {failure: fault.New("deliver", fault.HandlerNotFound, "no"), want: "ack"},
		"the handler did not find it":     {failure: fault.E("deliver", fault.NotFound, fault.AppFailed, errors.New("no")), want: "retry"},
		"the handler was cancelled":       {failure: canceled, want: "retry"},
		"cut off":                         {ctx: ended, failure: canceled},
		"cut off, the last delivery":      {ctx: ended, max: 3, failure: canceled},
		"cut off, beyond the last":        {ctx: ended, max: 2, failure: canceled, want: "ack"},
		"cut off, beyond a default":       {ctx: ended, max: 1, cutOffs: 3, failure: canceled},
		"cut off, beyond all":             {ctx: ended, max: 1, cutOffs: 2, failure: canceled, want: "ack"},
		"retry, beyond a default":         {max: 1, cutOffs: 5, outcome: appchannel.Outcome{Verdict: appchannel.Retry}, want: "ack"},
		"never sent, beyond the last":     {max: 2, failure: fault.New("deliver", fault.AppUnreachable, "no"), want: "retry"},
		"failed, beyond the last, no end": {max: 2, failure: fault.New("deliver", fault.InstanceLost, "no"), want: "ack"},
	} {
		if test.ctx == nil {
			test.ctx = t.Context()
		}
		d := &observed{attempt: 3}
		sink := &scriptedSink{deliver: func(context.Context) (appchannel.Outcome, error) { return test.outcome, test.failure }}
		c := testConsumer(one, sink, nil, appchannel.Subscription{Topic: "t", MaxDeliveries: test.max})
		c.cutOffs = test.cutOffs
		c.deliver(test.ctx, t.Context(), d, turn{})
		got := ""
		if len(d.said) > 0 {
			got = d.said[0]
		}
		if got != test.want || len(d.said) > 1 {
			t.Errorf("%s: %v, want %q", name, d.said, test.want)
		}
		if sink.returned.Load() != 0 {
			t.Errorf("%s: a credit that was used came back", name)
		}
	}
}

func TestBackendThatPanicsEndsNothingElse(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	sink := &scriptedSink{deliver: func(context.Context) (appchannel.Outcome, error) { return appchannel.Outcome{}, nil }}
	d := &observed{attempt: 1, ack: func() error { panic("boom") }}
	testConsumer(one, sink, nil, appchannel.Subscription{Topic: "t"}).deliver(t.Context(), t.Context(), d, turn{})
}

func TestBatchTellsWhatWasStored(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	results, err := one.PubSub.PublishBatch(t.Context(), "", "orders", []Draft{
		{Data: []byte("first"), Raw: true}, {Data: make([]byte, 64<<20), Raw: true}, {Data: []byte("last"), Raw: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 3 || results[0].Err != nil || results[1].Err == nil || results[2].Err != nil || results[0].ID == "" {
		t.Errorf("%+v", results)
	}
}
