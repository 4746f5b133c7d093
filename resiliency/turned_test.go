package resiliency

import (
	"maps"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// TestTurned walks a breaker round all its states: each is counted once for each time that it is entered, and what was
// counted outlives the machine.
func TestTurned(t *testing.T) {
	now := time.Unix(0, 0)
	m := New("l", Policy{Breaker: Breaker{Failures: 1, OpenFor: time.Second, Probes: 1, RampStep: .5, RampEvery: time.Second}})
	call := func(err error) {
		turn := new(Turn)
		turn.Begin(Call{Op: "op"}, nil)
		if d := m.Step(now, Enter{turn}); len(d) == 1 && d[0].Verb == Go {
			m.Step(now, &Outcome{Turn: turn, Err: err})
		}
	}
	down := fault.New("op", fault.BackendDown, "down")
	for range 2 {
		call(down) // opens it
		call(down) // from the ramp only every other call has a chance to
		now = now.Add(time.Second)
		call(nil) // the probe
	}
	now = now.Add(10 * time.Second)
	call(nil)
	next := New("l", m.policy)
	next.Resume(m)
	want := map[string]uint64{"closed": 1, "open": 2, "half-open": 2, "ramping": 2}
	if got := maps.Collect(next.Counts().Turned.All); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
