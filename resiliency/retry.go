package resiliency

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sidecast/sidecast/fault"
)

// again says how long t waits before it is tried again after err, or that it is not. Elsewhere says that there is an
// instance which t has not tried: one that refused for want of room is not asked again, that would feed the overload, but
// another is, at once. Policies that name such refusals in On, or fail later, know what they do.
func (p *Policy) again(now time.Time, t *Turn, err error, elsewhere bool) (time.Duration, bool) {
	r := &p.Retry
	byVerb := t.Call.Repeatable && (r.ByVerb || r.Lost && fault.ReasonOf(err) == fault.InstanceLost)
	follows, named := r.follows(err, t.Call.Idempotent || byVerb)
	switch {
	case r.Max >= 0 && t.tries > r.Max || !follows || isFinal(err) || t.Call.Decided.Retry:
		return 0, false
	case r.Elsewhere, !named && len(r.NotHere) > 0 && slices.Contains(r.NotHere, fault.ReasonOf(err)):
		return 0, elsewhere
	case fault.KindOf(err) == fault.Exhausted && !named && p.Mode != Failcache:
		return 0, elsewhere
	}
	wait := max(r.delay(t), fault.RetryAfter(err))
	if !t.deadline.IsZero() && !now.Add(wait).Before(t.deadline) {
		return 0, false
	}
	return wait, true
}

// follows reports whether err is of those that are tried again and trying again can do no harm, and whether it is On that
// says so.
func (r *Retry) follows(err error, idempotent bool) (follows, named bool) {
	harmless := idempotent || r.NonIdempotent || fault.NotSent(err)
	if r.On.given() {
		if meant, speaks := r.On.speaks(err); speaks {
			return meant && harmless, meant
		}
	}
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Timeout, fault.Tripped:
		return harmless, false
	case fault.Exhausted:
		return fault.NotSent(err), false
	}
	return false, false
}

// Final is a failure that no attempt follows, whatever the policy says: what was sent cannot be sent again, or an answer was
// passed on.
type Final struct{ Err error }

// Error is that of the failure.
func (f Final) Error() string { return f.Err.Error() }

// Unwrap is the failure.
func (f Final) Unwrap() error { return f.Err }

func isFinal(err error) bool {
	_, final := errors.AsType[Final](err)
	return final
}

// delay is the next of the turn's waits. They follow the rule in force when the first was needed.
func (r *Retry) delay(t *Turn) time.Duration {
	if r.Backoff == Decorrelated {
		most := max(3*max(t.wait, r.Initial), r.Initial)
		t.wait = min(r.Initial+rand.N(most-r.Initial+1), r.MaxInterval)
		return t.wait
	}
	if t.delays.Clock == nil {
		t.delays = backoff.ExponentialBackOff{
			InitialInterval:     r.Initial,
			MaxInterval:         r.MaxInterval,
			Multiplier:          r.Multiplier,
			RandomizationFactor: r.Jitter,
			MaxElapsedTime:      0, // never stops by itself: the count and the deadline do
			Stop:                backoff.Stop,
			Clock:               noClock{},
		}
		t.delays.Reset()
	}
	wait := t.delays.NextBackOff()
	if r.Backoff == FullJitter {
		return rand.N(wait + 1)
	}
	return wait
}

// noClock stands in for the clock that backoff reads only to measure elapsed time, which nothing here asks for.
type noClock struct{}

func (noClock) Now() time.Time { return time.Time{} }

func (r Retry) validate(check checker) {
	check(r.Max >= -1, "max retries %d is neither a count nor -1 (until the deadline)", r.Max)
	check(r.Initial >= 0, "initial retry interval %v is negative", r.Initial)
	check(r.MaxInterval >= 0, "max retry interval %v is negative", r.MaxInterval)
	check(r.MaxInterval <= 0 || r.Initial <= r.MaxInterval,
		"initial retry interval %v is longer than the max interval %v", r.Initial, r.MaxInterval)
	check(r.Multiplier == 0 || r.Multiplier >= 1, "retry multiplier %v is less than 1", r.Multiplier)
	check(r.Jitter >= 0 && r.Jitter <= 1, "retry jitter %v is not within 0 and 1", r.Jitter)
	switch r.Backoff {
	case Exponential, Constant:
	case FullJitter, Decorrelated:
		check(r.Jitter == 0, "retry jitter %v has no effect with the backoff %s, which is random by itself", r.Jitter, r.Backoff)
	default:
		check(false, "retry backoff %q is none of exponential, constant, full-jitter and decorrelated", string(r.Backoff))
	}
	r.On.validate("retry match", check)
	r.Budget.validate(check)
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
	switch {
	case r.Backoff == Constant:
		r.Multiplier = 1
	case r.Multiplier < 1:
		r.Multiplier = defaultMultiplier
	}
	r.Jitter = min(max(r.Jitter, 0), 1)
	if r.Backoff == FullJitter {
		r.Jitter = 0
	}
	return r
}
