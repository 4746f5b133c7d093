package quota

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fabric"
)

func TestSplit(t *testing.T) {
	for name, c := range map[string]struct {
		limit int
		needs []float64
		whole bool
		want  []float64
	}{
		"nobody has a need":               {100, []float64{0, 0, 0, 0}, false, []float64{.25, .25, .25, .25}},
		"one alone":                       {100, []float64{10}, false, []float64{1}},
		"a lone busy one":                 {100, []float64{0, 500, 0, 0, 0}, false, []float64{.01, .96, .01, .01, .01}},
		"a busy one with few calls":       {100, []float64{0, 5}, false, []float64{.025, .975}},
		"all want too much":               {100, []float64{300, 900, 500, 5000}, false, []float64{.25, .25, .25, .25}},
		"a modest one gets what it needs": {100, []float64{10, 1000}, false, []float64{.125, .875}},
		"room to grow goes by need":       {100, []float64{10, 30}, false, []float64{.2625, .7375}},
		"whole calls":                     {10, []float64{100, 100, 100}, true, []float64{.4, .3, .3}},
		"less than a call stays":          {10, []float64{100, 0}, true, []float64{.9, .025}},
	} {
		got := split(c.limit, c.needs, c.whole)
		for i := range got {
			if math.Abs(got[i]-c.want[i]) > 1e-9 {
				t.Errorf("%s: %v, want %v", name, got, c.want)
				break
			}
		}
	}
}

// TestSplitIsFair: shares never sum to more than 1 and to little less; everyone has the floor; nobody who needs no more
// than a fair part gets less than it needs; more need never means a smaller share.
func TestSplitIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 1000).Draw(t, "limit")
		needs := rapid.SliceOfN(rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(0, 3000)), 1, 20).Draw(t, "needs")
		whole, n := rapid.Bool().Draw(t, "whole"), float64(len(needs))
		shares := split(limit, needs, whole)
		call := 0.0
		if whole {
			call = 1 / float64(limit)
		}
		sum := 0.0
		for i, share := range shares {
			sum += share
			if least := floorShare / n; share < least-call-1e-9 || share <= 0 {
				t.Fatalf("%v is below the floor %v", share, least)
			}
			if fair := (1 - floorShare) / n; share < min(needs[i]/float64(limit), fair)-call-1e-9 {
				t.Fatalf("%v of %d is less than the need %v and the fair %v", share, limit, needs[i], fair)
			}
			for j, other := range shares {
				if needs[i] > needs[j] && share < other-call-1e-9 {
					t.Fatalf("%v needs more than %v and gets %v, less than %v", needs[i], needs[j], share, other)
				}
			}
		}
		if sum > 1+1e-9 {
			t.Fatalf("%v sum to %v", shares, sum)
		}
		if !whole && sum < 1-1e-9 {
			t.Fatalf("%v sum to %v: some is lost", shares, sum)
		}
	})
}

// The limits of an app's own lanes are the app's: another app with a rule of the same name has a limit of its own.
func TestLanesThatGuardTheOwnApp(t *testing.T) {
	q := &quota{self: fabric.Target{App: "cart", Instance: "1"}}
	for lane, want := range map[string]string{
		"app": "app@cart#ten", "app/op:/foo": "app/op:/foo@cart#ten", "app/op:GET:/foo": "app/op:GET:/foo@cart#ten", "sub/ps/t": "sub/ps/t@cart#ten",
		"input/cron": "input/cron@cart#ten", "settings/store": "settings/store@cart#ten", "binding/cron": "binding/cron#ten",
		"app/orders": "app/orders#ten", "app/orders/op:/foo": "app/orders/op:/foo#ten", "state/store": "state/store#ten",
	} {
		if got := q.id(lane, "ten"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
