package contrib

import (
	"context"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A commit says up to where all records of a partition have been handled. Those beyond that have been handled too are bits of its
// metadata, a text that Kafka keeps with it: the first bit is that of the committed offset. Another word there is how many
// partitions the topic had when the group began at its end. Members of other makes pass over both.
const (
	beyondMark = "sidecast-handled:"
	beganMark  = "sidecast-began:"
	// mostBeyond is how many bits there are: a server takes 4096 bytes of metadata unless it is told otherwise.
	mostBeyond = 8 * 2048
)

// beyond is the metadata for those of open that are done, and those of known; next is the committed offset.
func beyond(open []*kafkaPending, known map[int64]bool, next int64) string {
	var bits []byte
	set := func(offset int64) {
		at := offset - next
		if at < 0 || at >= mostBeyond {
			return
		}
		for int64(len(bits)) <= at/8 {
			bits = append(bits, 0)
		}
		bits[at/8] |= 1 << (at % 8)
	}
	for _, p := range open {
		if p.done {
			set(p.record.Offset)
		}
	}
	for offset := range known {
		set(offset)
	}
	if bits == nil {
		return ""
	}
	return beyondMark + base64.RawStdEncoding.EncodeToString(bits)
}

// noteOf is the metadata of a commit; began is 0 where it is not known.
func noteOf(began int32, beyond string) string {
	if began == 0 {
		return beyond
	}
	return strings.TrimSpace(beganMark + strconv.Itoa(int(began)) + " " + beyond)
}

// handled is what a group had handled of a partition before: all up to base, and offsets beyond. Began is how many partitions
// the topic had when the group began at its end, or 0.
type handled struct {
	base    int64
	offsets map[int64]bool
	began   int32
}

// word is what follows mark in metadata.
func word(metadata, mark string) (text string, ours bool) {
	for text := range strings.FieldsSeq(metadata) {
		if text, ours := strings.CutPrefix(text, mark); ours {
			return text, true
		}
	}
	return "", false
}

// handledBeyond reads what beyond wrote; nil if that is nothing.
func handledBeyond(metadata string, next int64) map[int64]bool {
	text, ours := word(metadata, beyondMark)
	if !ours {
		return nil
	}
	bits, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	known := map[int64]bool{}
	for i, b := range bits {
		for bit := range 8 {
			if b&(1<<bit) != 0 {
				known[next+int64(8*i+bit)] = true
			}
		}
	}
	return known
}

// begin finds out what had been handled of partitions. Where the group has nothing and begins at what is published from now on,
// it commits the end: what comes then is the group's, whoever reads it. But a partition that was added to a topic which the
// group reads begins at its start: what is there was published since.
func (r *kafkaReader) begin(ctx context.Context, client *kgo.Client, partitions map[string][]int32) map[kafkaPlace]handled {
	ctx, cancel := context.WithTimeout(ctx, 2*committing)
	defer cancel()
	known := map[kafkaPlace]handled{}
	committed, err := kadm.NewClient(client).FetchOffsets(ctx, r.group)
	if err != nil {
		r.log.Errorf("what the group %s has handled is not known: %v", r.group, err)
		return known
	}
	var first beginning
	for topic, numbers := range partitions {
		reads, began := begun(committed[topic])
		for _, number := range numbers {
			place := kafkaPlace{topic, number}
			h := handled{began: began}
			if at, ok := committed.Lookup(topic, number); ok && at.At >= 0 {
				h.base, h.offsets = at.At, handledBeyond(at.Metadata, at.At)
			} else if reads && number >= began {
				first.starts = append(first.starts, place)
			} else {
				first.ends = append(first.ends, place)
			}
			known[place] = h
		}
	}
	if r.newest {
		if err := r.beginAt(ctx, client, first, known); err != nil {
			r.log.Errorf("where the group %s begins is not kept: %v", r.group, err)
		}
	}
	return known
}

// begun says whether a group reads a topic of which it has committed this, and how many partitions it began with: 0 if none
// of its members says so. With those it began, whoever of its members had them and has not committed yet.
func begun(committed map[int32]kadm.OffsetResponse) (reads bool, began int32) {
	for _, at := range committed {
		if at.At < 0 {
			continue
		}
		reads = true
		text, _ := word(at.Metadata, beganMark)
		if n, err := strconv.ParseInt(text, 10, 32); err == nil && n > 0 && (began == 0 || int32(n) < began) {
			began = int32(n)
		}
	}
	return reads, began
}

// beginning are partitions of which a group has committed nothing: those that it begins at their end, and at their start.
type beginning struct{ ends, starts []kafkaPlace }

// beginAt commits where the group begins, and notes in known how many partitions a topic has that it begins to read.
func (r *kafkaReader) beginAt(ctx context.Context, client *kgo.Client, first beginning, known map[kafkaPlace]handled) error {
	offsets, notes := commits{}, map[kafkaPlace]string{}
	admin := kadm.NewClient(client)
	for _, part := range []struct {
		places []kafkaPlace
		list   func(context.Context, ...string) (kadm.ListedOffsets, error)
		new    bool // the topic is new to the group, unless it is known with how many partitions it began
	}{{first.ends, admin.ListEndOffsets, true}, {first.starts, admin.ListStartOffsets, false}} {
		if len(part.places) == 0 {
			continue
		}
		topics := map[string]bool{}
		for _, place := range part.places {
			topics[place.topic] = true
		}
		listed, err := part.list(ctx, slices.Collect(maps.Keys(topics))...)
		if err != nil {
			return err
		}
		for _, place := range part.places {
			at, ok := listed.Lookup(place.topic, place.partition)
			if !ok || at.Err != nil {
				continue
			}
			h := known[place]
			if h.began == 0 && part.new {
				h.began = int32(len(listed[place.topic]))
				known[place] = h
			}
			offsets.add(place, at.Offset, at.LeaderEpoch)
			notes[place] = noteOf(h.began, "")
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	return sendCommits(ctx, client, offsets, notes)
}

type commits map[string]map[int32]kgo.EpochOffset

func (c commits) add(at kafkaPlace, offset int64, epoch int32) {
	if c[at.topic] == nil {
		c[at.topic] = map[int32]kgo.EpochOffset{}
	}
	c[at.topic][at.partition] = kgo.EpochOffset{Epoch: epoch, Offset: offset}
}

// keepCommitting commits what there is, a second after there is something.
func (r *kafkaReader) keepCommitting(ctx context.Context) {
	for {
		select {
		case <-r.bell:
		case <-ctx.Done():
			return
		}
		pause(ctx, time.Second)
		if ctx.Err() != nil {
			return // revoked does it
		}
		r.mu.Lock()
		claims := make([]*kafkaClaim, 0, len(r.claims))
		for _, c := range r.claims {
			claims = append(claims, c)
		}
		r.mu.Unlock()
		bounded, cancel := context.WithTimeout(ctx, committing)
		r.commit(bounded, claims)
		cancel()
	}
}

// commit commits what has been handled of claims since they were last committed.
func (r *kafkaReader) commit(ctx context.Context, claims []*kafkaClaim) {
	all, metadata := commits{}, map[kafkaPlace]string{}
	var sent []*kafkaClaim
	r.mu.Lock()
	for _, c := range claims {
		if !c.dirty {
			continue
		}
		next, epoch := c.next, c.epoch
		if len(c.open) > 0 {
			next = c.open[0].record.Offset
			epoch = c.open[0].record.LeaderEpoch
		}
		all.add(c.place, next, epoch)
		metadata[c.place] = noteOf(c.began, beyond(c.open, c.known, next))
		c.dirty = false
		sent = append(sent, c)
	}
	r.mu.Unlock()
	if len(sent) == 0 {
		return
	}
	err := sendCommits(ctx, r.client, all, metadata)
	if err == nil {
		return
	}
	r.log.Debugf("what was handled of the group %s is not committed yet: %v", r.group, err)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range sent {
		c.dirty = c.dirty || !c.closed
	}
	r.ring()
}

func sendCommits(ctx context.Context, client *kgo.Client, all commits, metadata map[kafkaPlace]string) (err error) {
	ctx = kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
		for i, topic := range request.Topics {
			for j, partition := range topic.Partitions {
				text := metadata[kafkaPlace{topic.Topic, partition.Partition}]
				request.Topics[i].Partitions[j].Metadata = &text
			}
		}
		return nil
	})
	client.CommitOffsetsSync(ctx, all, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, failed error) {
		if err = failed; err != nil {
			return
		}
		for _, topic := range answer.Topics {
			for _, partition := range topic.Partitions {
				err = errors.Join(err, kerr.ErrorForCode(partition.ErrorCode))
			}
		}
	})
	return err
}
