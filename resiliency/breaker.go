package resiliency

import (
	"fmt"
	"math"
	"time"
)

// breaker keeps calls away from a target that fails or is slow.
//
//	closed ──too many failures──▶ open ──OpenFor──▶ half-open ──Probes succeed──▶ ramping ──share is 1──▶ closed
//	                               ▲                    │                            │
//	                               └──── a probe fails ─┴──── too many failures ─────┘
//
// Without a ramp the probes close it. Time passes lazily: each entry point first lets happen what was due.
type breaker struct {
	rule   Breaker
	state  breakerState
	forced Forced // ForcedOpen, ForcedClosed, or "" when an operator does not hold it
	// era grows with every change of state that makes the counts start afresh. An attempt is judged in the era that let it
	// pass: what began before the breaker opened says nothing about the target after it. 0 is no era: such attempts are
	// not heard.
	era     uint64
	counts  TripCounts // of this era
	window  window     // of this era
	expires time.Time  // when Interval clears the counts; zero before the first call
	until   time.Time  // when open ends
	ramped  time.Time  // when the ramp began
	probes  int        // on their way, while half-open
	passed  int        // probes that succeeded
	sieve   sieve      // lets a share of the calls pass, while open and ramping
	reason  string     // why it opened
	turned  *Turned    // counts the changes of state; its machine's
}

type breakerState uint8

const (
	closed breakerState = iota
	open
	halfOpen
	ramping
)

func (s breakerState) String() string {
	return [...]string{"closed", "open", "half-open", "ramping"}[s]
}

// Turned counts how often a breaker came into each state.
type Turned [ramping + 1]uint64

// All yields each state's name and how often it was entered.
func (t Turned) All(yield func(state string, times uint64) bool) {
	for s, n := range t {
		if !yield(breakerState(s).String(), n) {
			return
		}
	}
}

// become changes the state.
func (b *breaker) become(s breakerState) {
	if s != b.state && b.turned != nil {
		b.turned[s]++
	}
	b.state = s
}

// setRule starts afresh when the rule is another one. What an operator forces outlives it.
func (b *breaker) setRule(rule Breaker) {
	same := b.era != 0 && rule.same(b.rule)
	b.rule = rule
	if same {
		return
	}
	b.window = newWindow(rule)
	b.reason = ""
	b.turn(closed)
}

// turn begins an era.
func (b *breaker) turn(s breakerState) {
	b.become(s)
	b.era++
	b.counts = TripCounts{}
	b.window.clear()
	b.expires = time.Time{}
	b.probes, b.passed = 0, 0
	b.sieve = 0
}

// age lets happen what time alone does: an open breaker becomes half-open, a ramp ends. The end of a ramp begins no era:
// what was counted on the way up still counts.
func (b *breaker) age(now time.Time) {
	switch {
	case b.state == open && !now.Before(b.until):
		b.turn(halfOpen)
	case b.state == ramping && b.share(now) > 1-1e-9:
		b.become(closed)
		b.reason = ""
	}
}

// lapse clears the counts when Interval has passed while the breaker was closed or ramping. As with sony/gobreaker, calls
// that began before it are not heard after it.
func (b *breaker) lapse(now time.Time) {
	if b.rule.Interval <= 0 || b.state != closed && b.state != ramping {
		return
	}
	if !b.expires.IsZero() && now.After(b.expires) {
		sieve := b.sieve
		b.turn(b.state)
		b.sieve = sieve
	}
	if b.expires.IsZero() {
		b.expires = now.Add(b.rule.Interval)
	}
}

// admit reports whether a call may pass now, and in which era it does. Calls that pass an open or a forced breaker do so
// in no era.
func (b *breaker) admit(now time.Time) (era uint64, ok bool) {
	switch {
	case b.forced != "":
		return 0, b.forced == ForcedClosed
	case !b.rule.on():
		return b.era, true
	}
	b.age(now)
	b.lapse(now)
	switch b.state {
	case open:
		return 0, b.sieve.pass(b.rule.OpenShare)
	case halfOpen:
		if b.probes+b.passed >= b.rule.Probes {
			return 0, false
		}
		b.probes++
	case ramping:
		if !b.sieve.pass(b.share(now)) {
			return 0, false
		}
	}
	b.counts.Requests++
	return b.era, true
}

// settle takes in what a call that passed in era says about the target.
func (b *breaker) settle(now time.Time, era uint64, e effect, took time.Duration, err error) {
	if era == 0 || !b.rule.on() {
		return
	}
	b.age(now)
	b.lapse(now)
	if era != b.era {
		return
	}
	if b.state == halfOpen {
		b.settleProbe(now, e, took, err)
		return
	}
	switch e {
	case neither:
		b.counts.Requests--
		return
	case good:
		b.counts.Successes++
		b.counts.ConsecutiveSuccesses++
		b.counts.ConsecutiveFailures = 0
	case bad:
		b.counts.Failures++
		b.counts.ConsecutiveFailures++
		b.counts.ConsecutiveSuccesses = 0
	}
	b.window.add(now, e == bad, b.rule.slow(took))
	if why := b.trips(e, err); why != "" {
		if b.state == ramping {
			why += fmt.Sprintf(", after %s of the calls were let in again", percent(b.share(now)))
		}
		b.trip(now, why)
	}
}

// probedBy says whether a call that passed in era is a probe that the breaker waits for.
func (b *breaker) probedBy(era uint64) bool {
	return b.rule.on() && b.state == halfOpen && era == b.era
}

// settleProbe judges a probe. One that says nothing makes room for another; one that is slow fails where slowness opens.
func (b *breaker) settleProbe(now time.Time, e effect, took time.Duration, err error) {
	b.probes--
	switch {
	case e == bad:
		b.trip(now, "a probe failed with: "+err.Error())
	case e == good && b.rule.slow(took):
		b.trip(now, fmt.Sprintf("a probe took %v", took.Round(time.Millisecond)))
	case e == good:
		if b.passed++; b.passed < b.rule.Probes {
			return
		}
		if b.rule.RampStep > 0 && b.rule.RampStep < 1 {
			b.turn(ramping)
			b.ramped = now
			return
		}
		b.turn(closed)
		b.reason = ""
	}
}

func (b *breaker) trip(now time.Time, why string) {
	b.turn(open)
	b.until = now.Add(b.rule.OpenFor)
	b.reason = why
}

// trips says why the outcome just counted opens the breaker, or "". Failures and Trip are asked when a call failed, the
// ratios after every call: a success may have pushed another out of the window, or been slow.
func (b *breaker) trips(e effect, err error) string {
	r, c, w := &b.rule, b.counts, &b.window
	if e == bad {
		switch {
		case r.Failures > 0 && c.ConsecutiveFailures >= int64(r.Failures):
			if c.ConsecutiveFailures == 1 {
				return fmt.Sprintf("a call failed with: %v", err)
			}
			return fmt.Sprintf("%d calls in a row failed, the last with: %v", c.ConsecutiveFailures, err)
		case r.Trip != nil && r.Trip.Open(c):
			return fmt.Sprintf("%s, the last failed with: %v", r.Trip.Text, err)
		}
	}
	if w.total.calls < r.MinCalls {
		return ""
	}
	calls := float64(w.total.calls)
	switch {
	case r.Ratio > 0 && float64(w.total.failed)/calls >= r.Ratio:
		last := ""
		if e == bad {
			last = ", the last with: " + err.Error()
		}
		return fmt.Sprintf("%d of the last %d calls failed%s", w.total.failed, w.total.calls, last)
	case r.SlowRatio > 0 && float64(w.total.slow)/calls >= r.SlowRatio:
		return fmt.Sprintf("%d of the last %d calls took %v or longer", w.total.slow, w.total.calls, r.SlowAfter)
	}
	return ""
}

// share of calls that a ramp admits at now, or that any state does.
func (b *breaker) share(now time.Time) float64 {
	switch {
	case b.forced == ForcedOpen:
		return 0
	case b.forced == ForcedClosed || b.state == closed:
		return 1
	case b.state == open:
		return b.rule.OpenShare
	case b.state == halfOpen:
		return 0 // probes are counted, not a share
	}
	steps := 1 + max(now.Sub(b.ramped), 0)/b.rule.RampEvery
	return min(b.rule.RampStep*float64(steps), 1)
}

// force holds the breaker in a state whatever happens, or lets it go: it is closed then, and starts afresh.
func (b *breaker) force(to Forced) {
	if to != ForcedOpen && to != ForcedClosed {
		to = ""
	}
	if to == b.forced {
		return
	}
	b.forced = to
	b.reason = ""
	b.turn(closed)
}

// free reports whether every call passes.
func (b *breaker) free() bool {
	return b.forced == ForcedClosed || b.forced == "" && b.state == closed
}

// opensIn is how long an open breaker still keeps calls away.
func (b *breaker) opensIn(now time.Time) time.Duration {
	if b.state != open {
		return 0
	}
	return max(b.until.Sub(now), 0)
}

// retryAfter is when a refused call may find it otherwise: when the first probe may pass, or the ramp's next step comes.
// 0 is not known: half-open, it hangs on the probes under way.
func (b *breaker) retryAfter(now time.Time) time.Duration {
	switch {
	case b.forced == ForcedOpen:
		return b.rule.OpenFor
	case b.state == ramping:
		return b.rule.RampEvery - max(now.Sub(b.ramped), 0)%b.rule.RampEvery
	}
	return b.opensIn(now)
}

// refusal says why it keeps calls away.
func (b *breaker) refusal(now time.Time) string {
	switch {
	case b.forced == ForcedOpen:
		return "is held open by an operator"
	case b.state == halfOpen:
		return fmt.Sprintf("is half-open and waits for its probes (%d of %d succeeded); it opened because %s",
			b.passed, b.rule.Probes, b.reason)
	case b.state == ramping:
		return fmt.Sprintf("lets %s of the calls in, more each %v; it opened because %s",
			percent(b.share(now)), b.rule.RampEvery, b.reason)
	}
	return fmt.Sprintf("is %s: %s", b.state, b.reason)
}

// describe puts the breaker's part into a status.
func (b *breaker) describe(now time.Time, s *Status) {
	if !b.rule.on() && b.forced == "" {
		return
	}
	seen := *b // the status of a breaker must not make it older; the window it shares is empty when age clears it
	seen.age(now)
	s.Breaker, s.BreakerReason, s.BreakerShare, s.BreakerOpensIn = seen.state.String(), seen.reason, seen.share(now), seen.opensIn(now)
	if seen.forced != "" {
		s.Breaker, s.BreakerReason, s.BreakerForced = string(seen.forced), "an operator holds it "+string(seen.forced), true
	}
}

func percent(share float64) string { return fmt.Sprintf("%.4g %%", share*100) }

// sieve lets a share of calls pass, evenly spread and without chance: of a share of 1/n the nth of each n calls passes
// (error diffusion, as Bresenham's line draws a slope). It holds what is owed, in billionths of a call.
type sieve int64

func (s *sieve) pass(share float64) bool {
	const whole = 1_000_000_000
	*s += sieve(math.Round(share * whole))
	if *s < whole {
		return false
	}
	*s -= whole
	return true
}
