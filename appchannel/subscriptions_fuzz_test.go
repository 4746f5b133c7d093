package appchannel

import (
	"log/slog"
	"testing"
)

// FuzzSubscriptions is an app that answers anything to GET /dapr/subscribe, or to /sidecast/subscriptions: what is taken of it
// are subscriptions that can be.
func FuzzSubscriptions(f *testing.F) {
	f.Add([]byte(`[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`))
	f.Add([]byte(`[{"pubsubname":"bus","topic":"t","routes":{"default":"/d","rules":[{"match":"event.type == \"a\"","path":"/a"},{"match":"","path":"/b"}]},"deadLetterTopic":"dead","metadata":{"rawPayload":"true"}}]`))
	f.Add([]byte(`[{"pubsubname":"bus","topic":"t","bulkSubscribe":{"enabled":true,"maxMessagesCount":-1,"maxAwaitDurationMs":9223372036854775807}}]`))
	f.Add([]byte(`[{"pubsubname":"bus","topic":"t","routes":{"rules":[{"match":"nonsense ==","path":"/a"}]}}]`))
	f.Add([]byte(`[{"pubSub":"bus","topic":"t","ackWait":"30s","maxDeliveries":-3,"raw":true}]`))
	f.Add([]byte(`{"topic":1}`))
	f.Add([]byte(` `))
	h := &HTTP{port: &port{Callback: Callback{Log: slog.New(slog.DiscardHandler)}}}
	f.Fuzz(func(t *testing.T, body []byte) {
		for name, parse := range map[string]func([]byte) ([]Subscription, error){"dapr": h.daprSubscriptions, "own": ownSubscriptions} {
			list, err := parse(body)
			if err != nil && list != nil {
				t.Errorf("%s: both a list and %v", name, err)
			}
			for _, sub := range list {
				if sub.Topic == "" || sub.AckWait < 0 || sub.MaxDeliveries < 0 || sub.Bulk != nil && (sub.Bulk.Wait < 0 || sub.Bulk.Most < 0) {
					t.Errorf("%s: %q has %+v", name, body, sub)
				}
				if !sub.Equal(sub) {
					t.Errorf("%s: %q has a subscription that is not itself", name, body)
				}
			}
		}
	})
}
