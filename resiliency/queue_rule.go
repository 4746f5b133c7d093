package resiliency

import (
	"strconv"
	"strings"
	"time"
)

const (
	defaultPriority = 5 // of a call that states none
	maxPriority     = 9
	defaultInterval = 100 * time.Millisecond
)

// priority of a call with header h.
func (q Queue) priority(h Header) uint8 {
	if q.PriorityHeader == "" || h == nil {
		return defaultPriority
	}
	n, err := strconv.Atoi(strings.TrimSpace(h.Get(q.PriorityHeader)))
	if err != nil {
		return defaultPriority
	}
	return uint8(min(max(n, 0), maxPriority))
}

func (q Queue) validate(p Policy, check checker) {
	limited := p.MaxInFlight > 0 || p.Adaptive.Algorithm != NotAdaptive
	check(limited || p.MaxQueue <= 0, "max queue %d has no effect without max in flight", p.MaxQueue)
	check(limited || q == Queue{} || q == Queue{PriorityHeader: q.PriorityHeader},
		"nobody waits in a queue without max in flight")
	switch q.Full {
	case Refuse, WaitAnyway, ShedOldest:
	case ShedLowest:
		check(q.PriorityHeader != "", "a full queue cannot shed the lowest priority without a priority header")
	default:
		check(false, "a full queue does not know %q; it can %q, %q, %q or, left out, refuse",
			string(q.Full), string(WaitAnyway), string(ShedOldest), string(ShedLowest))
	}
	check(q.MaxWait >= 0, "max wait in the queue %v is negative", q.MaxWait)
	check(q.Target >= 0, "queue target %v is negative", q.Target)
	check(q.Interval >= 0, "queue interval %v is negative", q.Interval)
	check(q.Interval == 0 || q.Target != 0, "queue interval %v has no effect without a target", q.Interval)
	check(q.MaxWait <= 0 || q.Target <= q.MaxWait, "queue target %v is longer than the max wait %v", q.Target, q.MaxWait)
}

func (q Queue) settled() Queue {
	switch q.Full {
	case WaitAnyway, ShedOldest, ShedLowest:
	default:
		q.Full = Refuse
	}
	q.PriorityHeader = strings.ToLower(q.PriorityHeader)
	q.MaxWait, q.Target, q.Interval = max(q.MaxWait, 0), max(q.Target, 0), max(q.Interval, 0)
	if q.Interval == 0 {
		q.Interval = defaultInterval
	}
	return q
}
