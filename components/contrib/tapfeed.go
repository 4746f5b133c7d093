package contrib

import (
	"context"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// feed is a feed of the memory broker whose deliveries show what the server sent.
type feed struct {
	pubsub.Feed
	t    *tap
	once sync.Once
}

// Next implements pubsub.Feed.
func (f *feed) Next(ctx context.Context, n int) ([]pubsub.Delivery, error) {
	for {
		ds, err := f.Feed.Next(ctx, n)
		kept := ds[:0]
		for _, d := range ds {
			if h := f.t.deliver(d.Message().ID); h != nil {
				kept = append(kept, &delivery{Delivery: d, t: f.t, h: h})
			} else {
				_ = d.Ack(context.WithoutCancel(ctx)) // fails when the feed closes, and the message is gone all the same
			}
		}
		if err != nil || len(kept) > 0 {
			return kept, err
		}
	}
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

// Unreadable implements pubsub.Unreadable.
func (d *delivery) Unreadable() error { return d.h.unreadable }

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
	err := d.settle(d.Delivery.Retry(ctx, delay))
	if err == nil {
		d.t.rest(d.h)
	}
	return err
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
