package natsstore

import (
	"container/heap"
	"time"
)

// maxExpiring is how many items that expire a watch keeps in mind, some hundred bytes each.
const maxExpiring = 1 << 18

// expiring is what a watch knows of the items that expire: the server removes them without a word. It could leave a marker
// in their place, but does so without looking whether the key has been written again meanwhile, and takes that write away
// (SubjectDeleteMarkerTTL, as of NATS 2.15; see docs/decisions/0007).
type expiring struct {
	soonest dues
	by      map[string]*due
}

// due is an item that expires.
type due struct {
	key   string
	at    int64 // Unix milliseconds
	place int   // in the heap
}

// note learns the last entry of a key. It reports whether there was room for it.
func (x *expiring) note(e entry) bool {
	d := x.by[e.key]
	switch {
	case d == nil && (e.deleted || e.tag.expires == 0):
	case e.deleted || e.tag.expires == 0:
		heap.Remove(&x.soonest, d.place)
		delete(x.by, e.key)
	case d != nil:
		d.at = e.tag.expires
		heap.Fix(&x.soonest, d.place)
	case len(x.by) >= maxExpiring:
		return false
	default:
		if x.by == nil {
			x.by = map[string]*due{}
		}
		d = &due{key: e.key, at: e.tag.expires}
		x.by[e.key] = d
		heap.Push(&x.soonest, d)
	}
	return true
}

// next is when the first of them expires.
func (x *expiring) next() (at time.Time, any bool) {
	if len(x.soonest) == 0 {
		return time.Time{}, false
	}
	return time.UnixMilli(x.soonest[0].at), true
}

// take forgets the first of them and returns its key.
func (x *expiring) take() string {
	d := heap.Pop(&x.soonest).(*due)
	delete(x.by, d.key)
	return d.key
}

// dues is a heap of items by when they expire.
type dues []*due

func (h dues) Len() int           { return len(h) }
func (h dues) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dues) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *dues) Push(x any) {
	d := x.(*due)
	d.place = len(*h)
	*h = append(*h, d)
}

func (h *dues) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return d
}
