package natslock

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/ports"
)

// cluster starts three servers that know each other.
func cluster(t *testing.T) []*server.Server {
	t.Helper()
	all := []int{ports.Get(t), ports.Get(t), ports.Get(t)}
	var routes []string
	for _, port := range all {
		routes = append(routes, fmt.Sprint("nats://127.0.0.1:", port))
	}
	servers := make([]*server.Server, len(all))
	for i, port := range all {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
			Routes:  server.RoutesFromStr(strings.Join(routes, ",")),
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { stop(s) })
		servers[i] = s
	}
	eventually(t, "the election of a leader", func() bool {
		for _, s := range servers {
			if s.JetStreamIsLeader() {
				return s.NumRoutes() > 0
			}
		}
		return false
	})
	return servers
}

// Three servers, three copies, the bucket's leader goes away in the middle: one holds the lock at a time, tokens grow,
// and every caller gets on.
func TestClusterLosesItsLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("an election takes seconds")
	}
	servers := cluster(t)
	urls := make([]string, len(servers))
	for i, s := range servers {
		urls[i] = s.ClientURL()
	}
	var lockers []*locker
	for i := range servers {
		conn, err := nats.Connect(strings.Join(urls, ","), nats.DontRandomize(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		h := host(conn, false)
		h.Replicas = 3
		var l *locker
		eventually(t, fmt.Sprint("the opening of locker ", i), func() bool {
			opened, err := open(t.Context(), h, Config{Bucket: "locks"})
			if err == nil {
				l = opened.(*locker)
			}
			return err == nil
		})
		t.Cleanup(func() {
			if err := l.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		lockers = append(lockers, l)
		urls = append(urls[1:], urls[0])
	}
	var (
		mu    sync.Mutex
		last  uint64
		taken int
	)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pairs := func() int {
		mu.Lock()
		defer mu.Unlock()
		return taken
	}
	var wg sync.WaitGroup
	for i := range 9 {
		wg.Go(func() {
			for ctx.Err() == nil {
				l := lockers[i%len(lockers)]
				lease, err := l.Acquire(ctx, "door", fmt.Sprint("owner ", i), 3*time.Second, true)
				if err != nil {
					if k := fault.KindOf(err); k != fault.Unavailable && k != fault.Canceled && k != fault.Timeout {
						t.Errorf("acquire: %v", err)
					}
					time.Sleep(20 * time.Millisecond)
					continue
				}
				mu.Lock()
				if lease.Token <= last {
					t.Errorf("token %d came after %d", lease.Token, last)
				}
				last = lease.Token
				taken++
				mu.Unlock()
				_ = l.Release(ctx, lease)
			}
		})
	}
	eventually(t, "a hundred pairs", func() bool { return pairs() > 100 })
	for _, s := range servers {
		if s.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, "KV_test_locks") {
			stop(s)
			break
		}
	}
	before := pairs()
	eventually(t, "another hundred pairs", func() bool { return pairs() > before+100 })
	cancel()
	wg.Wait()
}
