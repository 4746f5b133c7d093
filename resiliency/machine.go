package resiliency

import (
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Machine is the pure state of one lane. It is not safe for concurrent use: one driver owns it.
type Machine struct {
	lane      string
	policy    Policy
	shield    shield
	limiter   limiter
	gate      gate
	adaptive  adaptive
	balancer  *balancer // nil when the lane does not choose
	breaker   breaker
	stopwatch stopwatch
	budget    budget
	admission Admission
	draining  bool
	counts    Counts
	out       []Decision // reused by every Step
}

// New returns the machine of a lane that has one target, or leaves the choice to the attempt.
func New(lane string, p Policy) *Machine {
	m := &Machine{lane: lane}
	m.breaker.turned = &m.counts.Turned
	m.setPolicy(time.Time{}, p)
	return m
}

// NewBalanced returns the machine of a lane that chooses among endpoints; it knows none until SetEndpoints.
func NewBalanced(lane string, p Policy) *Machine {
	m := New(lane, p)
	m.balancer = new(balancer)
	return m
}

// Step takes in one event that happened at now and returns what to do about it, in order. The slice is reused by the
// next Step.
func (m *Machine) Step(now time.Time, event Event) []Decision {
	clear(m.out)
	m.out = m.out[:0]
	switch e := event.(type) {
	case Enter:
		m.enter(now, e.Turn)
	case *Outcome:
		m.outcome(now, e.Turn, e.Err, e.Took)
	case Begun:
		m.begun(now, e.Turn, e.Took)
	case Leave:
		m.leave(now, e.Turn)
	case SetPolicy:
		m.setPolicy(now, e.Policy)
	case SetEndpoints:
		m.setEndpoints(e.Endpoints)
	case SetAdmission:
		m.setAdmission(now, e.Admission)
	case ForceBreaker:
		m.breaker.force(e.Breaker)
	case SetShare:
		m.limiter.setShare(now, e)
	case Pressure:
		m.shield.feel(now, e)
		m.lookAround(now)
	case Overdue:
		m.overdue(now, e.Turn)
	case Drain:
		m.draining = true
		m.releaseHeld(now)
	case Adopt:
		m.adopt(e.Turn)
	}
	m.admit(now)
	return m.out
}

// Tripped tells whether the breaker has opened and not closed since, and why it did.
func (m *Machine) Tripped() (bool, string) { return m.breaker.state != closed, m.breaker.reason }

// Idle reports whether no turn runs or waits.
func (m *Machine) Idle() bool { return m.gate.inFlight == 0 && m.gate.queue.len == 0 }

// enter takes a turn as far as the queue, or refuses it. A turn that need not wait leaves the queue in the same step.
func (m *Machine) enter(now time.Time, t *Turn) {
	if t.place != outside {
		return
	}
	if t.home == nil {
		t.deadline = m.policy.Deadline(now, &t.Call)
		t.priority = m.policy.Queue.priority(t.Call.Header)
	}
	t.home = m
	switch {
	case m.spent(now, t):
		m.refuse(t, m.deadlineSpent(now, t))
	case m.draining || m.admission == TurnedAway:
		m.refuse(t, m.laneDraining(t))
	case m.sheds(now, t):
		m.refuse(t, m.overloaded(t))
	default:
		m.conform(now, t)
	}
}

// conform takes the turn through the rate limits: it waits outside until it conforms to all of them, or is refused.
func (m *Machine) conform(now time.Time, t *Turn) {
	if !t.conforms {
		wait, limit := m.limiter.take(now, t)
		switch {
		case limit != nil:
			m.refuse(t, m.rateLimited(t, limit, wait))
			return
		case wait > 0:
			t.conforms = true
			m.out = append(m.out, Decision{Turn: t, Verb: Again, After: wait, Err: t.last})
			return
		}
	}
	t.conforms = false
	m.enqueue(now, t)
}

// enqueue begins the turn if a slot is free, or lets it wait for one.
func (m *Machine) enqueue(now time.Time, t *Turn) {
	q := &m.gate.queue
	switch {
	case t.hedge && !m.mayHedge(now):
		m.refuse(t, m.noHedge(t))
	case q.len == 0 && m.gate.open() && m.admission != Held:
		m.begin(now, t)
	case q.len < m.room() || m.makeRoom(now, t):
		q.push(now, t)
	default:
		m.refuse(t, m.queueFull(t))
	}
}

// admit lets turns out of the queue while there are slots.
func (m *Machine) admit(now time.Time) {
	for m.admission != Held && m.gate.open() {
		t := m.next(now)
		if t == nil {
			return
		}
		m.begin(now, t)
	}
}

// begin takes a turn that has a slot through the rest of the order, up to its grant.
func (m *Machine) begin(now time.Time, t *Turn) {
	if m.spent(now, t) {
		m.refuse(t, m.deadlineSpent(now, t))
		return
	}
	if m.crowds(t) {
		m.refuse(t, m.crowded(t))
		return
	}
	if m.balancer != nil {
		if t.endpoint = m.balancer.choose(now, t); t.endpoint == nil {
			t.tries++
			m.retry(now, t, m.noEndpoint(t))
			return
		}
	}
	era, ok := m.breaker.admit(now)
	if !ok {
		t.endpoint = nil
		m.refuse(t, m.breakerOpen(now, t))
		return
	}
	t.era = era
	t.tries++
	m.grant(now, t)
}

func (m *Machine) grant(now time.Time, t *Turn) {
	t.attempts++
	switch {
	case t.hedge:
		m.counts.Hedged++
	case t.attempts == 1:
		m.counts.Admitted++
		m.budget.call(now)
	default:
		m.counts.Retried++
	}
	m.hold(t)
	d := Decision{Turn: t, Verb: Go, Attempt: t.attempts, Deadline: sooner(t.deadline, now, m.within(now, t))}
	d.Hedge, d.Hedges = m.hedge(t)
	if t.endpoint != nil {
		d.Endpoint = t.endpoint.ID
	}
	m.out = append(m.out, d)
}

// outcome learns from an attempt and decides what follows it.
func (m *Machine) outcome(now time.Time, t *Turn, err error, took time.Duration) {
	if t.home != m || t.place != inFlight {
		return
	}
	m.gate.observe(took)
	if !t.Call.InPieces {
		m.stopwatch.observe(now, took, err)
	}
	if m.adaptive.on() {
		m.adaptive.observe(now, took, t.abreast, err)
		m.setLimit()
	}
	m.breaker.settle(now, t.era, effectOf(err), took, err)
	if t.endpoint != nil {
		t.endpoint.judge(now, err)
		t.tried = append(t.tried, t.endpoint.ID)
	}
	m.release(t)
	if effectOf(err) != good {
		m.counts.Failed++
		switch fault.ReasonOf(err) {
		case fault.AttemptTimeout, fault.DeadlineExceeded:
			m.counts.TimedOut++
		}
	}
	if err != nil && !t.hedge {
		m.retry(now, t, err)
		return
	}
	m.out = append(m.out, Decision{Turn: t, Verb: Done})
}

// retry sends a turn whose try failed with err round again, or gives it up.
func (m *Machine) retry(now time.Time, t *Turn, err error) {
	wait, again := m.policy.again(now, t, err, m.balancer.untried(now, t))
	if t.last != nil && fault.NotSent(err) && !fault.NotSent(t.last) {
		err = NotRetried(t.last, err) // what was sent once may have been done
	} else {
		t.last = err
	}
	switch {
	case !again || m.draining || t.hedge:
		m.giveUp(t, err)
	case !m.budget.spend(now):
		m.giveUp(t, NotRetried(err, m.budgetOver(t)))
	default:
		m.out = append(m.out, Decision{Turn: t, Verb: Again, After: wait, Err: err})
	}
}

// refuse ends a turn that gets no attempt now. One that failed before is answered with that failure: it is what the
// caller must know, and unlike a refusal it does not claim that the work never began.
func (m *Machine) refuse(t *Turn, refusal error) {
	if t.last != nil {
		refusal = NotRetried(t.last, refusal)
	}
	m.giveUp(t, refusal)
}

func (m *Machine) giveUp(t *Turn, err error) {
	if t.attempts == 0 && !t.hedge {
		m.counts.refuse(fault.ReasonOf(err))
	}
	answer := Explain(m.lane, m.policy.Name, t.Call.Op, t.tries, err)
	if n := len(t.tried); n > 0 {
		answer.Meta["endpoint"] = t.tried[n-1]
	}
	m.out = append(m.out, Decision{Turn: t, Verb: GiveUp, Err: answer})
}

// leave forgets a turn, wherever it is.
func (m *Machine) leave(now time.Time, t *Turn) {
	if t.home != m {
		return
	}
	switch t.place {
	case queued:
		m.unqueue(now, t)
	case inFlight:
		m.breaker.settle(now, t.era, neither, 0, nil)
		m.release(t)
	}
}

func (m *Machine) hold(t *Turn) {
	t.place = inFlight
	m.gate.inFlight++
	if t.Call.InPieces {
		m.gate.inPieces++
	}
	t.abreast = m.gate.inFlight
	if t.endpoint != nil {
		t.endpoint.inFlight++
	}
}

func (m *Machine) release(t *Turn) {
	t.place = outside
	m.gate.inFlight--
	if t.Call.InPieces {
		m.gate.inPieces--
	}
	if t.endpoint != nil {
		t.endpoint.inFlight--
		t.endpoint = nil
	}
}

func (m *Machine) setPolicy(now time.Time, p Policy) {
	p = p.settled()
	m.policy = p
	m.adaptive.setRule(p.Adaptive)
	m.setLimit()
	m.gate.room = p.MaxQueue
	m.gate.queue.setRule(p.Queue)
	m.shield.setRule(p.Protection)
	m.limiter.setRules(now, p.Limits)
	m.breaker.setRule(p.Breaker)
	m.stopwatch.setRule(p.AdaptiveTimeout)
	m.budget.rule = p.Retry.Budget
}

// setLimit has the gate admit what the policy allows, or less when the adaptive limit is lower.
func (m *Machine) setLimit() {
	m.gate.limit = m.policy.MaxInFlight
	if limit := m.adaptive.now(); limit > 0 && (m.gate.limit == 0 || limit < m.gate.limit) {
		m.gate.limit = limit
	}
}

func (m *Machine) setEndpoints(list []Endpoint) {
	if m.balancer != nil {
		m.balancer.set(list)
	}
}

func (m *Machine) adopt(t *Turn) {
	if t.place != inFlight || t.home == m {
		return
	}
	t.home, t.era = m, 0
	if t.endpoint != nil && m.balancer != nil {
		t.endpoint = m.balancer.find(t.endpoint.ID)
	}
	m.hold(t)
}

func (m *Machine) spent(now time.Time, t *Turn) bool {
	return !t.deadline.IsZero() && !now.Before(t.deadline)
}

// effect is what an outcome says about the target, as breakers see it.
type effect uint8

const (
	neither effect = iota // nothing: the caller went away, or the work was refused before it began
	good                  // the target answered, be it that the caller is wrong
	bad                   // the target failed
)

func effectOf(err error) effect {
	switch fault.KindOf(err) {
	case fault.None, fault.Invalid, fault.NotFound, fault.Conflict, fault.Denied, fault.Unsupported:
		return good
	case fault.Unavailable, fault.Timeout, fault.Internal:
		switch fault.ReasonOf(err) {
		case fault.BudgetSpent, fault.LaneDraining, fault.LaneRestarted, fault.Shutdown:
			return neither
		}
		return bad
	}
	return neither
}
