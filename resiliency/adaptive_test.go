package resiliency

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

var adaptiveKeys = map[string]policyKey{
	"adaptive":      func(t *testing.T, p *Policy, v string) { p.Adaptive.Algorithm = AdaptiveAlgorithm(v) },
	"min":           func(t *testing.T, p *Policy, v string) { p.Adaptive.Min = number(t, v) },
	"initial-limit": func(t *testing.T, p *Policy, v string) { p.Adaptive.Initial = number(t, v) },
	"max":           func(t *testing.T, p *Policy, v string) { p.Adaptive.Max = number(t, v) },
	"tolerance": func(t *testing.T, p *Policy, v string) {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil {
			t.Fatal(err)
		}
		p.Adaptive.Tolerance = f
	},
}

// simulation is a lane in front of a server in virtual time: the server works on so many calls at once, each for about so
// long, and keeps the others waiting without limit. Callers ask again when they were answered, or refused.
type simulation struct {
	machine *Machine
	random  *rand.Rand
	now     time.Time
	events  events

	workers int
	service time.Duration
	working int
	waiting []*job
	served  int
}

// job is one call; its caller lives on.
type job struct {
	at      time.Time // of the next event
	finish  bool      // of the attempt; or else the caller enters
	granted time.Time
	turn    Turn
}

type events []*job

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at.Before(e[j].at) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(*job)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func newSimulation(p Policy, workers int, service time.Duration, callers int, seed uint64) *simulation {
	s := &simulation{
		machine: New("l", p), random: rand.New(rand.NewPCG(seed, 0)), now: epoch, workers: workers, service: service,
	}
	for range callers {
		s.enterAt(&job{}, epoch.Add(time.Duration(s.random.Int64N(int64(service)))))
	}
	return s
}

func (s *simulation) enterAt(j *job, at time.Time) {
	j.turn.Begin(Call{Op: "call"}, j)
	j.at, j.finish = at, false
	heap.Push(&s.events, j)
}

// run lets so much time pass and returns how many calls were served a second, and the mean limit.
func (s *simulation) run(t time.Duration) (perSecond, limit float64) {
	end := s.now.Add(t)
	s.served = 0
	steps := 0
	for s.events[0].at.Before(end) {
		j := heap.Pop(&s.events).(*job)
		s.now = j.at
		if j.finish {
			s.finish(j)
		} else {
			s.decide(s.machine.Step(s.now, Enter{&j.turn}))
		}
		limit += float64(s.machine.adaptive.limit)
		steps++
	}
	s.now = end
	return float64(s.served) / t.Seconds(), limit / float64(steps)
}

func (s *simulation) decide(decisions []Decision) {
	for _, d := range decisions {
		j := d.Turn.Owner.(*job)
		switch d.Verb {
		case Go:
			j.granted = s.now
			s.waiting = append(s.waiting, j)
			s.work()
		case GiveUp:
			s.enterAt(j, s.now.Add(s.service))
		}
	}
}

// work has free workers take what waits; a call takes 10 % more or less than the others.
func (s *simulation) work() {
	for s.working < s.workers && len(s.waiting) > 0 {
		j := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.working++
		j.finish = true
		j.at = s.now.Add(time.Duration(float64(s.service) * (0.9 + 0.2*s.random.Float64())))
		heap.Push(&s.events, j)
	}
}

func (s *simulation) finish(j *job) {
	s.working--
	s.served++
	s.decide(s.machine.Step(s.now, &Outcome{Turn: &j.turn, Took: s.now.Sub(j.granted)}))
	s.enterAt(j, s.now)
	s.work()
}

// TestAdaptiveLimitFollowsCapacity: in front of a server that can do so many calls at once, the limit comes to stand near
// that number and stays there however long the overload lasts; it falls when the server can do less, and rises again.
func TestAdaptiveLimitFollowsCapacity(t *testing.T) {
	for _, algorithm := range []AdaptiveAlgorithm{Gradient, Vegas} {
		for workers, service := range map[int]time.Duration{4: 20 * time.Millisecond, 16: 50 * time.Millisecond, 64: 200 * time.Millisecond} {
			if testing.Short() && workers > 4 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d/%v", algorithm, workers, service), func(t *testing.T) {
				t.Parallel()
				seed := rand.Uint64()
				p := Policy{Adaptive: Adaptive{Algorithm: algorithm, Min: 2}, MaxQueue: workers}
				s := newSimulation(p.settled(), workers, service, 5*workers, seed)
				near := func(when string, workers int) {
					t.Helper()
					perSecond, limit := s.run(30 * time.Second)
					capacity := float64(workers) / service.Seconds()
					if limit < float64(workers) || limit > 2.5*float64(workers)+4 {
						t.Errorf("%s: the limit is %.1f for %d workers (seed %d)", when, limit, workers, seed)
					}
					if perSecond < 0.85*capacity {
						t.Errorf("%s: %.0f a second of %.0f (seed %d)", when, perSecond, capacity, seed)
					}
				}
				s.run(time.Minute)
				near("at first", workers)
				s.run(2 * time.Minute)
				near("later", workers)
				s.workers = workers / 4
				s.run(90 * time.Second)
				near("with a quarter of the workers", s.workers)
				s.workers = workers
				s.run(time.Minute)
				near("with all of them again", workers)
			})
		}
	}
}

// TestAdaptiveLimitRestsWhileUnused: what is not used does not grow.
func TestAdaptiveLimitRestsWhileUnused(t *testing.T) {
	for _, algorithm := range []AdaptiveAlgorithm{Gradient, Vegas} {
		s := newSimulation(Policy{Adaptive: Adaptive{Algorithm: algorithm}}.settled(), 100, 50*time.Millisecond, 9, 1)
		if _, limit := s.run(5 * time.Minute); limit != 20 {
			t.Errorf("%s: 9 callers moved the limit from 20 to %.1f", algorithm, limit)
		}
	}
}

func TestAdaptiveValidate(t *testing.T) {
	for _, wrong := range []Adaptive{
		{Algorithm: "reno"}, {Min: 3}, {Algorithm: Vegas, Min: -1}, {Algorithm: Vegas, Min: 5, Max: 4},
		{Algorithm: Vegas, Initial: 3, Min: 4}, {Algorithm: Gradient, Initial: 9, Max: 8}, {Algorithm: Gradient, Tolerance: 1},
	} {
		if err := (Policy{Adaptive: wrong}).Validate(); err == nil {
			t.Errorf("%+v is taken", wrong)
		}
		settled := wrong.settled(0)
		if err := (Policy{Adaptive: settled}).Validate(); err != nil {
			t.Errorf("%+v is settled as %+v: %v", wrong, settled, err)
		}
	}
	if p := (Policy{Adaptive: Adaptive{Algorithm: Vegas}, MaxInFlight: 3}).settled(); p.Adaptive != (Adaptive{Vegas, 3, 3, 3, 1.5}) {
		t.Errorf("beside a limit of 3 it is %+v", p.Adaptive)
	}
}

// A machine that takes the place of one that failed goes on with its limit, unless that cannot be one.
func TestAdaptiveLimitOutlivesItsMachine(t *testing.T) {
	policy := Policy{Adaptive: Adaptive{Algorithm: Gradient, Min: 2, Initial: 20, Max: 100}}
	other := policy
	other.Adaptive.Algorithm = Vegas
	narrow := policy
	narrow.Adaptive.Initial, narrow.Adaptive.Max = 4, 5
	for _, c := range []struct {
		name        string
		policy      Policy
		limit, rest float64
		want        int
		wantRest    time.Duration
	}{
		{"as it was", policy, 7.5, 3e6, 7, 3 * time.Millisecond},
		{"within new bounds", narrow, 7.5, 3e6, 5, 3 * time.Millisecond},
		{"of another algorithm", other, 7.5, 3e6, 20, 0},
		{"no number", policy, math.NaN(), 3e6, 20, 0},
		{"no latency", policy, 7.5, math.NaN(), 20, 0},
		{"an endless latency", policy, 7.5, math.Inf(1), 20, 0},
		{"below one", policy, -3, 3e6, 20, 0},
	} {
		old := New("lane", policy)
		old.adaptive.limit, old.adaptive.rest, old.adaptive.phase = c.limit, c.rest, measuring
		next := New("lane", c.policy)
		next.Resume(old)
		if s := next.Status(time.Time{}); s.InFlightLimit != c.want || s.RestLatency != c.wantRest {
			t.Errorf("%s: limit %d, %v at rest; want %d, %v", c.name, s.InFlightLimit, s.RestLatency, c.want, c.wantRest)
		}
	}
}
