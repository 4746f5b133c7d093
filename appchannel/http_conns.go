package appchannel

import (
	"context"
	"net"
	"sync"
)

// connections knows the open ones, so that Close can cut those whose calls do not end.
type connections struct {
	mu   sync.Mutex
	open map[*connection]struct{}
	done bool
}

type connection struct {
	net.Conn
	of *connections
}

func (c *connections) dial(ctx context.Context, _, address string) (net.Conn, error) {
	conn, err := dial(ctx, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		conn.Close()
		return nil, net.ErrClosed
	}
	if c.open == nil {
		c.open = make(map[*connection]struct{})
	}
	known := &connection{conn, c}
	c.open[known] = struct{}{}
	return known, nil
}

func (c *connection) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

func (c *connections) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	for conn := range c.open {
		conn.Conn.Close()
	}
}
