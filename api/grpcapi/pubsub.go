package grpcapi

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

type pubsubServer struct {
	sidecastv1.UnimplementedPubSubServer
	pubsub *blocks.PubSub
}

// drafted is what PublishRequest and PublishBatchEntry have in common.
type drafted interface {
	GetData() []byte
	GetContentType() string
	GetMetadata() map[string]string
	GetPartitionKey() string
	GetDelay() *durationpb.Duration
	GetRaw() bool
}

func draftOf(ctx context.Context, in drafted) blocks.Draft {
	draft := blocks.Draft{
		Data: in.GetData(), ContentType: in.GetContentType(), Header: call.HeaderOf(in.GetMetadata()),
		Key: in.GetPartitionKey(), Delay: in.GetDelay().AsDuration(), Raw: in.GetRaw(),
	}
	carryTrace(ctx, &draft.Header)
	return draft
}

func (s *pubsubServer) Publish(ctx context.Context, in *sidecastv1.PublishRequest) (*sidecastv1.PublishResponse, error) {
	id, err := s.pubsub.Publish(ctx, in.GetPubsubName(), in.GetTopic(), draftOf(ctx, in))
	if err != nil {
		return nil, err
	}
	return &sidecastv1.PublishResponse{Id: id}, nil
}

func (s *pubsubServer) PublishBatch(ctx context.Context, in *sidecastv1.PublishBatchRequest) (*sidecastv1.PublishBatchResponse, error) {
	names := make(map[string]struct{}, len(in.GetEntries()))
	drafts := make([]blocks.Draft, len(in.GetEntries()))
	for i, entry := range in.GetEntries() {
		if _, twice := names[entryID(i, entry)]; twice {
			return nil, fault.New("publish "+in.GetTopic(), fault.BadRequest, "entry_id %q occurs twice", entryID(i, entry))
		}
		names[entryID(i, entry)] = struct{}{}
		drafts[i] = draftOf(ctx, entry)
	}
	results, err := s.pubsub.PublishBatch(ctx, in.GetPubsubName(), in.GetTopic(), drafts)
	if err != nil {
		return nil, err
	}
	out := &sidecastv1.PublishBatchResponse{Results: make([]*sidecastv1.PublishBatchResult, len(results))}
	for i, result := range results {
		out.Results[i] = &sidecastv1.PublishBatchResult{EntryId: entryID(i, in.GetEntries()[i])}
		if result.Err != nil {
			out.Results[i].Error = faultgrpc.ToProto(result.Err)
			continue
		}
		out.Results[i].Id = result.ID
	}
	return out, nil
}

func entryID(i int, entry *sidecastv1.PublishBatchEntry) string {
	if id := entry.GetEntryId(); id != "" {
		return id
	}
	return strconv.Itoa(i)
}

func (s *pubsubServer) Subscribe(stream sidecastv1.PubSub_SubscribeServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetOpen() == nil {
		return fault.New("subscribe", fault.BadRequest, "the first message must be `open`, naming the topic")
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	sub := newSubscriber(stream, ctx.Done())
	// Both end with the RPC: gRPC lets go of a blocked Recv or Send when this handler has returned.
	go func() { cancel(sub.listen()) }()
	go func() { cancel(sub.speak()) }()
	err = s.pubsub.Subscribe(ctx, subscriptionOf(first.GetOpen()), sub, sub.opened)
	if err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, io.EOF) { // which is a subscriber that has said all
		return cause
	}
	return nil
}

func subscriptionOf(in *sidecastv1.Subscription) appchannel.Subscription {
	return appchannel.Subscription{
		PubSub: in.GetPubsubName(), Topic: in.GetTopic(), Group: in.GetGroup(), Route: in.GetRoute(),
		DeadLetterTopic: in.GetDeadLetterTopic(), MaxDeliveries: int(in.GetMaxDeliveries()),
		AckWait: in.GetAckWait().AsDuration(), Raw: in.GetRaw(), OnlyNew: in.GetOnlyNew(),
	}
}

// maxCredit bounds the credit that a subscriber may have unused.
const maxCredit = 1 << 16

// subscriber is a Sink that hands events to a stream and matches the answers.
type subscriber struct {
	stream sidecastv1.PubSub_SubscribeServer
	gone   <-chan struct{}                    // closed when no more answers can come
	frames chan *sidecastv1.SubscribeResponse // taken by speak, which alone waits for a subscriber that does not read

	mu      sync.Mutex
	credit  int
	more    chan struct{}                      // signalled when credit grows
	waiting map[string]chan appchannel.Outcome // nil for an answer that comes too late to be waited for
	last    uint64
}

var _ blocks.Ordered = (*subscriber)(nil)

func newSubscriber(stream sidecastv1.PubSub_SubscribeServer, gone <-chan struct{}) *subscriber {
	return &subscriber{
		stream: stream, gone: gone, frames: make(chan *sidecastv1.SubscribeResponse),
		more: make(chan struct{}, 1), waiting: map[string]chan appchannel.Outcome{},
	}
}

func (s *subscriber) opened(group string) {
	opened := &sidecastv1.SubscribeResponse{
		Frame: &sidecastv1.SubscribeResponse_Opened{Opened: &sidecastv1.SubscriptionOpened{Group: group}},
	}
	select {
	case s.frames <- opened:
	case <-s.gone:
	}
}

// speak sends frames until the stream ends.
func (s *subscriber) speak() error {
	for {
		select {
		case frame := <-s.frames:
			if err := s.stream.Send(frame); err != nil {
				return err
			}
		case <-s.gone:
			return nil
		}
	}
}

// listen takes credits and answers until the stream ends.
func (s *subscriber) listen() error {
	for {
		frame, err := s.stream.Recv()
		if err != nil {
			return err // io.EOF when the subscriber has closed its side
		}
		switch frame := frame.GetFrame().(type) {
		case *sidecastv1.SubscribeRequest_Credit:
			if frame.Credit <= 0 || !s.grant(int(frame.Credit)) {
				return fault.New("subscribe", fault.BadRequest, "credit %d: it must be positive, and at most %d may be unused", frame.Credit, maxCredit)
			}
		case *sidecastv1.SubscribeRequest_Ack:
			if err := s.answered(frame.Ack); err != nil {
				return err
			}
		default:
			return fault.New("subscribe", fault.BadRequest, "after the first message send `credit` or `ack`")
		}
	}
}

func (s *subscriber) grant(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit+n > maxCredit {
		return false
	}
	s.add(n)
	return true
}

// add needs s.mu.
func (s *subscriber) add(n int) {
	s.credit += n
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *subscriber) answered(ack *sidecastv1.EventAck) error {
	outcome, err := outcomeOf(ack)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	reply, ok := s.waiting[ack.GetDeliveryId()]
	if !ok {
		return fault.New("subscribe", fault.AckUnknown, "no delivery %q waits for an answer: each is answered once", ack.GetDeliveryId())
	}
	delete(s.waiting, ack.GetDeliveryId())
	if reply != nil {
		reply <- outcome
	}
	return nil
}

func outcomeOf(ack *sidecastv1.EventAck) (appchannel.Outcome, error) {
	outcome := appchannel.Outcome{Delay: ack.GetDelay().AsDuration(), Reason: ack.GetReason()}
	switch ack.GetStatus() {
	case sidecastv1.EventStatus_EVENT_STATUS_UNSPECIFIED, sidecastv1.EventStatus_EVENT_STATUS_SUCCESS:
		outcome.Verdict = appchannel.Success
	case sidecastv1.EventStatus_EVENT_STATUS_RETRY:
		outcome.Verdict = appchannel.Retry
	case sidecastv1.EventStatus_EVENT_STATUS_DROP:
		outcome.Verdict = appchannel.Drop
	default: // of a newer protocol, perhaps: anything but success
		return outcome, fault.New("subscribe", fault.BadRequest, "status %d of delivery %q does not exist", ack.GetStatus(), ack.GetDeliveryId())
	}
	return outcome, nil
}

// Take waits for credit and takes up to most of it.
func (s *subscriber) Take(ctx context.Context, most int) (int, error) {
	for {
		s.mu.Lock()
		n := min(s.credit, most)
		s.credit -= n
		s.mu.Unlock()
		if n > 0 {
			return n, nil
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return 0, fault.FromContext("subscribe", ctx, "credit")
		}
	}
}

// Return gives credit back.
func (s *subscriber) Return(n int) {
	if n > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.add(n)
	}
}

// Deliver sends one event and waits for its answer.
func (s *subscriber) Deliver(ctx context.Context, event *appchannel.Event) (appchannel.Outcome, error) {
	return s.DeliverNext(ctx, event, func() {})
}

// DeliverNext is Deliver that tells when the event has its place on the stream.
func (s *subscriber) DeliverNext(ctx context.Context, event *appchannel.Event, sent func()) (appchannel.Outcome, error) {
	op := "deliver " + event.Topic
	reply := make(chan appchannel.Outcome, 1)
	id := s.expect(reply)
	frame := &sidecastv1.SubscribeResponse{Frame: &sidecastv1.SubscribeResponse_Event{Event: eventOf(id, event)}}
	select {
	case s.frames <- frame:
		sent()
	case <-s.gone:
		return appchannel.Outcome{}, gone(op)
	case <-ctx.Done():
		s.forget(id, false)
		s.Return(1)
		return appchannel.Outcome{}, fault.FromContext(op, ctx, "the subscriber to read what was sent to it before")
	}
	select {
	case outcome := <-reply:
		return outcome, nil
	case <-s.gone:
		select {
		case outcome := <-reply: // its last word before it went
			return outcome, nil
		default:
			return appchannel.Outcome{}, gone(op)
		}
	case <-ctx.Done():
		s.forget(id, true)
		return appchannel.Outcome{}, fault.FromContext(op, ctx, "the subscriber's answer")
	}
}

// gone is the answer of a subscriber that went away without one.
func gone(op string) error {
	return fault.New(op, fault.CallCanceled, "the subscriber went away before it answered")
}

// expect gives a delivery its id.
func (s *subscriber) expect(reply chan appchannel.Outcome) (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	id = strconv.FormatUint(s.last, 10)
	s.waiting[id] = reply
	return id
}

// forget waits for a delivery's answer no more. One that was sent may be answered still: that is late, not wrong.
func (s *subscriber) forget(id string, sent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !sent {
		delete(s.waiting, id)
	} else if _, ok := s.waiting[id]; ok {
		s.waiting[id] = nil
	}
}

func eventOf(delivery string, e *appchannel.Event) *sidecastv1.Event {
	return &sidecastv1.Event{
		DeliveryId: delivery, Id: e.ID, PubsubName: e.PubSub, Topic: e.Topic, Data: e.Data, ContentType: e.ContentType,
		Source: e.Source, Type: e.Type, Subject: e.Subject, Time: timestamppb.New(e.Time), Metadata: e.Header.Map(),
		PartitionKey: e.Key, Delivery: int32(e.Delivery), Route: e.Route,
	}
}
