package memorypubsub

import (
	"time"

	"github.com/sidecast/sidecast/agenda"
)

// alarm is something to do at a time.
type alarm struct {
	at    time.Time
	fn    func()
	place agenda.Place
}

// newAlarms lines alarms up, the soonest first.
func newAlarms() *agenda.Agenda[*alarm] {
	return agenda.New(func(a, b *alarm) bool { return a.at.Before(b.at) }, func(a *alarm) *agenda.Place { return &a.place })
}
