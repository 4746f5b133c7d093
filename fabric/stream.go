package fabric

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

const (
	// window is how many bytes a side may have under way or unread by its peer.
	window = 512 << 10
	// maxChunk is the largest piece of a body in one frame.
	maxChunk = 64 << 10
	// chunkCost is what a chunk counts beyond its bytes, so that a window bounds empty chunks too.
	chunkCost = 64
)

// stream is one end of a stream, either end: chunks both ways, numbered, within credit.
//
// A side starts with a window of credit and gets back what its peer has read. A gap in the numbers, more bytes than were
// granted, or a connection that broke ends the stream with fault.StreamBroken: what is delivered is complete and in order
// or ends with a fault.
type stream struct {
	f      *Fabric
	op     string
	target Target // calling side
	route  *route // calling side
	to     string // subject of this side's frames
	called bool   // this is the called side
	back   string // calling side: the reply subject that names the stream to the peer
	token  uint64 // calling side: its place in the outbound table

	unwatch func() bool // stops watching the caller's context
	broke   func()      // told when the stream ends before its time

	heardAt, probedAt atomic.Int64 // pulses

	sending sync.Mutex // held from numbering a frame until it is published

	mu       sync.Mutex
	in       [][]byte
	held     int // cost of in
	owed     int // cost read and not yet granted again
	inSeq    uint64
	inEnd    bool // the peer has sent all; on the calling side: and its handler has returned
	head     *call.Response
	headSize int64
	inPieces bool // the answer comes in pieces, of which nobody knows how many
	credit   int
	outSeq   uint64
	outEnd   bool
	answered bool
	err      error

	trailer, peerTrailer call.Header // what goes with this side's end, and what came with the peer's

	readable, writable chan struct{} // hold one wake-up
	headed, broken     chan struct{} // closed once
}

// newStream makes the calling side of a stream.
func (f *Fabric) newStream(op string, target Target, r *route) *stream {
	s := f.newEnd(op, r.subject)
	s.target, s.route = target, r
	return s
}

func (f *Fabric) newEnd(op, to string) *stream {
	s := &stream{
		f: f, op: op, to: to, credit: window,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		headed: make(chan struct{}), broken: make(chan struct{}),
	}
	s.heardAt.Store(f.clock.Load())
	return s
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Recv returns the next chunk, io.EOF after the last, or a fault. What came before a fault is returned before it.
func (s *stream) Recv(ctx context.Context) ([]byte, error) {
	for {
		chunk, grant, err := s.next()
		if grant > 0 {
			s.publish(appendNumber(begin(nil, kindMore), "w", int64(grant)), nil)
		}
		if chunk != nil || err != nil {
			return chunk, err
		}
		select {
		case <-s.readable:
		case <-s.broken:
		case <-ctx.Done():
			return nil, fault.FromContext(s.op, ctx, "the next chunk of a stream")
		}
	}
}

// next takes a chunk off the queue, and tells how much credit to give back. Nothing at all means: wait.
func (s *stream) next() (chunk []byte, grant int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in) == 0 {
		switch {
		case s.inEnd:
			return nil, 0, io.EOF
		default:
			return nil, 0, s.err
		}
	}
	chunk, s.in[0] = s.in[0], nil
	s.in = s.in[1:]
	s.held -= len(chunk) + chunkCost
	s.owed += len(chunk) + chunkCost
	if s.owed >= window/2 && !s.inEnd && s.err == nil {
		grant, s.owed = s.owed, 0
	}
	return chunk, grant, nil
}

// Send sends a chunk, in pieces when it is large, and waits while the peer has not read what it got.
func (s *stream) Send(ctx context.Context, chunk []byte) error {
	if s.called {
		if err := s.answerOnce(nil, 0); err != nil {
			return err
		}
	}
	for most := s.f.link.chunk(); ; {
		piece := chunk[:min(len(chunk), most)]
		if err := s.acquire(ctx, len(piece)+chunkCost); err != nil {
			return err
		}
		if err := s.number(kindData, piece, nil); err != nil {
			return err
		}
		if chunk = chunk[len(piece):]; len(chunk) == 0 {
			return nil
		}
	}
}

func (s *stream) acquire(ctx context.Context, cost int) error {
	for {
		s.mu.Lock()
		switch {
		case s.inEnd && !s.called:
			s.mu.Unlock()
			return fault.New(s.op, fault.StreamBroken, "the handler has returned and reads no more: %w", io.EOF)
		case s.err != nil:
			defer s.mu.Unlock()
			return s.err
		case s.outEnd:
			s.mu.Unlock()
			return fault.New(s.op, fault.BadRequest, "a chunk was sent after the end of the stream")
		case s.credit >= cost:
			s.credit -= cost
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-s.writable:
		case <-s.broken:
		case <-ctx.Done():
			return fault.FromContext(s.op, ctx, "the peer to read what it was sent")
		}
	}
}

// number publishes a numbered frame; more adds its fields.
func (s *stream) number(kind string, body []byte, more func([]byte) []byte) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.mu.Lock()
	s.outSeq++
	seq := s.outSeq
	s.outEnd = s.outEnd || kind == kindEnd
	s.mu.Unlock()
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	*buffer = appendNumber(begin((*buffer)[:0], kind), "s", int64(seq))
	if more != nil {
		*buffer = more(*buffer)
	}
	return s.publish(*buffer, body)
}

// publish sends a frame. A frame that cannot be sent breaks the stream, for the peer would miss it.
func (s *stream) publish(value, body []byte) error {
	err := s.f.link.publish(s.to, s.back, value, body)
	if err == nil {
		return nil
	}
	broken := fault.New(s.op, fault.StreamBroken, "a frame could not be sent: %w", err)
	s.end(broken)
	return broken
}

// CloseSend says that the request is complete.
func (s *stream) CloseSend(context.Context) error {
	s.mu.Lock()
	err, ended := s.err, s.outEnd || s.inEnd
	s.mu.Unlock()
	if ended || err != nil {
		return err
	}
	return s.sendEnd()
}

// sendEnd says that this side has sent all.
func (s *stream) sendEnd() error {
	s.mu.Lock()
	trailer := s.trailer
	s.mu.Unlock()
	if len(trailer) == 0 {
		return s.number(kindEnd, nil, nil)
	}
	if value := appendTrailer(nil, trailer); len(trailer) > maxTrailer || !s.f.link.fits(len(value)+maxNumbers, 0) {
		err := fault.New(s.op, fault.BodyTooLarge, "the trailer of a stream has %d fields and %d bytes", len(trailer), len(value))
		s.reset(err)
		return err
	}
	return s.number(kindEnd, nil, func(b []byte) []byte { return appendTrailer(b, trailer) })
}

// maxTrailer is how many fields may go with the end of a stream.
const maxTrailer = maxFields / 2

var _ call.Trailed = (*stream)(nil)

// Trailer is what came with the peer's end.
func (s *stream) Trailer() call.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peerTrailer
}

// SetTrailer has fields go with this side's end.
func (s *stream) SetTrailer(fields call.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trailer = fields
}

// Header waits for the header of the answer.
func (s *stream) Header(ctx context.Context) (*call.Response, error) {
	select {
	case <-s.headed:
	case <-ctx.Done():
		return nil, fault.FromContext(s.op, ctx, "the header of a stream's answer")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == nil {
		return nil, s.err
	}
	return s.head, nil
}

// Close lets go of the stream; the peer is told when it has not ended.
func (s *stream) Close() {
	if s.unwatch != nil {
		s.unwatch()
	}
	if s.end(fault.New(s.op, fault.CallCanceled, "the stream was closed")) {
		s.mu.Lock()
		over := s.inEnd
		s.mu.Unlock()
		if !over {
			s.tellStop()
		}
	}
	s.f.outbound.drop(s.token, s)
}

// tellStop tells the called side that nobody waits any more.
func (s *stream) tellStop() {
	_ = s.f.link.publish(s.to, s.back, begin(nil, kindStop), nil) // the peer's own probe finds out otherwise
}

// Answer sends the header of the answer.
func (s *stream) Answer(_ context.Context, header *call.Response) error {
	s.mu.Lock()
	answered := s.answered
	s.mu.Unlock()
	if answered {
		return fault.New(s.op, fault.BadRequest, "the header of a stream's answer was sent twice")
	}
	return s.answerOnce(header, 0)
}

// sizeUnknown is that of an answer which passes in pieces.
const sizeUnknown = -1

// answerOnce sends the header unless it was. size is that of the body which follows, if known; 0 says nothing.
func (s *stream) answerOnce(header *call.Response, size int) error {
	s.mu.Lock()
	answered, err := s.answered, s.err
	s.answered = true
	s.mu.Unlock()
	if answered || err != nil {
		return err
	}
	if header == nil {
		header = &call.Response{}
	}
	if value := appendResponse(nil, header); !s.f.link.fits(len(value)+maxNumbers, 0) {
		err := fault.New(s.op, fault.AnswerTooLarge, "the metadata of the answer has %d bytes", len(value))
		s.reset(err)
		return err
	}
	return s.number(kindHead, nil, func(b []byte) []byte {
		switch {
		case size == sizeUnknown:
			b = append(b, "&p=1"...)
		case size > 0:
			b = appendNumber(b, "n", int64(size))
		}
		return appendResponse(b, header)
	})
}

// answerWhole sends a unary answer as header and chunks.
func (s *stream) answerWhole(ctx context.Context, resp *call.Response) error {
	if int64(len(resp.Body)) > s.f.config.MaxBody {
		return fault.New(s.op, fault.AnswerTooLarge, "the answer has %d bytes, the limit is %d", len(resp.Body), s.f.config.MaxBody)
	}
	if err := s.answerOnce(resp, len(resp.Body)); err != nil || len(resp.Body) == 0 {
		return err
	}
	return s.Send(ctx, resp.Body)
}

// maxNumbers is more than the kind and numbers of a frame take.
const maxNumbers = 64

// finish ends the called side as its handler ended.
func (s *stream) finish(err error) {
	if err != nil {
		s.reset(err)
		return
	}
	if s.answerOnce(nil, 0) == nil {
		_ = s.sendEnd() // it breaks the stream when it fails; the caller finds out by its probe
	}
}

// reset ends the stream here and at the peer with err.
func (s *stream) reset(err error) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if s.end(err) {
		value, text := appendFailure(begin(nil, kindReset), err)
		_ = s.f.link.publish(s.to, s.back, value, []byte(text)) // the peer's probe finds out otherwise
	}
}

// end makes every method return err from now on. False means that the stream had ended before.
func (s *stream) end(err error) bool {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return false
	}
	s.err = err
	if s.head == nil {
		close(s.headed)
	}
	close(s.broken)
	s.mu.Unlock()
	if s.broke != nil {
		s.broke()
	}
	return true
}
