package governance

import (
	"slices"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// Dapr's defaults for what a policy leaves out, from github.com/dapr/kit/retry and github.com/sony/gobreaker.
const (
	constantWait    = 5 * time.Second
	firstWait       = 500 * time.Millisecond
	longestWait     = time.Minute
	growth          = 1.5
	spread          = .5
	retryWithin     = 15 * time.Minute // of growing policies, the first attempt included
	openFor         = time.Minute
	failuresToOpen  = 6 // in a row
	rampStep        = .1
	rampEvery       = 10 * time.Second
	usualOpenShare  = .0001
	defaultRateTime = time.Second
)

// at once: a wait of zero means the default to a lane.
const noWait = time.Nanosecond

func (t timeoutSpec) settings() timeouts {
	s := timeouts{call: time.Duration(t.Call), attempt: time.Duration(t.Attempt)}
	if a := t.Adaptive; a != nil {
		s.adaptive = resiliency.AdaptiveTimeout{
			Quantile: float64(a.Quantile), Multiplier: a.Multiplier, MinCalls: a.MinCalls,
			Min: time.Duration(a.Min), Max: time.Duration(a.Max),
		}
		if a.Quantile == 0 {
			s.adaptive.Quantile = .999
		}
	}
	return s
}

// settings are those of Dapr for the policies it has: a failure of any kind is tried again, whether or not the call was
// sent, as often as the caller's patience allows; growing policies end after 15 minutes.
func (r retrySpec) settings() retries {
	s := retries{Retry: resiliency.Retry{Max: -1, NonIdempotent: true, On: retryMatch(r.Matching), Elsewhere: r.Elsewhere}}
	if r.MaxRetries != nil {
		s.Max = *r.MaxRetries
	}
	if r.NonIdempotent != nil {
		s.NonIdempotent, s.ByVerb = *r.NonIdempotent, !*r.NonIdempotent
	}
	if b := r.Budget; b != nil {
		s.Budget = resiliency.Budget{Share: float64(b.Share), PerSecond: b.PerSecond}
	}
	switch r.Policy {
	case "", "constant":
		s.Backoff, s.Initial = resiliency.Constant, max(or(r.Duration, constantWait), noWait)
		s.MaxInterval = s.Initial
	default:
		s.Initial = max(or(r.InitialInterval, firstWait), noWait)
		s.MaxInterval = max(or(r.MaxInterval, longestWait), noWait)
		s.Initial = min(s.Initial, s.MaxInterval)
		s.Multiplier, s.within = growth, retryWithin
		if r.Multiplier > 0 {
			s.Multiplier = r.Multiplier
		}
		switch r.Policy {
		case "exponential":
			s.Jitter = spread
		case "full-jitter":
			s.Backoff = resiliency.FullJitter
		case "decorrelated":
			s.Backoff = resiliency.Decorrelated
		}
	}
	if r.Jitter != nil {
		s.Jitter = float64(*r.Jitter)
	}
	return s
}

// modeRetries are those of a failure mode that tries again and stands alone, as often and as late as the mode has it. Dapr has
// no failure modes, so Dapr's way of repeating all calls is not theirs: whoever wants it writes a retry.
func modeRetries() retries {
	return retries{Retry: resiliency.Retry{ByVerb: true, On: passing()}}
}

// passing are the failures that may pass: the target's own, also in an app's answer, and refusals for want of room.
func passing() resiliency.Match {
	on := resiliency.Match{Kinds: []fault.Kind{fault.Unavailable, fault.Timeout, fault.Tripped, fault.Internal}}
	for _, e := range fault.Reasons() {
		if e.Kind == fault.Exhausted && e.NotSent {
			on.Reasons = append(on.Reasons, e.Reason)
		}
	}
	return on
}

func or(given *duration, otherwise time.Duration) time.Duration {
	if given != nil {
		return time.Duration(*given)
	}
	return otherwise
}

// retryMatch is what Dapr tries again: without a match everything; with the statuses of a protocol, those, and all failures
// that are no answer of that protocol.
func retryMatch(m *matchSpec) resiliency.Match {
	on := m.match()
	if len(on.Kinds)+len(on.Reasons) == 0 {
		on.Kinds = anyKind()
	}
	return on
}

func anyKind() []fault.Kind {
	return slices.DeleteFunc(fault.Kinds(), func(k fault.Kind) bool { return k == fault.None || k == fault.Canceled })
}

func anyButConflict() []fault.Kind {
	return slices.DeleteFunc(anyKind(), func(k fault.Kind) bool { return k == fault.Conflict })
}

func (m *matchSpec) match() resiliency.Match {
	if m == nil {
		return resiliency.Match{}
	}
	on := resiliency.Match{Codes: m.GRPCStatusCodes, Statuses: m.HTTPStatusCodes}
	for _, name := range m.Kinds {
		if kind, ok := fault.KindNamed(name); ok {
			on.Kinds = append(on.Kinds, kind)
		}
	}
	for _, name := range m.Reasons {
		on.Reasons = append(on.Reasons, fault.Reason(name))
	}
	return on
}

// settings are those of Dapr unless an extension is used: it closes at once after its probes.
func (b breakerSpec) settings() resiliency.Breaker {
	s := resiliency.Breaker{
		Failures: b.Failures, Ratio: float64(b.FailureRatio), SlowRatio: float64(b.SlowRatio), SlowAfter: time.Duration(b.SlowAfter),
		WindowCalls: b.WindowCalls, WindowTime: time.Duration(b.Window), MinCalls: b.MinCalls,
		Interval: time.Duration(b.Interval), Trip: b.Trip.Trip, OpenFor: openFor, OpenShare: float64(b.OpenShare),
		Probes: max(b.MaxRequests, 1),
	}
	if b.Timeout > 0 {
		s.OpenFor = time.Duration(b.Timeout)
	}
	if s.Failures == 0 && s.Ratio == 0 && s.SlowRatio == 0 && s.Trip == nil {
		s.Failures = failuresToOpen
	}
	if r := b.Ramp; r != nil {
		s.RampStep, s.RampEvery = rampStep, rampEvery
		if r.Step > 0 {
			s.RampStep = float64(r.Step)
		}
		if r.Every > 0 {
			s.RampEvery = time.Duration(r.Every)
		}
	}
	return s
}

func (l rateLimitSpec) settings(name string) resiliency.RateLimit {
	s := resiliency.RateLimit{
		Name: name, Algorithm: resiliency.RateAlgorithm(l.Algorithm), Limit: l.Limit, Per: time.Duration(l.Per), Burst: l.Burst,
		MaxWait: time.Duration(l.MaxWait), By: resiliency.RateKey(l.By), Header: strings.ToLower(l.Header), MaxKeys: l.MaxKeys,
		Global: l.Scope == "global",
	}
	if l.Algorithm == "token-bucket" {
		s.Algorithm = resiliency.TokenBucket
	}
	if s.Per == 0 {
		s.Per = defaultRateTime
	}
	return s
}

func (c concurrencySpec) settings() concurrency {
	s := concurrency{inFlight: c.MaxInFlight, queue: c.MaxQueue}
	if q := c.Queue; q != nil {
		s.rules = &resiliency.Queue{
			Full: resiliency.OnFull(q.Full), MaxWait: time.Duration(q.MaxWait), PriorityHeader: strings.ToLower(q.PriorityHeader),
			Target: time.Duration(q.Target), Interval: time.Duration(q.Interval),
		}
		if q.Full == "refuse" {
			s.rules.Full = resiliency.Refuse
		}
	}
	if a := c.Adaptive; a != nil {
		s.adaptive = &resiliency.Adaptive{
			Algorithm: resiliency.Gradient, Min: a.Min, Initial: a.Initial, Max: a.Max, Tolerance: a.Tolerance,
		}
		if a.Algorithm != "" {
			s.adaptive.Algorithm = resiliency.AdaptiveAlgorithm(a.Algorithm)
		}
	}
	return s
}

func (p protectionSpec) settings() resiliency.Protection {
	return resiliency.Protection{CPU: float64(p.CPU), Memory: float64(p.Memory), QueueDelay: time.Duration(p.QueueDelay)}
}

func (h hedgeSpec) settings() resiliency.Hedge {
	return resiliency.Hedge{After: time.Duration(h.After), Max: h.Max}
}

// plainText is the content type of an answer whose author gave none.
const plainText = "text/plain; charset=utf-8"

func (f fallbackSpec) settings() *resiliency.Fallback {
	s := &resiliency.Fallback{Status: f.Status, App: f.App, On: f.On.match()}
	if g := f.LastGood; g != nil {
		s.LastGood, s.MaxAge, s.MaxEntries = true, time.Duration(g.MaxAge), g.MaxEntries
	}
	if f.Status == 0 {
		return s
	}
	s.Body = []byte(f.Body)
	for key, value := range f.Headers {
		s.Header = append(s.Header, resiliency.HeaderField{Key: strings.ToLower(key), Value: value})
	}
	s.Header = withContentType(s.Header, s.Body)
	return s
}

// withContentType puts header fields in order and says what the body is.
func withContentType(fields []resiliency.HeaderField, body []byte) []resiliency.HeaderField {
	if len(body) > 0 && !slices.ContainsFunc(fields, func(f resiliency.HeaderField) bool { return f.Key == "content-type" }) {
		fields = append(fields, resiliency.HeaderField{Key: "content-type", Value: plainText})
	}
	slices.SortStableFunc(fields, func(a, b resiliency.HeaderField) int { return strings.Compare(a.Key, b.Key) })
	return fields
}
