package resiliency

import (
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
)

var protectionKeys = map[string]policyKey{
	"cpu":         func(t *testing.T, p *Policy, v string) { p.Protection.CPU = fraction(t, v) },
	"memory":      func(t *testing.T, p *Policy, v string) { p.Protection.Memory = fraction(t, v) },
	"queue-delay": func(t *testing.T, p *Policy, v string) { p.Protection.QueueDelay = duration(t, v) },
}

// TestShieldShedsTheShareFromBelow: whatever the mix of priorities, the share that is shed is the one that was decided, as
// far as priority 9 allows; and who is shed has company of nobody of a lower priority that passes, but for the class that
// is shed in part.
func TestShieldShedsTheShareFromBelow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mix := rapid.SliceOfN(rapid.IntRange(0, maxPriority), 20, 20).Draw(t, "mix")
		over := rapid.IntRange(1, 12).Draw(t, "seconds over the threshold")
		m := New("l", Policy{Protection: Protection{CPU: 0.5}, Queue: Queue{PriorityHeader: "p"}})
		ask := func(now time.Time, times int) (calls, shed [maxPriority + 1]float64) {
			for range times {
				for _, priority := range mix {
					var turn Turn
					turn.Begin(Call{Header: header{"p": strconv.Itoa(priority)}}, nil)
					calls[priority]++
					d := m.Step(now, Enter{&turn})[0]
					if d.Verb == GiveUp {
						if fault.ReasonOf(d.Err) != fault.Overloaded || fault.RetryAfter(d.Err) != time.Second {
							t.Fatal(d.Err)
						}
						shed[priority]++
					} else {
						m.Step(now, &Outcome{Turn: &turn})
					}
				}
			}
			return calls, shed
		}
		now := epoch
		for range over {
			m.Step(now, Pressure{CPU: 0.6})
			ask(now, 1)
			now = now.Add(time.Second)
		}
		m.Step(now, Pressure{CPU: 0.49}) // neither over nor relieved
		if want := min(0.1*float64(over), maxShed); m.shield.share < want-0.01 || m.shield.share > want+0.01 {
			t.Fatalf("after %d s the share is %v", over, m.shield.share)
		}
		calls, shed := ask(now, 50)
		var all, gone float64
		partly := false
		for priority := range calls {
			all += calls[priority]
			gone += shed[priority]
			if calls[priority] == 0 || priority == maxPriority {
				continue
			}
			if partly && shed[priority] > 3+calls[priority]/50 {
				t.Errorf("shed by priority %v of %v: lower ones passed", shed, calls)
			}
			partly = partly || shed[priority] < calls[priority]*0.98-3
		}
		want := min(m.shield.share, 1-calls[maxPriority]/all)
		if got := gone / all; got < want-0.03 || got > want+0.03 {
			t.Errorf("%.3f of the calls were shed, want %.3f: %v of %v", got, want, shed, calls)
		}
		if shed[maxPriority] > 0 {
			t.Error("priority 9 was shed")
		}
	})
}

// TestShieldLetsGo: the overload over, nothing is shed in the end, however seldom anybody looks.
func TestShieldLetsGo(t *testing.T) {
	for _, every := range []time.Duration{time.Second / 2, 7 * time.Second, time.Hour} {
		m := New("l", Policy{Protection: Protection{Memory: 0.9}})
		now := epoch
		for ; now.Before(epoch.Add(20 * time.Second)); now = now.Add(time.Second / 2) {
			m.Step(now, Pressure{Memory: 0.95})
		}
		if got := m.Status(now).Shedding; got != maxShed {
			t.Fatalf("sheds %v", got)
		}
		m.Step(now, Pressure{Memory: 0.5})
		for relieved := now; now.Before(relieved.Add(30 * time.Second)); {
			now = now.Add(every)
			m.Step(now, Pressure{Memory: 0.5})
		}
		if got := m.Status(now).Shedding; got != 0 {
			t.Errorf("looked at every %v it still sheds %v", every, got)
		}
	}
}

func TestProtectionValidate(t *testing.T) {
	for _, wrong := range []Protection{{CPU: -0.1}, {CPU: 1.1}, {Memory: 2}, {QueueDelay: -1}} {
		if err := (Policy{Protection: wrong}).Validate(); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
		if err := (Policy{Protection: wrong.settled()}).Validate(); err != nil {
			t.Errorf("%+v is settled wrongly: %v", wrong, err)
		}
	}
}
