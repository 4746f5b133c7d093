package grpcapi

import (
	"context"
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
	go func() { cancel(sub.listen()) }() // ends with the RPC: Recv returns when this handler has
	err = s.pubsub.Subscribe(ctx, subscriptionOf(first.GetOpen()), sub, sub.opened)
	if err == nil && stream.Context().Err() == nil {
		err = context.Cause(ctx)
	}
	return err
}

func subscriptionOf(in *sidecastv1.Subscription) appchannel.Subscription {
	return appchannel.Subscription{
		PubSub: in.GetPubsubName(), Topic: in.GetTopic(), Group: in.GetGroup(), Route: in.GetRoute(),
		DeadLetterTopic: in.GetDeadLetterTopic(), MaxDeliveries: int(in.GetMaxDeliveries()),
		AckWait: in.GetAckWait().AsDuration(), Raw: in.GetRaw(), OnlyNew: in.GetOnlyNew(),
	}
}

// maxCredit bounds the events that a subscriber may have open at once.
const maxCredit = 1 << 16

// subscriber is a Sink that hands events to a stream and matches the answers.
type subscriber struct {
	stream sidecastv1.PubSub_SubscribeServer
	gone   <-chan struct{} // closed when no more answers can come
	send   sync.Mutex

	mu      sync.Mutex
	credit  int
	more    chan struct{} // signalled when credit grows
	waiting map[string]chan appchannel.Outcome
	last    uint64
}

var _ blocks.Sink = (*subscriber)(nil)

func newSubscriber(stream sidecastv1.PubSub_SubscribeServer, gone <-chan struct{}) *subscriber {
	return &subscriber{stream: stream, gone: gone, more: make(chan struct{}, 1), waiting: map[string]chan appchannel.Outcome{}}
}

func (s *subscriber) opened(group string) {
	_ = s.write(&sidecastv1.SubscribeResponse{ // a stream that broke shows in listen
		Frame: &sidecastv1.SubscribeResponse_Opened{Opened: &sidecastv1.SubscriptionOpened{Group: group}},
	})
}

func (s *subscriber) write(frame *sidecastv1.SubscribeResponse) error {
	s.send.Lock()
	defer s.send.Unlock()
	return s.stream.Send(frame)
}

// listen takes credits and answers until the stream ends.
func (s *subscriber) listen() error {
	for {
		frame, err := s.stream.Recv()
		if err != nil {
			return context.Canceled // the subscriber has gone
		}
		switch frame := frame.GetFrame().(type) {
		case *sidecastv1.SubscribeRequest_Credit:
			if frame.Credit <= 0 || !s.grant(int(frame.Credit)) {
				return fault.New("subscribe", fault.BadRequest, "credit %d: it must be positive, and at most %d may be open", frame.Credit, maxCredit)
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
	s.credit += n
	select {
	case s.more <- struct{}{}:
	default:
	}
	return true
}

func (s *subscriber) answered(ack *sidecastv1.EventAck) error {
	s.mu.Lock()
	reply, ok := s.waiting[ack.GetDeliveryId()]
	delete(s.waiting, ack.GetDeliveryId())
	s.mu.Unlock()
	if !ok {
		return fault.New("subscribe", fault.AckUnknown, "no delivery %q waits for an answer: each is answered once", ack.GetDeliveryId())
	}
	reply <- outcomeOf(ack)
	return nil
}

func outcomeOf(ack *sidecastv1.EventAck) appchannel.Outcome {
	outcome := appchannel.Outcome{Delay: ack.GetDelay().AsDuration(), Reason: ack.GetReason()}
	switch ack.GetStatus() {
	case sidecastv1.EventStatus_EVENT_STATUS_RETRY:
		outcome.Verdict = appchannel.Retry
	case sidecastv1.EventStatus_EVENT_STATUS_DROP:
		outcome.Verdict = appchannel.Drop
	}
	return outcome
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
		s.grant(n)
	}
}

// Deliver sends one event and waits for its answer; one that never comes means the event is delivered again.
func (s *subscriber) Deliver(ctx context.Context, event *appchannel.Event) (appchannel.Outcome, error) {
	reply := make(chan appchannel.Outcome, 1)
	s.mu.Lock()
	s.last++
	id := strconv.FormatUint(s.last, 10)
	s.waiting[id] = reply
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.waiting, id)
		s.mu.Unlock()
	}()
	err := s.write(&sidecastv1.SubscribeResponse{Frame: &sidecastv1.SubscribeResponse_Event{Event: eventOf(id, event)}})
	if err != nil {
		return appchannel.Outcome{}, fault.E("deliver "+event.Topic, fault.Unavailable, fault.AppNotConnected, err)
	}
	select {
	case outcome := <-reply:
		return outcome, nil
	case <-s.gone:
		return appchannel.Outcome{}, fault.New("deliver "+event.Topic, fault.EventRejected, "the subscriber went away before it answered")
	case <-ctx.Done():
		return appchannel.Outcome{}, fault.FromContext("deliver "+event.Topic, ctx, "the subscriber's answer")
	}
}

func eventOf(delivery string, e *appchannel.Event) *sidecastv1.Event {
	return &sidecastv1.Event{
		DeliveryId: delivery, Id: e.ID, PubsubName: e.PubSub, Topic: e.Topic, Data: e.Data, ContentType: e.ContentType,
		Source: e.Source, Type: e.Type, Subject: e.Subject, Time: timestamppb.New(e.Time), Metadata: e.Header.Map(),
		PartitionKey: e.Key, Delivery: int32(e.Delivery), Route: e.Route,
	}
}
