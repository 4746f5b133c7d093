//go:build linux

package contrib

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/tests/servers"
)

// fill writes records with the texts from first on to a partition.
func fill(t *testing.T, other *kgo.Client, topic string, partition int32, first, count int) {
	t.Helper()
	for i := range count {
		r := &kgo.Record{Topic: topic, Partition: partition, Value: []byte(fmt.Sprint(partition, "/", first+i))}
		if err := other.ProduceSync(patiently(t), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// comes handles the next message, which is to be this one.
func comes(t *testing.T, f pubsub.Feed, want string) {
	t.Helper()
	d := receive(t, f, 1)[0]
	if got := string(d.Message().Data); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := d.Ack(t.Context()); err != nil {
		t.Error(err)
	}
}

// noted commits how far the group of member has handled a partition.
func noted(t *testing.T, other *kgo.Client, topic string, partition int32, at int64, metadata string) {
	t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: at, LeaderEpoch: -1, Metadata: metadata})
	if err := kadm.NewClient(other).CommitAllOffsets(patiently(t), "g", offsets); err != nil {
		t.Fatal(err)
	}
}

// ownKafka is a server of the test's own: a group of the shared one belongs to all topics.
func ownKafka(t *testing.T) (address string, other *kgo.Client) {
	t.Helper()
	address = servers.Own(t, servers.OfKafka).Address()
	return address, writer(t, address)
}

func TestKafkaGoesOnAtWhatIsLeftWhereTheLogHasPassedItsGroup(t *testing.T) {
	t.Parallel()
	address, other := ownKafka(t)
	const topic = "passed"
	servers.KafkaTopics(t, address, topic)
	fill(t, other, topic, 0, 0, 10)
	noted(t, other, topic, 0, 3, "")
	gone := kadm.Offsets{}
	gone.Add(kadm.Offset{Topic: topic, Partition: 0, At: 8})
	if _, err := kadm.NewClient(other).DeleteRecords(patiently(t), gone); err != nil {
		t.Fatal(err)
	}
	b, f := member(t, topic, kafkaAt(address, map[string]string{"initialOffset": "newest"}))
	defer b.Close(t.Context())
	comes(t, f, "0/8")
	comes(t, f, "0/9")
}

func TestKafkaReadsPartitionsThatAreAddedFromTheirStart(t *testing.T) {
	t.Parallel()
	address, other := ownKafka(t)
	const topic = "grows"
	newest := kafkaAt(address, map[string]string{"initialOffset": "newest"})
	servers.KafkaTopics(t, address, topic)
	fill(t, other, topic, 0, 0, 2)
	b, f := member(t, topic, newest) // all begin at their end, which the group notes
	fill(t, other, topic, 0, 2, 1)
	comes(t, f, "0/2")
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int{5, 6} { // twice: the group still knows with how many it began
		if _, err := kadm.NewClient(other).UpdatePartitions(patiently(t), count, topic); err != nil {
			t.Fatal(err)
		}
		other.ForceMetadataRefresh()
		added := int32(count - 1)
		eventually(t, "the partition", func(ctx context.Context) error {
			return other.ProduceSync(ctx, &kgo.Record{Topic: topic, Partition: added, Value: []byte(fmt.Sprint(added, "/0"))}).FirstErr()
		})
		b, f = member(t, topic, newest)
		comes(t, f, fmt.Sprint(added, "/0"))
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// The members of a new group begin at once, and each commits the ends of its own partitions.
func TestKafkaTellsANewGroupFromPartitionsThatAreAdded(t *testing.T) {
	t.Parallel()
	address, other := ownKafka(t)
	const topic = "begins"
	servers.KafkaTopics(t, address, topic)
	fill(t, other, topic, 1, 0, 2)
	noted(t, other, topic, 0, 0, noteOf(4, "")) // by the member that has the partition 0
	b, f := member(t, topic, kafkaAt(address, map[string]string{"initialOffset": "newest"}))
	defer b.Close(t.Context())
	fill(t, other, topic, 1, 2, 1)
	comes(t, f, "1/2")
	committed, err := kadm.NewClient(other).FetchOffsets(patiently(t), "g")
	if err != nil {
		t.Fatal(err)
	}
	for partition, at := range committed[topic] {
		if text, _ := word(at.Metadata, beganMark); text != "4" {
			t.Errorf("the note of partition %d is %q", partition, at.Metadata)
		}
	}
	if len(committed[topic]) != 4 {
		t.Errorf("the group has committed %v", committed[topic])
	}
}

func TestKafkaNotesOfACommit(t *testing.T) {
	for _, c := range []struct {
		began  int32
		beyond map[int64]bool
	}{{0, nil}, {7, nil}, {0, map[int64]bool{12: true}}, {7, map[int64]bool{11: true, 30: true}}} {
		note := noteOf(c.began, beyond(nil, c.beyond, 10))
		if got := handledBeyond(note, 10); !maps.Equal(got, c.beyond) {
			t.Errorf("%q says %v is handled, not %v", note, got, c.beyond)
		}
		if reads, got := begun(map[int32]kadm.OffsetResponse{0: {Offset: kadm.Offset{At: 10, Metadata: note}}, 1: {Offset: kadm.Offset{At: -1}}}); !reads || got != c.began {
			t.Errorf("%q says %d, not %d", note, got, c.began)
		}
	}
	if reads, _ := begun(map[int32]kadm.OffsetResponse{0: {Offset: kadm.Offset{At: -1}}}); reads {
		t.Error("a group that has committed nothing reads the topic")
	}
}
