package resiliency

import (
	"fmt"
	"math"
	"time"
)

const (
	// shieldStep is how often the shield looks at what is overloaded: at the first call or Pressure after so long.
	shieldStep = time.Second
	// shieldRise is how much more of the calls are shed after a look that found an overload, shieldFall how much less for
	// each step without one. Falling slower than it rises keeps it from swinging.
	shieldRise, shieldFall = 0.1, 0.05
	// maxShed is the largest share that is shed: the rest shows whether the overload is over.
	maxShed = 0.95
	// relief is the part of a threshold below which the overload is over. Between the two nothing changes.
	relief = 0.9
	// pressureAge is how long a Pressure is believed: whoever measures it may have died.
	pressureAge = 2 * time.Second
)

// shield sheds a share of the calls while the machine or the lane is overloaded, those of the lowest priority first: when
// the share is 30 % and 20 % of the recent calls had priority 0 and 40 % priority 5, all of the former are shed and a
// quarter of the latter, evenly spaced. Calls of the highest priority and calls that are under way are never shed; hedges
// always are.
type shield struct {
	rule     Protection
	pressure Pressure
	felt     time.Time // when pressure was told
	next     time.Time // look
	share    float64
	worst    measure                  // of the last look
	seen     [maxPriority + 1]float64 // calls by priority; halved with each step
	owed     [maxPriority + 1]float64 // calls by priority that are yet to be shed
}

// measure is one of the things that can be overloaded.
type measure struct {
	name        string
	at, allowed string
	severity    float64 // over 1 is an overload
}

func (s *shield) setRule(rule Protection) {
	s.rule = rule
	if !s.on() {
		*s = shield{}
	}
}

func (s *shield) on() bool { return s.rule != Protection{} }

func (s *shield) feel(now time.Time, p Pressure) { s.pressure, s.felt = p, now }

// look sees whether something is overloaded, if that is due; waited is how long the head of the queue has waited.
func (s *shield) look(now time.Time, waited time.Duration) {
	if now.Before(s.next) {
		return
	}
	steps := 1.0
	if !s.next.IsZero() {
		steps += float64(now.Sub(s.next) / shieldStep)
	}
	s.next = now.Add(shieldStep)
	for i := range s.seen {
		s.seen[i] /= math.Exp2(steps)
	}
	s.worst = s.measure(now, waited)
	switch {
	case s.worst.severity > 1:
		s.share = min(s.share+shieldRise, maxShed)
	case s.worst.severity <= relief:
		s.share = max(s.share-shieldFall*steps, 0)
	}
	if s.share < shieldFall/2 { // what remains of rounding
		s.share = 0
		clear(s.owed[:])
	}
}

// measure returns the worst of what has a threshold.
func (s *shield) measure(now time.Time, waited time.Duration) (worst measure) {
	compare := func(name string, severity float64, at, allowed any) {
		if severity > worst.severity {
			worst = measure{name, fmt.Sprint(at), fmt.Sprint(allowed), severity}
		}
	}
	if now.Sub(s.felt) <= pressureAge {
		if s.rule.CPU > 0 {
			compare("the CPU", s.pressure.CPU/s.rule.CPU, percent(s.pressure.CPU), percent(s.rule.CPU))
		}
		if s.rule.Memory > 0 {
			compare("the memory", s.pressure.Memory/s.rule.Memory, percent(s.pressure.Memory), percent(s.rule.Memory))
		}
	}
	if s.rule.QueueDelay > 0 {
		compare("the queue's delay", float64(waited)/float64(s.rule.QueueDelay), waited.Round(time.Millisecond), s.rule.QueueDelay)
	}
	return worst
}

// sheds decides about one more call.
func (s *shield) sheds(t *Turn) bool {
	if t.hedge {
		return s.share > 0
	}
	s.seen[t.priority]++
	if s.share == 0 || t.priority == maxPriority {
		return false
	}
	all, below := 0.0, 0.0
	for priority, n := range s.seen {
		all += n
		if priority < int(t.priority) {
			below += n
		}
	}
	s.owed[t.priority] += min(max((s.share*all-below)/s.seen[t.priority], 0), 1)
	if s.owed[t.priority] < 1 {
		return false
	}
	s.owed[t.priority]--
	return true
}

// sheds reports whether t, which comes for the first time, is shed.
func (m *Machine) sheds(now time.Time, t *Turn) bool {
	if !m.shield.on() {
		return false
	}
	m.lookAround(now)
	return t.tries == 0 && !t.conforms && m.shield.sheds(t)
}

// lookAround lets the shield see what is overloaded. Who waits because an operator holds the lane is no sign of it.
func (m *Machine) lookAround(now time.Time) {
	if !m.shield.on() {
		return
	}
	var waited time.Duration
	if m.shield.rule.QueueDelay > 0 && m.admission != Held {
		if t := m.gate.queue.oldest(); t != nil {
			waited = m.gate.queue.waited(now, t)
		}
	}
	m.shield.look(now, waited)
}

func (p Protection) validate(check checker) {
	check(p.CPU >= 0 && p.CPU <= 1, "CPU threshold %v is not a share from 0 to 1", p.CPU)
	check(p.Memory >= 0 && p.Memory <= 1, "memory threshold %v is not a share from 0 to 1", p.Memory)
	check(p.QueueDelay >= 0, "queue delay %v is negative", p.QueueDelay)
}

func (p Protection) settled() Protection {
	return Protection{CPU: share(p.CPU), Memory: share(p.Memory), QueueDelay: max(p.QueueDelay, 0)}
}

func share(s float64) float64 { return min(max(s, 0), 1) }
