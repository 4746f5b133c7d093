package contrib

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// leisurely is a component of the library with one message, whose server takes a second to hear that it was handled.
type leisurely struct {
	contribpubsub.PubSub
	closed, acknowledged, late atomic.Bool
}

func (l *leisurely) Init(context.Context, contribpubsub.Metadata) error { return nil }

func (l *leisurely) Close() error {
	l.closed.Store(true)
	return nil
}

func (l *leisurely) Subscribe(ctx context.Context, r contribpubsub.SubscribeRequest, handler contribpubsub.Handler) error {
	go func() {
		call, done := context.WithTimeout(ctx, time.Minute)
		defer done()
		if handler(call, &contribpubsub.NewMessage{Topic: r.Topic, Metadata: map[string]string{tokenKey: "t", idKey: "1"}}) != nil {
			return
		}
		time.Sleep(time.Second)
		l.late.Store(l.closed.Load())
		l.acknowledged.Store(true)
	}()
	return nil
}

// TestAFeedClosesBehindWhatWasAcknowledged closes a feed at once after an Ack.
func TestAFeedClosesBehindWhatWasAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		library := &leisurely{}
		p := &product{make: func(logger.Logger) contribpubsub.PubSub { return library }, codec: metadataCodec}
		opened, err := p.component("leisurely", "For tests.").Open(t.Context(), components.Host{Log: discard}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b := opened.(pubsub.Broker)
		f, err := b.Subscribe(t.Context(), "t", pubsub.Group{Name: "g", AckWait: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ds, err := f.Next(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := ds[0].Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !library.acknowledged.Load() || library.late.Load() {
			t.Error("the library was closed before it had acknowledged the message")
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// broken panics when it is to subscribe.
type broken struct{ leisurely }

func (*broken) Subscribe(context.Context, contribpubsub.SubscribeRequest, contribpubsub.Handler) error {
	panic("no such strategy")
}

func TestALibraryThatPanicsWhileItSubscribesHasFailed(t *testing.T) {
	p := &product{make: func(logger.Logger) contribpubsub.PubSub { return &broken{} }, codec: metadataCodec}
	opened, err := p.component("broken", "For tests.").Open(t.Context(), components.Host{Log: discard}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := opened.(pubsub.Broker)
	if _, err := b.Subscribe(t.Context(), "t", pubsub.Group{Name: "g", AckWait: time.Minute}); fault.ReasonOf(err) != fault.Panicked {
		t.Errorf("got %v", err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
