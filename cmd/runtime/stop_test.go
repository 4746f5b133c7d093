package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

const patience = 30 * time.Second

// up runs a sidecar in this process until stop is called; stopped tells how it ended.
func up(t *testing.T, dir, app string, flags ...string) (conn *grpc.ClientConn, stop func(), stopped <-chan error) {
	t.Helper()
	c := &config{}
	set := pflag.NewFlagSet(app, pflag.ContinueOnError)
	c.flags(set)
	args := append([]string{"--app-id", app, "--data-dir", dir, "--grpc-port", "0", "--metrics-port", "0", "--fabric-port", "0", "--log-level", "error"}, flags...)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		ended <- runSidecar(ctx, c)
	}()
	t.Cleanup(func() {
		cancel()
		<-gone
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if entry, err := rundir.Find(dir, app); err == nil {
			conn, err := grpc.NewClient(entry.GRPCAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			return conn, cancel, ended
		}
		if time.Now().After(deadline) {
			t.Fatalf("the sidecar of %s is not up", app)
		}
	}
}

// working is an app that never answers its first event; it returns when it has it.
func working(t *testing.T, conn *grpc.ClientConn, begin func()) *sidecastv1.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	stream, err := sidecastv1.NewAppClient(conn).Serve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	hello := &sidecastv1.Hello{Subscriptions: []*sidecastv1.Subscription{{Topic: "t", Group: "g", AckWait: durationpb.New(time.Hour)}}}
	if err := stream.Send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	for begin(); ; {
		frame, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if event := frame.GetEvent(); event != nil {
			return event.GetEvent()
		}
	}
}

// A handler that hangs takes its share of the grace period, and no more: everything else is let go of in order.
func TestHandlerThatHangsLeavesTimeForTheRestOfTheStop(t *testing.T) {
	dir := t.TempDir()
	staying, _, _ := up(t, dir, "staying")
	leaving, stop, stopped := up(t, dir, "leaving", "--grace-period", "3s")
	event := working(t, leaving, func() {
		if _, err := sidecastv1.NewPubSubClient(leaving).Publish(t.Context(), &sidecastv1.PublishRequest{Topic: "t"}); err != nil {
			t.Fatal(err)
		}
	})
	hold, err := sidecastv1.NewLockClient(leaving).Hold(t.Context(), &sidecastv1.HoldRequest{Name: "l", Ttl: durationpb.New(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Recv(); err != nil {
		t.Fatal(err)
	}
	stop()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("a handler that hangs holds the stop")
	}
	if _, err := sidecastv1.NewLockClient(staying).Acquire(t.Context(), &sidecastv1.AcquireRequest{Name: "l"}); err != nil {
		t.Errorf("the lock was not let go of: %v", err)
	}
	if again := working(t, staying, func() {}); again.GetId() != event.GetId() || again.GetDelivery() != 2 {
		t.Errorf("got %v", again)
	}
}

// unwell is an app that takes no work.
type unwell struct{ appchannel.Channel }

func (unwell) Ready() error { return errors.New("unwell") }

// A stop that ran out of time before it came to the events does not wait for them.
func TestEventsOfABlockedShutdownEndWithTheStop(t *testing.T) {
	p := newProgress(unwell{}, nil, nil)
	p.stopEvents = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	p.blockShutdown(time.Hour, slog.New(slog.DiscardHandler))
	stopping, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.endEvents(stopping)
	}()
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("events that hang hold the stop")
	}
}
