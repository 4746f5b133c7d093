package contrib

import (
	"context"
	"errors"
	"time"

	contribstate "github.com/dapr/components-contrib/state"

	"github.com/sidecast/sidecast/state"
)

// Get implements state.Store.
func (s *store) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	return s.GetWith(ctx, keys, nil)
}

// GetWith implements state.Guided.
func (s *store) GetWith(ctx context.Context, keys []string, metadata map[string]string) ([]state.Item, error) {
	op := s.name + ": get"
	calling, leave, err := s.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	asks := make([]ask, len(keys))
	for i, key := range keys {
		asks[i] = ask{key, metadata}
	}
	found, err := s.read(calling, asks)
	if err != nil {
		return nil, s.life.failure(ctx, op, err)
	}
	items := make([]state.Item, 0, len(found))
	for _, key := range keys {
		if item, ok := found[key]; ok {
			items = append(items, item)
		}
	}
	return items, nil
}

// read returns those items of asks that exist. The library's bulk read takes a connection that breaks for the end of the
// items: it is asked again for each that is missing. What appears meanwhile makes it read all once more, because items of
// one read are of one moment, as far as writers let it.
func (s *store) read(ctx context.Context, asks []ask) (map[string]state.Item, error) {
	asked := make(map[string]string, len(asks)) // by the name it has in the store
	requests := make([]contribstate.GetRequest, 0, len(asks))
	for _, a := range asks {
		name := stored(a.key)
		if _, twice := asked[name]; !twice {
			asked[name] = a.key
			requests = append(requests, contribstate.GetRequest{Key: name, Metadata: untimed(a.metadata)})
		}
	}
	found := make(map[string]state.Item, len(requests))
	for appeared, round := true, 0; appeared && round < 3; round++ {
		clear(found)
		if len(requests) > 1 {
			if err := s.bulk(ctx, requests, asked, found); err != nil {
				return nil, err
			}
		}
		appeared = false
		for _, r := range requests {
			key := asked[r.Key]
			if _, ok := found[key]; ok {
				continue
			}
			a, err := s.inner.Get(ctx, &r)
			if err != nil {
				return nil, err
			}
			if err := s.take(found, key, a.Data, a.ETag, a.Metadata); err != nil {
				return nil, err
			}
			_, ok := found[key]
			appeared = appeared || ok && len(requests) > 1
		}
	}
	return found, nil
}

// parallel is how many calls of one request are under way at once.
const parallel = 10

// bulk adds what one query finds.
func (s *store) bulk(ctx context.Context, requests []contribstate.GetRequest, asked map[string]string, found map[string]state.Item) error {
	options, bulk := contribstate.BulkGetOpts{Parallelism: parallel}, s.inner.BulkGet
	if s.partitioned { // its own looks for the keys in all partitions
		bulk = func(ctx context.Context, requests []contribstate.GetRequest, options contribstate.BulkGetOpts) ([]contribstate.BulkGetResponse, error) {
			return contribstate.DoBulkGet(ctx, requests, options, s.inner.Get)
		}
	}
	answers, err := bulk(ctx, requests, options)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if a.Error != "" {
			return errors.New(a.Error)
		}
		if err := s.take(found, asked[a.Key], a.Data, a.ETag, a.Metadata); err != nil {
			return err
		}
	}
	return nil
}

// take adds an item to found; one without an ETag does not exist, where a store has such.
func (s *store) take(found map[string]state.Item, key string, data []byte, etag *string, metadata map[string]string) error {
	item := state.Item{Key: key, Value: data}
	switch {
	case etag != nil && !s.noETags:
		item.ETag = *etag
	case !s.plain || data == nil:
		return nil
	}
	if text := metadata[contribstate.GetRespMetaKeyTTLExpireTime]; text != "" {
		var err error
		if item.Expires, err = time.Parse(time.RFC3339, text); err != nil {
			return err
		}
	}
	found[key] = item
	return nil
}
