package resiliency

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWindowOfTime: the window holds the calls of the last ten tenths, whatever the pauses between them.
func TestWindowOfTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWindow(Breaker{Ratio: 1, WindowTime: 10 * time.Second})
		now := epoch
		type call struct {
			tenth        int
			failed, slow bool
		}
		var calls []call
		for range rapid.IntRange(1, 30).Draw(t, "calls") {
			if len(calls) > 0 {
				now = now.Add(time.Duration(rapid.IntRange(-500, 15_000).Draw(t, "pause")) * time.Millisecond)
			}
			c := call{int(max(now.Sub(epoch), 0) / time.Second), rapid.Bool().Draw(t, "failed"), rapid.Bool().Draw(t, "slow")}
			if n := len(calls); n > 0 {
				c.tenth = max(c.tenth, calls[n-1].tenth)
			}
			calls = append(calls, c)
			w.add(now, c.failed, c.slow)
			var want tally
			for _, earlier := range calls {
				if earlier.tenth > c.tenth-10 {
					want.count(earlier.failed, earlier.slow)
				}
			}
			if w.total != want {
				t.Fatalf("after %v the window holds %+v, want %+v", now.Sub(epoch), w.total, want)
			}
		}
	})
}

// TestWindowsAllocateOnce: counting and clearing cost no allocation.
func TestWindowsAllocateOnce(t *testing.T) {
	for _, rule := range []Breaker{{}, {Ratio: 1, WindowCalls: 3}, {SlowRatio: 1, WindowTime: time.Second}} {
		w, now := newWindow(rule), epoch
		if n := testing.AllocsPerRun(100, func() {
			now = now.Add(300 * time.Millisecond)
			w.add(now, true, false)
			w.clear()
		}); n != 0 {
			t.Errorf("%+v: %v allocations", rule, n)
		}
	}
}
