package contrib

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/pubsub"
)

// spinning is a component of the library whose server has gone: it reads, fails and reads again.
type spinning struct {
	contribpubsub.PubSub
	log   logger.Logger
	reads int
	ended chan struct{}
}

func (s *spinning) Init(context.Context, contribpubsub.Metadata) error { return nil }

func (s *spinning) Subscribe(ctx context.Context, _ contribpubsub.SubscribeRequest, _ contribpubsub.Handler) error {
	s.ended = make(chan struct{})
	go func() {
		defer close(s.ended)
		for ctx.Err() == nil {
			s.reads++
			s.log.Errorf("redis streams: error reading from stream %s: %s", "t", "connection refused")
		}
	}()
	return nil
}

func (s *spinning) Close() error {
	if s.ended != nil {
		<-s.ended
	}
	return nil
}

func TestALibraryWithoutItsServerNeitherSpinsNorFloodsTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var subscriber *spinning
		p := &product{
			make:  func(log logger.Logger) contribpubsub.PubSub { subscriber = &spinning{log: log}; return subscriber },
			codec: metadataCodec, spins: redisStreams.spins,
		}
		var out strings.Builder
		c := p.component("spinning", "For tests.")
		backend, err := c.Open(t.Context(), components.Host{Log: slog.New(slog.NewTextHandler(&out, nil))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		b := backend.(pubsub.Broker)
		if _, err := b.Subscribe(t.Context(), "t", pubsub.Group{Name: "g", AckWait: 2 * hung}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90*time.Second + time.Millisecond)
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if most := int(91 * time.Second / pace); subscriber.reads > most {
			t.Errorf("it read %d times in 90 seconds, at most %d are wanted", subscriber.reads, most)
		}
		if lines := strings.Count(out.String(), "connection refused"); lines != 2 {
			t.Errorf("the log has %d lines, want one a minute:\n%s", lines, out.String())
		}
	})
}

// stubborn is a library that makes a subscription again and again which its server refuses, and whose Close waits for that with
// the lock that it takes.
type stubborn struct {
	contribpubsub.PubSub
	log  logger.Logger
	mu   sync.Mutex
	runs sync.WaitGroup
}

func (*stubborn) Init(context.Context, contribpubsub.Metadata) error { return nil }
func (*stubborn) Features() []contribpubsub.Feature                  { return nil }

func (s *stubborn) Subscribe(context.Context, contribpubsub.SubscribeRequest, contribpubsub.Handler) error {
	s.runs.Go(func() {
		for {
			s.mu.Lock()
			s.log.Errorf("declare failed: Exception (406)")
			time.Sleep(time.Millisecond)
			s.mu.Unlock()
			s.log.Errorf("error in subscriber for %s: %s", "t", "Exception (406)")
		}
	})
	s.runs.Wait()
	return errors.New("it ended")
}

func (s *stubborn) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs.Wait()
	return nil
}

func TestASubscriptionThatIsRefusedIsNotMadeAgain(t *testing.T) {
	p := &product{
		make:  func(log logger.Logger) contribpubsub.PubSub { return &stubborn{log: log} },
		codec: amqpCodec, refused: rabbitQueues.refused, again: rabbitQueues.again,
	}
	backend, err := p.component("stubborn", "For tests.").Open(t.Context(), components.Host{Log: unheard}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := backend.(pubsub.Broker)
	if _, err := b.Subscribe(patiently(t), "t", pubsub.Group{Name: "g", AckWait: 2 * hung}); err == nil || !strings.Contains(err.Error(), "Exception (406)") {
		t.Errorf("got %v", err)
	}
	if err := b.Close(patiently(t)); err != nil {
		t.Error(err)
	}
}

func TestLinesAreForgotten(t *testing.T) {
	var l lines
	now := time.Now()
	for i := range 3 * mostRecent {
		if l.repeat(strings.Repeat("x", i), now) {
			t.Errorf("line %d is new", i)
		}
	}
	if len(l.last) > mostRecent {
		t.Errorf("%d lines are remembered", len(l.last))
	}
}

// What readers say of connections that their own program has closed is no warning.
func TestStoppingIsNoNews(t *testing.T) {
	var out bytes.Buffer
	log := newLogs(slog.New(slog.NewTextHandler(&out, nil)), nil)
	log.Warnf("error reading from stream orders: read tcp: %v", net.ErrClosed)
	if out.Len() > 0 {
		t.Errorf("written: %s", out.String())
	}
	log.Warnf("error reading from stream orders: connection reset by peer")
	if !strings.Contains(out.String(), "connection reset") {
		t.Errorf("written: %q", out.String())
	}
}
