package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// member is one subscriber, as a client of the protocol without an SDK.
type member struct {
	*sidecar
	stream sidecastv1.PubSub_SubscribeClient
	leave  context.CancelFunc
}

// join subscribes, and returns when the group exists.
func (s *sidecar) join(conn *grpc.ClientConn, sub *sidecastv1.Subscription) *member {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*patience)
	s.t.Cleanup(cancel)
	stream, err := sidecastv1.NewPubSubClient(conn).Subscribe(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	m := &member{sidecar: s, stream: stream, leave: cancel}
	s.say(stream.Send(&sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Open{Open: sub}}))
	first, err := stream.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	if group := first.GetOpened().GetGroup(); group == "" {
		s.t.Fatalf("the first message is %v", first)
	}
	return m
}

func (m *member) credit(n int32) {
	m.t.Helper()
	m.say(m.stream.Send(&sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Credit{Credit: n}}))
}

func (m *member) ack(delivery string, status sidecastv1.EventStatus) {
	m.t.Helper()
	m.say(m.stream.Send(&sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Ack{Ack: &sidecastv1.EventAck{
		DeliveryId: delivery, Status: status, Delay: durationpb.New(time.Millisecond),
	}}}))
}

func (m *member) event() *sidecastv1.Event {
	m.t.Helper()
	frame, err := m.stream.Recv()
	if err != nil {
		m.t.Fatal(err)
	}
	return frame.GetEvent()
}

// end reads until the stream ends, and tells how.
func (m *member) end() error {
	for {
		if _, err := m.stream.Recv(); err != nil {
			return err
		}
	}
}

// outlasting is a subscription whose ack wait is longer than any test, so that only what is given back comes back.
func outlasting(topic string) *sidecastv1.Subscription {
	return &sidecastv1.Subscription{Topic: topic, AckWait: durationpb.New(time.Hour)}
}

func TestEventsComeAgainstCreditsAndAreAnsweredOnce(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	m := s.join(s.conn, outlasting("t"))
	for i := range 3 {
		s.publish("t", fmt.Append(nil, i))
	}
	m.credit(2)
	one, two := m.event(), m.event()
	if one.GetDelivery() != 1 || one.GetDeliveryId() == two.GetDeliveryId() {
		t.Errorf("%v and %v", one, two)
	}
	m.ack(one.GetDeliveryId(), sidecastv1.EventStatus_EVENT_STATUS_UNSPECIFIED) // is success
	m.ack(two.GetDeliveryId(), sidecastv1.EventStatus_EVENT_STATUS_RETRY)
	m.credit(1)
	third := m.event()
	m.credit(1)
	fourth := m.event()
	if third.GetDelivery() > fourth.GetDelivery() {
		third, fourth = fourth, third
	}
	if third.GetDelivery() != 1 || fourth.GetDelivery() != 2 || fourth.GetId() != two.GetId() {
		t.Errorf("after a retry: %v and %v", third, fourth)
	}
	m.ack(one.GetDeliveryId(), sidecastv1.EventStatus_EVENT_STATUS_SUCCESS)
	wantReason(t, m.end(), fault.AckUnknown)
}

func TestSubscriberThatGoesReleasesItsEventsAtOnce(t *testing.T) {
	dir := t.TempDir()
	one, two := start(t, dir, "shop", "shop-1"), start(t, dir, "shop", "shop-2")
	for topic, sub := range map[string]*sidecastv1.Subscription{
		"plain": outlasting("plain"),
		"dead":  {Topic: "dead", AckWait: durationpb.New(time.Hour), MaxDeliveries: 1, DeadLetterTopic: "letters"},
	} {
		gone := one.join(one.dial(), sub)
		id := one.publish(topic, []byte("x"))
		gone.credit(1)
		gone.event()
		stays := two.join(two.conn, sub)
		stays.credit(1)
		gone.leave()
		if e := within(t, "the release", stays.event); e.GetId() != id || e.GetDelivery() != 2 {
			t.Errorf("%s: %v", topic, e)
		}
	}
}

func TestAnswersBeforeTheEndOfAStreamCount(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	for i := range 20 { // an answer that arrives together with the end of the stream could lose against it
		m := s.join(s.conn, outlasting("t"))
		id := s.publish("t", []byte("x"))
		m.credit(1)
		e := m.event()
		if e.GetId() != id {
			t.Fatalf("round %d: event %s was answered and came back", i, e.GetId())
		}
		m.ack(e.GetDeliveryId(), sidecastv1.EventStatus_EVENT_STATUS_SUCCESS)
		s.say(m.stream.CloseSend())
		if err := within(t, "the end", m.end); !errors.Is(err, io.EOF) {
			t.Fatalf("a subscriber that closed its side: %v", err)
		}
	}
}

func TestSubscriberThatBreaksTheProtocol(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	for name, send := range map[string]func(m *member){
		"credit that is none": func(m *member) { m.credit(0) },
		"credit without end":  func(m *member) { m.credit(maxCredit); m.credit(maxCredit); m.credit(maxCredit) },
		"a second open": func(m *member) {
			s.say(m.stream.Send(&sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Open{}}))
		},
		"nothing":                 func(m *member) { s.say(m.stream.Send(&sidecastv1.SubscribeRequest{})) },
		"an ack for nothing":      func(m *member) { m.ack("7", sidecastv1.EventStatus_EVENT_STATUS_SUCCESS) },
		"a status without a name": func(m *member) { m.ack("1", 77) },
	} {
		m := s.join(s.conn, outlasting(name))
		send(m)
		if err := within(t, name, m.end); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	stream, err := sidecastv1.NewPubSubClient(s.conn).Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.say(stream.Send(&sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Credit{Credit: 1}}))
	_, err = stream.Recv()
	wantReason(t, err, fault.BadRequest)
}

func TestAnswerOfNoKnownStatusIsNoSuccess(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	m := s.join(s.conn, outlasting("t"))
	id := s.publish("t", []byte("x"))
	m.credit(1)
	m.ack(m.event().GetDeliveryId(), 77)
	wantReason(t, within(t, "the end", m.end), fault.BadRequest)
	again := s.join(s.conn, outlasting("t"))
	again.credit(1)
	if e := within(t, "the event", again.event); e.GetId() != id {
		t.Errorf("got %v", e)
	}
}

func TestSubscriberThatDoesNotReadHoldsNoEvents(t *testing.T) {
	dir := t.TempDir()
	one, two := start(t, dir, "shop", "shop-1"), start(t, dir, "shop", "shop-2")
	deaf := one.join(one.dial(grpc.WithStaticStreamWindowSize(64<<10)), outlasting("t"))
	deaf.credit(10)
	for range 10 { // more than the window takes
		one.publish("t", make([]byte, 256<<10))
	}
	deaf.event()
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		one.server.Close(ctx)
	}()
	other := two.join(two.conn, outlasting("t"))
	other.credit(10)
	for range 10 {
		within(t, "the release", other.event)
	}
	cancel() // gRPC itself waits for what it was given to send
	within(t, "the stop", func() bool { <-closed; return true })
}

func TestLateAnswerIsNoViolation(t *testing.T) {
	gone := make(chan struct{})
	sub := newSubscriber(nil, gone)
	ctx, cancel := context.WithCancel(t.Context())
	delivered := make(chan error, 1)
	go func() {
		_, err := sub.Deliver(ctx, &appchannel.Event{})
		delivered <- err
	}()
	id := (<-sub.frames).GetEvent().GetDeliveryId()
	cancel()
	wantReason(t, <-delivered, fault.CallCanceled)
	if err := sub.answered(&sidecastv1.EventAck{DeliveryId: id}); err != nil {
		t.Errorf("an answer that came late: %v", err)
	}
	wantReason(t, sub.answered(&sidecastv1.EventAck{DeliveryId: id}), fault.AckUnknown)
	if len(sub.waiting) != 0 {
		t.Errorf("%d deliveries are remembered", len(sub.waiting))
	}
}

func TestTraceContextTravelsWithAnEvent(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	m := s.join(s.conn, outlasting("t"))
	m.credit(2)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-a-b-01", "baggage", "k=v")
	for _, raw := range []bool{false, true} {
		_, err := sidecastv1.NewPubSubClient(s.conn).Publish(ctx, &sidecastv1.PublishRequest{
			Topic: "t", Data: []byte("x"), Raw: raw, Metadata: map[string]string{"one": "1"}, PartitionKey: "k",
		})
		if err != nil {
			t.Fatal(err)
		}
		e := m.event()
		got := e.GetMetadata()
		if got["traceparent"] != "00-a-b-01" || got["baggage"] != "k=v" || got["one"] != "1" || e.GetPartitionKey() != "k" || e.GetTime() == nil {
			t.Errorf("raw %v: %v", raw, e)
		}
		if raw != (e.GetSource() == "") || string(e.GetData()) != "x" {
			t.Errorf("raw %v: %v", raw, e)
		}
		m.ack(e.GetDeliveryId(), sidecastv1.EventStatus_EVENT_STATUS_SUCCESS)
	}
}

func TestBatchHasAResultForEachEntry(t *testing.T) {
	s := start(t, t.TempDir(), "shop", "shop-1")
	pubsub := sidecastv1.NewPubSubClient(s.conn)
	answer, err := pubsub.PublishBatch(t.Context(), &sidecastv1.PublishBatchRequest{Topic: "t", Entries: []*sidecastv1.PublishBatchEntry{
		{EntryId: "a", Data: []byte("x")}, {Data: []byte("{"), ContentType: "application/json"}, {Data: []byte("y")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := answer.GetResults()
	if len(r) != 3 || r[0].GetEntryId() != "a" || r[0].GetError() != nil || r[0].GetId() == "" ||
		r[1].GetEntryId() != "1" || r[1].GetError().GetReason() != string(fault.EventInvalid) || r[1].GetId() != "" ||
		r[2].GetEntryId() != "2" || r[2].GetError() != nil {
		t.Errorf("%v", r)
	}
	_, err = pubsub.PublishBatch(t.Context(), &sidecastv1.PublishBatchRequest{Topic: "t", Entries: []*sidecastv1.PublishBatchEntry{{EntryId: "1"}, {}}})
	wantReason(t, err, fault.BadRequest)
	_, err = pubsub.PublishBatch(t.Context(), &sidecastv1.PublishBatchRequest{Topic: "t", Entries: make([]*sidecastv1.PublishBatchEntry, 1001)})
	wantReason(t, err, fault.BadRequest)
}
