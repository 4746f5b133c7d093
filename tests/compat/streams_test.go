package compat

import (
	"strconv"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/sidecast/sidecast/tests/machine"
)

// nextOf takes the next event of a stream and says that it is done.
func nextOf(t *testing.T, stream runtimev1.Dapr_SubscribeTopicEventsAlpha1Client) *runtimev1.TopicEventRequest {
	t.Helper()
	m, err := stream.Recv()
	if err != nil || m.GetEventMessage() == nil {
		t.Fatal(m, err)
	}
	if err := stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
		EventProcessed: &runtimev1.SubscribeTopicEventsRequestProcessedAlpha1{
			Id: m.GetEventMessage().GetId(), Status: &runtimev1.TopicEventResponse{Status: runtimev1.TopicEventResponse_SUCCESS},
		},
	}}); err != nil {
		t.Fatal(err)
	}
	return m.GetEventMessage()
}

func publishNumber(t *testing.T, c runtimev1.DaprClient, topic string, i int) {
	t.Helper()
	if _, err := c.PublishEvent(t.Context(), &runtimev1.PublishEventRequest{
		PubsubName: "bus", Topic: topic, Data: []byte(strconv.Itoa(i)), DataContentType: "text/plain",
	}); err != nil {
		t.Error(err)
	}
}

func TestStreamsGetEventsInOrder(t *testing.T) {
	t.Parallel()
	const n = 300
	c := start(t, machine.New(t), "app").client()
	stream := openStream(t, c, "ordered")
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range n {
			publishNumber(t, c, "ordered", i)
		}
	}()
	for i := range n {
		if got := nextOf(t, stream); string(got.GetData()) != strconv.Itoa(i) {
			t.Fatalf("event %d is %s", i, got.GetData())
		}
	}
	<-published
}

func TestStreamsOfOneAppShareATopic(t *testing.T) {
	t.Parallel()
	const n = 60
	c := start(t, machine.New(t), "app").client()
	came := make(chan string)
	for range 3 {
		stream := openStream(t, c, "shared")
		go func() { // ends with the stream, and that with the test
			for {
				m, err := stream.Recv()
				if err != nil {
					return
				}
				select {
				case came <- string(m.GetEventMessage().GetData()):
				case <-stream.Context().Done():
					return
				}
				_ = stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
					EventProcessed: &runtimev1.SubscribeTopicEventsRequestProcessedAlpha1{
						Id: m.GetEventMessage().GetId(), Status: &runtimev1.TopicEventResponse{Status: runtimev1.TopicEventResponse_SUCCESS},
					},
				}})
			}
		}()
	}
	for i := range n {
		publishNumber(t, c, "shared", i)
	}
	seen := map[string]bool{}
	for range n {
		data := <-came
		if seen[data] {
			t.Errorf("%s came twice", data)
		}
		seen[data] = true
	}
}
