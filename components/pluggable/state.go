package pluggable

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/contrib"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// MaxValue is the longest value of a store, in bytes.
const MaxValue = 32 << 20

// parallel is how many items of a bulk a program is asked to work on at once.
const parallel = 10

var (
	_ state.Store        = (*store)(nil)
	_ state.Bulker       = (*store)(nil)
	_ state.Guided       = (*store)(nil)
	_ state.Querier      = (*store)(nil)
	_ state.Transactor   = (*store)(nil)
	_ components.Ailing  = (*store)(nil)
	_ components.Capable = (*store)(nil)
)

// store is a state store of a program.
type store struct {
	*link
	transact, query, limit bool                      // the program has the service
	said                   atomic.Pointer[abilities] // when it was greeted last
}

// abilities are what a program says of itself.
type abilities struct {
	features []string
	most     atomic.Pointer[int64] // operations of a transaction; nil before it is asked
}

func openStore(ctx context.Context, host components.Host, at *place, s components.Settings) (state.Store, error) {
	own := &store{
		transact: at.has(proto.TransactionalStateStore_ServiceDesc.ServiceName), query: at.has(proto.QueriableStateStore_ServiceDesc.ServiceName),
		limit: at.has(proto.TransactionalStoreMultiMaxSize_ServiceDesc.ServiceName),
	}
	var err error
	own.link, err = openLink(ctx, at.socket, at.typeOf(components.StateBlock), proto.StateStore_ServiceDesc.ServiceName, host, func(ctx context.Context, conn *grpc.ClientConn) error {
		client := proto.NewStateStoreClient(conn)
		if _, err := client.Init(ctx, &proto.InitRequest{Metadata: &proto.MetadataRequest{Properties: s.Values}}); err != nil {
			return err
		}
		features, err := client.Features(ctx, &proto.FeaturesRequest{})
		if err != nil {
			return err
		}
		own.said.Store(&abilities{features: features.GetFeatures()})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return own, nil
}

// Capabilities implements components.Capable.
func (s *store) Capabilities() []string {
	return slices.DeleteFunc(append([]string{}, s.said.Load().features...), func(f string) bool { return f == "QUERY_API" && !s.query || f == "TRANSACTIONAL" && !s.transact })
}

// Get implements state.Store.
func (s *store) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	return s.GetWith(ctx, keys, nil)
}

// GetWith implements state.Guided.
func (s *store) GetWith(ctx context.Context, keys []string, metadata map[string]string) ([]state.Item, error) {
	asks := make([]*proto.GetRequest, len(keys))
	for i, key := range keys {
		asks[i] = &proto.GetRequest{Key: contrib.KeyName(key), Metadata: metadata}
	}
	found, err := s.read(ctx, asks)
	if err != nil {
		return nil, err
	}
	items := make([]state.Item, 0, len(found))
	for _, key := range keys {
		if item, ok := found[key]; ok {
			items = append(items, item)
		}
	}
	return items, nil
}

// read returns those items that exist, by key.
func (s *store) read(ctx context.Context, asks []*proto.GetRequest) (map[string]state.Item, error) {
	found := make(map[string]state.Item, len(asks))
	asks = distinct(asks)
	if len(asks) > 1 {
		done, err := s.readBulk(ctx, asks, found)
		if done || err != nil {
			return found, err
		}
	}
	for _, ask := range asks {
		got, err := call(ctx, s.link, "get", func(ctx context.Context, conn *grpc.ClientConn) (*proto.GetResponse, error) {
			return proto.NewStateStoreClient(conn).Get(ctx, ask)
		})
		if err != nil {
			return nil, err
		}
		if err := s.take(found, contrib.KeyOf(ask.GetKey()), got.GetData(), got.GetEtag(), got.GetMetadata()); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// readBulk reads all items at once; done is false when the program cannot.
func (s *store) readBulk(ctx context.Context, asks []*proto.GetRequest, found map[string]state.Item) (done bool, err error) {
	request := &proto.BulkGetRequest{Items: asks, Options: &proto.BulkGetRequestOptions{Parallelism: parallel}}
	got, err := call(ctx, s.link, "get", func(ctx context.Context, conn *grpc.ClientConn) (*proto.BulkGetResponse, error) {
		return proto.NewStateStoreClient(conn).BulkGet(ctx, request)
	})
	if fault.ReasonOf(err) == fault.NotSupported {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, item := range got.GetItems() {
		if text := item.GetError(); text != "" {
			return false, s.scrub(fault.New(s.typ+": get", fault.BackendFailed, "the plug-in at %s: key %q: %s", s.socket, item.GetKey(), text))
		}
		if err := s.take(found, contrib.KeyOf(item.GetKey()), item.GetData(), item.GetEtag(), item.GetMetadata()); err != nil {
			return false, err
		}
	}
	return true, nil
}

// take adds an item to found. One that exists has a value or an ETag: a store need not know ETags.
func (s *store) take(found map[string]state.Item, key string, data []byte, etag *proto.Etag, metadata map[string]string) error {
	if etag == nil && len(data) == 0 {
		return nil
	}
	item := state.Item{Key: key, Value: data, ETag: etag.GetValue()}
	if text := metadata["ttlExpireTime"]; text != "" {
		var err error
		if item.Expires, err = time.Parse(time.RFC3339, text); err != nil {
			return s.scrub(fault.New(s.typ+": get", fault.BackendFailed, "the plug-in at %s: ttlExpireTime of %q: %w", s.socket, key, err))
		}
	}
	found[key] = item
	return nil
}

func distinct(asks []*proto.GetRequest) []*proto.GetRequest {
	seen := make(map[string]bool, len(asks))
	return slices.DeleteFunc(asks, func(ask *proto.GetRequest) bool {
		twice := seen[ask.GetKey()]
		seen[ask.GetKey()] = true
		return twice
	})
}
