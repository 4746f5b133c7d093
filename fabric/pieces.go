package fabric

import (
	"context"
	"errors"
	"io"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// passing is where the answer to a call that came in passes on in pieces, on a stream that begins with it. A nil passing is one
// of a caller that takes whole answers.
type passing struct {
	in     *inbound
	r      *running
	method string
	ctx    context.Context // of the pieces
	stream *stream         // nil until the answer begins, where the request was one message
	begun  bool
}

// passing gives the request its Pieces, if its caller takes some.
func (in *inbound) passing(whole context.Context, r *running, fr frame, req *call.Request) *passing {
	if !fr.pieces {
		return nil
	}
	p := &passing{in: in, r: r, method: fr.method, ctx: whole, stream: r.stream}
	req.Pieces = call.PiecesTo(whole, p)
	return p
}

// Begin implements call.Sink.
func (p *passing) Begin(head *call.Response) error {
	if size := len(appendResponse(nil, head)); !p.in.f.link.fits(size+maxNumbers, 0) {
		return fault.New("serve "+p.method, fault.AnswerTooLarge, "the metadata of the answer has %d bytes", size)
	}
	if p.stream == nil {
		s := p.r.newStream(p.method)
		if !p.r.begin(p.r.cancel, s) {
			return fault.New(s.op, fault.CallCanceled, "the caller went away before its answer began")
		}
		p.stream = s
	}
	p.begun = true
	return p.stream.answerOnce(head, sizeUnknown)
}

// Send implements call.Sink.
func (p *passing) Send(piece []byte) error { return p.stream.Send(p.ctx, piece) }

// End implements call.Sink.
func (p *passing) End(trailer call.Header) { p.stream.SetTrailer(trailer) }

// over ends an answer that has begun as its handler ended, and is false for one that has not.
func (p *passing) over(resp *call.Response, err error) bool {
	if p == nil || !p.begun {
		return false
	}
	if err == nil && !resp.Passed {
		err = errNotPassed(p.method)
	}
	p.stream.finish(err)
	return true
}

// answerTo reads the answer to a call, or passes it on where it comes in pieces. The caller closes the stream.
func (s *stream) answerTo(ctx context.Context, req *call.Request) (*call.Response, error) {
	head, err := s.Header(ctx)
	switch {
	case err != nil:
		return nil, err
	case !s.inPieces:
		return s.readAll(ctx, s.f.config.MaxBody)
	case req.Pieces == nil:
		return nil, fault.New(s.op, fault.Defect, "instance %s answered in pieces, for which nobody asked", s.target.Instance)
	}
	if s.unwatch != nil && !s.unwatch() {
		return nil, fault.FromContext(s.op, ctx, "the answer")
	}
	whole, err := req.Pieces.Begin(head)
	if err != nil {
		return nil, untaken(s.op, err)
	}
	s.watch(whole)
	for {
		chunk, err := s.Recv(whole)
		if errors.Is(err, io.EOF) {
			req.Pieces.End(s.Trailer())
			head.Passed = true
			return head, nil
		}
		if err == nil {
			err = req.Pieces.Send(chunk)
		}
		if err != nil {
			return nil, err
		}
	}
}

// untaken is the fault of an answer that its caller did not take.
func untaken(op string, err error) error {
	var given *fault.Error
	if errors.As(err, &given) {
		return err
	}
	return fault.E(op, fault.KindOf(err), reasonOf(err), err)
}

// ownPassing is where the answer to a call of this very instance passes on: to the caller's own Pieces, if its attempt takes the
// call. The handler's attempts take theirs.
type ownPassing struct {
	to    *call.Pieces
	begun bool
}

// Begin implements call.Sink.
func (p *ownPassing) Begin(head *call.Response) error {
	_, err := p.to.Begin(head)
	p.begun = err == nil
	return err
}

// Send implements call.Sink.
func (p *ownPassing) Send(piece []byte) error { return p.to.Send(piece) }

// End implements call.Sink.
func (p *ownPassing) End(trailer call.Header) { p.to.End(trailer) }

// errNotPassed is the defect of a handler.
func errNotPassed(method string) error {
	return fault.New("serve "+method, fault.Defect, "the handler answered a call whose answer had begun")
}
