package blocks

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
)

// noted is a broker that notes the topics that its server is asked for.
type noted struct {
	pubsub.Broker
	mu     *sync.Mutex
	topics map[string]bool
}

func (n noted) Publish(ctx context.Context, topic string, messages []pubsub.Message) []error {
	n.note("publish " + topic)
	return n.Broker.Publish(ctx, topic, messages)
}

func (n noted) Subscribe(ctx context.Context, topic string, group pubsub.Group) (pubsub.Feed, error) {
	n.note("subscribe " + topic + " as " + group.Name)
	return n.Broker.Subscribe(ctx, topic, group)
}

func (n noted) note(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.topics[what] = true
}

// Where a value of a broker names {namespace}, that stands before topics on its server and nowhere else: whoever publishes,
// subscribes or buries, and whatever else the value says.
func TestTopicsOfABrokerThatNamesTheNamespace(t *testing.T) {
	all := standard.All()
	memory := all[slices.IndexFunc(all, func(c components.Component) bool { return c.Type() == "pubsub.memory" })]
	server := noted{mu: &sync.Mutex{}, topics: map[string]bool{}}
	known := components.PubSub("noted", "For a test.", func(ctx context.Context, host components.Host, _ struct{}) (pubsub.Broker, error) {
		backend, err := memory.Open(ctx, host, nil)
		if err != nil {
			return nil, err
		}
		n := server
		n.Broker = backend.(pubsub.Broker)
		return n, nil
	})
	docs := &components.Documents{Components: []components.Manifest{
		{Name: "bus", Type: "pubsub.noted", Metadata: []components.Entry{
			{Key: "consumerID", Value: "{namespace}-x"}, {Key: "allowedTopics", Value: "orders,dead,streamed,written"},
		}},
		{Name: "ledger", Type: "state.memory", Metadata: []components.Entry{
			{Key: "outboxPublishPubsub", Value: "bus"}, {Key: "outboxPublishTopic", Value: "written"},
		}},
	}}
	got := &inbox{}
	app := got.app()
	app.subs = []appchannel.Subscription{
		{PubSub: "bus", Topic: "orders", DeadLetterTopic: "dead", MaxDeliveries: 1}, {PubSub: "bus", Topic: "dead"}, {PubSub: "bus", Topic: "written"},
	}
	keep := app.deliver
	app.deliver = func(ctx context.Context, e *appchannel.Event) (appchannel.Outcome, error) {
		if e.Topic == "orders" {
			return appchannel.Outcome{Verdict: appchannel.Drop}, nil
		}
		return keep(ctx, e)
	}
	one := sidecarKnowing(t, t.TempDir(), "one", app, []components.Component{known}, docs)
	draft := Draft{Data: []byte("1"), ContentType: "application/json"}
	if _, err := one.PubSub.Publish(t.Context(), "bus", "orders", draft); err != nil {
		t.Fatal(err)
	}
	if _, err := one.PubSub.PublishBatch(t.Context(), "bus", "orders", []Draft{draft, draft}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.State.Transact(t.Context(), "ledger", []state.Op{{Kind: state.Set, Key: "a", Value: []byte("1")}}, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	err := one.PubSub.Subscribe(ctx, appchannel.Subscription{PubSub: "bus", Topic: "streamed", Group: "g"}, &takesAll{}, func(string) { cancel(nil) })
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	eventually(t, "three letters and the event of the transaction", got.has(4))
	got.mu.Lock()
	defer got.mu.Unlock()
	for _, e := range got.events {
		if e.Topic != "dead" && e.Topic != "written" {
			t.Errorf("an event of topic %q", e.Topic)
		}
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	for _, want := range []string{
		"publish testorders", "publish testdead", "publish testwritten", "subscribe testorders as test.one-x", "subscribe testdead as test.one-x",
		"subscribe testwritten as test.one-x", "subscribe teststreamed as g",
	} {
		if !server.topics[want] {
			t.Errorf("the server was not asked to %s", want)
		}
		delete(server.topics, want)
	}
	if len(server.topics) > 0 {
		t.Errorf("the server was also asked for %v", server.topics)
	}
}

// takesAll is a sink that has room for everything and handles nothing.
type takesAll struct{}

func (*takesAll) Take(_ context.Context, most int) (int, error) { return most, nil }
func (*takesAll) Return(int)                                    {}
func (*takesAll) Deliver(context.Context, *appchannel.Event) (appchannel.Outcome, error) {
	return appchannel.Outcome{}, nil
}
