package supervisor

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRestartBackOff(t *testing.T) {
	policy := newRestarts()
	for i, step := range []struct{ lived, wait time.Duration }{
		{0, 200 * time.Millisecond},
		{time.Second, 400 * time.Millisecond},
		{29 * time.Second, 800 * time.Millisecond},
		{30 * time.Second, 200 * time.Millisecond}, // was healthy
		{0, 400 * time.Millisecond},
	} {
		if wait, nth := policy.died(step.lived); wait != step.wait || nth != i+1 {
			t.Errorf("death %d after %v: wait %v (restart %d), want %v", i+1, step.lived, wait, nth, step.wait)
		}
	}
}

func TestRestartBackOffStaysInItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy, want := newRestarts(), firstRestart
		for range rapid.IntRange(1, 200).Draw(t, "deaths") {
			lived := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "lived"))
			if lived >= healthyAfter {
				want = firstRestart
			}
			if wait, _ := policy.died(lived); wait != want {
				t.Fatalf("wait %v, want %v", wait, want)
			}
			want = min(2*want, slowestRestart)
		}
	})
}
