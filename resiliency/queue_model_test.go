package resiliency

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
)

func drawQueue(t *rapid.T) Queue {
	return Queue{
		Full:           rapid.SampledFrom([]OnFull{Refuse, WaitAnyway, ShedOldest, ShedLowest}).Draw(t, "full"),
		MaxWait:        rapid.SampledFrom([]time.Duration{0, 0, time.Second}).Draw(t, "max wait"),
		PriorityHeader: rapid.SampledFrom([]string{"", "p"}).Draw(t, "priority header"),
		Target:         rapid.SampledFrom([]time.Duration{0, 0, 200 * time.Millisecond}).Draw(t, "target"),
		Interval:       rapid.SampledFrom([]time.Duration{0, 500 * time.Millisecond}).Draw(t, "interval"),
	}
}

// drawPriority gives the call a priority in its header, and returns what it counts as.
func (w *world) drawPriority(t *rapid.T, call *Call) int {
	n := rapid.IntRange(-1, 11).Draw(t, "priority")
	if n == 11 {
		return 5
	}
	call.Header = header{"p": strconv.Itoa(n)}
	if w.policy.Queue.PriorityHeader == "" {
		return 5
	}
	return min(max(n, 0), 9)
}

// crowd lets several calls enter shortly after each other.
func (w *world) crowd(t *rapid.T) {
	for i := range rapid.IntRange(2, 5).Draw(t, "crowd") {
		w.now = w.now.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "ms")) * time.Millisecond)
		call, turn := Call{Op: "op"}, new(Turn)
		w.priorities[turn] = w.drawPriority(t, &call)
		turn.Begin(call, i)
		w.enter(turn)
	}
}

// TestOverloadModel holds CoDel to a model of its own: what is overload, who is served then, and who is shed.
func TestOverloadModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, now: epoch, priorities: map[*Turn]int{}, arrived: map[*Turn]time.Time{}}
		w.policy = Policy{Name: "p", MaxInFlight: 1, MaxQueue: 100, Queue: Queue{
			Target: 20 * time.Millisecond, Interval: 50 * time.Millisecond,
			PriorityHeader: rapid.SampledFrom([]string{"", "p"}).Draw(t, "priority header"),
		}}
		w.replace()
		w.overload = new(overload)
		t.Repeat(map[string]func(*rapid.T){
			"crowd": w.crowd,
			"time": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "ms")) * time.Millisecond)
			},
			"outcomes": func(t *rapid.T) {
				for range rapid.IntRange(1, 3).Draw(t, "outcomes") {
					if len(w.running) == 0 {
						return
					}
					w.now = w.now.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "took")) * time.Millisecond)
					w.overload.look(w)
					w.report(0, nil)
					for _, turn := range w.waiting {
						if w.overload.on && w.now.Sub(w.arrived[turn]) > w.policy.Queue.Target {
							t.Fatalf("%v waits on", turn.Owner)
						}
					}
				}
			},
		})
	})
}

// overload is all looks at the queue: whether the oldest had waited too long, and when that was.
type overload struct {
	on    bool
	looks []look
}

type look struct {
	at   time.Time
	late bool
}

// look changes its mind when all looks of an interval up to now, and one at or before its start, say the contrary.
func (o *overload) look(w *world) {
	late := slices.ContainsFunc(w.waiting, func(t *Turn) bool { return w.now.Sub(w.arrived[t]) > w.policy.Queue.Target })
	o.looks = append(o.looks, look{w.now, late})
	for _, l := range slices.Backward(o.looks) {
		if l.late == o.on {
			return
		}
		if w.now.Sub(l.at) >= w.policy.Queue.Interval {
			o.on, o.looks = !o.on, nil
			return
		}
	}
}

func (w *world) admit(t *rapid.T) {
	w.admission = rapid.SampledFrom([]Admission{Admitting, Admitting, Held, TurnedAway}).Draw(t, "admission")
	w.step(SetAdmission{w.admission}, nil)
}

func (w *world) overdue(t *rapid.T) {
	all := slices.Concat(w.waiting, w.running, w.resting)
	if len(all) == 0 {
		t.Skip("nobody")
	}
	w.step(Overdue{rapid.SampledFrom(all).Draw(t, "overdue")}, nil)
}

// checkQueue holds a decision about a turn that is still among those who wait to the policy of the queue.
func (w *world) checkQueue(d Decision) {
	if d.Verb == Go {
		w.checkOrder(d.Turn)
		return
	}
	switch fault.ReasonOf(d.Err) {
	case fault.QueueFull:
		if pieces, most := w.pieces(); d.Turn.Call.InPieces && pieces >= most {
			return
		}
		if d.Turn == w.newcomer && d.Turn.attempts == 0 { // else it may be its last failure
			w.checkFull()
		}
	case fault.QueueShed:
		w.checkShed(d.Turn)
	}
}

// checkOrder: whoever is served has the highest priority, and of those came first; while CoDel may be at work, or last.
func (w *world) checkOrder(t *Turn) {
	if w.admission == Held {
		w.t.Fatalf("%v is let into a held lane", t.Owner)
	}
	var class []*Turn
	for _, other := range w.waiting {
		switch p := w.priorities[other]; {
		case p > w.priorities[t]:
			w.t.Fatalf("%v overtook %v, which has priority %d", t.Owner, other.Owner, p)
		case p == w.priorities[t]:
			class = append(class, other)
		}
	}
	if o := w.overload; o != nil {
		if o.on && class[len(class)-1] != t || !o.on && class[0] != t {
			w.t.Fatalf("%v is served out of order, overloaded %v", t.Owner, o.on)
		}
		return
	}
	newest := w.policy.Queue.Target > 0 && class[len(class)-1] == t
	if class[0] != t && !newest {
		w.t.Fatalf("%v overtook %v", t.Owner, class[0].Owner)
	}
}

// checkFull: who comes is refused only when so many wait as may, and nobody goes in its place.
func (w *world) checkFull() {
	others, q := len(w.waiting)-1, w.policy.Queue
	if w.admission == Held || q.Full == WaitAnyway || others < w.policy.MaxQueue || q.Full == ShedOldest && others > 0 {
		w.t.Fatalf("refused with %d waiting by %+v", others, w.policy)
	}
	for _, other := range w.waiting {
		if q.Full == ShedLowest && w.priorities[other] < w.priorities[w.newcomer] {
			w.t.Fatalf("refused although %v has priority %d", other.Owner, w.priorities[other])
		}
	}
}

// checkShed: who is shed has waited too long, or gives its place to the one that comes.
func (w *world) checkShed(t *Turn) {
	q, waited := w.policy.Queue, w.now.Sub(w.arrived[t])
	if w.overload != nil && (!w.overload.on || waited <= q.Target) {
		w.t.Fatalf("%v is shed after %v, overloaded %v", t.Owner, waited, w.overload.on)
	}
	if q.MaxWait > 0 || q.Target > 0 && waited > q.Target {
		return
	}
	if w.newcomer == nil || w.newcomer == t || len(w.waiting)-1 < w.policy.MaxQueue {
		w.t.Fatalf("%v is shed for nothing after %v by %+v", t.Owner, waited, w.policy)
	}
	place := slices.Index(w.waiting, t)
	for i, other := range w.waiting {
		earlier := w.arrived[other].Before(w.arrived[t])
		lower := w.priorities[other] < w.priorities[t] || w.priorities[other] == w.priorities[t] && i > place
		if q.Full == ShedOldest && earlier || q.Full == ShedLowest && lower || q.Full == Refuse || q.Full == WaitAnyway {
			w.t.Fatalf("%v is shed before %v by %+v", t.Owner, other.Owner, w.policy)
		}
	}
}
