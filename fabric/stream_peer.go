package fabric

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

func (s *stream) peer() (Target, string) { return s.target, s.to }

func (s *stream) fail(_ uint64, err *fault.Error) { s.end(during(s.op, err)) }

func (s *stream) nobody(_ uint64, later bool) {
	err := nobodyThere(s.target)
	if later {
		err = fault.New("", fault.InstanceLost, "instance %s of %s went away during the stream", s.target.Instance, s.target.App)
	}
	s.end(during(s.op, err))
	s.f.presence.eject(s.target)
}

// heard takes a frame of the peer. It is called by one goroutine at a time.
func (s *stream) heard(_ uint64, m *nats.Msg, value string) {
	s.heardAt.Store(s.f.clock.Load())
	if s.route != nil {
		s.route.heardAt.Store(s.f.clock.Load())
	}
	fr, err := parseFrame(value)
	if err == nil {
		err = s.take(fr, m.Data)
	}
	if err != nil {
		s.f.badFrames.Add(1)
		s.reset(fault.New(s.op, fault.StreamBroken, "the stream was reset: %w", err))
	}
}

// take applies a frame. An error is a breach of the protocol, or a loss.
func (s *stream) take(fr frame, body []byte) error {
	switch fr.kind {
	case kindReset, kindFailed: // failed: the call was refused before it became a stream
		s.end(fr.failure.fault(string(body)))
		return nil
	case kindStop:
		s.end(fault.New(s.op, fault.CallCanceled, "the caller went away"))
		return nil
	case kindGone:
		s.mu.Lock()
		over := s.inEnd && !s.called
		s.mu.Unlock()
		if !over {
			s.end(fault.New(s.op, fault.InstanceLost, "the peer does not know the stream any more"))
		}
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch fr.kind {
	case kindProbe:
		if fr.seq != s.inSeq {
			return lossError(s.inSeq, fr.seq)
		}
		return nil
	case kindMore:
		if s.credit += fr.credit; s.credit > window {
			return errors.New("the peer granted more than a window")
		}
		wake(s.writable)
		return nil
	case kindHead, kindData, kindEnd:
	default:
		return nil // of a newer peer
	}
	if s.inSeq++; fr.seq != s.inSeq {
		return lossError(s.inSeq-1, fr.seq-1)
	}
	return s.takeNumbered(fr, body)
}

func lossError(got, sent uint64) error {
	return fmt.Errorf("frames were lost on the way: %d of %d came", got, sent)
}

// takeNumbered applies a frame whose number is right. s.mu is held.
func (s *stream) takeNumbered(fr frame, body []byte) error {
	switch fr.kind {
	case kindHead:
		if s.called || s.head != nil || s.err != nil {
			return nil
		}
		s.head, s.headSize, s.inPieces = fr.response(nil), fr.size, fr.pieces
		close(s.headed)
	case kindData:
		if s.inEnd {
			return errors.New("a chunk came after the end")
		}
		if s.held += len(body) + chunkCost; s.held > window {
			return errors.New("the peer sent more than it was granted")
		}
		if body == nil {
			body = []byte{}
		}
		s.in = append(s.in, body)
		wake(s.readable)
	case kindEnd:
		s.inEnd, s.peerTrailer = true, fr.trailer
		wake(s.readable)
		wake(s.writable)
	}
	return nil
}

// probe asks the peer whether it still knows the stream.
func (s *stream) probe(_ uint64, pulse int64) {
	s.mu.Lock()
	over := s.err != nil || s.inEnd && !s.called
	s.mu.Unlock()
	if !over && pulse-s.heardAt.Load() >= quietPulses && pulse-s.probedAt.Load() >= quietPulses {
		s.probedAt.Store(pulse)
		s.sendProbe(s.back)
	}
}

// sendProbe sends how many numbered frames were sent. A sender at work shows that the stream lives: it is not waited for.
func (s *stream) sendProbe(reply string) {
	if !s.sending.TryLock() {
		return
	}
	defer s.sending.Unlock()
	s.mu.Lock()
	seq := s.outSeq
	s.mu.Unlock()
	_ = s.f.link.publish(s.to, reply, appendNumber(begin(nil, kindProbe), "s", int64(seq)), nil) // the next pulse tries again
}

// readAll reads the answer to a unary call: its header and all of its body, up to limit bytes.
func (s *stream) readAll(ctx context.Context, limit int64) (*call.Response, error) {
	head, err := s.Header(ctx)
	if err != nil {
		return nil, err
	}
	tooLarge := func(size int64) error {
		return fault.New(s.op, fault.AnswerTooLarge, "the answer has at least %d bytes, the limit is %d", size, limit)
	}
	if s.headSize > limit {
		return nil, tooLarge(s.headSize)
	}
	if err := call.TakeRoom(ctx, s.headSize); err != nil {
		return nil, err // the peer waits for credit meanwhile, and is told when the stream closes
	}
	body := make([]byte, 0, s.headSize)
	for {
		chunk, err := s.Recv(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if int64(len(body)+len(chunk)) > limit {
			return nil, tooLarge(int64(len(body) + len(chunk)))
		}
		body = append(body, chunk...)
	}
	head.Body = body
	return head, nil
}
