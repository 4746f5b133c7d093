package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sidecast "github.com/sidecast/sidecast/sdk/go"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// runApp is the app beside the far sidecar, and the server of direct calls.
func runApp(ctx context.Context, sidecar string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	sidecastv1.RegisterInvocationServer(server, echoServer{})
	go func() { _ = server.Serve(listener) }() // ends with the process
	fmt.Println(listener.Addr())
	client, err := sidecast.Connect(ctx, sidecast.Endpoint(sidecar))
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Serve(ctx, sidecast.Concurrency(1024),
		sidecast.Handle("echo", func(_ context.Context, req *sidecast.Request) (*sidecast.Response, error) {
			return &sidecast.Response{Data: req.Data}, nil
		}),
		sidecast.Handle("work", working.handle),
		sidecast.Handle("hang", func(ctx context.Context, _ *sidecast.Request) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		sidecast.Handle("most", func(context.Context, *sidecast.Request) ([]byte, error) {
			return []byte(strconv.Itoa(int(working.most.Swap(0)))), nil
		}))
}

// working is the app of the overload: its handler takes its time, and it knows how many ran at once.
var working worker

type worker struct{ now, most atomic.Int32 }

func (w *worker) handle(ctx context.Context, req *sidecast.Request) ([]byte, error) {
	if err := w.work(ctx); err != nil {
		return nil, err
	}
	return req.Data, nil
}

func (w *worker) work(ctx context.Context) error {
	n := w.now.Add(1)
	defer w.now.Add(-1)
	for {
		most := w.most.Load()
		if n <= most || w.most.CompareAndSwap(most, n) {
			break
		}
	}
	select {
	case <-time.After(workTime):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type echoServer struct {
	sidecastv1.UnimplementedInvocationServer
}

func (echoServer) Invoke(_ context.Context, in *sidecastv1.InvokeRequest) (*sidecastv1.InvokeResponse, error) {
	if in.Method == "refuse" {
		return nil, status.Error(codes.ResourceExhausted, "a server that does nothing else")
	}
	return &sidecastv1.InvokeResponse{Data: in.Data}, nil
}

// events publishes through one sidecar and hears through the other.
type events struct {
	stream sidecastv1.PubSub_SubscribeClient
	cancel context.CancelFunc
	mu     sync.Mutex
	next   uint64
	waits  map[uint64]chan struct{}
}

const topic = "bench"

func subscribe(conn *grpc.ClientConn) (*events, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := sidecastv1.NewPubSubClient(conn).Subscribe(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	e := &events{stream: stream, cancel: cancel, waits: map[uint64]chan struct{}{}}
	open := &sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Open{Open: &sidecastv1.Subscription{Topic: topic}}}
	if err := errors.Join(stream.Send(open), e.credit(256)); err != nil {
		cancel()
		return nil, err
	}
	if _, err := stream.Recv(); err != nil { // opened
		cancel()
		return nil, err
	}
	go e.listen()
	return e, nil
}

func (e *events) credit(n int32) error {
	return e.stream.Send(&sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Credit{Credit: n}})
}

func (e *events) listen() {
	for {
		frame, err := e.stream.Recv()
		if err != nil {
			return
		}
		event := frame.GetEvent()
		if event == nil || len(event.Data) < 8 {
			continue
		}
		e.mu.Lock()
		wait := e.waits[binary.BigEndian.Uint64(event.Data)]
		e.mu.Unlock()
		if wait != nil {
			wait <- struct{}{}
		}
		ack := &sidecastv1.SubscribeRequest{Frame: &sidecastv1.SubscribeRequest_Ack{Ack: &sidecastv1.EventAck{DeliveryId: event.DeliveryId}}}
		if errors.Join(e.stream.Send(ack), e.credit(1)) != nil {
			return
		}
	}
}

// publishAndWait publishes an event and waits until it has been delivered.
func (e *events) publishAndWait(ctx context.Context, conn *grpc.ClientConn, _ int, body []byte) error {
	delivered := make(chan struct{}, 8) // room for redeliveries
	e.mu.Lock()
	e.next++
	id := e.next
	e.waits[id] = delivered
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.waits, id)
		e.mu.Unlock()
	}()
	data := binary.BigEndian.AppendUint64(make([]byte, 0, len(body)), id)
	data = append(data, body[8:]...)
	if _, err := sidecastv1.NewPubSubClient(conn).Publish(ctx, &sidecastv1.PublishRequest{Topic: topic, Data: data}); err != nil {
		return err
	}
	select {
	case <-delivered:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *events) close() { e.cancel() }
