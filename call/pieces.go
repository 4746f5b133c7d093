package call

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Sink takes an answer as it comes. One goroutine calls it, and its methods fail when whoever the answer is for takes no more
// of it.
type Sink interface {
	// Begin takes the head of the answer, once.
	Begin(head *Response) error
	// Send takes a piece of the body, and waits while there is no room for it. The piece may be reused when Send returns.
	Send(piece []byte) error
	// End takes what follows a whole body: trailer, which may be empty.
	End(trailer Header)
}

// Pieces is a caller that takes an answer as it comes, when it is not whole at once. It belongs to one call, of which there may be
// several attempts, one after another or beside each other: the first that has an answer takes the call, and that answer
// is the caller's. Attempts that come later fail with ErrTaken.
type Pieces struct {
	*takes
	to       Sink
	answered func(head *Response, at time.Time) // of an attempt; nil when nobody wants to know
	passing  bool                               // the answer of this attempt
	refused  bool                               // a piece of it
}

// takes is what all attempts at a call share.
type takes struct {
	whole context.Context
	taken atomic.Bool
}

// ErrTaken is why an attempt ends whose call another has answered.
var ErrTaken = fmt.Errorf("another attempt has answered the call: %w", context.Canceled)

// PiecesTo returns a caller that takes pieces into a sink. They pass as long as whole allows: it is the call's own context,
// without the time that a single attempt may take, which is for the head of the answer.
func PiecesTo(whole context.Context, to Sink) *Pieces {
	return &Pieces{takes: &takes{whole: whole}, to: to}
}

// Attempt is the caller as one attempt sees it. Answered is told when the head of its answer has come, if that takes the call and
// is no whole answer: before the caller gets it. Of an attempt that is part of another, both are told.
func (p *Pieces) Attempt(answered func(head *Response, at time.Time)) *Pieces {
	if outer := p.answered; outer != nil {
		inner := answered
		answered = func(head *Response, at time.Time) {
			inner(head, at)
			outer(head, at)
		}
	}
	return &Pieces{takes: p.takes, to: p.to, answered: answered}
}

// Context is the call's own.
func (p *Pieces) Context() context.Context { return p.whole }

// Through is the caller of the same call for attempts whose answers shall pass through what wrap makes of its sink. None of those
// follows an answer of another attempt at the call either. Of a caller that takes no pieces it is that.
func (p *Pieces) Through(wrap func(to Sink) Sink) *Pieces {
	if p == nil {
		return nil
	}
	return &Pieces{takes: p.takes, to: wrap(p.to), answered: p.answered}
}

// Sink is where answers pass to.
func (p *Pieces) Sink() Sink { return p.to }

// Take makes the answer of an attempt the caller's: one that is whole, for Begin takes one that is not. It is false when
// there is one already. A caller that takes no pieces may be asked as often as attempts like.
func (p *Pieces) Take() bool { return p == nil || p.taken.CompareAndSwap(false, true) }

// Taken says whether an attempt has an answer, which no other attempt may follow.
func (p *Pieces) Taken() bool { return p != nil && p.taken.Load() }

// Left says that the caller went away, or takes no more, while the answer of this attempt passes. It is for the attempt's goroutine.
func (p *Pieces) Left() bool { return p != nil && p.passing && (p.refused || p.whole.Err() != nil) }

// Begin takes the call, and its sink the head of the answer. The pieces pass under the context that it returns.
func (p *Pieces) Begin(head *Response) (context.Context, error) {
	if err := p.whole.Err(); err != nil {
		return nil, err
	}
	if !p.Take() {
		return nil, ErrTaken
	}
	p.passing = true
	if p.answered != nil {
		p.answered(head, time.Now())
	}
	return p.whole, p.to.Begin(head)
}

// Send passes on a piece of the answer that Begin began.
func (p *Pieces) Send(piece []byte) error {
	err := p.to.Send(piece)
	p.refused = p.refused || err != nil
	return err
}

// End ends it.
func (p *Pieces) End(trailer Header) { p.to.End(trailer) }

// Open returns the context of an attempt: it ends as within does, which is the attempt's own, until its answer begins, and
// from then on only with the call. Close it.
func (p *Pieces) Open(within context.Context) *Passage {
	o := &Passage{pieces: p, within: within}
	o.Context, o.cancel = context.WithCancel(p.whole)
	o.unhold = context.AfterFunc(within, o.cancel)
	return o
}

// Passage is one attempt at a call whose answer may pass in pieces, and the context of what is done for it.
type Passage struct {
	context.Context // of the call, and cancelled with within until unhold
	pieces          *Pieces
	within          context.Context
	cancel          context.CancelFunc
	unhold          func() bool
	free            atomic.Bool // of within
}

// Begin takes the call, and its sink the head of the answer.
func (o *Passage) Begin(head *Response) error {
	if !o.unhold() { // the attempt is over, or the passage was closed meanwhile
		if err := o.Err(); err != nil {
			return err
		}
		return context.Canceled
	}
	o.free.Store(true)
	_, err := o.pieces.Begin(head)
	return err
}

// Send passes on a piece of the answer.
func (o *Passage) Send(piece []byte) error { return o.pieces.Send(piece) }

// End ends it.
func (o *Passage) End(trailer Header) { o.pieces.End(trailer) }

// Close ends the context.
func (o *Passage) Close() {
	o.unhold()
	o.cancel()
}

// bound is the context that says when the attempt ends, and why.
func (o *Passage) bound() context.Context {
	if o.free.Load() {
		return o.pieces.whole
	}
	return o.within
}

// Deadline implements context.Context.
func (o *Passage) Deadline() (time.Time, bool) { return o.bound().Deadline() }

// Err implements context.Context: an attempt whose time was up says so.
func (o *Passage) Err() error {
	if o.Context.Err() == nil {
		return nil
	}
	if err := o.bound().Err(); err != nil {
		return err
	}
	return o.Context.Err()
}

// Value implements context.Context.
func (o *Passage) Value(key any) any {
	if value := o.Context.Value(key); value != nil {
		return value
	}
	return o.within.Value(key)
}
