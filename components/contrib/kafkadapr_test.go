//go:build linux

package contrib

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	contribkafka "github.com/dapr/components-contrib/pubsub/kafka"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/tests/servers"
)

// The library does not close the client of its producer, nor what counts its requests.
func init() {
	for _, left := range []string{
		"github.com/IBM/sarama.(*Broker).responseReceiver", "github.com/IBM/sarama.(*client).backgroundMetadataUpdater", "github.com/rcrowley/go-metrics.(*meterArbiter).tick",
	} {
		tolerated = append(tolerated, goleak.IgnoreAnyFunction(left))
	}
}

var sharedOnce atomic.Bool

// A daprd may be a member of the same group and write to the same topic: both have their share, and a key goes to one partition.
func TestKafkaSharesAGroupWithADaprd(t *testing.T) {
	t.Parallel()
	if sharedOnce.Swap(true) {
		t.Skip("the library's client has one log for the process, and writes that variable anew while what it left behind reads it")
	}
	address, topic := servers.Kafka(t), fmt.Sprintf("shared%d", places.Add(1))
	servers.KafkaTopics(t, address, topic)
	ctx, stop := context.WithCancel(patiently(t))
	defer stop()
	theirs := contribkafka.NewKafka(newLogs(discard, nil))
	settings := kafkaAt(address, nil)
	settings["consumerID"] = "g"
	if err := theirs.Init(ctx, contribpubsub.Metadata{Base: contribmetadata.Base{Properties: settings}}); err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()

	var mu sync.Mutex
	share, where, got := map[string]int{}, map[string]string{}, map[string]bool{}
	note := func(who, key, partition, data string) {
		mu.Lock()
		defer mu.Unlock()
		share[who]++
		got[data] = true
		if before := where[key]; before != "" && before != partition {
			t.Errorf("%s is in partitions %s and %s", key, before, partition)
		}
		where[key] = partition
	}
	b, f := member(t, topic, kafkaAt(address, nil))
	defer b.Close(t.Context())
	if err := theirs.Subscribe(ctx, contribpubsub.SubscribeRequest{Topic: topic}, func(_ context.Context, m *contribpubsub.NewMessage) error {
		note("theirs", m.Metadata["__key"], m.Metadata["__partition"], string(m.Data))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			ds, err := f.Next(ctx, 8)
			if err != nil {
				return
			}
			for _, d := range ds {
				note("ours", d.Message().Key, d.Message().Header["__partition"], string(d.Message().Data))
				_ = d.Ack(context.WithoutCancel(ctx))
			}
		}
	})
	sent := 0
	eventually(t, "a group of two makes", func(ctx context.Context) error { // it takes a while until both have a share
		for k := range 8 {
			key := fmt.Sprint("key", k)
			if err := b.Publish(ctx, topic, []pubsub.Message{{ID: "1", Key: key, Data: []byte(fmt.Sprint("ours", sent))}})[0]; err != nil {
				return err
			}
			if err := theirs.Publish(ctx, &contribpubsub.PublishRequest{Topic: topic, Data: []byte(fmt.Sprint("theirs", sent)), Metadata: map[string]string{"partitionKey": key}}); err != nil {
				return err
			}
			sent++
		}
		mu.Lock()
		defer mu.Unlock()
		if share["ours"] == 0 || share["theirs"] == 0 {
			return fmt.Errorf("the shares are %v", share)
		}
		return nil
	})
	eventually(t, "everything", func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if len(got) != 2*sent {
			return fmt.Errorf("%d of %d came", len(got), 2*sent)
		}
		return nil
	})
	stop()
	reading.Wait()
}
