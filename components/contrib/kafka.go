package contrib

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	"github.com/dapr/kit/logger"
	kitmetadata "github.com/dapr/kit/metadata"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

var kafkaPubSub = kafkaTopics.component("kafka", "Topics of Apache Kafka or a server that speaks its protocol, 0.11 or newer. Messages of one key come in order.")

// kafkaTopics is not the library's: that one goes on to the next message, and acknowledges it and with it all that came before,
// when one was not handled; it handles one message of a partition at a time, or with bulk subscriptions one batch of all
// partitions; it does not hear when it is called off, and its client's log is one variable for the whole process, which each
// component that opens writes anew. Settings, records, consumer groups and the choice of partitions are the same, so that both
// may be members of one group.
var kafkaTopics = &product{
	make: newKafkaTopics, fields: kafkaFields, codec: kafkaCodec, moves: true,
	refused: []string{kerr.GroupAuthorizationFailed.Message, kerr.TopicAuthorizationFailed.Message, kerr.InvalidTopicException.Message},
	settle: func(values map[string]string, _ components.Settings, _ string, g pubsub.Group) {
		values["consumerID"] = cmp.Or(g.Name, publisher)
		if g.OnlyNew {
			values["initialOffset"] = "newest"
		}
	},
	topic: func(topic string) error {
		if !kafkaName().MatchString(topic) || strings.Trim(topic, ".") == "" {
			return fmt.Errorf("the topic %q is no name of Kafka: up to 249 letters, digits, dots, hyphens and underscores", topic)
		}
		return nil
	},
	message: func(m *pubsub.Message) error {
		_, err := partitionOf(m.Metadata)
		return err
	},
	options: func(metadata map[string]string) (map[string]string, error) {
		options := map[string]string{}
		kind, given := kitmetadata.GetMetadataProperty(metadata, schemaKey)
		if !given || strings.EqualFold(kind, "none") {
			return options, nil
		}
		if !strings.EqualFold(kind, "avro") {
			return nil, fmt.Errorf("%s is %q; valid: Avro, None", schemaKey, kind)
		}
		options[schemaKey] = kind
		return options, nil
	},
	order: func(m *contribpubsub.NewMessage, key string, s components.Settings) string {
		if s.Values["consumeOrder"] == "partition" {
			return "partition " + m.Metadata["__partition"]
		}
		return key
	},
}

var kafkaName = onFirstUse(`^[a-zA-Z0-9._-]{1,249}$`)

// The metadata of a request that are more than headers.
const (
	partitionKey       = "partitionKey"
	recordKey          = "__key"
	partitionNumberKey = "partitionNumber"
	schemaKey          = "valueSchemaType"
)

// partitionOf is the partition that metadata asks for, or -1.
func partitionOf(metadata map[string]string) (int32, error) {
	text, given := metadata[partitionNumberKey]
	if !given {
		return -1, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%s is %q, which is no number of a partition", partitionNumberKey, text)
	}
	return int32(n), nil
}

// kafkaConnection is what the settings say of a component's connections.
type kafkaConnection struct {
	name    string
	values  map[string]string
	log     logger.Logger
	options []kgo.Opt // of every client
	exclude *regexp.Regexp
	schemas *schemaRegistry // nil without one
	spans   map[string]time.Duration
}

// newKafkaConnection reads the settings, whose types have been checked.
func newKafkaConnection(name string, values map[string]string, log logger.Logger) (*kafkaConnection, error) {
	k := &kafkaConnection{name: name, values: values, log: log}
	var err error
	if k.spans, err = kafkaDurations(values); err != nil {
		return nil, err
	}
	if text := values["excludeHeaderMetaRegex"]; text != "" {
		if k.exclude, err = regexp.Compile(text); err != nil {
			return nil, fmt.Errorf("excludeHeaderMetaRegex: %w", err)
		}
	}
	k.schemas = newSchemaRegistry(values, k.duration("schemaLatestVersionCacheTTL"))
	tls, mechanism, err := kafkaSecurity(values, log)
	if err != nil {
		return nil, err
	}
	dialer := kafkaDialer(tls, &net.Dialer{Timeout: k.duration("dialTimeout"), KeepAlive: k.duration("clientConnectionKeepAliveInterval")})
	k.options = []kgo.Opt{
		kgo.SeedBrokers(k.list("brokers")...), kgo.ClientID(values["clientID"]), kgo.Dialer(dialer), kgo.WithLogger(kafkaLog{log}),
		kgo.AllowAutoTopicCreation(), kgo.DisableClientMetrics(), kgo.ConnIdleTimeout(3 * time.Minute), kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.MetadataMaxAge(cmp.Or(k.duration("clientConnectionTopicMetadataRefreshInterval"), 8*time.Minute)),
		kgo.RequestTimeoutOverhead(cmp.Or(k.duration("readTimeout"), k.duration("metadataTimeout"), connecting)),
	}
	if mechanism != nil {
		k.options = append(k.options, kgo.SASL(mechanism))
	}
	if text := values["version"]; text != "" {
		versions := kversion.FromString(text)
		if versions == nil {
			return nil, fmt.Errorf("version %q is none of Kafka", text)
		}
		k.options = append(k.options, kgo.MaxVersions(versions))
	}
	return k, nil
}

func (k *kafkaConnection) list(key string) []string {
	return slices.DeleteFunc(strings.FieldsFunc(k.values[key], func(r rune) bool { return r == ',' || r == ' ' }), func(s string) bool { return s == "" })
}

func (k *kafkaConnection) duration(key string) time.Duration { return k.spans[key] }

// kafkaSpans are the keys whose text is a duration.
var kafkaSpans = []string{
	"heartbeatInterval", "sessionTimeout", "clientConnectionTopicMetadataRefreshInterval", "clientConnectionKeepAliveInterval", "dialTimeout",
	"readTimeout", "writeTimeout", "metadataTimeout", "consumeRetryInterval", "schemaLatestVersionCacheTTL",
}

// kafkaDurations reads those there are.
func kafkaDurations(values map[string]string) (map[string]time.Duration, error) {
	spans := make(map[string]time.Duration, len(kafkaSpans))
	for _, key := range kafkaSpans {
		text := strings.TrimSpace(values[key])
		if text == "" {
			continue
		}
		d, err := kafkaDuration(text)
		if err != nil || d < 0 {
			return nil, fmt.Errorf("%s is %q, which is no duration of 0 or more: like 5s, or a number of seconds", key, text)
		}
		spans[key] = d
	}
	heartbeat, session := spans["heartbeatInterval"], spans["sessionTimeout"]
	if heartbeat < time.Millisecond || heartbeat >= session {
		return nil, fmt.Errorf("heartbeatInterval is %s, and must be at least 1ms and less than the sessionTimeout of %s", heartbeat, session)
	}
	return spans, nil
}

// kafkaDuration reads a duration; as with the library, a plain number is of seconds.
func kafkaDuration(text string) (time.Duration, error) {
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		text += "s"
	}
	return time.ParseDuration(text)
}

func (k *kafkaConnection) number(key string) int {
	n, _ := strconv.Atoi(strings.TrimSpace(k.values[key]))
	return n
}

// client makes a client, which connects when it is used.
func (k *kafkaConnection) client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(slices.Clone(k.options), options...)...)
}

// largest is how many bytes a record may have where the settings say nothing, as with the library's client.
const largest = 1 << 20

var kafkaAcks = map[string]kgo.Acks{"all": kgo.AllISRAcks(), "local": kgo.LeaderAck(), "none": kgo.NoAck()}

var kafkaCompression = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// producer makes a client that writes, and tries whether the servers can be reached. A record is written once, unless the
// settings say otherwise: the lane retries. One request of a broker is on its way at a time, or else one that fails would let
// those behind it pass.
func (k *kafkaConnection) producer(ctx context.Context) (*kgo.Client, error) {
	client, err := k.client(
		kgo.RequiredAcks(kafkaAcks[strings.ToLower(k.values["producerRequiredAcks"])]), kgo.DisableIdempotentWrite(),
		kgo.RecordRetries(k.number("producerRetryMax")), kgo.ProducerLinger(0), kgo.RecordPartitioner(kafkaPartitioner),
		kgo.ProducerBatchMaxBytes(int32(k.largest())), kgo.ProducerBatchCompression(kafkaCompression[k.values["compression"]]),
		kgo.RecordDeliveryTimeout(30*time.Second),
	)
	if err != nil {
		return nil, err
	}
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

func (k *kafkaConnection) largest() int { return cmp.Or(k.number("maxMessageBytes"), largest) }

// kafkaFailure names what the servers or the client say of a request.
func kafkaFailure(op string, err error) error {
	var said *kerr.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return fault.E(op, fault.None, fault.BodyTooLarge, err)
	case errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries), errors.Is(err, kgo.ErrClientClosed),
		errors.As(err, &said) && said.Retriable && !errors.Is(err, kerr.UnknownTopicOrPartition):
		return fault.E(op, fault.None, fault.BackendDown, err)
	}
	return err
}

// kafkaLog writes what the client logs.
type kafkaLog struct{ log logger.Logger }

func (l kafkaLog) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l kafkaLog) Log(level kgo.LogLevel, text string, about ...any) {
	var b strings.Builder
	for i := 0; i+1 < len(about); i += 2 {
		fmt.Fprintf(&b, ", %v: %v", about[i], about[i+1])
	}
	if level == kgo.LogLevelError {
		l.log.Error(text + b.String())
		return
	}
	l.log.Debug(text + b.String()) // what it can deal with itself
}

var _ contribmetadata.ComponentWithMetadata = (*kafkaPublisher)(nil)
