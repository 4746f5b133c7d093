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
