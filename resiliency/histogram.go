package resiliency

import (
	"fmt"
	"math/bits"
	"time"
)

// histogramBuckets is how many bounds a Histogram has.
const histogramBuckets = 16

// Histogram counts times in buckets that double from 1 ms to 32.768 s. It is a value: copies are snapshots.
type Histogram struct {
	// Buckets[i] counts the times of at most Bound(i) that are longer than the bound before it. Longer ones than the last
	// bound are in Count alone.
	Buckets [histogramBuckets]uint64 `json:"buckets"`
	// Count of all times, and their Sum.
	Count uint64        `json:"count"`
	Sum   time.Duration `json:"sumNanos"`
}

// Bound is the longest time that the ith bucket of a Histogram counts.
func Bound(i int) time.Duration { return time.Millisecond << i }

// Observe counts d; a negative one counts as 0.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	if i := bits.Len64(uint64(max(d-1, 0) / time.Millisecond)); i < histogramBuckets {
		h.Buckets[i]++
	}
	h.Count++
	h.Sum += d
}

// String is the histogram in short: how many, and how long on average.
func (h Histogram) String() string {
	if h.Count == 0 {
		return "none"
	}
	return fmt.Sprintf("%d of %v", h.Count, (h.Sum / time.Duration(h.Count)).Round(time.Microsecond))
}

// All yields the bound of each bucket and how many times it holds, the shortest first.
func (h Histogram) All(yield func(bound time.Duration, times uint64) bool) {
	for i, n := range h.Buckets {
		if !yield(Bound(i), n) {
			return
		}
	}
}
