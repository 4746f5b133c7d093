// Package natspubsub is the Broker on NATS JetStream, the default of the product: type `pubsub.jetstream`.
//
// # What is stored
//
// A component has one stream, `sc~<namespace>~ps~<component>`. A message without a key is stored under
// `sc.<ns>.ps.<component>.<topic>.free`, one with a key under `….k.<n>`, where n is xxh3(key) modulo the number of
// partitions. Publish answers when the server has stored the message:
//
//   - Embedded fabric: the message is in the operating system's hands, so it survives the SIGKILL of every process. With
//     the fabric's SyncAlways it is on the disk and survives a power loss too.
//   - Remote fabric: it is stored by a majority of the stream's replicas, as that cluster stores.
//
// Messages stay for maxAge, whether consumed or not, so that a new group can start at the oldest. A stream with a
// maxBytes refuses new messages when it is full (JETSTREAM_EXHAUSTED) and never drops one that is younger than maxAge.
// Within two minutes, a second message of the same ID and topic is taken for the first. Delayed messages are schedules of
// the server (ADR-51): they need NATS 2.12, a stream without maxBytes, and fire by the server's clock, up to a quarter of
// a second late; a delayed message takes its place in the order of its key when it fires.
//
// A message is as large as the server's max_payload allows, less 8 KiB for what a dead letter has in its header: 8 MiB on the
// embedded fabric. Larger ones are refused (BODY_TOO_LARGE).
//
// # How it is delivered
//
// A group is one durable pull consumer of the unkeyed messages, and, once its topic has seen a keyed one, a durable
// consumer per partition with MaxAckPending 1: whoever pulls next gets the next message, but only when the one before it
// is settled. So order per key holds across all feeds of a group, and keys of different partitions run in parallel; a
// message given back for later holds up its partition until then. A group with a MaxInFlight below twice the partitions
// has fewer, wider consumers, so that the limit holds over all of them.
//
// A feed asks the server for exactly the credits at hand: every pull is counted until it is filled or the server says
// that it ended, and the sum never exceeds what Next was given. Unkeyed messages wait in one long pull. Partitions cannot
// share a credit, and sixteen idle ones must not hold sixteen credits, so they are asked only when there is reason to:
// the stream republishes each keyed message without its data to a bell, `sc.<ns>.bell.<component>.<topic>.<n>`, that
// waiting feeds listen to. The last delivery's count of pending messages, and a slow sweep, do the rest. When all
// credits wait for unkeyed messages and a partition rings, or when Next asks for less than before, or stays away, the
// feed recalls its credits: it drains the inbox that the pulls answer to, and asks anew from another one. After a
// reconnect it does the same, so a pull that survived in the server is never counted twice. A message that the server was
// sending at the very moment of a recall may come as attempt 2 without anyone having seen attempt 1.
//
// Credits count messages, and large ones are bounded by bytes as well: a feed that holds 64 MiB unsettled asks for no more.
//
// Settlements are sent, not awaited: one that is lost with its connection means a redelivery. A keyed delivery whose ack
// wait has run out can no longer be settled (ACK_UNKNOWN), for by then its successor may depend on the redelivery.
//
// # What it does not promise
//
// Exactly-once delivery. Order between keys, or between messages without one. Order within a batch of which some failed:
// see Publish. That a group's MaxInFlight can be lowered below, or raised from 1 after, what it was made with.
//
//	b, err := natspubsub.Component.Open(ctx, host, map[string]string{"maxAge": "24h"})
//	feed, err := b.(pubsub.Broker).Subscribe(ctx, "orders", pubsub.Group{Name: "billing", AckWait: 30 * time.Second})
package natspubsub

import (
	"cmp"
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	MaxAge     time.Duration    `meta:"maxAge" default:"168h" min:"1s" doc:"How long messages are kept, consumed or not."`
	MaxBytes   components.Bytes `meta:"maxBytes" default:"0" doc:"Size at which the stream refuses new messages; 0 means no limit. A limited stream takes no delayed messages."`
	Partitions int              `meta:"partitions" default:"16" min:"1" max:"256" doc:"How many keys of a topic can be at work at once. Fixed when the stream is made."`
}

// Component makes the backend known to the runtime.
var Component = components.PubSub("jetstream", "Durable topics on the NATS fabric, by JetStream.", open)

var _ pubsub.Broker = (*broker)(nil)

// broker owns the answers' inbox, the feeds and the goroutine that watches the connection. The connection is the host's.
type broker struct {
	host      components.Host
	component string
	config    Config
	names     names
	nc        *nats.Conn
	js        jetstream.JetStream
	acks      acks
	suspicion suspicion
	schedules atomic.Bool   // the server can delay
	ready     atomic.Bool   // the stream exists
	ids       atomic.Uint64 // of delayed messages, after instance
	instance  string

	status  chan nats.Status
	watched sync.WaitGroup

	mu     sync.Mutex
	feeds  map[*feed]struct{}
	closed bool
	link   context.Context // canceled when the connection breaks; then there is a new one
	cut    context.CancelCauseFunc
}

func open(ctx context.Context, host components.Host, c Config) (pubsub.Broker, error) {
	nc, err := host.NATS(ctx)
	if err != nil {
		return nil, err
	}
	b := &broker{
		host: host, component: cmp.Or(host.Component, "pubsub"), config: c, nc: nc,
		feeds: map[*feed]struct{}{}, instance: nats.NewInbox()[len(nats.InboxPrefix):],
	}
	b.link, b.cut = context.WithCancelCause(context.Background())
	b.names = newNames(host.Namespace, b.component, c.Partitions)
	if b.js, err = jetstream.New(nc); err != nil {
		return nil, jsFault(ctx, b.op("open"), err)
	}
	if err := b.ensureStream(ctx); err != nil {
		return nil, err
	}
	b.ready.Store(true)
	if err := b.acks.open(nc); err != nil {
		return nil, jsFault(ctx, b.op("open"), err)
	}
	b.status = nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	b.watched.Go(b.watch)
	return b, nil
}

func (b *broker) op(what string) string { return "pubsub " + b.component + ": " + what }

// unique names a delayed message.
func (b *broker) unique() string { return b.instance + strconv.FormatUint(b.ids.Add(1), 36) }

// usable fails when the broker is closed or the connection down, and makes the stream again if it vanished.
func (b *broker) usable(ctx context.Context, op string) error {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return fault.New(op, fault.Shutdown, "the broker is closed")
	case ctx.Err() != nil:
		return fault.FromContext(op, ctx, "its turn")
	case !b.nc.IsConnected():
		return fault.New(op, fault.FabricDown, "the connection to NATS is down")
	case b.ready.Load():
		return nil
	}
	ctx, done := b.linked(ctx)
	defer done()
	if err := b.ensureStream(ctx); err != nil {
		return err
	}
	b.ready.Store(true)
	return nil
}

// linked returns a context that also ends when the connection breaks: the answer to a request that was on its way then
// never comes.
func (b *broker) linked(ctx context.Context) (context.Context, context.CancelFunc) {
	b.mu.Lock()
	link := b.link
	b.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(link, func() { cancel(context.Cause(link)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// disconnected fails everything that waits for an answer.
func (b *broker) disconnected(cause error) {
	b.mu.Lock()
	b.cut(cause)
	b.link, b.cut = context.WithCancelCause(context.Background())
	b.mu.Unlock()
	b.acks.failAll(cause)
}

// Subscribe opens a feed of the group.
func (b *broker) Subscribe(ctx context.Context, topic string, g pubsub.Group) (pubsub.Feed, error) {
	op := b.op("subscribe " + topic)
	token, err := b.names.topic(op, topic)
	if err != nil {
		return nil, err
	}
	if g.Name == "" {
		return nil, fault.New(op, fault.BadRequest, "the group has no name")
	}
	if err := b.usable(ctx, op); err != nil {
		return nil, err
	}
	ctx, done := b.linked(ctx)
	defer done()
	gr, err := b.openGroup(ctx, op, token, g)
	if err != nil {
		return nil, err
	}
	f, err := newFeed(ctx, gr)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.feeds[f] = struct{}{}
	}
	b.mu.Unlock()
	if closed {
		_ = f.Close(ctx)
		return nil, fault.New(op, fault.Shutdown, "the broker is closed")
	}
	return f, nil
}

// Close ends all feeds and sends what is still to be sent.
func (b *broker) Close(ctx context.Context) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	var first error
	for _, f := range b.all() {
		if err := f.Close(ctx); err != nil && first == nil {
			first = err
		}
	}
	b.acks.failAll(fault.New(b.op("close"), fault.Shutdown, "the broker was closed before the answer came"))
	_ = b.acks.sub.Unsubscribe() // fails only when the connection is closed
	b.nc.RemoveStatusListener(b.status)
	b.watched.Wait()
	b.cut(nil)
	return first
}

func (b *broker) all() []*feed {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]*feed, 0, len(b.feeds))
	for f := range b.feeds {
		all = append(all, f)
	}
	return all
}

func (b *broker) forget(f *feed) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.feeds, f)
}

// watch follows the connection until Close removes the listener.
func (b *broker) watch() {
	down := !b.nc.IsConnected()
	for s := range b.status {
		switch s {
		case nats.CONNECTED:
			if !down {
				continue
			}
			down = false
			for _, f := range b.all() {
				f.reconnected()
			}
		case nats.CLOSED:
			b.disconnected(nats.ErrConnectionClosed)
			for _, f := range b.all() {
				f.fail(fault.New(f.op, fault.FabricDown, "the connection to NATS is closed"))
			}
		default:
			down = true
			b.disconnected(nats.ErrDisconnected)
		}
	}
}
