package entrance

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
)

// Listener has connections of HTTP/1 stand in line as soon as something has come on them and before anything is made of it:
// what waits costs its connection and no more. Context is net/http's ConnContext for such connections, and Begin is for its
// handlers.
func (e *Entrance) Listener(l net.Listener) net.Listener { return &listener{l, e} }

// Context returns ctx with the place of a connection.
func Context(ctx context.Context, c net.Conn) context.Context {
	if own, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, own)
	}
	return ctx
}

// Begin says that a handler has a request of HTTP/1, and returns the place of its connection and what to call when the handler
// is done. The place is nil for all other requests, which share their connections.
func Begin(r *http.Request) (place *Place, done func()) {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok || r.ProtoMajor != 1 {
		return nil, func() {}
	}
	c.busy.Store(true)
	return &c.place, c.done
}

type connKey struct{}

type listener struct {
	net.Listener
	at *Entrance
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, place: Place{At: l.at}}, nil
}

// conn has a place from when a request has begun to come on it until the lane of that call has decided, more has to come, or
// the handler is done.
type conn struct {
	net.Conn
	place  Place
	shared atomic.Bool // it speaks HTTP/2
	busy   atomic.Bool // with a handler, to which what is read belongs
	closed atomic.Bool
}

func (c *conn) done() {
	c.busy.Store(false)
	c.place.Leave()
}

// preface is what connections of HTTP/2 begin with (RFC 9113, section 3.4).
var preface = []byte("PRI * HTTP/2")

// Read gives the place back before it may have to wait.
func (c *conn) Read(into []byte) (int, error) {
	if len(into) == 1 { // how net/http listens, while it works on a request, for the end of its connection
		return c.Conn.Read(into)
	}
	c.place.Leave()
	n, err := c.Conn.Read(into)
	switch {
	case n == 0 || err != nil || c.busy.Load() || c.shared.Load():
	case bytes.HasPrefix(into[:n], preface):
		c.shared.Store(true)
	default:
		_ = c.place.Enter(context.Background(), "read a request") // its caller does not go away: it cannot fail
		if c.closed.Load() {
			c.place.Leave()
		}
	}
	return n, err
}

// Close gives the place back for good.
func (c *conn) Close() error {
	c.closed.Store(true)
	c.place.Leave()
	return c.Conn.Close()
}

// CloseWrite is for net/http, which says so that it will not answer any more.
func (c *conn) CloseWrite() error {
	if inner, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return inner.CloseWrite()
	}
	return errors.ErrUnsupported
}
