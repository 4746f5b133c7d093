package sidecast

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// PublishOption changes one event.
type PublishOption interface {
	publish(*sidecastv1.PublishRequest)
}

type publishOption func(*sidecastv1.PublishRequest)

func (o publishOption) publish(r *sidecastv1.PublishRequest) { o(r) }

// Key orders: events of one key are delivered in the order they were stored, one at a time in a group.
func Key(key string) PublishOption {
	return publishOption(func(r *sidecastv1.PublishRequest) { r.PartitionKey = key })
}

// Delay keeps the event from being delivered until d after it was stored.
func Delay(d time.Duration) PublishOption {
	return publishOption(func(r *sidecastv1.PublishRequest) { r.Delay = durationpb.New(d) })
}

// ID is the event's id; without it the sidecar makes one.
func ID(id string) PublishOption { return Metadata("cloudevent.id", id) }

// PubSub names the pub/sub component; without it the default one is used.
func PubSub(name string) interface {
	PublishOption
	SubscribeOption
} {
	return component(name)
}

type component string

func (c component) publish(r *sidecastv1.PublishRequest) { r.PubsubName = string(c) }
func (c component) subscribe(s *Subscription)            { s.PubSub = string(c) }

// Raw stores or delivers payloads as they are, without a CloudEvents envelope.
func Raw() interface {
	PublishOption
	SubscribeOption
} {
	return raw{}
}

type raw struct{}

func (raw) publish(r *sidecastv1.PublishRequest) { r.Raw = true }
func (raw) subscribe(s *Subscription)            { s.Raw = true }

// Publish stores one event and returns its id. When it returns, the event is as durable as the component documents.
func (c *Client) Publish(ctx context.Context, topic string, data []byte, options ...PublishOption) (id string, err error) {
	r := publishOf(topic, data, options)
	answer, err := c.pubsub.Publish(ctx, r)
	if err != nil {
		return "", err
	}
	return answer.GetId(), nil
}

// PublishJSON is Publish with value as JSON.
func (c *Client) PublishJSON(ctx context.Context, topic string, value any, options ...PublishOption) (id string, err error) {
	data, err := json.Marshal(value)
	if err != nil {
		return "", fault.E("publish "+topic, fault.Invalid, fault.BadRequest, err)
	}
	return c.Publish(ctx, topic, data, append([]PublishOption{ContentType(jsonType)}, options...)...)
}

func publishOf(topic string, data []byte, options []PublishOption) *sidecastv1.PublishRequest {
	r := &sidecastv1.PublishRequest{Topic: topic, Data: data}
	for _, o := range options {
		o.publish(r)
	}
	return r
}

// Message is one event of a batch. Its options are those of Publish; the component is the batch's.
type Message struct {
	Data    []byte
	Options []PublishOption
}

// Result is what became of one event of a batch.
type Result struct {
	ID  string
	Err error
}

// PublishBatch stores events in order, at most 1000, and says for each whether it was stored. Of the options only PubSub
// counts.
func (c *Client) PublishBatch(ctx context.Context, topic string, messages []Message, options ...PublishOption) ([]Result, error) {
	r := &sidecastv1.PublishBatchRequest{PubsubName: publishOf(topic, nil, options).PubsubName, Topic: topic}
	for _, m := range messages {
		e := publishOf(topic, m.Data, m.Options)
		r.Entries = append(r.Entries, &sidecastv1.PublishBatchEntry{
			Data: e.Data, ContentType: e.ContentType, Metadata: e.Metadata, PartitionKey: e.PartitionKey, Delay: e.Delay, Raw: e.Raw,
		})
	}
	answer, err := c.pubsub.PublishBatch(ctx, r)
	if err != nil {
		return nil, err
	}
	results := make([]Result, len(answer.GetResults()))
	for i, result := range answer.GetResults() {
		results[i] = Result{ID: result.GetId(), Err: faultgrpc.FromProto(result.GetError())}
	}
	return results, nil
}

// Event is one delivery of an event.
type Event struct {
	// ID is the same at each delivery.
	ID, PubSub, Topic string
	// Data is the payload, without its envelope.
	Data        []byte
	ContentType string
	// Source, Type, Subject and Time are those of the CloudEvent; empty for raw events.
	Source, Type, Subject string
	Time                  time.Time
	// Metadata holds CloudEvent extensions, or the header fields of a raw event.
	Metadata map[string]string
	// Key is the partition key, Delivery 1 at the first delivery to the group.
	Key      string
	Delivery int
}

// JSON reads the payload into value.
func (e *Event) JSON(value any) error {
	if err := json.Unmarshal(e.Data, value); err != nil {
		return fault.New("event "+e.ID, fault.BadRequest, "the payload is not the JSON expected: %w", err)
	}
	return nil
}

func eventOf(e *sidecastv1.Event) *Event {
	event := &Event{
		ID: e.GetId(), PubSub: e.GetPubsubName(), Topic: e.GetTopic(), Data: e.GetData(), ContentType: e.GetContentType(),
		Source: e.GetSource(), Type: e.GetType(), Subject: e.GetSubject(), Metadata: e.GetMetadata(),
		Key: e.GetPartitionKey(), Delivery: int(e.GetDelivery()),
	}
	if e.GetTime() != nil {
		event.Time = e.Time.AsTime()
	}
	return event
}

// EventHandler handles an event. nil ends the event for the group; Drop sends it to the dead-letter topic; any other error
// has it delivered again, after a pause that RetryAfter chooses or else the policy.
type EventHandler = func(ctx context.Context, event *Event) error

// Drop is the error of an event that cannot be handled, now or later.
func Drop(err error) error { return &outcome{err: err, drop: true} }

// RetryAfter is the error of an event that shall be delivered again no sooner than after d.
func RetryAfter(d time.Duration, err error) error { return &outcome{err: err, delay: d} }

type outcome struct {
	err   error
	drop  bool
	delay time.Duration
}

func (o *outcome) Error() string {
	if o.err == nil {
		return "the handler gave no reason"
	}
	return o.err.Error()
}

func (o *outcome) Unwrap() error { return o.err }

// ackOf is what a handler's error says about its event.
func ackOf(err error) (status sidecastv1.EventStatus, delay *durationpb.Duration, reason string) {
	if err == nil {
		return sidecastv1.EventStatus_EVENT_STATUS_SUCCESS, nil, ""
	}
	reason = text(err)
	var o *outcome
	if !errors.As(err, &o) {
		return sidecastv1.EventStatus_EVENT_STATUS_RETRY, nil, reason
	}
	if o.drop {
		return sidecastv1.EventStatus_EVENT_STATUS_DROP, nil, reason
	}
	return sidecastv1.EventStatus_EVENT_STATUS_RETRY, durationpb.New(max(0, o.delay)), reason
}

// Subscription says which events a subscriber wants and how.
type Subscription struct {
	// PubSub is the component; "" is the default one. Topic is required. Group is the consumer group; "" is the app id.
	PubSub, Topic, Group string
	// DeadLetter is the topic that takes what was dropped or delivered MaxDeliveries times in vain; "" means none.
	DeadLetter string
	// MaxDeliveries is 5 if 0 with a dead-letter topic, without limit if 0 without.
	MaxDeliveries int
	// AckWait is how long a delivery may go unanswered once its handler is gone; 10 s if 0.
	AckWait time.Duration
	// Raw delivers payloads as they are stored; OnlyNew starts a new group at what comes from now on.
	Raw, OnlyNew bool
	// Concurrency is how many events Subscribe handles at a time; 16 if 0. OnEvent shares the concurrency of Serve.
	Concurrency int
}

func (s *Subscription) proto() *sidecastv1.Subscription {
	p := &sidecastv1.Subscription{
		PubsubName: s.PubSub, Topic: s.Topic, Group: s.Group, DeadLetterTopic: s.DeadLetter,
		MaxDeliveries: int32(s.MaxDeliveries), Raw: s.Raw, OnlyNew: s.OnlyNew,
	}
	if s.AckWait > 0 {
		p.AckWait = durationpb.New(s.AckWait)
	}
	return p
}

// Subscribe handles events of a topic until ctx ends; then it lets running handlers end, answers their events and returns
// nil. A subscription that breaks is opened again for as long as ctx lives and the client is not closed; one that the
// sidecar refuses as invalid, denied or unsupported fails at once.
func (c *Client) Subscribe(ctx context.Context, s Subscription, handler EventHandler) error {
	if s.Concurrency <= 0 {
		s.Concurrency = 16
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		opened, err := c.subscribe(ctx, &s, handler)
		if ctx.Err() != nil {
			return nil
		}
		switch fault.KindOf(err) {
		case fault.Invalid, fault.Denied, fault.Unsupported:
			return err
		}
		if c.closed() {
			return err
		}
		if opened {
			pause = firstPause
		}
		c.log.Warn("subscription broke; opening it again", "topic", s.Topic, "error", err, "after", pause)
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// subscribe handles events until the stream breaks or ctx ends. Opened tells whether the subscription was in place.
func (c *Client) subscribe(ctx context.Context, s *Subscription, handler EventHandler) (opened bool, err error) {
	// The stream outlives ctx, so that events whose handlers still run can be answered.
	streaming, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	wire, err := c.pubsub.Subscribe(streaming)
	if err != nil {
		return false, err
	}
	var sending sync.Mutex
	send := func(frames ...*sidecastv1.SubscribeRequest) {
		sending.Lock()
		defer sending.Unlock()
		for _, frame := range frames {
			_ = wire.Send(frame) // a stream that has ended tells why to Recv
		}
	}
	credit := func(n int) *sidecastv1.SubscribeRequest {
		return &sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Credit{Credit: int32(n)}}
	}
	send(&sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Open{Open: s.proto()}}, credit(s.Concurrency))

	var handlers sync.WaitGroup
	draining := false // guarded by sending
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		sending.Lock()
		draining = true
		sending.Unlock()
		handlers.Wait()
		sending.Lock()
		defer sending.Unlock()
		_ = wire.CloseSend() // the sidecar ends the stream once it has read the last answer
		time.AfterFunc(goodbye, cancel)
	})
	defer func() {
		cancel()
		if !stop() {
			<-drained
		}
		handlers.Wait()
	}()
	for {
		frame, err := wire.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = fault.New("subscribe "+s.Topic, fault.StreamBroken, "the sidecar ended the subscription")
			}
			return opened, failed("subscribe "+s.Topic, err)
		}
		opened = opened || frame.GetOpened() != nil
		event := frame.GetEvent()
		sending.Lock()
		wanted := event != nil && !draining // what comes later goes back unanswered
		if wanted {
			handlers.Add(1)
		}
		sending.Unlock()
		if !wanted {
			continue
		}
		go func() {
			defer handlers.Done()
			status, delay, reason := ackOf(c.handleEvent(streaming, handler, eventOf(event)))
			ack := &sidecastv1.EventAck{DeliveryId: event.GetDeliveryId(), Status: status, Delay: delay, Reason: reason}
			send(&sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Ack{Ack: ack}}, credit(1))
		}()
	}
}

// handleEvent runs a handler and contains its panic.
func (c *Client) handleEvent(ctx context.Context, handler EventHandler, event *Event) (err error) {
	defer c.contain("event of", event.Topic, &err)
	if t, ok := trailOf(event.Metadata); ok {
		ctx = context.WithValue(ctx, trailKey{}, t)
	}
	return handler(ctx, event)
}
