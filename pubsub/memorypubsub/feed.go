package memorypubsub

import (
	"container/list"
	"context"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

var _ pubsub.Feed = (*feed)(nil)

// feed is one member of a group. Its fields belong to the broker's lock.
type feed struct {
	op     string
	b      *broker
	g      *group
	out    map[*delivery]struct{}
	ended  chan struct{}
	closed bool
}

func (g *group) feed(op string) *feed {
	f := &feed{op: op, b: g.t.b, g: g, out: map[*delivery]struct{}{}, ended: make(chan struct{})}
	g.feeds[f] = struct{}{}
	return f
}

// Next takes what is ready, or waits in line with the group's other feeds.
func (f *feed) Next(ctx context.Context, n int) ([]pubsub.Delivery, error) {
	if n <= 0 {
		return nil, fault.New(f.op, fault.BadRequest, "Next was asked for %d deliveries", n)
	}
	for {
		f.b.mu.Lock()
		if f.closed {
			f.b.mu.Unlock()
			return nil, fault.New(f.op, fault.Shutdown, "the feed is closed")
		}
		if ctx.Err() != nil {
			f.b.mu.Unlock()
			return nil, fault.FromContext(f.op, ctx, "a message")
		}
		if taken := f.g.take(f, n); len(taken) > 0 {
			f.b.mu.Unlock()
			return taken, nil
		}
		woken := make(chan struct{})
		place := f.g.waiting.PushBack(woken)
		f.b.mu.Unlock()
		select {
		case <-woken:
		case <-ctx.Done():
			f.leaveLine(place, woken)
		case <-f.ended:
			f.leaveLine(place, woken)
		}
	}
}

// leaveLine gives up a place in line; if its turn had come, the next one gets it.
func (f *feed) leaveLine(place *list.Element, woken chan struct{}) {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	select {
	case <-woken:
		f.g.wake()
	default:
		f.g.waiting.Remove(place)
	}
}

// end stops the feed without giving anything back.
func (f *feed) end() {
	if !f.closed {
		f.closed = true
		close(f.ended)
	}
}

// Close gives back every delivery that is not settled.
func (f *feed) Close(context.Context) error {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	if f.closed {
		return nil
	}
	f.end()
	delete(f.g.feeds, f)
	for d := range f.out {
		f.g.giveBack(d.item, 0)
	}
	return nil
}

var _ pubsub.Delivery = (*delivery)(nil)

// delivery is one message in a feed's hands, as long as its item says so.
type delivery struct {
	feed    *feed
	item    *item
	attempt int
}

func (d *delivery) Message() *pubsub.Message { return &d.item.e.message }
func (d *delivery) Attempt() int             { return d.attempt }
func (d *delivery) Stored() time.Time        { return d.item.e.stored }

// Extend restarts the ack wait.
func (d *delivery) Extend(ctx context.Context) error {
	return d.answer(ctx, "extend", func() { d.feed.b.move(d.item.alarm, time.Now().Add(d.item.g.ackWait)) })
}

// Ack ends the message for the group.
func (d *delivery) Ack(ctx context.Context) error {
	return d.answer(ctx, "ack", func() { d.item.g.done(d.item) })
}

// Retry gives the message back.
func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	return d.answer(ctx, "retry", func() { d.item.g.giveBack(d.item, delay) })
}

func (d *delivery) answer(ctx context.Context, verb string, do func()) error {
	b := d.feed.b
	b.mu.Lock()
	defer b.mu.Unlock()
	op := b.op(verb)
	switch {
	case ctx.Err() != nil:
		return fault.FromContext(op, ctx, "its turn")
	case b.closed:
		return fault.New(op, fault.Shutdown, "the broker is closed")
	case d.item.holder != d:
		return fault.New(op, fault.AckUnknown, "message %s was settled, given back or delivered again before", d.item.e.message.ID)
	}
	do()
	return nil
}
