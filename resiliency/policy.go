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
	// AdaptiveTimeout takes the place of AttemptTimeout once enough attempts were seen.
	AdaptiveTimeout AdaptiveTimeout
	// Limits are rate limits; a call must pass all of them.
	Limits []RateLimit
	// MaxInFlight is how many calls may run at once, 0 = no limit; MaxQueue how many may wait for their turn. Both at most a
	// million.
	MaxInFlight, MaxQueue int
	// Queue says who waits, who is served next, and who goes when there is no room.
	Queue Queue
	// Adaptive lets the limit of calls in flight follow the latency that attempts show.
	Adaptive Adaptive
	// Protection sheds calls while the machine or the queue is overloaded.
	Protection Protection
	// Breaker says when calls are kept away from a failing target.
	Breaker Breaker
	// Mode is what becomes of a call whose attempt failed; ModeNone leaves it to Retry and Fallback.
	Mode FailureMode
	// Retry says whether and when a failed attempt is followed by another.
	Retry Retry
	// Hedge starts a second attempt of a slow idempotent call.
	Hedge Hedge
	// Fallback answers calls that failed; nil = the caller gets the error.
	Fallback *Fallback
	// Pieces is what differs for calls in pieces; nil = they are guarded as the others are.
	Pieces *Pieces
}

// Pieces is what differs for calls whose bodies travel in pieces, and for streams (Call.InPieces). All else of the policy is
// for them too: they count together with the others, but AdaptiveTimeout neither bounds them nor learns from them.
type Pieces struct {
	// CallTimeout and AttemptTimeout take the place of the policy's own. 0 = none.
	CallTimeout, AttemptTimeout time.Duration
	// MaxInFlight is how many of the policy's MaxInFlight may be in pieces, as they may last as long as their callers like.
	// What finds so many is refused, and does not wait. 0 = all.
	MaxInFlight int
}

// AdaptiveTimeout bounds an attempt by what attempts have taken: Multiplier times their Quantile, within Min and Max.
type AdaptiveTimeout struct {
	// Quantile of the observed times: 0.999 is the p99.9; 0 = off.
	Quantile float64
	// Multiplier stretches it (0 = 1.5).
	Multiplier float64
	// Min and Max bound the result (0 = 10 ms, and AttemptTimeout or else 30 s).
	Min, Max time.Duration
	// MinCalls is how many attempts must have been seen before it applies (0 = 100).
	MinCalls int
}

// FailureMode is a strategy for failed calls under the name that the field uses for it. Frameworks differ in what they
// mean; docs/concepts/resiliency.md says what is meant here.
type FailureMode string

// The failure modes.
const (
	ModeNone FailureMode = ""
	// Failfast tries once.
	Failfast FailureMode = "failfast"
	// Failover tries at once on instances that were not tried, up to Retry.Max (0 = 2) of them. A lane with one target has
	// none.
	Failover FailureMode = "failover"
	// Failback tries once and does not answer with a fallback: the caller gets the failure with all its details and decides.
	Failback FailureMode = "failback"
	// Failcache tries again later, after Retry.Initial (0 = 1 s) each time, up to Retry.Max (0 = 3) times within the deadline,
	// also after a refusal for want of room.
	Failcache FailureMode = "failcache"
	// Failsafe answers with the Fallback, which it needs, instead of the failure that is left after Retry.
	Failsafe FailureMode = "failsafe"
)

// Retry follows failures that may pass. Without On these are Unavailable, Timeout and Tripped. A call that is not
// idempotent is tried again only if the work never began (fault.NotSent), unless NonIdempotent says otherwise. A wait is
// at least what the failure asks for (fault.RetryAfter), and is not begun if it would pass the deadline. A target that
// refused for want of room (Exhausted) is not asked again; another instance of it is, without a wait.
type Retry struct {
	// Max is how many attempts may follow the first: 0 none, -1 as many as the deadline allows.
	Max int
	// Backoff is how the waits grow.
	Backoff Backoff
	// Initial is the first wait (0 = 50 ms), MaxInterval the longest before jitter (0 = 5 s).
	Initial, MaxInterval time.Duration
	// Multiplier grows an exponential wait from one retry to the next (0 = 2; 1 = constant).
	Multiplier float64
	// Jitter spreads each constant or exponential wait by that share up and down: 0.2 makes 100 ms anything from 80 to
	// 120 ms. 0 = none.
	Jitter float64
	// On narrows or widens what is tried again; the zero Match leaves the rule above.
	On Match
	// NonIdempotent also repeats calls that are not marked idempotent after they were sent.
	NonIdempotent bool
	// ByVerb takes calls that are Repeatable for idempotent ones.
	ByVerb bool
	// Lost does so after an instance was lost that had the call (fault.InstanceLost), and after nothing else.
	Lost bool
	// Elsewhere tries only instances that the call has not tried, at once.
	Elsewhere bool
	// NotHere are reasons of failures that only another instance can make good: one that the call has not tried is, at once,
	// and where there is none the call is given up. On goes before.
	NotHere []fault.Reason
	// Budget bounds retries and hedges as a share of traffic.
	Budget Budget
}

// Backoff is a strategy of waits between attempts.
type Backoff string

// The strategies. Full jitter and decorrelated jitter are those of Brooker, "Exponential Backoff And Jitter" (AWS
// Architecture Blog, 2015).
const (
	Exponential  Backoff = ""             // Initial × Multiplierⁿ, spread by Jitter
	Constant     Backoff = "constant"     // Initial, spread by Jitter
	FullJitter   Backoff = "full-jitter"  // anything from 0 to the exponential wait
	Decorrelated Backoff = "decorrelated" // anything from Initial to three times the wait before
)

// Match says which failures are meant. Of an HTTP app's answer Statuses decide, of a gRPC or native app's error Codes do,
// and of every other failure, such as one of the network, Kinds and Reasons; where the part that should decide is empty,
// Kinds and Reasons do, and where these are empty too, Match says nothing and the rule of whoever asks holds.
type Match struct {
	Kinds    []fault.Kind
	Reasons  []fault.Reason
	Codes    []Range // gRPC codes
	Statuses []Range // HTTP statuses
}

// Range is the numbers from First to Last, both included.
type Range struct{ First, Last int }

// Budget lets at most Share of the calls of the last ten seconds be retries and hedges, and PerSecond more where there
// is little traffic. The zero Budget is no bound. (Linkerd's and Finagle's retry budgets.)
type Budget struct{ Share, PerSecond float64 }

// Hedge starts another attempt of an idempotent call that has had no answer for After; the first answer wins and the
// loser is cancelled (Dean and Barroso, "The Tail at Scale", 2013). The zero Hedge is off.
type Hedge struct {
	// After is how long the attempt before it may take.
	After time.Duration
	// Max is how many more attempts may run beside the first (0 = 1).
	Max int
}

// Breaker opens when calls fail or are slow, keeps calls away for a while, lets probes decide, and may let the traffic
// come back in steps. Any of Failures, Ratio, SlowRatio and Trip turns it on; it opens when one of them says so. What says
// nothing about the target is not counted: a caller that went away, a call that was refused before it was sent. Neither is
// a call that began before the breaker last changed its state, or before Interval last cleared its counts.
type Breaker struct {
	// Failures in a row that open it; 0 = not by this.
	Failures int
	// Ratio of failed calls within the window that opens it, 0 to 1; 0 = not by this.
	Ratio float64
	// SlowRatio of calls within the window that took SlowAfter or longer, failed or not; 0 = not by this. A probe that
	// slow counts as failed.
	SlowRatio float64
	SlowAfter time.Duration
	// WindowCalls makes the window the last so many calls, at most 1048576, WindowTime the calls of so much time, to a
	// tenth of it (both 0 = 10 s). Only one of them may be set.
	WindowCalls int
	WindowTime  time.Duration
	// MinCalls is how many calls the window must hold before a ratio counts (0 = 10, or WindowCalls if that is less).
	MinCalls int
	// Interval clears all counts while closed or ramping, each time it has passed; 0 = never. (As sony/gobreaker's does.)
	Interval time.Duration
	// Trip is an expression over the counts since the last change of state or Interval, asked when a call failed; nil =
	// none.
	Trip *Trip
	// OpenFor is how long it stays open before it lets probes pass (0 = 5 s).
	OpenFor time.Duration
	// OpenShare of calls pass even while it is open: 0.0001 is one in ten thousand, each ten-thousandth. What becomes of
	// them neither closes the breaker nor keeps it open longer: they show operators whether the target answers.
	OpenShare float64
	// Probes is how many calls may pass while half-open; when so many succeed it closes, or begins the ramp (0 = 1). One
	// that fails opens it again.
	Probes int
	// RampStep is the share of traffic admitted after the probes, and what is added to it each RampEvery, until all of it
	// is (both 0 = no ramp: it closes at once; one of them 0 = 0.1, or 10 s). Of a share of 1/n each nth call passes. A
	// failure during the ramp counts as while closed, and may open it again; what was counted during the ramp still counts
	// when it has ended.
	RampStep  float64
	RampEvery time.Duration
}

// Trip is an expression that opens a breaker. Two are the same when their texts are.
type Trip struct {
	Text string
	Open func(TripCounts) bool
}

// TripCounts are what a Trip may look at. Requests are counted when they pass, and so may be more than Successes and
// Failures together.
type TripCounts struct{ Requests, Successes, Failures, ConsecutiveSuccesses, ConsecutiveFailures int64 }

// Queue is who waits before a lane's semaphore.
type Queue struct {
	// Full is what becomes of a call that finds MaxQueue calls waiting.
	Full OnFull
	// MaxWait bounds the time in the queue; 0 = the call's deadline does. Who waits so long is shed.
	MaxWait time.Duration
	// PriorityHeader names the header that holds a call's priority, 0 (least) to 9; a call without one, or with one that
	// is no number, has 5, and numbers beyond are taken for the nearest. "" = all calls are alike. Higher ones are served
	// first, equal ones in the order they came.
	PriorityHeader string
	// Target turns on CoDel: while calls have waited longer than Target for all of Interval (0 = 100 ms), the queue is
	// served newest first and those who waited longer than Target are shed ("Controlling Queue Delay", Nichols and
	// Jacobson 2012; adaptive LIFO as in "Fail at Scale", Maurer 2015). 0 = off.
	//
	// The lane looks each time a slot is free, at whoever has waited longest. When it has been longer than Target at each
	// look of an Interval the queue is overloaded: from then on all who have waited longer than Target are shed at each
	// look, whatever their priority, and of the highest priority the newest is served. When nobody had waited longer than
	// Target at any look of an Interval it is served in order again.
	Target, Interval time.Duration
}

// OnFull is what becomes of a call that finds the queue full.
type OnFull string

// The policies of a full queue.
const (
	Refuse     OnFull = ""                     // it is refused at once
	WaitAnyway OnFull = "wait"                 // it waits until its deadline; only the lane's own bound of 16384 holds
	ShedOldest OnFull = "shed-oldest"          // whoever waits longest is shed in its place, whatever its priority
	ShedLowest OnFull = "shed-lowest-priority" // whoever has the lowest priority is, the newest among equals; it may be the one that comes
)

// RateLimit admits so many calls in so much time. A call passes all limits of a policy or takes from none of them. Each
// try counts: a retry must pass them again.
type RateLimit struct {
	// Name of the limit, unique within a policy.
	Name      string
	Algorithm RateAlgorithm
	// Limit calls Per time: at least 1, and at most a million a second.
	Limit int
	Per   time.Duration
	// Burst is how many calls a token bucket holds, or a leaky bucket takes at once (0 = Limit, and 1).
	Burst int
	// MaxWait lets a call wait so long until it conforms, outside the lane and holding no slot; 0 = it is refused. It takes
	// its place when it begins to wait, and has used it even if it goes away. It is refused at once if its deadline would
	// have passed by then. Where several limits let calls wait, each counts a call when the call conforms to it, and the
	// call goes on when it conforms to all.
	MaxWait time.Duration
	// By gives each caller, operation or header value a limit of its own. Calls without one share the limit of the empty
	// value.
	By RateKey
	// Header names the header of ByHeader.
	Header string
	// MaxKeys is how many keys are kept (0 = 1024, at most 65536). A new one that passes takes the place of the one least
	// recently seen, which comes back as if new: a limit by a key that callers may invent bounds each of them only while
	// there are no more than this, and wants one by lane beside it.
	MaxKeys int
	// Global makes the limit one for all sidecars whose lanes have it: each has a share of Limit and Burst that follows its
	// demand. Limits that count in windows give each whole calls, rounded down; a share of less than one call is one call
	// in so many windows. A bucket holds at least one.
	Global bool
	// Answer is what refused calls are answered with; nil = the policy's Fallback or the error.
	Answer *Fallback
}

// RateAlgorithm is how a rate is measured.
type RateAlgorithm string

// The algorithms, and what they admit at most.
const (
	// TokenBucket: in any time t no more than Burst + t·Limit/Per.
	TokenBucket RateAlgorithm = ""
	// LeakyBucket spaces calls by Per/Limit, in whole nanoseconds rounded up, but for Burst at once (the generic cell rate
	// algorithm, ITU-T I.371 annex A). With the same Burst it admits what a token bucket does.
	LeakyBucket RateAlgorithm = "leaky-bucket"
	// FixedWindow: Limit in each window of Per of the clock, counted from 1970 UTC. A window that is not the clock's may
	// see twice as many, at the end of one and the beginning of the next.
	FixedWindow RateAlgorithm = "fixed-window"
	// SlidingLog: Limit in any window of Per, exactly. It keeps the time of each call, and so is bounded: at most 100000
	// calls in a window for one key, and 10 million times for all.
	SlidingLog RateAlgorithm = "sliding-log"
	// SlidingCounter estimates SlidingLog from the counts of two windows that follow each other, as if the calls of the
	// older one had come evenly: that one counts by the part of it which is less than Per ago. It holds the estimate to
	// Limit, so each of its own windows admits at most Limit; where the calls did not come evenly any other window may see
	// more, but always less than twice Limit.
	SlidingCounter RateAlgorithm = "sliding-counter"
)

// RateKey is what a rate limit is kept for.
type RateKey string

// The keys.
const (
	ByLane      RateKey = ""
	ByCaller    RateKey = "caller"
	ByOperation RateKey = "operation"
	ByHeader    RateKey = "header"
)

// Adaptive makes the limit of calls in flight follow the latency that attempts show, between Min and Max.
type Adaptive struct {
	Algorithm AdaptiveAlgorithm
	// Min, Initial and Max of the limit (0 = 4, 20 and MaxInFlight or else 1000).
	Min, Initial, Max int
	// Tolerance is how much slower than at rest attempts may become before the limit falls (0 = 1.5). Give more where the
	// time that attempts take differs much by itself.
	Tolerance float64
}

// AdaptiveAlgorithm is how the limit follows.
type AdaptiveAlgorithm string

// The algorithms, after Netflix's concurrency-limits.
const (
	NotAdaptive AdaptiveAlgorithm = ""
	Gradient    AdaptiveAlgorithm = "gradient" // Gradient2: long-term over short-term latency
	Vegas       AdaptiveAlgorithm = "vegas"    // TCP Vegas: estimated queue from the least latency seen
)

// Protection sheds a share of the calls, those of the lowest priority first, while the sidecar's machine or the lane is
// overloaded. The share grows by a tenth each second in which something is over its threshold, to 95 % at most, and shrinks
// by a twentieth each second in which everything is below nine tenths of it. Calls of priority 9 pass. Each threshold is off
// when 0.
type Protection struct {
	// CPU and Memory are shares of what the machine, or the container, has: 0 to 1.
	CPU, Memory float64
	// QueueDelay is how long the call that has waited longest in the lane's queue may have waited.
	QueueDelay time.Duration
}

// Fallback answers in place of a failure. Exactly one of a Status, an App and LastGood is set.
type Fallback struct {
	// Status, Header and Body are the answer. Header keys are lower case, content-type among them.
	Status int
	Header []HeaderField
	Body   []byte
	// App is another app id to ask, once and without a fallback of its own.
	App string
	// LastGood answers a read with the last good answer to the same request, at most MaxAge old (0 = 1 min), of at most
	// MaxEntries kept (0 = 256).
	LastGood   bool
	MaxAge     time.Duration
	MaxEntries int
	// On narrows which failures it answers; the zero Match means every refusal of the lane and every failure of the target,
	// but not what a target answers to a caller who is wrong.
	On Match
}

// HeaderField is one field of a Fallback's answer.
type HeaderField struct{ Key, Value string }

// Defaults of fields left zero.
const (
	defaultInitial     = 50 * time.Millisecond
	defaultMaxInterval = 5 * time.Second
	defaultMultiplier  = 2
)

// maxHeld bounds what a policy lets run or wait at once: more is no protection, and no sidecar holds it.
const maxHeld = 1_000_000

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
	check(p.MaxInFlight >= 0 && p.MaxInFlight <= maxHeld, "max in flight %d is not within 0 and %d", p.MaxInFlight, maxHeld)
	check(p.MaxQueue >= 0 && p.MaxQueue <= maxHeld, "max queue %d is not within 0 and %d", p.MaxQueue, maxHeld)
	p.AdaptiveTimeout.validate(check)
	p.Mode.validate(p, check)
	p.Retry.validate(check)
	p.Hedge.validate(p, check)
	p.Fallback.validate("fallback", check)
	p.Breaker.validate(check)
	p.Queue.validate(p, check)
	p.Adaptive.validate(check)
	p.Protection.validate(check)
	validateLimits(p.Limits, check)
	p.Pieces.validate(check)
	if len(wrong) == 0 {
		return nil
	}
	return fault.E("policy "+p.Name, fault.Invalid, fault.BadManifest, errors.Join(wrong...))
}

// checker notes what is wrong with a policy.
type checker func(ok bool, format string, args ...any)

// Deadline is when a call that arrives now must have ended: the nearer of its own deadline and the policy's CallTimeout.
// The zero time is no deadline. The machine applies it; a driver asks it how long to wait.
func (p *Policy) Deadline(now time.Time, call *Call) time.Time {
	if call.Decided.Timeout {
		return call.Deadline
	}
	if call.InPieces && p.Pieces != nil {
		return sooner(call.Deadline, now, p.Pieces.CallTimeout)
	}
	return sooner(call.Deadline, now, p.CallTimeout)
}

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
	p.AdaptiveTimeout = p.AdaptiveTimeout.settled(p.AttemptTimeout)
	p.Retry = p.Mode.apply(p.Retry).settled()
	p.Hedge = p.Hedge.settled()
	p.Breaker = p.Breaker.settled()
	p.Queue = p.Queue.settled()
	p.Limits = settledLimits(p.Limits)
	p.Adaptive = p.Adaptive.settled(p.MaxInFlight)
	p.Protection = p.Protection.settled()
	return p
}
