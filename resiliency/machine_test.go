package resiliency

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what a driver sees of a machine: the model that the property test holds it to.
type world struct {
	t         *rapid.T
	machine   *Machine
	policy    Policy
	endpoints []Endpoint
	balanced  bool
	draining  bool
	admission Admission
	forced    Forced
	now       time.Time

	priorities map[*Turn]int // as the policy in force at their first Enter tells
	newcomer   *Turn         // of an Enter under way
	overload   *overload     // nil = unknown
	arrived    map[*Turn]time.Time

	hedges  map[*Turn]bool
	waiting []*Turn // entered, not answered, in order of arrival
	running []*Turn // granted, not reported
	resting []*Turn // told to come again
	entered int     // Enter events, each answered once or left
	answers int
	left    int
}

// step applies an event and checks every decision against what the model knows. reported is the turn of an Outcome.
func (w *world) step(event Event, reported *Turn) {
	for _, d := range w.machine.Step(w.now, event) {
		if d.Turn == reported {
			reported = nil
			w.verdict(d)
			continue
		}
		w.answer(d)
	}
	if reported != nil {
		w.t.Fatalf("the outcome of %v was not answered", reported.Owner)
	}
	w.check()
}

// hedge enters a turn that is granted at once, within the semaphore, or given up; whoever waits is not overtaken.
func (w *world) hedge() {
	turn := new(Turn)
	turn.BeginHedge(Call{Op: "op", Idempotent: true}, "hedge", "a")
	waiting := len(w.waiting)
	w.waiting = append(w.waiting, turn)
	w.entered++
	decisions := slices.Clone(w.machine.Step(w.now, Enter{turn}))
	w.waiting = w.waiting[:waiting]
	w.answers++
	if len(decisions) != 1 || decisions[0].Turn != turn {
		w.t.Fatalf("a hedge was answered with %v", decisions)
	}
	switch d := decisions[0]; d.Verb {
	case Go:
		if waiting > 0 || w.admission != Admitting || w.draining {
			w.t.Fatalf("a hedge was let in before %d turns (admission %q)", waiting, w.admission)
		}
		w.hedges[turn] = true
		w.granted(d)
	case GiveUp:
		w.givenUp(d)
	default:
		w.t.Fatalf("a hedge was answered %v", d.Verb)
	}
	w.check()
}

// verdict is the answer to an outcome. That of a hedge is always Done.
func (w *world) verdict(d Decision) {
	if w.hedges[d.Turn] && d.Verb != Done {
		w.t.Fatalf("the outcome of a hedge was answered %v", d.Verb)
	}
	switch d.Verb {
	case Again:
		w.resting = append(w.resting, d.Turn)
	case GiveUp:
		w.givenUp(d)
	case Done:
	default:
		w.t.Fatalf("outcome answered with %v", d.Verb)
	}
}

// answer is the answer to an Enter. Turns leave the queue in the order they came.
func (w *world) answer(d Decision) {
	i := slices.Index(w.waiting, d.Turn)
	if i < 0 {
		w.t.Fatalf("%v was answered %v but did not ask", d.Turn.Owner, d.Verb)
	}
	w.checkQueue(d)
	w.waiting = slices.Delete(w.waiting, i, i+1)
	w.answers++
	switch d.Verb {
	case Go:
		w.granted(d)
	case Again:
		w.resting = append(w.resting, d.Turn)
	case GiveUp:
		w.givenUp(d)
	default:
		w.t.Fatalf("enter answered with %v", d.Verb)
	}
}

func (w *world) granted(d Decision) {
	w.running = append(w.running, d.Turn)
	if limit := w.policy.MaxInFlight; limit > 0 && len(w.running) > limit {
		w.t.Fatalf("granted with %d in flight of at most %d", len(w.running), limit)
	}
	if pieces, most := w.pieces(); d.Turn.Call.InPieces && pieces > most {
		w.t.Fatalf("granted with %d in pieces of at most %d", pieces, most)
	}
	if w.balanced != (d.Endpoint != "") {
		w.t.Fatalf("endpoint %q of a lane that is balanced=%v", d.Endpoint, w.balanced)
	}
	if !d.Turn.Call.Deadline.IsZero() && (d.Deadline.IsZero() || d.Deadline.After(d.Turn.Call.Deadline)) {
		w.t.Fatalf("grant until %v passes the deadline %v", d.Deadline, d.Turn.Call.Deadline)
	}
}

// pieces are how many run in pieces and may.
func (w *world) pieces() (running, most int) {
	for _, turn := range w.running {
		if turn.Call.InPieces {
			running++
		}
	}
	if p := w.policy.Pieces; p != nil && p.MaxInFlight > 0 {
		return running, p.MaxInFlight
	}
	return running, math.MaxInt
}

func (w *world) givenUp(d Decision) {
	var f *fault.Error
	if !errors.As(d.Err, &f) || f.Meta["lane"] != "lane" || f.Meta["policy"] != w.policy.Name || f.Meta["attempts"] == "" {
		w.t.Fatalf("given up with %#v", d.Err)
	}
}

func (w *world) check() {
	s := w.machine.Status(w.now)
	if s.InFlight != len(w.running) || s.Queued != len(w.waiting) {
		w.t.Fatalf("machine has %d in flight and %d queued, model %d and %d", s.InFlight, s.Queued, len(w.running), len(w.waiting))
	}
	if w.machine.Idle() != (len(w.running)+len(w.waiting) == 0) {
		w.t.Fatal("idle is wrong")
	}
	if w.entered != w.answers+w.left+len(w.waiting) {
		w.t.Fatalf("%d entered, %d answered, %d left, %d wait", w.entered, w.answers, w.left, len(w.waiting))
	}
	if len(w.waiting) > 0 && w.draining && w.admission == Held {
		w.t.Fatal("a drained lane holds turns")
	}
	if len(w.waiting) > 0 && w.admission != Held && (w.policy.MaxInFlight == 0 || len(w.running) < w.policy.MaxInFlight) {
		w.t.Fatal("a turn waits beside a free slot")
	}
}

func (w *world) enter(t *Turn) {
	w.waiting = append(w.waiting, t)
	w.entered++
	w.arrived[t] = w.now
	w.newcomer = t
	w.step(Enter{t}, nil)
	w.newcomer = nil
}

func (w *world) report(i int, err error) {
	turn := w.running[i]
	w.running = slices.Delete(w.running, i, i+1)
	w.step(&Outcome{Turn: turn, Err: err, Took: 3 * time.Millisecond}, turn)
}

func drawPolicy(t *rapid.T) Policy {
	return Policy{
		Name:           "p",
		MaxInFlight:    rapid.IntRange(0, 3).Draw(t, "in flight"),
		MaxQueue:       rapid.IntRange(0, 4).Draw(t, "queue"),
		CallTimeout:    rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "call timeout"),
		AttemptTimeout: rapid.SampledFrom([]time.Duration{0, 300 * time.Millisecond}).Draw(t, "attempt timeout"),
		Retry:          Retry{Max: rapid.IntRange(-1, 2).Draw(t, "retries"), Jitter: 0.5, Budget: rapid.SampledFrom([]Budget{{}, {Share: .3}}).Draw(t, "budget")},
		Hedge:          rapid.SampledFrom([]Hedge{{}, {After: time.Millisecond}}).Draw(t, "hedge"),
		Mode:           rapid.SampledFrom([]FailureMode{ModeNone, ModeNone, Failfast, Failover, Failback, Failcache}).Draw(t, "mode"),
		Breaker:        drawBreaker(t),
		Queue:          drawQueue(t),
		Limits:         drawLimits(t),
		Pieces:         rapid.SampledFrom([]*Pieces{nil, {}, {CallTimeout: time.Second, MaxInFlight: 1}, {AttemptTimeout: time.Second, MaxInFlight: 2}}).Draw(t, "pieces"),
	}
}

func drawError(t *rapid.T) error {
	reasons := []fault.Reason{"", "", "", fault.InstanceLost, fault.NoResponders, fault.AttemptTimeout, fault.QueueFull,
		fault.BadRequest, fault.AppFailed, fault.CallCanceled, fault.BreakerOpen}
	reason := rapid.SampledFrom(reasons).Draw(t, "outcome")
	if reason == "" {
		return nil
	}
	return fault.New("attempt", reason, "it failed")
}

// TestMachineModel drives machines with any events in any order, as drivers do, and holds them to the model: the
// semaphore is never exceeded, order is kept, each question is answered exactly once, no slot is lost.
func TestMachineModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, policy: drawPolicy(t), now: epoch, balanced: rapid.Bool().Draw(t, "balanced"),
			priorities: map[*Turn]int{}, arrived: map[*Turn]time.Time{}, hedges: map[*Turn]bool{}}
		w.replace()
		serial := 0
		pick := func(turns []*Turn) int { return rapid.IntRange(0, len(turns)-1).Draw(t, "which") }
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				serial++
				call := Call{Op: "op", Idempotent: rapid.Bool().Draw(t, "idempotent"), InPieces: rapid.Bool().Draw(t, "in pieces")}
				if rapid.Bool().Draw(t, "bounded") {
					call.Deadline = w.now.Add(rapid.SampledFrom([]time.Duration{-1, 0, time.Second}).Draw(t, "deadline"))
				}
				turn := new(Turn)
				w.priorities[turn] = w.drawPriority(t, &call)
				turn.Begin(call, serial)
				w.enter(turn)
			},
			"again": func(t *rapid.T) {
				if len(w.resting) == 0 {
					t.Skip("nobody")
				}
				i := pick(w.resting)
				turn := w.resting[i]
				w.resting = slices.Delete(w.resting, i, i+1)
				w.enter(turn)
			},
			"hedge": func(t *rapid.T) { w.hedge() },
			"begun": func(t *rapid.T) {
				if len(w.running) == 0 {
					t.Skip("nobody")
				}
				w.step(Begun{w.running[pick(w.running)], time.Millisecond}, nil)
			},
			"outcome": func(t *rapid.T) {
				if len(w.running) == 0 {
					t.Skip("nobody")
				}
				w.report(pick(w.running), drawError(t))
			},
			"leave": func(t *rapid.T) {
				switch {
				case len(w.waiting) > 0 && rapid.Bool().Draw(t, "waiting"):
					i := pick(w.waiting)
					turn := w.waiting[i]
					w.waiting = slices.Delete(w.waiting, i, i+1)
					w.left++
					w.step(Leave{turn}, nil)
				case len(w.running) > 0:
					i := pick(w.running)
					turn := w.running[i]
					w.running = slices.Delete(w.running, i, i+1)
					w.step(Leave{turn}, nil)
				case len(w.resting) > 0:
					w.step(Leave{w.resting[0]}, nil)
				}
			},
			"time": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(0, 900).Draw(t, "ms")) * time.Millisecond)
			},
			"policy":    func(t *rapid.T) { w.policy = drawPolicy(t); w.step(SetPolicy{w.policy}, nil) },
			"endpoints": func(t *rapid.T) { w.setEndpoints(t) },
			"replace":   func(t *rapid.T) { w.replace() },
			"admission": func(t *rapid.T) { w.admit(t) },
			"crowd":     w.crowd,
			"overdue":   func(t *rapid.T) { w.overdue(t) },
			"force": func(t *rapid.T) {
				w.forced = rapid.SampledFrom([]Forced{NotForced, NotForced, ForcedOpen, ForcedClosed}).Draw(t, "to")
				w.step(ForceBreaker{w.forced}, nil)
			},
			"drain": func(t *rapid.T) { w.drain(t) },
		})
		w.admission = Admitting
		w.step(SetAdmission{Admitting}, nil)
		for len(w.running) > 0 {
			w.report(0, nil)
		}
		if !w.machine.Idle() {
			t.Fatal("turns wait while nobody runs")
		}
	})
}

func (w *world) setEndpoints(t *rapid.T) {
	ids := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3).Draw(t, "endpoints")
	w.endpoints = nil
	for _, id := range ids {
		w.endpoints = append(w.endpoints, Endpoint{ID: id, Weight: len(w.endpoints)})
	}
	w.step(SetEndpoints{w.endpoints}, nil)
}

func (w *world) drain(t *rapid.T) {
	if rapid.IntRange(0, 20).Draw(t, "drain") == 0 {
		w.draining = true
		w.step(Drain{}, nil)
	}
}

// replace puts a new machine in the place of the old one, as a restart does: those who wait are told, those who run are
// adopted.
func (w *world) replace() {
	old := w.machine
	if w.machine = New("lane", w.policy); w.balanced {
		w.machine = NewBalanced("lane", w.policy)
	}
	forgotten := w.waiting
	w.left += len(w.waiting)
	w.waiting = nil
	running := w.running
	w.running = nil
	if old != nil {
		w.machine.Resume(old)
	}
	w.step(SetEndpoints{w.endpoints}, nil)
	for _, turn := range running {
		w.running = append(w.running, turn)
		w.step(Adopt{turn}, nil)
	}
	w.step(SetAdmission{w.admission}, nil)
	w.step(ForceBreaker{w.forced}, nil)
	if w.draining {
		w.step(Drain{}, nil)
	}
	for _, turn := range forgotten {
		w.step(Leave{turn}, nil)
	}
}

// TestFastPath: a call that is admitted at once and succeeds costs no allocation.
func TestFastPath(t *testing.T) {
	m := NewBalanced("lane", Policy{MaxInFlight: 4, MaxQueue: 4, CallTimeout: time.Second, Breaker: Breaker{Failures: 3, Ratio: .9, SlowRatio: .9, SlowAfter: time.Second, WindowTime: time.Second}})
	m.Step(epoch, SetEndpoints{[]Endpoint{{ID: "a"}, {ID: "b"}}})
	turn := new(Turn)
	outcome := &Outcome{Turn: turn, Took: time.Millisecond}
	call := Call{Op: "op", Deadline: epoch.Add(time.Hour)}
	pass := func() {
		turn.Begin(call, turn)
		m.Step(epoch, Enter{turn})
		m.Step(epoch, outcome)
	}
	pass()
	if n := testing.AllocsPerRun(100, pass); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkStep(b *testing.B) {
	m := New("lane", Policy{MaxInFlight: 4, MaxQueue: 4, Breaker: Breaker{Failures: 3}})
	turn := new(Turn)
	outcome := &Outcome{Turn: turn, Took: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		turn.Begin(Call{Op: "op"}, turn)
		m.Step(epoch, Enter{turn})
		m.Step(epoch, outcome)
	}
}

func TestRetryNeverStopsByItself(t *testing.T) {
	turn := new(Turn)
	turn.Begin(Call{Op: "op", Idempotent: true}, nil)
	policy := Policy{Retry: Retry{Max: -1, Initial: time.Minute, MaxInterval: time.Hour, Jitter: 0.5}}.settled()
	for range 1000 {
		wait, ok := policy.again(epoch, turn, fault.New("op", fault.InstanceLost, "gone"), false)
		if !ok || wait <= 0 || wait > 90*time.Minute {
			t.Fatalf("waits %v, %v", wait, ok)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Policy{Name: "ok", CallTimeout: time.Second, AttemptTimeout: time.Second, MaxInFlight: 1, MaxQueue: 1, Retry: Retry{Max: -1, Multiplier: 1, Jitter: 1}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, p := range map[string]Policy{
		"call timeout":     {CallTimeout: -1},
		"longer than the":  {CallTimeout: 1, AttemptTimeout: 2},
		"no effect":        {MaxQueue: 1},
		"max retries":      {Retry: Retry{Max: -2}},
		"initial retry":    {Retry: Retry{Initial: 2, MaxInterval: 1}},
		"multiplier":       {Retry: Retry{Multiplier: 0.5}},
		"jitter":           {Retry: Retry{Jitter: 1.5}},
		"random by itself": {Retry: Retry{Jitter: .5, Backoff: FullJitter}},
		"retry backoff":    {Retry: Retry{Backoff: "fibonacci"}},
		"no failure has":   {Retry: Retry{On: Match{Kinds: []fault.Kind{fault.None}}}},
		"errors.md":        {Retry: Retry{On: Match{Reasons: []fault.Reason{"TYPO"}}}},
		"gRPC codes 4-17":  {Retry: Retry{On: Match{Codes: []Range{{4, 17}}}}},
		"HTTP statuses 99": {Retry: Retry{On: Match{Statuses: []Range{{99, 99}}}}},
		"budget share":     {Retry: Retry{Budget: Budget{Share: 2}}},
		"per second":       {Retry: Retry{Budget: Budget{PerSecond: -1}}},
		"failure mode \"x": {Mode: "x"},
		"tries once":       {Mode: Failfast, Retry: Retry{Max: 1}},
		"but a fallback":   {Mode: Failback, Fallback: &Fallback{App: "b"}},
		"needs a fallback": {Mode: Failsafe},
		"hedge delay":      {Hedge: Hedge{After: 2}, AttemptTimeout: 1},
		"hedges":           {Hedge: Hedge{After: 1, Max: 9}},
		"quantile":         {AdaptiveTimeout: AdaptiveTimeout{Quantile: 99.9}},
		"its max":          {AdaptiveTimeout: AdaptiveTimeout{Quantile: .9, Min: 2, Max: 1}},
		"exactly one":      {Fallback: &Fallback{App: "b", Status: 200}},
		"status 42":        {Fallback: &Fallback{Status: 42}},
		"no status":        {Fallback: &Fallback{App: "b", Body: []byte("x")}},
		"does not keep":    {Fallback: &Fallback{App: "b", MaxAge: 1}},
		"breaker failures": {Breaker: Breaker{Failures: -1}},
		"breaker probes":   {Breaker: Breaker{Probes: -1}},
	} {
		err := p.Validate()
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", p, err, want)
		}
	}
}

// TestExplain: what a lane answers keeps what its cause said, and adds the facts of the lane.
func TestExplain(t *testing.T) {
	cause := fault.New("invoke a/b", fault.QueueFull, "too many").After(time.Second).With("app", "a")
	wrapped := errors.Join(errors.New("context"), cause)
	plain := errors.New("plain")
	for _, c := range []struct {
		err    error
		kind   fault.Kind
		reason fault.Reason
		after  time.Duration
	}{
		{cause, fault.Exhausted, fault.QueueFull, time.Second},
		{wrapped, fault.Exhausted, fault.QueueFull, time.Second},
		{plain, fault.Internal, fault.Defect, 0},
	} {
		got := Explain("l", "p", "op", 3, c.err)
		if got.Kind != c.kind || got.Reason != c.reason || got.RetryAfter != c.after || got.Meta["attempts"] != "3" {
			t.Errorf("%v became %#v", c.err, got)
		}
		if !strings.Contains(got.Error(), "3 attempts") {
			t.Errorf("%v does not say how often", got)
		}
	}
	if len(cause.Meta) != 1 {
		t.Errorf("the cause was changed: %v", cause.Meta)
	}
	if !errors.Is(Explain("l", "p", "op", 1, plain), plain) {
		t.Error("the cause is lost")
	}
}
