package natspubsub

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// What the server understands on a delivery's reply subject.
var (
	ack      = []byte("+ACK")
	nak      = []byte("-NAK")
	progress = []byte("+WPI")
)

var _ pubsub.Delivery = (*delivery)(nil)

// delivery is one message in this feed's hands. The fields that change belong to the feed's lock.
type delivery struct {
	feed    *feed
	key     outKey
	message pubsub.Message
	reply   string
	attempt int
	stored  time.Time
	size    int // in bytes, with its header

	until   time.Time // the ack wait's end
	settled bool
}

func (d *delivery) Message() *pubsub.Message { return &d.message }
func (d *delivery) Attempt() int             { return d.attempt }
func (d *delivery) Stored() time.Time        { return d.stored }

// Extend restarts the ack wait at the server.
func (d *delivery) Extend(ctx context.Context) error {
	f := d.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if err := d.check(ctx, "extend", now); err != nil {
		return err
	}
	if err := d.say("extend", progress); err != nil {
		return err
	}
	d.until = now.Add(f.group.ackWait)
	f.dealer.extended(d.key.source, d.until)
	return nil
}

// Ack ends the message for the group.
func (d *delivery) Ack(ctx context.Context) error { return d.settle(ctx, "ack", ack, time.Time{}) }

// Retry gives the message back.
func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	if delay <= 0 {
		return d.settle(ctx, "retry", nak, time.Now())
	}
	word := strconv.AppendInt([]byte(`-NAK {"delay":`), int64(delay), 10)
	return d.settle(ctx, "retry", append(word, '}'), time.Now().Add(delay))
}

// settle sends word before the dealer learns of it: on one connection the server sees it before any pull that follows.
func (d *delivery) settle(ctx context.Context, verb string, word []byte, retry time.Time) error {
	f := d.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := d.check(ctx, verb, time.Now()); err != nil {
		return err
	}
	if err := d.say(verb, word); err != nil {
		return err
	}
	d.done(retry)
	f.signal()
	return nil
}

func (d *delivery) done(retry time.Time) {
	d.settled = true
	if d.feed.out[d.key] == d {
		delete(d.feed.out, d.key)
		d.feed.held -= d.size
	}
	d.feed.dealer.settled(d.key.source, retry)
}

// check refuses what comes too late. A message without a key may still be ended after its wait, which spares others the
// redelivery.
func (d *delivery) check(ctx context.Context, verb string, now time.Time) error {
	switch {
	case ctx.Err() != nil:
		return fault.FromContext(d.op(verb), ctx, "its turn")
	case d.settled:
		return fault.New(d.op(verb), fault.AckUnknown, "message %s was settled, given back or delivered again before", d.message.ID)
	case d.message.Key != "" && now.After(d.until):
		return fault.New(d.op(verb), fault.AckUnknown, "the ack wait of message %s ran out; it is delivered again", d.message.ID)
	}
	return nil
}

func (d *delivery) say(verb string, word []byte) error {
	if err := d.feed.b.nc.Publish(d.reply, word); err != nil {
		return fault.E(d.op(verb), fault.Unavailable, fault.BackendDown, fmt.Errorf("message %s: %w", d.message.ID, err))
	}
	return nil
}

func (d *delivery) op(verb string) string { return d.feed.b.op(verb) }

// giveBack returns a delivery to the group without its holder's word, and rings for it: other feeds cannot see that its
// partition is free again. Errors mean that the connection is gone; then the ack wait does the same.
func (f *feed) giveBack(d *delivery) {
	if d.settled || time.Now().After(d.until) { // the server has given it back already
		return
	}
	_ = f.b.nc.Publish(d.reply, nak)
	if d.message.Key != "" {
		_ = f.b.nc.Publish(f.b.names.bellOf(f.group.topic, f.b.names.partitionOf(d.message.Key)), nil)
	}
	d.done(time.Now())
}
