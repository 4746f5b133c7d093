package resiliency

import (
	"math"
	"math/rand/v2"
	"time"
)

// Pace is the wait after the nth failure in a row, n from 1, for those whose failures someone else counts, such as a
// broker that counts deliveries: Initial × Multiplierⁿ⁻¹, at most MaxInterval, give or take Jitter's share, or as the
// Backoff says. Decorrelated waits, which grow from the one before, are anything from Initial to the longest that they
// can have become.
func (r Retry) Pace(n int) time.Duration {
	r = r.settled()
	grows := r.Multiplier
	if r.Backoff == Decorrelated {
		grows = 3
	}
	wait := float64(r.Initial) * math.Pow(grows, float64(max(n, 1)-1))
	wait = min(wait, float64(r.MaxInterval))
	switch r.Backoff {
	case FullJitter:
		return time.Duration(wait * rand.Float64())
	case Decorrelated:
		return r.Initial + time.Duration((wait-float64(r.Initial))*rand.Float64())
	}
	return time.Duration(wait * (1 + r.Jitter*(2*rand.Float64()-1)))
}
