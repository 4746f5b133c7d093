package fabric

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/fault"
)

// link is the fabric's one connection: whether it is up, and how a frame gets onto it.
type link struct {
	nc         *nats.Conn
	up         atomic.Bool
	maxPayload atomic.Int64 // of a frame
	backAt     atomic.Int64 // when the last outage ended, in Unix nanoseconds; 0 when there was none

	lost     func(error)
	restored func()
	refused  func(error)
	closed   chan struct{} // nats.go has closed the connection and called its last handler

	mu    sync.Mutex
	ready chan struct{} // closed while the link is up
	since time.Time     // of the last change

	messages sync.Pool // of *nats.Msg with one header
}

func newLink(lost func(error), restored func(), refused func(error)) *link {
	l := &link{lost: lost, restored: restored, refused: refused, closed: make(chan struct{}), ready: make(chan struct{})}
	l.messages.New = func() any { return &nats.Msg{Header: nats.Header{headerKey: make([]string, 1)}} }
	return l
}

// options are those of every fabric, embedded or remote. Publishing while disconnected fails at once, reconnecting never
// ends, and a server that takes no bytes is left.
func (l *link) options(name string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.ReconnectOnFlusherError(),
		nats.IgnoreAuthErrorAbort(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if l.change(false) {
				l.lost(err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			l.maxPayload.Store(min(nc.MaxPayload(), maxFrame))
			l.backAt.Store(time.Now().UnixNano())
			if l.change(true) {
				l.restored()
			}
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) { l.refused(err) }),
		nats.ClosedHandler(func(*nats.Conn) { close(l.closed) }),
	}
}

// dial makes the connection. It is called until it succeeds once, before anything else of the link is used.
func (l *link) dial(urls string, options []nats.Option) error {
	nc, err := nats.Connect(urls, options...)
	if err != nil {
		return err
	}
	l.nc = nc
	l.maxPayload.Store(min(nc.MaxPayload(), maxFrame))
	l.change(true)
	return nil
}

func (l *link) change(up bool) (changed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up.Load() == up {
		return false
	}
	l.since = time.Now()
	if up {
		close(l.ready)
	} else {
		l.ready = make(chan struct{})
	}
	l.up.Store(up)
	return true
}

// downFor is how long the link has been down; 0 when it is up.
func (l *link) downFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up.Load() {
		return 0
	}
	return time.Since(l.since)
}

// fresh tells that the link has only just come up: not everyone may be back yet.
func (l *link) fresh() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up.Load() && time.Since(l.since) < pulseEvery
}

// wait returns when the link is up, or false when ctx ends first.
func (l *link) wait(ctx context.Context) bool {
	l.mu.Lock()
	ready := l.ready
	l.mu.Unlock()
	select {
	case <-ready:
		return true
	case <-ctx.Done():
		return false
	}
}

// errDown is why a publish failed that was not even tried.
var errDown = errors.New("not connected")

// publish sends one frame. An error says that it was not sent. Both value and body may be reused when it returns.
func (l *link) publish(subject, reply string, value, body []byte) error {
	if !l.up.Load() {
		return errDown
	}
	m := l.messages.Get().(*nats.Msg)
	m.Subject, m.Reply, m.Data = subject, reply, body
	m.Header[headerKey][0] = string(value)
	err := l.nc.PublishMsg(m)
	m.Data = nil
	l.messages.Put(m)
	return err
}

// frameOverhead is what NATS adds to a frame's value, `NATS/1.0`, the key and line ends.
const frameOverhead = 64

// maxFrame is the largest frame, whatever else the server allows: all calls share the connection, and a large body in one
// piece would hold up the others.
const maxFrame = 1 << 20

// fits tells whether a frame may be sent in one message.
func (l *link) fits(value, body int) bool {
	return int64(value+body+frameOverhead) <= l.maxPayload.Load()
}

// chunk is the largest piece of a body that goes into one frame.
func (l *link) chunk() int { return int(max(1, min(maxChunk, l.maxPayload.Load()/2))) }

func (l *link) close() {
	l.up.Store(false)
	l.nc.Close()
	<-l.closed
}

// downFault says that nothing was sent.
func downFault(op string, err error) error {
	return fault.New(op, fault.FabricDown, "the fabric cannot be reached: %w", err)
}

// deniedSubject reads the subject out of the server's report that this connection may not publish to it.
func deniedSubject(err error) (string, bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	_, rest, found := strings.Cut(err.Error(), `Publish to "`)
	if !found {
		_, rest, found = strings.Cut(err.Error(), `publish to "`)
	}
	to, _, closed := strings.Cut(rest, `"`)
	return to, found && closed
}
