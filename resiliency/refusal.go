package resiliency

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// ruleMark stands in the name of a lane of a rule for some operations, after that of the lane of all.
const ruleMark = "/op:"

// RuleLane is the name of the lane of a rule for some operations of the target that lane guards.
func RuleLane(lane, rule string) string { return lane + ruleMark + rule }

// IsRuleLane tells whether that is the name of such a lane.
func IsRuleLane(name string) bool { return strings.Contains(name, ruleMark) }

// tooLow is where a refusal has the priority of its call, if a call of a higher one would have got a place.
const tooLow = "priority"

func (m *Machine) deadlineSpent(now time.Time, t *Turn) error {
	return fault.New(t.Call.Op, fault.BudgetSpent, "the deadline passed %v before the call could start",
		now.Sub(t.deadline).Round(time.Millisecond))
}

func (m *Machine) laneDraining(t *Turn) error {
	return fault.New(t.Call.Op, fault.LaneDraining, "lane %s is draining and takes no new calls", m.lane)
}

// queueFull says who waits, and for what.
func (m *Machine) queueFull(t *Turn) error {
	full := func(format string, args ...any) *fault.Error {
		return fault.New(t.Call.Op, fault.QueueFull, "lane %s "+format, append([]any{m.lane}, args...)...).After(m.gate.retryAfter())
	}
	waiting := m.gate.queue.len
	if m.admission == Held {
		return full("is paused by an operator, and %d calls wait for it to go on; it keeps at most %d", waiting, m.room())
	}
	if m.gate.queue.rule.Full == ShedLowest && waiting > 0 {
		return full("has %d calls in flight and %d waiting, none of a lower priority than %d; its policy allows %d and %d",
			m.gate.inFlight, waiting, t.priority, m.gate.limit, m.room()).With(tooLow, strconv.Itoa(int(t.priority)))
	}
	return full("has %d calls in flight and %d waiting; its policy allows %d and %d", m.gate.inFlight, waiting, m.gate.limit, m.room())
}

func (m *Machine) queueShed(now time.Time, t *Turn, why string) error {
	return fault.New(t.Call.Op, fault.QueueShed, "lane %s let the call go after %v in its queue: %s",
		m.lane, now.Sub(t.arrived).Round(time.Millisecond), why).After(m.gate.retryAfter())
}

func (m *Machine) rateLimited(t *Turn, limit *RateLimit, after time.Duration) error {
	text := fmt.Sprintf("lane %s admits %s by its limit %q", m.lane, limit, limit.Name)
	return fault.E(t.Call.Op, fault.None, fault.RateLimited, overLimit{text, limit.Answer}).After(after).With("limit", limit.Name)
}

// noHedge answers a hedge that there is no room for. Nobody but its driver sees it.
func (m *Machine) noHedge(t *Turn) error {
	return fault.New(t.Call.Op, fault.QueueFull, "lane %s has no room for a hedge", m.lane)
}

func (m *Machine) budgetOver(t *Turn) error {
	b := m.policy.Retry.Budget
	return fault.New(t.Call.Op, fault.QueueFull, "the retry budget of lane %s is spent: %g %% of the calls and %g per second",
		m.lane, b.Share*100, b.PerSecond)
}

func (m *Machine) overloaded(t *Turn) error {
	s := &m.shield
	why := "the overload is over, and it sheds less each second"
	if s.worst.severity > relief {
		why = fmt.Sprintf("%s is at %s, the policy allows %s", s.worst.name, s.worst.at, s.worst.allowed)
	}
	return fault.New(t.Call.Op, fault.Overloaded, "lane %s sheds %v of its calls, those of low priority first (this has %d): %s",
		m.lane, percent(s.share), t.priority, why).After(shieldStep)
}

// noEndpoint is why none was chosen: none is known, or all would refuse the call, and are spared that.
func (m *Machine) noEndpoint(t *Turn) error {
	if n := len(m.balancer.endpoints); n > 0 {
		return fault.New(t.Call.Op, fault.TargetFull, "none of the instances of lane %s has room (%d known): each has as many "+
			"calls of this lane as it said, or showed by a refusal, that it can take", m.lane, n).After(m.balancer.comeBack())
	}
	return fault.New(t.Call.Op, fault.AppNotFound, "no instance is known to lane %s", m.lane)
}

// breakerOpen tells the caller to come back when the breaker may decide otherwise: at the latest when the probes under way
// should have ended.
func (m *Machine) breakerOpen(now time.Time, t *Turn) error {
	after := m.breaker.retryAfter(now)
	if after == 0 {
		after = m.gate.attemptTakes()
	}
	return fault.New(t.Call.Op, fault.BreakerOpen, "the breaker of lane %s %s", m.lane, m.breaker.refusal(now)).After(after)
}

// NotRetried is the failure of the last attempt, with why no other followed. It keeps the kind and the reason of the
// failure, so that it does not claim, as a refusal would, that the work never began.
func NotRetried(last, refusal error) error {
	f, ok := errors.AsType[*fault.Error](last)
	if !ok {
		return last
	}
	e := *f
	e.Err = fmt.Errorf("%w (not tried again: %w)", cause(f), cause(refusal))
	e.RetryAfter = max(e.RetryAfter, fault.RetryAfter(refusal))
	return &e
}

// cause is what f says beyond its op and reason, so that neither is said twice.
func cause(err error) error {
	if f, ok := err.(*fault.Error); ok && f.Err != nil {
		return f.Err
	}
	return err
}

// Explain makes err the answer of a lane that gave up: a fault that tells the lane, the policy and the number of
// attempts in Meta, which is the answer's own. Kind, reason and retry-after stay those of err; an error that is no fault gets those of its kind.
func Explain(lane, policy, op string, attempts int, err error) *fault.Error {
	e := asFault(op, err)
	if attempts > 1 {
		e.Err = fmt.Errorf("gave up after %d attempts: %w", attempts, cause(e))
	}
	meta := make(map[string]string, len(e.Meta)+3)
	maps.Copy(meta, e.Meta)
	meta["lane"], meta["policy"], meta["attempts"] = lane, policy, strconv.Itoa(attempts)
	e.Meta = meta
	return e
}

// asFault returns a fault of err that may be changed.
func asFault(op string, err error) *fault.Error {
	if f, ok := err.(*fault.Error); ok {
		e := *f
		return &e
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		e := *f
		e.Err = err
		return &e
	}
	reason := fault.Defect
	switch fault.KindOf(err) {
	case fault.Timeout:
		reason = fault.DeadlineExceeded
	case fault.Canceled:
		reason = fault.CallCanceled
	}
	return fault.E(op, fault.None, reason, err)
}
