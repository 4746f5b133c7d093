//go:build linux

package contrib

import (
	"log/slog"
	"maps"
	"testing"

	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribstate "github.com/dapr/components-contrib/state"
	redisstate "github.com/dapr/components-contrib/state/redis"
)

var discard = slog.New(slog.DiscardHandler)

// dapr is a store of the library as a daprd uses it.
type dapr struct{ contribstate.Store }

func daprRedis(t *testing.T, settings map[string]string) dapr {
	t.Helper()
	s := redisstate.NewRedisStateStore(logs{log: discard})
	if err := s.Init(t.Context(), contribstate.Metadata{Base: contribmetadata.Base{Properties: maps.Clone(settings)}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return dapr{s}
}

func (d dapr) set(t *testing.T, key, value, tag string) {
	t.Helper()
	r := &contribstate.SetRequest{Key: key, Value: []byte(value)}
	if tag != "" {
		r.ETag = &tag
	}
	if err := d.Set(t.Context(), r); err != nil {
		t.Fatalf("Dapr's Set(%q): %v", key, err)
	}
}

func (d dapr) get(t *testing.T, key string) (value, tag string) {
	t.Helper()
	r, err := d.Get(t.Context(), &contribstate.GetRequest{Key: key})
	if err != nil || r.ETag == nil {
		t.Fatalf("Dapr's Get(%q) = %+v, %v", key, r, err)
	}
	return string(r.Data), *r.ETag
}
