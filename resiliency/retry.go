package resiliency

import (
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sidecast/sidecast/fault"
)

// next says how long t waits before it is tried again after err, or that it is not. Elsewhere says that there is an
// instance which t has not tried: one that refused for want of room is not asked again, that would feed the overload, but
// another is, at once.
func (r Retry) next(now time.Time, t *Turn, err error, elsewhere bool) (time.Duration, bool) {
	if r.Max >= 0 && t.tries > r.Max || !retryable(err, t.Call.Idempotent) {
		return 0, false
	}
	if fault.KindOf(err) == fault.Exhausted {
		return 0, elsewhere
	}
	wait := max(r.delay(t), fault.RetryAfter(err))
	if !t.deadline.IsZero() && !now.Add(wait).Before(t.deadline) {
		return 0, false
	}
	return wait, true
}

// retryable reports whether trying again may help and can do no harm.
func retryable(err error, idempotent bool) bool {
	notSent := fault.NotSent(err)
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Timeout, fault.Tripped:
		return idempotent || notSent
	case fault.Exhausted:
		return notSent
	}
	return false
}

// delay is the next of the turn's growing waits. They follow the rule in force when the first was needed.
func (r Retry) delay(t *Turn) time.Duration {
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
	return t.delays.NextBackOff()
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
