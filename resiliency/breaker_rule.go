package resiliency

import "time"

// Bounds and defaults of a breaker's fields.
const (
	defaultOpenFor    = 5 * time.Second
	defaultProbes     = 1
	defaultWindowTime = 10 * time.Second
	defaultMinCalls   = 10
	defaultRampStep   = 0.1
	defaultRampEvery  = 10 * time.Second
	maxWindowCalls    = 1 << 20
)

// on reports whether anything opens it.
func (b *Breaker) on() bool {
	return b.Failures > 0 || b.Ratio > 0 || b.SlowRatio > 0 || b.Trip != nil
}

// slow reports whether a call that took so long counts as slow.
func (b *Breaker) slow(took time.Duration) bool { return b.SlowRatio > 0 && took >= b.SlowAfter }

// same reports whether two rules say the same.
func (b Breaker) same(o Breaker) bool {
	if (b.Trip == nil) != (o.Trip == nil) || b.Trip != nil && b.Trip.Text != o.Trip.Text {
		return false
	}
	b.Trip, o.Trip = nil, nil
	return b == o
}

func (b Breaker) validate(check checker) {
	share := func(what string, v float64) { check(v >= 0 && v <= 1, "breaker %s %v is not within 0 and 1", what, v) }
	positive := func(what string, d time.Duration) { check(d >= 0, "breaker %s %v is negative", what, d) }
	check(b.Failures >= 0, "breaker failures %d is negative", b.Failures)
	share("ratio", b.Ratio)
	share("slow ratio", b.SlowRatio)
	positive("slow after", b.SlowAfter)
	check(b.SlowRatio == 0 || b.SlowAfter != 0, "breaker slow ratio %v needs slow after: from when on a call is slow", b.SlowRatio)
	check(b.SlowAfter == 0 || b.SlowRatio != 0, "breaker slow after %v has no effect without a slow ratio", b.SlowAfter)
	check(b.WindowCalls >= 0 && b.WindowCalls <= maxWindowCalls,
		"breaker window of %d calls is not within 0 and %d", b.WindowCalls, maxWindowCalls)
	positive("window time", b.WindowTime)
	check(b.WindowCalls == 0 || b.WindowTime == 0,
		"breaker window is either %d calls or %v, not both", b.WindowCalls, b.WindowTime)
	check(b.MinCalls >= 0, "breaker min calls %d is negative", b.MinCalls)
	check(b.WindowCalls <= 0 || b.MinCalls <= b.WindowCalls,
		"breaker min calls %d is more than its window of %d calls ever holds", b.MinCalls, b.WindowCalls)
	check(b.Ratio != 0 || b.SlowRatio != 0 || b.WindowCalls == 0 && b.WindowTime == 0 && b.MinCalls == 0,
		"breaker window and min calls have no effect without a ratio or a slow ratio")
	positive("interval", b.Interval)
	check(b.Trip == nil || b.Trip.Open != nil, "breaker trip expression has no meaning")
	positive("open time", b.OpenFor)
	share("open share", b.OpenShare)
	check(b.Probes >= 0, "breaker probes %d is negative", b.Probes)
	share("ramp step", b.RampStep)
	positive("ramp interval", b.RampEvery)
}

func (b Breaker) settled() Breaker {
	b.Failures = max(b.Failures, 0)
	b.Ratio, b.SlowRatio = portion(b.Ratio), portion(b.SlowRatio)
	if b.SlowAfter <= 0 {
		b.SlowAfter, b.SlowRatio = 0, 0
	}
	b.WindowCalls = min(max(b.WindowCalls, 0), maxWindowCalls)
	if b.WindowTime <= 0 {
		b.WindowTime = defaultWindowTime
	}
	if b.MinCalls <= 0 {
		b.MinCalls = defaultMinCalls
	}
	if b.WindowCalls > 0 {
		b.MinCalls = min(b.MinCalls, b.WindowCalls)
	}
	if b.Trip != nil && b.Trip.Open == nil {
		b.Trip = nil
	}
	if b.OpenFor <= 0 {
		b.OpenFor = defaultOpenFor
	}
	b.Interval, b.OpenShare = max(b.Interval, 0), portion(b.OpenShare)
	if b.Probes <= 0 {
		b.Probes = defaultProbes
	}
	b.RampStep, b.RampEvery = portion(b.RampStep), max(b.RampEvery, 0)
	switch {
	case b.RampStep > 0 && b.RampEvery == 0:
		b.RampEvery = defaultRampEvery
	case b.RampStep == 0 && b.RampEvery > 0:
		b.RampStep = defaultRampStep
	}
	return b
}

// portion is the share nearest to v, which may be no number at all.
func portion(v float64) float64 {
	if !(v > 0) {
		return 0
	}
	return min(v, 1)
}
