package blocks

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

func TestCallsIntoOtherNamespaces(t *testing.T) {
	dir := t.TempDir()
	b := sidecar(t, dir, "client", &testApp{invoke: echo, deliver: handled}, 0)
	join := func(namespace, app string) (*fabric.Fabric, error) {
		return fabric.Open(t.Context(), fabric.Config{
			Namespace: namespace, AppID: app, Instance: app + "-1", Dir: dir + "/fabric", GuestOnly: true, MaxBody: 8 << 20,
		})
	}
	far, err := join("far", "server")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = far.Close(context.Background()) }()
	callers := make(chan string, 10)
	if err := far.Serve(farHandler{callers}); err != nil {
		t.Fatal(err)
	}
	far.Announce(fabric.Instance{Weight: 1, Ready: true, Started: time.Now()})

	request := func(namespace string) error {
		_, err := b.Invocation.Invoke(t.Context(), &call.Request{App: "server", Namespace: namespace, Method: "x"})
		return err
	}
	wantReason(t, request("far"), fault.NotSupported) // as long as nothing joins other namespaces
	broken := atomic.Bool{}
	broken.Store(true)
	joins := atomic.Int64{}
	b.Invocation.neighbors.join = func(_ context.Context, namespace string) (*fabric.Fabric, error) {
		joins.Add(1)
		if broken.Load() {
			return nil, fault.New("join", fault.FabricDown, "%w", errors.New("away"))
		}
		return join(namespace, CallerName("client", "test"))
	}
	defer func() { _ = b.Close(context.Background()) }()
	wantReason(t, request("far"), fault.FabricDown)
	broken.Store(false)
	for range 3 {
		if err := request("far"); err != nil {
			t.Fatal(err)
		}
		if got := <-callers; got != "client@test" {
			t.Errorf("the caller is %q", got)
		}
	}
	if n := joins.Load(); n != 2 {
		t.Errorf("the namespace was joined %d times, once in vain", n-1)
	}
	wantReason(t, request("\x00"), fault.BadRequest)
	// Apps make names up: there is a bound.
	b.Invocation.neighbors.mu.Lock()
	for i := range maxNeighbors - 1 {
		full := &neighbor{joined: make(chan struct{})} // being joined
		b.Invocation.neighbors.all[fmt.Sprint(i)] = full
	}
	b.Invocation.neighbors.mu.Unlock()
	at, err := b.Invocation.neighbors.in(t.Context(), "far")
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, request("one-more"), fault.QueueFull)
	at.done()
	wantReason(t, request("one-more"), fault.QueueFull) // there is an app in the other
	if err := b.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wantReason(t, request("far"), fault.Shutdown)

	// The other side: an app takes such calls only where its sidecar makes them.
	_, err = b.App.ServeCall(t.Context(), &call.Request{App: "client", Caller: "server@far", Method: "x"})
	wantReason(t, err, fault.AccessDenied)
	b.App.open = true
	resp, err := b.App.ServeCall(t.Context(), &call.Request{App: "client", Caller: "server@far", Method: "x"})
	if err != nil || resp.Header.Get("caller") != "server" {
		t.Errorf("got %v %v", resp, err)
	}
}

type farHandler struct{ callers chan string }

func (h farHandler) ServeCall(_ context.Context, req *call.Request) (*call.Response, error) {
	h.callers <- req.Caller
	return &call.Response{}, nil
}

func (h farHandler) ServeStream(context.Context, *call.Request, call.ServerStream) error { return nil }

// guardsOf is how many guards the rules of b know.
func guardsOf(b *Blocks) int {
	b.Invocation.rules.mu.Lock()
	defer b.Invocation.rules.mu.Unlock()
	return len(b.Invocation.rules.guards)
}

// A namespace that nobody is in, as one that was misspelled, gives its place up to another and can be joined again; one with
// apps or with calls keeps it.
func TestNamespacesGiveUpTheirPlaces(t *testing.T) {
	dir := t.TempDir()
	b := sidecar(t, dir, "client", &testApp{invoke: echo, deliver: handled}, 0)
	n := b.Invocation.neighbors
	n.join = func(ctx context.Context, namespace string) (*fabric.Fabric, error) {
		return fabric.Open(ctx, fabric.Config{
			Namespace: namespace, AppID: "client@test", Instance: "client-1", Dir: dir + "/fabric", GuestOnly: true, MaxBody: 8 << 20,
		})
	}
	defer func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	used, err := n.in(t.Context(), "used")
	if err != nil {
		t.Fatal(err)
	}
	guards := guardsOf(b)
	for i := range 2 * maxNeighbors {
		at, err := n.in(t.Context(), fmt.Sprintf("typo-%d", i%(maxNeighbors+2)))
		if err != nil {
			t.Fatal(err)
		}
		if at.invocation.unknown.Do(t.Context(), resiliency.Call{Op: "x"}, func(context.Context, actors.Grant) error { return nil }) != nil {
			t.Errorf("the lane of namespace %d is closed", i)
		}
		at.done()
		_, err = b.Invocation.Invoke(t.Context(), &call.Request{App: "http://127.0.0.1:1", Namespace: fmt.Sprintf("typo-%d", i%(maxNeighbors+2)), Method: "x"})
		wantReason(t, err, fault.AppNotFound) // servers outside are of no namespace
	}
	if got := guardsOf(b); got != guards {
		t.Errorf("%d guards, where there were %d before the namespaces", got, guards)
	}
	if again, err := n.in(t.Context(), "used"); err != nil || again != used {
		t.Errorf("a namespace with a call was let go of: %v", err)
	}
	n.mu.Lock()
	if len(n.all) != maxNeighbors {
		t.Errorf("there are %d namespaces", len(n.all))
	}
	n.mu.Unlock()
}

// Whoever waits for a namespace waits no longer than it may, the first caller as the others, and a stop cuts the joining off.
func TestJoiningHoldsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		n := newNeighbors()
		n.join = func(ctx context.Context, _ string) (*fabric.Fabric, error) {
			<-ctx.Done()
			<-stuck
			return nil, fault.FromContext("join", ctx, "nothing")
		}
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			if _, err := n.in(ctx, "far"); fault.KindOf(err) != fault.Timeout || time.Since(began) != time.Second {
				t.Errorf("got %v after %v", err, time.Since(began))
			}
			cancel()
		}
		if calls := n.all["far"].calls.Load(); calls != 0 {
			t.Errorf("%d calls are still in it", calls)
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := n.in(t.Context(), "far")
			waiting <- err
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := n.close(ctx); fault.KindOf(err) != fault.Timeout {
			t.Errorf("a stop over a joining that hangs gives %v", err)
		}
		close(stuck)
		wantReason(t, <-waiting, fault.Shutdown)
		if err := n.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
