package actors

import (
	"runtime/debug"
	"slices"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/resiliency"
)

// Messages to a lane's actor. A ticket travels as a type of its own for each thing that a caller says; all are one pointer
// wide, so sending them allocates nothing.
type (
	enter            struct{ *ticket }
	begun            struct{ *ticket }
	outcome          struct{ *ticket }
	leave            struct{ *ticket }
	overdue          struct{ *ticket }
	policyChanged    struct{ late }
	endpointsChanged struct{ late }
	admissionChanged struct{ late }
	breakerForced    struct{ late }
	sharesChanged    struct{ late }
	demandQuestion   struct{ reply chan<- []resiliency.Demand }
	drain            struct{ late }
	question         struct{ reply chan<- LaneStatus }
)

// late is part of messages that may come after their receiver stopped: that is no news.
type late struct{}

func (late) IgnoreDeadLetterLogging()           {}
func (question) IgnoreDeadLetterLogging()       {}
func (demandQuestion) IgnoreDeadLetterLogging() {}
func (*ticket) IgnoreDeadLetterLogging()        {}

// ticket is a call as caller and actor pass it to and fro. It belongs to whoever got it last: the actor with each message,
// the caller with each reply. It is freed by the one who has it at the end.
type ticket struct {
	turn     resiliency.Turn
	outcome  resiliency.Outcome       // of the attempt that the outcome message reports
	reply    chan resiliency.Decision // room for one: a ticket has one open question at a time
	entry    call.Entry               // given back when the call has to wait
	hurried  bool                     // the actor was told that it is overdue. It belongs to the caller
	head     time.Duration            // that it took until then, for the begun message
	answered time.Time                // when the answer to the attempt that runs began, if that is not its end. It belongs to the caller

	running    bool // in the actor's roster
	next, prev *ticket
}

// took is how long an attempt took that began then.
func (t *ticket) took(begun time.Time) time.Duration {
	if t.answered.IsZero() {
		return time.Since(begun)
	}
	took := t.answered.Sub(begun)
	t.answered = time.Time{}
	return took
}

func (l *Lane) ticket(call resiliency.Call) *ticket {
	t := l.tickets.Get().(*ticket)
	t.turn.Begin(call, t)
	return t
}

// hedgeTicket is the ticket of a second attempt beside one at endpoint.
func (l *Lane) hedgeTicket(call resiliency.Call, endpoint string) *ticket {
	t := l.tickets.Get().(*ticket)
	t.turn.BeginHedge(call, t, endpoint)
	return t
}

// free gives t to the next call, unless a message about it may still be in the mailbox.
func (l *Lane) free(t *ticket) {
	if t.hurried {
		return
	}
	t.outcome, t.entry, t.answered = resiliency.Outcome{}, nil, time.Time{}
	t.turn.Begin(resiliency.Call{}, nil)
	l.tickets.Put(t)
}

// keeper is a lane's actor. Its fields belong to Receive. The machine dies with a failure; the rest, above all who is
// running, outlives it.
type keeper struct {
	lane     *Lane
	machine  *resiliency.Machine
	running  *ticket // first of those that hold a grant
	draining bool
	drained  bool
	tripped  bool // as the log was told
}

// Receive does what the machine decides about each message. It never waits.
func (k *keeper) Receive(ctx actor.Context) {
	defer k.guard()
	switch m := ctx.Message().(type) {
	case enter:
		k.enter(m.ticket)
	case begun:
		k.step(resiliency.Begun{Turn: &m.turn, Took: m.head})
	case outcome:
		k.outcome(m.ticket)
	case leave:
		k.leave(m.ticket)
	case overdue:
		k.step(resiliency.Overdue{Turn: &m.turn})
	case policyChanged:
		k.step(resiliency.SetPolicy{Policy: *k.lane.policy.Load()})
		k.share()
	case endpointsChanged:
		k.step(resiliency.SetEndpoints{Endpoints: *k.lane.endpoints.Load()})
	case admissionChanged:
		k.step(resiliency.SetAdmission{Admission: *k.lane.admission.Load()})
	case breakerForced:
		k.step(resiliency.ForceBreaker{Breaker: *k.lane.forced.Load()})
	case sharesChanged:
		k.share()
	case demandQuestion:
		m.reply <- k.machine.Demands()
	case pressureFelt:
		k.step(m.Pressure)
	case drain:
		k.drain()
	case question:
		m.reply <- k.status()
	case *actor.Started:
		k.start()
	case *actor.Stopped:
		k.stopped()
	}
	k.tellTripped()
	k.checkIdle()
}

// tellTripped has the supervisor tell when the breaker opens, and when it has closed again.
func (k *keeper) tellTripped() {
	if k.machine == nil {
		return
	}
	if is, why := k.machine.Tripped(); is != k.tripped {
		k.tripped = is
		k.lane.system.post(k.lane.system.supervisor, tripped{k.lane.name, is, why})
	}
}

// guard ends the lane's life on a panic, which answers everyone who waits, and passes the panic on to the supervisor.
func (k *keeper) guard() {
	if cause := recover(); cause != nil {
		k.remember()
		k.lane.fall()
		panic(crash{cause: cause, stack: debug.Stack()})
	}
}

func (k *keeper) status() LaneStatus {
	counts := k.machine.Counts()
	return LaneStatus{Status: k.machine.Status(time.Now()), RefusedFor: counts.RefusedFor, Turned: counts.Turned}
}

// remember keeps what the machine that failed has counted, for those who ask while there is no other.
func (k *keeper) remember() {
	defer func() { _ = recover() }() // a machine that is broken so badly has nothing to tell
	if k.machine != nil {
		status := k.status()
		k.lane.known.Store(&status)
	}
}

// start makes a machine that knows what the one before it must not have forgotten.
func (k *keeper) start() {
	k.trap(actor.Started{})
	build := resiliency.New
	if k.lane.balanced {
		build = resiliency.NewBalanced
	}
	machine, now := build(k.lane.name, *k.lane.policy.Load()), time.Now()
	if k.machine != nil {
		machine.Resume(k.machine)
	}
	k.machine = machine
	machine.Step(now, resiliency.SetEndpoints{Endpoints: *k.lane.endpoints.Load()})
	for t := k.running; t != nil; t = t.next {
		machine.Step(now, resiliency.Adopt{Turn: &t.turn})
	}
	machine.Step(now, resiliency.SetAdmission{Admission: *k.lane.admission.Load()})
	machine.Step(now, resiliency.ForceBreaker{Breaker: *k.lane.forced.Load()})
	k.share()
	if k.lane.isDraining() {
		k.drain()
	}
	if k.lane.life.Load() == nil && !k.lane.system.isClosed() {
		k.lane.rise()
	}
}

func (k *keeper) enter(t *ticket) {
	k.lane.asking.Add(-1)
	entry := t.entry // the ticket is the caller's again once it has been answered
	if decided := k.step(resiliency.Enter{Turn: &t.turn}); entry != nil && !answers(decided, &t.turn) {
		entry.Leave()
	}
}

// answers says whether one of the decisions is about turn.
func answers(decided []resiliency.Decision, turn *resiliency.Turn) bool {
	return slices.ContainsFunc(decided, func(d resiliency.Decision) bool { return d.Turn == turn })
}

func (k *keeper) outcome(t *ticket) {
	k.dismiss(t)
	k.step(&t.outcome)
}

func (k *keeper) leave(t *ticket) {
	k.dismiss(t)
	k.step(resiliency.Leave{Turn: &t.turn})
	select {
	case <-t.reply:
	default:
	}
	k.lane.free(t)
}

func (k *keeper) drain() {
	k.draining = true
	k.step(resiliency.Drain{})
}

// checkIdle tells those who drain the lane when nothing runs or waits any more.
func (k *keeper) checkIdle() {
	if k.draining && !k.drained && k.machine.Idle() {
		k.drained = true
		close(k.lane.idle)
	}
}

// stopped ends what a restart may have begun while the lane was being closed.
func (k *keeper) stopped() {
	k.lane.fall()
	close(k.lane.gone)
}

// step has the machine decide, and delivers what it did.
func (k *keeper) step(event resiliency.Event) []resiliency.Decision {
	k.trap(event)
	decisions := k.machine.Step(time.Now(), event)
	k.trap(decisions)
	for _, d := range decisions {
		k.deliver(d)
	}
	return decisions
}

// deliver hands a ticket back with what was decided. After Done nobody waits for it.
func (k *keeper) deliver(d resiliency.Decision) {
	t := d.Turn.Owner.(*ticket)
	switch d.Verb {
	case resiliency.Done:
		k.lane.free(t)
		return
	case resiliency.Go:
		k.employ(t)
	}
	select {
	case t.reply <- d:
	default:
		panic("a ticket was answered twice")
	}
}

// employ and dismiss keep the roster of running tickets. It counts who may work, not what the machine believes: a ticket
// is in it from the moment its grant is sent until its outcome arrives.
func (k *keeper) employ(t *ticket) {
	t.running = true
	t.prev, t.next = nil, k.running
	if k.running != nil {
		k.running.prev = t
	}
	k.running = t
}

func (k *keeper) dismiss(t *ticket) {
	if !t.running {
		return
	}
	t.running = false
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		k.running = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
}

func (k *keeper) trap(message any) {
	if k.lane.system.trap != nil {
		k.lane.system.trap(k.lane.name, message)
	}
}
