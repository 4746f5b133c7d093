package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/ports"
)

// three runs a cluster of three servers and returns them with their URLs.
func three(t *testing.T) (servers []*server.Server, urls string) {
	t.Helper()
	machine.SkipShort(t)
	var routes []*url.URL
	var peers []int
	for range 3 {
		port := ports.Get(t)
		peers = append(peers, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: "127.0.0.1:" + strconv.Itoa(port)})
	}
	var clients []string
	for i, port := range peers {
		s := serve(t, &server.Options{
			ServerName: fmt.Sprint("n", i+1), Routes: routes,
			Cluster: server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: port},
		})
		servers, clients = append(servers, s), append(clients, s.ClientURL())
	}
	machine.Until(t, "the cluster has a leader", func() error {
		for _, s := range servers {
			if s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == 3 {
				return nil
			}
		}
		return errors.New("it has none")
	})
	return servers, strings.Join(clients, ",")
}

// leads checks that everything of the sidecars has three copies, and returns the server that leads the most: its loss costs
// most.
func leads(t *testing.T, ctx context.Context, urls string) (leader string) {
	t.Helper()
	nc, err := nats.Connect(urls)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	led := map[string]int{}
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		t.Logf("%s: %d copies, led by %s", info.Config.Name, info.Config.Replicas, info.Cluster.Leader)
		if info.Config.Replicas != 3 {
			t.Errorf("%s has %d copies, want 3", info.Config.Name, info.Config.Replicas)
		}
		if led[info.Cluster.Leader]++; led[info.Cluster.Leader] > led[leader] {
			leader = info.Cluster.Leader
		}
	}
	if err := streams.Err(); err != nil || leader == "" {
		t.Fatalf("no streams: %v", err)
	}
	return leader
}

// One of three servers is lost; with three copies nothing acknowledged is.
func TestAServerOfTheClusterIsLost(t *testing.T) {
	servers, urls := three(t)
	here, there := machine.New(t), machine.New(t)
	folder := t.TempDir()
	text := "apiVersion: sidecast.dev/v1\nkind: Component\nmetadata:\n  name: shared\nspec:\n  type: state.jetstream\n  version: v1\n  metadata:\n    - name: keyPrefix\n      value: none\n"
	if err := os.WriteFile(filepath.Join(folder, "shared.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--fabric", urls, "--fabric-replicas", "3", "--resources-path", folder}
	caller, callee := here.Sidecar("caller", flags...), there.Sidecar("callee", flags...)
	var mu sync.Mutex
	stored, handled := map[string]bool{}, map[string]bool{}
	callee.Serve(echo("callee"), sidecast.OnEvent("news", func(_ context.Context, e *sidecast.Event) error {
		mu.Lock()
		defer mu.Unlock()
		handled[string(e.Data)] = true
		return nil
	}))
	c := caller.Client()
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	lease, err := c.Lock("").Acquire(ctx, "gate", sidecast.TTL(5*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]string{}
	n := 0
	work := func() error {
		n++
		id := strconv.Itoa(n)
		bounded, done := context.WithTimeout(ctx, 5*time.Second)
		defer done()
		if _, err := c.Publish(bounded, "news", []byte(id)); err != nil {
			return err
		}
		mu.Lock()
		stored[id] = true
		mu.Unlock()
		if _, err := c.State("shared").Set(bounded, "k"+id, []byte(id)); err != nil {
			return err
		}
		kept["k"+id] = id
		return nil
	}
	for i := range 50 {
		machine.Until(t, fmt.Sprint("work begins: ", i), work)
	}
	leader := leads(t, ctx, urls)
	for _, s := range servers {
		if s.Name() == leader {
			stop(s)
		}
	}
	for i := range 50 {
		machine.Until(t, fmt.Sprint("work goes on: ", i), work)
	}
	machine.Until(t, "calls go on", func() error {
		_, err := c.Invoke(ctx, "callee", "echo", nil)
		return err
	})
	machine.Until(t, "every acknowledged event is handled", func() error {
		mu.Lock()
		defer mu.Unlock()
		for id := range stored {
			if !handled[id] {
				return fmt.Errorf("event %s is missing", id)
			}
		}
		return nil
	})
	for key, value := range kept {
		item, found, err := callee.Client().State("shared").Get(ctx, key)
		if err != nil || !found || string(item.Value) != value {
			t.Fatalf("%s is %q, %v, %v; %q was acknowledged", key, item.Value, found, err, value)
		}
	}
	if _, err := c.Lock("").Renew(ctx, lease, sidecast.TTL(time.Minute)); err != nil {
		t.Errorf("the lease did not survive: %v", err)
	}
}
