package natslock

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/lock"
)

// TestLineAgreesWithModel lets a few lockers act on one entry in any order, under a clock of the test's own: some die,
// some act on an entry that was changed meanwhile. Whatever happens, one holds the lock at a time, tokens grow, nobody
// overtakes a living locker that uses its turns, and the lock comes to someone when anyone alive waits.
func TestLineAgreesWithModel(t *testing.T) {
	const grace = 500 * time.Millisecond
	rapid.Check(t, func(r *rapid.T) {
		now := time.Unix(1000, 0)
		var stored state
		rev := uint64(100)
		type caller struct {
			place
			joined uint64 // revision of the write that stood it in line
		}
		waiting := map[string][]caller{} // by locker, those alive
		lockers := []string{"a", "b", "c"}
		dead := map[string]bool{}
		var token uint64
		var ends time.Time // of the holder's lease, as the holder sees it
		var holderID string
		names := 0

		view := func(me string) view {
			v := view{me: me, now: now, grace: grace}
			for _, c := range waiting[me] {
				v.mine = append(v.mine, c.place)
			}
			return v
		}
		granted := func(s state) {
			if now.Before(ends) && holderID != "" && holderID != s.holder.ID {
				r.Fatalf("%s has the lock while %s has it until %v, now %v", s.holder.ID, holderID, ends, now)
			}
			if s.holder.Token < token || (s.holder.Token == token && s.holder.ID != holderID) {
				r.Fatalf("token %d came after %d", s.holder.Token, token)
			}
			token, ends, holderID = s.holder.Token, now.Add(s.holder.TTL), s.holder.ID
		}
		apply := func(me string, st step) {
			if !st.write {
				return
			}
			rev++
			v := view(me)
			stored = st.next.stored(rev, now)
			if again, err := decode(stored.encode(), rev, now); err != nil || fmt.Sprint(again.line, again.holder) != fmt.Sprint(stored.line, stored.holder) {
				r.Fatalf("the entry reads as %+v, %v", again, err)
			}
			if st.granted >= 0 {
				w := v.mine[st.granted]
				granted(stored)
				waiting[me] = slices.DeleteFunc(waiting[me], func(c caller) bool { return c.id == w.id })
			}
			for i, c := range waiting[me] {
				if c.joined == 0 && slices.Contains(stored.line, c.id) {
					waiting[me][i].joined = rev
				}
			}
		}
		act := func(me string) {
			if !dead[me] {
				apply(me, settle(stored, view(me)))
			}
		}
		locker := rapid.SampledFrom(lockers)
		r.Repeat(map[string]func(*rapid.T){
			"wait": func(r *rapid.T) {
				me := locker.Draw(r, "locker")
				if dead[me] || len(waiting[me]) > 3 {
					return
				}
				names++
				p := place{id: fmt.Sprint(me, ".", names), owner: me, ttl: time.Duration(rapid.IntRange(1, 60).Draw(r, "ttl")) * time.Second}
				waiting[me] = append(waiting[me], caller{place: p})
				act(me)
			},
			"act": func(r *rapid.T) { act(locker.Draw(r, "locker")) },
			"leave": func(r *rapid.T) {
				me := locker.Draw(r, "locker")
				if dead[me] || len(waiting[me]) == 0 {
					return
				}
				i := rapid.IntRange(0, len(waiting[me])-1).Draw(r, "which")
				waiting[me] = slices.Delete(waiting[me], i, i+1)
				act(me)
			},
			"release": func(r *rapid.T) {
				if holderID == "" || !now.Before(ends) || dead[lockerOf(holderID)] {
					return
				}
				me := lockerOf(holderID)
				if stored.holder == nil || stored.holder.ID != holderID {
					r.Fatalf("%s holds the lock and the entry has %+v", holderID, stored.holder)
				}
				holderID = ""
				apply(me, free(stored, view(me)))
			},
			"renew": func(r *rapid.T) {
				if holderID == "" || !now.Before(ends) || dead[lockerOf(holderID)] {
					return
				}
				h := *stored.holder
				next := stored
				next.holder, next.since = &h, time.Time{}
				rev++
				stored = next.stored(rev, now)
				ends = now.Add(h.TTL)
			},
			"die": func(r *rapid.T) {
				if rapid.IntRange(0, 9).Draw(r, "dice") == 0 {
					me := locker.Draw(r, "locker")
					dead[me] = true
					waiting[me] = nil
				}
			},
			"time": func(r *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 5000).Draw(r, "ms")) * time.Millisecond)
				// Those alive look when they said they would, or soon after.
				for _, me := range lockers {
					if len(waiting[me]) > 0 {
						act(me)
					}
				}
			},
		})
		// From here on nobody comes: all who wait and are alive get the lock, in turn.
		for range 1000 {
			left := 0
			for _, me := range lockers {
				act(me)
				left += len(waiting[me])
			}
			if left == 0 {
				return
			}
			now = now.Add(time.Second)
		}
		r.Fatalf("still waiting: %v, entry %+v", waiting, stored)
	})
}

func TestFirstOfAnotherLockerComesFirst(t *testing.T) {
	now := time.Unix(1000, 0)
	s := state{rev: 7, holder: &holder{ID: "a.1", Owner: "ann", Token: 7, TTL: time.Minute}, since: now}
	mineOf := func(ids ...string) (mine []place) {
		for _, id := range ids {
			mine = append(mine, place{id: id, owner: id, ttl: time.Minute})
		}
		return mine
	}
	b := settle(s, view{me: "b", mine: mineOf("b.1"), now: now})
	s = b.next.stored(8, now)
	a := settle(s, view{me: "a", mine: mineOf("a.2", "a.3"), now: now})
	s = a.next.stored(9, now)
	if want := []string{"b.1", "a.2", "a.3"}; !slices.Equal(s.line, want) {
		t.Fatalf("the line is %v, want %v", s.line, want)
	}
	freed := free(s, view{me: "a", mine: mineOf("a.2", "a.3"), now: now})
	if freed.granted >= 0 || freed.next.holder != nil || !freed.again.Equal(now.Add(turnTime)) {
		t.Fatalf("the releaser overtakes: %+v", freed)
	}
	s = freed.next.stored(10, now)
	if late := settle(s, view{me: "a", mine: mineOf("a.2", "a.3"), now: now.Add(turnTime)}); late.granted != 0 || !slices.Equal(late.next.line, []string{"a.3"}) {
		t.Fatalf("a turn that is not used is not passed on: %+v", late)
	}
	if taken := settle(s, view{me: "b", mine: mineOf("b.1"), now: now}); taken.granted != 0 || !slices.Equal(taken.next.line, []string{"a.2", "a.3"}) {
		t.Fatalf("the first in line does not get the lock: %+v", taken)
	}
}

func TestLineHasAnEnd(t *testing.T) {
	now := time.Unix(1000, 0)
	s := state{rev: 7, holder: &holder{ID: "a.1", Owner: "ann", Token: 7, TTL: time.Minute}, since: now, seen: map[string]int64{"b": 2000}}
	for i := range lock.MaxWaiting - 1 {
		s.line = append(s.line, fmt.Sprint("b.", i))
	}
	mine := []place{{id: "a.2", owner: "ann", ttl: time.Minute}, {id: "a.3", owner: "ann", ttl: time.Minute}}
	st := settle(s, view{me: "a", mine: mine, now: now})
	if len(st.next.line) != lock.MaxWaiting || st.next.line[lock.MaxWaiting-1] != "a.2" {
		t.Fatalf("%d in line, the last is %s", len(st.next.line), st.next.line[len(st.next.line)-1])
	}
	if size := len(st.next.encode()); size > 512<<10 {
		t.Fatalf("a full line takes %d bytes, a message of NATS holds a MiB", size)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"holder":{"id":"a.1","owner":"ann","token":7,"ttl":1000},"line":["b.1"],"seen":{"b":99}}`))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decode(data, 1, time.Unix(1, 0))
		if err == nil {
			settle(s, view{me: "a", mine: []place{{id: "a.1"}}, now: time.Unix(2, 0)})
		}
	})
}
