package appchannel_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
)

// busy is the listener of an app that is too busy to greet who comes, for longer than a pause between attempts to connect.
type busy struct {
	net.Listener
	accepted atomic.Int32
}

func (b *busy) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if err == nil && b.accepted.Add(1) == 1 {
		time.Sleep(600 * time.Millisecond)
	}
	return conn, err
}

func TestAnAppThatIsBusyIsNotHungUpOn(t *testing.T) {
	listener := &busy{Listener: listen(t, "")}
	server := grpc.NewServer()
	runtimev1.RegisterAppCallbackServer(server, daprApp{})
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-served })
	ready := make(chan error, 16)
	channel, err := appchannel.OpenDapr(appchannel.Callback{Address: listener.Addr().String(), Dapr: true, Log: quiet, OnReady: func(err error) { ready <- err }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = channel.Close(context.Background()) })
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	if answer, err := channel.Invoke(t.Context(), &call.Request{Method: "m", Verb: "PUT", Body: []byte("x")}); err != nil || string(answer.Body) != "PUT x" {
		t.Errorf("got %v, %v", answer, err)
	}
	// The port is probed, too; what counts is that one connection was enough for the protocol.
	if n := listener.accepted.Load(); n > 2 {
		t.Errorf("the app was connected to %d times", n)
	}
}
