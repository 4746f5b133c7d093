//go:build linux

package contrib

import (
	"context"
	"maps"
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

// TestRedisLockLeavesTheLineBehindItsRequest lets the caller of Acquire go while its request is on the way to the server:
// what takes the caller out of the line comes after it.
func TestRedisLockLeavesTheLineBehindItsRequest(t *testing.T) {
	t.Parallel()
	slow, settings := behindRelay(t)
	far := openLock(t, settings)
	defer far.Close(t.Context())
	settings = maps.Clone(settings)
	settings["redisHost"] = slow.target
	near := openLock(t, settings)
	defer near.Close(t.Context())
	lease, err := near.Acquire(t.Context(), "door", "ann", time.Hour, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	slow.hold()
	go func() {
		_, err := far.Acquire(ctx, "door", "bob", time.Hour, true)
		ended <- err
	}()
	time.Sleep(200 * time.Millisecond) // the request is on its way
	cancel()
	time.Sleep(200 * time.Millisecond) // and so is what comes after it, for a caller that does not wait for the answer
	slow.release()
	if err := <-ended; fault.KindOf(err) != fault.Canceled {
		t.Errorf("an Acquire that was called off: %v", err)
	}
	if err := near.Release(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Acquire(t.Context(), "door", "cid", time.Hour, false); err != nil {
		t.Errorf("nobody waits any more: %v", err)
	}
}

func BenchmarkRedisLock(b *testing.B) { locktest.Benchmark(b, lockBackend) }

func TestRedisLockExcludesDapr(t *testing.T) {
	t.Parallel()
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
