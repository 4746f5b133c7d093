package plugintest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type broker struct {
	proto.UnimplementedPubSubServer
	p *Program
}

func (b broker) Init(ctx context.Context, r *proto.PubSubInitRequest) (*proto.PubSubInitResponse, error) {
	return &proto.PubSubInitResponse{}, b.p.init(ctx, "pubsub", r.GetMetadata())
}

func (b broker) Features(context.Context, *proto.FeaturesRequest) (*proto.FeaturesResponse, error) {
	features := []string{"BULK_PUBSUB"}
	if slices.Contains(b.p.Without, "Patience") {
		features = append(features, "BULK_SUBSCRIBE_IMMEDIATE")
	}
	return &proto.FeaturesResponse{Features: features}, nil
}

func (broker) Ping(context.Context, *proto.PingRequest) (*proto.PingResponse, error) {
	return &proto.PingResponse{}, nil
}

// store puts a message into the queues of all groups of its topic. p.mu is held.
func (b broker) store(topic string, m message) {
	m.ID = strconv.Itoa(b.p.number())
	for group := range b.p.kept.Topics[topic] {
		b.p.kept.Topics[topic][group] = append(b.p.kept.Topics[topic][group], m)
	}
}

// refuse fails with the code that the metadata ask for, and says how often it has done so for the topic.
func (b broker) refuse(topic, code string) error {
	n, err := strconv.ParseUint(code, 10, 32)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	b.p.refused[topic]++
	return status.Errorf(codes.Code(n), "try %d of %s", b.p.refused[topic], topic)
}

func (b broker) Publish(ctx context.Context, r *proto.PublishRequest) (*proto.PublishResponse, error) {
	if _, err := b.p.ready(ctx, "pubsub"); err != nil {
		return nil, err
	}
	if code := r.GetMetadata()["code"]; code != "" {
		return nil, b.refuse(r.GetTopic(), code)
	}
	return &proto.PublishResponse{}, b.p.change(func() error {
		b.store(r.GetTopic(), message{Data: r.GetData(), Metadata: r.GetMetadata(), ContentType: r.GetContentType()})
		return nil
	})
}

func (b broker) BulkPublish(ctx context.Context, r *proto.BulkPublishRequest) (*proto.BulkPublishResponse, error) {
	if slices.Contains(b.p.Without, "Bulk") {
		return nil, status.Error(codes.Unimplemented, "there are no bulks")
	}
	if _, err := b.p.ready(ctx, "pubsub"); err != nil {
		return nil, err
	}
	if code := r.GetEntries()[0].GetMetadata()["code"]; code != "" {
		return nil, b.refuse(r.GetTopic(), code)
	}
	answer := &proto.BulkPublishResponse{}
	return answer, b.p.change(func() error {
		for _, e := range r.GetEntries() {
			if e.GetMetadata()["fail"] != "" {
				answer.FailedEntries = append(answer.FailedEntries, &proto.BulkPublishResponseFailedEntry{EntryId: e.GetEntryId(), Error: "it was told to fail"})
				continue
			}
			b.store(r.GetTopic(), message{Data: e.GetEvent(), Metadata: e.GetMetadata(), ContentType: e.GetContentType()})
		}
		return nil
	})
}

func (b broker) PullMessages(stream proto.PubSub_PullMessagesServer) error {
	settings, err := b.p.ready(stream.Context(), "pubsub")
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	topic, group := first.GetTopic().GetName(), settings["consumerID"]
	if topic == "" {
		return status.Error(codes.InvalidArgument, "the first message must name a topic")
	}
	queue := func() []message { return b.p.kept.Topics[topic][group] }
	if err := b.p.change(func() error {
		if b.p.kept.Topics[topic] == nil {
			b.p.kept.Topics[topic] = map[string][]message{}
		}
		b.p.kept.Topics[topic][group] = append([]message{}, queue()...)
		return nil
	}); err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil { // the subscription has begun
		return err
	}
	return b.p.hand(stream.Context(), topic+" "+group+" ", queue,
		func(all []message) { b.p.kept.Topics[topic][group] = all },
		func(m message) error {
			return stream.Send(&proto.PullMessagesResponse{Data: m.Data, TopicName: topic, Metadata: m.Metadata, ContentType: m.ContentType, Id: m.ID})
		},
		func() (string, string, error) {
			r, err := stream.Recv()
			return r.GetAckMessageId(), r.GetAckError().GetMessage(), err
		})
}

// again is how long a message rests that failed.
const again = 10 * time.Millisecond

// hand gives what is in a queue to a stream, each message once at a time, and takes out what was handled.
func (p *Program) hand(ctx context.Context, prefix string, queue func() []message, keep func([]message), send func(message) error,
	answer func() (id, failure string, err error)) error {
	ctx, cancel := context.WithCancel(ctx)
	mine := map[string]bool{}
	var receiving sync.WaitGroup
	var ended error
	receiving.Go(func() {
		defer cancel()
		for {
			id, failure, err := answer()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					ended = err
				}
				return
			}
			if failure != "" {
				time.Sleep(again)
			}
			_ = p.change(func() error { // fails with the disk alone; then the message comes again
				delete(p.busy, prefix+id)
				delete(mine, id)
				if failure == "" {
					keep(slices.DeleteFunc(queue(), func(m message) bool { return m.ID == id }))
				}
				return nil
			})
		}
	})
	defer receiving.Wait()
	defer cancel()
	defer func() {
		_ = p.change(func() error {
			for id := range mine {
				delete(p.busy, prefix+id)
			}
			return nil
		})
	}()
	for {
		if ctx.Err() != nil {
			receiving.Wait()
			return ended
		}
		p.mu.Lock()
		changed := p.changed
		var next *message
		for _, m := range queue() {
			if !p.busy[prefix+m.ID] {
				next = &m
				p.busy[prefix+m.ID], mine[m.ID] = true, true
				break
			}
		}
		p.mu.Unlock()
		if next != nil {
			if err := send(*next); err != nil {
				return err
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}
