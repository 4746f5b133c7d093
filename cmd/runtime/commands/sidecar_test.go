package commands_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// sidecar is a small sidecar in memory, as far as the commands can see one.
type sidecar struct {
	sidecastv1.UnimplementedInvocationServer
	sidecastv1.UnimplementedPubSubServer
	sidecastv1.UnimplementedRuntimeServer
	appID   string
	address string
	token   string // that callers must send; "" asks for none
	state   *stateStore
	locks   *lockStore

	mu        sync.Mutex
	published []*sidecastv1.PublishBatchEntry
	steered   []*sidecastv1.SteerLaneRequest
}

// startSidecar serves until the test ends.
func startSidecar(t *testing.T, appID string) *sidecar {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{
		appID: appID, address: listener.Addr().String(),
		state: &stateStore{items: make(map[string]*sidecastv1.Item)},
		locks: &lockStore{held: make(map[string]*sidecastv1.Lease), changed: make(chan struct{})},
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := s.admit(ctx); err != nil {
				return nil, faultgrpc.Err(err)
			}
			answer, err := handle(ctx, req)
			return answer, faultgrpc.Err(err)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := s.admit(stream.Context()); err != nil {
				return faultgrpc.Err(err)
			}
			return faultgrpc.Err(handle(srv, stream))
		}))
	sidecastv1.RegisterInvocationServer(server, s)
	sidecastv1.RegisterPubSubServer(server, s)
	sidecastv1.RegisterRuntimeServer(server, s)
	sidecastv1.RegisterStateServer(server, s.state)
	sidecastv1.RegisterLockServer(server, s.locks)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return s
}

func (s *sidecar) admit(ctx context.Context) error {
	given := metadata.ValueFromIncomingContext(ctx, "sidecast-api-token")
	if s.token != "" && !slices.Contains(given, s.token) {
		return fault.New("api", fault.TokenRejected, "the API token is missing or wrong")
	}
	return nil
}

// Invoke knows the methods echo, fail, busy and slow of the app pricing, and the paths of the HTTP app web.
func (s *sidecar) Invoke(ctx context.Context, r *sidecastv1.InvokeRequest) (*sidecastv1.InvokeResponse, error) {
	op := "invoke " + r.AppId + "/" + r.Method
	if r.AppId == "web" {
		answer := &sidecastv1.InvokeResponse{ContentType: "text/plain", HttpStatus: 200, Data: []byte(r.HttpVerb + " /" + r.Method + "?" + r.HttpQuery)}
		if r.Method == "missing" {
			answer.HttpStatus, answer.Data = 404, []byte("no such page")
		}
		return answer, nil
	}
	if r.AppId != "pricing" {
		return nil, fault.New(op, fault.AppNotFound, "no instance of app %q is on the fabric", r.AppId)
	}
	switch r.Method {
	case "echo":
		return &sidecastv1.InvokeResponse{Data: r.Data, ContentType: r.ContentType, Metadata: r.Metadata}, nil
	case "busy":
		return nil, fault.New(op, fault.QueueFull, "8 calls are in flight and 64 wait").After(1500*time.Millisecond).With("lane", "app/pricing")
	case "slow":
		<-ctx.Done()
		return nil, fault.FromContext(op, ctx, "the answer of the app")
	case "fail":
		return nil, fault.New(op, fault.AppFailed, "the handler says: out of paper")
	}
	return nil, fault.New(op, fault.HandlerNotFound, "the app has no handler %q; it has: busy, echo, fail, slow", r.Method)
}

func (s *sidecar) Publish(_ context.Context, r *sidecastv1.PublishRequest) (*sidecastv1.PublishResponse, error) {
	entry := &sidecastv1.PublishBatchEntry{
		Data: r.Data, ContentType: r.ContentType, Metadata: r.Metadata, PartitionKey: r.PartitionKey, Delay: r.Delay, Raw: r.Raw,
	}
	if r.Delay.AsDuration() < 0 {
		return nil, fault.New("publish "+r.Topic, fault.DelayInvalid, "the delay is negative")
	}
	return &sidecastv1.PublishResponse{Id: s.store(entry)}, nil
}

func (s *sidecar) store(e *sidecastv1.PublishBatchEntry) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.published = append(s.published, e)
	if id := e.Metadata["cloudevent.id"]; id != "" {
		return id
	}
	return "event-" + strconv.Itoa(len(s.published))
}

// PublishBatch refuses events whose body is `refuse me`.
func (s *sidecar) PublishBatch(_ context.Context, r *sidecastv1.PublishBatchRequest) (*sidecastv1.PublishBatchResponse, error) {
	answer := &sidecastv1.PublishBatchResponse{}
	for _, e := range r.Entries {
		result := &sidecastv1.PublishBatchResult{}
		if string(e.Data) == "refuse me" {
			result.Error = faultgrpc.ToProto(fault.New("publish", fault.JetStreamExhausted, "the stream is full"))
		} else {
			result.Id = s.store(e)
		}
		answer.Results = append(answer.Results, result)
	}
	return answer, nil
}

func (s *sidecar) Describe(context.Context, *sidecastv1.DescribeRequest) (*sidecastv1.DescribeResponse, error) {
	started := timestamppb.New(time.Now().Add(-time.Hour))
	return &sidecastv1.DescribeResponse{
		AppId: s.appID, Instance: s.appID + "-1", Namespace: "default", Version: "v0.1.0", Started: started, Pid: 4242,
		Fabric: "embedded host", AppChannel: "stream",
		Components: []*sidecastv1.ComponentStatus{
			{Name: "statestore", Type: "state.badger", State: "ready", Origin: "built in"},
			{Name: "pubsub", Type: "pubsub.jetstream", State: "idle", Origin: "built in"},
			{Name: "orders-db", Type: "state.badger", State: "degraded", Origin: "components/db.yaml", Error: "the directory is in use"},
		},
		Instances: []*sidecastv1.InstanceStatus{
			{AppId: "pricing", Instance: "pricing-1", Version: "v0.1.0", Host: "here", Pid: 4243, Started: started, Load: 2, Ready: true},
			{AppId: "intake", Instance: "intake-1", Version: "v0.1.0", Host: "there", Pid: 17, Started: started},
		},
	}, nil
}

func (s *sidecar) Health(context.Context, *sidecastv1.HealthRequest) (*sidecastv1.HealthResponse, error) {
	if s.appID == "intake" {
		return &sidecastv1.HealthResponse{Live: true, Problems: []string{"no app is connected"}}, nil
	}
	return &sidecastv1.HealthResponse{Live: true, Ready: true}, nil
}

func (s *sidecar) Tree(context.Context, *sidecastv1.TreeRequest) (*sidecastv1.TreeResponse, error) {
	lane := func(name string, status *sidecastv1.LaneStatus) *sidecastv1.TreeNode {
		return &sidecastv1.TreeNode{Name: name, Kind: "lane", State: "running", Lane: status}
	}
	restarted := lane("app/web", &sidecastv1.LaneStatus{
		Policy: "default-app", InFlightLimit: 2048, QueueLimit: 2048,
		Breaker: "open", BreakerReason: "connection refused", BreakerOpensIn: durationpb.New(4200 * time.Millisecond), Refused: 9,
		RefusedFor: map[string]uint64{"BREAKER_OPEN": 7, "LANE_RESTARTED": 2},
	})
	ramping := &sidecastv1.LaneStatus{
		Policy: "gold", InFlightLimit: 2, Admitted: 40, Refused: 60, RefusedFor: map[string]uint64{"RATE_LIMITED": 60}, Hedged: 2, Fallbacks: 5,
		Breaker: "ramping", BreakerReason: "3 of 5 calls failed", BreakerShare: .3, Admission: "paused", Queued: 6, QueueLimit: 8,
		AttemptTimeout: durationpb.New(80 * time.Millisecond), RestLatency: durationpb.New(12 * time.Millisecond), Shedding: .2, Cpu: .93, Memory: .4,
		Overridden: []*sidecastv1.LaneChange{{What: "in flight", From: "8", To: "2"}, {What: "rate all", From: "100/1s", To: "10/1s"}},
		Limits: []*sidecastv1.RateLimitStatus{
			{Name: "all", Algorithm: "fixed-window", Rate: "10/1s", By: "lane", Remaining: new(int32(4)), Share: new(.25), State: "shared", Refused: 60},
			{Name: "each", Algorithm: "token-bucket", Rate: "5/1m", By: "header x-tenant", Keys: 17},
		},
	}
	restarted.State, restarted.Restarts = "restarting", 3
	return &sidecastv1.TreeResponse{Root: &sidecastv1.TreeNode{
		Name: "sidecast", Kind: "supervisor", State: "running", Children: []*sidecastv1.TreeNode{
			{Name: "lanes", Kind: "supervisor", State: "running", Children: []*sidecastv1.TreeNode{
				lane("app/pricing", &sidecastv1.LaneStatus{
					InFlight: 2, InFlightLimit: 8, Queued: 1, QueueLimit: 64, Admitted: 1204, Retried: 3, Breaker: "closed", Endpoints: 2,
				}),
				restarted,
				lane("state/statestore", ramping),
				lane("state/plain", &sidecastv1.LaneStatus{Admitted: 7}),
			}},
			{Name: "workers", Kind: "supervisor", State: "running", Children: []*sidecastv1.TreeNode{
				{Name: "presence", Kind: "worker", State: "running"},
			}},
		},
	}}, nil
}

// SteerLane knows the lanes app/pricing and state/statestore.
func (s *sidecar) SteerLane(_ context.Context, r *sidecastv1.SteerLaneRequest) (*sidecastv1.SteerLaneResponse, error) {
	if r.Lane != "app/pricing" && r.Lane != "state/statestore" {
		return nil, fault.New("steer lane", fault.LaneNotFound, "there is no lane %q; did you mean app/pricing?", r.Lane)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steered = append(s.steered, r)
	answer := &sidecastv1.SteerLaneResponse{}
	add := func(what, from, to string) {
		answer.Changes = append(answer.Changes, &sidecastv1.LaneChange{What: what, From: from, To: to})
	}
	switch o := r.Order.(type) {
	case *sidecastv1.SteerLaneRequest_Breaker:
		if o.Breaker == "opne" {
			return nil, fault.New("steer lane "+r.Lane, fault.BadRequest, `breaker "opne": must be one of auto, closed, open; did you mean "open"?`)
		}
		add("breaker", "auto", o.Breaker)
	case *sidecastv1.SteerLaneRequest_Admission:
		add("admission", "admitting", o.Admission)
	case *sidecastv1.SteerLaneRequest_Limits:
		if o.Limits.InFlight != nil {
			add("in flight", "8", strconv.Itoa(int(*o.Limits.InFlight)))
		}
		if o.Limits.Queue != nil {
			add("queue", "64", strconv.Itoa(int(*o.Limits.Queue)))
		}
		for _, name := range slices.Sorted(maps.Keys(o.Limits.Rates)) {
			add("rate "+name, "100/1s", o.Limits.Rates[name])
		}
	}
	return answer, nil
}

// stateStore is a state component in memory. Every write makes the next ETag.
type stateStore struct {
	sidecastv1.UnimplementedStateServer
	mu    sync.Mutex
	items map[string]*sidecastv1.Item
	next  int
}

func (s *stateStore) known(store string) error {
	if store != "" && store != "statestore" {
		return fault.New("state "+store, fault.ComponentNotFound, "no state component %q; there is: statestore", store)
	}
	return nil
}

func (s *stateStore) BatchGet(_ context.Context, r *sidecastv1.BatchGetRequest) (*sidecastv1.BatchGetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &sidecastv1.BatchGetResponse{}
	for _, key := range r.Keys {
		if item, ok := s.items[key]; ok {
			answer.Items = append(answer.Items, item)
		}
	}
	return answer, s.known(r.StoreName)
}

func (s *stateStore) Set(ctx context.Context, r *sidecastv1.SetRequest) (*sidecastv1.SetResponse, error) {
	ops := make([]*sidecastv1.Operation, len(r.Items))
	for i, item := range r.Items {
		ops[i] = &sidecastv1.Operation{Op: &sidecastv1.Operation_Set{Set: item}}
	}
	answer, err := s.Transact(ctx, &sidecastv1.TransactRequest{StoreName: r.StoreName, Operations: ops})
	return &sidecastv1.SetResponse{Etags: answer.GetEtags()}, err
}

func (s *stateStore) Delete(ctx context.Context, r *sidecastv1.DeleteRequest) (*sidecastv1.DeleteResponse, error) {
	removal := &sidecastv1.Operation{Op: &sidecastv1.Operation_Delete{Delete: &sidecastv1.Removal{Key: r.Key, Etag: r.Etag}}}
	_, err := s.Transact(ctx, &sidecastv1.TransactRequest{StoreName: r.StoreName, Operations: []*sidecastv1.Operation{removal}})
	return &sidecastv1.DeleteResponse{}, err
}

func (s *stateStore) Transact(_ context.Context, r *sidecastv1.TransactRequest) (*sidecastv1.TransactResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.known(r.StoreName); err != nil {
		return nil, err
	}
	for _, op := range r.Operations {
		key, etag, strict := "", "", false
		switch o := op.Op.(type) {
		case *sidecastv1.Operation_Set:
			key, etag, strict = o.Set.Key, o.Set.Etag, o.Set.Concurrency == sidecastv1.Concurrency_CONCURRENCY_FIRST_WRITE
			if o.Set.Ttl.AsDuration() < 0 {
				return nil, fault.New("state statestore: set "+key, fault.TTLInvalid, "the ttl is negative")
			}
		case *sidecastv1.Operation_Delete:
			key, etag = o.Delete.Key, o.Delete.Etag
		case *sidecastv1.Operation_Expect:
			key, etag, strict = o.Expect.Key, o.Expect.Etag, true
		}
		if have := s.items[key].GetEtag(); (strict || etag != "") && etag != have {
			return nil, fault.New("state statestore: "+key, fault.ETagMismatch, "the ETag is %q, not %q", have, etag)
		}
	}
	answer := &sidecastv1.TransactResponse{}
	for _, op := range r.Operations {
		etag := ""
		switch o := op.Op.(type) {
		case *sidecastv1.Operation_Set:
			s.next++
			etag = strconv.Itoa(s.next)
			s.items[o.Set.Key] = &sidecastv1.Item{Key: o.Set.Key, Value: o.Set.Value, Etag: etag, Ttl: o.Set.Ttl}
		case *sidecastv1.Operation_Delete:
			delete(s.items, o.Delete.Key)
		}
		answer.Etags = append(answer.Etags, etag)
	}
	return answer, nil
}

// List gives pages of two items at most, so that paging is seen.
func (s *stateStore) List(_ context.Context, r *sidecastv1.ListRequest) (*sidecastv1.ListResponse, error) {
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
		if i == min(2, int(r.PageSize)) {
			answer.NextPageToken = keys[i-1]
			break
		}
		item := s.items[key]
		if r.KeysOnly {
			item = &sidecastv1.Item{Key: key}
		}
		answer.Items = append(answer.Items, item)
	}
	return answer, s.known(r.StoreName)
}

// Watch sends what there is, one change of each kind, and cuts the watcher off.
func (s *stateStore) Watch(r *sidecastv1.StateWatchRequest, stream grpc.ServerStreamingServer[sidecastv1.StateWatchResponse]) error {
	s.mu.Lock()
	keys := make([]string, 0, len(s.items))
	for key := range s.items {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var events []*sidecastv1.StateWatchResponse
	for _, key := range keys {
		if !r.OnlyChanges && strings.HasPrefix(key, r.Prefix) {
			events = append(events, &sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Set{Set: s.items[key]}})
		}
	}
	s.mu.Unlock()
	events = append(events,
		&sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Current{Current: true}},
		&sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Set{Set: &sidecastv1.Item{Key: "new", Value: []byte("1"), Etag: "99"}}},
		&sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Deleted{Deleted: "new"}})
	for _, event := range events {
		if err := stream.Send(event); err != nil {
			return err
		}
	}
	return fault.New("state statestore: watch", fault.WatchOverrun, "changes came faster than they were read")
}

// lockStore is a lock component in memory, without leases that run out.
type lockStore struct {
	sidecastv1.UnimplementedLockServer
	mu      sync.Mutex
	held    map[string]*sidecastv1.Lease
	next    uint64
	waiting int32
	changed chan struct{} // closed and replaced at each change
	lose    chan struct{} // closed to lose what is held by streams
}

func (l *lockStore) take(ctx context.Context, name, owner string, ttl, wait *durationpb.Duration) (*sidecastv1.Lease, error) {
	if name == "stuck" { // nobody ever answers
		<-ctx.Done()
	}
	deadline := time.After(wait.AsDuration())
	for {
		l.mu.Lock()
		holder := l.held[name]
		if holder == nil {
			defer l.mu.Unlock()
			l.next++
			if owner == "" {
				owner = fmt.Sprintf("owner-%d", l.next)
			}
			if ttl == nil {
				ttl = durationpb.New(30 * time.Second)
			}
			lease := &sidecastv1.Lease{Name: name, Owner: owner, Token: l.next, Ttl: ttl}
			l.held[name] = lease
			l.change()
			return lease, nil
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			return nil, fault.New("lock "+name, fault.LockHeld, "%s holds it", holder.Owner).After(time.Second)
		case <-ctx.Done():
			return nil, fault.FromContext("lock "+name, ctx, "its turn")
		}
	}
}

func (l *lockStore) change() { close(l.changed); l.changed = make(chan struct{}) }

func (l *lockStore) mine(name, owner string, token uint64) error {
	if lease := l.held[name]; lease == nil || lease.Owner != owner || lease.Token != token {
		return fault.New("lock "+name, fault.LockLost, "token %d is not that of the holder", token)
	}
	return nil
}

func (l *lockStore) Acquire(ctx context.Context, r *sidecastv1.AcquireRequest) (*sidecastv1.AcquireResponse, error) {
	lease, err := l.take(ctx, r.Name, r.Owner, r.Ttl, r.Wait)
	return &sidecastv1.AcquireResponse{Lease: lease}, err
}

func (l *lockStore) Renew(_ context.Context, r *sidecastv1.RenewRequest) (*sidecastv1.RenewResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.mine(r.Name, r.Owner, r.Token); err != nil {
		return nil, err
	}
	l.held[r.Name].Ttl = r.Ttl
	return &sidecastv1.RenewResponse{Lease: l.held[r.Name]}, nil
}

func (l *lockStore) Release(_ context.Context, r *sidecastv1.ReleaseRequest) (*sidecastv1.ReleaseResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.mine(r.Name, r.Owner, r.Token); err != nil {
		return nil, err
	}
	delete(l.held, r.Name)
	l.change()
	return &sidecastv1.ReleaseResponse{}, nil
}

func (l *lockStore) Hold(r *sidecastv1.HoldRequest, stream grpc.ServerStreamingServer[sidecastv1.HoldResponse]) error {
	lease, err := l.take(stream.Context(), r.Name, r.Owner, r.Ttl, r.Wait)
	if err != nil {
		return err
	}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, r.Name)
		l.change()
	}()
	if err := stream.Send(&sidecastv1.HoldResponse{Lease: lease}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
		return nil
	case <-l.lose:
		return fault.New("lock "+r.Name, fault.LockLost, "the lease ran out")
	}
}

// Watch tells the holder now and ends.
func (l *lockStore) Watch(r *sidecastv1.LockWatchRequest, stream grpc.ServerStreamingServer[sidecastv1.LockWatchResponse]) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return stream.Send(&sidecastv1.LockWatchResponse{Lease: l.held[r.Name], Waiting: l.waiting})
}

func (l *lockStore) holder(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[name].GetOwner()
}
