package compat

import (
	"fmt"
	"strings"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/sidecast/sidecast/tests/machine"
)

func TestEventsThatCannotBeGivenToTheApp(t *testing.T) {
	t.Parallel()
	app := newSubscriber(`[
		{"pubsubname":"bus","topic":"ruled","routes":{"rules":[{"match":"event.data.total > 1","path":"/big"}],"default":"/small"},"deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"kept","routes":{"rules":[{"match":"event.data.total > 1","path":"/big"}],"default":"/small"}},
		{"pubsubname":"bus","topic":"dead","route":"/dead"}]`)
	metrics := machine.Port(t)
	d := startWith(t, machine.New(t), resources, "app", "--metrics-port", metrics, "--app-port", serve(t, app))
	d.subscribed(3)
	d.expect(204, "", "POST", "/v1.0/publish/bus/ruled", `{"none":1}`, "Content-Type: application/json")
	if got := app.next(t); got.path != "/dead" || fmt.Sprint(got.event["data"]) != "map[none:1]" {
		t.Errorf("the event on which a rule fails came to %s: %v", got.path, got.event)
	}

	d.expect(204, "", "POST", "/v1.0/publish/bus/kept", `{"none":2}`, "Content-Type: application/json")
	d.expect(204, "", "POST", "/v1.0/publish/bus/kept", `{"total":2}`, "Content-Type: application/json")
	if got := app.next(t); got.path != "/big" { // it is in the way of no other
		t.Errorf("an event came to %s: %v", got.path, got.event)
	}
	machine.Until(t, "the event is tried again", func() error {
		if n := strings.Count(d.Output(), "an event cannot be given to the app"); n < 3 {
			return fmt.Errorf("logged %d times", n)
		}
		return nil
	})
	if !strings.Contains(d.Output(), "after=4") && !strings.Contains(d.Output(), "after=3") {
		t.Errorf("the third pause is no longer than the first: %s", d.Output())
	}
	if got := value(scrape(t, metrics), "sidecast_operation_seconds", "block=pubsub operation=deliver kind=invalid"); got < 4 {
		t.Errorf("deliveries that could not be are counted %v times", got)
	}

	// Over a stream: an envelope whose data_base64 is none has no form in Dapr's protocol.
	stream, err := d.client().SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
		InitialRequest: &runtimev1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: "streamed", DeadLetterTopic: ptr("dead")},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	d.expect(204, "", "POST", "/v1.0/publish/bus/streamed", `{"id":"odd","source":"s","type":"t","specversion":"1.0","data_base64":"!"}`, "Content-Type: application/cloudevents+json")
	if got := app.next(t); got.path != "/dead" || got.event["id"] != "odd" {
		t.Errorf("the event that cannot be said came to %s: %v", got.path, got.event)
	}
}

func ptr[T any](v T) *T { return &v }
