package blocks

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/routing"
)

// graveyard is a broker that notes where it is published to.
type graveyard struct {
	pubsub.Broker
	topics []string
}

func (g *graveyard) Publish(_ context.Context, topic string, messages []pubsub.Message) []error {
	g.topics = append(g.topics, topic)
	return make([]error, len(messages))
}

// paced is a delivery that notes when it is to come again.
type paced struct {
	observed
	after      []time.Duration
	unreadable error
}

func (p *paced) Unreadable() error { return p.unreadable }

func (p *paced) Retry(ctx context.Context, after time.Duration) error {
	p.after = append(p.after, after)
	return p.observed.Retry(ctx, after)
}

// An event on which a routing rule fails, or which cannot be said in the app's protocol, is never lost and never spins.
func TestUndeliverableEventsAreBuriedOrWait(t *testing.T) {
	rule, err := routing.Compile("event.data.total > 1")
	if err != nil {
		t.Fatal(err)
	}
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	unsayable := func(context.Context) (appchannel.Outcome, error) {
		return appchannel.Outcome{Verdict: appchannel.Retry, Undeliverable: true, Reason: "no words"}, nil
	}
	for name, c := range map[string]struct {
		sub     appchannel.Subscription
		deliver func(context.Context) (appchannel.Outcome, error)
		attempt int
		settled string
		buried  bool
		log     string
		bytes   error // why they are not what they should be
		header  map[string]string
	}{
		"a rule":                    {sub: appchannel.Subscription{Routes: []routing.Route{{Rule: rule, Path: "/big"}}}, attempt: 1, settled: "retry", log: "no such key"},
		"a rule, later":             {sub: appchannel.Subscription{Routes: []routing.Route{{Rule: rule, Path: "/big"}}}, attempt: 5, settled: "retry", log: "delivery=5"},
		"a rule, much later":        {sub: appchannel.Subscription{Routes: []routing.Route{{Rule: rule, Path: "/big"}}}, attempt: 1000, settled: "retry", log: "no dead-letter topic"},
		"a rule, dead letters":      {sub: appchannel.Subscription{Routes: []routing.Route{{Rule: rule, Path: "/big"}}, DeadLetterTopic: "dead", MaxDeliveries: 9}, attempt: 1, settled: "ack", buried: true, log: "no such key"},
		"no words":                  {deliver: unsayable, attempt: 3, settled: "retry", log: "no words"},
		"no words, dead letters":    {sub: appchannel.Subscription{DeadLetterTopic: "dead"}, deliver: unsayable, attempt: 1, settled: "ack", buried: true, log: "no words"},
		"no words, counted by wish": {sub: appchannel.Subscription{MaxDeliveries: 3}, deliver: unsayable, attempt: 3, settled: "ack", log: "was dropped"},
		"no format":                 {bytes: errors.New("no schema"), attempt: 2, settled: "retry", log: "no schema"},
		"no format, dead letters":   {bytes: errors.New("no schema"), sub: appchannel.Subscription{DeadLetterTopic: "dead"}, attempt: 1, settled: "ack", buried: true, log: "no schema"},
		"no words, its own letter": { // which its wildcard brings back
			sub: appchannel.Subscription{DeadLetterTopic: "dead", Group: "g"}, deliver: unsayable, attempt: 1, settled: "ack", log: "came back",
			header: map[string]string{pubsub.LetterPrefix + "topic": "orders", pubsub.LetterPrefix + "group": "g"},
		},
		"no words, another's letter": {
			sub: appchannel.Subscription{DeadLetterTopic: "dead", Group: "g"}, deliver: unsayable, attempt: 1, settled: "ack", buried: true, log: "no words",
			header: map[string]string{pubsub.LetterPrefix + "topic": "orders", pubsub.LetterPrefix + "group": "h"},
		},
		"no words, not yet too many": {sub: appchannel.Subscription{MaxDeliveries: 3}, deliver: unsayable, attempt: 2, settled: "retry", log: "no words"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			c.sub.PubSub, c.sub.Topic, c.sub.AckWait = "pubsub", "orders", time.Hour
			lane, done := one.PubSub.deliveries.use("pubsub", "orders")
			defer done()
			dead := &graveyard{}
			consumer := &consumer{
				unseen: newUnseen(),
				block:  one.PubSub, sub: c.sub, sink: &scriptedSink{deliver: c.deliver}, broker: dead, lane: lane,
				log: slog.New(slog.NewTextHandler(&log, nil)),
			}
			d := &paced{unreadable: c.bytes, observed: observed{stored: stored{pubsub.Message{
				ID: "1", Header: c.header, ContentType: CloudEventJSON, Data: []byte(`{"id":"1","source":"s","type":"t","specversion":"1.0","data":{}}`),
			}}, attempt: c.attempt}}
			consumer.deliver(t.Context(), t.Context(), d, turn{})
			if got := strings.Join(d.said, " "); got != c.settled {
				t.Errorf("settled by %q, not %q", got, c.settled)
			}
			if (len(dead.topics) == 1) != c.buried {
				t.Errorf("published to %v", dead.topics)
			}
			if !strings.Contains(log.String(), c.log) || !strings.Contains(log.String(), "level=WARN") {
				t.Errorf("the log says %s", &log)
			}
			if c.settled == "retry" { // doubled each time, from a second to ten minutes, give or take a fifth
				pace := min(time.Second<<min(c.attempt-1, 20), 10*time.Minute)
				if d.after[0] < pace*7/10 || d.after[0] > pace*13/10 {
					t.Errorf("comes again after %s", d.after[0])
				}
			}
		})
	}
}
