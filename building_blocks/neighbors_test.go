package blocks

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
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
		full := &neighbor{joined: make(chan struct{})}
		close(full.joined)
		b.Invocation.neighbors.all[fmt.Sprint(i)] = full
	}
	b.Invocation.neighbors.mu.Unlock()
	wantReason(t, request("one-more"), fault.QueueFull)
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
