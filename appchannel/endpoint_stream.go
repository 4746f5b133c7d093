package appchannel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// Stream makes a call whose bodies pass on as they come. The request begins with its first chunk, or with its end, so that
// one without a body is sent as one. Close the stream.
func (e *Endpoint) Stream(ctx context.Context, req *call.Request) call.ClientStream {
	s := &endpointStream{e: e, op: "invoke " + req.Method, req: req, answered: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s
}

// endpointStream is one call. A goroutine makes the request and waits for the head of its answer; Close waits for it.
type endpointStream struct {
	e      *Endpoint
	op     string
	req    *call.Request
	ctx    context.Context
	cancel context.CancelFunc

	once     sync.Once
	begun    bool           // belongs to the sender, and to Close after it
	body     *io.PipeWriter // nil for a request without a body
	answered chan struct{}  // closed when response and err are there
	response *http.Response
	err      error

	trailer call.Header // of the request; belongs to the sender until it closes the body

	chunk       []byte      // belongs to the receiver
	peerTrailer call.Header // likewise
}

var _ call.ClientStream = (*endpointStream)(nil)

// begin starts the request, once.
func (s *endpointStream) begin(withBody bool) {
	s.once.Do(func() {
		s.begun = true
		var from io.Reader
		if withBody {
			reader, writer := io.Pipe()
			from, s.body = &trailed{PipeReader: reader, s: s}, writer
		}
		go func() {
			defer close(s.answered)
			s.response, s.err = s.e.send(s.ctx, s.op, s.req, from, func(r *http.Request) {
				if t, ok := from.(*trailed); ok {
					t.announced = r.Trailer
				}
			})
			if s.err != nil && s.body != nil {
				_ = s.body.CloseWithError(s.err) // whoever sends hears of it
			}
		}()
	})
}

// trailed is the body of a request. At its end the fields that follow it get their values.
type trailed struct {
	*io.PipeReader
	s         *endpointStream
	announced http.Header
}

func (t *trailed) Read(p []byte) (int, error) {
	n, err := t.PipeReader.Read(p)
	if errors.Is(err, io.EOF) {
		fillTrailer(t.announced, t.s.trailer)
	}
	return n, err
}

var _ call.Trailed = (*endpointStream)(nil)

// Trailer is what followed the answer.
func (s *endpointStream) Trailer() call.Header { return s.peerTrailer }

// SetTrailer has fields follow the request, those that its header announces.
func (s *endpointStream) SetTrailer(fields call.Header) { s.trailer = fields }

// Send passes a chunk of the request on.
func (s *endpointStream) Send(ctx context.Context, chunk []byte) error {
	s.begin(true)
	if s.body == nil {
		return fmt.Errorf("the request of %s has ended: %w", s.op, io.EOF)
	}
	defer context.AfterFunc(ctx, func() { _ = s.body.CloseWithError(ctx.Err()) })()
	_, err := s.body.Write(chunk)
	switch {
	case errors.Is(err, io.ErrClosedPipe):
		return fmt.Errorf("%s reads no more of its request: %w", s.e.base.Host, io.EOF)
	case err != nil:
		return s.e.broken(ctx, s.op, err)
	}
	return nil
}

// CloseSend ends the request.
func (s *endpointStream) CloseSend(context.Context) error {
	s.begin(false)
	if s.body != nil {
		return s.body.Close()
	}
	return nil
}

// Header waits for the head of the answer.
func (s *endpointStream) Header(ctx context.Context) (*call.Response, error) {
	select {
	case <-s.answered:
	case <-ctx.Done():
		return nil, s.e.broken(ctx, s.op, ctx.Err())
	}
	if s.err != nil {
		return nil, s.err
	}
	return headOf(s.response), nil
}

// Recv returns the next piece of the answer. A server that says nothing for endpointQuiet is given up.
func (s *endpointStream) Recv(ctx context.Context) ([]byte, error) {
	if s.chunk == nil {
		s.chunk = make([]byte, chunkSize)
	}
	defer context.AfterFunc(ctx, s.cancel)()
	quiet := time.AfterFunc(endpointQuiet, s.cancel)
	defer quiet.Stop()
	for {
		n, err := s.response.Body.Read(s.chunk)
		switch {
		case n > 0:
			return append([]byte(nil), s.chunk[:n]...), nil
		case errors.Is(err, io.EOF):
			s.peerTrailer = trailerOf(s.response.Trailer)
			return nil, io.EOF
		case s.ctx.Err() != nil && ctx.Err() == nil:
			return nil, fault.New(s.op, fault.EndpointBroke, "%s said nothing for %s", s.e.base.Host, endpointQuiet)
		case err != nil:
			return nil, s.e.broken(ctx, s.op, err)
		}
	}
}

// Close ends the call and waits for what it started.
func (s *endpointStream) Close() {
	s.cancel()
	s.once.Do(func() {})
	if s.body != nil {
		_ = s.body.CloseWithError(context.Canceled)
	}
	if s.begun {
		<-s.answered
	}
	if s.response != nil {
		s.response.Body.Close()
	}
}
