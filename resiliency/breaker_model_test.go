package resiliency

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawBreaker(t *rapid.T) Breaker {
	b := Breaker{
		Failures:  rapid.IntRange(0, 4).Draw(t, "failures"),
		Ratio:     rapid.SampledFrom([]float64{0, 0, .5, .75, 1}).Draw(t, "ratio"),
		Interval:  rapid.SampledFrom([]time.Duration{0, 0, 3 * time.Second}).Draw(t, "interval"),
		Trip:      rapid.SampledFrom([]*Trip{nil, nil, trips["failures>1"], trips["requests>3"]}).Draw(t, "trip"),
		OpenFor:   time.Second,
		OpenShare: rapid.SampledFrom([]float64{0, 0, .3}).Draw(t, "open share"),
		Probes:    rapid.IntRange(1, 3).Draw(t, "probes"),
		RampStep:  rapid.SampledFrom([]float64{0, .1, .3, .25, 1}).Draw(t, "ramp step"),
		RampEvery: rapid.SampledFrom([]time.Duration{0, 900 * time.Millisecond}).Draw(t, "ramp every"),
	}
	if rapid.Bool().Draw(t, "slow") {
		b.SlowRatio, b.SlowAfter = .6, time.Second
	}
	if b.Ratio > 0 || b.SlowRatio > 0 {
		b.MinCalls = rapid.IntRange(1, 5).Draw(t, "min calls")
		if rapid.Bool().Draw(t, "by calls") {
			b.WindowCalls = rapid.IntRange(b.MinCalls, 8).Draw(t, "window")
		} else {
			b.WindowTime = 5 * time.Second
		}
	}
	return b
}

// TestBreakerModel holds the breaker to a reference that keeps the whole history of each era and derives all from it.
func TestBreakerModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := drawBreaker(t)
		if err := (Policy{Breaker: rule}).Validate(); err != nil {
			t.Fatal(err)
		}
		rule = rule.settled()
		var b breaker
		b.setRule(rule)
		now := epoch
		ref := reference{rule: rule}
		var out []pass
		var steps stepMeter
		call := func(t *rapid.T) {
			era, ok := b.admit(now)
			if want := ref.admit(now); ok != want {
				t.Fatalf("admitted=%v, reference %v", ok, want)
			}
			steps.see(t, &ref, now, ok)
			if ok {
				out = append(out, pass{era, ref.passed()})
			}
		}
		settle := func(i int, e effect, took time.Duration) {
			b.settle(now, out[i].real, e, took, errors.New("it failed"))
			ref.settle(now, out[i].model, heard{now, e, took})
			out = slices.Delete(out, i, i+1)
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if b.state != ref.state {
					t.Fatalf("breaker is %v, reference %v", b.state, ref.state)
				}
				if w := len(ref.window(now)); b.state == closed && rule.WindowCalls > 0 && b.window.total.calls != w {
					t.Fatalf("window holds %d, reference %d", b.window.total.calls, w)
				}
			},
			"time":  func(t *rapid.T) { now = now.Add(rapid.SampledFrom(pauses).Draw(t, "pause")) },
			"call":  call,
			"calls": func(t *rapid.T) { call(t); call(t); call(t); call(t); call(t) },
			"settle": func(t *rapid.T) {
				if len(out) == 0 {
					t.Skip("none out")
				}
				i := rapid.IntRange(0, len(out)-1).Draw(t, "which")
				e := rapid.SampledFrom([]effect{neither, good, bad, bad}).Draw(t, "effect")
				settle(i, e, rapid.SampledFrom([]time.Duration{0, 0, time.Second}).Draw(t, "took"))
			},
			"fail": func(t *rapid.T) {
				for range 4 {
					call(t)
				}
				for len(out) > 0 {
					settle(0, bad, 0)
				}
			},
			"recover": func(t *rapid.T) {
				if ref.state != open {
					t.Skip("not open")
				}
				now = now.Add(rule.OpenFor)
				for range rule.Probes {
					call(t)
				}
				for len(out) > 0 {
					settle(len(out)-1, good, 0)
				}
			},
			"force": func(t *rapid.T) {
				to := rapid.SampledFrom([]Forced{NotForced, NotForced, NotForced, ForcedOpen, ForcedClosed}).Draw(t, "to")
				b.force(to)
				ref.force(to)
			},
			"policy": func(t *rapid.T) { b.setRule(rule) },
		})
	})
}

var pauses = []time.Duration{time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond, 2 * time.Second, 6 * time.Second}

type pass struct {
	real  uint64
	model int
}

// stepMeter checks that within each step of a ramp the calls that pass are its share of those that ask, give or take one.
type stepMeter struct {
	era             int
	share           float64
	asked, admitted float64
}

func (s *stepMeter) see(t *rapid.T, ref *reference, now time.Time, ok bool) {
	if ref.state != ramping || ref.forced {
		return
	}
	if share := ref.share(now); s.era != ref.era || s.share != share {
		*s = stepMeter{era: ref.era, share: share}
	}
	if s.asked++; ok {
		s.admitted++
	}
	if off := s.admitted - s.share*s.asked; off > 1.001 || off < -1.001 {
		t.Fatalf("%v of %v calls passed a share of %v", s.admitted, s.asked, s.share)
	}
}

// reference is a breaker told as history: what was heard in this era, and how many of its passes there were.
type reference struct {
	rule    Breaker
	state   breakerState
	forced  bool
	closes  bool // forced closed
	era     int
	history []heard // neither is left out
	out     int     // passes not heard of yet
	since   time.Time
	looked  time.Time // at the counts for the first time in this era
	owed    float64   // sum of the shares of all that asked
}

type heard struct {
	at     time.Time
	effect effect
	took   time.Duration
}

func (r *reference) become(s breakerState, now time.Time) {
	*r = reference{rule: r.rule, state: s, forced: r.forced, closes: r.closes, era: r.era + 1, since: now}
}

func (r *reference) force(to Forced) {
	forced, closes := to != NotForced, to == ForcedClosed
	if forced == r.forced && closes == r.closes {
		return
	}
	r.forced, r.closes = forced, closes
	r.become(closed, time.Time{})
}

// look lets happen what time does.
func (r *reference) look(now time.Time) {
	switch {
	case r.state == open && now.Sub(r.since) >= r.rule.OpenFor:
		r.become(halfOpen, now)
	case r.state == ramping && r.share(now) >= 1:
		r.state = closed
	}
	if r.rule.Interval == 0 || r.state == open || r.state == halfOpen {
		return
	}
	if !r.looked.IsZero() && now.Sub(r.looked) > r.rule.Interval {
		r.history, r.out, r.era, r.looked = nil, 0, r.era+1, time.Time{}
	}
	if r.looked.IsZero() {
		r.looked = now
	}
}

func (r *reference) share(now time.Time) float64 {
	steps := math.Floor(float64(now.Sub(r.since)) / float64(r.rule.RampEvery))
	return min(math.Round(1e6*r.rule.RampStep*(1+steps))/1e6, 1)
}

// passed is the era of a call that passes, -1 when nobody will hear of it.
func (r *reference) passed() int {
	if r.forced || r.state == open {
		return -1
	}
	return r.era
}

func (r *reference) on() bool {
	return r.rule.Failures > 0 || r.rule.Ratio > 0 || r.rule.SlowRatio > 0 || r.rule.Trip != nil
}

func (r *reference) admit(now time.Time) bool {
	if r.forced || !r.on() {
		return r.closes || !r.forced
	}
	r.look(now)
	ok := true
	switch r.state {
	case open:
		return r.sift(r.rule.OpenShare)
	case halfOpen:
		ok = r.out+len(r.history) < r.rule.Probes
	case ramping:
		ok = r.sift(r.share(now))
	}
	if ok {
		r.out++
	}
	return ok
}

// sift passes each call that completes a whole one.
func (r *reference) sift(share float64) bool {
	before := math.Floor(r.owed + 1e-6)
	r.owed += share
	return math.Floor(r.owed+1e-6) > before
}

func (r *reference) settle(now time.Time, era int, h heard) {
	if era < 0 || !r.on() {
		return
	}
	r.look(now)
	if era != r.era {
		return
	}
	if r.out--; h.effect == neither {
		return
	}
	r.history = append(r.history, h)
	switch {
	case r.state == halfOpen && (h.effect == bad || r.slow(h)):
		r.become(open, now)
	case r.state == halfOpen && len(r.history) < r.rule.Probes:
	case r.state == halfOpen && r.rule.RampStep > 0 && r.rule.RampStep < 1:
		r.become(ramping, now)
	case r.state == halfOpen:
		r.become(closed, now)
	case r.trips(now, h.effect == bad):
		r.become(open, now)
	}
}

func (r *reference) slow(h heard) bool { return r.rule.SlowRatio > 0 && h.took >= r.rule.SlowAfter }

func (r *reference) trips(now time.Time, failed bool) bool {
	inARow, failures := 0, 0
	for _, h := range r.history {
		if inARow++; h.effect == good {
			inARow = 0
		} else {
			failures++
		}
	}
	if failed && r.rule.Failures > 0 && inARow >= r.rule.Failures {
		return true
	}
	if failed && r.rule.Trip == trips["failures>1"] && failures > 1 {
		return true
	}
	if failed && r.rule.Trip == trips["requests>3"] && len(r.history)+r.out > 3 {
		return true
	}
	var bads, slows float64
	window := r.window(now)
	for _, h := range window {
		if h.effect == bad {
			bads++
		}
		if r.slow(h) {
			slows++
		}
	}
	all := float64(len(window))
	if len(window) < r.rule.MinCalls {
		return false
	}
	return r.rule.Ratio > 0 && bads/all >= r.rule.Ratio || r.rule.SlowRatio > 0 && slows/all >= r.rule.SlowRatio
}

// window is the part of the history that ratios look at: the last calls, or those of the last ten tenths of the time, as
// counted from the first of them.
func (r *reference) window(now time.Time) []heard {
	if n := r.rule.WindowCalls; n > 0 {
		return r.history[max(len(r.history)-n, 0):]
	}
	var in []heard
	tenth := func(at time.Time) int64 { return int64(at.Sub(r.history[0].at) / (r.rule.WindowTime / 10)) }
	for _, h := range r.history {
		if tenth(h.at) > tenth(now)-10 {
			in = append(in, h)
		}
	}
	return in
}
