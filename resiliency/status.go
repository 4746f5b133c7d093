package resiliency

import (
	"maps"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// Counts are what a lane has done since it was made. They outlive its machine: see Resume.
type Counts struct {
	// Admitted calls, Refused ones, attempts that Failed, attempts beyond the first, and Hedged ones beside another.
	Admitted, Refused, Failed, Retried, Hedged uint64
	// TimedOut is those of Failed whose time was up.
	TimedOut uint64
	// RefusedFor is Refused by reason.
	RefusedFor map[fault.Reason]uint64
	// Waited is how long turns were in the queue, whatever became of them. Those that found a free slot are not in it.
	Waited Histogram
	// Turned is how often the breaker came into each state.
	Turned Turned
}

func (c *Counts) refuse(reason fault.Reason) {
	c.Refused++
	if c.RefusedFor == nil {
		c.RefusedFor = map[fault.Reason]uint64{}
	}
	c.RefusedFor[reason]++
}

// Status is what a lane is doing.
type Status struct {
	// Policy is the name of its policy.
	Policy string `json:"policy"`
	// InFlight calls of at most InFlightLimit (0 = no limit), which moves when the policy is adaptive; Queued calls of at
	// most QueueLimit.
	InFlight      int `json:"inFlight"`
	InFlightLimit int `json:"inFlightLimit"`
	Queued        int `json:"queued"`
	QueueLimit    int `json:"queueLimit"`
	// Calls admitted and refused, attempts failed and attempts beyond the first, since the start.
	Admitted uint64 `json:"admitted"`
	Refused  uint64 `json:"refused"`
	Failed   uint64 `json:"failed"`
	Retried  uint64 `json:"retried"`
	// Hedged is attempts that were started beside another, TimedOut failed ones whose time was up.
	Hedged   uint64 `json:"hedged,omitempty"`
	TimedOut uint64 `json:"timedOut,omitempty"`
	// Fallbacks is calls that a fallback answered.
	Fallbacks uint64 `json:"fallbacks,omitempty"`
	// AttemptTimeout is what bounds the next attempt; 0 = only the call's deadline.
	AttemptTimeout time.Duration `json:"attemptTimeoutNanos,omitempty"`
	// RestLatency is what an adaptive limit takes for the time of an attempt while the target is not busy.
	RestLatency time.Duration `json:"restLatencyNanos,omitempty"`
	// Waited is how long calls were in the queue that had to wait.
	Waited Histogram `json:"waited"`
	// Shedding is the share of calls that overload protection sheds now, Pressure what it last felt.
	Shedding float64  `json:"shedding,omitempty"`
	Pressure Pressure `json:"pressure,omitzero"`
	// Admission is `paused` or `drained` when an operator holds calls back or turns them away.
	Admission Admission `json:"admission,omitempty"`
	// Breaker is `closed`, `open`, `half-open` or `ramping`, and "" where the policy has none and no operator forces one;
	// BreakerReason is why it opened. BreakerForced says that an operator holds it in that state.
	Breaker       string `json:"breaker,omitempty"`
	BreakerReason string `json:"breakerReason,omitempty"`
	BreakerForced bool   `json:"breakerForced,omitempty"`
	// BreakerShare of the calls pass it now, 0 to 1; 0 while half-open, when probes are counted, and where there is none.
	BreakerShare float64 `json:"breakerShare,omitempty"`
	// BreakerOpensIn is how long until an open breaker lets a probe pass.
	BreakerOpensIn time.Duration `json:"breakerOpensInNanos,omitempty"`
	// Endpoints it may choose from.
	Endpoints int `json:"endpoints"`
	// Limits are its rate limits.
	Limits []LimitStatus `json:"limits,omitempty"`
}

// Status describes the machine at now.
func (m *Machine) Status(now time.Time) Status {
	s := Status{
		Policy:         m.policy.Name,
		InFlight:       m.gate.inFlight,
		InFlightLimit:  m.gate.limit,
		Queued:         m.gate.queue.len,
		QueueLimit:     m.room(),
		Admitted:       m.counts.Admitted,
		Refused:        m.counts.Refused,
		Failed:         m.counts.Failed,
		Retried:        m.counts.Retried,
		Hedged:         m.counts.Hedged,
		TimedOut:       m.counts.TimedOut,
		AttemptTimeout: m.stopwatch.timeout(now, m.policy.AttemptTimeout),
		Waited:         m.counts.Waited,
		Shedding:       m.shield.share,
		Pressure:       m.shield.pressure,
		Admission:      m.admission,
		Limits:         m.limiter.status(now),
		RestLatency:    time.Duration(m.adaptive.rest),
	}
	m.breaker.describe(now, &s)
	if m.balancer != nil {
		s.Endpoints = len(m.balancer.endpoints)
	}
	return s
}

// Counts returns what the machine has counted.
func (m *Machine) Counts() Counts {
	c := m.counts
	c.RefusedFor = maps.Clone(c.RefusedFor)
	return c
}

// Resume has m take the place of old, which failed: it goes on counting, and an adaptive limit and its latency at rest stay, so
// that the target is not handed the initial limit at a bad moment. They are two numbers that cannot break what takes them over.
// All else begins afresh, as any of it may be what has failed: the adaptive timeout, too, learns anew, and until it has seen enough
// attempts the policy's own holds, which is the safe one.
func (m *Machine) Resume(old *Machine) {
	m.counts = old.Counts()
	m.adaptive.resume(&old.adaptive)
	m.setLimit()
}
