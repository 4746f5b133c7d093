package blocks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// orderedSink is a stream whose app answers an event only when it has had them all.
type orderedSink struct {
	scriptedSink
	all chan struct{}

	mu   sync.Mutex
	want int
	got  []string
}

func (s *orderedSink) DeliverNext(ctx context.Context, event *appchannel.Event, sent func()) (appchannel.Outcome, error) {
	s.mu.Lock()
	s.got = append(s.got, event.ID)
	if len(s.got) == s.want {
		close(s.all)
	}
	s.mu.Unlock()
	if event.ID == "007" { // one that never gets onto the stream holds up nobody
		return appchannel.Outcome{}, errors.New("the stream refuses it")
	}
	sent()
	select {
	case <-s.all:
		return appchannel.Outcome{}, nil
	case <-ctx.Done():
		return appchannel.Outcome{}, fault.FromContext("deliver", ctx, "the rest")
	}
}

// queuedFeed gives out what it holds, and then nothing until it is closed.
type queuedFeed struct{ left []pubsub.Delivery }

func (f *queuedFeed) Next(ctx context.Context, n int) ([]pubsub.Delivery, error) {
	if len(f.left) == 0 {
		<-ctx.Done()
		return nil, fault.FromContext("next", ctx, "a message")
	}
	n = min(n, len(f.left))
	taken := f.left[:n]
	f.left = f.left[n:]
	return taken, nil
}
func (f *queuedFeed) Close(context.Context) error { return nil }

func TestStreamsGetEventsInTheOrderOfTheirGroup(t *testing.T) {
	const batch, batches = 50, 6
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	feed := &queuedFeed{}
	var want []string
	for i := range batch * batches {
		id := fmt.Sprintf("%03d", i)
		message := pubsub.Message{ID: id}
		if i%5 == 4 { // one that has expired lets nothing overtake what is before it
			message.ContentType = CloudEventJSON
			message.Data = []byte(`{"specversion":"1.0","id":"e","source":"s","type":"t","expiration":"2001-01-01T00:00:00Z"}`)
		} else {
			want = append(want, id)
		}
		feed.left = append(feed.left, &observed{stored: stored{message}, attempt: 1})
	}
	sink := &orderedSink{scriptedSink: scriptedSink{takes: make(chan int, batches)}, all: make(chan struct{}), want: len(want)}
	for range batches {
		sink.takes <- batch
	}
	c := testConsumer(one, sink, feed, appchannel.Subscription{Topic: "orders"})
	c.ordered = sink
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	<-sink.all
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !slices.Equal(sink.got, want) {
		t.Errorf("handed over: %v", sink.got)
	}
}
