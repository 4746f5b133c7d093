package natslock

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sidecast/sidecast/lock"
)

const (
	// turnTime is how long the first in line has for taking a lock that is free before the next one may.
	turnTime = 2 * time.Second
	// placeTime is how long a place in line is good, placeRenewal how often it is renewed.
	placeTime    = 30 * time.Second
	placeRenewal = 10 * time.Second
)

// state is a lock as its entry has it. This file is pure: it knows no clock and no server.
type state struct {
	rev    uint64    // revision of the entry; 0 when there is none
	holder *holder   // nil when nobody holds the lock
	since  time.Time // when the lease was stored or, without a holder, when the lock became free; zero: with this write
	line   []string  // ids of places, first come first
	seen   map[string]int64
}

// holder is who holds the lock.
type holder struct {
	ID    string        `json:"id"` // the place it had, or would have had, in line
	Owner string        `json:"owner"`
	Token uint64        `json:"token,omitempty"` // 0: the sequence of this write
	TTL   time.Duration `json:"ttl"`
}

// entry is a state on the wire, without what only the server knows when it stores it.
type entry struct {
	Holder *holder `json:"holder,omitempty"`
	// Since is in Unix nanoseconds; 0: when this write was stored.
	Since int64 `json:"since,omitempty"`
	// Line is who waits, as "<locker>.<number>", Seen until when the places of each locker are good, in Unix seconds.
	Line []string         `json:"line,omitempty"`
	Seen map[string]int64 `json:"seen,omitempty"`
}

// place is a caller that wants the lock.
type place struct {
	id, owner string
	ttl       time.Duration
}

func lockerOf(id string) string {
	locker, _, _ := strings.Cut(id, ".")
	return locker
}

func (s state) encode() []byte {
	e := entry{Holder: s.holder, Line: s.line, Seen: s.seen}
	if !s.since.IsZero() {
		e.Since = s.since.UnixNano()
	}
	data, err := json.Marshal(e)
	if err != nil {
		panic(err) // plain fields
	}
	return data
}

// decode reads an entry; no data is the mark of a lock that was freed.
func decode(data []byte, rev uint64, stored time.Time) (state, error) {
	if len(data) == 0 {
		return state{rev: rev}, nil
	}
	var e entry
	if err := json.Unmarshal(data, &e); err != nil {
		return state{}, err
	}
	s := state{holder: e.Holder, line: e.Line, seen: e.Seen}
	if e.Since != 0 {
		s.since = time.Unix(0, e.Since)
	}
	return s.stored(rev, stored), nil
}

// stored is s after it was written, with what this write stands for filled in.
func (s state) stored(rev uint64, at time.Time) state {
	s.rev = rev
	if s.holder != nil && s.holder.Token == 0 {
		h := *s.holder
		h.Token = rev
		s.holder = &h
	}
	if s.since.IsZero() && !s.blank() {
		s.since = at
	}
	return s
}

// blank says that nobody holds the lock and nobody waits: there is nothing to keep.
func (s state) blank() bool { return s.holder == nil && len(s.line) == 0 }

// ends is when the lease has ended for everyone else; without a holder, when the lock became free.
func (s state) ends(grace time.Duration) time.Time {
	if s.holder == nil {
		return s.since
	}
	return s.since.Add(s.holder.TTL + grace)
}

// held says that the lease still runs.
func (s state) held(now time.Time, grace time.Duration) bool {
	return s.holder != nil && now.Before(s.ends(grace))
}

// good says that a place has been renewed in time.
func (s state) good(id string, now time.Time) bool { return s.seen[lockerOf(id)] >= now.Unix() }

// waiting is how many good places the line has.
func (s state) waiting(now time.Time) (n int) {
	for _, id := range s.line {
		if s.good(id, now) {
			n++
		}
	}
	return n
}

// view is what a locker looks at a state with.
type view struct {
	me    string  // the locker
	mine  []place // those of its callers who wait, first come first
	now   time.Time
	grace time.Duration
}

// step is what a locker does next.
type step struct {
	next    state
	write   bool      // next differs from what is stored in a way that matters
	granted int       // index in mine of who becomes the holder; -1: nobody
	again   time.Time // when to look again if nothing is heard until then; zero: no need
}

// settle puts the callers of a locker where they belong: in line, out of it, or in possession of the lock.
func settle(s state, v view) step {
	st := step{next: s, granted: -1}
	st.next.seen = maps.Clone(s.seen)
	st.write = st.prune(v)
	if h := s.holder; h != nil && lockerOf(h.ID) == v.me {
		if i := slices.IndexFunc(v.mine, func(p place) bool { return p.id == h.ID }); i >= 0 {
			// A grant whose acknowledgement was lost. Writing it again tells when the lease starts.
			st.grant(i, *h, v)
			st.keep(v)
			return st
		}
	}
	inLine := setOf(st.next.line, func(id string) string { return id })
	for _, p := range v.mine {
		if !inLine[p.id] && len(st.next.line) < lock.MaxWaiting {
			st.next.line = append(st.next.line, p.id)
			st.write = true
		}
	}
	if len(v.mine) > 0 && slices.Contains(st.next.line, v.mine[0].id) {
		head := v.mine[0]
		turn := st.turn(head.id, v)
		if v.now.Before(turn) {
			st.again = turn
		} else {
			st.pass(head.id)
			st.grant(0, holder{ID: head.id, Owner: head.owner, TTL: head.ttl}, v)
		}
	}
	st.keep(v)
	return st
}

// prune takes out of the line who is not there any more. It says whether that concerns the locker's own callers; what
// others left behind goes with the next write.
func (st *step) prune(v view) bool {
	own := false
	mine := setOf(v.mine, func(p place) string { return p.id })
	line := make([]string, 0, len(st.next.line)+len(v.mine))
	for _, id := range st.next.line {
		switch {
		case lockerOf(id) != v.me:
			if st.next.good(id, v.now) {
				line = append(line, id)
			}
		case mine[id]:
			line = append(line, id)
		default:
			own = true
		}
	}
	st.next.line = line
	return own
}

func setOf[T any](all []T, id func(T) string) map[string]bool {
	set := make(map[string]bool, len(all))
	for _, one := range all {
		set[id(one)] = true
	}
	return set
}

// turn is when the place may take the lock: when it is free, and each locker ahead has had its chance.
func (st *step) turn(id string, v view) time.Time {
	turn := st.next.ends(v.grace)
	ahead := map[string]bool{v.me: true}
	for _, other := range st.next.line {
		if other == id {
			break
		}
		if locker := lockerOf(other); !ahead[locker] {
			ahead[locker] = true
			turn = turn.Add(turnTime)
		}
	}
	return turn
}

// pass drops the lockers that are ahead of the place and did not take their turn.
func (st *step) pass(id string) {
	gone := map[string]bool{}
	for _, other := range st.next.line {
		if other == id {
			break
		}
		gone[lockerOf(other)] = lockerOf(other) != lockerOf(id)
	}
	st.next.line = slices.DeleteFunc(st.next.line, func(other string) bool { return gone[lockerOf(other)] })
}

func (st *step) grant(i int, h holder, v view) {
	st.next.holder, st.next.since = &h, time.Time{}
	st.next.line = slices.DeleteFunc(st.next.line, func(id string) bool { return id == h.ID })
	st.granted, st.write, st.again = i, true, time.Time{}
}

// keep renews the locker's places, if it has any, and forgets lockers that have none.
func (st *step) keep(v view) {
	have := map[string]bool{}
	for _, id := range st.next.line {
		have[lockerOf(id)] = true
	}
	maps.DeleteFunc(st.next.seen, func(locker string, _ int64) bool { return !have[locker] })
	if !have[v.me] {
		return
	}
	until := time.Unix(st.next.seen[v.me], 0)
	if renew := until.Add(placeRenewal - placeTime); st.write || !v.now.Before(renew) {
		until = v.now.Add(placeTime)
		if st.next.seen == nil {
			st.next.seen = make(map[string]int64)
		}
		st.next.seen[v.me], st.write = until.Unix(), true
	}
	if renew := time.Unix(until.Unix(), 0).Add(placeRenewal - placeTime); st.again.IsZero() || renew.Before(st.again) {
		st.again = renew
	}
}

// free is settle for a locker whose caller releases the lock, or whose place is to vanish.
func free(s state, v view) step {
	s.holder, s.since = nil, v.now
	st := settle(s, v)
	st.write = true
	return st
}

// takeover is what p takes the lock with, when it is free and nobody waits; otherwise who is in the way, "" for the line.
func takeover(s state, p place, v view) (next state, by string, ok bool) {
	if s.held(v.now, v.grace) {
		return state{}, s.holder.Owner, false
	}
	if s.waiting(v.now) > 0 {
		return state{}, "", false
	}
	return state{holder: &holder{ID: p.id, Owner: p.owner, TTL: p.ttl}}, "", true
}
