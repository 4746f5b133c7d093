package natspubsub

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

const (
	quietAfter = 250 * time.Millisecond // without a Next, credits at the server are recalled
	closeWait  = 10 * time.Second       // for the server to confirm the end of a feed
	firstTidy  = 1024

	// heldBytes is how much of what is delivered and not settled makes a feed ask for no more. longBytes bounds one pull
	// of many messages, where two of the largest are not more.
	heldBytes = 64 << 20
	longBytes = 16 << 20
)

var _ pubsub.Feed = (*feed)(nil)

// feed is one member of a group. Next's goroutine deals credits and sends pulls; the inbox's goroutine, which belongs to
// the client library, files what comes back.
type feed struct {
	op    string
	b     *broker
	group *group
	bells *nats.Subscription
	wake  chan struct{} // holds one: something changed

	life   context.Context // ends with Close or failure
	cancel context.CancelFunc
	work   sync.WaitGroup // discovery and open inboxes

	mu        sync.Mutex
	err       error // why the feed ended
	closing   bool
	dealer    dealer
	index     map[string]int // source by consumer
	pulls     []string       // by source: where to ask
	inbox     *nats.Subscription
	recalling bool        // the inbox is being drained; nothing is asked until there is a new one
	ready     []*delivery // delivered, not yet returned by Next
	out       map[outKey]*delivery
	held      int         // bytes of those in out
	tidyAt    int         // size of out at which deliveries that nobody settled in time are forgotten
	waiting   bool        // Next is running
	quiet     *time.Timer // recalls credits when Next stays away
	trouble   time.Time   // since then the consumers do not answer
	shards    shards
}

// outKey names a message of the group.
type outKey struct {
	source int
	seq    uint64
}

func newFeed(ctx context.Context, g *group) (*feed, error) {
	f := &feed{
		op: g.op, b: g.b, group: g, wake: make(chan struct{}, 1),
		index: map[string]int{}, out: map[outKey]*delivery{}, tidyAt: firstTidy,
		shards: shards{known: g.shards == 0, look: time.Now().Add(firstDiscovery), pause: firstDiscovery},
	}
	f.life, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	f.quiet = time.AfterFunc(time.Hour, f.recallIfQuiet)
	f.quiet.Stop()
	f.addSource(g.free)
	err := f.openInbox()
	if err == nil && g.shards > 0 {
		if f.bells, err = g.b.nc.Subscribe(g.b.names.bells(g.topic), f.onBell); err == nil {
			err = f.findShards(ctx, g.keyed())
		}
	}
	if err != nil {
		_ = f.Close(ctx)
		return nil, jsFault(ctx, g.op, err)
	}
	return f, nil
}

func (f *feed) addSource(consumer string) {
	f.index[consumer] = len(f.pulls)
	f.pulls = append(f.pulls, "$JS.API.CONSUMER.MSG.NEXT."+f.b.names.stream+"."+consumer)
	f.dealer.sources = append(f.dealer.sources, source{})
}

// Next returns deliveries that came, or asks for n and waits.
func (f *feed) Next(ctx context.Context, n int) ([]pubsub.Delivery, error) {
	if n <= 0 {
		return nil, fault.New(f.op, fault.BadRequest, "Next was asked for %d deliveries", n)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = true
	f.quiet.Stop()
	defer f.leaveNext()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if f.err != nil {
			return nil, f.err
		}
		if taken := f.take(n); len(taken) > 0 {
			return taken, nil
		}
		if ctx.Err() != nil {
			return nil, fault.FromContext(f.op, ctx, "a message")
		}
		now := time.Now()
		f.ask(now, n)
		timer.Reset(f.nextLook(now).Sub(now))
		f.mu.Unlock()
		select {
		case <-f.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
}

func (f *feed) leaveNext() {
	f.waiting = false
	if f.err == nil && (f.dealer.asked > 0 || len(f.ready) > 0) {
		f.quiet.Reset(quietAfter)
	}
}

// take hands out at most n of what came, but not what the server took back in the meantime.
func (f *feed) take(n int) (taken []pubsub.Delivery) {
	i := 0
	for ; i < len(f.ready) && len(taken) < n; i++ {
		if d := f.ready[i]; !d.settled {
			taken = append(taken, d)
		}
	}
	rest := copy(f.ready, f.ready[i:])
	clear(f.ready[rest:])
	f.ready = f.ready[:rest]
	return taken
}

// ask places n credits, less those that wait at the server already.
func (f *feed) ask(now time.Time, n int) {
	if f.recalling || !f.b.nc.IsConnected() {
		return // a new inbox wakes Next
	}
	f.discover(now)
	lost := f.dealer.overdue(now)
	if lost && f.noteTrouble(now) {
		return
	}
	if f.held >= heldBytes {
		f.tidy(now)
	}
	if f.held >= heldBytes {
		return // a settlement wakes Next
	}
	largest := max(int(f.b.nc.MaxPayload()), 1)
	pulls, recall := f.dealer.deal(now, n, max((heldBytes-f.held)/largest, 1))
	if recall || lost {
		f.recall()
		return
	}
	for _, p := range pulls {
		if err := f.b.nc.PublishRequest(f.pulls[p.source], f.replyTo(p.id), p.request(max(longBytes, 2*largest))); err != nil {
			f.dealer.ended(now, p.id, true)
		}
	}
}

// request is the body of a pull; one of several messages ends at bytes.
func (p pull) request(bytes int) []byte {
	body := append(make([]byte, 0, 64), `{"batch":`...)
	body = strconv.AppendInt(body, int64(p.batch), 10)
	if p.batch > 1 {
		body = append(body, `,"max_bytes":`...)
		body = strconv.AppendInt(body, int64(bytes), 10)
	}
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(p.expires), 10)
	return append(body, '}')
}

func (f *feed) replyTo(pull uint64) string {
	return f.inbox.Subject[:len(f.inbox.Subject)-1] + strconv.FormatUint(pull, 36)
}

func (f *feed) nextLook(now time.Time) time.Time {
	at := f.dealer.next(now)
	if look := f.shards.look; !f.shards.known && !f.shards.finding && look.Before(at) {
		at = look
	}
	return at
}

func (f *feed) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// openInbox subscribes to a fresh subject that pulls answer to. The feed's work includes it until it is closed.
func (f *feed) openInbox() error {
	sub, err := f.b.nc.Subscribe(f.b.nc.NewInbox()+".*", f.receive)
	if err != nil {
		return err
	}
	f.work.Add(1)
	sub.SetClosedHandler(func(string) { f.inboxClosed() })
	f.inbox = sub
	return sub.SetPendingLimits(-1, -1) // bounded by the credits
}

// recall takes back all credits that wait at the server: it drains the inbox, so that pulls end for want of interest
// and what was on its way still arrives, and goes on with a new one.
func (f *feed) recall() {
	if f.recalling || f.inbox == nil {
		return
	}
	f.recalling = true
	end := f.inbox.Drain
	if !f.b.nc.IsConnected() {
		end = f.inbox.Unsubscribe
	}
	if err := end(); err != nil { // the connection is closed for good, and the inbox with it
		f.end(fault.E(f.op, fault.None, fault.FabricDown, err))
	}
}

func (f *feed) inboxClosed() {
	defer f.work.Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inbox, f.recalling = nil, false
	f.dealer.recalled()
	if f.err == nil {
		if err := f.openInbox(); err != nil {
			f.end(fault.E(f.op, fault.None, fault.FabricDown, err))
		}
	}
	f.signal()
}

// recallIfQuiet gives back what nobody came for.
func (f *feed) recallIfQuiet() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting || f.err != nil {
		return
	}
	for _, d := range f.ready {
		f.giveBack(d)
	}
	f.ready = nil
	f.recall()
}

// reconnected starts anew: bells and messages may have been missed, and nobody knows which pulls survived.
func (f *feed) reconnected() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dealer.rangAll()
	f.shards.look = time.Now()
	f.recall()
	f.signal()
}

// fail ends the feed; Next returns err.
func (f *feed) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end(err)
}

func (f *feed) end(err error) {
	if f.err == nil {
		f.err = err
		f.cancel()
	}
	f.signal()
}

// Close recalls the feed's credits and gives back every delivery that is not settled.
func (f *feed) Close(ctx context.Context) error {
	f.mu.Lock()
	if f.closing {
		f.mu.Unlock()
		return nil
	}
	f.closing = true
	f.end(fault.New(f.op, fault.Shutdown, "the feed is closed"))
	f.quiet.Stop()
	f.recall()
	f.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, closeWait)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.work.Wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	if f.bells != nil {
		_ = f.bells.Unsubscribe() // fails only when the connection is closed
	}
	f.mu.Lock()
	for _, d := range f.out {
		f.giveBack(d)
	}
	f.ready = nil
	f.mu.Unlock()
	f.b.forget(f)
	if !f.b.nc.IsConnected() {
		return nil
	}
	if err := f.b.nc.FlushWithContext(ctx); err != nil {
		return jsFault(ctx, f.op, err)
	}
	return nil
}
