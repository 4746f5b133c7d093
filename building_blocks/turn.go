package blocks

import (
	"context"
	"sync"
)

// line is where events wait before a sink that takes them in order. One goroutine has them join. They wait before the lane and
// not in it: one that waited there would take the place that the one before it needs.
type line struct{ last <-chan struct{} }

// turn is the place of an event in a line. The zero turn is in none.
type turn struct {
	before <-chan struct{} // closed when the event before has passed; nil for the first
	passed func()
}

// join gives the next event its place.
func (l *line) join() turn {
	passed := make(chan struct{})
	t := turn{before: l.last, passed: sync.OnceFunc(func() { close(passed) })}
	l.last = passed
	return t
}

// wait returns when the event before has passed, or ctx has ended.
func (t turn) wait(ctx context.Context) {
	if t.before != nil {
		select {
		case <-t.before:
		case <-ctx.Done():
		}
	}
}

// pass lets the next event have its turn.
func (t turn) pass() {
	if t.passed != nil {
		t.passed()
	}
}
