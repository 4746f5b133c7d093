package gosdk

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const soakResources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.jetstream, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: locks}
spec: {type: lock.jetstream, version: v1, metadata: [{name: keyPrefix, value: name}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: shared}
spec: {type: state.jetstream, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: own}
spec: {type: state.badger, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: file}
spec: {type: state.sqlite, version: v1, metadata: [{name: connectionString, value: "FOLDER/state.db"}]}
scopes: [feed]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: declared}
spec: {pubsubname: bus, topic: declared, routes: {default: /declared}}
scopes: [http]
`

// soakTime is how long things break: SIDECAST_SOAK, or short enough for a test among others.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("SIDECAST_SOAK")
	if text == "" {
		return 15 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Sidecars and apps are ended and killed, one after another, while clients and servers of the SDK work: nothing that was
// acknowledged is lost, every call is answered, subscriptions of each kind come back, and nothing is left behind in a sidecar
// that has seen it all.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes are left out of -short")
	}
	quiet()
	dir, folder, books := group(t), t.TempDir(), newLedger()
	if err := os.WriteFile(filepath.Join(folder, "r.yaml"), []byte(strings.ReplaceAll(soakResources, "FOLDER", t.TempDir())), 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	told := &http.Server{Handler: books}
	go func() { _ = told.Serve(listener) }()
	t.Cleanup(func() { _ = told.Close() })

	var victims []*node
	var sidecars []*sidecarNode
	t.Cleanup(func() {
		for i := len(victims) - 1; i >= 0; i-- {
			victims[i].end(t, syscall.SIGTERM)
		}
		for _, s := range sidecars {
			s.client.Close()
		}
		if t.Failed() {
			for _, v := range victims {
				out := v.output()
				t.Logf("%s\n%s", v.name, out[max(0, len(out)-20000):])
			}
		}
	})
	sidecar := func(app string, args ...string) *sidecarNode {
		s := newSidecarNode(t, dir, folder, app, args...)
		victims, sidecars = append(victims, &s.node), append(sidecars, s)
		return s
	}
	feed := sidecar("feed")
	for _, protocol := range []string{"http", "grpc"} {
		port := freePort(t)
		victims = append(victims, appNode(t, protocol, port, "http://"+listener.Addr().String()))
		sidecar(protocol, "--app-port", port, "--app-protocol", protocol)
	}
	live := sidecar("live")
	keeper := sidecar("keeper") // the last: it is spared in the second half

	ctx, stop := context.WithCancel(t.Context())
	l := &load{t: t, ctx: ctx}
	for _, protocol := range []string{"http", "grpc"} {
		l.publish(feed, books, "told-"+protocol, 0)
		l.publish(keeper, books, "bulked-"+protocol, 10)
		l.invoke(feed, protocol)
		l.invoke(keeper, protocol)
	}
	l.publish(feed, books, "declared", 0)
	l.publish(keeper, books, "streamed", 0)
	l.publish(feed, books, "streamed-too", 0)
	l.stream(live, books, "streamed")
	l.stream(keeper, books, "streamed-too")
	stores := []*written{l.write(feed, "shared"), l.write(feed, "own"), l.write(feed, "file")}
	l.lock(feed, keeper)
	defer l.workers.Wait()
	defer stop()

	settle := func() {
		t.Helper()
		l.gate.Lock()
		defer l.gate.Unlock()
		resting := time.Now()
		defer func() { t.Logf("settled in %v", time.Since(resting).Round(time.Millisecond)) }()
		for deadline := time.Now().Add(2 * patience); books.missing() != ""; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never handled: %s", books.missing())
			}
		}
		for _, w := range stores {
			w.check(t, feed.client)
		}
	}
	long, began := soakTime(t), time.Now()
	var goroutines, heap int
	breaks := 0
	for rest := long / 5; time.Since(began) < long || goroutines == 0; { // the second half comes, however long the first takes
		among := victims
		if time.Since(began) > long/2 {
			among = victims[:len(victims)-1]
			if goroutines == 0 {
				others := sidecars[:len(sidecars)-1]
				for _, s := range others { // all at once, so that the one that is left hosts the fabric from now on
					s.end(t, syscall.SIGKILL)
				}
				keeper.awaitUp(t)
				for _, s := range others {
					s.start(t)
				}
				for _, s := range others {
					s.awaitUp(t)
				}
				settle()
				goroutines, _ = keeper.goroutines(t)
				heap = keeper.heap(t)
			}
		}
		victim, by := among[rand.IntN(len(among))], []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[rand.IntN(2)]
		broke := time.Now()
		victim.end(t, by)
		ended := time.Since(broke)
		time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
		victim.start(t)
		victim.awaitUp(t)
		breaks++
		t.Logf("%s: ended by %v in %v, up after %v", victim.name, by, ended.Round(time.Millisecond), time.Since(broke).Round(time.Millisecond))
		time.Sleep(time.Duration(200+rand.IntN(800)) * time.Millisecond)
		if since := time.Since(began); since > rest {
			rest = since + long/5
			settle()
			t.Logf("after %v and %d breaks: %s; %d calls done, %d failed", since.Round(time.Second), breaks, books, l.done.Load(), l.failed.Load())
		}
		if t.Failed() {
			return
		}
	}
	settle()
	for _, w := range stores {
		if w.acked == 0 || w.counted == 0 {
			t.Errorf("nothing was written to %s", w.store)
		}
	}
	now, memory, stacks := 0, 0, ""
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		now, stacks = keeper.goroutines(t)
		memory = keeper.heap(t)
		if now < goroutines+30 && memory < heap+40 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the sidecar that saw it all had %d goroutines and %d MiB and has %d and %d\n%s", goroutines, heap, now, memory, stacks[:min(len(stacks), 10000)])
		}
	}
	t.Logf("%d breaks; %s; %d calls done, %d failed; goroutines %d, then %d; heap %d MiB, then %d", breaks, books, l.done.Load(), l.failed.Load(), goroutines, now, heap, memory)
	if l.done.Load() == 0 {
		t.Error("no call was answered")
	}
}
