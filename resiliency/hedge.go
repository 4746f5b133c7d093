package resiliency

import "time"

// mostHedges bounds Hedge.Max: more attempts at once than this feed an overload.
const mostHedges = 5

// hedge says how long a first or repeated attempt of t may take before another is started beside it, and how many may be;
// 0 for none.
func (m *Machine) hedge(t *Turn) (after time.Duration, most int) {
	if m.policy.Hedge.After == 0 || t.hedge || t.Call.Decided.Hedge || !t.Call.Idempotent && !t.Call.Repeatable {
		return 0, 0
	}
	return m.policy.Hedge.After, m.policy.Hedge.Max
}

// mayHedge reports whether there is room for a hedge now: it takes a free slot or none, and is no probe of a breaker.
func (m *Machine) mayHedge(now time.Time) bool {
	return m.admission == Admitting && m.gate.open() && m.gate.queue.len == 0 && m.breaker.free() && m.budget.spend(now)
}

func (h Hedge) validate(p Policy, check checker) {
	check(h.After >= 0, "hedge delay %v is negative", h.After)
	check(h.Max >= 0 && h.Max <= mostHedges, "%d hedges are not within 0 and %d", h.Max, mostHedges)
	check(h.After > 0 || h.Max == 0, "%d hedges have no effect without a delay", h.Max)
	check(h.After == 0 || p.AttemptTimeout == 0 || h.After < p.AttemptTimeout,
		"hedge delay %v is not shorter than the attempt timeout %v", h.After, p.AttemptTimeout)
}

// Beside is how many attempts may run beside the first.
func (h Hedge) Beside() int { return h.settled().Max }

func (h Hedge) settled() Hedge {
	if h.After <= 0 {
		return Hedge{}
	}
	h.Max = min(max(h.Max, 1), mostHedges)
	return h
}
