package daprapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// subscriptionOf is a subscription as metadata tells it.
func subscriptionOf(status blocks.SubscriptionStatus) *runtimev1.PubsubSubscription {
	sub := status.Subscription
	out := &runtimev1.PubsubSubscription{
		PubsubName: sub.PubSub, Topic: sub.Topic, Metadata: sub.Metadata, DeadLetterTopic: sub.DeadLetterTopic,
		Type: runtimev1.PubsubSubscriptionType_PROGRAMMATIC, Rules: &runtimev1.PubsubSubscriptionRules{},
	}
	switch {
	case status.Streaming:
		out.Type = runtimev1.PubsubSubscriptionType_STREAMING
	case sub.Declared:
		out.Type = runtimev1.PubsubSubscriptionType_DECLARATIVE
	}
	for _, r := range sub.Routes {
		out.Rules.Rules = append(out.Rules.Rules, &runtimev1.PubsubSubscriptionRule{Match: r.Rule.String(), Path: r.Path})
	}
	if sub.Route != "" || len(sub.Routes) == 0 {
		out.Rules.Rules = append(out.Rules.Rules, &runtimev1.PubsubSubscriptionRule{Path: sub.Route})
	}
	return out
}

// getMetadata is the HTTP form of GetMetadata, which differs from its JSON in the rules and the names of enums.
func (s *Server) getMetadata(w http.ResponseWriter, r *http.Request, _ params) error {
	in := &runtimev1.GetMetadataRequest{}
	if err := s.message(r, in); err != nil {
		return err
	}
	out, err := (&api{s: s}).GetMetadata(r.Context(), in)
	if err != nil {
		return err
	}
	data, err := protojson.Marshal(out)
	if err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	rename := func(from, to string) {
		if value, ok := all[from]; ok {
			delete(all, from)
			all[to] = value
		}
	}
	rename("registeredComponents", "components")
	rename("extendedMetadata", "extended")
	rename("activeActorsCount", "actors")
	all["actorRuntime"] = map[string]any{"runtimeStatus": out.GetActorRuntime().GetRuntimeStatus().String(), "hostReady": false, "placement": noPlacement}
	type rule struct {
		Match string `json:"match,omitempty"`
		Path  string `json:"path,omitempty"`
	}
	type subscription struct {
		PubsubName      string            `json:"pubsubname"`
		Topic           string            `json:"topic"`
		Metadata        map[string]string `json:"metadata,omitempty"`
		Rules           []rule            `json:"rules,omitempty"`
		DeadLetterTopic string            `json:"deadLetterTopic"`
		Type            string            `json:"type"`
	}
	var subscriptions []subscription
	for _, sub := range out.GetSubscriptions() {
		one := subscription{PubsubName: sub.GetPubsubName(), Topic: sub.GetTopic(), Metadata: sub.GetMetadata(), DeadLetterTopic: sub.GetDeadLetterTopic(), Type: sub.GetType().String()}
		for _, r := range sub.GetRules().GetRules() {
			one.Rules = append(one.Rules, rule{r.GetMatch(), r.GetPath()})
		}
		subscriptions = append(subscriptions, one)
	}
	delete(all, "subscriptions")
	if len(subscriptions) > 0 {
		all["subscriptions"] = subscriptions
	}
	answerJSON(w, http.StatusOK, all)
	return nil
}

// SubscribeTopicEventsAlpha1 delivers the events of a topic on the stream that asks for them.
func (a *api) SubscribeTopicEventsAlpha1(stream runtimev1.Dapr_SubscribeTopicEventsAlpha1Server) error {
	first, err := a.s.firstRequest(stream)
	if err != nil {
		return err
	}
	asked := first.GetInitialRequest()
	switch {
	case asked == nil:
		return errors.New("initial request is required")
	case asked.GetPubsubName() == "":
		return errors.New("pubsubName is required")
	case asked.GetTopic() == "":
		return errors.New("topic is required")
	}
	if found, _ := a.s.component(components.PubSubBlock, asked.GetPubsubName()); !found {
		return noPubSub(asked.GetPubsubName(), nil)
	}
	sub := appchannel.Subscription{
		PubSub: asked.GetPubsubName(), Topic: asked.GetTopic(), DeadLetterTopic: asked.GetDeadLetterTopic(), Route: "/", Metadata: asked.GetMetadata(),
	}
	sub.Raw, _ = appchannel.RawPayload(asked.GetMetadata())
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(a.s.drained, func() { cancel(fault.New("subscribe", fault.Shutdown, "the sidecar is shutting down")) })()
	sink := &topicStream{
		stream: stream, waiting: map[string][]chan appchannel.Outcome{}, slots: make(chan struct{}, streamCredits), said: make(chan struct{}),
	}
	for range streamCredits {
		sink.slots <- struct{}{}
	}
	go sink.read(cancel) // ends with the RPC: its Recv returns when this handler has
	var sent error
	err = a.s.o.Blocks.PubSub.SubscribeStream(ctx, sub, sink, func(string) {
		sent = sink.send(&runtimev1.SubscribeTopicEventsResponseAlpha1{
			SubscribeTopicEventsResponseType: &runtimev1.SubscribeTopicEventsResponseAlpha1_InitialResponse{
				InitialResponse: &runtimev1.SubscribeTopicEventsResponseInitialAlpha1{},
			},
		})
		if sent != nil {
			cancel(sent)
		}
	})
	if fault.ReasonOf(err) == fault.TopicDenied {
		return fmt.Errorf("failed to create subscription for %s: subscription to topic '%s' on pubsub '%s' is not allowed", sub.PubSub, sub.Topic, sub.PubSub)
	}
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// firstRequest waits for what a stream is about, but not while the sidecar stops.
func (s *Server) firstRequest(stream runtimev1.Dapr_SubscribeTopicEventsAlpha1Server) (*runtimev1.SubscribeTopicEventsRequestAlpha1, error) {
	type received struct {
		request *runtimev1.SubscribeTopicEventsRequestAlpha1
		err     error
	}
	came := make(chan received, 1)
	go func() { // ends with the RPC at the latest
		request, err := stream.Recv()
		came <- received{request, err}
	}()
	select {
	case first := <-came:
		return first.request, first.err
	case <-s.drained.Done():
		return nil, fault.New("subscribe", fault.Shutdown, "the sidecar is shutting down")
	}
}

// streamCredits is how many events a stream is sent that it has not answered; Dapr's protocol has no flow control of its own.
const streamCredits = 64

// topicStream is the app behind a stream.
type topicStream struct {
	stream runtimev1.Dapr_SubscribeTopicEventsAlpha1Server
	slots  chan struct{}
	said   chan struct{} // closed when the app says no more, though the stream may still be open the other way

	sending sync.Mutex
	mu      sync.Mutex
	waiting map[string][]chan appchannel.Outcome // by event id, in the order of delivery
}

var _ blocks.Ordered = (*topicStream)(nil)

func (t *topicStream) send(m *runtimev1.SubscribeTopicEventsResponseAlpha1) error {
	t.sending.Lock()
	defer t.sending.Unlock()
	return t.stream.Send(m)
}

// read takes the app's answers until the stream ends.
func (t *topicStream) read(end context.CancelCauseFunc) {
	defer close(t.said)
	for {
		in, err := t.stream.Recv()
		if err != nil {
			end(nil)
			return
		}
		said := in.GetEventProcessed()
		if said == nil {
			end(errors.New("duplicate initial request received"))
			return
		}
		t.answer(said.GetId(), appchannel.DaprOutcome(said.GetStatus().GetStatus()))
	}
}

// answer hands the outcome to the delivery that has waited longest; ids of others' events may repeat.
func (t *topicStream) answer(id string, outcome appchannel.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := t.waiting[id]
	if len(line) == 0 {
		return
	}
	line[0] <- outcome
	if t.waiting[id] = line[1:]; len(line) == 1 {
		delete(t.waiting, id)
	}
}

// Take waits until the stream may be sent another event.
func (t *topicStream) Take(ctx context.Context, most int) (int, error) {
	select {
	case <-ctx.Done():
		return 0, fault.FromContext("subscribe", ctx, "the app")
	case <-t.slots:
	}
	n := 1
	for n < most {
		select {
		case <-t.slots:
			n++
			continue
		default:
		}
		break
	}
	return n, nil
}

// Return gives back what Take allowed.
func (t *topicStream) Return(n int) {
	for range n {
		t.slots <- struct{}{}
	}
}

// Deliver sends an event and waits for its answer.
func (t *topicStream) Deliver(ctx context.Context, event *appchannel.Event) (appchannel.Outcome, error) {
	return t.DeliverNext(ctx, event, func() {})
}

// DeliverNext is Deliver that tells when the event is on the stream.
func (t *topicStream) DeliverNext(ctx context.Context, event *appchannel.Event, sent func()) (appchannel.Outcome, error) {
	defer t.Return(1)
	message, err := appchannel.DaprTopicEvent(event)
	if err != nil {
		return appchannel.Outcome{Verdict: appchannel.Retry, Undeliverable: true, Reason: "the event cannot be said in Dapr's protocol: " + err.Error()}, nil
	}
	answer := make(chan appchannel.Outcome, 1)
	t.mu.Lock()
	t.waiting[message.GetId()] = append(t.waiting[message.GetId()], answer)
	t.mu.Unlock()
	if err := t.send(&runtimev1.SubscribeTopicEventsResponseAlpha1{
		SubscribeTopicEventsResponseType: &runtimev1.SubscribeTopicEventsResponseAlpha1_EventMessage{EventMessage: message},
	}); err != nil {
		t.forget(message.GetId(), answer)
		return appchannel.Outcome{}, fault.New("deliver "+event.Topic, fault.CallCanceled, "the app's stream broke: %w", err)
	}
	sent()
	select {
	case outcome := <-answer:
		return outcome, nil
	case <-ctx.Done():
	case <-t.stream.Context().Done():
	case <-t.said:
	}
	t.forget(message.GetId(), answer)
	select {
	case outcome := <-answer: // the last that it said
		return outcome, nil
	default:
	}
	return appchannel.Outcome{}, fault.New("deliver "+event.Topic, fault.CallCanceled, "the app's stream ended before its answer came")
}

func (t *topicStream) forget(id string, answer chan appchannel.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := t.waiting[id]
	for i, c := range line {
		if c == answer {
			line = append(line[:i:i], line[i+1:]...)
			break
		}
	}
	if t.waiting[id] = line; len(line) == 0 {
		delete(t.waiting, id)
	}
}
