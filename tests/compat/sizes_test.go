package compat

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

// An event as large as the largest request that a daprd takes is published, delivered and dead-lettered, through Dapr's
// front door and the native one.
func TestSizesOfEvents(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	app := newSubscriber(`[
		{"pubsubname":"bus","topic":"t","route":"/t","deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"dead","route":"/dead"}]`)
	app.says = func(path string, _ map[string]any) (int, string) {
		if path == "/t" {
			return 200, `{"status":"DROP"}`
		}
		return 200, ""
	}
	m := machine.New(t)
	d := start(t, m, "app", "--app-port", serve(t, app))
	d.subscribed(2)
	expect := func(what, field, want string) {
		t.Helper()
		for _, path := range []string{"/t", "/dead"} {
			if got := app.next(t); got.path != path || got.event[field] != want {
				t.Fatalf("%s came to %s with %d bytes", what, got.path, len(want))
			}
		}
	}
	binary := strings.Repeat("\x00\xff\x10\x80", limit/4)
	d.expect(204, "", "POST", "/v1.0/publish/bus/t", binary, "Content-Type: application/octet-stream")
	expect("a binary event", "data_base64", base64.StdEncoding.EncodeToString([]byte(binary)))
	text := strings.Repeat("x", limit-2)
	d.expect(204, "", "POST", "/v1.0/publish/bus/t", `"`+text+`"`, "Content-Type: application/json")
	expect("an event of JSON", "data", text)
	text = text[:limit-100] // a gRPC message has the limit as a whole
	if _, err := d.client().PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: "bus", Topic: "t", Data: []byte(text), DataContentType: "text/plain"}); err != nil {
		t.Fatal(err)
	}
	expect("an event over gRPC", "data", text)

	// The native door.
	client := m.Await("app", d.Process).Client()
	letters := make(chan []byte, 1)
	subscribing, stop := context.WithCancel(t.Context())
	var subscriptions sync.WaitGroup
	subscribe := func(sub sidecast.Subscription, handler sidecast.EventHandler) {
		sub.PubSub = "bus"
		subscriptions.Go(func() {
			if err := client.Subscribe(subscribing, sub, handler); subscribing.Err() == nil {
				t.Error(err)
			}
		})
	}
	subscribe(sidecast.Subscription{Topic: "native", DeadLetter: "native-dead", MaxDeliveries: 1}, func(context.Context, *sidecast.Event) error {
		return sidecast.Drop(errors.New("unwanted"))
	})
	subscribe(sidecast.Subscription{Topic: "native-dead"}, func(_ context.Context, e *sidecast.Event) error {
		letters <- e.Data
		return nil
	})
	if _, err := client.Publish(t.Context(), "native", []byte(binary), sidecast.PubSub("bus"), sidecast.ContentType("application/octet-stream")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, letters); !bytes.Equal(got, []byte(binary)) {
		t.Errorf("%d bytes came", len(got))
	}
	stop()
	subscriptions.Wait()
}
