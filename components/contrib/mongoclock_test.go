//go:build linux

package contrib

import (
	"testing"
	"time"

	"github.com/sidecast/sidecast/state"
)

// TestMongoExpiryFollowsTheServersClock: how far it is ahead is found out again, when that was a while ago or this clock was set.
func TestMongoExpiryFollowsTheServersClock(t *testing.T) {
	s := openState(t, mongoState, mongoSettings(t)).(*mongoStore)
	defer s.Close(t.Context())
	now := time.Now()
	for name, test := range map[string]struct {
		last *clockReading
		want time.Duration
	}{
		"a reading that counts":            {&clockReading{at: now, shown: now.Round(0), ahead: time.Hour}, 2 * time.Hour},
		"an old one":                       {&clockReading{at: now.Add(-2 * clockAge), shown: now.Add(-2 * clockAge).Round(0), ahead: time.Hour}, time.Hour},
		"one before this clock was set":    {&clockReading{at: now, shown: now.Round(0).Add(time.Second), ahead: time.Hour}, time.Hour},
		"one before this clock was set on": {&clockReading{at: now, shown: now.Round(0).Add(-time.Second), ahead: time.Hour}, time.Hour},
		"none":                             {nil, time.Hour},
	} {
		for _, match := range []state.Match{state.Any, state.Absent} {
			s.clock.last.Store(test.last)
			key := name + string(rune('0'+match))
			if _, err := s.Apply(t.Context(), []state.Op{{Key: key, Match: match, TTL: time.Hour}}); err != nil {
				t.Fatal(err)
			}
			items, err := s.Get(t.Context(), []string{key})
			if err != nil || len(items) != 1 || items[0].Expires.Sub(now.Add(test.want)).Abs() > 30*time.Minute {
				t.Errorf("%s: there is %v (%v), want it to end in %v", name, items, err, test.want)
			}
		}
	}
}
