// Package entrance keeps callers who are refused from crowding out the calls that were admitted.
//
// Go's scheduler runs goroutines in the order in which they become ready, knows no priority, and looks at the network when
// nothing is ready, or else every ten milliseconds. Where thousands of callers insist, a granted call would wait behind all of
// them each time it blocks, and for its app's answer, which is there, ten milliseconds more; its slot in the app would be empty
// meanwhile. Two things prevent that. Of the calls that have come only a few are worked on at a time between their request
// and their first lane; the others wait in line, in the order in which they came, which costs nothing. And as long as there is
// a line, it stands still for an instant now and then, so that nothing is ready and the network is looked at.
//
// Lanes give the place of a call back as soon as it was granted or has to wait (see call.Entry), so a place is held only by
// work that waits for nothing.
//
//	place := entrance.Place{At: doors}
//	defer place.Leave()
//	err := place.Enter(ctx, "invoke")
//
// Connections of HTTP/1, which have one request at a time, have a place of their own: see Entrance.Listener.
package entrance

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/fault"
)

const (
	// perProcessor is how many calls may be between their request and their lane, for each processor.
	perProcessor = 4
	// patience is how long a call stands in line. Then it goes on without a place: the line is a courtesy, and no limit.
	patience = time.Second
	// moving is how long a line moves at a time, and still how long it stands still then: a little longer than the calls that have
	// a place need to be done.
	moving, still = 2 * time.Millisecond, 300 * time.Microsecond
)

// Entrance is what the front doors of a sidecar share.
type Entrance struct {
	mu      sync.Mutex
	free    int // places
	line    line
	stopped bool        // the line stands still
	moved   time.Time   // when it last began to
	patient *time.Timer // ends the patience of the first in line; nil before there was a line
	timed   bool        // it will
}

// New makes one with room for what the processors can work on.
func New() *Entrance { return newEntrance(perProcessor * runtime.GOMAXPROCS(0)) }

func newEntrance(places int) *Entrance { return &Entrance{free: places} }

// Place is a call's own. All methods may be called at the same time.
type Place struct {
	// At is the entrance that it is a place of; it must be set.
	At    *Entrance
	state atomic.Int32
}

// What a place may be.
const (
	none = iota
	asked
	taken
)

// Enter takes a place, unless the call has one or stands in line already. It fails, as a fault, only when ctx ends before
// there is one.
func (p *Place) Enter(ctx context.Context, op string) error {
	if !p.state.CompareAndSwap(none, asked) {
		return nil
	}
	if turn := p.At.ask(); turn != nil {
		if got, err := p.At.wait(ctx, turn, op); err != nil || !got {
			p.state.Store(none)
			return err
		}
	}
	p.state.Store(taken)
	return nil
}

// Leave gives the place back. Only the first time counts; anybody may call it.
func (p *Place) Leave() {
	if p.state.CompareAndSwap(taken, none) {
		p.At.leave()
	}
}

// ask takes a place, or returns the turn to wait for.
func (e *Entrance) ask() *turn {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.free > 0 && e.line.first == nil {
		e.free--
		return nil
	}
	t := &turn{came: make(chan struct{}), until: time.Now().Add(patience)}
	e.line.join(t)
	if !e.timed {
		e.time(patience)
	}
	return t
}

// wait is false when the call goes on without a place.
func (e *Entrance) wait(ctx context.Context, t *turn, op string) (got bool, err error) {
	select {
	case <-t.came:
		return !t.late, nil
	case <-ctx.Done():
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case t.waits:
		e.line.leave(t)
		return false, fault.FromContext(op, ctx, "its turn among the calls before it")
	case t.late:
		return false, nil
	}
	return true, nil // its turn came meanwhile
}

// time has lose called after so long. One timer is enough for all in line, who are as patient as each other. e.mu is held.
func (e *Entrance) time(after time.Duration) {
	e.timed = true
	if e.patient == nil {
		e.patient = time.AfterFunc(after, e.lose)
		return
	}
	e.patient.Reset(after)
}

// lose lets those go on without a place whose patience is over.
func (e *Entrance) lose() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.timed = false
	for t := e.line.first; t != nil; t = e.line.first {
		if left := time.Until(t.until); left > 0 {
			e.time(left)
			return
		}
		t.late = true
		e.line.leave(t)
		close(t.came)
	}
}

// leave frees a place, and has the next in line take it, or the line stand still when it has moved for long enough.
func (e *Entrance) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.free++
	switch {
	case e.line.first == nil || e.stopped:
	case time.Since(e.moved) > moving:
		e.stopped = true
		time.AfterFunc(still, e.move)
	default:
		e.serve()
	}
}

// move has a line that stands still go on.
func (e *Entrance) move() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped, e.moved = false, time.Now()
	e.serve()
}

// serve gives the free places to those who have waited longest. e.mu is held.
func (e *Entrance) serve() {
	for ; e.free > 0 && e.line.first != nil; e.free-- {
		t := e.line.first
		e.line.leave(t)
		close(t.came)
	}
}

// turn is that of a call in line.
type turn struct {
	came       chan struct{} // closed when it is out of the line, unless its caller has left
	until      time.Time     // its patience is over
	waits      bool          // in line
	late       bool          // it goes on without a place
	next, prev *turn
}

// line is of those who wait, the first before all others.
type line struct{ first, last *turn }

func (l *line) join(t *turn) {
	t.waits, t.prev = true, l.last
	if l.last == nil {
		l.first = t
	} else {
		l.last.next = t
	}
	l.last = t
}

func (l *line) leave(t *turn) {
	if t.prev == nil {
		l.first = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		l.last = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.waits, t.next, t.prev = false, nil, nil
}
