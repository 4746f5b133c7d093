package resiliency

import (
	"time"

	"github.com/sidecast/sidecast/fault"
)

func (p *Pieces) validate(check checker) {
	if p == nil {
		return
	}
	check(p.CallTimeout >= 0, "call timeout %v in pieces is negative", p.CallTimeout)
	check(p.AttemptTimeout >= 0, "attempt timeout %v in pieces is negative", p.AttemptTimeout)
	check(p.MaxInFlight >= 0 && p.MaxInFlight <= maxHeld, "max in flight %d in pieces is not within 0 and %d", p.MaxInFlight, maxHeld)
}

// within bounds the next attempt of t.
func (m *Machine) within(now time.Time, t *Turn) time.Duration {
	switch {
	case t.Call.Decided.Timeout:
		return 0
	case !t.Call.InPieces:
		return m.stopwatch.timeout(now, m.policy.AttemptTimeout)
	case m.policy.Pieces != nil:
		return m.policy.Pieces.AttemptTimeout
	}
	return m.policy.AttemptTimeout
}

// crowds says that t would be one too many of those in pieces.
func (m *Machine) crowds(t *Turn) bool {
	p := m.policy.Pieces
	return t.Call.InPieces && p != nil && p.MaxInFlight > 0 && m.gate.inPieces >= p.MaxInFlight
}

func (m *Machine) crowded(t *Turn) error {
	return fault.New(t.Call.Op, fault.QueueFull, "lane %s has %d streams and calls in pieces in flight, and leaves the rest of its "+
		"places to other calls", m.lane, m.gate.inPieces).After(m.gate.retryAfter())
}

// begun takes note that the answer to an attempt has begun well, which is all that a half-open breaker waits for: the rest may
// take hours, and says nothing more to it.
func (m *Machine) begun(now time.Time, t *Turn, took time.Duration) {
	if t.home != m || t.place != inFlight || !m.breaker.probedBy(t.era) {
		return
	}
	m.breaker.settle(now, t.era, good, took, nil)
	t.era = 0
}
