package resiliency

import (
	"math"
	"math/rand/v2"
	"time"
)

// Pace is the wait after the nth failure in a row, n from 1, for those whose failures someone else counts, such as a
// broker that counts deliveries: Initial × Multiplierⁿ⁻¹, at most MaxInterval, give or take Jitter's share.
func (r Retry) Pace(n int) time.Duration {
	wait := float64(r.Initial) * math.Pow(max(r.Multiplier, 1), float64(max(n, 1)-1))
	wait = min(wait, float64(r.MaxInterval))
	return time.Duration(wait * (1 + r.Jitter*(2*rand.Float64()-1)))
}
