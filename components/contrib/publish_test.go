//go:build linux

package contrib

import (
	"context"
	"testing"
	"time"

	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// unreliable is a component of the library that says of every publish that it was done.
type unreliable struct {
	contribpubsub.PubSub
	log  logger.Logger
	hang chan struct{} // if set, a publish waits for it, and for nothing else
}

func (u *unreliable) Init(context.Context, contribpubsub.Metadata) error { return nil }
func (u *unreliable) Close() error                                       { return nil }

func (u *unreliable) Publish(_ context.Context, r *contribpubsub.PublishRequest) error {
	if u.hang != nil {
		<-u.hang
	}
	if string(r.Data) == "lost" {
		u.log.Errorf("rabbitmq pub/sub: publishing to %s failed: did not receive confirmation of publishing", r.Topic)
	}
	return nil
}

func (u *unreliable) open(t *testing.T) pubsub.Broker {
	p := &product{
		make:  func(log logger.Logger) contribpubsub.PubSub { u.log = log; return u },
		codec: amqpCodec, lost: rabbitQueues.lost,
	}
	b, err := p.component("unreliable", "For tests.").Open(t.Context(), components.Host{Log: discard}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b.(pubsub.Broker)
}

func TestAPublishThatTheServerDidNotConfirmFails(t *testing.T) {
	b := (&unreliable{}).open(t)
	defer b.Close(t.Context())
	errs := b.Publish(t.Context(), "t", []pubsub.Message{{ID: "1", Data: []byte("kept")}, {ID: "2", Data: []byte("lost")}, {ID: "3"}})
	if errs[0] != nil || fault.ReasonOf(errs[1]) != fault.BackendDown || errs[2] != nil {
		t.Errorf("got %v", errs)
	}
}

func TestAPublishThatHangsEndsWithItsContext(t *testing.T) {
	t.Parallel()
	u := &unreliable{hang: make(chan struct{})}
	b := u.open(t)
	for range 2 { // the second waits for its turn
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		err := b.Publish(ctx, "t", []pubsub.Message{{ID: "1"}})[0]
		cancel()
		if fault.KindOf(err) != fault.Timeout {
			t.Errorf("got %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.Close(ctx); fault.KindOf(err) != fault.Timeout {
		t.Errorf("Close while the library hangs: %v", err)
	}
	close(u.hang)
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
