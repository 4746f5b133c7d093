package actors

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// Grant is a lane's leave to make one attempt.
type Grant struct {
	// Endpoint is where it goes: the ID of one of a balanced lane's endpoints, "" for other lanes.
	Endpoint string
	// Attempt is 1 at first.
	Attempt int

	racer  int // 0 for the attempt that the caller's goroutine makes, n for its nth hedge
	ticket *ticket
	lane   *Lane     // whose ticket it is
	begun  time.Time // when the attempt did
	race   *race     // nil when no other attempt may run beside it
	outer  *Grant    // of the lane that the attempt's own is behind
}

// Answered says when the answer to the attempt began, which then goes on while the attempt runs. For what the lane makes of the
// time that the target takes, the attempt took until then; its timeouts are over; it is the one that counts, and those beside it
// are given up. Well says that it has not begun as a failure, for a breaker that waits to hear just that. It is for attempts
// that have not returned.
func (g Grant) Answered(at time.Time, well bool) {
	if g.ticket != nil {
		g.ticket.answered = at
		if well {
			g.ticket.head = at.Sub(g.begun)
			g.lane.system.post(g.lane.pid, begun{g.ticket})
		}
	}
	if g.race != nil {
		g.race.take(g.racer)
	}
	if g.outer != nil {
		g.outer.Answered(at, well)
	}
}

// Behind is g for an attempt that passes through two lanes: both hear what is said of it. Outer is the leave of the first.
func (g Grant) Behind(outer Grant) Grant {
	g.outer = &outer
	return g
}

// LaneStatus is what a lane is doing, and what an operator has told it.
type LaneStatus struct {
	resiliency.Status
	// RefusedFor is Refused by reason.
	RefusedFor map[fault.Reason]uint64 `json:"refusedFor,omitempty"`
	// Turned is how often the breaker came into each state.
	Turned resiliency.Turned `json:"-"`
	// Overridden is what an operator has changed of the policy.
	Overridden []Change `json:"overridden,omitempty"`
}

// Lane is the way of all calls to one target: it alone decides whether, when, where and how often each is attempted. All
// methods may be called concurrently.
type Lane struct {
	subject
	system   *System
	balanced bool
	pid      *actor.PID
	tickets  sync.Pool

	policy    atomic.Pointer[resiliency.Policy] // configured, with what an operator has changed
	steering  steering
	endpoints atomic.Pointer[[]resiliency.Endpoint]
	admission atomic.Pointer[resiliency.Admission]
	forced    atomic.Pointer[resiliency.Forced]
	shares    shares

	// life is that of the actor now running, nil while it is down and after it stopped.
	life atomic.Pointer[life]
	// asking counts the Enter messages in the mailbox, which room bounds: load cannot grow the mailbox.
	asking, room atomic.Int64
	// rebuffed counts the calls refused before they reached the actor.
	rebuffed tally
	// answered counts the calls that a fallback answered.
	answered atomic.Uint64
	// known is the last status of a machine that failed.
	known atomic.Pointer[LaneStatus]

	drain    sync.Once
	draining chan struct{} // closed by the first Drain
	idle     chan struct{} // closed by the actor when, after that, no call runs or waits
	gone     chan struct{} // closed when the actor has stopped
}

// life is the time from one start of a lane's actor to its next failure or its end. Whoever waits for an answer also
// waits for over, so that nobody waits for an actor that will not answer.
type life struct{ over chan struct{} }

func (l *life) isOver() bool {
	select {
	case <-l.over:
		return true
	default:
		return false
	}
}

// leastRoom is how many Enter messages may wait in a mailbox at least. An actor that is so far behind will not answer in
// time; refusing costs less.
const leastRoom = 16384

func newLane(s *System, name string, p resiliency.Policy, balanced bool) *Lane {
	l := &Lane{
		subject:  subject{kind: "lane", name: name},
		system:   s,
		balanced: balanced,
		draining: make(chan struct{}),
		idle:     make(chan struct{}),
		gone:     make(chan struct{}),
	}
	l.tickets.New = func() any { return &ticket{reply: make(chan resiliency.Decision, 1)} }
	l.steering.configured = p
	l.adopt(p)
	l.endpoints.Store(new([]resiliency.Endpoint))
	l.admission.Store(new(resiliency.Admission))
	l.forced.Store(new(resiliency.Forced))
	l.rise()
	return l
}

// Do passes a call through the lane: it waits for a turn, makes the attempt in this goroutine, and makes it again as often
// as the policy says. It returns nil when an attempt did. Any other answer is a fault that tells lane, policy and
// attempts in Meta: the last attempt's failure, or why none was made.
//
// The context given to an attempt ends with ctx, with the call's deadline and with the attempt's own. An attempt must
// return soon after its context ends; Do waits for it. One attempt runs at a time, whatever the policy says of hedges.
func (l *Lane) Do(ctx context.Context, call resiliency.Call, attempt func(ctx context.Context, grant Grant) error) error {
	return l.pass(ctx, &visit{lane: l, call: call, attempt: attempt, racers: 1})
}

// Do is Lane.Do for attempts that return a value, which may run beside each other if the policy hedges. It returns the
// value of the attempt that succeeded, or else of the last one.
func Do[T any](ctx context.Context, l *Lane, call resiliency.Call, attempt func(ctx context.Context, grant Grant) (T, error)) (T, error) {
	values := make([]T, 1+l.policy.Load().Hedge.Beside())
	v := visit{lane: l, call: call, racers: len(values)}
	v.attempt = func(ctx context.Context, grant Grant) (err error) {
		values[grant.racer], err = attempt(ctx, grant)
		return err
	}
	err := l.pass(ctx, &v)
	return values[v.answer], err
}

func (l *Lane) pass(ctx context.Context, v *visit) error {
	what := &v.call
	if own, ok := ctx.Deadline(); ok && (what.Deadline.IsZero() || own.Before(what.Deadline)) {
		what.Deadline = own
	}
	what.Deadline = l.policy.Load().Deadline(time.Now(), what)
	ctx, cancel := until(ctx, what.Deadline)
	defer cancel()
	v.entry = call.EntryOf(ctx)
	d := v.enter(ctx)
	if v.entry != nil && d.Verb != resiliency.GiveUp {
		v.entry.Leave() // what is refused keeps its place until it has been answered
	}
	for {
		if l.system.observe != nil {
			l.system.observe(ctx, Decided{Decision: d, Lane: l.name})
		}
		switch d.Verb {
		case resiliency.Go:
			d = v.try(ctx, d)
		case resiliency.Again:
			d = v.rest(ctx, d)
		case resiliency.GiveUp:
			return d.Err
		default:
			return nil
		}
	}
}

// FallbackFor is what the policy answers in place of err, which Do returned; nil when the caller gets err itself.
func (l *Lane) FallbackFor(err error) *resiliency.Fallback { return l.policy.Load().FallbackFor(err) }

// Answered counts a call that a fallback answered.
func (l *Lane) Answered() { l.answered.Add(1) }

// Policy is the one in force. It must not be changed.
func (l *Lane) Policy() *resiliency.Policy { return l.policy.Load() }

// Name is what the lane was made with.
func (l *Lane) Name() string { return l.name }

// SetPolicy replaces the policy. Calls that run or wait go on under the new one. What an operator has changed stays so.
func (l *Lane) SetPolicy(p resiliency.Policy) {
	l.steering.mu.Lock()
	defer l.steering.mu.Unlock()
	l.steering.configured = p
	l.adopt(l.steering.override.Over(p))
	l.system.reheed(l)
}

// adopt makes p the policy that holds.
func (l *Lane) adopt(p resiliency.Policy) {
	l.policy.Store(&p)
	l.begin(p.Limits)
	l.room.Store(int64(max(leastRoom, p.MaxInFlight+p.MaxQueue)))
	l.system.post(l.pid, policyChanged{})
}

// SetEndpoints replaces the endpoints that a balanced lane may choose from. Their order means nothing.
func (l *Lane) SetEndpoints(e []resiliency.Endpoint) {
	// Shuffled, so that the lanes of many sidecars do not all begin with the same instance.
	own := make([]resiliency.Endpoint, len(e))
	for to, from := range rand.Perm(len(e)) {
		own[to] = e[from]
	}
	l.endpoints.Store(&own)
	l.system.post(l.pid, endpointsChanged{})
}

// SetAdmission holds calls back, turns them away, or lets them in again. It outlives policies and restarts of the lane,
// and returns what held before.
func (l *Lane) SetAdmission(a resiliency.Admission) (before resiliency.Admission) {
	before = *l.admission.Swap(&a)
	l.system.post(l.pid, admissionChanged{})
	return before
}

// ForceBreaker holds the breaker open or closed whatever happens, or with resiliency.NotForced lets it follow the policy
// again, closed at first. It outlives policies and restarts of the lane, and returns what held before.
func (l *Lane) ForceBreaker(to resiliency.Forced) (before resiliency.Forced) {
	before = cmp.Or(*l.forced.Swap(&to), resiliency.NotForced)
	l.system.post(l.pid, breakerForced{})
	return before
}

// Drain refuses new calls with fault.LaneDraining from now on and waits until those that run or wait are done. They are
// not tried again. A drained lane stays so.
func (l *Lane) Drain(ctx context.Context) error {
	l.drain.Do(func() { close(l.draining) })
	l.system.post(l.pid, drain{})
	select {
	case <-l.idle:
	case <-l.gone:
	case <-ctx.Done():
		return fault.FromContext("drain lane "+l.name, ctx, "its calls to end")
	}
	return nil
}

// Close drains the lane and removes it from the system, which makes a new one when it is next asked for it.
func (l *Lane) Close(ctx context.Context) error {
	l.system.forgetLane(l)
	err := l.Drain(ctx)
	l.fall()
	l.system.post(l.system.supervisor, stop{l.pid})
	<-l.gone
	return err
}

// Status tells what the lane is doing; of a lane that is down, what is known without asking it.
func (l *Lane) Status(ctx context.Context) LaneStatus {
	status := l.lastKnown()
	if life := l.life.Load(); life != nil {
		reply := make(chan LaneStatus, 1)
		l.system.post(l.pid, question{reply})
		select {
		case status = <-reply:
		case <-life.over:
		case <-ctx.Done():
		}
	}
	l.rebuffed.addTo(&status)
	status.Fallbacks = l.answered.Load()
	l.show(&status)
	return status
}

// lastKnown is what a lane that does not answer is known to have done. What it is doing nobody knows.
func (l *Lane) lastKnown() LaneStatus {
	policy := l.policy.Load()
	status := LaneStatus{Status: resiliency.Status{InFlightLimit: policy.MaxInFlight, QueueLimit: policy.MaxQueue}}
	if known := l.known.Load(); known != nil {
		status = *known
	}
	status.Policy = policy.Name
	return status
}

// rise begins a life.
func (l *Lane) rise() { l.life.Store(&life{over: make(chan struct{})}) }

// fall ends the life, if there is one, and so answers everyone who waits.
func (l *Lane) fall() {
	if life := l.life.Swap(nil); life != nil {
		close(life.over)
	}
}

// absent is why a lane without life answers nobody.
func (l *Lane) absent(op string) *fault.Error {
	switch {
	case l.system.isClosed():
		return fault.New(op, fault.Shutdown, "the sidecar is shutting down, and lane %s with it", l.name)
	case l.isDraining():
		return fault.New(op, fault.LaneDraining, "lane %s is closed", l.name)
	}
	return fault.New(op, fault.LaneRestarted, "lane %s failed and is being restarted", l.name)
}

func (l *Lane) isDraining() bool {
	select {
	case <-l.draining:
		return true
	default:
		return false
	}
}

// until is ctx that ends at deadline, or ctx itself when it ends no later.
func until(ctx context.Context, deadline time.Time) (context.Context, context.CancelFunc) {
	if deadline.IsZero() {
		return ctx, func() {}
	}
	if own, ok := ctx.Deadline(); ok && !deadline.Before(own) {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline)
}
