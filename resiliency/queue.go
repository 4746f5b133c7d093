package resiliency

import (
	"fmt"
	"math/bits"
	"time"
)

// laneRoom is how many turns a lane lets wait at most where its policy says no number: while it is held, and where those
// who find the queue full wait anyway. A policy with a larger MaxQueue has that.
const laneRoom = 16384

// room is how many turns may wait now.
func (m *Machine) room() int {
	if m.admission == Held || m.gate.queue.rule.Full == WaitAnyway {
		return max(m.gate.room, laneRoom)
	}
	return m.gate.room
}

// makeRoom sheds one of those who wait in favour of t, if the policy would rather have t.
func (m *Machine) makeRoom(now time.Time, t *Turn) bool {
	q := &m.gate.queue
	switch q.rule.Full {
	case ShedOldest:
		if oldest := q.oldest(); oldest != nil {
			m.shed(now, oldest, "the queue was full, and a newer call took its place")
			return true
		}
	case ShedLowest:
		if lowest := q.lowest(); lowest != nil && lowest.priority < t.priority {
			m.shed(now, lowest, "the queue was full, and a call of a higher priority took its place")
			return true
		}
	}
	return false
}

// next takes out of the queue who is served next, and sheds those who should not have waited so long.
func (m *Machine) next(now time.Time) *Turn {
	q := &m.gate.queue
	q.look(now)
	for t := q.stale(now); t != nil; t = q.stale(now) {
		m.shed(now, t, fmt.Sprintf("it is overloaded, and its policy lets calls wait %v then", q.rule.Target))
	}
	for t := q.next(); t != nil; t = q.next() {
		if q.rule.MaxWait <= 0 || q.waited(now, t) < q.rule.MaxWait {
			m.unqueue(now, t)
			return t
		}
		m.shedOverdue(now, t)
	}
	return nil
}

// overdue sheds a turn whose driver says that it has waited for MaxWait. The driver began to count a little earlier than
// the machine; only what was held in between is counted here.
func (m *Machine) overdue(now time.Time, t *Turn) {
	q := &m.gate.queue
	if t.home != m || t.place != queued || q.rule.MaxWait <= 0 || m.admission == Held ||
		t.arrived.Before(q.resumed) && q.waited(now, t) < q.rule.MaxWait {
		return
	}
	m.shedOverdue(now, t)
}

func (m *Machine) shedOverdue(now time.Time, t *Turn) {
	m.shed(now, t, fmt.Sprintf("its policy lets calls wait %v", m.gate.queue.rule.MaxWait))
}

func (m *Machine) shed(now time.Time, t *Turn, why string) {
	m.unqueue(now, t)
	m.refuse(t, m.queueShed(now, t, why))
}

func (m *Machine) unqueue(now time.Time, t *Turn) {
	m.gate.queue.remove(t)
	m.counts.Waited.Observe(now.Sub(t.arrived))
}

func (m *Machine) setAdmission(now time.Time, a Admission) {
	if m.admission == Held && a != Held {
		m.gate.queue.resume(now)
	}
	m.admission = a
	m.releaseHeld(now)
}

// releaseHeld refuses those whom a lane holds that drains for good: nobody would let them in again.
func (m *Machine) releaseHeld(now time.Time) {
	for m.draining && m.admission == Held && m.gate.queue.len > 0 {
		t := m.gate.queue.next()
		m.unqueue(now, t)
		m.refuse(t, m.laneDraining(t))
	}
}

// queue is who waits for a slot of a lane: a fifo for each priority.
type queue struct {
	rule    Queue
	classes [maxPriority + 1]fifo
	used    uint16 // bit n is set while classes[n] is not empty
	len     int
	codel   codel
	// resumed is when the lane last stopped being held. What turns waited before that is not held against them.
	resumed time.Time
}

func (q *queue) push(now time.Time, t *Turn) {
	t.place, t.arrived = queued, now
	q.classes[t.priority].push(t)
	q.used |= 1 << t.priority
	q.len++
}

func (q *queue) remove(t *Turn) {
	t.place = outside
	class := &q.classes[t.priority]
	class.remove(t)
	if class.first == nil {
		q.used &^= 1 << t.priority
	}
	q.len--
}

// next is who is served next, nil when nobody waits: of the highest priority the oldest, or the newest while CoDel finds
// the queue overloaded.
func (q *queue) next() *Turn {
	if q.len == 0 {
		return nil
	}
	class := &q.classes[bits.Len16(q.used)-1]
	if q.codel.overloaded {
		return class.last
	}
	return class.first
}

// oldest is who has waited longest, of equals the one of the lowest priority; nil when nobody waits.
func (q *queue) oldest() (oldest *Turn) {
	for used := q.used; used != 0; used &= used - 1 {
		if t := q.classes[bits.TrailingZeros16(used)].first; oldest == nil || t.arrived.Before(oldest.arrived) {
			oldest = t
		}
	}
	return oldest
}

// lowest is the newest of the lowest priority; nil when nobody waits.
func (q *queue) lowest() *Turn {
	if q.len == 0 {
		return nil
	}
	return q.classes[bits.TrailingZeros16(q.used)].last
}

// waited is how long t has waited for a slot, without what it waited while the lane was held.
func (q *queue) waited(now time.Time, t *Turn) time.Duration {
	if t.arrived.Before(q.resumed) {
		return now.Sub(q.resumed)
	}
	return now.Sub(t.arrived)
}

// look lets CoDel see how long the oldest has waited.
func (q *queue) look(now time.Time) {
	if q.rule.Target <= 0 {
		return
	}
	var longest time.Duration
	if t := q.oldest(); t != nil {
		longest = q.waited(now, t)
	}
	q.codel.see(now, longest > q.rule.Target, q.rule.Interval)
}

// stale is someone who has waited too long while the queue is overloaded, or nil.
func (q *queue) stale(now time.Time) *Turn {
	if !q.codel.overloaded {
		return nil
	}
	if t := q.oldest(); t != nil && q.waited(now, t) > q.rule.Target {
		return t
	}
	return nil
}

// setRule keeps who waits and, while CoDel stays on, what it has seen.
func (q *queue) setRule(rule Queue) {
	q.rule = rule
	if rule.Target <= 0 {
		q.codel = codel{}
	}
}

// resume begins all waits anew.
func (q *queue) resume(now time.Time) {
	q.resumed = now
	q.codel = codel{}
}

// codel says whether a queue is overloaded. It changes its mind when it has seen the contrary for a whole interval: at each
// look, without a break.
type codel struct {
	overloaded bool
	contrary   time.Time // since when; zero = not now
}

func (c *codel) see(now time.Time, late bool, interval time.Duration) {
	switch {
	case late == c.overloaded:
		c.contrary = time.Time{}
	case c.contrary.IsZero():
		c.contrary = now
	case now.Sub(c.contrary) >= interval:
		*c = codel{overloaded: late}
	}
}

// fifo is a queue of turns, linked through the turns themselves so that any can leave it in constant time.
type fifo struct{ first, last *Turn }

func (q *fifo) push(t *Turn) {
	t.prev, t.next = q.last, nil
	if q.last != nil {
		q.last.next = t
	} else {
		q.first = t
	}
	q.last = t
}

func (q *fifo) remove(t *Turn) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		q.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		q.last = t.prev
	}
	t.prev, t.next = nil, nil
}
