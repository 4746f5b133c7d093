package grpcapi

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
	"github.com/sidecast/sidecast/state"
)

type stateServer struct {
	sidecastv1.UnimplementedStateServer
	state *blocks.State
}

func (s *stateServer) Get(ctx context.Context, in *sidecastv1.GetRequest) (*sidecastv1.GetResponse, error) {
	items, err := s.state.Get(ctx, in.GetStoreName(), []string{in.GetKey()})
	if err != nil || len(items) == 0 {
		return &sidecastv1.GetResponse{}, err
	}
	return &sidecastv1.GetResponse{Found: true, Item: itemTo(&items[0])}, nil
}

func (s *stateServer) BatchGet(ctx context.Context, in *sidecastv1.BatchGetRequest) (*sidecastv1.BatchGetResponse, error) {
	items, err := s.state.Get(ctx, in.GetStoreName(), in.GetKeys())
	return &sidecastv1.BatchGetResponse{Items: itemsTo(items)}, err
}

func (s *stateServer) Set(ctx context.Context, in *sidecastv1.SetRequest) (*sidecastv1.SetResponse, error) {
	ops := make([]state.Op, len(in.GetItems()))
	for i, write := range in.GetItems() {
		op, err := setOf(write)
		if err != nil {
			return nil, err
		}
		ops[i] = op
	}
	etags, err := s.state.Apply(ctx, in.GetStoreName(), ops)
	return &sidecastv1.SetResponse{Etags: etags}, err
}

func (s *stateServer) Delete(ctx context.Context, in *sidecastv1.DeleteRequest) (*sidecastv1.DeleteResponse, error) {
	_, err := s.state.Apply(ctx, in.GetStoreName(), []state.Op{deleteOf(in.GetKey(), in.GetEtag())})
	return &sidecastv1.DeleteResponse{}, err
}

func (s *stateServer) Transact(ctx context.Context, in *sidecastv1.TransactRequest) (*sidecastv1.TransactResponse, error) {
	ops := make([]state.Op, len(in.GetOperations()))
	for i, operation := range in.GetOperations() {
		op, err := operationOf(i, operation)
		if err != nil {
			return nil, err
		}
		ops[i] = op
	}
	etags, err := s.state.Transact(ctx, in.GetStoreName(), ops, nil)
	return &sidecastv1.TransactResponse{Etags: etags}, err
}

func (s *stateServer) List(ctx context.Context, in *sidecastv1.ListRequest) (*sidecastv1.ListResponse, error) {
	items, next, err := s.state.List(ctx, in.GetStoreName(), in.GetPrefix(), int(in.GetPageSize()), in.GetPageToken(), in.GetKeysOnly())
	return &sidecastv1.ListResponse{Items: itemsTo(items), NextPageToken: next}, err
}

func (s *stateServer) Watch(in *sidecastv1.StateWatchRequest, stream sidecastv1.State_WatchServer) error {
	return s.state.Watch(stream.Context(), in.GetStoreName(), in.GetPrefix(), in.GetOnlyChanges(), func(e state.Event) error {
		return stream.Send(eventTo(e))
	})
}

func eventTo(e state.Event) *sidecastv1.StateWatchResponse {
	switch e.Kind {
	case state.Written:
		return &sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Set{Set: itemTo(&e.Item)}}
	case state.Deleted:
		return &sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Deleted{Deleted: e.Item.Key}}
	default:
		return &sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Current{Current: true}}
	}
}

func itemsTo(items []state.Item) []*sidecastv1.Item {
	out := make([]*sidecastv1.Item, len(items))
	for i := range items {
		out[i] = itemTo(&items[i])
	}
	return out
}

func itemTo(item *state.Item) *sidecastv1.Item {
	out := &sidecastv1.Item{Key: item.Key, Value: item.Value, Etag: item.ETag}
	if !item.Expires.IsZero() {
		out.Ttl = durationpb.New(time.Until(item.Expires))
	}
	return out
}

func operationOf(i int, operation *sidecastv1.Operation) (state.Op, error) {
	switch op := operation.GetOp().(type) {
	case *sidecastv1.Operation_Set:
		return setOf(op.Set)
	case *sidecastv1.Operation_Delete:
		return deleteOf(op.Delete.GetKey(), op.Delete.GetEtag()), nil
	case *sidecastv1.Operation_Expect:
		expected := state.Op{Kind: state.Check, Key: op.Expect.GetKey(), Match: state.Absent}
		if etag := op.Expect.GetEtag(); etag != "" {
			expected.Match, expected.ETag = state.Exact, etag
		}
		return expected, nil
	}
	return state.Op{}, fault.New("state: transact", fault.BadRequest, "operation %d is empty: give it `set`, `delete` or `expect`", i)
}

func setOf(write *sidecastv1.Write) (state.Op, error) {
	op := state.Op{Kind: state.Set, Key: write.GetKey(), Value: write.GetValue()}
	if write.GetTtl() != nil {
		op.TTL = write.GetTtl().AsDuration()
		if op.TTL <= 0 {
			return op, fault.New("state: set", fault.TTLInvalid, "the ttl of key %q is %s; leave it out or give a positive one", op.Key, op.TTL)
		}
	}
	etag := write.GetEtag()
	switch write.GetConcurrency() {
	case sidecastv1.Concurrency_CONCURRENCY_LAST_WRITE:
	case sidecastv1.Concurrency_CONCURRENCY_FIRST_WRITE:
		op.Match = state.Absent
		if etag != "" {
			op.Match, op.ETag = state.Exact, etag
		}
	case sidecastv1.Concurrency_CONCURRENCY_UNSPECIFIED:
		if etag != "" {
			op.Match, op.ETag = state.Exact, etag
		}
	default:
		return op, fault.New("state: set", fault.BadRequest, "concurrency %d of key %q is none of FIRST_WRITE and LAST_WRITE", write.GetConcurrency(), op.Key)
	}
	return op, nil
}

func deleteOf(key, etag string) state.Op {
	op := state.Op{Kind: state.Delete, Key: key}
	if etag != "" {
		op.Match, op.ETag = state.Exact, etag
	}
	return op
}
