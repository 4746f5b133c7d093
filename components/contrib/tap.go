package contrib

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	contribpubsub "github.com/dapr/components-contrib/pubsub"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/pubsub/memorypubsub"
)

// errTapClosed tells a feed to make a new tap, errGivenBack tells the library to give a message back to its server.
var (
	errTapClosed = errors.New("the tap is closed")
	errGivenBack = errors.New("the subscription ended before the message was handled")
)

type tapKey struct{ topic, group string }

// tap is one subscription at the library. The library pushes: it calls a handler with each message, and settles the message
// when the handler returns, for better or worse. Some of its brokers acknowledge even what failed. So the handler here does
// not return before the app has handled the message: until then the message lies in a memory broker, which does what our
// contract says (credits, attempts, ack waits, redelivery after a pause), and the server still counts it as delivered and
// not acknowledged. When the last feed closes, or the process dies, the server gives it out again.
//
// How many messages are here at once is what the library's settings of concurrency and prefetching allow.
type tap struct {
	b     *broker
	op    string
	key   tapKey
	local pubsub.Broker // of this tap alone; its messages' IDs are numbers of held
	ids   atomic.Uint64

	opening sync.Mutex // held while the subscription is made
	inner   contribpubsub.PubSub
	ctx     context.Context // of the subscription
	cancel  context.CancelFunc
	ended   chan struct{} // closed when nothing of the tap runs any more

	mu     sync.Mutex
	feeds  int
	closed bool
	gone   chan struct{}    // closed when handlers shall give back what they hold
	held   map[string]*held // by the number
	tokens map[string]*held // by the token, of those that have one
	recent recent
	latest time.Time // when a message was last handled
}

// held is a message that the server waits for.
type held struct {
	message pubsub.Message
	token   string // what the server's copies of it have in common; "" if there is nothing
	stored  time.Time
	done    chan struct{} // closed when it was handled
}

// recent are the tokens of messages that were handled lately. The oldest goes when there are too many.
type recent struct {
	known map[string]bool
	ring  []string
	next  int
}

const remembered = 1024

func (r *recent) add(token string) {
	if r.known == nil {
		r.known, r.ring = map[string]bool{}, make([]string, remembered)
	}
	delete(r.known, r.ring[r.next])
	r.ring[r.next], r.known[token] = token, true
	r.next = (r.next + 1) % remembered
}

func newTap(b *broker, op string, key tapKey) *tap {
	t := &tap{
		b: b, op: op, key: key, ended: make(chan struct{}), gone: make(chan struct{}),
		held: map[string]*held{}, tokens: map[string]*held{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// join opens a feed, and the subscription for the first one.
func (t *tap) join(ctx context.Context, g pubsub.Group) (pubsub.Feed, error) {
	t.opening.Lock()
	defer t.opening.Unlock()
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, errTapClosed
	}
	t.feeds++
	t.mu.Unlock()
	if t.local == nil {
		local, err := memorypubsub.Component.Open(ctx, components.Host{Component: t.b.product.name},
			map[string]string{"maxMessages": strconv.Itoa(math.MaxInt32), "maxBytes": "1PiB", "keep": "0"})
		if err != nil {
			t.leave()
			return nil, err
		}
		t.local = local.(pubsub.Broker)
	}
	inner, err := t.local.Subscribe(ctx, t.key.topic, pubsub.Group{Name: t.key.group, AckWait: g.AckWait, MaxInFlight: g.MaxInFlight})
	if err == nil && t.inner == nil {
		err = t.open(ctx, g)
	}
	if err != nil {
		t.leave()
		return nil, err
	}
	return &feed{Feed: inner, t: t}, nil
}

// open subscribes at the library. It does not always hear when it is called off: then its goroutine ends by itself, and
// close waits for it.
func (t *tap) open(ctx context.Context, g pubsub.Group) error {
	named := g
	named.Name = t.b.group(g)
	if t.b.product.prepare != nil && g.OnlyNew {
		if err := t.b.product.prepare(ctx, t.b, t.key.topic, named.Name); err != nil {
			return err
		}
	}
	inner, err := t.b.connect(ctx, t.op, t.key.topic, named, nil)
	if err != nil {
		return err
	}
	t.inner = inner
	subscribed := make(chan error, 1)
	go func() {
		subscribed <- inner.Subscribe(t.ctx, contribpubsub.SubscribeRequest{Topic: t.key.topic, Metadata: map[string]string{}}, t.handle)
	}()
	select {
	case err := <-subscribed:
		return err
	case <-ctx.Done():
		t.cancel()
		return context.Cause(ctx)
	}
}

// handle is called by the library with a message. It returns nil when the message has been handled. A library may limit
// the time that this takes and send the message again then: the copy is known by its token, and takes over.
func (t *tap) handle(ctx context.Context, m *contribpubsub.NewMessage) error {
	message, token := t.b.product.codec.decode(m)
	h, number := t.hold(message, token)
	if h == nil {
		return nil // it was handled, and the server did not know yet
	}
	if number != "" {
		err := t.local.Publish(context.Background(), t.key.topic, []pubsub.Message{{ID: number}})[0]
		if err != nil { // it closes
			<-t.gone
			return errGivenBack
		}
	}
	limit := ctx.Done()
	if token == "" {
		limit = nil // a copy would not be known: the message is kept for as long as it takes
	}
	select {
	case <-h.done:
		return nil
	case <-limit:
	case <-t.gone:
	}
	return errGivenBack
}

// hold remembers a message. One that is held already, because the server gave it out again, gets no number of its own; for
// one that has just been handled it returns nil.
func (t *tap) hold(m pubsub.Message, token string) (h *held, number string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if token != "" && t.tokens[token] != nil {
		return t.tokens[token], ""
	}
	if t.recent.known[token] {
		return nil, ""
	}
	number = strconv.FormatUint(t.ids.Add(1), 10)
	h = &held{message: m, token: token, stored: time.Now(), done: make(chan struct{})}
	t.held[number] = h
	if token != "" {
		t.tokens[token] = h
	}
	return h, number
}

// handled ends a message.
func (t *tap) handled(number string, h *held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.held, number)
	if h.token != "" {
		delete(t.tokens, h.token)
		if t.b.product.codec.unique {
			t.recent.add(h.token)
		}
	}
	t.latest = time.Now()
	close(h.done)
}

// leave ends one feed's part in the tap, and the tap with the last one.
func (t *tap) leave() {
	t.mu.Lock()
	t.feeds--
	last := t.feeds == 0
	t.mu.Unlock()
	if last {
		t.shut()
	}
}

// close ends all.
func (t *tap) close() {
	t.opening.Lock()
	defer t.opening.Unlock()
	t.shut()
	<-t.ended
}

// wait waits until nothing of a closed tap runs.
func (t *tap) wait(ctx context.Context) error {
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settling is how long the library has to acknowledge a message after its handler returned: it does so at once, but does
// not tell, and its Close would not wait for it.
const settling = 100 * time.Millisecond

// shut ends the subscription, then lets the handlers give back what they hold, and closes the connection at last. A library
// that acknowledges what failed does not do so once its context has ended.
func (t *tap) shut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	t.b.forget(t)
	t.cancel()
	close(t.gone)
	inner, local, latest := t.inner, t.local, t.latest
	go func() {
		defer close(t.ended)
		time.Sleep(time.Until(latest.Add(settling)))
		if inner != nil {
			if err := inner.Close(); err != nil {
				t.b.host.Log.Debug("a subscription did not close cleanly", "topic", t.key.topic, "error", err)
			}
		}
		if local != nil {
			_ = local.Close(context.Background()) // it has nothing that could fail
		}
	}()
}

// feed is a feed of the memory broker whose deliveries show what the server sent.
type feed struct {
	pubsub.Feed
	t    *tap
	once sync.Once
}

// Next implements pubsub.Feed.
func (f *feed) Next(ctx context.Context, n int) ([]pubsub.Delivery, error) {
	ds, err := f.Feed.Next(ctx, n)
	for i, d := range ds {
		f.t.mu.Lock()
		h := f.t.held[d.Message().ID]
		f.t.mu.Unlock()
		ds[i] = &delivery{Delivery: d, t: f.t, h: h}
	}
	return ds, err
}

// Close implements pubsub.Feed. What the last feed of a group has not settled goes back to the server.
func (f *feed) Close(ctx context.Context) error {
	err := f.Feed.Close(ctx)
	f.once.Do(f.t.leave)
	f.t.mu.Lock()
	closed := f.t.closed
	f.t.mu.Unlock()
	if closed {
		if err := f.t.wait(ctx); err != nil {
			return fault.FromContext(f.t.op, ctx, "the library to end the subscription")
		}
	}
	return err
}

// delivery is one of the memory broker with the message that it stands for.
type delivery struct {
	pubsub.Delivery
	t *tap
	h *held
}

func (d *delivery) Message() *pubsub.Message { return &d.h.message }
func (d *delivery) Stored() time.Time        { return d.h.stored }

// Ack lets the handler return, whereupon the library acknowledges the message at the server.
func (d *delivery) Ack(ctx context.Context) error {
	err := d.settle(d.Delivery.Ack(ctx))
	if err == nil {
		d.t.handled(d.Delivery.Message().ID, d.h)
	}
	return err
}

// Retry implements pubsub.Delivery.
func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	return d.settle(d.Delivery.Retry(ctx, delay))
}

// Extend implements pubsub.Delivery.
func (d *delivery) Extend(ctx context.Context) error { return d.settle(d.Delivery.Extend(ctx)) }

// settle says of a tap that has closed what it means for the message: it is the server's again.
func (d *delivery) settle(err error) error {
	d.t.mu.Lock()
	closed := d.t.closed
	d.t.mu.Unlock()
	if fault.ReasonOf(err) == fault.Shutdown && closed && !d.t.b.life.isClosed() {
		return fault.New(d.t.op, fault.AckUnknown, "message %s was given back when its feed closed", d.h.message.ID)
	}
	return err
}
