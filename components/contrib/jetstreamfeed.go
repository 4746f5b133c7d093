package contrib

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// natsFeed asks the server for what is there and, when that is nothing, for one message that may take a while. It has one
// pull at the server at most. A pull outlives the Next that made it, because one that is called off may have a message on
// its way to nobody: what it brings then goes to the Next that waits, or back at once when there is none. For the same
// reason all pulls of a feed bring their messages to one inbox, for as long as the feed lives, and it is the server that
// ends them: the client of NATS forgets the inbox of a pull by its own clock, and what a slow server or network brings
// later is then out with nobody for a whole ack wait.
type natsFeed struct {
	b       *natsBroker
	op      string
	next    string // the subject that pulls are asked for at
	inbox   string // what the subjects of the feed's pulls begin with
	sub     *nats.Subscription
	ctx     context.Context // ends with the feed
	cancel  context.CancelFunc
	running sync.WaitGroup // Next, and the pull; Add under mu and only while not closed
	bell    chan struct{}  // holds one: something arrived

	mu      sync.Mutex
	closed  bool
	out     map[*natsDelivery]bool
	credits int // how many messages the Next that waits still takes
	arrived []*nats.Msg
	pulls   int       // how many there were
	pull    *natsPull // nil when there is none
	broken  error     // why the last pull ended early: the consumer is gone, for one
}

var _ pubsub.Feed = (*natsFeed)(nil)

const (
	// patience is how long the server keeps a pull for which it has nothing. Close waits for as long.
	patience = time.Second
	// glance is how long it keeps one for what is there. A server that waits for acknowledgements, as many as the consumer
	// may have out, does not say that there is no more.
	glance = 50 * time.Millisecond
	// straggling is how long a Next that has something waits for the rest of what is there.
	straggling = 10 * time.Millisecond
	// overdue is how long after its end the server may say so. It is asked anew then.
	overdue = 10 * time.Second
)

// natsPull is a request for messages.
type natsPull struct {
	inbox string        // where the server says that it has ended
	left  int           // how many messages may come
	ended chan struct{} // closed then
	stop  func()        // forgets what else would end it
}

// open makes the inbox.
func (f *natsFeed) open() (err error) {
	f.inbox = f.b.nc.NewInbox() + "."
	f.sub, err = f.b.nc.Subscribe(f.inbox+"*", f.receive)
	return err
}

// Next implements pubsub.Feed.
func (f *natsFeed) Next(ctx context.Context, n int) ([]pubsub.Delivery, error) {
	if n <= 0 {
		return nil, fault.New(f.op, fault.BadRequest, "Next was asked for %d deliveries", n)
	}
	if !f.begin(n) {
		return nil, fault.New(f.op, fault.Shutdown, "the feed is closed")
	}
	defer f.running.Done()
	err := f.await(ctx, n)
	if got := f.take(); len(got) > 0 {
		return got, nil
	}
	return nil, err
}

func (f *natsFeed) begin(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.running.Add(1)
	f.credits = n
	return true
}

// await returns when something arrived, or with the reason why nothing will.
func (f *natsFeed) await(ctx context.Context, n int) error {
	batch, wait := n, glance
	for {
		if err := f.ended(ctx); err != nil {
			return err
		}
		ended, err := f.ask(batch, wait)
		if err != nil {
			return natsFailure(ctx, f.op, err)
		}
		select {
		case <-f.bell:
			rest := time.NewTimer(straggling)
			defer rest.Stop()
			select {
			case <-ended:
			case <-rest.C:
			case <-ctx.Done():
			}
			return nil
		case <-ended:
			batch, wait = 1, patience
		case <-ctx.Done():
		case <-f.ctx.Done():
		}
	}
}

func (f *natsFeed) ended(ctx context.Context) error {
	f.mu.Lock()
	something, broken := len(f.arrived) > 0, f.broken
	f.broken = nil
	f.mu.Unlock()
	switch {
	case something:
		return errArrived
	case f.ctx.Err() != nil:
		return fault.New(f.op, fault.Shutdown, "the feed is closed")
	case ctx.Err() != nil:
		return fault.FromContext(f.op, ctx, "a message")
	case broken != nil:
		return fault.E(f.op, fault.None, fault.BackendDown, broken)
	}
	return nil
}

// errArrived ends the wait of a Next that has something.
var errArrived = errors.New("something arrived")

// ask makes a pull if there is none, and returns the end of the one there is. Without a connection it makes one that ends
// soon: the driver would keep the request, and those after it, until there is a connection.
func (f *natsFeed) ask(batch int, wait time.Duration) (ended <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pull != nil {
		return f.pull.ended, nil
	}
	f.pulls++
	p := &natsPull{inbox: f.inbox + strconv.Itoa(f.pulls), left: batch, ended: make(chan struct{})}
	link := f.b.linkNow()
	if link.Err() != nil {
		time.AfterFunc(glance, func() { close(p.ended) })
		return p.ended, nil
	}
	request, err := json.Marshal(struct {
		Batch   int           `json:"batch"`
		Expires time.Duration `json:"expires"`
		NoWait  bool          `json:"no_wait"` // it ends when what is there has been sent
	}{batch, wait, wait == glance})
	if err != nil {
		return nil, err
	}
	if err := f.b.nc.PublishRequest(f.next, p.inbox, request); err != nil {
		return nil, err
	}
	end := func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.end(p, nil)
	}
	late, unlink := time.AfterFunc(wait+overdue, end), context.AfterFunc(link, end)
	p.stop = func() {
		late.Stop()
		unlink()
	}
	f.running.Add(1)
	f.pull = p
	return p.ended, nil
}

// end ends p, unless it has ended. The caller holds mu.
func (f *natsFeed) end(p *natsPull, err error) {
	if p == nil || f.pull != p {
		return
	}
	f.pull, f.broken = nil, err
	p.stop()
	close(p.ended)
	f.running.Done()
}

// receive is called with all that comes to the inbox: messages, which have the subject they were published to, and what
// the server says of pulls.
func (f *natsFeed) receive(m *nats.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.HasPrefix(m.Subject, f.inbox) {
		f.hand(m)
		if f.pull != nil {
			if f.pull.left--; f.pull.left == 0 {
				f.end(f.pull, nil)
			}
		}
		return
	}
	if f.pull == nil || f.pull.inbox != m.Subject {
		return // it had ended without
	}
	switch m.Header.Get("Status") {
	case "100": // it is still there
	case "404", "408": // there is nothing, or no more
		f.end(f.pull, nil)
	case "503":
		f.end(f.pull, nats.ErrNoResponders)
	default:
		f.end(f.pull, fmt.Errorf("nats: %s", m.Header.Get("Description")))
	}
}

// hand gives a message to the Next that waits, or back to the server. The caller holds mu.
func (f *natsFeed) hand(m *nats.Msg) {
	if f.credits == 0 || f.closed {
		_ = m.Nak() // or else it comes again when its ack wait ends
		return
	}
	f.credits--
	f.arrived = append(f.arrived, m)
	select {
	case f.bell <- struct{}{}:
	default:
	}
}

// take ends a Next: it makes deliveries of what arrived.
func (f *natsFeed) take() []pubsub.Delivery {
	f.mu.Lock()
	arrived := f.arrived
	f.arrived, f.credits = nil, 0
	select {
	case <-f.bell:
	default:
	}
	f.mu.Unlock()
	got := make([]pubsub.Delivery, 0, len(arrived))
	for _, m := range arrived {
		if d := f.deliver(m); d != nil {
			got = append(got, d)
		}
	}
	return got
}

// deliver makes a delivery of m, and gives back what came when the feed was closed.
func (f *natsFeed) deliver(m *nats.Msg) pubsub.Delivery {
	d := &natsDelivery{f: f, inner: m, attempt: 1, stored: time.Now(), message: decodeNats(m)}
	if about, err := m.Metadata(); err == nil {
		d.attempt, d.stored = int(about.NumDelivered), about.Timestamp
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = m.Nak()
		return nil
	}
	f.out[d] = true
	return d
}

// subjectKey is beside what name the library tells which subject a message was stored under: a subscription may be to many.
const subjectKey = "Topic"

// decodeNats is the message that m holds; what others than sidecars stored is a CloudEvent or raw.
func decodeNats(m *nats.Msg) pubsub.Message {
	message := event(&contribpubsub.NewMessage{Data: m.Data})
	var b beside
	text, err := base64.StdEncoding.DecodeString(m.Header.Get(besideHeader))
	if err == nil && len(text) > 0 && json.Unmarshal(text, &b) == nil {
		message.ID, message.Key, message.ContentType, message.Header = b.ID, b.Key, b.ContentType, b.Header
	}
	if message.Header == nil {
		message.Header = make(map[string]string, 1)
	}
	message.Header[subjectKey] = m.Subject
	return named(message)
}

// Close implements pubsub.Feed.
func (f *natsFeed) Close(ctx context.Context) error {
	f.mu.Lock()
	out := f.out
	if !f.closed {
		f.closed, f.out = true, nil
		f.cancel()
		for d := range out {
			_ = d.inner.Nak() // or else it comes again when its ack wait ends
		}
	}
	f.mu.Unlock()
	f.b.mu.Lock()
	delete(f.b.feeds, f)
	f.b.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		f.running.Wait()
		_ = f.sub.Unsubscribe() // it fails where the connection or an earlier Close has done that
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fault.FromContext(f.op, ctx, "the last pull to end")
	}
}

// natsDelivery is a delivery as long as it is in its feed's out.
type natsDelivery struct {
	f       *natsFeed
	inner   *nats.Msg
	message pubsub.Message
	attempt int
	stored  time.Time
}

var _ pubsub.Delivery = (*natsDelivery)(nil)

func (d *natsDelivery) Message() *pubsub.Message { return &d.message }
func (d *natsDelivery) Attempt() int             { return d.attempt }
func (d *natsDelivery) Stored() time.Time        { return d.stored }

// Extend implements pubsub.Delivery.
func (d *natsDelivery) Extend(ctx context.Context) error {
	return d.answer(ctx, "extend", false, func() error { return d.inner.InProgress() })
}

// Ack implements pubsub.Delivery.
func (d *natsDelivery) Ack(ctx context.Context) error {
	return d.answer(ctx, "ack", true, func() error { return d.inner.Ack() })
}

// Retry implements pubsub.Delivery.
func (d *natsDelivery) Retry(ctx context.Context, delay time.Duration) error {
	return d.answer(ctx, "retry", true, func() error {
		if delay <= 0 {
			return d.inner.Nak()
		}
		return d.inner.NakWithDelay(delay)
	})
}

// answer sends what became of the delivery; last says that it is settled by it.
func (d *natsDelivery) answer(ctx context.Context, verb string, last bool, send func() error) error {
	op := jetstreamName + ": " + verb
	if ctx.Err() != nil {
		return fault.FromContext(op, ctx, "its turn")
	}
	d.f.mu.Lock()
	defer d.f.mu.Unlock()
	if !d.f.out[d] {
		return fault.New(op, fault.AckUnknown, "message %s was settled or given back before", d.message.ID)
	}
	if last {
		delete(d.f.out, d)
	}
	return natsFailure(ctx, op, send())
}
