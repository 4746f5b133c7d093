package appchannel_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// revolvingDoor serves the hub of the day.
type revolvingDoor struct {
	sidecastv1.UnimplementedAppServer
	hub atomic.Pointer[appchannel.Hub]
}

func (d *revolvingDoor) Serve(stream sidecastv1.App_ServeServer) error {
	return d.hub.Load().Serve(stream)
}

// FuzzHubFrames is an app that sends any frames in any order while a call (1), a stream (2) and an event (3) wait for it.
// Whatever it sends, each of the three is answered and the hub ends well.
func FuzzHubFrames(f *testing.F) {
	add := func(frames ...*sidecastv1.ServeRequest) {
		var b bytes.Buffer
		for _, frame := range frames {
			_, _ = protodelim.MarshalTo(&b, frame)
		}
		f.Add(b.Bytes())
	}
	chunk := func(id uint64, size int, end bool) *sidecastv1.ServeRequest {
		return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{Chunk: &sidecastv1.StreamChunk{CallId: id, Data: make([]byte, size), End: end}}}
	}
	event := func(id uint64, status sidecastv1.EventStatus) *sidecastv1.ServeRequest {
		return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_EventAnswer{EventAnswer: &sidecastv1.EventAnswer{CallId: id, Status: status}}}
	}
	failure := &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{
		CallId: 2, Result: &sidecastv1.CallAnswer_Error{Error: &sidecastv1.Failure{Kind: "ok"}},
	}}}
	add()
	add(answer(1, "x"), answer(2, "x"), chunk(2, 10, false), chunk(2, 0, true), event(3, 0))
	add(answer(2, "x"), answer(2, "x"))
	add(chunk(2, 10, true), chunk(2, 10, true))
	add(failure, failure)
	add(event(3, 99), event(3, 1))
	add(drainFrame(), drainFrame(), answer(1, ""))
	add(chunk(2, 200_000, false), chunk(2, 200_000, false), chunk(2, 1, true), answer(1, ""))
	add(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_StreamCredit{StreamCredit: &sidecastv1.StreamCredit{CallId: 2, Bytes: 1 << 62}}},
		&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Credit{Credit: 1 << 30}})

	door := &revolvingDoor{}
	server := grpc.NewServer()
	sidecastv1.RegisterAppServer(server, door)
	listener := listen(f, "")
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { conn.Close(); server.Stop(); <-served })

	f.Fuzz(func(t *testing.T, script []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		hub := appchannel.NewHub(appchannel.Options{AppID: "tested", Log: quiet})
		door.hub.Store(hub)
		wire, err := sidecastv1.NewAppClient(conn).Serve(ctx)
		if err != nil {
			t.Fatal(err)
		}
		app := rawApp{t, wire}
		app.send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: &sidecastv1.Hello{}}})
		app.next()
		answered := make(chan error, 3)
		for _, work := range []func() error{
			func() error { _, err := hub.Invoke(ctx, &call.Request{Method: "x"}); return err },
			func() error { return hub.Stream(ctx, &call.Request{Method: "x"}, &stuckPeer{release: open}) },
			func() error { _, err := hub.Deliver(ctx, &appchannel.Event{Topic: "x"}); return err },
		} {
			go func() { answered <- work() }()
			app.next()
		}
		reader := bytes.NewReader(script)
		for {
			frame := &sidecastv1.ServeRequest{}
			if protodelim.UnmarshalFrom(reader, frame) != nil || wire.Send(frame) != nil {
				break
			}
		}
		_ = wire.CloseSend()
		for range 3 {
			if err := <-answered; fault.KindOf(err) == fault.Timeout {
				t.Fatalf("not answered in time: %v", err)
			}
		}
		if err := hub.Close(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

var open = func() chan struct{} { c := make(chan struct{}); close(c); return c }()
