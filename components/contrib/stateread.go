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
	op := s.name + ": get"
	calling, leave, err := s.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	found, err := s.read(calling, keys)
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

// read returns those items of keys that exist. The library's bulk read takes a connection that breaks for the end of the
// items: it is asked again for each that is missing. What appears meanwhile makes it read all once more, because items of
// one read are of one moment, as far as writers let it.
func (s *store) read(ctx context.Context, keys []string) (map[string]state.Item, error) {
	asked := make(map[string]string, len(keys)) // by the name it has in the store
	requests := make([]contribstate.GetRequest, 0, len(keys))
	for _, key := range keys {
		name := stored(key)
		if _, twice := asked[name]; !twice {
			asked[name] = key
			requests = append(requests, contribstate.GetRequest{Key: name})
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
			a, err := s.inner.Get(ctx, &contribstate.GetRequest{Key: r.Key})
			if err != nil {
				return nil, err
			}
			if err := take(found, key, a.Data, a.ETag, a.Metadata); err != nil {
				return nil, err
			}
			_, ok := found[key]
			appeared = appeared || ok && len(requests) > 1
		}
	}
	return found, nil
}

// bulk adds what one query finds.
func (s *store) bulk(ctx context.Context, requests []contribstate.GetRequest, asked map[string]string, found map[string]state.Item) error {
	answers, err := s.inner.BulkGet(ctx, requests, contribstate.BulkGetOpts{Parallelism: 10})
	if err != nil {
		return err
	}
	for _, a := range answers {
		if a.Error != "" {
			return errors.New(a.Error)
		}
		if err := take(found, asked[a.Key], a.Data, a.ETag, a.Metadata); err != nil {
			return err
		}
	}
	return nil
}

// take adds an item to found; one without an ETag does not exist.
func take(found map[string]state.Item, key string, data []byte, etag *string, metadata map[string]string) error {
	if etag == nil {
		return nil
	}
	item := state.Item{Key: key, Value: data, ETag: *etag}
	if text := metadata[contribstate.GetRespMetaKeyTTLExpireTime]; text != "" {
		var err error
		if item.Expires, err = time.Parse(time.RFC3339, text); err != nil {
			return err
		}
	}
	found[key] = item
	return nil
}
