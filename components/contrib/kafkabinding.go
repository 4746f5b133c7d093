package contrib

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// kafkaBinding is not the library's, for the reasons that kafkaTopics is not: there an event that fails is lost with the next one
// that does not.
var kafkaBinding = components.Foreign(components.BindingBlock, "kafka", "Topics of Apache Kafka or a server that speaks its protocol: create writes to one, and the messages of others are events, those of a partition one after the other.",
	func() []components.Field {
		return slices.Concat([]components.Field{
			field("topics", "string", "Topics whose messages are events, separated by commas."),
			field("publishTopic", "string", "Topic that create writes to."),
			field("consumerGroup", "string", "Consumer group that reads; left out, consumerID or else the app id.", also("groupID")),
			field("consumerID", "string", "Older name of consumerGroup."),
		}, kafkaCommon())
	}, openKafkaBinding)

// kafkaLink is topics as a binding.
type kafkaLink struct {
	connection *kafkaConnection
	topic      string
	topics     []string
	group      string
	host       components.Host
	life       *life
	out        chan struct{} // holds one for each message that is being written
	producer   *kgo.Client   // nil where the manifest wants no output
}

var (
	_ binding.Output = (*kafkaLink)(nil)
	_ binding.Input  = (*kafkaLink)(nil)
)

const kafkaLinkName = "bindings.kafka"

func openKafkaBinding(ctx context.Context, host components.Host, s components.Settings) (*kafkaLink, error) {
	k := &kafkaLink{
		topic: s.Values["publishTopic"], group: cmp.Or(s.Values["consumerGroup"], s.Values["consumerID"], host.AppID),
		host: host, life: newLife(host.Log), out: make(chan struct{}, mostOut),
	}
	var err error
	if k.connection, err = newKafkaConnection(kafkaLinkName, s.Values, newLogs(host.Log, nil)); err != nil {
		return nil, badOpen(ctx, kafkaLinkName+": open", s, err)
	}
	k.topics = k.connection.list("topics")
	switch {
	case host.Binding.Input && len(k.topics) == 0 && !host.Binding.Output:
		return nil, s.Invalid("topics", errors.New("topics is missing: there is nothing to read"))
	case host.Binding.Output && k.topic == "" && !host.Binding.Input:
		return nil, s.Invalid("publishTopic", errors.New("publishTopic is missing: there is nothing to write to"))
	}
	if host.Binding.Output {
		if k.producer, err = k.connection.producer(ctx); err != nil {
			return nil, badOpen(ctx, kafkaLinkName+": open", s, err)
		}
	}
	return k, nil
}

// Operations implements binding.Output.
func (k *kafkaLink) Operations() []string { return []string{"create"} }

// Invoke implements binding.Output. A message that was sent may arrive although Invoke says that it is not confirmed.
func (k *kafkaLink) Invoke(ctx context.Context, r binding.Request) (*binding.Response, error) {
	const op = kafkaLinkName + ": create"
	calling, leave, err := k.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if k.topic == "" {
		return nil, fault.New(op, fault.BadRequest, "the component has no publishTopic")
	}
	record, err := k.connection.record(calling, k.topic, slices.Clone(r.Data), r.Metadata)
	errs := []error{err}
	k.connection.write(calling, k.producer, []*kgo.Record{record}, errs)
	return nil, k.life.failure(ctx, op, errs[0])
}

// Read implements binding.Input. A message that fails is repeated, and those behind it in its partition wait.
func (k *kafkaLink) Read(ctx context.Context, handle binding.Handler) error {
	const op = kafkaLinkName + ": read"
	calling, leave, err := k.life.enter(ctx, op)
	if err != nil {
		return unlessOver(ctx, err)
	}
	defer leave()
	if len(k.topics) == 0 {
		k.host.Log.Warn("the binding has no topics: nothing is read", "binding", k.host.Component)
		<-calling.Done()
		return unlessOver(ctx, k.life.failure(ctx, op, context.Cause(calling)))
	}
	passing := newReading(handle, false)
	reader := &kafkaReader{
		group: k.group, serial: true,
		convert: func(ctx context.Context, r *kgo.Record) ([]byte, error) { return k.connection.value(ctx, r, false) },
		handle: func(call *kafkaCall, r *kgo.Record, data []byte) error {
			for {
				_, err := passing.pass(binding.Event{Data: data, Metadata: k.connection.metadataOf(r)}, func() {})
				select {
				case <-call.leaving:
					return err
				case <-passing.closed:
					return err
				default:
				}
				if err == nil {
					return nil
				}
			}
		},
	}
	if err = k.connection.read(reader, k.topics); err == nil {
		err = reader.await(calling)
	}
	if err == nil {
		<-calling.Done()
	}
	passing.close()
	reader.close()
	return unlessOver(ctx, k.life.failure(ctx, op, err))
}

// Close implements binding.Output and binding.Input.
func (k *kafkaLink) Close(ctx context.Context) error {
	return k.life.close(ctx, kafkaLinkName+": close", func() error {
		if k.producer != nil {
			k.producer.Close()
		}
		return nil
	})
}
