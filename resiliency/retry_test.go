package resiliency

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
)

var retryKeys = map[string]policyKey{
	"retry":          func(t *testing.T, p *Policy, v string) { p.Retry.Max = number(t, v) },
	"initial":        func(t *testing.T, p *Policy, v string) { p.Retry.Initial = duration(t, v) },
	"max-interval":   func(t *testing.T, p *Policy, v string) { p.Retry.MaxInterval = duration(t, v) },
	"backoff":        func(_ *testing.T, p *Policy, v string) { p.Retry.Backoff = Backoff(v) },
	"by-verb":        func(_ *testing.T, p *Policy, v string) { p.Retry.ByVerb = v == "true" },
	"lost":           func(_ *testing.T, p *Policy, v string) { p.Retry.Lost = v == "true" },
	"non-idempotent": func(_ *testing.T, p *Policy, v string) { p.Retry.NonIdempotent = v == "true" },
	"mode":           func(_ *testing.T, p *Policy, v string) { p.Mode = FailureMode(v) },
	"on-statuses":    func(t *testing.T, p *Policy, v string) { p.Retry.On.Statuses = rangesOf(t, v) },
	"on-codes":       func(t *testing.T, p *Policy, v string) { p.Retry.On.Codes = rangesOf(t, v) },
	"not-here":       func(_ *testing.T, p *Policy, v string) { p.Retry.NotHere = []fault.Reason{fault.Reason(v)} },
	"on-reasons": func(_ *testing.T, p *Policy, v string) {
		for _, reason := range strings.Split(v, ",") {
			p.Retry.On.Reasons = append(p.Retry.On.Reasons, fault.Reason(reason))
		}
	},
	"on-kinds": func(t *testing.T, p *Policy, v string) {
		for _, name := range strings.Split(v, ",") {
			kind, ok := fault.KindNamed(name)
			if !ok {
				t.Fatalf("no such kind: %s", name)
			}
			p.Retry.On.Kinds = append(p.Retry.On.Kinds, kind)
		}
	},
	"budget": func(t *testing.T, p *Policy, v string) {
		share, perSecond, _ := strings.Cut(v, "+")
		p.Retry.Budget = Budget{Share: fraction(t, share), PerSecond: fraction(t, perSecond)}
	},
	"hedge":  func(t *testing.T, p *Policy, v string) { p.Hedge.After = duration(t, v) },
	"hedges": func(t *testing.T, p *Policy, v string) { p.Hedge.Max = number(t, v) },
	"adaptive-timeout": func(t *testing.T, p *Policy, v string) {
		p.AdaptiveTimeout = AdaptiveTimeout{Quantile: fraction(t, v), MinCalls: 4, Multiplier: 2}
	},
}

// rangesOf reads `500-599,429`.
func rangesOf(t *testing.T, s string) (list []Range) {
	for _, part := range strings.Split(s, ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		list = append(list, Range{number(t, first), number(t, last)})
	}
	return list
}

// TestBackoffs: each wait is within what its strategy says, and random ones do vary.
func TestBackoffs(t *testing.T) {
	failure := fault.New("op", fault.NoResponders, "gone")
	rapid.Check(t, func(t *rapid.T) {
		backoff := rapid.SampledFrom([]Backoff{Exponential, Constant, FullJitter, Decorrelated}).Draw(t, "backoff")
		initial := time.Duration(rapid.IntRange(1, 1000).Draw(t, "initial")) * time.Millisecond
		most := initial * time.Duration(rapid.IntRange(1, 50).Draw(t, "most"))
		p := Policy{Retry: Retry{Max: -1, Backoff: backoff, Initial: initial, MaxInterval: most}}.settled()
		turn := new(Turn)
		turn.Begin(Call{Op: "op"}, nil)
		pure, before := initial, initial
		for n := range 40 {
			wait, ok := p.again(epoch, turn, failure, false)
			if !ok {
				t.Fatal("stopped by itself")
			}
			low, high := pure, pure
			switch backoff {
			case FullJitter:
				low = 0
			case Decorrelated:
				low, high = initial, min(3*before, most)
			case Constant:
				low, high = initial, initial
			}
			if wait < low-1 || wait > high+1 {
				t.Fatalf("wait %d of %q is %v, not within %v and %v", n, backoff, wait, low, high)
			}
			before, pure = max(wait, initial), min(pure*2, most)
		}
	})
}

// TestBudgetHoldsInEveryWindow: whatever the traffic, the retries of any ten seconds (told to the second) are no more than
// the share of their calls and the constant allow.
func TestBudgetHoldsInEveryWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := Budget{
			Share:     rapid.SampledFrom([]float64{0, .1, .5, 1}).Draw(t, "share"),
			PerSecond: rapid.SampledFrom([]float64{0, .3, 2}).Draw(t, "per second"),
		}
		b := budget{rule: rule}
		var calls, spent [200]int
		second := 0
		for range rapid.IntRange(1, 300).Draw(t, "events") {
			second = min(second+rapid.SampledFrom([]int{0, 0, 0, 0, 1, 3, 30}).Draw(t, "later"), len(calls)-1)
			now := epoch.Add(time.Duration(second) * time.Second)
			if rapid.Bool().Draw(t, "call") {
				b.call(now)
				calls[second]++
				continue
			}
			within, extra := 0, 0
			for s := max(second-budgetSlots+1, 0); s <= second; s++ {
				within += calls[s]
				extra += spent[s]
			}
			may := float64(extra+1) <= rule.Share*float64(within)+rule.PerSecond*budgetSlots
			if rule == (Budget{}) {
				may = true
			}
			if got := b.spend(now); got != may {
				t.Fatalf("second %d: %d retries of %d calls, one more is allowed: %v", second, extra, within, got)
			}
			if may {
				spent[second]++
			}
		}
	})
}

// TestAdaptiveTimeoutFollowsTheQuantile: after enough attempts the bound is the stretched quantile, to the precision of
// the histogram, and one second later it knows of a target that became slower.
func TestAdaptiveTimeoutFollowsTheQuantile(t *testing.T) {
	var s stopwatch
	s.setRule(AdaptiveTimeout{Quantile: .99}.settled(0))
	now := epoch
	for i := range 1000 {
		s.observe(now, time.Duration(i+1)*time.Millisecond, nil)
	}
	if got := s.timeout(now, 0); got < 1450*time.Millisecond || got > 1520*time.Millisecond {
		t.Errorf("the timeout is %v after 1…1000 ms", got)
	}
	for range 10000 {
		s.observe(now, 4*time.Second, fault.New("op", fault.AttemptTimeout, "late"))
	}
	if got := s.timeout(now.Add(time.Second), 0); got < 5900*time.Millisecond || got > 6100*time.Millisecond {
		t.Errorf("the timeout is %v after many of 4 s", got)
	}
	for range 100 {
		s.observe(now.Add(2*watchWindow), time.Millisecond, errors.New("refused"))
	}
	if got := s.timeout(now.Add(2*watchWindow), 7*time.Second); got != 6*time.Second && got < 5900*time.Millisecond {
		t.Errorf("failures that took no time made the timeout %v", got)
	}
}

// TestFallbackFor: which failures a fallback answers.
func TestFallbackFor(t *testing.T) {
	own := &Fallback{Status: 429}
	plain := Policy{Fallback: &Fallback{Status: 200}}
	limited := Policy{Limits: []RateLimit{{Name: "l", Answer: own}}, Fallback: plain.Fallback}
	refused := New("lane", limited)
	refusal := refused.rateLimited(&Turn{}, &limited.Limits[0], time.Second)
	for name, c := range map[string]struct {
		policy Policy
		err    error
		want   *Fallback
	}{
		"a failure":                      {plain, fault.New("op", fault.AppFailed, "x"), plain.Fallback},
		"a refusal":                      {plain, fault.New("op", fault.QueueFull, "x"), plain.Fallback},
		"an open breaker":                {plain, fault.New("op", fault.BreakerOpen, "x"), plain.Fallback},
		"a deadline":                     {plain, fault.New("op", fault.DeadlineExceeded, "x"), plain.Fallback},
		"a caller who is wrong":          {plain, fault.New("op", fault.HandlerNotFound, "x"), nil},
		"a caller who is gone":           {plain, fault.New("op", fault.CallCanceled, "x"), nil},
		"nothing configured":             {Policy{}, fault.New("op", fault.AppFailed, "x"), nil},
		"the limit's own answer":         {limited, refusal, own},
		"explained":                      {limited, Explain("lane", "p", "op", 0, refusal), own},
		"after a failure":                {limited, NotRetried(fault.New("op", fault.AppFailed, "x"), refusal), own},
		"another lane's limit":           {limited, fault.New("op", fault.RateLimited, "x").With("limit", "l"), plain.Fallback},
		"a status that On names":         {on(Match{Statuses: []Range{{404, 404}}}), statusError(404), on(Match{}).Fallback},
		"a status that On does not name": {on(Match{Statuses: []Range{{404, 404}}}), statusError(503), nil},
		"a reason that On names":         {on(Match{Reasons: []fault.Reason{fault.BreakerOpen}}), fault.New("op", fault.BreakerOpen, "x"), on(Match{}).Fallback},
		"a reason that On does not name": {on(Match{Reasons: []fault.Reason{fault.BreakerOpen}}), fault.New("op", fault.AppFailed, "x"), nil},
	} {
		got := c.policy.FallbackFor(c.err)
		if (got == nil) != (c.want == nil) || got != nil && got.Status != c.want.Status {
			t.Errorf("%s: answered with %+v, want %+v", name, got, c.want)
		}
	}
}

func on(m Match) Policy { return Policy{Fallback: &Fallback{Status: 200, On: m}} }

func statusError(status int) error {
	return fmt.Errorf("attempt: %w", fault.E("op", fault.KindFromHTTP(status), fault.AppFailed, httpStatus(status)))
}

func TestNothingFollowsAFinalFailure(t *testing.T) {
	p := &Policy{Retry: Retry{Max: 3, NonIdempotent: true}}
	failed := fault.New("call", fault.InstanceLost, "gone")
	if _, again := p.again(time.Time{}, &Turn{}, failed, true); !again {
		t.Fatal("nothing follows any failure")
	}
	for _, err := range []error{Final{Err: failed}, fmt.Errorf("wrapped: %w", Final{Err: failed}), NotRetried(Final{Err: failed}, failed)} {
		if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != fault.InstanceLost {
			t.Errorf("%v has lost its kind", err)
		}
	}
	if _, again := p.again(time.Time{}, &Turn{}, fmt.Errorf("wrapped: %w", Final{Err: failed}), true); again {
		t.Error("an attempt follows")
	}
}
