//go:build linux

package contrib

import (
	"context"
	"testing"
	"time"

	contribmemcached "github.com/dapr/components-contrib/state/memcached"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
	"github.com/sidecast/sidecast/tests/servers"
)

func memcachedAt(address string) map[string]string {
	return map[string]string{"hosts": address, "timeout": "60000"}
}

// memcachedSettings are those of a server that holds nothing, and starts at once.
func memcachedSettings(t testing.TB) map[string]string {
	return memcachedAt(servers.Own(t, servers.OfMemcached).Address())
}

func TestMemcachedState(t *testing.T) {
	t.Parallel()
	conforms(t, memcachedState, statetest.Traits{Plain: true}, memcachedSettings)
}

func TestMemcachedStateSharesItemsWithDapr(t *testing.T) {
	settings := memcachedSettings(t)
	ours, theirs := openState(t, memcachedState, settings), libraryStore(t, contribmemcached.NewMemCacheStateStore, settings)
	defer ours.Close(t.Context())
	if err := theirs.Set(t.Context(), setRequest("app||k", `{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	items, err := ours.Get(t.Context(), []string{"app||k"})
	if err != nil || len(items) != 1 || string(items[0].Value) != `{"a":1}` {
		t.Fatalf("we read %v (%v)", items, err)
	}
	if _, err := ours.Apply(t.Context(), []state.Op{{Key: "app||k", Value: []byte("2")}}); err != nil {
		t.Fatal(err)
	}
	if answer, err := theirs.Get(t.Context(), getRequest("app||k")); err != nil || string(answer.Data) != "2" {
		t.Errorf("Dapr reads %+v (%v)", answer, err)
	}
}

func TestMemcachedExpirations(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for ttl, want := range map[time.Duration]int32{
		time.Millisecond: 2, time.Second: 2, 1500 * time.Millisecond: 3, 30*24*time.Hour - time.Second: 2_592_000,
		30 * 24 * time.Hour: 1_702_592_001, 31 * 24 * time.Hour: 1_702_678_401,
	} {
		if got, err := expiration(ttl, now); got != want || err != nil {
			t.Errorf("%v is %d (%v), want %d", ttl, got, err, want)
		}
	}
	if _, err := expiration(20*365*24*time.Hour, now); fault.ReasonOf(err) != fault.TTLInvalid {
		t.Errorf("20 years: %v", err)
	}
}

// TestMemcachedOutlivesItsServer: the values are gone, the store works on.
func TestMemcachedOutlivesItsServer(t *testing.T) {
	t.Parallel()
	server := servers.Own(t, servers.OfMemcached)
	s := openState(t, memcachedState, memcachedAt(server.Address()))
	defer s.Close(t.Context())
	set := func(ctx context.Context) error {
		_, err := s.Apply(ctx, []state.Op{{Key: "k", Value: []byte("1")}})
		return err
	}
	get := func(ctx context.Context) error {
		_, err := s.Get(ctx, []string{"k"})
		return err
	}
	if err := attempt(t, set); err != nil {
		t.Fatal(err)
	}
	killed(t, server, func() {
		away(t, "Get", attempt(t, get))
		away(t, "Apply", attempt(t, set))
	})
	eventually(t, "Get", get)
	eventually(t, "Apply", set)
}
