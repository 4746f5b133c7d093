package contrib

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// life counts the calls of a backend, so that nothing of it is closed under them.
type life struct {
	ctx context.Context // of all calls
	cut context.CancelFunc
	log *slog.Logger

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // Add under mu and only while not closed
	strays sync.WaitGroup // what the library works on, maybe for nobody any more; Add within a call
	after  sync.Once
	gone   chan struct{} // closed when nothing runs any more
	err    error         // of the release; written before gone is closed
}

func newLife(log *slog.Logger) *life {
	l := &life{log: log, gone: make(chan struct{})}
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

// detached runs fn within a call and returns when it does or ctx ends: many a library does not hear of that. What fn is
// given must not be changed by the caller afterwards. A panic of the library is an error.
func detached[T any](ctx context.Context, l *life, fn func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	l.strays.Go(func() {
		var a answer
		defer func() {
			if p := recover(); p != nil {
				l.log.Error("the library panicked", "panic", p, "stack", string(debug.Stack()))
				a.err = fault.New("the library", fault.Panicked, "panicked: %v", p)
			}
			done <- a
		}()
		a.value, a.err = fn()
	})
	select {
	case a := <-done:
		return a.value, a.err
	case <-ctx.Done():
		var nothing T
		return nothing, context.Cause(ctx)
	}
}

// bounded is detached, with at most as many at work as slots has room for, those included that work for nobody any more: that
// is what a system that hangs costs.
func bounded[T any](ctx context.Context, l *life, slots chan struct{}, fn func() (T, error)) (T, error) {
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		var nothing T
		return nothing, context.Cause(ctx)
	}
	return detached(ctx, l, func() (T, error) {
		defer func() { <-slots }()
		return fn()
	})
}

// failure is the fault of a call of ctx, which may have been cut short because the backend closes.
func (l *life) failure(ctx context.Context, op string, err error) error {
	if err != nil && ctx.Err() == nil && l.ctx.Err() != nil {
		return closedError(op)
	}
	return failure(ctx, op, err)
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

// grace is how long a call takes to end when it is cut short, if the library hears of it at all.
const grace = time.Second

// close refuses new calls, waits for those there are, which it cuts short when ctx ends, and runs release, once. When the
// library keeps it from coming to an end, that goes on behind its back.
func (l *life) close(ctx context.Context, op string, release func() error) error {
	l.refuse()
	defer context.AfterFunc(ctx, l.cut)()
	l.after.Do(func() {
		go func() {
			defer close(l.gone)
			l.calls.Wait()
			l.cut()
			l.err = release()
			l.strays.Wait()
		}()
	})
	select {
	case <-l.gone:
	case <-ctx.Done():
		late := time.NewTimer(grace)
		defer late.Stop()
		select {
		case <-l.gone:
		case <-late.C:
			return fault.FromContext(op, ctx, "the library to close its connections")
		}
	}
	if l.err != nil {
		return fault.E(op, fault.None, fault.BackendFailed, l.err)
	}
	return nil
}

func closedError(op string) error { return fault.New(op, fault.Shutdown, "the component is closed") }
