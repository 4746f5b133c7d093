package resiliency

import (
	"strings"
	"testing"
)

var breakerKeys = map[string]policyKey{
	"failures":     func(t *testing.T, p *Policy, v string) { p.Breaker.Failures = number(t, v) },
	"ratio":        func(t *testing.T, p *Policy, v string) { p.Breaker.Ratio = fraction(t, v) },
	"slow-ratio":   func(t *testing.T, p *Policy, v string) { p.Breaker.SlowRatio = fraction(t, v) },
	"slow-after":   func(t *testing.T, p *Policy, v string) { p.Breaker.SlowAfter = duration(t, v) },
	"window-calls": func(t *testing.T, p *Policy, v string) { p.Breaker.WindowCalls = number(t, v) },
	"window-time":  func(t *testing.T, p *Policy, v string) { p.Breaker.WindowTime = duration(t, v) },
	"min-calls":    func(t *testing.T, p *Policy, v string) { p.Breaker.MinCalls = number(t, v) },
	"interval":     func(t *testing.T, p *Policy, v string) { p.Breaker.Interval = duration(t, v) },
	"trip":         func(t *testing.T, p *Policy, v string) { p.Breaker.Trip = trips[v] },
	"open-for":     func(t *testing.T, p *Policy, v string) { p.Breaker.OpenFor = duration(t, v) },
	"open-share":   func(t *testing.T, p *Policy, v string) { p.Breaker.OpenShare = fraction(t, v) },
	"probes":       func(t *testing.T, p *Policy, v string) { p.Breaker.Probes = number(t, v) },
	"ramp-step":    func(t *testing.T, p *Policy, v string) { p.Breaker.RampStep = fraction(t, v) },
	"ramp-every":   func(t *testing.T, p *Policy, v string) { p.Breaker.RampEvery = duration(t, v) },
}

// trips are the expressions that scripts may write.
var trips = map[string]*Trip{
	"failures>1":   {"failures > 1", func(c TripCounts) bool { return c.Failures > 1 }},
	"requests>3":   {"requests > 3", func(c TripCounts) bool { return c.Requests > 3 }},
	"successes==2": {"successes == 2", func(c TripCounts) bool { return c.Successes == 2 && c.ConsecutiveSuccesses == 0 }},
}

// TestBreakerRuleSame: two rules are the same when they say the same, whoever compiled their expressions.
func TestBreakerRuleSame(t *testing.T) {
	trip := func(text string) Breaker { return Breaker{Trip: &Trip{text, func(TripCounts) bool { return true }}} }
	for _, c := range []struct {
		a, b Breaker
		same bool
	}{
		{Breaker{Failures: 1}, Breaker{Failures: 1}, true},
		{Breaker{Failures: 1}, Breaker{Failures: 2}, false},
		{trip("a"), trip("a"), true},
		{trip("a"), trip("b"), false},
		{trip("a"), Breaker{}, false},
		{Breaker{}, trip("a"), false},
	} {
		if c.a.same(c.b) != c.same {
			t.Errorf("%+v and %+v: same is %v", c.a, c.b, !c.same)
		}
	}
}

func TestBreakerValidate(t *testing.T) {
	good := Breaker{
		Failures: 1, Ratio: 1, SlowRatio: .5, SlowAfter: 1, WindowCalls: 10, MinCalls: 10, Interval: 1, OpenFor: 1,
		OpenShare: .0001, Probes: 3, RampStep: .1, RampEvery: 1, Trip: trips["failures>1"],
	}
	if err := (Policy{Breaker: good}).Validate(); err != nil {
		t.Fatal(err)
	}
	for want, b := range map[string]Breaker{
		"failures -1 is negative":               {Failures: -1},
		"breaker ratio 1.5 is not within":       {Ratio: 1.5},
		"breaker slow ratio -1 is not within":   {SlowRatio: -1, SlowAfter: 1},
		"needs slow after":                      {SlowRatio: .5},
		"no effect without a slow ratio":        {SlowAfter: 1},
		"slow after -1ns is negative":           {SlowRatio: .5, SlowAfter: -1},
		"window of -1 calls is not within":      {Ratio: 1, WindowCalls: -1},
		"window of 1048577 calls is not within": {Ratio: 1, WindowCalls: 1048577},
		"window time -1ns is negative":          {Ratio: 1, WindowTime: -1},
		"not both":                              {Ratio: 1, WindowCalls: 1, WindowTime: 1},
		"min calls -1 is negative":              {Ratio: 1, MinCalls: -1},
		"more than its window of 5 calls":       {Ratio: 1, MinCalls: 6, WindowCalls: 5},
		"without a ratio or a slow ratio":       {Failures: 1, WindowCalls: 1},
		"interval -1ns is negative":             {Interval: -1},
		"trip expression has no meaning":        {Trip: &Trip{Text: "true"}},
		"open time -1ns is negative":            {OpenFor: -1},
		"open share 2 is not within":            {OpenShare: 2},
		"probes -1 is negative":                 {Probes: -1},
		"ramp step -0.1 is not within":          {RampStep: -.1},
		"ramp interval -1ns is negative":        {RampEvery: -1},
	} {
		if err := (Policy{Breaker: b}).Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", b, err, want)
		}
	}
}
