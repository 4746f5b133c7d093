package memorypubsub

import (
	"container/heap"
	"time"
)

// alarm is something to do at a time. While it is set, place is where the heap holds it.
type alarm struct {
	at    time.Time
	fn    func()
	place int
}

const unset = -1

// alarms are the alarms that are set, the soonest first.
type alarms struct{ heap alarmHeap }

func (s *alarms) add(a *alarm) { heap.Push(&s.heap, a) }

func (s *alarms) next() *alarm {
	if len(s.heap) == 0 {
		return nil
	}
	return s.heap[0]
}

func (s *alarms) move(a *alarm, t time.Time) {
	if a.at = t; a.place != unset {
		heap.Fix(&s.heap, a.place)
	}
}

// remove unsets an alarm; nil and one that rang are fine.
func (s *alarms) remove(a *alarm) {
	if a != nil && a.place != unset {
		heap.Remove(&s.heap, a.place)
	}
}

type alarmHeap []*alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h alarmHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *alarmHeap) Push(x any) {
	a := x.(*alarm)
	a.place = len(*h)
	*h = append(*h, a)
}

func (h *alarmHeap) Pop() any {
	last := len(*h) - 1
	a := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	a.place = unset
	return a
}
