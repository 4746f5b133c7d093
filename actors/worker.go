package actors

import (
	"context"
	"runtime/debug"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/sidecast/sidecast/fault"
)

// Worker is a supervised goroutine. It is called again when it fails, until it is done or stopped.
type Worker struct {
	subject
	system *System
	run    func(ctx context.Context) error
	pid    *actor.PID

	ctx    context.Context // of all its runs
	cancel context.CancelFunc
	gone   chan struct{} // closed when the actor has stopped: no run begins any more
	// running is closed when the last run has ended; nil before the first. It belongs to the actor until gone is closed.
	running chan struct{}
}

func newWorker(s *System, name string, run func(ctx context.Context) error) *Worker {
	w := &Worker{subject: subject{kind: "worker", name: name}, system: s, run: run, gone: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Stop ends the worker's context and waits until its function has returned. A worker cannot stop itself: it returns nil.
func (w *Worker) Stop(ctx context.Context) error {
	w.cancel()
	w.system.forgetWorker(w)
	w.system.post(w.system.supervisor, stop{w.pid})
	select {
	case <-w.gone:
	case <-ctx.Done():
		return w.lingers(ctx)
	}
	if w.running == nil {
		return nil
	}
	select {
	case <-w.running:
		return nil
	case <-ctx.Done():
		return w.lingers(ctx)
	}
}

func (w *Worker) lingers(ctx context.Context) error {
	return fault.FromContext("stop worker "+w.name, ctx, "it to return")
}

// returned says that a run has ended, and how.
type returned struct {
	late
	err   error
	stack []byte // of a panic
}

// runner is a worker's actor: it keeps the goroutine, which must not block it, and fails when the goroutine does.
type runner struct {
	*Worker
	self *actor.PID
}

// Receive begins a run at each start and judges its end.
func (r *runner) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		r.start(ctx.Self())
	case returned:
		r.judge(m)
	case *actor.Stopped:
		close(r.gone)
	}
}

func (r *runner) start(self *actor.PID) {
	r.self = self
	r.down.Store(false)
	if r.ctx.Err() == nil {
		r.running = make(chan struct{})
		go r.once(self, r.running)
	}
}

// judge passes a failure on to the supervisor, which has the worker started again later. A worker that was stopped, or
// has nothing left to do, is done.
func (r *runner) judge(end returned) {
	if r.isDone(end.err) {
		r.system.post(r.system.supervisor, stop{r.self})
		return
	}
	panic(crash{cause: end.err, stack: end.stack})
}

// once calls run and tells the actor what ended it.
func (w *Worker) once(self *actor.PID, ended chan<- struct{}) {
	defer close(ended)
	end := returned{err: fault.New("worker "+w.name, fault.Panicked, "its goroutine exited")}
	defer func() {
		if cause := recover(); cause != nil {
			end = returned{err: fault.New("worker "+w.name, fault.Panicked, "%v", cause), stack: debug.Stack()}
		}
		if w.isDone(end.err) {
			w.system.forgetWorker(w)
		}
		w.system.post(self, end)
	}()
	end = returned{err: w.run(w.ctx)}
}

func (w *Worker) isDone(err error) bool { return err == nil || w.ctx.Err() != nil }
