package resiliency

import "time"

func (p Protection) validate(checker) {}

// shield sheds calls while the machine or the lane is overloaded.
type shield struct {
	rule     Protection
	pressure Pressure
}

func (s *shield) feel(p Pressure) { s.pressure = p }

func (s *shield) sheds(now time.Time, t *Turn) bool { return false }
