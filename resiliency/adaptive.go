package resiliency

import (
	"math"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Defaults of Adaptive.
const (
	defaultMinLimit     = 4
	defaultInitialLimit = 20
	defaultMaxLimit     = 1000
	defaultTolerance    = 1.5
)

// What adaptive limits learn from: windows of twice the latency at rest, within these bounds, and of so many attempts at
// least (as WindowedLimit of Netflix's concurrency-limits, which is slower: a second at least).
const (
	minWindow     = 100 * time.Millisecond
	maxWindow     = time.Second
	windowSamples = 10
)

const (
	// smoothing is the share of a new estimate that the limit takes over (Gradient2's default).
	smoothing = 0.2
	// longTerm is the number of windows over which Gradient's latency at rest is averaged while the target is busy (as
	// Gradient2), idleTerm while it is not, when what is measured is the latency at rest.
	longTerm, idleTerm = 600, 10
	// probeEvery is how many busy windows pass between two looks at the latency at rest, firstProbe before the first.
	probeEvery, firstProbe = 60, 10
)

// adaptive moves the limit of calls in flight so that latency stays near what it is at rest. It learns from windows of
// attempts, each summed up as their mean latency, the most calls in flight, and the share of them that was dropped: timed
// out, or refused by the target for want of room.
//
// Both algorithms are those of Netflix's concurrency-limits (Gradient2Limit, VegasLimit), with two changes. Those learn the
// latency at rest under load, so that in a long overload it follows the queue it should reveal, and the limit drifts up
// with it; here, every probeEvery busy windows the limit falls below half, a window of attempts granted since lets the target's
// queue drain, and the next one is taken as the latency at rest (as BBR's ProbeRTT: Cardwell et al., "BBR: Congestion-Based
// Congestion Control", 2016). And where they ignore drops or count one as much as many, here the limit shrinks by the share that was dropped.
type adaptive struct {
	rule  Adaptive
	limit float64
	rest  float64 // latency at rest in nanoseconds; 0 before the first window

	ends    time.Time // of the window; zero before its first attempt
	samples int       // attempts that were answered
	sum     float64   // of their latencies
	drops   int
	most    int // in flight when one of them was granted

	busy  int // windows since the last probe in which the limit was used
	phase probePhase
}

// probePhase is how far a look at the latency at rest has come.
type probePhase uint8

const (
	noProbe  probePhase = iota
	draining            // of what was granted before
	measuring
)

// setRule starts afresh when the algorithm is another one.
func (a *adaptive) setRule(rule Adaptive) {
	if rule.Algorithm != a.rule.Algorithm {
		*a = adaptive{limit: float64(rule.Initial), busy: probeEvery - firstProbe}
	}
	a.rule = rule
	a.limit = min(max(a.limit, float64(rule.Min)), float64(rule.Max))
}

// resume goes on with what old has learned, as far as it can be true. Where it stood in a window or a probe is forgotten.
func (a *adaptive) resume(old *adaptive) {
	if a.rule.Algorithm != old.rule.Algorithm || !(old.limit >= 1) || !(old.rest >= 0) || math.IsInf(old.rest, 0) {
		return
	}
	a.limit = min(max(old.limit, float64(a.rule.Min)), float64(a.rule.Max))
	a.rest = old.rest
}

func (a *adaptive) on() bool { return a.rule.Algorithm != NotAdaptive }

// now is the limit that holds, 0 for none.
func (a *adaptive) now() int {
	switch {
	case !a.on():
		return 0
	case a.phase != noProbe:
		return max(int(a.limit/2-math.Sqrt(a.limit)), 1) // less than half: both algorithms may stand at more than twice what the target can do
	}
	return int(a.limit)
}

// observe takes in what became of an attempt that was granted when so many calls, itself among them, were in flight. What
// failed for other reasons says nothing about room.
func (a *adaptive) observe(now time.Time, took time.Duration, inFlight int, err error) {
	if !a.on() {
		return
	}
	drop := dropped(err)
	if !drop && effectOf(err) != good || a.phase != noProbe && inFlight > a.now() {
		return
	}
	if a.ends.IsZero() {
		a.ends = now.Add(min(max(2*time.Duration(a.rest), minWindow), maxWindow))
	}
	if drop {
		a.drops++
	} else {
		a.samples++
		a.sum += float64(max(took, 1))
	}
	a.most = max(a.most, inFlight)
	enough := windowSamples
	if a.phase == draining {
		enough = min(enough, a.now()) // one round
	}
	if a.samples+a.drops >= enough && !now.Before(a.ends) {
		a.close()
	}
}

// dropped reports whether err says that the target has more work than it can do.
func dropped(err error) bool {
	switch fault.KindOf(err) {
	case fault.Timeout:
		return effectOf(err) == bad
	case fault.Exhausted:
		return true
	}
	return false
}

// close ends the window and moves the limit.
func (a *adaptive) close() {
	latency, share := 0.0, float64(a.drops)/float64(a.samples+a.drops)
	if a.samples > 0 {
		latency = a.sum / float64(a.samples)
	}
	used := float64(a.most) >= a.limit/2
	a.ends, a.samples, a.sum, a.drops, a.most = time.Time{}, 0, 0, 0, 0
	switch a.phase {
	case draining:
		a.phase = measuring
		return
	case measuring:
		a.phase, a.busy = noProbe, 0
		if latency > a.rest*a.rule.Tolerance { // it may still have met a queue: look again soon
			a.busy = probeEvery - firstProbe
		}
		if latency > 0 {
			a.rest = latency
		}
		return
	}
	next := a.limit
	if latency > 0 {
		a.learn(latency, used)
	}
	if latency > 0 && used { // or else the limit would grow without ever being tried
		next = a.estimate(latency)
	}
	if used {
		a.busy++
	}
	if a.busy >= probeEvery {
		a.phase = draining
	}
	if share > 0 {
		next = min(next, a.limit*max(1-share, 0.5))
	}
	a.limit = min(max(next, float64(a.rule.Min)), float64(a.rule.Max))
}

// learn moves the latency at rest: Vegas takes the least there is, Gradient the average.
func (a *adaptive) learn(latency float64, used bool) {
	switch {
	case a.rest == 0 || a.rule.Algorithm == Vegas && latency < a.rest:
		a.rest = latency
	case a.rule.Algorithm == Vegas:
	case used:
		a.rest += (latency - a.rest) / longTerm
	default:
		a.rest += (latency - a.rest) / idleTerm
	}
	if a.rest > 2*latency { // it comes from worse times
		a.rest *= 0.9
	}
}

// estimate is the next limit by the latency of a window in which the limit was used.
func (a *adaptive) estimate(latency float64) float64 {
	if a.rule.Algorithm == Vegas {
		return a.vegas(latency)
	}
	gradient := max(0.5, min(1, a.rule.Tolerance*a.rest/latency))
	return a.limit*(1-smoothing) + smoothing*(a.limit*gradient+math.Sqrt(a.limit))
}

// vegas grows while the queue that the latency betrays is short, and shrinks while it is longer than what makes attempts
// Tolerance times as slow as at rest (Brakmo and Peterson, "TCP Vegas", 1995). Without a queue it grows in great steps.
func (a *adaptive) vegas(latency float64) float64 {
	queue := a.limit * (1 - min(a.rest/latency, 1))
	most := a.limit * (1 - 1/a.rule.Tolerance)
	step := max(math.Log10(a.limit), 1)
	switch {
	case queue <= min(step, most/4):
		return a.limit + max(most/2, step)
	case queue < most/2:
		return a.limit + step
	case queue > most:
		return a.limit - step
	}
	return a.limit
}

func (a Adaptive) validate(check checker) {
	switch a.Algorithm {
	case NotAdaptive:
		check(a == Adaptive{}, "adaptive concurrency without an algorithm (gradient or vegas) has no effect")
		return
	case Gradient, Vegas:
	default:
		check(false, "adaptive algorithm %q is neither gradient nor vegas", string(a.Algorithm))
	}
	check(a.Min >= 0 && a.Initial >= 0 && a.Max >= 0, "an adaptive limit (min %d, initial %d, max %d) is negative", a.Min, a.Initial, a.Max)
	check(a.Max == 0 || a.Min <= a.Max, "the adaptive minimum %d is over the maximum %d", a.Min, a.Max)
	check(a.Initial == 0 || a.Min <= a.Initial && (a.Max == 0 || a.Initial <= a.Max),
		"the adaptive initial limit %d is not within %d and %d", a.Initial, a.Min, a.Max)
	check(a.Tolerance == 0 || a.Tolerance > 1, "adaptive tolerance %v is not more than 1", a.Tolerance)
}

// settled fills in what is left out; maxInFlight is the lane's own limit, 0 for none.
func (a Adaptive) settled(maxInFlight int) Adaptive {
	if a.Algorithm != Gradient && a.Algorithm != Vegas {
		return Adaptive{}
	}
	if a.Max <= 0 {
		a.Max = defaultMaxLimit
		if maxInFlight > 0 {
			a.Max = maxInFlight
		}
	}
	if a.Min <= 0 {
		a.Min = min(defaultMinLimit, a.Max)
	}
	a.Min = min(a.Min, a.Max)
	if a.Initial <= 0 {
		a.Initial = defaultInitialLimit
	}
	a.Initial = min(max(a.Initial, a.Min), a.Max)
	if !(a.Tolerance > 1) {
		a.Tolerance = defaultTolerance
	}
	return a
}
