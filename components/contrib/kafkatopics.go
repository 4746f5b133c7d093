package contrib

import (
	"bytes"
	"context"
	"errors"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"
	kitmetadata "github.com/dapr/kit/metadata"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// kafkaCodec: an event has its id, key and type in its envelope. A record has the key too, and what was published raw the rest
// in headers.
var kafkaCodec = codec{
	unique: true,
	encode: func(m *pubsub.Message) map[string]string {
		metadata := besideData(m)
		maps.DeleteFunc(metadata, func(name, _ string) bool {
			_, given := m.Metadata[name]
			return ofTheRecord(name) && !given
		})
		if m.ContentType != cloudEvent {
			metadata[idKey], metadata[typeKey] = m.ID, m.ContentType
		}
		if m.Key != "" {
			metadata[keyKey] = m.Key
		}
		return metadata
	},
	decode: func(m *contribpubsub.NewMessage) (pubsub.Message, string) {
		message := event(m)
		token := m.Metadata["__partition"] + " " + m.Metadata["__offset"] + " " + m.Metadata["__timestamp"]
		if key := m.Metadata[keyKey]; key != "" {
			message.Key = key
		}
		if id, ok := m.Metadata[idKey]; ok {
			message.ID, message.ContentType = id, m.Metadata[typeKey]
		}
		message.Header = make(map[string]string, len(m.Metadata))
		for name, value := range m.Metadata {
			switch name {
			case idKey, typeKey, keyKey:
			default:
				message.Header[name] = value
			}
		}
		return named(message), token
	},
}

// ofTheRecord says whether metadata of that name tells about a record, where it is.
func ofTheRecord(name string) bool {
	switch name {
	case recordKey, "__topic", "__partition", "__offset", "__timestamp":
		return true
	}
	return false
}

// kafkaPublisher writes records, or reads those of one group.
type kafkaPublisher struct {
	log        logger.Logger
	connection *kafkaConnection
	group      string
	client     *kgo.Client // nil where records are read

	mu     sync.Mutex
	reader *kafkaReader // nil before Subscribe
	closed bool
}

func newKafkaTopics(log logger.Logger) contribpubsub.PubSub { return &kafkaPublisher{log: log} }

var (
	_ contribpubsub.PubSub = (*kafkaPublisher)(nil)
	_ batchPublisher       = (*kafkaPublisher)(nil)
)

func (k *kafkaPublisher) Init(ctx context.Context, m contribpubsub.Metadata) (err error) {
	k.group = m.Properties["consumerID"]
	if k.connection, err = newKafkaConnection("pubsub.kafka", m.Properties, k.log); err != nil || k.group != publisher {
		return err
	}
	k.client, err = k.connection.producer(ctx)
	return err
}

func (*kafkaPublisher) Features() []contribpubsub.Feature                 { return nil }
func (*kafkaPublisher) GetComponentMetadata() contribmetadata.MetadataMap { return nil }

func (k *kafkaPublisher) Close() error {
	if k.client != nil {
		k.client.Close()
	}
	k.mu.Lock()
	k.closed = true
	reader := k.reader
	k.mu.Unlock()
	if reader != nil {
		reader.close()
	}
	return nil
}

func (k *kafkaPublisher) Publish(ctx context.Context, request *contribpubsub.PublishRequest) error {
	return k.publishBatch(ctx, []*contribpubsub.PublishRequest{request})[0]
}

// publishBatch writes records in order.
func (k *kafkaPublisher) publishBatch(ctx context.Context, requests []*contribpubsub.PublishRequest) []error {
	records, errs := make([]*kgo.Record, len(requests)), make([]error, len(requests))
	for i, request := range requests {
		records[i], errs[i] = k.connection.record(ctx, request.Topic, request.Data, request.Metadata)
	}
	k.connection.write(ctx, k.client, records, errs)
	return errs
}

// write writes those records that have no error, and notes what became of each.
func (k *kafkaConnection) write(ctx context.Context, client *kgo.Client, records []*kgo.Record, errs []error) {
	written := make(chan struct{}, len(records))
	count := 0
	gone := map[string]bool{}
	for i, record := range records {
		if errs[i] != nil {
			continue
		}
		count++
		client.Produce(ctx, record, func(_ *kgo.Record, err error) {
			errs[i] = kafkaFailure(k.name, err)
			written <- struct{}{}
		})
	}
	for range count {
		<-written
	}
	for i, record := range records {
		if errors.Is(errs[i], kerr.UnknownTopicID) || errors.Is(errs[i], kerr.UnknownTopicOrPartition) {
			gone[record.Topic] = true
		}
	}
	for topic := range gone { // or else the client knows the topic that was deleted, and not the one that was made in its place
		client.PurgeTopicsFromProducing(topic)
	}
}

// partitionNumber is the key under which a record's context holds the partition that it is to go to.
type partitionNumber struct{}

// record makes a record. Metadata are headers, and some of them more than that.
func (k *kafkaConnection) record(ctx context.Context, topic string, data []byte, metadata map[string]string) (*kgo.Record, error) {
	r := &kgo.Record{Topic: topic, Value: data, Headers: make([]kgo.RecordHeader, 0, len(metadata))}
	for _, name := range []string{partitionKey, recordKey, keyKey} {
		if key, ok := metadata[name]; ok {
			r.Key = []byte(key)
		}
	}
	number, err := partitionOf(metadata)
	if err != nil {
		return nil, fault.E(k.name, fault.None, fault.BadRequest, err)
	}
	if number >= 0 {
		r.Context = context.WithValue(ctx, partitionNumber{}, number)
	}
	size := len(data) + len(r.Key)
	room := pubsub.LetterRoom
	for name, value := range metadata {
		if name == keyKey || k.exclude != nil && name != idKey && name != typeKey && k.exclude.MatchString(name) {
			continue
		}
		if strings.HasPrefix(name, pubsub.LetterPrefix) { // what it was made of had to leave the room
			room = 0
		}
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
		size += len(name) + len(value) + headerRoom
	}
	switch kind, _ := kitmetadata.GetMetadataProperty(metadata, schemaKey); {
	case bytes.Equal(data, null):
		r.Value = nil // as with the library: what ends a key in a compacted topic
	case strings.EqualFold(kind, "avro"):
		if r.Value, err = k.schemas.encode(ctx, topic, data); err != nil {
			return nil, err
		}
	case data == nil:
		r.Value = []byte{}
	}
	if most := k.largest() - batchRoom - min(room, k.largest()/8); size > most {
		return nil, fault.New(k.name, fault.BodyTooLarge, "the message has %d bytes with its key and headers, and at most %d are allowed: "+
			"raise maxMessageBytes and the servers' message.max.bytes, or keep the payload in a state store and publish its key", size, most)
	}
	return r, nil
}

var null = []byte("null")

// What the format of records adds to a header, and to a batch of one record: KIP-98.
const (
	headerRoom = 10
	batchRoom  = 128
)

// kafkaPartitioner sends a key where the library's client sends it, so that both may write to one topic.
var kafkaPartitioner = kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
	hash := kgo.SaramaCompatHasher(func(key []byte) uint32 {
		h := fnv.New32a()
		_, _ = h.Write(key) // never fails
		return h.Sum32()
	})
	return func(r *kgo.Record, n int) int {
		switch number, given := r.Context.Value(partitionNumber{}).(int32); {
		case given:
			return int(number) // what does not exist is refused by the client
		case r.Key == nil:
			return rand.IntN(n)
		}
		return hash(r.Key, n)
	}
})

// Subscribe joins the group. When it fails, or Close was called meanwhile, nothing of it is left there.
func (k *kafkaPublisher) Subscribe(ctx context.Context, request contribpubsub.SubscribeRequest, handler contribpubsub.Handler) error {
	reader, err := k.begin(request, handler)
	if err == nil {
		err = reader.await(ctx)
	}
	if err != nil && reader != nil {
		reader.close()
	}
	return err
}

// begin begins to read, unless Close was called, which closes the reader otherwise.
func (k *kafkaPublisher) begin(request contribpubsub.SubscribeRequest, handler contribpubsub.Handler) (*kafkaReader, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return nil, errReaderClosed
	case k.reader != nil:
		return nil, errors.New("it reads already")
	}
	avro := request.Metadata[schemaKey] != ""
	k.reader = &kafkaReader{
		group: k.group,
		convert: func(ctx context.Context, r *kgo.Record) ([]byte, error) {
			return k.connection.value(ctx, r, avro)
		},
		handle: func(call *kafkaCall, r *kgo.Record, data []byte) error {
			metadata := k.connection.metadataOf(r)
			if len(r.Key) > 0 {
				metadata[keyKey] = string(r.Key) // as it is, escaped or not
			}
			return handler(call, &contribpubsub.NewMessage{Topic: r.Topic, Data: data, Metadata: metadata})
		},
	}
	return k.reader, k.connection.read(k.reader, []string{request.Topic})
}

// value is what an app gets of a record.
func (k *kafkaConnection) value(ctx context.Context, r *kgo.Record, avro bool) ([]byte, error) {
	switch {
	case r.Value == nil:
		return null, nil
	case avro:
		return k.schemas.decode(ctx, r.Value)
	}
	return r.Value, nil
}

// metadataOf is what a record has beside its value.
func (k *kafkaConnection) metadataOf(r *kgo.Record) map[string]string {
	escape := func(text []byte) string {
		if k.values["escapeHeaders"] == "true" {
			return url.QueryEscape(string(text))
		}
		return string(text)
	}
	metadata := make(map[string]string, len(r.Headers)+6)
	for _, h := range r.Headers {
		switch {
		case h.Key == idKey, h.Key == typeKey:
			metadata[h.Key] = string(h.Value)
		case k.exclude == nil || !k.exclude.MatchString(h.Key):
			metadata[h.Key] = escape(h.Value)
		}
	}
	if r.Key != nil {
		metadata[recordKey] = escape(r.Key)
	}
	metadata["__topic"] = r.Topic
	metadata["__partition"] = strconv.FormatInt(int64(r.Partition), 10)
	metadata["__offset"] = strconv.FormatInt(r.Offset, 10)
	metadata["__timestamp"] = strconv.FormatInt(r.Timestamp.UnixMilli(), 10)
	return metadata
}

// storedAt is the time of a message whose broker tells it.
func storedAt(m *contribpubsub.NewMessage) time.Time {
	if ms, err := strconv.ParseInt(m.Metadata["__timestamp"], 10, 64); err == nil && ms > 0 {
		return time.UnixMilli(ms)
	}
	return time.Now()
}
