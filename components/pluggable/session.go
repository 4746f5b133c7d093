package pluggable

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// session is one connection to a program, and never a second one: a program that was started again has forgotten its settings.
type session struct {
	conn  *grpc.ClientConn
	ended chan struct{} // closed when the connection is over
	once  sync.Once
	lost  atomic.Pointer[error] // why it could not be made
}

var errOver = errors.New("the connection is over")

// maxAnswer bounds a message of a program, in bytes: the largest value and what is around it.
const maxAnswer = MaxValue + 1<<20

// newSession connects on the first call. Instance is what tells the component from others of its type, as with Dapr.
func newSession(socket, instance string) (*session, error) {
	s := &session{ended: make(chan struct{})}
	var dialled atomic.Bool
	conn, err := grpc.NewClient("passthrough:///program", // what is dialled is the socket
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if dialled.Swap(true) {
				s.end()
				return nil, errOver
			}
			var dialer net.Dialer
			c, err := dialer.DialContext(ctx, "unix", socket)
			if err != nil {
				s.lost.Store(&err)
				return nil, err
			}
			return &line{c, s}, nil
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"), grpc.WithIdleTimeout(0), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, in, out any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return invoke(named(ctx, instance), method, in, out, conn, options...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(named(ctx, instance), d, conn, method, options...)
		}),
	)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	return s, nil
}

// instanceHeader tells a program which of its components a call is for.
const instanceHeader = "x-component-instance"

func named(ctx context.Context, instance string) context.Context {
	if instance == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, instanceHeader, printable(instance))
}

// printable writes what a header cannot hold as a URL does.
func printable(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return url.PathEscape(text)
	}
	return text
}

func (s *session) end() { s.once.Do(func() { close(s.ended) }) }

func (s *session) close() {
	_ = s.conn.Close() // fails only when it is closed already
	s.end()
}

// reason is err, or why there is no connection in the first place.
func (s *session) reason(err error) error {
	if lost := s.lost.Load(); lost != nil {
		return *lost
	}
	return err
}

// line is a connection that tells of its end.
type line struct {
	net.Conn
	s *session
}

func (l *line) Close() error {
	l.s.end()
	return l.Conn.Close()
}
