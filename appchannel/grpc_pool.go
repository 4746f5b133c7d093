package appchannel

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

const (
	// maxConcurrent is how many calls a connection to an app carries at once. Many servers take no more, and a client that asks
	// for more waits for the end of another call, which may itself wait for this one.
	maxConcurrent = 100
	// maxConnections is how many connections to an app there are; beyond it calls share the first.
	maxConnections = 64
)

// grpcPool spreads the calls to an app over as many connections as they need: one, as a rule. What comes beyond it is kept.
type grpcPool struct {
	first *pooled
	dial  func() (*grpc.ClientConn, error)

	mu     sync.Mutex
	more   []*pooled
	closed bool
}

// pooled is a connection and how many calls it carries.
type pooled struct {
	*grpc.ClientConn
	calls atomic.Int32
}

var _ grpc.ClientConnInterface = (*grpcPool)(nil)

// newGRPCPool dials the first connection.
func newGRPCPool(dial func() (*grpc.ClientConn, error)) (*grpcPool, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	return &grpcPool{first: &pooled{ClientConn: conn}, dial: dial}, nil
}

// Invoke makes a unary call.
func (p *grpcPool) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn := p.take()
	defer conn.calls.Add(-1)
	return conn.ClientConn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream makes any other call.
func (p *grpcPool) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn := p.take()
	release := sync.OnceFunc(func() { conn.calls.Add(-1) })
	stream, err := conn.ClientConn.NewStream(ctx, desc, method, append(opts[:len(opts):len(opts)], grpc.OnFinish(func(error) { release() }))...)
	if err != nil {
		release()
	}
	return stream, err
}

// take finds room for a call.
func (p *grpcPool) take() *pooled {
	if p.first.enter() {
		return p.first
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.more {
		if conn.enter() {
			return conn
		}
	}
	if !p.closed && len(p.more) < maxConnections-1 {
		if conn, err := p.dial(); err == nil { // fails only for what the first would have failed for
			fresh := &pooled{ClientConn: conn}
			fresh.calls.Add(1)
			p.more = append(p.more, fresh)
			return fresh
		}
	}
	p.first.calls.Add(1)
	return p.first
}

func (c *pooled) enter() bool {
	if c.calls.Add(1) <= maxConcurrent {
		return true
	}
	c.calls.Add(-1)
	return false
}

// Close closes all connections.
func (p *grpcPool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	err := p.first.Close()
	for _, conn := range p.more {
		err = errors.Join(err, conn.Close())
	}
	return err
}
