package natsstore

import (
	"time"

	"github.com/sidecast/sidecast/agenda"
)

// maxExpiring is how many items that expire a watch keeps in mind, some hundred bytes each.
const maxExpiring = 1 << 18

// expiring is what a watch knows of the items that expire: the server removes them without a word. It could leave a marker
// in their place, but does so without looking whether the key has been written again meanwhile, and takes that write away
// (SubjectDeleteMarkerTTL, as of NATS 2.15; see docs/decisions/0007).
type expiring struct {
	soonest *agenda.Agenda[*due]
	by      map[string]*due
}

func newExpiring() expiring {
	return expiring{agenda.New(func(a, b *due) bool { return a.at < b.at }, func(d *due) *agenda.Place { return &d.place }), map[string]*due{}}
}

// due is an item that expires.
type due struct {
	key   string
	at    int64 // Unix milliseconds
	place agenda.Place
}

// note learns the last entry of a key. It reports whether there was room for it.
func (x *expiring) note(e entry) bool {
	d := x.by[e.key]
	switch {
	case e.deleted || e.tag.expires == 0:
		x.forget(e.key)
	case d != nil:
		d.at = e.tag.expires
		x.soonest.Move(d)
	case len(x.by) >= maxExpiring:
		return false
	default:
		d = &due{key: e.key, at: e.tag.expires}
		x.by[e.key] = d
		x.soonest.Add(d)
	}
	return true
}

// next is when the first of them expires.
func (x *expiring) next() (at time.Time, any bool) {
	if x.soonest.Len() == 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(x.soonest.First().at), true
}

// before returns the keys, at most so many, of what expires no later than t.
func (x *expiring) before(t time.Time, most int) []string {
	var found []*due
	for len(found) < most && x.soonest.Len() > 0 && x.soonest.First().at <= t.UnixMilli() {
		d := x.soonest.First()
		x.soonest.Remove(d)
		found = append(found, d)
	}
	keys := make([]string, len(found))
	for i, d := range found {
		keys[i] = d.key
		x.soonest.Add(d)
	}
	return keys
}

// forget forgets a key.
func (x *expiring) forget(key string) {
	if d := x.by[key]; d != nil {
		x.soonest.Remove(d)
		delete(x.by, key)
	}
}
