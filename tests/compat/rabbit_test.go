package compat

import (
	"fmt"
	"strings"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// What a publish and a subscription say to the broker itself reaches it, over both protocols.
func TestMetadataForTheBroker(t *testing.T) {
	t.Parallel()
	resources := fmt.Sprintf(`
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: rabbit}
spec:
  type: pubsub.rabbitmq
  version: v1
  initTimeout: 1m
  metadata: [{name: connectionString, value: %q}, {name: exchangeKind, value: direct}]
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: blue}
spec: {pubsubname: rabbit, topic: paint, route: /blue, metadata: {routingKey: blue, queueName: blues, queueType: quorum}}
scopes: [declared]
`, servers.RabbitMQ(t))
	m := machine.New(t)
	app := newSubscriber(`[{"pubsubname":"rabbit","topic":"paint","route":"/red","metadata":{"routingKey":"red","maxPriority":"5"}}]`)
	declared := newSubscriber(`[]`)
	d := startWith(t, m, resources, "app", "--app-port", serve(t, app))
	other := startWith(t, m, resources, "declared", "--app-port", serve(t, declared))
	d.subscribed(1)
	other.subscribed(1)
	machine.Until(t, "both are subscribed", func() error {
		for _, d := range []*daprd{d, other} {
			if !strings.Contains(d.Output(), "msg=subscribed") {
				return fmt.Errorf("not yet: %s", d.Output())
			}
		}
		return nil
	})
	d.expect(204, "", "POST", "/v1.0/publish/rabbit/paint?metadata.routingKey=none", "lost")
	d.expect(204, "", "POST", "/v1.0/publish/rabbit/paint?metadata.routingKey=red&metadata.priority=3", "one")
	if _, err := d.client().PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: "rabbit", Topic: "paint", Data: []byte("two"), Metadata: map[string]string{"routingKey": "blue"}}); err != nil {
		t.Fatal(err)
	}
	d.expect(204, "", "POST", "/v1.0-alpha1/publish/bulk/rabbit/paint?metadata.routingKey=red", `[{"entryId":"1","event":"three","contentType":"text/plain","metadata":{}},{"entryId":"2","event":"four","contentType":"text/plain","metadata":{"routingKey":"blue"}}]`)
	d.expect(204, "", "POST", "/v1.0/publish/rabbit/paint?metadata.routingKey=red&metadata.ttlInSeconds=600", "five")
	for _, c := range []struct {
		app  *subscriber
		want []string
	}{{app, []string{"/red one", "/red three", "/red five"}}, {declared, []string{"/blue two", "/blue four"}}} {
		for _, want := range c.want {
			if got := c.app.next(t); fmt.Sprint(got.path, " ", got.event["data"]) != want {
				t.Errorf("got %s %v, want %s", got.path, got.event["data"], want)
			} else if got.event["expiration"] != nil { // the broker sees to it
				t.Errorf("an event says that it expires at %v", got.event["expiration"])
			}
		}
	}
}
