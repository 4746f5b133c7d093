package actors

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/cenkalti/backoff/v4"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// Options of a System. The zero value will do.
type Options struct {
	// Log takes what the supervisor has to say; nil discards it.
	Log *slog.Logger
	// RestartAfter is the first wait before a failed lane or worker is restarted (0 = 100 ms), RestartAtMost the longest
	// (0 = 10 s).
	RestartAfter, RestartAtMost time.Duration
	// Observe, when not nil, is shown each decision of each lane, in the goroutine and with the context of the attempt or
	// the call that it is about. It must not block.
	Observe func(ctx context.Context, d Decided)
	// Pressure tells how loaded the machine is. It is asked twice a second, by one goroutine, while there are lanes whose
	// policy protects CPU or memory; without it (nil) those never shed for their sake.
	Pressure func(context.Context) (resiliency.Pressure, error)
}

// Decided is a decision of a lane as Options.Observe is shown it. Its Turn is not the observer's to look at.
type Decided struct {
	resiliency.Decision
	Lane string
	// Hedge says that it is about an attempt beside another.
	Hedge bool
}

// System holds all lanes and workers of a sidecar under one supervisor.
type System struct {
	log        *slog.Logger
	engine     *actor.ActorSystem
	supervisor *actor.PID
	ended      chan struct{} // closed when every actor has stopped
	closed     chan struct{} // closed when Close begins

	firstShare atomic.Pointer[FirstShare]

	mu      sync.RWMutex
	lanes   map[string]*Lane
	workers map[*Worker]struct{}
	heeding map[*Lane]struct{} // those who are told of pressure
	sensing bool               // somebody looks

	pressure func(context.Context) (resiliency.Pressure, error)

	observe func(ctx context.Context, d Decided) // nil shows nobody

	// trap, when a test sets it before the first lane, runs inside lanes so that they can be made to panic.
	trap func(lane string, message any)
}

// NewSystem returns a running system without lanes or workers. It holds no goroutine while nothing happens.
func NewSystem(o Options) *System {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.RestartAfter <= 0 {
		o.RestartAfter = 100 * time.Millisecond
	}
	if o.RestartAtMost <= 0 {
		o.RestartAtMost = max(10*time.Second, o.RestartAfter)
	}
	s := &System{
		log:     o.Log,
		engine:  newEngine(o.Log),
		ended:   make(chan struct{}),
		closed:  make(chan struct{}),
		lanes:   make(map[string]*Lane),
		workers: make(map[*Worker]struct{}),
		observe: o.Observe,
		heeding: make(map[*Lane]struct{}),

		pressure: o.Pressure,
	}
	root := &supervisor{
		log:      o.Log,
		root:     s.engine.Root,
		children: make(map[string]*child),
		ended:    s.ended,
		delays: func() *backoff.ExponentialBackOff {
			return backoff.NewExponentialBackOff(
				backoff.WithInitialInterval(o.RestartAfter),
				backoff.WithMaxInterval(o.RestartAtMost),
				backoff.WithMultiplier(2),
				backoff.WithRandomizationFactor(0.2),
				backoff.WithMaxElapsedTime(0),
			)
		},
	}
	s.supervisor = s.engine.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return root }))
	return s
}

// newEngine starts the actor library, quiet and small.
func newEngine(log *slog.Logger) *actor.ActorSystem {
	logger := slog.New(library{log.Handler()})
	engine := actor.NewActorSystem(
		actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return logger }),
		// The goroutine that counts dead letters outlives their last by this long.
		actor.WithDeadLetterThrottleInterval(time.Millisecond),
	)
	// The registry comes with 32,768 maps, made for millions of actors. Nothing is in it yet that is looked up by name.
	buckets := engine.ProcessRegistry.LocalPIDs
	buckets.LocalPIDs = slices.Clone(buckets.LocalPIDs[:1])
	return engine
}

// Lane returns the lane of that name, made with p if it did not exist: the first policy stays until SetPolicy.
func (s *System) Lane(name string, p resiliency.Policy) *Lane { return s.lane(name, p, false) }

// BalancedLane is Lane for a target of several endpoints: the lane chooses one for each attempt. Until SetEndpoints it
// knows none, and calls fail with fault.AppNotFound.
func (s *System) BalancedLane(name string, p resiliency.Policy) *Lane { return s.lane(name, p, true) }

func (s *System) lane(name string, p resiliency.Policy, balanced bool) *Lane {
	s.mu.RLock()
	l := s.lanes[name]
	s.mu.RUnlock()
	if l != nil {
		return l
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lanes[name]; l != nil {
		return l
	}
	l = newLane(s, name, p, balanced)
	if s.isClosed() {
		l.fall()
		close(l.gone)
		return l
	}
	l.pid = s.spawn(&l.subject, &keeper{lane: l})
	s.lanes[name] = l
	s.heed(l)
	return l
}

// Worker runs run in a goroutine of its own. When run fails or panics it is called again after a wait that grows; when
// it returns nil the worker is done. Its context ends with Stop and with the system.
func (s *System) Worker(name string, run func(ctx context.Context) error) *Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worker(name, run)
}

// worker is Worker for who holds mu.
func (s *System) worker(name string, run func(ctx context.Context) error) *Worker {
	w := newWorker(s, name, run)
	if s.isClosed() {
		w.cancel()
		close(w.gone)
		return w
	}
	s.workers[w] = struct{}{}
	w.pid = s.spawn(&w.subject, &runner{Worker: w})
	return w
}

// spawn has the supervisor start an actor. Its caller holds mu, so the supervisor cannot have been stopped.
func (s *System) spawn(subject *subject, receiver actor.Actor) *actor.PID {
	reply := make(chan *actor.PID, 1)
	s.post(s.supervisor, spawn{subject, receiver, reply})
	return <-reply
}

// post sends a message. To an actor that has stopped, or never started, it does nothing.
func (s *System) post(to *actor.PID, message any) {
	if to != nil {
		s.engine.Root.Send(to, message)
	}
}

func (s *System) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

func (s *System) forgetLane(l *Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes[l.name] == l {
		delete(s.lanes, l.name)
	}
	delete(s.heeding, l)
}

func (s *System) forgetWorker(w *Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.workers, w)
}

// snapshot returns the lanes and workers there are, by name.
func (s *System) snapshot() ([]*Lane, []*Worker) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	lanes := make([]*Lane, 0, len(s.lanes))
	for _, l := range s.lanes {
		lanes = append(lanes, l)
	}
	workers := make([]*Worker, 0, len(s.workers))
	for w := range s.workers {
		workers = append(workers, w)
	}
	slices.SortFunc(lanes, func(a, b *Lane) int { return a.compare(&b.subject) })
	slices.SortFunc(workers, func(a, b *Worker) int { return a.compare(&b.subject) })
	return lanes, workers
}

// Close drains every lane, stops the workers and waits until nothing of the system runs. When ctx ends first it goes on
// without waiting: whoever still waits on a lane is answered with fault.Shutdown, and Close says what still ran.
func (s *System) Close(ctx context.Context) error {
	s.mu.Lock()
	first := !s.isClosed()
	if first {
		close(s.closed)
	}
	s.mu.Unlock()
	if !first {
		return s.await(ctx)
	}
	lanes, workers := s.snapshot()
	failed := each(lanes, func(l *Lane) error { return l.Drain(ctx) })
	for _, l := range lanes {
		l.fall()
	}
	failed = append(failed, each(workers, func(w *Worker) error { return w.Stop(ctx) })...)
	s.engine.Root.Stop(s.supervisor)
	failed = append(failed, s.await(ctx))
	s.engine.Shutdown()
	return errors.Join(failed...)
}

// await waits until every actor has stopped. They stop without waiting for anything, so the end of ctx is allowed for
// only when it comes first by far.
func (s *System) await(ctx context.Context) error {
	select {
	case <-s.ended:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-s.ended:
		return nil
	case <-time.After(time.Second):
		return fault.FromContext("close actors", ctx, "the actors to stop")
	}
}

// each calls f with all of them at once and returns what each said.
func each[T any](all []T, f func(T) error) []error {
	errs := make([]error, len(all))
	var group sync.WaitGroup
	for i, one := range all {
		group.Go(func() { errs[i] = f(one) })
	}
	group.Wait()
	return errs
}
