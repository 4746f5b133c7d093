package resiliency

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
)

// trace is the moments, in nanoseconds since epoch, at which calls conformed to one limit, in order.
type trace []int64

// definitions are what a limit admits, each said in its own words, apart from the meters: over is why the trace is more
// than the definition allows, and mayAdmit whether it allows one more call at now.
var definitions = map[RateAlgorithm]struct {
	over     func(r RateLimit, calls trace) string
	mayAdmit func(r RateLimit, calls trace, now int64) bool
}{
	TokenBucket:    {overBucket, roomInBucket},
	LeakyBucket:    {overBucket, roomInLeaky},
	FixedWindow:    {overFixed, roomInFixed},
	SlidingLog:     {overLog, roomInLog},
	SlidingCounter: {overCounter, roomInCounter},
}

// In any stretch of time a bucket admits no more than its burst and what flows in meanwhile.
func overBucket(r RateLimit, calls trace) string {
	for i := range calls {
		for j := i; j < len(calls); j++ {
			if most := float64(r.Burst) + flow(r, calls[j]-calls[i]); float64(j-i+1) > most+1e-6 {
				return fmt.Sprintf("%d calls within %v, of at most %v", j-i+1, time.Duration(calls[j]-calls[i]), most)
			}
		}
	}
	return ""
}

func flow(r RateLimit, took int64) float64 { return float64(took) * float64(r.Limit) / float64(r.Per) }

func roomInBucket(r RateLimit, calls trace, now int64) bool {
	for i := range calls {
		if float64(len(calls)-i+1) > float64(r.Burst)+flow(r, now-calls[i])-1e-6 {
			return false
		}
	}
	return true
}

// A leaky bucket's interval is a whole number of nanoseconds.
func roomInLeaky(r RateLimit, calls trace, now int64) bool {
	r.Per = time.Duration(r.Limit) * ((r.Per + time.Duration(r.Limit) - 1) / time.Duration(r.Limit))
	return roomInBucket(r, calls, now)
}

func overFixed(r RateLimit, calls trace) string {
	for _, c := range calls {
		if n := inFixed(r, calls, c); n > r.Limit {
			return fmt.Sprintf("%d calls in the window of %v", n, time.Duration(c))
		}
	}
	return ""
}

// inFixed counts the calls in the clock's window of a moment.
func inFixed(r RateLimit, calls trace, moment int64) (n int) {
	window := func(t int64) int64 { return (epoch.UnixNano() + t) / int64(r.Per) }
	for _, c := range calls {
		if window(c) == window(moment) {
			n++
		}
	}
	return n
}

func roomInFixed(r RateLimit, calls trace, now int64) bool { return inFixed(r, calls, now) < r.Limit }

func overLog(r RateLimit, calls trace) string { return moreIn(r, calls, r.Limit) }

// moreIn finds a window of Per, anywhere, that holds more than most calls. It begins with one of them.
func moreIn(r RateLimit, calls trace, most int) string {
	for i, from := range calls {
		n := 0
		for _, c := range calls[i:] {
			if c < from+int64(r.Per) {
				n++
			}
		}
		if n > most {
			return fmt.Sprintf("%d calls in the %v from %v", n, r.Per, time.Duration(from))
		}
	}
	return ""
}

func roomInLog(r RateLimit, calls trace, now int64) bool {
	n := 0
	for _, c := range calls {
		if c > now-int64(r.Per) {
			n++
		}
	}
	return n < r.Limit
}

// A sliding counter holds to its estimate, admits no more than the limit in each of its own windows, and less than twice
// the limit in any other.
func overCounter(r RateLimit, calls trace) string {
	for i, c := range calls {
		if n := estimate(r, calls[:i], c) + 1; n > float64(r.Limit)+1e-3 {
			return fmt.Sprintf("an estimate of %v calls at %v", n, time.Duration(c))
		}
	}
	return moreIn(r, calls, max(2*r.Limit-1, 1))
}

// estimate counts the calls of now's window, and those of the one before by what of it is less than Per ago. The machine
// saw its first event at the epoch, where windows begin.
func estimate(r RateLimit, calls trace, now int64) float64 {
	window := now / int64(r.Per)
	older, younger := 0, 0
	for _, c := range calls {
		switch c / int64(r.Per) {
		case window:
			younger++
		case window - 1:
			older++
		}
	}
	return float64(younger) + float64(older)*(1-float64(now%int64(r.Per))/float64(r.Per))
}

func roomInCounter(r RateLimit, calls trace, now int64) bool {
	return estimate(r, calls, now)+1 <= float64(r.Limit)-1e-3
}

func drawLimit(t *rapid.T, name string, algorithms ...RateAlgorithm) RateLimit {
	r := RateLimit{
		Name: name, Algorithm: rapid.SampledFrom(algorithms).Draw(t, "algorithm"),
		Limit: rapid.IntRange(1, 7).Draw(t, "limit"),
		Per:   time.Duration(rapid.IntRange(1, 300).Draw(t, "per")) * 10 * time.Millisecond,
	}
	if r.isBucket() {
		r.Burst = rapid.IntRange(0, 5).Draw(t, "burst")
	}
	return r
}

// drawLimits are those of a lane that does other things besides.
func drawLimits(t *rapid.T) []RateLimit {
	if rapid.IntRange(0, 3).Draw(t, "limited") > 0 {
		return nil
	}
	r := drawLimit(t, "l", allAlgorithms...)
	r.MaxWait = rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "max wait")
	return []RateLimit{r}
}

var allAlgorithms = []RateAlgorithm{TokenBucket, LeakyBucket, FixedWindow, SlidingLog, SlidingCounter}

// drawGap is a time between calls: none, a few, or many of a limit's intervals.
func drawGap(t *rapid.T, per time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(0, int64(per)).Draw(t, "gap")) / time.Duration(rapid.SampledFrom([]int{1, 3, 20, 1000}).Draw(t, "of"))
}

// offer sends one call and returns when it conforms, or when it would.
func offer(m *Machine, now time.Time, call Call) (at time.Time, admitted bool) {
	turn := new(Turn)
	turn.Begin(call, nil)
	d := m.Step(now, Enter{turn})[0]
	switch d.Verb {
	case Go:
		m.Step(now, &Outcome{Turn: turn})
		return now, true
	case Again:
		return now.Add(d.After), true
	}
	return now.Add(fault.RetryAfter(d.Err)), false
}

// TestLimitsHoldTheirDefinition: over all windows of a trace, no algorithm admits more than its definition, be it that
// calls wait; none refuses what its definition admits; and who comes back when told passes, but not before.
func TestLimitsHoldTheirDefinition(t *testing.T) {
	for _, algorithm := range allAlgorithms {
		t.Run(string("by "+algorithm), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				r := drawLimit(t, "l", algorithm)
				if rapid.Bool().Draw(t, "waits") {
					r.MaxWait = 2 * r.Per
				}
				m := New("lane", Policy{Limits: []RateLimit{r}})
				m.Status(epoch)
				r = r.settled()
				definition, now := definitions[algorithm], epoch
				var calls trace
				for range rapid.IntRange(1, 60).Draw(t, "calls") {
					now = now.Add(drawGap(t, r.Per))
					since := now.Sub(epoch).Nanoseconds()
					at, admitted := offer(m, now, Call{Op: "op"})
					switch {
					case admitted && at.Sub(now) > r.MaxWait:
						t.Fatalf("waits %v", at.Sub(now))
					case admitted:
						calls = append(calls, at.Sub(epoch).Nanoseconds())
					case at.Sub(now) <= r.MaxWait:
						t.Fatalf("refused, to come again after %v", at.Sub(now))
					case r.MaxWait == 0 && definition.mayAdmit(r, calls, since):
						t.Fatalf("%+v refuses at %v what it should admit after %v", r, now.Sub(epoch), calls)
					case rapid.Bool().Draw(t, "patient"):
						if wait := at.Sub(now); wait > 10 {
							if _, early := offer(m, at.Add(-10), Call{Op: "op"}); early && r.MaxWait == 0 {
								t.Fatal("a call passed before its retry-after")
							}
						}
						if now = at; r.MaxWait > 0 {
							continue
						}
						if _, admitted = offer(m, now, Call{Op: "op"}); !admitted {
							t.Fatalf("refused at its retry-after %v", now.Sub(epoch))
						}
						calls = append(calls, now.Sub(epoch).Nanoseconds())
					}
				}
				if why := definition.over(r, calls); why != "" || !slices.IsSorted(calls) {
					t.Fatalf("%+v admitted %s: %v", r, why, calls)
				}
			})
		})
	}
}

// TestLimitsTakeAllOrNone: a call that one limit refuses leaves all others as they were; one that passes takes from each.
func TestLimitsTakeAllOrNone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Policy
		for i := range rapid.IntRange(2, 4).Draw(t, "limits") {
			p.Limits = append(p.Limits, drawLimit(t, fmt.Sprint(i), TokenBucket, LeakyBucket, FixedWindow, SlidingLog))
		}
		m, now := New("lane", p), epoch
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			now = now.Add(drawGap(t, 500*time.Millisecond))
			before := m.Status(now).Limits
			_, admitted := offer(m, now, Call{Op: "op"})
			full := false
			for i, after := range m.Status(now).Limits {
				took := *before[i].Remaining - *after.Remaining
				if admitted != (took == 1) || took < 0 || took > 1 {
					t.Fatalf("admitted=%v and took %d from %+v", admitted, took, p.Limits[i])
				}
				full = full || *before[i].Remaining == 0
			}
			if admitted == full {
				t.Fatalf("admitted=%v though one limit was full=%v", admitted, full)
			}
		}
	})
}

// TestSharesNeverExceedTheLimit: sidecars whose shares sum to one admit together no more than the limit in any window of
// the clock, and in any window at all for a log, however the shares move between them.
func TestSharesNeverExceedTheLimit(t *testing.T) {
	for _, algorithm := range []RateAlgorithm{FixedWindow, SlidingLog} {
		t.Run(string(algorithm), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				r := RateLimit{Name: "l", Algorithm: algorithm, Limit: rapid.IntRange(4, 12).Draw(t, "limit"), Per: time.Second, Global: true}
				machines := []*Machine{New("a", Policy{Limits: []RateLimit{r}}), New("b", Policy{Limits: []RateLimit{r}})}
				now := epoch
				move := func() {
					mine := float64(rapid.IntRange(1, r.Limit-1).Draw(t, "mine")) / float64(r.Limit)
					machines[0].Step(now, SetShare{Limit: "l", Share: mine})
					machines[1].Step(now, SetShare{Limit: "l", Share: 1 - mine})
				}
				move()
				var calls trace
				for range rapid.IntRange(1, 100).Draw(t, "events") {
					now = now.Add(drawGap(t, r.Per))
					if rapid.IntRange(0, 5).Draw(t, "move") == 0 {
						move()
					}
					if _, admitted := offer(machines[rapid.IntRange(0, 1).Draw(t, "who")], now, Call{Op: "op"}); admitted {
						calls = append(calls, now.Sub(epoch).Nanoseconds())
					}
				}
				if why := definitions[algorithm].over(r, calls); why != "" {
					t.Fatalf("%+v admitted %s", r, why)
				}
			})
		})
	}
}

// TestBucketSharesKeepTheRate: over a long time buckets whose shares move admit the limit's rate, and no more than their
// bursts beyond it.
func TestBucketSharesKeepTheRate(t *testing.T) {
	const rate, seconds, tick = 10, 4, 5 * time.Millisecond
	for _, algorithm := range []RateAlgorithm{TokenBucket, LeakyBucket} {
		rapid.Check(t, func(t *rapid.T) {
			r := RateLimit{Name: "l", Algorithm: algorithm, Limit: rate, Per: time.Second, Burst: rapid.IntRange(1, 20).Draw(t, "burst"), Global: true}
			machines := []*Machine{New("a", Policy{Limits: []RateLimit{r}}), New("b", Policy{Limits: []RateLimit{r}})}
			now, total := epoch, 0
			for range seconds {
				mine := rapid.Float64Range(0.01, .99).Draw(t, "mine")
				machines[0].Step(now, SetShare{Limit: "l", Share: mine})
				machines[1].Step(now, SetShare{Limit: "l", Share: 1 - mine})
				for range time.Second / tick {
					now = now.Add(tick)
					for _, m := range machines {
						if _, admitted := offer(m, now, Call{Op: "op"}); admitted {
							total++
						}
					}
				}
			}
			most, least := rate*seconds+r.Burst+2, rate*seconds*85/100 // a tick late each, and what is rounded
			if total > most || total < least {
				t.Fatalf("%d calls in %d s, which is not within %d and %d", total, seconds, least, most)
			}
		})
	}
}
