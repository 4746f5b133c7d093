package appchannel_test

import (
	"context"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func TestHubSubscriptionsAndReadiness(t *testing.T) {
	ready := make(chan error, 16)
	hub, address := serveHub(t, appchannel.Options{OnReady: func(err error) { ready <- err }})
	lists := make(chan []appchannel.Subscription, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- hub.Subscriptions(ctx, func(list []appchannel.Subscription) { lists <- list })
	}()
	expect := func(topics ...string) {
		t.Helper()
		var got []string
		for _, s := range <-lists {
			got = append(got, s.Topic)
		}
		if strings.Join(got, " ") != strings.Join(topics, " ") {
			t.Errorf("want %v, got %v", topics, got)
		}
	}
	expect()
	a := newRawApp(t, address, &sidecastv1.Hello{Subscriptions: []*sidecastv1.Subscription{{Topic: "a"}, {Topic: "b"}}})
	expect("a", "b")
	if err := <-ready; err != nil {
		t.Error(err)
	}
	b := newRawApp(t, address, &sidecastv1.Hello{Subscriptions: []*sidecastv1.Subscription{{Topic: "c", AckWait: nil}, {Topic: "a"}}})
	expect("a", "b", "c")
	a.send(drainFrame())
	expect("a", "c")
	b.send(drainFrame())
	expect()
	if err := <-ready; fault.ReasonOf(err) != fault.AppNotConnected {
		t.Error(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestHubStreamOverrun is an app that ignores its window: its call fails, other calls do not notice.
func TestHubStreamOverrun(t *testing.T) {
	hub, address := serveHub(t, appchannel.Options{})
	app := newRawApp(t, address, &sidecastv1.Hello{})
	failed := make(chan error, 1)
	p := &stuckPeer{release: make(chan struct{})}
	go func() { failed <- hub.Stream(t.Context(), &call.Request{Method: "log"}, p) }()
	id := app.nextCall()
	for range 10 {
		app.send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{Chunk: &sidecastv1.StreamChunk{CallId: id, Data: make([]byte, 100_000)}}})
	}
	if frame := app.next(); frame.GetCancel().GetCallId() != id {
		t.Errorf("want a cancel of %d, got %v", id, frame)
	}
	close(p.release)
	if err := <-failed; fault.ReasonOf(err) != fault.AppAnswer {
		t.Error(err)
	}
	app.send(answer(id, "")) // late frames of the failed call are no violation
	app.send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{Chunk: &sidecastv1.StreamChunk{CallId: id, End: true}}})
	running := invoke(t.Context(), hub, "price")
	for {
		if frame := app.next(); frame.GetInvoke() != nil {
			app.send(answer(frame.GetInvoke().GetCallId(), "9"))
			break
		}
	}
	running.answers(t, "9")
}

// stuckPeer sends nothing, and takes nothing before its release.
type stuckPeer struct{ release chan struct{} }

func (*stuckPeer) Recv(ctx context.Context) ([]byte, error) {
	<-ctx.Done()
	return nil, fault.FromContext("peer", ctx, "nothing")
}

func (p *stuckPeer) Send(context.Context, []byte) error {
	<-p.release
	return nil
}

func (*stuckPeer) Answer(context.Context, *call.Response) error { return nil }
