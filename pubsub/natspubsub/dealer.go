package natspubsub

import (
	"cmp"
	"slices"
	"time"
)

// How long pulls wait at the server and how soon an empty source is asked again.
const (
	briefPull   = 10 * time.Millisecond // at a partition, or where sources compete for few credits …
	slowestRead = 50 << 20              // … and, in bytes a second, how slowly a server may read what it sends: a pull that ends meanwhile brings nothing
	patientPull = 5 * time.Second       // of unkeyed messages, renewed as long as there are credits
	lostAfter   = 2 * time.Second       // past its expiry, a pull without an answer is lost
	firstPause  = 10 * time.Millisecond // doubled at each miss …
	freePause   = 250 * time.Millisecond
	sweepEvery  = 2 * time.Second // … up to this: what no bell tells (the death of another feed) is found by then
)

// anySeq rings for a message whose sequence is not known.
const anySeq = ^uint64(0)

// dealer decides at which sources a feed's credits wait. It is pure: it sends nothing and reads no clock. Its one law is
// that the credits asked of the server never exceed those it was given.
//
// Source 0 holds the unkeyed messages and takes what credits the others leave, in one long pull. The rest are
// partitions: each takes one credit at a time, briefly, when there is reason to think it has a message (a bell, a
// backlog seen in the last delivery, a turn of the sweep), so that idle or blocked partitions never hold credits that a
// busy one could use.
type dealer struct {
	sources []source
	asked   int    // credits at the server, over all sources
	turn    uint64 // counts deals, for the order of turns
	pulls   uint64 // the last pull's id
}

type source struct {
	asked   int    // credits of the pull that waits at the server; 0: none waits
	pull    uint64 // its id
	patient bool   // it may wait long
	lost    time.Time
	rung    bool      // there is reason to think that a message waits
	busy    time.Time // until then, or its settlement, this feed holds the partition's one delivery
	hold    time.Time // until then a delivery given back for later blocks the partition
	again   time.Time // not asked before then unless rung
	misses  int       // pulls in a row that brought nothing
	seen    uint64    // the newest message delivered here
	size    int       // of a message that waits here, as far as is known, in bytes
	dealt   uint64    // turn of the last pull
}

// pull is a request to send: batch messages of a source within expires.
type pull struct {
	source  int
	id      uint64
	batch   int
	expires time.Duration
}

// deal places the credits that are not at the server yet, at most wide of them at partitions. It returns the pulls to send
// and whether credits that wait at the server must be recalled first, because fewer are left than were asked or because a
// partition that rang has none.
func (d *dealer) deal(now time.Time, credits, wide int) (pulls []pull, recall bool) {
	left := credits - d.asked
	due := d.due(now, wide)
	if left <= 0 {
		parked := d.sources[0].asked > 0 && d.sources[0].patient
		return nil, left < 0 || parked && slices.ContainsFunc(due, func(i int) bool { return d.sources[i].rung })
	}
	if left <= len(due) {
		return d.compete(now, left, due), false
	}
	for _, i := range due {
		pulls = append(pulls, d.place(now, i, 1, d.sources[i].brief(4)))
	}
	if d.sources[0].asked > 0 || now.Before(d.sources[0].hold) {
		return pulls, false
	}
	patience := patientPull
	if len(d.sources) > 1 {
		patience = sweepEvery
	}
	reserve := min(len(d.sources)-1, credits/2) // for partitions that ring, so that nothing has to be recalled
	return append(pulls, d.place(now, 0, max(left-len(due)-reserve, 1), patience)), false
}

// compete gives single credits to those that waited longest when there are not enough for all.
func (d *dealer) compete(now time.Time, left int, due []int) (pulls []pull) {
	if s := &d.sources[0]; s.asked == 0 && !now.Before(s.again) && !now.Before(s.hold) {
		due = append(due, 0)
	}
	d.sort(due)
	for _, i := range due[:left] {
		pulls = append(pulls, d.place(now, i, 1, d.sources[i].brief(2)))
	}
	return pulls
}

// sort puts those first that waited longest for their turn.
func (d *dealer) sort(due []int) {
	slices.SortFunc(due, func(a, b int) int { return cmp.Compare(d.sources[a].dealt, d.sources[b].dealt) })
}

// due lists the partitions that should be asked now, so that no more than wide are being asked.
func (d *dealer) due(now time.Time, wide int) (due []int) {
	for i := 1; i < len(d.sources); i++ {
		switch s := &d.sources[i]; {
		case s.asked > 0:
			wide--
		case !now.Before(s.dueAt()):
			due = append(due, i)
		}
	}
	if wide = max(wide, 0); len(due) > wide {
		d.sort(due)
		slices.SortStableFunc(due, func(a, b int) int { // those that rang come first
			return cmp.Compare(d.sources[a].doubt(), d.sources[b].doubt())
		})
		due = due[:wide]
	}
	return due
}

// doubt is 0 when there is reason to think that a message waits.
func (s *source) doubt() int {
	if s.rung {
		return 0
	}
	return 1
}

func (s *source) dueAt() time.Time {
	at := s.again
	if s.rung {
		at = time.Time{}
	}
	for _, t := range []time.Time{s.busy, s.hold} {
		if t.After(at) {
			at = t
		}
	}
	return at
}

// brief is how long a brief pull waits: long enough to read what is there, and should that be larger than is known, twice as
// long after each miss, up to longer times.
func (s *source) brief(longer int) time.Duration {
	reading := time.Duration(s.size) * (time.Second / slowestRead)
	return min(briefPull<<min(s.misses, longer)+reading, time.Second)
}

func (d *dealer) place(now time.Time, i, batch int, expires time.Duration) pull {
	d.turn++
	d.pulls++
	d.asked += batch
	s := &d.sources[i]
	s.asked, s.pull, s.dealt = batch, d.pulls, d.turn
	s.patient = expires >= sweepEvery
	s.lost = now.Add(expires + lostAfter)
	return pull{source: i, id: s.pull, batch: batch, expires: expires}
}

// delivered notes the delivery of message seq of source i, of size bytes; more says that the server counted others behind
// it, and busy until when the feed holds it.
func (d *dealer) delivered(now time.Time, i int, seq uint64, size int, more bool, busy time.Time) {
	s := &d.sources[i]
	s.size = size
	s.seen = max(s.seen, seq)
	if s.asked > 0 { // else it answers a pull that was given up
		s.asked--
		d.asked--
	}
	s.misses = 0
	if i == 0 {
		s.again = now
		if !more {
			s.again = now.Add(firstPause)
		}
		return
	}
	s.busy, s.rung, s.again = busy, more, now.Add(sweepEvery)
}

// settled notes that the partition's delivery is done, or given back for later; retry asks for it again at that time.
func (d *dealer) settled(i int, retry time.Time) {
	if i == 0 {
		return
	}
	s := &d.sources[i]
	s.busy, s.hold = time.Time{}, retry
	s.rung = s.rung || !retry.IsZero()
}

// extended notes that the partition's delivery may be out until busy.
func (d *dealer) extended(i int, busy time.Time) {
	if i > 0 {
		d.sources[i].busy = busy
	}
}

// rang notes that message seq was stored in partition i, or given back to it; size is 0 if it is not known.
func (d *dealer) rang(i int, seq uint64, size int) {
	if s := &d.sources[i]; i > 0 && seq > s.seen {
		s.rung, s.misses, s.size = true, 0, max(s.size, size)
	}
}

// rangAll notes that bells may have been missed.
func (d *dealer) rangAll() {
	for i := range d.sources {
		d.rang(i, anySeq, 0)
	}
}

// ended notes that the server ended a pull without filling it; trouble says that it was not for want of messages.
func (d *dealer) ended(now time.Time, id uint64, trouble bool) {
	for i := range d.sources {
		s := &d.sources[i]
		if s.asked == 0 || s.pull != id {
			continue
		}
		d.asked -= s.asked
		s.asked, s.rung = 0, false
		s.misses++
		most := sweepEvery
		if i == 0 {
			most = freePause
		}
		pause := most
		if s.misses < 10 {
			pause = min(firstPause<<(s.misses-1), most)
		}
		s.again = now.Add(pause)
		if trouble {
			s.again, s.hold = now.Add(freePause), now.Add(freePause)
		}
		return
	}
}

// recalled notes that nothing waits at the server any more.
func (d *dealer) recalled() {
	d.asked = 0
	for i := range d.sources {
		s := &d.sources[i]
		if s.asked > 0 {
			s.asked, s.again = 0, time.Time{}
		}
	}
}

// overdue reports whether a pull has been without an answer for too long.
func (d *dealer) overdue(now time.Time) bool {
	return slices.ContainsFunc(d.sources, func(s source) bool { return s.asked > 0 && now.After(s.lost) })
}

// next tells when to look again even if nothing happens.
func (d *dealer) next(now time.Time) time.Time {
	at := now.Add(patientPull)
	for i := range d.sources {
		s := &d.sources[i]
		t := s.dueAt()
		if s.asked > 0 {
			t = s.lost
		} else if i == 0 {
			t = s.hold
		}
		if t.After(now) && t.Before(at) {
			at = t
		}
	}
	return at
}
