package resiliency

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/sidecast/sidecast/fault"
)

// Defaults of an AdaptiveTimeout, and how it looks back.
const (
	defaultStretch     = 1.5
	defaultMinTimeout  = 10 * time.Millisecond
	defaultMaxTimeout  = 30 * time.Second
	defaultMinAttempts = 100

	watchWindow  = 30 * time.Second // it looks back one to two of these
	watchRefresh = time.Second      // how old its answer may be
	watchMost    = time.Hour        // longer attempts count as this long
)

// stopwatch learns how long attempts take and bounds the next by it. It keeps two histograms (HdrHistogram, Tene; two
// significant digits) and drops the older one every watchWindow. It learns from attempts that succeeded, and from those
// that ran into their timeout: when more than its share does, the quantile is the timeout itself, so that the bound grows
// by Multiplier again and again until it fits a target that became slower.
type stopwatch struct {
	rule        AdaptiveTimeout
	young, old  *hdrhistogram.Histogram // nil until the rule is on
	both        *hdrhistogram.Histogram // room to add them up
	turned      time.Time               // when young became so
	asked       time.Time               // when bound was computed
	bound       time.Duration
	seen, knows int64 // attempts in young; attempts that bound is made of
}

func (s *stopwatch) setRule(rule AdaptiveTimeout) {
	if rule == s.rule {
		return
	}
	*s = stopwatch{rule: rule}
	if rule.Quantile > 0 {
		s.young, s.old, s.both = newTimes(), newTimes(), newTimes()
	}
}

func newTimes() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(watchMost/time.Microsecond), 2)
}

// observe learns from an attempt that ended with err.
func (s *stopwatch) observe(now time.Time, took time.Duration, err error) {
	if s.young == nil || err != nil && fault.KindOf(err) != fault.Timeout {
		return
	}
	if now.Sub(s.turned) >= watchWindow {
		s.turned = now
		s.young, s.old = s.old, s.young
		s.young.Reset()
		s.seen = 0
	}
	_ = s.young.RecordValue(int64(min(max(took, 0), watchMost) / time.Microsecond))
	s.seen++
}

// timeout is how long the next attempt may take; otherwise when too few were seen.
func (s *stopwatch) timeout(now time.Time, otherwise time.Duration) time.Duration {
	if s.young == nil {
		return otherwise
	}
	if now.Sub(s.asked) >= watchRefresh || s.knows < int64(s.rule.MinCalls) && s.seen >= int64(s.rule.MinCalls) {
		s.asked = now
		s.both.Reset()
		s.both.Merge(s.young)
		s.both.Merge(s.old)
		s.knows = s.both.TotalCount()
		quantile := time.Duration(s.both.ValueAtQuantile(s.rule.Quantile*100)) * time.Microsecond
		s.bound = min(max(time.Duration(float64(quantile)*s.rule.Multiplier), s.rule.Min), s.rule.Max)
	}
	if s.knows < int64(s.rule.MinCalls) {
		return otherwise
	}
	return s.bound
}

func (a AdaptiveTimeout) validate(check checker) {
	check(a.Quantile >= 0 && a.Quantile < 1, "adaptive timeout quantile %v is not within 0 and 1 (the p99.9 is 0.999)", a.Quantile)
	check(a.Multiplier == 0 || a.Multiplier >= 1, "adaptive timeout multiplier %v is less than 1", a.Multiplier)
	check(a.Min >= 0, "adaptive timeout min %v is negative", a.Min)
	check(a.Max >= 0, "adaptive timeout max %v is negative", a.Max)
	check(a.Max == 0 || a.Min <= a.Max, "adaptive timeout min %v is longer than its max %v", a.Min, a.Max)
	check(a.MinCalls >= 0, "adaptive timeout min calls %d is negative", a.MinCalls)
}

func (a AdaptiveTimeout) settled(attempt time.Duration) AdaptiveTimeout {
	if a.Quantile <= 0 {
		return AdaptiveTimeout{}
	}
	a.Quantile = min(a.Quantile, 1)
	if a.Multiplier < 1 {
		a.Multiplier = defaultStretch
	}
	if a.Min <= 0 {
		a.Min = defaultMinTimeout
	}
	if a.Max <= 0 {
		a.Max = defaultMaxTimeout
		if attempt > 0 {
			a.Max = attempt
		}
	}
	a.Min = min(a.Min, a.Max)
	if a.MinCalls <= 0 {
		a.MinCalls = defaultMinAttempts
	}
	return a
}
