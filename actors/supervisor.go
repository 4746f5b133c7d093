package actors

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/cenkalti/backoff/v4"
)

// subject is what the supervisor and the tree know of a lane or a worker.
type subject struct {
	kind, name string
	restarts   atomic.Int64
	down       atomic.Bool // failed and not yet restarted
}

// crash is what a supervised actor panics with: the only way to tell its supervisor.
type crash struct {
	cause any
	stack []byte // of a panic; nil for a plain error
}

// Messages to the supervisor. Those that may come too late say nothing when they do.
type (
	spawn struct {
		subject  *subject
		receiver actor.Actor
		reply    chan<- *actor.PID
	}
	stop    struct{ pid *actor.PID }
	tripped struct {
		lane string
		is   bool
		why  string
	}
	restart struct {
		pid *actor.PID
		by  actor.Supervisor
	}
)

func (stop) IgnoreDeadLetterLogging()    {}
func (tripped) IgnoreDeadLetterLogging() {}
func (restart) IgnoreDeadLetterLogging() {}

// supervisor is the parent of all lanes and workers. Its fields belong to Receive and HandleFailure, which the library
// never runs at the same time.
type supervisor struct {
	log      *slog.Logger
	root     *actor.RootContext
	self     *actor.PID
	delays   func() *backoff.ExponentialBackOff
	children map[string]*child
	ending   bool
	ended    chan struct{} // closed when all children have stopped
}

type child struct {
	*subject
	delays    *backoff.ExponentialBackOff
	restarted time.Time
	timer     *time.Timer // of the restart to come, or nil
	stopping  bool
}

var _ actor.SupervisorStrategy = (*supervisor)(nil)

// Receive spawns, stops and restarts children. A child is stopped and restarted here alone, so that no restart can
// follow a stop and bring the child back.
func (s *supervisor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case spawn:
		m.reply <- s.spawn(ctx, m)
	case stop:
		s.stop(ctx, m.pid)
	case restart:
		s.restart(m)
	case tripped:
		s.tell(m)
	case *actor.Started:
		s.self = ctx.Self()
	case *actor.Terminated:
		delete(s.children, m.Who.Id)
	case *actor.Stopping:
		s.end()
	case *actor.Stopped:
		close(s.ended)
	}
}

func (s *supervisor) spawn(ctx actor.Context, m spawn) *actor.PID {
	props := actor.PropsFromProducer(func() actor.Actor { return m.receiver })
	pid := ctx.SpawnPrefix(props, m.subject.kind+"/"+m.subject.name)
	s.children[pid.Id] = &child{subject: m.subject, delays: s.delays(), restarted: time.Now()}
	return pid
}

// HandleFailure has the child restarted, later each time. Until then its mailbox keeps what comes.
func (s *supervisor) HandleFailure(_ *actor.ActorSystem, by actor.Supervisor, who *actor.PID, _ *actor.RestartStatistics, reason, _ any) {
	c := s.children[who.Id]
	if c == nil || c.stopping || s.ending {
		return
	}
	if time.Since(c.restarted) > c.delays.MaxInterval {
		c.delays.Reset()
	}
	wait := c.delays.NextBackOff()
	c.down.Store(true)
	c.restarts.Add(1)
	s.report(c, reason, wait)
	c.timer = time.AfterFunc(wait, func() { s.root.Send(s.self, restart{who, by}) })
}

func (s *supervisor) report(c *child, reason any, wait time.Duration) {
	log := s.log.With("kind", c.kind, "name", c.name, "restarts", c.restarts.Load(), "in", wait)
	switch r := reason.(type) {
	case crash:
		if r.stack == nil {
			log.Warn("failed, will be restarted", "error", r.cause)
			return
		}
		log.Error("panicked, will be restarted", "panic", r.cause, "stack", string(r.stack))
	default:
		log.Error("panicked, will be restarted", "panic", reason)
	}
}

// tell says of breakers what who is on call has to know. That they let probes pass meanwhile is for the tree and the metrics.
func (s *supervisor) tell(m tripped) {
	if m.is {
		s.log.Warn("the breaker opened: calls are refused until probes succeed", "lane", m.lane, "why", m.why)
		return
	}
	s.log.Info("the breaker has closed again", "lane", m.lane)
}

func (s *supervisor) restart(m restart) {
	c := s.children[m.pid.Id]
	if c == nil || c.stopping || s.ending {
		return
	}
	c.restarted = time.Now()
	m.by.RestartChildren(m.pid)
}

func (s *supervisor) stop(ctx actor.Context, pid *actor.PID) {
	if c := s.children[pid.Id]; c != nil && !c.stopping {
		c.stopping = true
		c.cancelRestart()
		ctx.Stop(pid)
	}
}

// end is called when the supervisor itself is stopped; the library stops the children after it.
func (s *supervisor) end() {
	s.ending = true
	for _, c := range s.children {
		c.cancelRestart()
	}
}

func (c *child) cancelRestart() {
	if c.timer != nil {
		c.timer.Stop()
	}
}
