package appchannel

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// metered are the options of a connection whose calls a meter is told of.
func metered(meter Meter) []grpc.DialOption {
	if meter == nil {
		return nil
	}
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			began := time.Now()
			err := invoke(ctx, method, request, reply, conn, options...)
			code, took := status.Code(err).String(), time.Since(began)
			if strings.HasSuffix(method, "/HealthCheck") {
				meter.RPCProbed(code, took)
				return err
			}
			received := 0
			if err == nil {
				received = sizeOf(reply)
			}
			meter.RPCCalled(method, code, sizeOf(request), received, took)
			return err
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			m := &meteredStream{meter: meter, method: method, began: time.Now()}
			stream, err := open(ctx, desc, conn, method, options...)
			if err != nil {
				m.end(err)
				return nil, err
			}
			m.ClientStream = stream
			return m, nil
		}),
	}
}

func sizeOf(message any) int {
	m, _ := message.(proto.Message)
	return proto.Size(m)
}

// meteredStream tells the meter when the answer has ended.
type meteredStream struct {
	grpc.ClientStream
	meter  Meter
	method string
	began  time.Time
	once   sync.Once
}

func (m *meteredStream) RecvMsg(message any) error {
	err := m.ClientStream.RecvMsg(message)
	if err != nil {
		m.end(err)
	}
	return err
}

func (m *meteredStream) end(err error) {
	m.once.Do(func() {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		m.meter.RPCCalled(m.method, status.Code(err).String(), -1, -1, time.Since(m.began))
	})
}
