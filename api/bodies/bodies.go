// Package bodies bounds the memory that the bodies of calls take at the front doors, in sum, whatever is offered.
//
// A request is large or small only once it has been read, so no more than a few are read at a time, and those that turn
// out to be large take their share of a budget before they go on, or are refused. Answers have a budget of their own: a
// call that holds its request never waits for a share that other requests hold. What calls keep of their requests to send
// it again has one, too, a small one: they can do without it, and others not without the room that it would take.
//
// It promises no fairness between callers and counts no small bodies: lanes bound how many of those there are.
//
//	share := budget.Open()
//	defer share.Close()
//	err := share.Read(ctx, op, func() (int, error) { return size, stream.RecvMsg(m) })
//	answer, err := call(share.Context(ctx), m)
package bodies

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sidecast/sidecast/api/entrance"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

const (
	// large is the size in bytes from which a body is counted.
	large = 64 << 10
	// budget is what all large requests hold together, and all large answers.
	budget = 128 << 20
	// keptPart is which part of budget, one in so many, all that calls keep of their requests may hold, beside it.
	keptPart = 4
	// reading is what the requests being read may hold together, if each is as large as can be.
	reading = 256 << 20
	// fewest and most bound how many are read at a time.
	fewest, most = 2, 64
	// parking is how many large requests that have been read may wait for room in the budget.
	parking = 2
	// stall is how long those in line trust that the ones being read go on: a caller that has stopped in the middle of its
	// request must not hold up all others. patience is how long they wait in all.
	stall, patience = time.Second, 5 * time.Second
	// retryAfter is how long a refused caller is asked to wait.
	retryAfter = 500 * time.Millisecond
)

// Budget is what the front doors of a sidecar share.
type Budget struct {
	readers, late     chan struct{} // hold one for each request being read
	parked            chan struct{} // holds one for each that has been read and waits for room
	requests, answers *semaphore.Weighted
	kept              *semaphore.Weighted // nobody waits for it
	size              int64
	entrance          *entrance.Entrance
}

// NewBudget returns a budget for requests of up to maxRead bytes.
func NewBudget(maxRead int64) *Budget { return newBudget(maxRead, budget) }

func newBudget(maxRead, size int64) *Budget {
	n := min(max(reading/max(maxRead, 1), fewest), most)
	return &Budget{
		readers: make(chan struct{}, n), late: make(chan struct{}, n), parked: make(chan struct{}, parking),
		requests: semaphore.NewWeighted(size), answers: semaphore.NewWeighted(size),
		kept: semaphore.NewWeighted(size / keptPart), size: size,
		entrance: entrance.New(),
	}
}

// Share is what one call holds.
type Share struct {
	b        *Budget
	requests int64
	place    *entrance.Place // own, or that of its connection
	own      entrance.Place

	mu      sync.Mutex // attempts may race
	answers int64
	kept    int64 // of the request
	message int64 // of a stream, among the requests
	closed  bool
}

// Open begins a call.
func (b *Budget) Open() *Share {
	s := &Share{b: b}
	s.own.At, s.place = b.entrance, &s.own
	return s
}

// OpenAt begins a call that came on a connection with a place, if that is not nil.
func (b *Budget) OpenAt(place *entrance.Place) *Share {
	s := b.Open()
	if place != nil {
		s.place = place
	}
	return s
}

// Entrance is where the calls stand in line.
func (b *Budget) Entrance() *entrance.Entrance { return b.entrance }

// Close gives back what the call holds: its request and its answer are no longer used.
func (s *Share) Close() {
	s.Leave()
	if s.requests > 0 {
		s.b.requests.Release(s.requests)
		s.requests = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.drop()
	s.forget()
	if s.answers > 0 {
		s.b.answers.Release(s.answers)
		s.answers = 0
	}
}

// Enter takes a place for a call whose request comes in pieces, which Read does for others. It fails only when ctx ends
// before there is one.
func (s *Share) Enter(ctx context.Context, op string) error { return s.place.Enter(ctx, op) }

// Leave implements call.Entry.
func (s *Share) Leave() { s.place.Leave() }

// Keep implements call.Keeper.
func (s *Share) Keep(bytes int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.b.kept.TryAcquire(bytes) {
		return false
	}
	s.kept += bytes
	return true
}

// Drop implements call.Keeper.
func (s *Share) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

func (s *Share) drop() {
	if s.kept > 0 {
		s.b.kept.Release(s.kept)
		s.kept = 0
	}
}

// Read calls read, which reads a whole request and returns its size, when it is the caller's turn, and takes the share of
// that request. It fails with fault.BodiesFull when the requests before it leave no room in time, and as read fails.
func (s *Share) Read(ctx context.Context, op string, read func() (int, error)) error {
	size, err := s.read(ctx, op, read)
	if err != nil {
		return err
	}
	if size < large {
		return s.place.Enter(ctx, op)
	}
	s.Leave()                            // to wait for room
	weight := min(int64(size), s.b.size) // one always fits
	if !s.b.requests.TryAcquire(weight) {
		if err := s.b.park(ctx, op, weight); err != nil {
			return err
		}
	}
	s.requests += weight
	return nil
}

// Next gives back what the last message of a stream held and takes the share of the next, which has come and has that size.
// Messages have no turn to be read: callers may take their time between two. It fails as Read does.
func (s *Share) Next(ctx context.Context, op string, size int) error {
	s.mu.Lock()
	s.forget()
	s.mu.Unlock()
	if size < large {
		return nil
	}
	weight := min(int64(size), s.b.size) // one always fits
	if !s.b.requests.TryAcquire(weight) {
		if err := s.b.park(ctx, op, weight); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.b.requests.Release(weight)
		return fault.New(op, fault.CallCanceled, "the call has ended")
	}
	s.message = weight
	return nil
}

func (s *Share) forget() {
	if s.message > 0 {
		s.b.requests.Release(s.message)
		s.message = 0
	}
}

func (s *Share) read(ctx context.Context, op string, read func() (int, error)) (int, error) {
	slot := s.b.readers
	select {
	case slot <- struct{}{}:
	default:
		s.Leave()
		var err error
		if slot, err = s.b.enter(ctx, op); err != nil {
			return 0, err
		}
	}
	defer func() { <-slot }()
	return read()
}

// park waits for room, which takes memory, but nobody's turn to read: small requests go on.
func (b *Budget) park(ctx context.Context, op string, weight int64) error {
	select {
	case b.parked <- struct{}{}:
		defer func() { <-b.parked }()
	default:
		return full(ctx, op)
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if b.requests.Acquire(bounded, weight) != nil {
		return full(ctx, op)
	}
	return nil
}

// enter waits for a turn to read. The turn ends when its slot is received from.
func (b *Budget) enter(ctx context.Context, op string) (slot chan struct{}, err error) {
	timer := time.NewTimer(stall)
	defer timer.Stop()
	select {
	case b.readers <- struct{}{}:
		return b.readers, nil
	case <-ctx.Done():
		return nil, full(ctx, op)
	case <-timer.C:
	}
	timer.Reset(patience - stall)
	select {
	case b.readers <- struct{}{}:
		return b.readers, nil
	case b.late <- struct{}{}:
		return b.late, nil
	case <-ctx.Done():
	case <-timer.C:
	}
	return nil, full(ctx, op)
}

func full(ctx context.Context, op string) error {
	if ctx.Err() != nil {
		return fault.FromContext(op, ctx, "room for the body among those of other calls")
	}
	return fault.New(op, fault.BodiesFull, "the bodies of other calls take all the room there is for them").After(retryAfter)
}

// Context returns ctx with the share as the room that the call's answer takes.
func (s *Share) Context(ctx context.Context) context.Context { return call.WithRoom(ctx, s) }

// Take implements call.Room. It waits for as long as ctx allows, but not while the answer of another attempt of the same
// call is held: two such calls could wait for each other.
func (s *Share) Take(ctx context.Context, bytes int64) error {
	const op = "take an answer"
	if bytes < large {
		return nil
	}
	weight := min(bytes, s.b.size) // one always fits
	s.mu.Lock()
	again := s.answers > 0
	s.mu.Unlock()
	switch {
	case again && !s.b.answers.TryAcquire(weight):
		return fault.E(op, fault.Exhausted, fault.AnswerTooLarge, errors.New("the answers of other calls leave no room for that of a further attempt"))
	case !again && s.b.answers.Acquire(ctx, weight) != nil:
		return fault.FromContext(op, ctx, "room for a body of this size among those of other calls")
	}
	return s.hold(op, weight)
}

// Grow implements call.Grower. A small answer that turns out to be large waits as one that was known to be; one that grows
// further holds room already and is refused when there is no more.
func (s *Share) Grow(ctx context.Context, from, to int64) error {
	const op = "take an answer"
	if from < large {
		return s.Take(ctx, to)
	}
	weight := min(to, s.b.size) - min(from, s.b.size) // one always fits
	if !s.b.answers.TryAcquire(weight) {
		return fault.E(op, fault.Exhausted, fault.AnswerTooLarge, errors.New("the answers of other calls leave no room for the rest of one whose size was not told"))
	}
	return s.hold(op, weight)
}

// hold notes what was acquired for answers, to be released when the call ends.
func (s *Share) hold(op string, weight int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		s.b.answers.Release(weight)
		return fault.New(op, fault.CallCanceled, "the call has ended")
	}
	s.answers += weight
	return nil
}
