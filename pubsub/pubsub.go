// Package pubsub is the contract between the PubSub block and its backends. A Broker stores messages by topic and hands
// them out by consumer group, by pull: a backend never holds a message that nobody asked for. Envelopes, lanes, dead
// letters and back-off are the block's. What every backend promises is checked by pubsub/pubsubtest.
package pubsub

import (
	"context"
	"maps"
	"strings"
	"time"
)

// Broker moves messages. All methods may be called concurrently.
type Broker interface {
	// Publish stores messages in order and returns a result for each: nil when the message is as durable as the backend
	// documents. The slice has the length of messages.
	Publish(ctx context.Context, topic string, messages []Message) []error
	// Subscribe makes sure that the group exists and returns a feed of its messages. What is published after Subscribe
	// returns is delivered to the group even if the feed is closed and another one opened later.
	Subscribe(ctx context.Context, topic string, group Group) (Feed, error)
	// Close ends all feeds and returns when nothing of the broker is running any more.
	Close(ctx context.Context) error
}

// Message is what a publisher stores.
type Message struct {
	// ID is unique; a backend that can drop duplicates does so by it.
	ID string
	// Key orders: messages of one key are delivered one at a time, in the order they were stored, redeliveries included;
	// across all feeds of a group. Empty: no order.
	Key string
	// Data is the payload as the block made it: a CloudEvent in JSON, or raw bytes.
	Data []byte
	// ContentType is the media type of Data.
	ContentType string
	// Header holds metadata that travels beside Data.
	Header map[string]string
	// Delay keeps the message from being delivered until it has passed.
	Delay time.Duration
	// Metadata is what the publisher tells the backend itself, which passes over what it does not know. Where Dapr's broker of
	// the same name delivers it, as those do that have room for it beside Data, it comes as Header: see Beside.
	Metadata map[string]string
}

// Beside is all that travels beside the data of m: its Header and, under names that are not there in any case of letters, its
// Metadata. It is the caller's, and nil where both are.
func Beside(m *Message) map[string]string {
	if m.Header == nil && m.Metadata == nil {
		return nil
	}
	all := make(map[string]string, len(m.Header)+len(m.Metadata)+4)
	maps.Copy(all, m.Header)
	for name, value := range m.Metadata {
		if _, raw := m.Header[strings.ToLower(name)]; !raw { // a raw event has in its header what it has as metadata
			all[name] = value
		}
	}
	return all
}

// LetterPrefix begins the names of the headers that a dead letter has beside those of its message. They and what is added to
// its ID have up to LetterRoom bytes: a broker that limits the size of messages leaves that much free for them, so that what
// it once took can become a dead letter.
const (
	LetterPrefix = "sidecast-dead-letter-"
	LetterRoom   = 8 << 10
)

// Group is a consumer group: each message goes to one of its feeds.
type Group struct {
	// Name is the app id unless the subscription says otherwise.
	Name string
	// AckWait is how long a delivery may go without Settle or Extend before the message is delivered again.
	AckWait time.Duration
	// OnlyNew starts a new group at what is published from now on, not at the oldest message kept.
	OnlyNew bool
	// MaxInFlight is the most deliveries out at once over all feeds of the group; 0 means the backend's default.
	MaxInFlight int
	// Metadata is what the subscription tells the backend itself, which passes over what it does not know.
	Metadata map[string]string
}

// Feed is one consumer's view of a group. Next is called by one goroutine; deliveries are settled by any.
type Feed interface {
	// Next waits for at least one delivery and returns at most n: never more than were asked for, and nothing is buffered
	// beyond them. It fails when ctx ends or the feed is closed; a lost connection is healed inside where that is possible,
	// otherwise Next fails with fault.Unavailable and the caller subscribes again.
	Next(ctx context.Context, n int) ([]Delivery, error)
	// Close stops the feed. Deliveries that are not settled are delivered again, at once where the backend can.
	Close(ctx context.Context) error
}

// Delivery is one delivery of a message.
type Delivery interface {
	Message() *Message
	// Attempt is 1 at the first delivery to the group.
	Attempt() int
	// Stored is when the message was stored.
	Stored() time.Time
	// Extend restarts the ack wait: the handler is still at work.
	Extend(ctx context.Context) error
	// Ack ends the message for the group.
	Ack(ctx context.Context) error
	// Retry gives the message back, to be delivered again after delay.
	Retry(ctx context.Context, delay time.Duration) error
}

// Immediate is a Broker whose messages are handed over as they come, also where several go together: it may give out none
// before the one before is settled.
type Immediate interface {
	Immediate() bool
}

// Unreadable is a Delivery of a broker that reads its messages in a format of their own. A message that is none of that format
// is delivered with the bytes that it has, to become a dead letter: the app does not get it.
type Unreadable interface {
	// Unreadable says why the message is not of its format; nil if it is.
	Unreadable() error
}
