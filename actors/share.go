package actors

import (
	"context"
	"maps"
	"sync"

	"github.com/sidecast/sidecast/resiliency"
)

// FirstShare is asked how much of a global rate limit a lane has until it is told by SetShare. It is called when a lane
// gets such a limit, before the first call, and must not call the system or wait.
type FirstShare func(lane, limit string) float64

// Share has f say with how much of each global limit lanes begin from now on. Without it they begin with all.
func (s *System) Share(f FirstShare) { s.firstShare.Store(&f) }

// Sharing returns the lanes that have a global rate limit, by name.
func (s *System) Sharing() []*Lane {
	lanes, _ := s.snapshot()
	var sharing []*Lane
	for _, l := range lanes {
		for _, limit := range l.policy.Load().Limits {
			if limit.Global {
				sharing = append(sharing, l)
				break
			}
		}
	}
	return sharing
}

// shares are what a lane was told of its global limits. They outlive its machine.
type shares struct {
	mu   sync.Mutex
	told map[string]resiliency.SetShare
}

// SetShare tells the lane how much of a global rate limit is its own, 0 to 1, and whether that is a guess made without the
// others.
func (l *Lane) SetShare(limit string, share float64, local bool) {
	told := resiliency.SetShare{Limit: limit, Share: share, Local: local}
	if l.shares.set(told) {
		l.system.post(l.pid, sharesChanged{})
	}
}

// Demands tells how many calls each of the lane's global limits was offered since the last time that this was asked; nil
// from a lane that is down.
func (l *Lane) Demands(ctx context.Context) []resiliency.Demand {
	life := l.life.Load()
	if life == nil {
		return nil
	}
	reply := make(chan []resiliency.Demand, 1)
	l.system.post(l.pid, demandQuestion{reply})
	select {
	case demands := <-reply:
		return demands
	case <-life.over:
	case <-ctx.Done():
	}
	return nil
}

// begin gives each new global limit its first share.
func (l *Lane) begin(limits []resiliency.RateLimit) {
	first := l.system.firstShare.Load()
	for _, limit := range limits {
		if limit.Global && first != nil && !l.shares.has(limit.Name) {
			l.shares.set(resiliency.SetShare{Limit: limit.Name, Share: (*first)(l.name, limit.Name)})
		}
	}
}

// set notes a share, and reports whether it is news.
func (s *shares) set(told resiliency.SetShare) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told[told.Limit] == told {
		return false
	}
	if s.told == nil {
		s.told = make(map[string]resiliency.SetShare)
	}
	s.told[told.Limit] = told
	return true
}

func (s *shares) has(limit string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, told := s.told[limit]
	return told
}

func (s *shares) all() map[string]resiliency.SetShare {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.told)
}

// share passes on what the lane was told.
func (k *keeper) share() {
	for _, told := range k.lane.shares.all() {
		k.step(told)
	}
}
