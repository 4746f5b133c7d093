package pluggable

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

const (
	// firstPause and lastPause are between two tries to reach a program that went away.
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	// greeting is how long a program that came back may take to read its settings.
	greeting = 10 * time.Second
	// pingEvery is how often a program is asked whether it is well, pingWait how long it may take to say so.
	pingEvery = 10 * time.Second
	pingWait  = 5 * time.Second
	// grace is how long calls take to end that are cut short.
	grace = time.Second
)

// link is a component's way to its program. It outlives the program: one that comes back is told its settings again, and
// calls fail at once until then.
type link struct {
	socket, typ, service, instance string
	greet                          func(ctx context.Context, conn *grpc.ClientConn) error
	scrub                          func(error) error // see components.Host
	log                            *slog.Logger

	ctx     context.Context // of all calls
	cut     context.CancelFunc
	keeping context.Context // of the keeper
	stop    context.CancelFunc
	kept    chan struct{} // closed when the keeper has ended

	mu      sync.Mutex
	now     *session
	failure error // why there is none, or what is wrong with the one there is
	changed chan struct{}
	closed  bool
	calls   sync.WaitGroup // Add under mu and only while not closed
}

// openLink reaches the program and greets it: greet hands over the settings, once for each connection.
func openLink(ctx context.Context, socket, typ, service string, host components.Host, greet func(context.Context, *grpc.ClientConn) error) (*link, error) {
	l := &link{
		socket: socket, typ: typ, service: service, instance: host.Component, greet: greet, scrub: host.Scrub, log: host.Log.With("socket", socket),
		kept: make(chan struct{}), changed: make(chan struct{}),
	}
	if l.scrub == nil {
		l.scrub = func(err error) error { return err }
	}
	s, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	l.now = s
	l.ctx, l.cut = context.WithCancel(context.Background())
	l.keeping, l.stop = context.WithCancel(l.ctx)
	go l.keep(s)
	return l, nil
}

func (l *link) connect(ctx context.Context) (*session, error) {
	const op = "connect"
	s, err := newSession(l.socket, l.instance)
	if err != nil {
		return nil, fault.New(l.typ+": "+op, fault.BackendDown, "the plug-in at %s: %w", l.socket, err)
	}
	if err := l.greet(ctx, s.conn); err != nil {
		s.close()
		return nil, l.fault(ctx, op, s.reason(err))
	}
	return s, nil
}

// keep has a session at all times, as far as there is a program to have one with.
func (l *link) keep(s *session) {
	defer close(l.kept)
	for l.watch(s) {
		s.close()
		l.set(nil, fault.New(l.typ, fault.BackendDown, "the plug-in at %s went away", l.socket))
		l.log.Warn("the plug-in of a component went away and is waited for")
		if s = l.again(); s == nil {
			return
		}
		l.set(s, nil)
		l.log.Info("the plug-in of a component is back")
	}
	s.close()
}

// again tries until there is a session, or returns nil when the link closes.
func (l *link) again() *session {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-l.keeping.Done():
			timer.Stop()
			return nil
		}
		ctx, cancel := context.WithTimeout(l.keeping, greeting)
		s, err := l.connect(ctx)
		cancel()
		if err == nil {
			return s
		}
		l.set(nil, err)
	}
}

// watch waits for the end of s, and asks the program now and then whether it is well; false says that the link closes.
func (l *link) watch(s *session) bool {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.ended:
			return l.keeping.Err() == nil
		case <-l.keeping.Done():
			return false
		case <-ticker.C:
			ctx, cancel := context.WithTimeout(l.keeping, pingWait)
			l.ping(ctx, s)
			cancel()
		}
	}
}

// ping notes whether the program answers before ctx ends.
func (l *link) ping(ctx context.Context, s *session) {
	err := s.conn.Invoke(ctx, "/"+l.service+"/Ping", &proto.PingRequest{}, &proto.PingResponse{})
	switch status.Code(err) {
	case codes.DeadlineExceeded:
		l.set(s, fault.New(l.typ, fault.BackendDown, "the plug-in at %s does not answer when it is asked whether it is well", l.socket))
	case codes.OK, codes.Unimplemented: // it answers
		l.set(s, nil)
	}
}

// set says which session there is and what is wrong.
func (l *link) set(s *session, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now, l.failure = s, failure
	close(l.changed)
	l.changed = make(chan struct{})
}

// Ailment implements components.Ailing.
func (l *link) Ailment() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// enter begins a call, whose context ends when the link cannot wait for it any longer. leave ends it.
func (l *link) enter(ctx context.Context, op string) (calling context.Context, conn *grpc.ClientConn, leave func(), err error) {
	if ctx.Err() != nil {
		return nil, nil, nil, fault.FromContext(l.typ+": "+op, ctx, "the plug-in at "+l.socket)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return nil, nil, nil, l.shutdown(op)
	case l.now == nil:
		return nil, nil, nil, fault.E(l.typ+": "+op, fault.None, fault.BackendDown, l.failure)
	}
	l.calls.Add(1)
	calling, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.ctx, cancel)
	return calling, l.now.conn, func() {
		stop()
		cancel()
		l.calls.Done()
	}, nil
}

// wait returns when there is a session, or ctx ends.
func (l *link) wait(ctx context.Context) {
	for {
		l.mu.Lock()
		there, changed := l.now != nil || l.closed, l.changed
		l.mu.Unlock()
		if there {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// call does one call of the program.
func call[T any](ctx context.Context, l *link, op string, do func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	var nothing T
	calling, conn, leave, err := l.enter(ctx, op)
	if err != nil {
		return nothing, err
	}
	defer leave()
	answer, err := do(calling, conn)
	if err != nil {
		return nothing, l.fault(ctx, op, err)
	}
	return answer, nil
}

func (l *link) shutdown(op string) error {
	return fault.New(l.typ+": "+op, fault.Shutdown, "the component is closed")
}

// fault is err, of a call of ctx, as a fault that shows no secret: a program may repeat what it was told.
func (l *link) fault(ctx context.Context, op string, err error) error {
	op = l.typ + ": " + op
	if ctx.Err() != nil {
		return fault.FromContext(op, ctx, "the plug-in at "+l.socket)
	}
	if l.ctx != nil && l.ctx.Err() != nil {
		return fault.New(op, fault.Shutdown, "the component is closed")
	}
	return l.scrub(faultOf(op, l.socket, err))
}

// Close refuses new calls, waits for those there are, which it cuts short when ctx ends, and disconnects.
func (l *link) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		l.calls.Wait()
		l.stop()
		<-l.kept
		l.cut()
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	l.cut()
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-gone:
		return nil
	case <-late.C:
		return fault.FromContext(l.typ+": close", ctx, fmt.Sprintf("the calls of the plug-in at %s to end", l.socket))
	}
}
