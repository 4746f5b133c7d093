package contrib

import (
	"context"
	"sync"

	"github.com/sidecast/sidecast/fault"
)

// life counts the calls of a backend, so that nothing of it is closed under them.
type life struct {
	ctx context.Context // of all calls
	cut context.CancelFunc

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // Add under mu and only while not closed
	after  sync.Once
	err    error
}

func newLife() *life {
	l := &life{}
	l.ctx, l.cut = context.WithCancel(context.Background())
	return l
}

// enter begins a call: its context ends when the backend cannot wait for it any longer. leave ends it.
func (l *life) enter(ctx context.Context, op string) (calling context.Context, leave func(), err error) {
	if ctx.Err() != nil {
		return nil, nil, fault.FromContext(op, ctx, "the backend")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, nil, closedError(op)
	}
	l.calls.Add(1)
	calling, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(l.ctx, cancel)
	return calling, func() {
		stop()
		cancel()
		l.calls.Done()
	}, nil
}

// isClosed says whether close was called.
func (l *life) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// refuse lets no new calls in.
func (l *life) refuse() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
}

// close refuses new calls, waits for those there are, which it cuts short when ctx ends, and runs release, once.
func (l *life) close(ctx context.Context, release func() error) error {
	l.refuse()
	stop := context.AfterFunc(ctx, l.cut)
	defer stop()
	l.calls.Wait()
	l.after.Do(func() {
		l.cut()
		l.err = release()
	})
	return l.err
}

func closedError(op string) error { return fault.New(op, fault.Shutdown, "the component is closed") }
