//go:build linux

package contrib

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidecast/sidecast/tests/servers"
)

// A record that had been handled before, out of turn, is passed over: those behind it wait for those before it.
func TestKafkaSerialReaderPassesOverWhatHadBeenHandled(t *testing.T) {
	for name, open := range map[string]bool{"behind one at work": true, "behind one that is done": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				var mu sync.Mutex
				var got []int64
				r := &kafkaReader{
					log: newLogs(discard, nil), serial: true, window: 100, bell: make(chan struct{}, 1), claims: map[kafkaPlace]*kafkaClaim{},
					convert: func(_ context.Context, record *kgo.Record) ([]byte, error) { return record.Value, nil },
					handle: func(call *kafkaCall, record *kgo.Record, _ []byte) error {
						call.begun()
						if record.Offset == 0 {
							<-release
						}
						mu.Lock()
						defer mu.Unlock()
						got = append(got, record.Offset)
						return nil
					},
				}
				c := &kafkaClaim{place: kafkaPlace{"t", 0}, leaving: make(chan struct{}), next: -1, known: map[int64]bool{1: true, 2: true, 4: true}}
				c.ctx, c.cancel = context.WithCancel(t.Context())
				defer c.cancel()
				r.claims[c.place] = c
				handled := func(want ...int64) {
					t.Helper()
					synctest.Wait()
					mu.Lock()
					defer mu.Unlock()
					if !slices.Equal(got, want) {
						t.Errorf("%v are handled, not %v", got, want)
					}
				}
				r.take(t.Context(), &kgo.Record{Topic: "t", Offset: 0})
				if !open {
					close(release)
					handled(0)
				}
				for offset := range int64(5) {
					r.take(t.Context(), &kgo.Record{Topic: "t", Offset: offset + 1})
				}
				if open {
					handled()
					close(release)
				}
				handled(0, 3, 5)
				if r.mu.Lock(); c.next != 6 || len(c.open) > 0 {
					t.Errorf("all up to %d is handled, and %d are not", c.next, len(c.open))
				}
				r.mu.Unlock()
				c.working.Wait()
			})
		})
	}
}

// kafkaSubscriber is what reads for the group g.
func kafkaSubscriber(t *testing.T, address string) *kafkaPublisher {
	t.Helper()
	values := kafkaDefaults(kafkaAt(address, map[string]string{"consumerID": "g"}))
	k := &kafkaPublisher{log: newLogs(discard, nil)}
	if err := k.Init(t.Context(), contribpubsub.Metadata{Base: contribmetadata.Base{Properties: values}}); err != nil {
		t.Fatal(err)
	}
	return k
}

func nobody(context.Context, *contribpubsub.NewMessage) error { return errGivenBack }

// Whoever ends first, Subscribe or Close: no member is left in the group, and nothing runs, which the package's tests find out.
func TestKafkaLeavesNoMemberBehind(t *testing.T) {
	t.Parallel()
	address, other := ownKafka(t)
	servers.KafkaTopics(t, address, "left")
	request := contribpubsub.SubscribeRequest{Topic: "left"}

	ended, end := context.WithCancel(t.Context())
	end()
	if err := kafkaSubscriber(t, address).Subscribe(ended, request, nobody); !errors.Is(err, context.Canceled) {
		t.Errorf("Subscribe, called off: %v", err)
	}
	closed := kafkaSubscriber(t, address)
	if err := closed.Close(); err != nil {
		t.Error(err)
	}
	if err := closed.Subscribe(t.Context(), request, nobody); !errors.Is(err, errReaderClosed) {
		t.Errorf("Subscribe after Close: %v", err)
	}
	for range 4 {
		k := kafkaSubscriber(t, address)
		var both sync.WaitGroup
		both.Go(func() {
			if err := k.Subscribe(patiently(t), request, nobody); err != nil && !errors.Is(err, errReaderClosed) {
				t.Errorf("Subscribe beside Close: %v", err)
			}
		})
		both.Go(func() {
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
	}
	eventually(t, "an empty group", func(ctx context.Context) error {
		groups, err := kadm.NewClient(other).DescribeGroups(ctx, "g")
		if n := len(groups["g"].Members); err == nil && n > 0 {
			err = fmt.Errorf("%d members are left", n)
		}
		return err
	})
}
