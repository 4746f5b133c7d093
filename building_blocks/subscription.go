package blocks

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/routing"
	"github.com/sidecast/sidecast/telemetry"
)

const (
	// defaultEventConcurrency is how many events of one subscription the app works on at once when nobody says.
	defaultEventConcurrency = 64
	defaultAckWait          = 10 * time.Second
	minAckWait              = 100 * time.Millisecond // it is extended three times as often, over the network
	defaultMaxDeliveries    = 5                      // where there is a dead-letter topic
)

// redelivery is the pace at which an event that was not handled comes back: by its delivery count, doubled each time.
var redelivery = resiliency.Retry{Max: -1, Initial: 200 * time.Millisecond, MaxInterval: time.Minute, Multiplier: 2, Jitter: .2}

// undeliverable is the pace at which an event comes back that nobody can have as it is.
var undeliverable = resiliency.Retry{Max: -1, Initial: time.Second, MaxInterval: 10 * time.Minute, Multiplier: 2, Jitter: .2}

// settleTimeout bounds the answer to a broker once the handler has spoken.
const settleTimeout = 10 * time.Second

// Sink is who gets the events of a subscription: the local app, or a stream of the native API.
type Sink interface {
	// Deliver hands over one event and waits for the answer. It fails with kind Canceled when ctx ends or the sink goes away
	// before there is one.
	Deliver(ctx context.Context, event *appchannel.Event) (appchannel.Outcome, error)
	// Take waits until at least one more event may be delivered and returns how many, at most most. Each allows one call of
	// Deliver, or is given back by Return.
	Take(ctx context.Context, most int) (int, error)
	Return(n int)
}

// Ordered is a Sink whose events follow each other on one stream. It is given them in the order in which they came from their
// group, each as soon as the one before is on its way or will not be: only what is delivered again is out of order.
type Ordered interface {
	Sink
	// DeliverNext is Deliver that calls sent when the event is on its way.
	DeliverNext(ctx context.Context, event *appchannel.Event, sent func()) (appchannel.Outcome, error)
}

// Subscribe delivers the events of sub to sink until ctx ends, and then waits for the deliveries that are out, as long as
// StopIntake lets it. It calls opened once the group exists. It fails when the subscription cannot be made or its feed
// breaks; deliveries that are out then have an ack wait to end in. An event without an answer goes back to its group at
// once.
func (p *PubSub) Subscribe(ctx context.Context, sub appchannel.Subscription, sink Sink, opened func(group string)) (err error) {
	if err := checkName("subscribe", "the topic", sub.Topic, maxTopic, fault.TopicInvalid); err != nil {
		return err
	}
	if sub.DeadLetterTopic != "" { // or else it is found wrong when the first event has to go there
		if err := checkName("subscribe "+sub.Topic, "the dead-letter topic", sub.DeadLetterTopic, maxTopic, fault.TopicInvalid); err != nil {
			return err
		}
	}
	if sub.AckWait == 0 {
		sub.AckWait = defaultAckWait
	}
	switch {
	case sub.AckWait < minAckWait:
		return fault.New("subscribe "+sub.Topic, fault.BadRequest, "the ack wait is %s; it must be at least %s", sub.AckWait, minAckWait)
	case sub.MaxDeliveries < 0:
		return fault.New("subscribe "+sub.Topic, fault.BadRequest, "max_deliveries is %d; it must not be negative", sub.MaxDeliveries)
	case sub.DeadLetterTopic == sub.Topic:
		return fault.New("subscribe "+sub.Topic, fault.BadRequest, "the dead-letter topic is the topic itself")
	}
	cutOffs := 0
	if sub.MaxDeliveries == 0 && sub.DeadLetterTopic != "" {
		sub.MaxDeliveries, cutOffs = p.maxDeliveries, defaultMaxDeliveries
	}
	use, err := p.components.PubSub(ctx, sub.PubSub)
	if err != nil {
		return err
	}
	defer use.Release()
	sub.PubSub = use.Name
	sub.Group = cmp.Or(sub.Group, use.Topics.Group, p.self.AppID)
	if err := checkName("subscribe "+sub.Topic, "the consumer group", sub.Group, maxName, fault.BadRequest); err != nil {
		return err
	}
	if !use.Topics.Subscribe(sub.Topic) {
		return fault.New("subscribe "+sub.Topic, fault.TopicDenied,
			"subscription to topic '%s' on pubsub '%s' is not allowed", sub.Topic, sub.PubSub)
	}
	feed, err := use.Backend.Subscribe(ctx, use.Topics.OnServer(sub.Topic), pubsub.Group{Name: sub.Group, AckWait: sub.AckWait, OnlyNew: sub.OnlyNew, Metadata: sub.Metadata})
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		err = errors.Join(err, feed.Close(closing))
	}()
	lane, done := p.deliveries.use(sub.PubSub, sub.Topic)
	defer done()
	c := &consumer{
		block: p, sub: sub, cutOffs: cutOffs, sink: sink, broker: use.Backend, topics: use.Topics, feed: feed, lane: lane,
		unseen: newUnseen(), log: p.log.With("topic", sub.Topic, "group", sub.Group),
	}
	c.ordered, _ = sink.(Ordered)
	_, c.wrong = appchannel.RawPayload(sub.Metadata)
	opened(sub.Group)
	current, cancel := whileCurrent(ctx, use)
	defer cancel()
	return c.run(current)
}

// consumer moves the events of one feed to one sink.
type consumer struct {
	block   *PubSub
	sub     appchannel.Subscription
	cutOffs int // deliveries that may end unanswered, where that is more than sub.MaxDeliveries
	sink    Sink
	ordered Ordered // sink, if it is that
	broker  pubsub.Broker
	topics  components.Topics
	feed    pubsub.Feed
	lane    *guard
	unseen  *lru.Cache[string, int] // deliveries that the broker counts and the app was not shown, by event
	wrong   error                   // with the subscription: no event can be given to the sink
	log     *slog.Logger
	running sync.WaitGroup
}

// run moves events until ctx ends or the feed breaks, and returns when no delivery is out any more.
func (c *consumer) run(ctx context.Context) error {
	working, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer c.running.Wait() // for those that a panic of the feed has cut off
	defer cut()
	defer context.AfterFunc(c.block.working, cut)()
	err := replacedOr(ctx, c.pull(ctx, working))
	if err != nil { // the subscription is made again: a handler that hangs must not keep it from that
		defer time.AfterFunc(c.sub.AckWait, cut).Stop()
	}
	c.running.Wait()
	return err
}

// pull asks for exactly as many events as the sink takes. Their deliveries end with working, not with ctx.
func (c *consumer) pull(ctx, working context.Context) error {
	var line line
	for {
		n, err := c.sink.Take(ctx, MaxBatch)
		if err != nil {
			return ending(ctx, err)
		}
		deliveries, err := c.next(ctx, n)
		for _, d := range deliveries {
			var turn turn
			if c.ordered != nil {
				turn = line.join()
			}
			c.running.Go(func() { c.deliver(ctx, working, d, turn) })
		}
		if err != nil {
			return ending(ctx, err)
		}
	}
}

// next gives back what the sink allowed and the feed did not use, even if it panics.
func (c *consumer) next(ctx context.Context, n int) (deliveries []pubsub.Delivery, err error) {
	defer func() { c.sink.Return(n - len(deliveries)) }()
	return c.feed.Next(ctx, n)
}

// ending is nil when err only says that ctx has ended.
func ending(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// deliver takes one event through its lane to the sink and settles it, unless it was cut off: then the feed gives it back
// when it closes, at once and to whoever is there.
func (c *consumer) deliver(ctx, working context.Context, d pubsub.Delivery, turn turn) {
	defer c.contain(d)
	stopExtending := c.extendWhileRunning(working, d)
	began := time.Now()
	event, outcome, failure := c.handOver(working, d, turn)
	stopExtending()
	over := ctx.Err() != nil || working.Err() != nil
	if over && fault.KindOf(failure) == fault.Canceled && !c.overdue(d) {
		return
	}
	c.count(outcome, failure, time.Since(began))
	settling, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	if err := c.settle(settling, d, event, outcome, failure); err != nil {
		// Not settled: the broker delivers it again when the ack wait ends.
		c.log.Warn("an event could not be settled and will be delivered again", "event", event.ID, "error", err)
	}
}

// count tells Dapr's metrics what became of an event, in Dapr's words.
func (c *consumer) count(outcome appchannel.Outcome, failure error, took time.Duration) {
	dapr := c.block.metrics.Dapr()
	if dapr == nil {
		return
	}
	became, said := "success", ""
	switch reason := fault.ReasonOf(failure); {
	case reason == fault.RouteNotFound:
		became, said, took = "drop", "success", 0
	case reason == fault.EventUndeliverable && c.sub.DeadLetterTopic != "":
		became = "drop"
	case reason == fault.HandlerNotFound, outcome.Verdict == appchannel.Drop && outcome.Reason == appchannel.NoRoute:
		became = "drop"
	case failure != nil || outcome.Verdict == appchannel.Retry:
		became = "retry"
	case outcome.Verdict == appchannel.Drop && outcome.Reason == expiredReason:
		became, took = "drop", 0
	case outcome.Verdict == appchannel.Drop:
		became, said = "drop", "success"
	}
	dapr.Delivered(c.sub.PubSub, c.sub.Topic, became, said, c.sub.Bulk != nil, took)
}

// expiredReason is why an event was dropped that nobody has seen.
const expiredReason = "the event has expired"

// contain keeps the panic of a backend, or of what reads its bytes, to the delivery it concerns.
func (c *consumer) contain(d pubsub.Delivery) {
	if p := recover(); p != nil {
		c.log.Error("a delivery panicked; the event is delivered again when its ack wait ends", "event", d.Message().ID,
			"panic", p, "stack", string(debug.Stack()))
	}
}

// handOver gives the sink the event. A lane that admits it not gives back what the sink allowed.
func (c *consumer) handOver(ctx context.Context, d pubsub.Delivery, turn turn) (event *appchannel.Event, outcome appchannel.Outcome, err error) {
	offered := false
	defer func() {
		if !offered {
			c.sink.Return(1)
		}
	}()
	defer turn.pass()
	event = unwrap(c.sub.PubSub, c.sub.Topic, c.sub.Route, c.sub.Raw, d)
	event.Bulk = c.sub.Bulk
	if b, ok := c.broker.(pubsub.Immediate); ok && event.Bulk != nil && b.Immediate() {
		event.Bulk = &appchannel.Bulk{Most: 1}
	}
	turn.wait(ctx) // also one that goes nowhere: those behind it must not overtake those before
	if expired(event) {
		return event, appchannel.Outcome{Verdict: appchannel.Drop, Reason: expiredReason}, nil
	}
	defer c.block.metrics.Observe(telemetry.Op{Block: "pubsub", Target: c.sub.PubSub, Name: "deliver"}, time.Now(), &err)
	ctx, span := c.block.tracer.Deliver(ctx, &event.Header, c.sub.Topic)
	defer func() { span.EndAnswered(&err, outcome.Status) }()
	if d, ok := d.(pubsub.Unreadable); ok && d.Unreadable() != nil {
		return event, outcome, fault.E("read "+c.sub.Topic, fault.None, fault.EventUndeliverable, d.Unreadable())
	}
	if c.wrong != nil {
		return event, outcome, fault.E("subscribe "+c.sub.Topic, fault.None, fault.EventUndeliverable, c.wrong)
	}
	if event.Route, err = c.route(event); err != nil {
		return event, outcome, err
	}
	what := resiliency.Call{Op: "deliver", Idempotent: true, Header: &event.Header}
	err = c.lane.doAs(ctx, c.sub.Topic, what, func(ctx context.Context, _ actors.Grant) error {
		if offered { // what the sink allowed is used up
			if _, err := c.sink.Take(ctx, 1); err != nil {
				return err
			}
		}
		offered = true
		var err error
		if c.ordered != nil {
			outcome, err = c.ordered.DeliverNext(ctx, event, turn.pass)
		} else {
			outcome, err = c.sink.Deliver(ctx, event)
		}
		if err == nil && outcome.Undeliverable {
			return fault.New("deliver "+c.sub.Topic, fault.EventUndeliverable, "%s", outcome.Reason)
		}
		if err == nil && outcome.Verdict == appchannel.Retry {
			return fault.E("deliver", fault.None, fault.EventRejected, errAskedAgain)
		}
		return err
	})
	if errors.Is(err, errAskedAgain) { // only the lane had to know: the app did answer
		err = nil
	}
	return event, outcome, err
}

// errAskedAgain makes a lane see that an app wants the event once more.
var errAskedAgain = errors.New("the app asked for the event again")

// route is where the event goes. One that no rule leads anywhere is the business of nobody here.
func (c *consumer) route(event *appchannel.Event) (string, error) {
	if len(c.sub.Routes) == 0 {
		return c.sub.Route, nil
	}
	envelope := event.Envelope
	if envelope == nil {
		envelope = event.Data
	}
	path, ok, err := routing.Choose(c.sub.Routes, envelope)
	switch {
	case err != nil:
		return "", fault.E("route "+c.sub.Topic, fault.None, fault.EventUndeliverable, err)
	case ok:
		return path, nil
	case c.sub.Route != "":
		return c.sub.Route, nil
	}
	return "", fault.New("route "+c.sub.Topic, fault.RouteNotFound, "no rule of the subscription matches the event, and it has no default route")
}

// overdue tells whether d is beyond its last delivery: one that was cut off gets another, but not for ever.
func (c *consumer) overdue(d pubsub.Delivery) bool {
	return c.sub.MaxDeliveries > 0 && d.Attempt() > max(c.sub.MaxDeliveries, c.cutOffs)
}

// extendWhileRunning keeps the broker from delivering d again while its handler works.
func (c *consumer) extendWhileRunning(ctx context.Context, d pubsub.Delivery) (stop func()) {
	every := c.sub.AckWait / 3
	var stopped atomic.Bool
	var timer *time.Timer
	var mu sync.Mutex // timer is set before its first use
	mu.Lock()
	timer = time.AfterFunc(every, func() {
		if stopped.Load() {
			return
		}
		bounded, cancel := context.WithTimeout(ctx, every)
		defer cancel()
		if err := d.Extend(bounded); err != nil {
			c.log.Debug("an ack wait could not be extended", "error", err)
		}
		mu.Lock()
		defer mu.Unlock()
		if !stopped.Load() {
			timer.Reset(every)
		}
	})
	mu.Unlock()
	return func() {
		stopped.Store(true)
		timer.Stop()
	}
}

// settle tells the broker what the app said. An event that the app never saw does not count against its deliveries.
func (c *consumer) settle(ctx context.Context, d pubsub.Delivery, event *appchannel.Event, outcome appchannel.Outcome, failure error) error {
	unseen, _ := c.unseen.Peek(event.ID)
	switch {
	case failure == nil && outcome.Verdict == appchannel.Success:
		if unseen > 0 {
			c.unseen.Remove(event.ID)
		}
		return d.Ack(ctx)
	case fault.NotSent(failure) && event.ID != "":
		c.unseen.Add(event.ID, unseen+1)
	}
	reason := outcome.Reason
	if failure != nil {
		outcome.Verdict, reason = appchannel.Retry, failure.Error()
		if after := fault.RetryAfter(failure); after > 0 {
			outcome.Delay = after
		}
		switch fault.ReasonOf(failure) {
		case fault.HandlerNotFound, fault.RouteNotFound:
			outcome.Verdict = appchannel.Drop // the app will not grow one
		case fault.EventUndeliverable:
			return c.settleUndeliverable(ctx, d, event, reason)
		}
	}
	spent := c.sub.MaxDeliveries > 0 && d.Attempt()-unseen >= c.sub.MaxDeliveries && !fault.NotSent(failure)
	if outcome.Verdict == appchannel.Drop || spent {
		return c.bury(ctx, d, event, reason)
	}
	delay := outcome.Delay
	if delay <= 0 {
		delay = redelivery.Pace(d.Attempt())
	}
	c.log.Info("an event was not handled and will be delivered again",
		"event", event.ID, "delivery", d.Attempt(), "after", delay, "reason", reason)
	return d.Retry(ctx, delay)
}

// maxUnseen bounds the events of which it is known how often the app was not shown them.
const maxUnseen = 4096

func newUnseen() *lru.Cache[string, int] {
	unseen, err := lru.New[string, int](maxUnseen)
	if err != nil {
		panic(err) // the size is a constant
	}
	return unseen
}

// settleUndeliverable does not lose an event that nobody can have as it is: it goes to the dead-letter topic at once, or waits,
// ever longer, for the subscription or the app to be corrected.
func (c *consumer) settleUndeliverable(ctx context.Context, d pubsub.Delivery, event *appchannel.Event, reason string) error {
	if c.sub.DeadLetterTopic != "" || c.sub.MaxDeliveries > 0 && d.Attempt() >= c.sub.MaxDeliveries {
		return c.bury(ctx, d, event, reason)
	}
	delay := undeliverable.Pace(d.Attempt())
	c.log.Warn("an event cannot be given to the app and the subscription has no dead-letter topic: it is kept and tried again",
		"event", event.ID, "delivery", d.Attempt(), "after", delay, "reason", reason)
	return d.Retry(ctx, delay)
}

// bury moves an event that cannot be handled to the dead-letter topic, or forgets it where there is none.
func (c *consumer) bury(ctx context.Context, d pubsub.Delivery, event *appchannel.Event, reason string) error {
	if c.sub.DeadLetterTopic == "" {
		c.log.Warn("an event was dropped: it cannot be handled and the subscription has no dead-letter topic",
			"event", event.ID, "delivery", d.Attempt(), "reason", reason)
		return d.Ack(ctx)
	}
	letter := *d.Message()
	if letter.Header[pubsub.LetterPrefix+"topic"] == c.sub.Topic && letter.Header[pubsub.LetterPrefix+"group"] == c.sub.Group {
		// A subscription with a wildcard gets its own dead letters, where the wildcard matches their topic. There they are already.
		c.log.Warn("a dead letter came back to the subscription that has buried it, and cannot be handled: it stays where it was buried",
			"event", event.ID, "dead_letter_topic", c.sub.DeadLetterTopic, "reason", reason)
		return d.Ack(ctx)
	}
	letter.Delay = 0
	letter.Header = maps.Clone(letter.Header)
	if letter.Header == nil {
		letter.Header = map[string]string{}
	}
	letter.Header[pubsub.LetterPrefix+"topic"] = c.sub.Topic
	letter.Header[pubsub.LetterPrefix+"group"] = c.sub.Group
	letter.Header[pubsub.LetterPrefix+"reason"] = firstLine(reason)
	letter.ID += "/" + c.sub.Group // the same event may be buried by several groups
	if err := c.broker.Publish(ctx, c.topics.OnServer(c.sub.DeadLetterTopic), []pubsub.Message{letter})[0]; err != nil {
		return errors.Join(err, d.Retry(ctx, redelivery.Pace(d.Attempt())))
	}
	c.log.Warn("an event went to the dead-letter topic", "event", event.ID, "dead_letter_topic", c.sub.DeadLetterTopic,
		"delivery", d.Attempt(), "reason", reason)
	return d.Ack(ctx)
}

// firstLine keeps a reason fit for a header.
func firstLine(s string) string {
	const most = 512
	if i := slices.IndexFunc([]byte(s), func(b byte) bool { return b < ' ' }); i >= 0 {
		s = s[:i]
	}
	return s[:min(len(s), most)]
}
