package appchannel_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func TestHubDrain(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	leaving := newRawApp(t, address, &sidecastv1.Hello{Credits: 1})
	running, waiting := invoke(t.Context(), hub, "price"), (*invocation)(nil)
	id := leaving.nextCall()
	waiting = invoke(t.Context(), hub, "price")
	leaving.send(drainFrame())
	// What waited finds that nobody is left; what runs may still be answered, and then the stream ends well.
	waiting.fails(t, fault.AppNotConnected)
	if hub.Ready() == nil {
		t.Error("ready while the app drains")
	}
	leaving.send(answer(id, "done"))
	running.answers(t, "done")
	if s := leaving.ended(); s.Code() != codes.OK {
		t.Errorf("ended with %v", s)
	}
}

func TestHubCloseDrains(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	app := newRawApp(t, address, &sidecastv1.Hello{})
	silent := newRawApp(t, address, nil)
	running := invoke(t.Context(), hub, "price")
	id := app.nextCall()
	closed := make(chan error, 1)
	go func() { closed <- hub.Close(t.Context()) }()
	if app.next().GetDrain() == nil {
		t.Error("no drain")
	}
	app.send(answer(id, "done"))
	running.answers(t, "done")
	if err := <-closed; err != nil {
		t.Error(err)
	}
	app.ended()
	silent.ended()
	late := newRawApp(t, address, nil)
	if s := late.ended(); s.Code() != codes.Unavailable {
		t.Errorf("a late stream ended with %v", s)
	}
}

func TestHubCloseCuts(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	app := newRawApp(t, address, &sidecastv1.Hello{})
	running := invoke(t.Context(), hub, "price")
	app.nextCall()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := hub.Close(ctx); fault.ReasonOf(err) != fault.Shutdown {
		t.Error(err)
	}
	running.fails(t, fault.InstanceLost)
	if s := app.ended(); s.Code() != codes.Unavailable {
		t.Errorf("ended with %v", s)
	}
}

// TestHubElsewhere is an app whose stream ends while work waits to be sent on it: the work goes to the other stream.
func TestHubElsewhere(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	stuck, kill := openApp(t, address)
	if err := stuck.Send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Credits: 100}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stuck.Recv(); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 1<<20)
	failed := make(chan error, 20)
	for range 20 {
		go func() {
			_, err := hub.Invoke(t.Context(), &call.Request{Method: "price", Body: body})
			failed <- err
		}()
	}
	good := newRawApp(t, address, &sidecastv1.Hello{Credits: 1})
	go func() {
		for frame, err := good.wire.Recv(); err == nil; frame, err = good.wire.Recv() {
			_ = good.wire.Send(answer(frame.GetInvoke().GetCallId(), "moved"))
		}
	}()
	kill()
	moved := 0
	for range 20 {
		switch err := <-failed; {
		case err == nil:
			moved++
		case fault.NotSent(err) || fault.ReasonOf(err) != fault.InstanceLost:
			t.Error(err)
		}
	}
	if moved == 0 {
		t.Error("nothing went elsewhere")
	}
}

// TestHubChurn is an app whose streams come and go, some of them before they are welcomed, while callers call.
func TestHubChurn(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for ctx.Err() == nil {
				_, err := hub.Invoke(ctx, &call.Request{Method: "price"})
				switch fault.ReasonOf(err) {
				case "", fault.AppNotConnected, fault.InstanceLost, fault.CallCanceled:
				default:
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		stream, kill := openApp(t, address)
		_ = stream.Send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{Credits: 3}}})
		for range i % 4 {
			if frame, err := stream.Recv(); err == nil && frame.GetInvoke() != nil {
				_ = stream.Send(answer(frame.GetInvoke().GetCallId(), "9"))
			}
		}
		kill()
	}
	stop()
	group.Wait()
	for hub.Ready() == nil {
		time.Sleep(time.Millisecond)
	}
	invoke(t.Context(), hub, "price").fails(t, fault.AppNotConnected)
}
