package pluggable

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribpubsub "github.com/dapr/components-contrib/pubsub"
	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/dapr/kit/logger"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/contrib"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

var (
	_ components.Ailing  = (*broker)(nil)
	_ components.Capable = (*broker)(nil)
	_ pubsub.Immediate   = (*broker)(nil)
)

// broker is a broker of a program.
type broker struct {
	pubsub.Broker
	lines *lines
}

func openBroker(ctx context.Context, host components.Host, at *place, s components.Settings) (pubsub.Broker, error) {
	all := &lines{host: host, at: at, turn: make(chan struct{}, 1), open: map[string]*shared{}}
	b, err := contrib.OpenBroker(ctx, host, s, at.typeOf(components.PubSubBlock), func(logger.Logger) contribpubsub.PubSub {
		return &member{all: all}
	})
	if err != nil {
		return nil, err
	}
	return &broker{b, all}, nil
}

// Ailment implements components.Ailing.
func (b *broker) Ailment() error {
	for _, l := range b.lines.links() {
		if err := l.Ailment(); err != nil {
			return err
		}
	}
	return nil
}

// Immediate implements pubsub.Immediate.
func (b *broker) Immediate() bool {
	return slices.Contains(b.Capabilities(), string(contribpubsub.FeatureBulkSubscribeImmediate))
}

// Capabilities implements components.Capable.
func (b *broker) Capabilities() []string {
	if said := b.lines.said.Load(); said != nil {
		return *said
	}
	return nil
}

// lines are the links of one component: one for each consumer group, because a program learns of its group with the settings.
// Publishing and the component's own group share one.
type lines struct {
	host components.Host
	at   *place
	said atomic.Pointer[[]string] // features

	turn chan struct{} // held by whoever opens or closes one
	mu   sync.Mutex
	own  string             // the group of the first link
	open map[string]*shared // by group
}

type shared struct {
	*link
	members int
	noBulk  atomic.Bool // the program has none
}

func (a *lines) links() (all []*link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.open {
		all = append(all, s.link)
	}
	return all
}

// join gives the link of a group.
func (a *lines) join(ctx context.Context, group string, settings map[string]string) (*shared, error) {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return nil, fault.FromContext(a.at.typeOf(components.PubSubBlock), ctx, "the plug-in at "+a.at.socket)
	}
	a.mu.Lock()
	s := a.open[group]
	if s != nil {
		s.members++
	}
	a.own = cmp.Or(a.own, group)
	host := a.host
	if group != a.own {
		host.Component += "/" + group // or the program would take one for the other
	}
	a.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s = &shared{members: 1}
	l, err := openLink(ctx, a.at.socket, a.at.typeOf(components.PubSubBlock), proto.PubSub_ServiceDesc.ServiceName, host, func(ctx context.Context, conn *grpc.ClientConn) error {
		client := proto.NewPubSubClient(conn)
		if _, err := client.Init(ctx, &proto.PubSubInitRequest{Metadata: &proto.MetadataRequest{Properties: settings}}); err != nil {
			return err
		}
		features, err := client.Features(ctx, &proto.FeaturesRequest{})
		if err != nil {
			return err
		}
		all := append([]string{}, features.GetFeatures()...)
		a.said.Store(&all)
		s.noBulk.Store(false)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.link = l
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open[group] = s
	return s, nil
}

// leave closes the link of a group with its last member.
func (a *lines) leave(group string) error {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	a.mu.Lock()
	s := a.open[group]
	s.members--
	last := s.members == 0
	if last {
		delete(a.open, group)
	}
	a.mu.Unlock()
	if !last {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), greeting)
	defer cancel()
	return s.Close(ctx)
}

// member is the publisher, or one subscription, in the form of the library.
type member struct {
	all   *lines
	group string
	s     *shared

	ends    []func() // of the streams
	streams sync.WaitGroup
	busy    sync.WaitGroup // messages at work
}

var (
	_ contribpubsub.BulkPublisher = (*member)(nil)
	_ contrib.Ordered             = (*member)(nil)
)

// Init implements contribpubsub.PubSub.
func (m *member) Init(ctx context.Context, md contribpubsub.Metadata) (err error) {
	m.group = md.Properties["consumerID"]
	m.s, err = m.all.join(ctx, m.group, maps.Clone(md.Properties))
	return err
}

// Features implements contribpubsub.PubSub.
func (*member) Features() []contribpubsub.Feature { return nil }

// GetComponentMetadata implements contribpubsub.PubSub.
func (*member) GetComponentMetadata() contribmetadata.MetadataMap { return nil }

// Publish implements contribpubsub.PubSub.
func (m *member) Publish(ctx context.Context, r *contribpubsub.PublishRequest) error {
	request := &proto.PublishRequest{Data: r.Data, PubsubName: r.PubsubName, Topic: r.Topic, Metadata: r.Metadata}
	if r.ContentType != nil {
		request.ContentType = *r.ContentType
	}
	_, err := call(ctx, m.s.link, "publish "+r.Topic, func(ctx context.Context, conn *grpc.ClientConn) (*proto.PublishResponse, error) {
		return proto.NewPubSubClient(conn).Publish(ctx, request)
	})
	return err
}

// BulkPublish implements contribpubsub.BulkPublisher.
func (m *member) BulkPublish(ctx context.Context, r *contribpubsub.BulkPublishRequest) (contribpubsub.BulkPublishResponse, error) {
	var answer contribpubsub.BulkPublishResponse
	op := "publish " + r.Topic
	if m.s.noBulk.Load() {
		return answer, fault.New(op, fault.NotSupported, "the plug-in at %s takes one message at a time", m.all.at.socket)
	}
	request := &proto.BulkPublishRequest{PubsubName: r.PubsubName, Topic: r.Topic, Metadata: r.Metadata}
	for _, e := range r.Entries {
		request.Entries = append(request.Entries, &proto.BulkMessageEntry{EntryId: e.EntryId, Event: e.Event, ContentType: e.ContentType, Metadata: e.Metadata})
	}
	got, err := call(ctx, m.s.link, op, func(ctx context.Context, conn *grpc.ClientConn) (*proto.BulkPublishResponse, error) {
		return proto.NewPubSubClient(conn).BulkPublish(ctx, request)
	})
	if fault.ReasonOf(err) == fault.NotSupported {
		m.s.noBulk.Store(true)
	}
	for _, failed := range got.GetFailedEntries() {
		answer.FailedEntries = append(answer.FailedEntries, contribpubsub.BulkPublishResponseFailedEntry{
			EntryId: failed.GetEntryId(), Error: m.s.scrub(fault.New(op, fault.BackendFailed, "the plug-in at %s: %s", m.all.at.socket, failed.GetError())),
		})
	}
	return answer, err
}

// Subscribe implements contribpubsub.PubSub.
func (m *member) Subscribe(ctx context.Context, r contribpubsub.SubscribeRequest, handle contribpubsub.Handler) error {
	return m.SubscribeInOrder(ctx, r, func(ctx context.Context, message *contribpubsub.NewMessage) func() error {
		return func() error { return handle(ctx, message) }
	})
}

// confirming is how long a program has to say that it has subscribed.
const confirming = 500 * time.Millisecond

// confirmed waits for the header of a stream, for the protocol has no other sign that a subscription has begun: a program may
// send it as soon as it has. One that does not sends it with the first message.
func confirmed(ctx context.Context, stream grpc.ClientStream) {
	began := make(chan struct{})
	go func() { // ends with the stream at the latest
		defer close(began)
		_, _ = stream.Header() // its error is that of the next Recv
	}()
	late := time.NewTimer(confirming)
	defer late.Stop()
	select {
	case <-began:
	case <-late.C:
	case <-ctx.Done():
	}
}

// SubscribeInOrder implements contrib.Ordered. It returns when the program has subscribed, as far as it says so. A stream that breaks is opened again; what it had brought goes on, and the program brings it once more.
func (m *member) SubscribeInOrder(ctx context.Context, r contribpubsub.SubscribeRequest, accept contrib.Accept) error {
	held := newRoom()
	begin := func() (runner, error) {
		return m.s.begin("subscribe "+r.Topic, func(streaming context.Context, cancel func(), conn *grpc.ClientConn) (runner, error) {
			stream, err := proto.NewPubSubClient(conn).PullMessages(streaming)
			if err != nil {
				return nil, err
			}
			if err := stream.Send(&proto.PullMessagesRequest{Topic: &proto.Topic{Name: r.Topic, Metadata: r.Metadata}}); err != nil {
				return nil, err
			}
			confirmed(streaming, stream)
			f := &flow[proto.PullMessagesRequest, proto.PullMessagesResponse]{
				stream: stream, cancel: cancel, room: held, size: func(got *proto.PullMessagesResponse) int { return len(got.GetData()) },
				take: func(got *proto.PullMessagesResponse) (func() *proto.PullMessagesRequest, func()) {
					return pulled(got, accept)
				},
			}
			return func(ctx context.Context) error { return f.run(ctx, &m.busy) }, nil
		})
	}
	first, err := begin()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	m.ends = append(m.ends, cancel)
	m.streams.Go(func() {
		defer cancel()
		_ = m.s.stay(ctx, first, begin) // fails when the link closes, which has a reason of its own
		m.busy.Wait()
	})
	return nil
}

// handling is the time limit of a message: it has one because whoever takes it looks for the end of a context that has.
const handling = 365 * 24 * time.Hour

// pulled has a message lined up.
func pulled(got *proto.PullMessagesResponse, accept contrib.Accept) (wait func() *proto.PullMessagesRequest, sent func()) {
	handled, done := context.WithTimeout(context.Background(), handling)
	contentType := got.GetContentType()
	end := accept(handled, &contribpubsub.NewMessage{
		Data: got.GetData(), Topic: got.GetTopicName(), Metadata: got.GetMetadata(), ContentType: &contentType,
	})
	return func() *proto.PullMessagesRequest {
		if end() != nil {
			return nil // the program keeps it
		}
		return &proto.PullMessagesRequest{AckMessageId: got.GetId()}
	}, done
}

// Close implements contribpubsub.PubSub.
func (m *member) Close() error {
	if m.s == nil {
		return nil
	}
	for _, end := range m.ends {
		end()
	}
	m.streams.Wait()
	return m.all.leave(m.group)
}
