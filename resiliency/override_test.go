package resiliency

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"10/1s": {10, time.Second}, "600/m": {600, time.Minute}, "1/500ms": {1, 500 * time.Millisecond}, "7/1h30m": {7, 90 * time.Minute},
	} {
		if got, err := ParseRate(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "10", "10/", "/1s", "0/1s", "-1/1s", "x/1s", "10/0s", "10/-1s", "10/soon", "1.5/s", "10/1s/1s", "10/5"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		} else if !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v does not name it", text, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		rate := Rate{rapid.IntRange(1, 1e9).Draw(t, "limit"), time.Duration(rapid.Int64Range(1, 1e15).Draw(t, "per"))}
		if got, err := ParseRate(rate.String()); err != nil || got != rate {
			t.Fatalf("%v is written %q and read as %v, %v", rate, rate.String(), got, err)
		}
	})
}

// TestOverride lays changes over policies: the last word of the operator holds, and nothing else of a policy changes.
func TestOverride(t *testing.T) {
	policy := Policy{
		Name: "p", MaxInFlight: 8, MaxQueue: 64, CallTimeout: time.Second,
		Limits: []RateLimit{{Name: "all", Limit: 100, Per: time.Second}, {Name: "each", Limit: 1, Per: time.Minute, By: ByCaller}},
	}
	two, none := 2, 0
	o := Override{MaxInFlight: &two, Rates: map[string]Rate{"each": {5, time.Second}}}.
		With(Override{MaxQueue: &none, Rates: map[string]Rate{"gone": {9, time.Hour}}})

	want := policy
	want.MaxInFlight, want.MaxQueue = 2, 0
	want.Limits = []RateLimit{policy.Limits[0], {Name: "each", Limit: 5, Per: time.Second, By: ByCaller}}
	if got := o.Over(policy); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if policy.Limits[1].Limit != 1 {
		t.Error("the policy that was overridden is changed itself")
	}
	if got := (Override{}).Over(policy); !reflect.DeepEqual(got, policy) {
		t.Errorf("the zero override makes %+v", got)
	}
	changes := []Change{{"in flight", "8", "2"}, {"queue", "64", "0"}, {"rate each", "1/1m", "5/1s"}}
	if got := o.Changes(policy); !reflect.DeepEqual(got, changes) {
		t.Errorf("changes %+v", got)
	}
	if got := (Override{}).Changes(policy); got != nil {
		t.Errorf("the zero override changes %+v", got)
	}
}
