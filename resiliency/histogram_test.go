package resiliency

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistogram(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h Histogram
		var sum time.Duration
		var want [len(h.Buckets)]uint64
		times := rapid.SliceOf(rapid.OneOf(
			rapid.Map(rapid.Int64Range(-5, 60_000_000_000), func(n int64) time.Duration { return time.Duration(n) }),
			rapid.Map(rapid.IntRange(0, len(want)-1), Bound),
			rapid.Map(rapid.IntRange(0, len(want)-1), func(i int) time.Duration { return Bound(i) + 1 }),
		)).Draw(t, "times")
		for _, d := range times {
			h.Observe(d)
			sum += max(d, 0)
			for i := range want {
				if d <= Bound(i) {
					want[i]++
					break
				}
			}
		}
		if h.Buckets != want || h.Count != uint64(len(times)) || h.Sum != sum {
			t.Fatalf("%v became %+v", times, h.Buckets)
		}
	})
	if Bound(0) != time.Millisecond || Bound(15) != 32768*time.Millisecond {
		t.Errorf("bounds from %v to %v", Bound(0), Bound(15))
	}
}

func TestHistogramInShort(t *testing.T) {
	var h Histogram
	if h.String() != "none" {
		t.Errorf("nothing is %v", h)
	}
	h.Observe(time.Second)
	h.Observe(2 * time.Second)
	if h.String() != "2 of 1.5s" {
		t.Errorf("two are %v", h)
	}
	text, err := json.Marshal(h)
	if err != nil || string(text) != `{"buckets":[0,0,0,0,0,0,0,0,0,0,1,1,0,0,0,0],"count":2,"sumNanos":3000000000}` {
		t.Errorf("as JSON %s, %v", text, err)
	}
}
