package appchannel

import (
	"sync"

	"github.com/sidecast/sidecast/call"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// line is first come, first served. Its links are in the work itself, so waiting allocates nothing.
type line struct {
	first, last *work
	length      int
}

func (l *line) push(w *work) {
	w.previous, w.next, w.inLine = l.last, nil, true
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	l.length++
}

// remove tells whether w was in line.
func (l *line) remove(w *work) bool {
	if !w.inLine {
		return false
	}
	if w.previous != nil {
		w.previous.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.previous = w.previous
	} else {
		l.last = w.previous
	}
	w.previous, w.next, w.inLine = nil, nil, false
	l.length--
	return true
}

// work is one invocation, stream or delivery on its way through a hub. It is answered exactly once, by whoever takes it
// out of its stream's table.
type work struct {
	need    need
	kind    kind
	request *call.Request // of an invocation
	event   *Event        // of a delivery

	id       uint64          // in its stream's table
	granted  chan *appStream // holds one; nil means: look again
	answered chan answer     // holds one
	sent     bool            // guarded by the stream's mu: the app may have seen it
	flow     *flow           // of a streaming invocation; nil otherwise

	inLine         bool // guarded by the hub's mu, as are the links
	previous, next *work

	form form
}

// answer is what came of a piece of work: one of the four.
type answer struct {
	call  *sidecastv1.CallAnswer
	event *sidecastv1.EventAnswer
	again bool // the stream went before the app saw the work: choose another
	err   error
}

var workPool = sync.Pool{New: func() any {
	return &work{granted: make(chan *appStream, 1), answered: make(chan answer, 1)}
}}

// recycle may be called when no stream and no line knows w any more.
func (w *work) recycle() {
	w.need, w.request, w.event, w.flow = need{}, nil, nil, nil
	w.form.clear()
	workPool.Put(w)
}

// entry is one piece of work that the app has yet to answer. Its work is nil when nobody waits for the answer any more:
// then the answer gives back the credit and is forgotten.
type entry struct {
	work *work
	kind kind
}

// kind is the sort of a piece of work, which decides the frames that may answer it.
type kind uint8

const (
	unaryWork kind = iota
	streamWork
	eventWork
)
