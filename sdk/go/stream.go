package sidecast

import (
	"context"
	"io"
	"sync"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

const (
	window   = 256 << 10  // bytes that each direction starts with, as the protocol says
	grantAt  = window / 4 // bytes read before the far end may send as many more
	maxWhole = 64 << 20   // of a stream that is read whole for a handler of whole bodies
)

// Stream is bytes both ways, as a handler sees them. It is an io.Reader and an io.Writer: one goroutine may read while
// another writes. Both fail when the caller goes away, and neither may be used once the handler has returned.
type Stream struct {
	ctx     context.Context
	session *session
	id      uint64
	whole   *Response // collects the answer to a caller that does not stream; nil otherwise

	mu      sync.Mutex
	inbox   [][]byte
	rest    []byte // of the chunk being read
	ended   bool   // the request is complete
	taken   int64  // bytes read and not yet granted again
	credit  int64  // bytes that may be written
	headed  bool
	changed chan struct{} // holds one, for the reader
	room    chan struct{} // holds one, for the writer
}

func newStream(ctx context.Context, n *session, id uint64) *Stream {
	return &Stream{ctx: ctx, session: n, id: id, credit: window, changed: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// arrive takes a chunk from the sidecar, which sends no more than the window allows.
func (s *Stream) arrive(data []byte, end bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(data) > 0 {
		s.inbox = append(s.inbox, data)
	}
	s.ended = s.ended || end
	nudge(s.changed)
}

// allow opens the window for writing.
func (s *Stream) allow(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit += bytes
	nudge(s.room)
}

// Read reads bytes of the request; io.EOF is its end.
func (s *Stream) Read(p []byte) (int, error) {
	for {
		s.mu.Lock()
		if len(s.rest) == 0 && len(s.inbox) > 0 {
			s.rest, s.inbox = s.inbox[0], s.inbox[1:]
		}
		n := copy(p, s.rest)
		s.rest = s.rest[n:]
		s.taken += int64(n)
		var grant int64
		if s.taken >= grantAt && !s.ended {
			grant, s.taken = s.taken, 0
		}
		done := n == 0 && s.ended
		s.mu.Unlock()
		if grant > 0 {
			s.session.send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_StreamCredit{
				StreamCredit: &sidecastv1.StreamCredit{CallId: s.id, Bytes: grant},
			}})
		}
		switch {
		case n > 0 || len(p) == 0:
			return n, nil
		case done:
			return 0, io.EOF
		}
		select {
		case <-s.changed:
		case <-s.ctx.Done():
			return 0, fault.FromContext("read stream", s.ctx, "more of the request")
		}
	}
}

// Header sends media type and metadata of the answer; its Data is ignored. At most once, before the first Write, which
// sends an empty one otherwise.
func (s *Stream) Header(header *Response) error {
	s.mu.Lock()
	second := s.headed
	s.headed = true
	s.mu.Unlock()
	if second {
		return fault.New("stream header", fault.BadRequest, "the header of the answer was sent already")
	}
	if header == nil {
		header = &Response{}
	}
	if s.whole != nil {
		s.whole.ContentType, s.whole.Metadata, s.whole.Status = header.ContentType, header.Metadata, header.Status
		return nil
	}
	plain := *header
	plain.Data = nil
	s.session.send(answerOf(s.id, &plain, nil))
	return nil
}

// Write sends bytes of the answer. It waits while the caller reads slowly.
func (s *Stream) Write(p []byte) (n int, err error) {
	s.mu.Lock()
	headed := s.headed
	s.mu.Unlock()
	if !headed {
		if err := s.Header(nil); err != nil {
			return 0, err
		}
	}
	if s.whole != nil {
		s.whole.Data = append(s.whole.Data, p...)
		return len(p), nil
	}
	for len(p) > 0 {
		size, err := s.reserve(min(len(p), chunkSize))
		if err != nil {
			return n, err
		}
		s.session.send(s.chunk(p[:size], false))
		n, p = n+size, p[size:]
	}
	return n, nil
}

// reserve waits until at least one byte may be written.
func (s *Stream) reserve(want int) (int, error) {
	for {
		s.mu.Lock()
		size := min(int64(want), s.credit)
		s.credit -= size
		s.mu.Unlock()
		if s.ctx.Err() == nil && size > 0 {
			return int(size), nil
		}
		select {
		case <-s.room:
		case <-s.ctx.Done():
			return 0, fault.FromContext("write stream", s.ctx, "the caller to take more of the answer")
		}
	}
}

func (s *Stream) chunk(data []byte, end bool) *sidecastv1.ServeRequest {
	return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Chunk{
		Chunk: &sidecastv1.StreamChunk{CallId: s.id, Data: data, End: end},
	}}
}

// last is the frame that ends the stream.
func (s *Stream) last(err error) *sidecastv1.ServeRequest {
	if err != nil {
		return answerOf(s.id, nil, err)
	}
	s.mu.Lock()
	headed := s.headed
	s.mu.Unlock()
	if !headed {
		_ = s.Header(nil) // it can only fail as a second one
	}
	return s.chunk(nil, true)
}
