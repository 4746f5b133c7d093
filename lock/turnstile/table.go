package turnstile

import (
	"container/list"
	"time"

	"github.com/sidecast/sidecast/agenda"
	"github.com/sidecast/sidecast/lock"
)

// table knows who holds each lock and who stands in line for it. It is pure: it starts nothing, reads no clock and does
// no I/O. Every method that takes the time first ends the leases that ran out by then, so a table asked late answers the
// same as one asked in time. What a step did it tells through tell, in order.
type table struct {
	seats map[string]*seat
	due   *agenda.Agenda[*seat] // those that are held, by the end of their lease
	token uint64                // the last one given out
	tell  func(change)
}

// change is one thing a step did to a lock: gave it to the waiter to, let holder go on, or (to is nil and the lease is
// nil) made it free. A lock whose line alone changed is told with line set.
type change struct {
	seat  *seat
	lease *lock.Lease
	to    *waiter
	line  bool
}

// waiter is one caller of Acquire, in line or just given its turn.
type waiter struct {
	owner string
	ttl   time.Duration
	seat  *seat
	place *list.Element // nil when not in line
	turn  chan turn     // room for one: written when the waiter becomes the holder
}

// seat is one lock that is held, waited for or watched; any other has none.
type seat struct {
	name     string
	lease    lock.Lease
	held     bool
	due      agenda.Place
	line     list.List
	watchers map[chan struct{}]struct{}
}

func newTable(token uint64, tell func(change)) *table {
	due := agenda.New(func(a, b *seat) bool { return a.lease.Expires.Before(b.lease.Expires) }, func(s *seat) *agenda.Place { return &s.due })
	return &table{seats: make(map[string]*seat), due: due, token: token, tell: tell}
}

// restore makes lease what it was before a restart.
func (t *table) restore(lease lock.Lease) {
	s := t.seat(lease.Name)
	s.lease, s.held = lease, true
	t.due.Add(s)
	t.token = max(t.token, lease.Token)
}

// join puts w in line for name; when the lock is free and nobody waits, that makes it the holder at once. It refuses,
// with false, when the line is too long.
func (t *table) join(now time.Time, name string, w *waiter) bool {
	t.lapse(now)
	s := t.seat(name)
	if s.line.Len() >= lock.MaxWaiting {
		return false
	}
	w.seat = s
	w.place = s.line.PushBack(w)
	if !s.held {
		t.admit(now, s)
		return true
	}
	t.tell(change{seat: s, line: true})
	return true
}

// leave takes w out of the line; false says that w was given its turn before.
func (t *table) leave(w *waiter) bool {
	if w.place == nil {
		return false
	}
	s := w.seat
	s.line.Remove(w.place)
	w.place = nil
	t.tell(change{seat: s, line: true})
	t.drop(s)
	return true
}

// holder returns who holds name, "" when nobody does. A lock that nobody holds has no line.
func (t *table) holder(now time.Time, name string) string {
	t.lapse(now)
	if s := t.seats[name]; s != nil && s.held {
		return s.lease.Owner
	}
	return ""
}

// renew gives lease another ttl from now; false says that it is not the holder's any more.
func (t *table) renew(now time.Time, lease lock.Lease, ttl time.Duration) (lock.Lease, bool) {
	s := t.holding(now, lease)
	if s == nil {
		return lock.Lease{}, false
	}
	if ttl == 0 {
		ttl = s.lease.TTL
	}
	s.lease.TTL, s.lease.Expires = ttl, now.Add(ttl)
	t.due.Move(s)
	renewed := s.lease
	t.tell(change{seat: s, lease: &renewed})
	return renewed, true
}

// release ends lease and gives the first in line its turn; false says that it is not the holder's any more.
func (t *table) release(now time.Time, lease lock.Lease) bool {
	s := t.holding(now, lease)
	if s == nil {
		return false
	}
	t.end(now, s)
	return true
}

// lapse ends every lease that has run out by now.
func (t *table) lapse(now time.Time) {
	for t.due.Len() > 0 && !t.due.First().lease.Expires.After(now) {
		t.end(now, t.due.First())
	}
}

// next is when the next lease runs out; false when no lock is held.
func (t *table) next() (time.Time, bool) {
	if t.due.Len() == 0 {
		return time.Time{}, false
	}
	return t.due.First().lease.Expires, true
}

func (t *table) watch(name string, wake chan struct{}) *seat {
	s := t.seat(name)
	if s.watchers == nil {
		s.watchers = make(map[chan struct{}]struct{})
	}
	s.watchers[wake] = struct{}{}
	return s
}

func (t *table) unwatch(s *seat, wake chan struct{}) {
	delete(s.watchers, wake)
	t.drop(s)
}

func (s *seat) status() lock.Status {
	status := lock.Status{Waiting: s.line.Len()}
	if s.held {
		lease := s.lease
		status.Lease = &lease
	}
	return status
}

func (t *table) seat(name string) *seat {
	s := t.seats[name]
	if s == nil {
		s = &seat{name: name}
		t.seats[name] = s
	}
	return s
}

// drop forgets a seat that nobody holds, waits for or watches.
func (t *table) drop(s *seat) {
	if !s.held && s.line.Len() == 0 && len(s.watchers) == 0 {
		delete(t.seats, s.name)
	}
}

func (t *table) holding(now time.Time, lease lock.Lease) *seat {
	t.lapse(now)
	s := t.seats[lease.Name]
	if s == nil || !s.held || s.lease.Token != lease.Token || s.lease.Owner != lease.Owner {
		return nil
	}
	return s
}

func (t *table) end(now time.Time, s *seat) {
	t.due.Remove(s)
	s.held, s.lease = false, lock.Lease{}
	if s.line.Len() > 0 {
		t.admit(now, s)
		return
	}
	t.tell(change{seat: s})
	t.drop(s)
}

// admit makes the first in line the holder.
func (t *table) admit(now time.Time, s *seat) {
	w := s.line.Remove(s.line.Front()).(*waiter)
	w.place = nil
	t.token++
	s.lease = lock.Lease{Name: s.name, Owner: w.owner, Token: t.token, TTL: w.ttl, Expires: now.Add(w.ttl)}
	s.held = true
	t.due.Add(s)
	lease := s.lease
	t.tell(change{seat: s, lease: &lease, to: w})
}
