package sidecast_test

import (
	"context"
	"log/slog"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// sidecar is enough of one to talk to: calls go to the app behind its hub, whatever app they name; state is a map, events
// are what the test feeds, a lock belongs to whoever comes first.
type sidecar struct {
	sidecastv1.UnimplementedAppServer
	sidecastv1.UnimplementedInvocationServer
	sidecastv1.UnimplementedPubSubServer
	sidecastv1.UnimplementedStateServer
	sidecastv1.UnimplementedLockServer

	hub     *appchannel.Hub
	address string
	stop    func()

	published chan *sidecastv1.PublishRequest
	feed      chan *sidecastv1.Event
	acks      chan *sidecastv1.EventAck
	opened    chan *sidecastv1.Subscription

	mu      sync.Mutex
	seen    metadata.MD // of the last call
	items   map[string]*sidecastv1.Item
	changes chan *sidecastv1.StateWatchResponse
	holder  *sidecastv1.Lease
	token   uint64
	lose    chan struct{}
}

// start runs a sidecar on a free port, or on that of address.
func start(t testing.TB, address string) *sidecar {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{
		hub:     appchannel.NewHub(appchannel.Options{AppID: "tested", Log: quiet}),
		address: listener.Addr().String(), items: make(map[string]*sidecastv1.Item),
		published: make(chan *sidecastv1.PublishRequest, 10), feed: make(chan *sidecastv1.Event, 10),
		acks: make(chan *sidecastv1.EventAck, 10), opened: make(chan *sidecastv1.Subscription, 10),
		changes: make(chan *sidecastv1.StateWatchResponse, 10), lose: make(chan struct{}),
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))
	sidecastv1.RegisterAppServer(server, s)
	sidecastv1.RegisterInvocationServer(server, s)
	sidecastv1.RegisterPubSubServer(server, s)
	sidecastv1.RegisterStateServer(server, stateServer{s})
	sidecastv1.RegisterLockServer(server, lockServer{s})
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	var once sync.Once
	s.stop = func() {
		once.Do(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = s.hub.Close(ctx)
			server.Stop()
			<-served
		})
	}
	t.Cleanup(s.stop)
	return s
}

func (s *sidecar) connect(t testing.TB, options ...sidecast.Option) *sidecast.Client {
	t.Helper()
	client, err := sidecast.Connect(t.Context(), append([]sidecast.Option{sidecast.Endpoint(s.address), sidecast.Logger(quiet)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// serve runs handlers until stop, which returns what Serve did.
func (s *sidecar) serve(t testing.TB, client *sidecast.Client, handlers ...sidecast.Handler) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- client.Serve(ctx, handlers...) }()
	for deadline := time.Now().Add(10 * time.Second); s.hub.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the app never connected")
		}
	}
	stop = sync.OnceValue(func() error { cancel(); return <-result })
	t.Cleanup(func() { _ = stop() })
	return stop
}

func (s *sidecar) Serve(stream sidecastv1.App_ServeServer) error { return s.hub.Serve(stream) }

func (s *sidecar) Invoke(ctx context.Context, r *sidecastv1.InvokeRequest) (*sidecastv1.InvokeResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	s.seen = md
	s.mu.Unlock()
	req := requestOf(r)
	if trace := md.Get("traceparent"); len(trace) > 0 {
		req.Header.Set("traceparent", trace[0])
	}
	response, err := s.hub.Invoke(ctx, req)
	if err != nil {
		return nil, faultgrpc.Err(err)
	}
	return &sidecastv1.InvokeResponse{Data: response.Body, ContentType: response.ContentType, Metadata: response.Header.Map()}, nil
}

func requestOf(r *sidecastv1.InvokeRequest) *call.Request {
	return &call.Request{
		Method: r.Method, Caller: "caller", Verb: r.HttpVerb, Query: r.HttpQuery, ContentType: r.ContentType,
		Header: call.HeaderOf(r.Metadata), Body: r.Data, Idempotent: r.Idempotent,
	}
}

func (s *sidecar) InvokeStream(wire sidecastv1.Invocation_InvokeStreamServer) error {
	open, err := wire.Recv()
	if err != nil {
		return err
	}
	return faultgrpc.Err(s.hub.Stream(wire.Context(), requestOf(open.GetOpen()), &serverStream{wire: wire}))
}

type serverStream struct {
	wire   sidecastv1.Invocation_InvokeStreamServer
	chunks chan []byte
	once   sync.Once
	err    error
}

// Recv reads in a goroutine, because gRPC does not let go of a Recv before the handler returns.
func (s *serverStream) Recv(ctx context.Context) ([]byte, error) {
	s.once.Do(func() {
		s.chunks = make(chan []byte)
		go func() {
			defer close(s.chunks)
			for {
				frame, err := s.wire.Recv()
				if err != nil {
					s.err = err
					return
				}
				select {
				case s.chunks <- frame.GetData():
				case <-s.wire.Context().Done():
					s.err = s.wire.Context().Err()
					return
				}
			}
		}()
	})
	select {
	case chunk, ok := <-s.chunks:
		if !ok {
			return nil, s.err
		}
		return chunk, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *serverStream) Send(_ context.Context, chunk []byte) error {
	return s.wire.Send(&sidecastv1.InvokeStreamResponse{Frame: &sidecastv1.InvokeStreamResponse_Data{Data: chunk}})
}

func (s *serverStream) Answer(_ context.Context, r *call.Response) error {
	header := &sidecastv1.InvokeResponse{ContentType: r.ContentType, Metadata: r.Header.Map()}
	return s.wire.Send(&sidecastv1.InvokeStreamResponse{Frame: &sidecastv1.InvokeStreamResponse_Header{Header: header}})
}

func (s *sidecar) Publish(_ context.Context, r *sidecastv1.PublishRequest) (*sidecastv1.PublishResponse, error) {
	if r.Topic == "" {
		return nil, faultgrpc.Err(fault.New("publish", fault.TopicInvalid, "no topic"))
	}
	s.published <- r
	return &sidecastv1.PublishResponse{Id: "id-" + r.Topic}, nil
}

func (s *sidecar) PublishBatch(_ context.Context, r *sidecastv1.PublishBatchRequest) (*sidecastv1.PublishBatchResponse, error) {
	answer := &sidecastv1.PublishBatchResponse{}
	for i, e := range r.Entries {
		result := &sidecastv1.PublishBatchResult{Id: strconv.Itoa(i) + e.PartitionKey}
		if len(e.Data) == 0 {
			result.Error = faultgrpc.ToProto(fault.New("publish", fault.EventInvalid, "empty"))
		}
		answer.Results = append(answer.Results, result)
	}
	return answer, nil
}

func (s *sidecar) Subscribe(wire sidecastv1.PubSub_SubscribeServer) error {
	first, err := wire.Recv()
	if err != nil {
		return err
	}
	if first.GetOpen().GetTopic() == "forbidden" {
		return faultgrpc.Err(fault.New("subscribe", fault.ComponentDenied, "not for you"))
	}
	s.opened <- first.GetOpen()
	if err := wire.Send(&sidecastv1.SubscribeResponse{Frame: &sidecastv1.SubscribeResponse_Opened{Opened: &sidecastv1.SubscriptionOpened{}}}); err != nil {
		return err
	}
	credits, ended := make(chan int, 100), make(chan struct{})
	go func() {
		defer close(ended)
		for frame, err := wire.Recv(); err == nil; frame, err = wire.Recv() {
			if ack := frame.GetAck(); ack != nil {
				s.acks <- ack
			} else {
				credits <- int(frame.GetCredit())
			}
		}
	}()
	for credit := 0; ; {
		feed := s.feed
		if credit == 0 {
			feed = nil
		}
		select {
		case n := <-credits:
			credit += n
		case event := <-feed:
			if event == nil {
				return faultgrpc.Err(fault.New("subscribe", fault.BackendDown, "as the test asked"))
			}
			credit--
			if err := wire.Send(&sidecastv1.SubscribeResponse{Frame: &sidecastv1.SubscribeResponse_Event{Event: event}}); err != nil {
				return err
			}
		case <-ended:
			return nil
		}
	}
}

func (s *sidecar) apply(w *sidecastv1.Write) (string, error) {
	old := s.items[w.Key]
	if (w.Etag != "" || w.Concurrency == sidecastv1.Concurrency_CONCURRENCY_FIRST_WRITE) && old.GetEtag() != w.Etag {
		return "", faultgrpc.Err(fault.New("set "+w.Key, fault.ETagMismatch, "someone was faster"))
	}
	s.token++
	item := &sidecastv1.Item{Key: w.Key, Value: w.Value, Etag: strconv.FormatUint(s.token, 10), Ttl: w.Ttl}
	s.items[w.Key] = item
	return item.Etag, nil
}

func (s *sidecar) Get(_ context.Context, r *sidecastv1.GetRequest) (*sidecastv1.GetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	item, found := s.items[r.Key]
	return &sidecastv1.GetResponse{Found: found, Item: item}, nil
}

func (s *sidecar) BatchGet(_ context.Context, r *sidecastv1.BatchGetRequest) (*sidecastv1.BatchGetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &sidecastv1.BatchGetResponse{}
	for _, key := range r.Keys {
		if item, ok := s.items[key]; ok {
			answer.Items = append(answer.Items, item)
		}
	}
	return answer, nil
}

func (s *sidecar) Set(_ context.Context, r *sidecastv1.SetRequest) (*sidecastv1.SetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	etag, err := s.apply(r.Items[0])
	return &sidecastv1.SetResponse{Etags: []string{etag}}, err
}

func (s *sidecar) Delete(_ context.Context, r *sidecastv1.DeleteRequest) (*sidecastv1.DeleteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Etag != "" && r.Etag != s.items[r.Key].GetEtag() {
		return nil, faultgrpc.Err(fault.New("delete "+r.Key, fault.ETagMismatch, "someone was faster"))
	}
	delete(s.items, r.Key)
	return &sidecastv1.DeleteResponse{}, nil
}

func (s *sidecar) Transact(_ context.Context, r *sidecastv1.TransactRequest) (*sidecastv1.TransactResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &sidecastv1.TransactResponse{}
	for _, o := range r.Operations {
		etag := ""
		switch op := o.Op.(type) {
		case *sidecastv1.Operation_Set:
			var err error
			if etag, err = s.apply(op.Set); err != nil {
				return nil, err
			}
		case *sidecastv1.Operation_Delete:
			delete(s.items, op.Delete.Key)
		case *sidecastv1.Operation_Expect:
			if s.items[op.Expect.Key].GetEtag() != op.Expect.Etag {
				return nil, faultgrpc.Err(fault.New("transact", fault.ETagMismatch, "%s is not as expected", op.Expect.Key))
			}
		}
		answer.Etags = append(answer.Etags, etag)
	}
	return answer, nil
}

func (s *sidecar) List(_ context.Context, r *sidecastv1.ListRequest) (*sidecastv1.ListResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for key := range s.items {
		if strings.HasPrefix(key, r.Prefix) && key > r.PageToken {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	answer := &sidecastv1.ListResponse{}
	for i, key := range keys {
		if i == int(r.PageSize) {
			answer.NextPageToken = keys[i-1]
			break
		}
		answer.Items = append(answer.Items, s.items[key])
	}
	return answer, nil
}

// stateServer and lockServer have a Watch each.
type stateServer struct{ *sidecar }

func (s stateServer) Watch(_ *sidecastv1.StateWatchRequest, wire sidecastv1.State_WatchServer) error {
	for {
		select {
		case change := <-s.changes:
			if change == nil {
				return faultgrpc.Err(fault.New("watch", fault.WatchOverrun, "as the test asked"))
			}
			if err := wire.Send(change); err != nil {
				return err
			}
		case <-wire.Context().Done():
			return wire.Context().Err()
		}
	}
}

func (s *sidecar) Acquire(_ context.Context, r *sidecastv1.AcquireRequest) (*sidecastv1.AcquireResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder != nil {
		return nil, faultgrpc.Err(fault.New("acquire "+r.Name, fault.LockHeld, "%s holds it", s.holder.Owner))
	}
	s.token++
	s.holder = &sidecastv1.Lease{Name: r.Name, Owner: r.Owner, Token: s.token, Ttl: r.Ttl}
	if s.holder.Ttl == nil {
		s.holder.Ttl = durationpb.New(30 * time.Second)
	}
	return &sidecastv1.AcquireResponse{Lease: s.holder}, nil
}

func (s *sidecar) Renew(_ context.Context, r *sidecastv1.RenewRequest) (*sidecastv1.RenewResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder.GetToken() != r.Token {
		return nil, faultgrpc.Err(fault.New("renew "+r.Name, fault.LockLost, "gone"))
	}
	return &sidecastv1.RenewResponse{Lease: s.holder}, nil
}

func (s *sidecar) Release(_ context.Context, r *sidecastv1.ReleaseRequest) (*sidecastv1.ReleaseResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holder.GetToken() != r.Token {
		return nil, faultgrpc.Err(fault.New("release "+r.Name, fault.LockLost, "gone"))
	}
	s.holder = nil
	return &sidecastv1.ReleaseResponse{}, nil
}

func (s *sidecar) Hold(r *sidecastv1.HoldRequest, wire sidecastv1.Lock_HoldServer) error {
	lease, err := s.Acquire(wire.Context(), &sidecastv1.AcquireRequest{Name: r.Name, Owner: r.Owner, Ttl: r.Ttl})
	if err != nil {
		return err
	}
	if err := wire.Send(&sidecastv1.HoldResponse{Lease: lease.Lease}); err != nil {
		return err
	}
	select {
	case <-s.lose:
		return faultgrpc.Err(fault.New("hold "+r.Name, fault.LockLost, "as the test asked"))
	case <-wire.Context().Done():
		return wire.Context().Err()
	}
}

type lockServer struct{ *sidecar }

func (s lockServer) Watch(_ *sidecastv1.LockWatchRequest, wire sidecastv1.Lock_WatchServer) error {
	s.mu.Lock()
	now := &sidecastv1.LockWatchResponse{Lease: s.holder, Waiting: 2}
	s.mu.Unlock()
	if err := wire.Send(now); err != nil {
		return err
	}
	<-wire.Context().Done()
	return wire.Context().Err()
}
