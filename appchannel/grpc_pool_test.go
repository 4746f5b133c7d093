package appchannel

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// meeting is an app whose calls end when so many have come, of which it takes no more than maxConcurrent on a connection.
func meeting(t *testing.T, expected int32) (pool *grpcPool, connections *atomic.Int32) {
	t.Helper()
	var here atomic.Int32
	all := make(chan struct{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxConcurrentStreams(maxConcurrent), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if err := stream.RecvMsg(&emptypb.Empty{}); err != nil {
			return err
		}
		if here.Add(1) == expected {
			close(all)
		}
		select {
		case <-all:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		return stream.SendMsg(&emptypb.Empty{})
	}))
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-served })
	connections = &atomic.Int32{}
	pool, err = newGRPCPool(func() (*grpc.ClientConn, error) {
		connections.Add(1)
		return grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return pool, connections
}

// More calls than one connection takes are at the app at once, and none of them is counted when it is over.
func TestCallsBeyondOneConnectionHaveAnother(t *testing.T) {
	const callers = 250
	pool, connections := meeting(t, callers)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var calls sync.WaitGroup
	for i := range callers {
		calls.Go(func() {
			if i%2 == 0 {
				if err := pool.Invoke(ctx, "/a/B", &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
					t.Error(err)
				}
				return
			}
			stream, err := pool.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/a/B")
			if err != nil {
				t.Error(err)
				return
			}
			_ = stream.SendMsg(&emptypb.Empty{})
			_ = stream.CloseSend()
			for err == nil {
				err = stream.RecvMsg(&emptypb.Empty{})
			}
		})
	}
	calls.Wait()
	if n := connections.Load(); n != 3 {
		t.Errorf("%d connections for %d calls", n, callers)
	}
	over, done := context.WithCancel(ctx)
	done()
	if _, err := pool.NewStream(over, &grpc.StreamDesc{ClientStreams: true}, "/a/B"); err == nil {
		t.Error("a call that is over begins")
	}
	for _, conn := range append(pool.more, pool.first) {
		if n := conn.calls.Load(); n != 0 {
			t.Errorf("%d calls are left of none", n)
		}
	}
}
