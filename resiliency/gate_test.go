package resiliency

import (
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
)

var queueKeys = map[string]policyKey{
	"full":           func(t *testing.T, p *Policy, v string) { p.Queue.Full = OnFull(v) },
	"max-wait":       func(t *testing.T, p *Policy, v string) { p.Queue.MaxWait = duration(t, v) },
	"priority":       func(t *testing.T, p *Policy, v string) { p.Queue.PriorityHeader = v },
	"codel-target":   func(t *testing.T, p *Policy, v string) { p.Queue.Target = duration(t, v) },
	"codel-interval": func(t *testing.T, p *Policy, v string) { p.Queue.Interval = duration(t, v) },
}

// TestLaneRoom: however many may wait, they are bounded, and who is refused hears why.
func TestLaneRoom(t *testing.T) {
	for name, c := range map[string]struct {
		policy    Policy
		admission Admission
		room      int
		says      string
	}{
		"held":        {Policy{}, Held, laneRoom, "paused by an operator, and 16384 calls wait for it to go on; it keeps at most 16384"},
		"held, wider": {Policy{MaxInFlight: 1, MaxQueue: 20000}, Held, 20000, "it keeps at most 20000"},
		"wait":        {Policy{MaxInFlight: 1, MaxQueue: 2, Queue: Queue{Full: WaitAnyway}}, Admitting, laneRoom, "allows 1 and 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			m := New("lane", c.policy)
			m.Step(epoch, SetAdmission{c.admission})
			enter := func() []Decision {
				turn := new(Turn)
				turn.Begin(Call{Op: "op"}, nil)
				return m.Step(epoch, Enter{turn})
			}
			if c.admission != Held {
				enter()
			}
			for range c.room {
				if d := enter(); len(d) > 0 {
					t.Fatalf("%v", d)
				}
			}
			d := enter()
			if len(d) != 1 || fault.ReasonOf(d[0].Err) != fault.QueueFull || !strings.Contains(d[0].Err.Error(), c.says) {
				t.Errorf("%v, want %q", d, c.says)
			}
			if s := m.Status(epoch); s.Queued != c.room || s.QueueLimit != c.room {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestQueuedPath: waiting costs no allocation, whoever is served next.
func TestQueuedPath(t *testing.T) {
	for _, q := range []Queue{{}, {PriorityHeader: "p", MaxWait: time.Second, Target: time.Second}} {
		m := New("lane", Policy{MaxInFlight: 1, MaxQueue: 4, Queue: q})
		first, second := new(Turn), new(Turn)
		one, two := &Outcome{Turn: first, Took: time.Millisecond}, &Outcome{Turn: second, Took: time.Millisecond}
		call := Call{Op: "op", Header: header{"p": "7"}}
		pass := func() {
			first.Begin(call, nil)
			second.Begin(call, nil)
			m.Step(epoch, Enter{first})
			m.Step(epoch, Enter{second})
			m.Step(epoch, one)
			m.Step(epoch, two)
		}
		pass()
		if n := testing.AllocsPerRun(100, pass); n != 0 {
			t.Errorf("%+v: %v allocations", q, n)
		}
		if !m.Idle() || m.Counts().Waited.Count < 100 {
			t.Errorf("%+v: %+v", q, m.Counts())
		}
	}
}

func TestQueueValidate(t *testing.T) {
	good := Policy{MaxInFlight: 1, Queue: Queue{Full: ShedLowest, MaxWait: 2, PriorityHeader: "p", Target: 1, Interval: 1}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (Policy{Queue: Queue{PriorityHeader: "p"}}).Validate(); err != nil {
		t.Errorf("priorities matter to the protection too: %v", err)
	}
	if err := (Policy{MaxQueue: 5, Adaptive: Adaptive{Algorithm: Vegas}}).Validate(); err != nil {
		t.Errorf("an adaptive limit has a queue: %v", err)
	}
	for want, p := range map[string]Policy{
		"max queue 1 has no effect":         {MaxQueue: 1},
		"nobody waits":                      {Queue: Queue{MaxWait: 1}},
		"without a priority header":         {MaxInFlight: 1, Queue: Queue{Full: ShedLowest}},
		`does not know "drop"`:              {MaxInFlight: 1, Queue: Queue{Full: "drop"}},
		"max wait in the queue -1ns":        {MaxInFlight: 1, Queue: Queue{MaxWait: -1}},
		"queue target -1ns":                 {MaxInFlight: 1, Queue: Queue{Target: -1}},
		"queue interval -1ns":               {MaxInFlight: 1, Queue: Queue{Target: 1, Interval: -1}},
		"no effect without a target":        {MaxInFlight: 1, Queue: Queue{Interval: 1}},
		"target 2ns is longer than the max": {MaxInFlight: 1, Queue: Queue{Target: 2, MaxWait: 1}},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", p, err, want)
		}
	}
}
