package resiliency

import "time"

// breaker keeps calls away from a target that failed several times in a row.
//
//	closed ──Failures in a row──▶ open ──OpenFor──▶ half-open ──Probes succeed──▶ closed
//	                               ▲                    │
//	                               └──── a probe fails ─┘
type breaker struct {
	rule  Breaker
	state breakerState
	// era grows with every change of state. An attempt is judged in the era that let it pass: what began before the
	// breaker opened says nothing about the target after it. 0 is no era.
	era      uint64
	failures int       // in a row, while closed
	probes   int       // on their way, while half-open
	passed   int       // probes that succeeded
	until    time.Time // when open ends
	reason   string    // the failure that opened it
}

type breakerState uint8

const (
	closed breakerState = iota
	open
	halfOpen
)

func (s breakerState) String() string { return [...]string{"closed", "open", "half-open"}[s] }

// setRule starts afresh when the rule is another one.
func (b *breaker) setRule(rule Breaker) {
	if b.era != 0 && rule == b.rule {
		return
	}
	b.rule = rule
	b.turn(closed)
	b.reason = ""
}

func (b *breaker) turn(s breakerState) {
	b.state = s
	b.era++
	b.failures, b.probes, b.passed = 0, 0, 0
}

// admit reports whether a call may pass now, and in which era it does.
func (b *breaker) admit(now time.Time) (era uint64, ok bool) {
	if b.state == open && !now.Before(b.until) {
		b.turn(halfOpen)
	}
	switch b.state {
	case open:
		return 0, false
	case halfOpen:
		if b.probes+b.passed >= b.rule.Probes {
			return 0, false
		}
		b.probes++
	}
	return b.era, true
}

// settle takes in what a call that passed in era says about the target.
func (b *breaker) settle(now time.Time, era uint64, e effect, took time.Duration, err error) {
	if era != b.era || b.rule.Failures == 0 {
		return
	}
	if b.state == halfOpen {
		b.probes--
	}
	switch {
	case e == good && b.state == halfOpen:
		if b.passed++; b.passed >= b.rule.Probes {
			b.turn(closed)
			b.reason = ""
		}
	case e == good:
		b.failures = 0
	case e == bad:
		if b.failures++; b.state == halfOpen || b.failures >= b.rule.Failures {
			b.turn(open)
			b.until = now.Add(b.rule.OpenFor)
			b.reason = err.Error()
		}
	}
}

// force holds the breaker in a state whatever happens, or lets it go.
func (b *breaker) force(now time.Time, to Forced) {}

// opensIn is how long an open breaker still keeps every call away.
func (b *breaker) opensIn(now time.Time) time.Duration {
	if b.state != open {
		return 0
	}
	return max(b.until.Sub(now), 0)
}

func (b Breaker) validate(check checker) {
	check(b.Failures >= 0, "breaker failures %d is negative", b.Failures)
	check(b.OpenFor >= 0, "breaker open time %v is negative", b.OpenFor)
	check(b.Probes >= 0, "breaker probes %d is negative", b.Probes)
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
