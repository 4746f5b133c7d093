package contrib

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
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

// tapKey names a tap. Subscriptions of one group that differ in what they tell the library have one each.
type tapKey struct{ topic, group, options string }

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

	opening chan struct{}   // holds one while the subscription is made
	refused chan string     // holds one: what the server has against the subscription
	ctx     context.Context // of the subscription
	cancel  context.CancelFunc
	dialled sync.WaitGroup // the library's connecting; Add only while opening is held, and before closed
	ended   chan struct{}  // closed when nothing of the tap runs any more

	mu     sync.Mutex
	inner  contribpubsub.PubSub // nil until the library has connected
	feeds  int
	opened bool // the library has subscribed
	closed bool
	said   string           // what the library logged last
	gone   chan struct{}    // closed when handlers shall give back what they hold
	held   map[string]*held // by the number
	tokens map[string]*held // by the token, of those that have one
	recent recent
	latest time.Time      // when a message was last handled of which the library does not tell when it is acknowledged
	acks   sync.WaitGroup // of those of which it does; Add under mu and only while not closed
}

// newTap is called within a call of the broker's life, which ends after the tap.
func newTap(b *broker, op string, key tapKey) (*tap, error) {
	local, err := memorypubsub.Component.Open(context.Background(), components.Host{Component: b.product.name},
		map[string]string{"maxMessages": strconv.Itoa(math.MaxInt32), "maxBytes": "1PiB", "keep": "0"})
	if err != nil {
		return nil, err
	}
	t := &tap{
		b: b, op: op, key: key, local: local.(pubsub.Broker), opening: make(chan struct{}, 1), refused: make(chan string, 1),
		ended: make(chan struct{}), gone: make(chan struct{}), held: map[string]*held{}, tokens: map[string]*held{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	b.life.strays.Add(1)
	return t, nil
}

// join opens a feed, and the subscription for the first one.
func (t *tap) join(ctx context.Context, g pubsub.Group) (pubsub.Feed, error) {
	select {
	case t.opening <- struct{}{}:
		defer func() { <-t.opening }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, errTapClosed
	}
	first := t.feeds == 0
	t.feeds++
	t.mu.Unlock()
	inner, err := t.local.Subscribe(ctx, t.key.topic, pubsub.Group{Name: t.key.group, AckWait: g.AckWait, MaxInFlight: g.MaxInFlight})
	if err == nil && first {
		err = t.open(ctx, g)
	}
	if err != nil {
		t.leave()
		return nil, err
	}
	return &feed{Feed: inner, t: t}, nil
}

// patient is how long the library may take to subscribe. It must be well below the minute after which RabbitMQ's gives up
// by itself: its goroutine panics when it has success later than that and was not called off before.
const patient = 30 * time.Second

// open subscribes at the library, whose Subscribe does not always hear when it is called off. RabbitMQ's sleeps out a minute
// then, for nothing: end waits for all that it has started, but not for that.
func (t *tap) open(caller context.Context, g pubsub.Group) error {
	ctx, cancel := context.WithTimeout(caller, patient)
	defer cancel()
	subscribed := make(chan error, 1)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return errTapClosed
	}
	t.dialled.Add(1)
	t.mu.Unlock()
	go func() { subscribed <- t.subscribe(ctx, g) }()
	select {
	case err := <-subscribed:
		t.mu.Lock()
		t.opened = err == nil
		t.mu.Unlock()
		return err
	case <-t.gone:
		return errTapClosed
	case text := <-t.refused:
		t.cancel()
		return fault.New(t.op, fault.BackendFailed, "%s", text)
	case <-ctx.Done():
		t.cancel()
		if caller.Err() != nil {
			return context.Cause(caller)
		}
		return fault.New(t.op, fault.BackendDown, "not subscribed within %s: %s", patient, t.lastWords())
	}
}

func (t *tap) lastWords() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return cmp.Or(t.said, "the server does not answer")
}

// subscribe fails when the library panics.
func (t *tap) subscribe(ctx context.Context, g pubsub.Group) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.b.host.Log.Error("the library panicked", "panic", p, "stack", string(debug.Stack()))
			err = fault.New(t.op, fault.Panicked, "the library panicked: %v", p)
		}
	}()
	inner, err := t.dial(ctx, g)
	if err != nil {
		return err
	}
	request := contribpubsub.SubscribeRequest{Topic: t.key.topic, Metadata: maps.Clone(g.Metadata)}
	if ordered, ok := inner.(Ordered); ok {
		return ordered.SubscribeInOrder(t.ctx, request, t.accept)
	}
	return inner.Subscribe(t.ctx, request, t.handle)
}

// dial connects, for a subscription that may have been closed when it is done.
func (t *tap) dial(ctx context.Context, g pubsub.Group) (contribpubsub.PubSub, error) {
	defer t.dialled.Done()
	if t.b.product.prepare != nil && g.OnlyNew {
		if err := t.b.product.prepare(ctx, t.b, t.key.topic, g.Name); err != nil {
			return nil, err
		}
	}
	inner, err := t.b.connect(ctx, t.op, t.key.topic, g, t.heard)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inner = inner
	if t.closed {
		return nil, errTapClosed
	}
	return inner, nil
}

// pace is the pause of a library that would try again at once.
const pace = 500 * time.Millisecond

// heard is told of errors that the library logs, by the goroutine that logs them. That of a subscription that nobody wants any
// more, or that the server will not have, ends here rather than try again.
func (t *tap) heard(text string) {
	t.mu.Lock()
	t.said = text
	opened := t.opened
	t.mu.Unlock()
	p := t.b.product
	over := t.ctx.Err() != nil
	if !opened && slices.ContainsFunc(p.refused, func(words string) bool { return strings.Contains(text, words) }) {
		over = true
		select {
		case t.refused <- text:
		default:
		}
	}
	if over && p.again != "" && strings.Contains(text, p.again) {
		runtime.Goexit()
	}
	if p.spins != "" && strings.Contains(text, p.spins) {
		pause(t.ctx, pace)
	}
}

// handle is called by the library with a message. It returns nil when the message has been handled. A library may limit
// the time that this takes and send the message again then: the copy is known by its token, and takes over.
func (t *tap) handle(ctx context.Context, m *contribpubsub.NewMessage) error {
	err := t.accept(ctx, m)()
	if err != nil && t.b.product.forgets {
		runtime.Goexit() // of the library's own goroutine, which has nothing more to do: the subscription ends
	}
	return err
}

// accept is the first part of handle, after which the message has its place in the line; wait is the rest.
func (t *tap) accept(ctx context.Context, m *contribpubsub.NewMessage) (wait func() error) {
	message, token := t.b.product.codec.decode(m)
	if beside := t.b.product.beside; beside != nil {
		if told := beside(m, t.b.settings); len(told) > 0 {
			if message.Header == nil {
				message.Header = make(map[string]string, len(told))
			}
			maps.Copy(message.Header, told)
		}
	}
	h, number := t.hold(ctx, m, message, token)
	if h == nil {
		return func() error { return nil } // it was handled, and the server did not know yet
	}
	if number != "" {
		local := pubsub.Message{ID: number}
		if t.b.product.order != nil {
			local.Key = t.b.product.order(m, message.Key, t.b.settings)
		}
		if err := t.local.Publish(context.Background(), t.key.topic, []pubsub.Message{local})[0]; err != nil { // it closes
			return func() error {
				<-t.gone
				return errGivenBack
			}
		}
	}
	return func() error { return t.until(ctx, h, token) }
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

// wait waits until nothing of a closed tap runs.
func (t *tap) wait(ctx context.Context) error {
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

const (
	// settling is how long the library has to acknowledge a message after its handler returned, when it does not tell: it
	// does so at once, but its Close would not wait for it.
	settling = 500 * time.Millisecond
	// acknowledged is how long the server may take for that, when the library tells.
	acknowledged = 5 * time.Second
)

// shut lets nobody join any more, and ends the tap.
func (t *tap) shut() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.closed = true
	t.b.forget(t)
	go t.end()
}

// end waits for what is being acknowledged, ends the subscription, then lets the handlers give back what they hold, closes
// the connection at last, and waits for all that the tap has started. A library that acknowledges what failed does not do
// so once its context has ended.
func (t *tap) end() {
	defer t.b.life.strays.Done()
	defer close(t.ended)
	settled := make(chan struct{})
	go func() {
		defer close(settled)
		t.acks.Wait()
	}()
	late := time.AfterFunc(acknowledged, t.cancel)
	select {
	case <-settled:
	case <-t.ctx.Done(): // so is every call's context then
	}
	late.Stop()
	t.cancel()
	close(t.gone)
	<-settled
	t.mu.Lock()
	latest := t.latest
	t.mu.Unlock()
	time.Sleep(time.Until(latest.Add(settling)))
	t.dialled.Wait()
	if t.inner != nil {
		if err := closeSafely(t.inner); err != nil {
			t.b.host.Log.Debug("a subscription did not close cleanly", "topic", t.key.topic, "error", err)
		}
	}
	_ = t.local.Close(context.Background()) // it has nothing that could fail
}
