package actors

import (
	"context"
	"time"

	"github.com/sidecast/sidecast/resiliency"
)

// senseEvery is how often the machine is looked at: twice as often as lanes look at what they were told.
const senseEvery = 500 * time.Millisecond

// pressureFelt tells a lane how loaded the machine is.
type pressureFelt struct {
	late
	resiliency.Pressure
}

// heed notes whether a lane's policy asks how loaded the machine is, and has somebody look if it is the first. mu is held.
func (s *System) heed(l *Lane) {
	p := l.policy.Load().Protection
	if s.pressure == nil || p.CPU == 0 && p.Memory == 0 {
		delete(s.heeding, l)
		return
	}
	s.heeding[l] = struct{}{}
	if !s.sensing {
		s.sensing = true
		s.worker("pressure", s.sense)
	}
}

// reheed is heed for a lane whose policy has changed. One that was removed meanwhile stays so.
func (s *System) reheed(l *Lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes[l.name] == l && !s.isClosed() {
		s.heed(l)
	}
}

// sense tells those lanes again and again, until there are none.
func (s *System) sense(ctx context.Context) error {
	tick := time.NewTicker(senseEvery)
	defer tick.Stop()
	for {
		p, err := s.pressure(ctx)
		if err != nil {
			return err
		}
		if !s.press(p) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// press tells the lanes that want to know. False says that there are none, and that nobody looks any more.
func (s *System) press(p resiliency.Pressure) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.heeding {
		s.post(l.pid, pressureFelt{Pressure: p})
	}
	s.sensing = len(s.heeding) > 0
	return s.sensing
}
