package actors

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/sidecast/sidecast/fault"
)

// tally counts refusals by reason. There are as many reasons as places in the code that refuse, so it stays small.
type tally struct{ counts sync.Map } // fault.Reason → *atomic.Uint64

func (t *tally) add(reason fault.Reason) {
	n, ok := t.counts.Load(reason)
	if !ok {
		n, _ = t.counts.LoadOrStore(reason, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

// addTo adds the tally to what a machine has counted.
func (t *tally) addTo(s *LaneStatus) {
	s.RefusedFor = maps.Clone(s.RefusedFor) // a status that was kept is shown more than once
	for reason, n := range t.counts.Range {
		if s.RefusedFor == nil {
			s.RefusedFor = map[fault.Reason]uint64{}
		}
		count := n.(*atomic.Uint64).Load()
		s.Refused += count
		s.RefusedFor[reason.(fault.Reason)] += count
	}
}
