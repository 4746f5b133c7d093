package grpcapi

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func TestHoldLetsGoWhenItsClientDisconnects(t *testing.T) {
	dir := t.TempDir()
	one, two := start(t, dir, "shop", "shop-1"), start(t, dir, "intake", "intake-1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := sidecastv1.NewLockClient(two.conn).Watch(ctx, &sidecastv1.LockWatchRequest{Name: "l"})
	if err != nil {
		t.Fatal(err)
	}
	status := func() *sidecastv1.LockWatchResponse {
		t.Helper()
		now, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return now
	}
	if now := status(); now.GetLease() != nil {
		t.Errorf("a lock that is free: %v", now)
	}
	line := one.dial()
	hold, err := sidecastv1.NewLockClient(line).Hold(ctx, &sidecastv1.HoldRequest{Name: "l", Owner: "me", Ttl: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	held, err := hold.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for now := status(); now.GetLease().GetOwner() != "me"; now = status() {
	}
	waited := make(chan *sidecastv1.Lease, 1)
	go func() {
		answer, err := sidecastv1.NewLockClient(two.conn).Acquire(ctx, &sidecastv1.AcquireRequest{Name: "l", Wait: durationpb.New(patience)})
		if err != nil {
			t.Error(err)
		}
		waited <- answer.GetLease()
	}()
	for now := status(); now.GetWaiting() != 1; now = status() {
	}
	if err := line.Close(); err != nil {
		t.Fatal(err)
	}
	if next := <-waited; next.GetToken() <= held.GetLease().GetToken() || next.GetOwner() == "" {
		t.Errorf("after %v came %v", held.GetLease(), next)
	}
	for now := status(); now.GetLease().GetToken() <= held.GetLease().GetToken(); now = status() {
	}
}

func TestLeasesEndAsTheProtocolSays(t *testing.T) {
	ctx, locks := t.Context(), sidecastv1.NewLockClient(start(t, t.TempDir(), "shop", "shop-1").conn)
	taken, err := locks.Acquire(ctx, &sidecastv1.AcquireRequest{Name: "l", Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	lease := taken.GetLease()
	if left := lease.GetTtl().AsDuration(); left <= 0 || left > 30*time.Second {
		t.Errorf("a lease without a length has %s", left)
	}
	_, err = locks.Acquire(ctx, &sidecastv1.AcquireRequest{Name: "l", Owner: "me"})
	if wantReason(t, err, fault.LockHeld); status.Code(err) != codes.Aborted {
		t.Errorf("its owner asks again: %v", err)
	}
	if _, err := locks.Renew(ctx, &sidecastv1.RenewRequest{Name: "l", Owner: "me", Token: lease.GetToken()}); err != nil {
		t.Error(err)
	}
	_, err = locks.Renew(ctx, &sidecastv1.RenewRequest{Name: "l", Owner: "me", Token: lease.GetToken() + 1})
	wantReason(t, err, fault.LockLost)
	if _, err := locks.Release(ctx, &sidecastv1.ReleaseRequest{Name: "l", Owner: "me", Token: lease.GetToken()}); err != nil {
		t.Error(err)
	}
	_, err = locks.Release(ctx, &sidecastv1.ReleaseRequest{Name: "l", Owner: "me", Token: lease.GetToken()})
	wantReason(t, err, fault.LockLost)
	for _, ttl := range []time.Duration{-1, 0, 1, lock.MaxTTL + 1} {
		_, err := locks.Acquire(ctx, &sidecastv1.AcquireRequest{Name: "l", Ttl: durationpb.New(ttl)})
		wantReason(t, err, fault.LeaseShort)
	}
	_, err = locks.Acquire(ctx, &sidecastv1.AcquireRequest{})
	wantReason(t, err, fault.LockName)
	_, err = locks.Acquire(ctx, &sidecastv1.AcquireRequest{StoreName: "nosuch", Name: "l"})
	wantReason(t, err, fault.ComponentNotFound)
}
