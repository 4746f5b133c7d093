package grpcapi

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func TestWatchOfOnlyChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	store := sidecastv1.NewStateClient(start(t, t.TempDir(), "shop", "shop-1").conn)
	if _, err := store.Set(ctx, set("p/old", "1")); err != nil {
		t.Fatal(err)
	}
	watch, err := store.Watch(ctx, &sidecastv1.StateWatchRequest{Prefix: "p/", OnlyChanges: true})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || !first.GetCurrent() {
		t.Fatalf("before any change: %v, %v", first, err)
	}
	for _, key := range []string{"q/else", "p/new", "p/old"} {
		if _, err := store.Set(ctx, set(key, "2")); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"p/new", "p/old"} {
		if e, err := watch.Recv(); err != nil || e.GetSet().GetKey() != key || string(e.GetSet().GetValue()) != "2" {
			t.Errorf("got %v, %v, want the change of %s", e, err, key)
		}
	}
}

// A client that does not read is cut off, holds nobody up, and may watch again.
func TestWatchOverrun(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	s := start(t, t.TempDir(), "shop", "shop-1")
	store := sidecastv1.NewStateClient(s.conn)
	watch, err := sidecastv1.NewStateClient(s.dial()).Watch(ctx, &sidecastv1.StateWatchRequest{OnlyChanges: true})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || !first.GetCurrent() {
		t.Fatalf("the watch begins with %v, %v", first, err)
	}
	const written = 64 // keys of a MiB each: more than may wait for a watcher, and than lies in the connection
	for n := range written {
		if _, err := store.Set(ctx, set(fmt.Sprint("k/", n), string(make([]byte, 1<<20)))); err != nil {
			t.Fatal(err)
		}
	}
	for seen := 0; ; seen++ {
		if _, err = watch.Recv(); err != nil {
			if seen >= written {
				t.Errorf("%d changes were kept for a watcher that did not read", seen)
			}
			break
		}
	}
	if wantReason(t, err, fault.WatchOverrun); status.Code(err) != codes.Unavailable {
		t.Errorf("overrun: %v", err)
	}
	if watch, err = store.Watch(ctx, &sidecastv1.StateWatchRequest{Prefix: "k/"}); err != nil {
		t.Fatal(err)
	}
	for n := range written + 1 {
		if e, err := watch.Recv(); err != nil || e.GetCurrent() != (n == written) {
			t.Fatalf("watching again, event %d is of %q: %v", n, e.GetSet().GetKey(), err)
		}
	}
}

// Someone with the token lets go of a lock that is held: its holder learns that it holds it no longer.
func TestHoldEndsWithTheLease(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	locks := sidecastv1.NewLockClient(start(t, t.TempDir(), "shop", "shop-1").conn)
	hold, err := locks.Hold(ctx, &sidecastv1.HoldRequest{Name: "l", Owner: "me", Ttl: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	held, err := hold.Recv()
	if err != nil {
		t.Fatal(err)
	}
	lease := held.GetLease()
	if _, err := locks.Release(ctx, &sidecastv1.ReleaseRequest{Name: "l", Owner: lease.GetOwner(), Token: lease.GetToken()}); err != nil {
		t.Fatal(err)
	}
	next, err := locks.Acquire(ctx, &sidecastv1.AcquireRequest{Name: "l", Owner: "you", Wait: durationpb.New(patience)})
	if err != nil || next.GetLease().GetToken() <= lease.GetToken() {
		t.Fatalf("after %v came %v, %v", lease, next, err)
	}
	for err = nil; err == nil; {
		_, err = hold.Recv()
	}
	if wantReason(t, err, fault.LockLost); status.Code(err) != codes.Aborted {
		t.Errorf("the end of the hold: %v", err)
	}
	// The holder that lost the lock takes nothing from the next one.
	if _, err := locks.Renew(ctx, &sidecastv1.RenewRequest{Name: "l", Owner: "you", Token: next.GetLease().GetToken()}); err != nil {
		t.Errorf("the next holder: %v", err)
	}
}

// A component whose file changes ends what uses it for long, and the next use is the new one's.
func TestReplacedComponentsEndTheirWatches(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s := start(t, t.TempDir(), "shop", "shop-1")
	store, locks := sidecastv1.NewStateClient(s.conn), sidecastv1.NewLockClient(s.conn)
	states, err := store.Watch(ctx, &sidecastv1.StateWatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := states.Recv(); err != nil || !first.GetCurrent() {
		t.Fatalf("the watch begins with %v, %v", first, err)
	}
	leases, err := locks.Watch(ctx, &sidecastv1.LockWatchRequest{Name: "l"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leases.Recv(); err != nil {
		t.Fatal(err)
	}

	s.set.Reload(manifests(t, `
apiVersion: sidecast.dev/v1
kind: Component
metadata: {name: statestore}
spec: {type: state.memory, version: v1}
---
apiVersion: sidecast.dev/v1
kind: Component
metadata: {name: lockstore}
spec: {type: lock.memory, version: v1}
`))
	_, err = states.Recv()
	if wantReason(t, err, fault.ComponentReplaced); status.Code(err) != codes.Unavailable {
		t.Errorf("the end of the watch: %v", err)
	}
	_, err = leases.Recv()
	wantReason(t, err, fault.ComponentReplaced)

	if _, err := store.Set(ctx, set("k", "new")); err != nil {
		t.Fatal(err)
	}
	again, err := store.Watch(ctx, &sidecastv1.StateWatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := again.Recv(); err != nil || string(e.GetSet().GetValue()) != "new" {
		t.Errorf("watching again: %v, %v", e, err)
	}
}

// manifests reads a file of components.
func manifests(t *testing.T, text string) *components.Documents {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "components.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	docs, err := components.Load(t.Context(), []string{dir}, standard.All())
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestAnAppOfDaprsIsToldOfItsSidecar(t *testing.T) {
	s := start(t, t.TempDir(), "orders", "one")
	for method, want := range map[string]string{
		"/dapr.proto.runtime.v1.Dapr/GetState": "sidecast dapr run", "/sidecast.v1.State/Nothing": "no such method", "/a.b/C": "no such method",
	} {
		err := s.conn.Invoke(t.Context(), method, &sidecastv1.GetRequest{}, &sidecastv1.GetResponse{})
		if status.Code(err) != codes.Unimplemented || fault.ReasonOf(faultgrpc.From(err)) != fault.NotSupported || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", method, err)
		}
	}
}
