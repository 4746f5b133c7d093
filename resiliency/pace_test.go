package resiliency

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPaceGrowsToItsCap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Retry{Initial: 200 * time.Millisecond, MaxInterval: time.Minute, Multiplier: 2, Jitter: .2}
		n := rapid.IntRange(-1, 1<<20).Draw(t, "failures")
		got := r.Pace(n)
		if got < 160*time.Millisecond || got > 72*time.Second {
			t.Fatalf("the wait after failure %d is %s", n, got)
		}
		if n > 10 && got < 48*time.Second {
			t.Fatalf("the wait after failure %d is %s, less than the cap allows", n, got)
		}
	})
}
