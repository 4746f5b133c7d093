// Package entrance keeps callers who are refused from crowding out the calls that were admitted.
//
// Go's scheduler runs goroutines in the order in which they become ready, knows no priority, and looks at the network when
// nothing is ready, or else every ten milliseconds. Where thousands of callers insist, a granted call would wait behind all of
// them each time it blocks, and for its app's answer, which is there, ten milliseconds more; its slot in the app would be empty
// meanwhile. Two things prevent that. Of the calls that have come only as many are worked on at a time, between their request
// and their first lane, as leave a processor to the others; the rest wait in line, in the order in which they came, which costs
// nothing. And as long as there is a line, it stands still for an instant now and then, so that nothing is ready and the network
// is looked at.
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
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/fault"
)

const (
	// moving is how long a line moves at a time, and still how long it stands still then: a little longer than the calls that have
	// a place need to be done.
	moving, still = 2 * time.Millisecond, 300 * time.Microsecond
	// patience is how long a line may stay as it is. Then the places count as free: the line is a courtesy, and no limit.
	patience = 100 * time.Millisecond
)

// Entrance is what the front doors of a sidecar share. It has no lock: one that hundreds wait for goes from hand to hand, each
// time behind all that is ready, and the granted calls that give their places back would wait for it, too.
type Entrance struct {
	places  chan struct{} // holds one for each that is taken; who waits for room in it is served in order
	waiting atomic.Int32  // in line
	left    atomic.Uint64 // how often a place was given back
	stopped atomic.Bool   // the line stands still
	kept    atomic.Int32  // places that were given back meanwhile
	moved   atomic.Int64  // when it last began to move, as time since began
	began   time.Time
	watched atomic.Bool // somebody looks whether it moves
}

// New makes one with a place for each processor but one, and at least one.
func New() *Entrance { return newEntrance(max(runtime.GOMAXPROCS(0)-1, 1)) }

func newEntrance(places int) *Entrance {
	return &Entrance{places: make(chan struct{}, places), began: time.Now()}
}

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
	select {
	case p.At.places <- struct{}{}:
	default:
		if err := p.At.wait(ctx, op); err != nil {
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

// wait stands in line.
func (e *Entrance) wait(ctx context.Context, op string) error {
	e.waiting.Add(1)
	defer e.waiting.Add(-1)
	e.watch()
	select {
	case e.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fault.FromContext(op, ctx, "its turn among the calls before it")
	}
}

// leave frees a place, for the next in line if there is one, unless the line has moved for long enough to stand still now.
func (e *Entrance) leave() {
	e.left.Add(1)
	if e.waiting.Load() == 0 || !e.stops() {
		e.free(1)
		return
	}
	e.kept.Add(1)
	if !e.stopped.Load() { // it began to move meanwhile
		e.free(e.kept.Swap(0))
	}
}

// stops says whether the line stands still, which may begin with that.
func (e *Entrance) stops() bool {
	if e.stopped.Load() {
		return true
	}
	if time.Since(e.began)-time.Duration(e.moved.Load()) <= moving || !e.stopped.CompareAndSwap(false, true) {
		return false
	}
	time.AfterFunc(still, e.move)
	return true
}

// move has a line that stands still go on.
func (e *Entrance) move() {
	e.moved.Store(int64(time.Since(e.began)))
	e.stopped.Store(false)
	e.free(e.kept.Swap(0))
}

func (e *Entrance) free(places int32) {
	for range places {
		select {
		case <-e.places:
		default: // it counted as free already
		}
	}
}

// watch has somebody look whether the line moves, as long as there is one.
func (e *Entrance) watch() {
	if e.watched.CompareAndSwap(false, true) {
		left := e.left.Load()
		time.AfterFunc(patience, func() { e.look(left) })
	}
}

// look frees all places when none was given back since there were left.
func (e *Entrance) look(left uint64) {
	e.watched.Store(false)
	if e.waiting.Load() == 0 {
		return
	}
	if e.left.Load() == left {
		e.free(int32(cap(e.places)))
	}
	e.watch()
}
