//go:build linux

package contrib

import (
	"context"
	"testing"
	"time"

	contriblock "github.com/dapr/components-contrib/lock"
	redislock "github.com/dapr/components-contrib/lock/redis"
	contribmetadata "github.com/dapr/components-contrib/metadata"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/lock/locktest"
)

func openLock(t testing.TB, settings map[string]string) lock.Locker {
	t.Helper()
	l, err := redisLock.Open(context.Background(), host, settings)
	if err != nil {
		t.Fatal(err)
	}
	return l.(lock.Locker)
}

var lockBackend = locktest.Backend{Shared: true, Durable: true, New: func(t testing.TB) locktest.Store {
	settings := redisSettings(t)
	return locktest.Store{
		Open: func(t testing.TB) lock.Locker { return openLock(t, settings) },
		Left: func(t testing.TB) int {
			l := openLock(t, settings).(*redisLocker)
			defer l.Close(t.Context())
			size, err := l.client.DoRead(t.Context(), "DBSIZE")
			if err != nil {
				t.Fatal(err)
			}
			return int(size.(int64)) - 1 // the counter of tokens
		},
	}
}}

func TestRedisLock(t *testing.T) {
	t.Parallel()
	locktest.Run(t, lockBackend)
}

func BenchmarkRedisLock(b *testing.B) { locktest.Benchmark(b, lockBackend) }

func TestRedisLockExcludesDapr(t *testing.T) {
	settings := redisSettings(t)
	ours := openLock(t, settings)
	defer ours.Close(t.Context())
	theirs := redislock.NewStandaloneRedisLock(logs{log: discard})
	if err := theirs.InitLockStore(t.Context(), contriblock.Metadata{Base: contribmetadata.Base{Properties: settings}}); err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()

	lease, err := ours.Acquire(t.Context(), "door", "ann", time.Minute, false)
	if err != nil {
		t.Fatal(err)
	}
	try := &contriblock.TryLockRequest{ResourceID: "door", LockOwner: "bob", ExpiryInSeconds: 60}
	if r, err := theirs.TryLock(t.Context(), try); err != nil || r.Success {
		t.Fatalf("Dapr takes a lock that is held: %+v, %v", r, err)
	}
	if err := ours.Release(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if r, err := theirs.TryLock(t.Context(), try); err != nil || !r.Success {
		t.Fatalf("Dapr does not get a free lock: %+v, %v", r, err)
	}
	if _, err := ours.Acquire(t.Context(), "door", "ann", time.Minute, false); fault.ReasonOf(err) != fault.LockHeld {
		t.Errorf("a lock that Dapr holds: %v", err)
	}
	if err := ours.Release(t.Context(), lease); fault.ReasonOf(err) != fault.LockLost {
		t.Errorf("releasing a lock that Dapr holds: %v", err)
	}
}
