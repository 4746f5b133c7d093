package resiliency

import (
	"errors"
	"fmt"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Policy is all that one lane is told. The zero Policy admits every call, waits as long as the caller does and tries
// once.
type Policy struct {
	// Name of the policy, for errors, metrics and people.
	Name string
	// CallTimeout bounds a whole call, its waits and retries included; AttemptTimeout bounds one attempt. 0 = none.
	CallTimeout, AttemptTimeout time.Duration
	// Retry says whether and when a failed attempt is followed by another.
	Retry Retry
	// Breaker says when calls are kept away from a failing target.
	Breaker Breaker
	// MaxInFlight is how many calls may run at once, 0 = no limit; MaxQueue how many may wait for their turn.
	MaxInFlight, MaxQueue int
}

// Retry is exponential back-off with jitter. It follows failures that may pass: Unavailable, Timeout and Tripped. A call
// that is not idempotent is tried again only if the work never began (fault.NotSent). A wait is at least what the failure
// asks for (fault.RetryAfter), and is not begun if it would pass the deadline. A target that refused for want of room
// (Exhausted) is not asked again; another instance of it is, without a wait.
type Retry struct {
	// Max is how many attempts may follow the first: 0 none, -1 as many as the deadline allows.
	Max int
	// Initial is the first wait (0 = 50 ms), MaxInterval the longest before jitter (0 = 5 s).
	Initial, MaxInterval time.Duration
	// Multiplier grows the wait from one retry to the next (0 = 2; 1 = constant).
	Multiplier float64
	// Jitter spreads each wait by that share up and down: 0.2 makes 100 ms anything from 80 to 120 ms. 0 = none.
	Jitter float64
}

// Breaker opens after failures in a row, keeps calls away for a while, then lets probes decide.
type Breaker struct {
	// Failures in a row that open it; 0 = off.
	Failures int
	// OpenFor is how long it stays open before it lets probes pass (0 = 5 s).
	OpenFor time.Duration
	// Probes is how many calls may pass while half-open; when so many succeed the breaker closes (0 = 1).
	Probes int
}

// Defaults of fields left zero.
const (
	defaultInitial     = 50 * time.Millisecond
	defaultMaxInterval = 5 * time.Second
	defaultMultiplier  = 2
	defaultOpenFor     = 5 * time.Second
	defaultProbes      = 1
)

// Validate names everything in p that cannot be. A machine given such a policy all the same takes the nearest that can.
func (p Policy) Validate() error {
	var wrong []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	check(p.CallTimeout >= 0, "call timeout %v is negative", p.CallTimeout)
	check(p.AttemptTimeout >= 0, "attempt timeout %v is negative", p.AttemptTimeout)
	check(p.CallTimeout <= 0 || p.AttemptTimeout <= p.CallTimeout,
		"attempt timeout %v is longer than the call timeout %v", p.AttemptTimeout, p.CallTimeout)
	check(p.MaxInFlight >= 0, "max in flight %d is negative", p.MaxInFlight)
	check(p.MaxQueue >= 0, "max queue %d is negative", p.MaxQueue)
	check(p.MaxInFlight > 0 || p.MaxQueue <= 0, "max queue %d has no effect without max in flight", p.MaxQueue)
	check(p.Retry.Max >= -1, "max retries %d is neither a count nor -1 (until the deadline)", p.Retry.Max)
	check(p.Retry.Initial >= 0, "initial retry interval %v is negative", p.Retry.Initial)
	check(p.Retry.MaxInterval >= 0, "max retry interval %v is negative", p.Retry.MaxInterval)
	check(p.Retry.MaxInterval <= 0 || p.Retry.Initial <= p.Retry.MaxInterval,
		"initial retry interval %v is longer than the max interval %v", p.Retry.Initial, p.Retry.MaxInterval)
	check(p.Retry.Multiplier == 0 || p.Retry.Multiplier >= 1, "retry multiplier %v is less than 1", p.Retry.Multiplier)
	check(p.Retry.Jitter >= 0 && p.Retry.Jitter <= 1, "retry jitter %v is not within 0 and 1", p.Retry.Jitter)
	check(p.Breaker.Failures >= 0, "breaker failures %d is negative", p.Breaker.Failures)
	check(p.Breaker.OpenFor >= 0, "breaker open time %v is negative", p.Breaker.OpenFor)
	check(p.Breaker.Probes >= 0, "breaker probes %d is negative", p.Breaker.Probes)
	if len(wrong) == 0 {
		return nil
	}
	return fault.E("policy "+p.Name, fault.Invalid, fault.BadManifest, errors.Join(wrong...))
}

// Deadline is when a call that arrives now must have ended: the nearer of its own deadline and the policy's CallTimeout.
// The zero time is no deadline. The machine applies it; a driver asks it how long to wait.
func (p Policy) Deadline(now, own time.Time) time.Time { return sooner(own, now, p.CallTimeout) }

// sooner is the nearer of deadline and now+limit, where zero is none.
func sooner(deadline, now time.Time, limit time.Duration) time.Time {
	if limit <= 0 {
		return deadline
	}
	if bound := now.Add(limit); deadline.IsZero() || bound.Before(deadline) {
		return bound
	}
	return deadline
}

// settled returns p with defaults for what is left out and the nearest possible value for what cannot be.
func (p Policy) settled() Policy {
	p.MaxInFlight, p.MaxQueue = max(p.MaxInFlight, 0), max(p.MaxQueue, 0)
	p.Retry = p.Retry.settled()
	p.Breaker = p.Breaker.settled()
	return p
}

func (r Retry) settled() Retry {
	r.Max = max(r.Max, -1)
	if r.Initial <= 0 {
		r.Initial = defaultInitial
	}
	if r.MaxInterval <= 0 {
		r.MaxInterval = max(defaultMaxInterval, r.Initial)
	}
	r.Initial = min(r.Initial, r.MaxInterval)
	if r.Multiplier < 1 {
		r.Multiplier = defaultMultiplier
	}
	r.Jitter = min(max(r.Jitter, 0), 1)
	return r
}

func (b Breaker) settled() Breaker {
	b.Failures = max(b.Failures, 0)
	if b.OpenFor <= 0 {
		b.OpenFor = defaultOpenFor
	}
	if b.Probes <= 0 {
		b.Probes = defaultProbes
	}
	return b
}
