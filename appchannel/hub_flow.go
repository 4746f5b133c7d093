package appchannel

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

const (
	window       = 256 << 10  // bytes that each direction of a stream starts with, as the protocol says
	chunkSize    = 32 << 10   // of the chunks sent: large enough to be cheap, small enough not to hold up other calls
	chunksQueued = 4          // chunks of one stream in the outbox: tiny chunks cost memory that the window does not count
	maxWindow    = 64 << 20   // that an app may open
	grantAt      = window / 4 // bytes taken before the app is told that it may send them again
	inboxChunks  = 64         // chunks kept apart; beyond that small ones are joined, for the same reason
)

// flow is the state of one streaming invocation, guarded by its stream's mu. The reader and the writer of the stream
// change it and nudge; the caller's two goroutines look and act.
type flow struct {
	open  bool  // the app may have seen the invocation
	ended bool  // the app has said all, or failed
	again bool  // it ended because the stream went before the app saw it
	err   error // why it failed

	answer *sidecastv1.InvokeResponse // header of the answer, until it was passed on
	headed bool                       // a header has come
	inbox  [][]byte                   // what the app sent and nobody has taken
	unread int                        // bytes the app has sent against its window and not got back
	owed   int                        // bytes taken and not yet given back

	credit int64 // bytes that the app still takes
	queued int   // chunks in the outbox

	changed chan struct{} // holds one: look again, for the receiving side
	room    chan struct{} // holds one: look again, for the sending side
}

func newFlow() *flow {
	return &flow{credit: window, changed: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Stream hands the app a streaming call. The caller's goroutine carries what the app sends, one more what the peer sends.
func (h *Hub) Stream(ctx context.Context, req *call.Request, peer call.ServerStream) error {
	w := &work{
		need: need{name: req.Method}, kind: streamWork, request: req,
		granted: make(chan *appStream, 1), answered: make(chan answer, 1),
	}
	for {
		w.flow = newFlow()
		s, err := h.submit(ctx, w)
		if err != nil {
			return err
		}
		if again, err := s.carry(ctx, w, peer); !again {
			return err
		}
	}
}

// carry moves bytes both ways until the app has said all. Again means that the app never saw the call.
func (s *appStream) carry(ctx context.Context, w *work, peer call.ServerStream) (again bool, err error) {
	sending, stop := context.WithCancel(ctx)
	var sent chan error // of the sending side; nil until it began
	defer func() {
		stop()
		if sent != nil {
			<-sent
		}
	}()
	failed := make(chan error, 1)
	f := w.flow
	for {
		s.mu.Lock()
		open, header, chunks, ended := f.open, f.answer, f.inbox, f.ended
		f.answer, f.inbox = nil, nil
		s.mu.Unlock()
		if open && sent == nil {
			sent = make(chan error)
			go func() {
				defer close(sent)
				if err := s.upload(sending, w, peer); err != nil {
					failed <- err
				}
			}()
		}
		if err := s.pass(ctx, w, peer, header, chunks); err != nil {
			s.abandon(w)
			return false, err
		}
		if header != nil || len(chunks) > 0 {
			continue
		}
		if ended {
			return f.again, f.err // nobody writes them after the end
		}
		select {
		case <-f.changed:
		case err := <-failed:
			s.abandon(w)
			return false, err
		case <-ctx.Done():
			if err := s.abandonFor(ctx, w); err != nil {
				return false, err
			}
			<-f.changed
		}
	}
}

// pass hands what the app said to the peer and gives the app its window back.
func (s *appStream) pass(ctx context.Context, w *work, peer call.ServerStream, header *sidecastv1.InvokeResponse, chunks [][]byte) error {
	if header != nil {
		if err := peer.Answer(ctx, responseOf(header)); err != nil {
			return err
		}
	}
	for _, chunk := range chunks {
		if err := peer.Send(ctx, chunk); err != nil {
			return err
		}
		s.mu.Lock()
		w.flow.owed += len(chunk)
		grant := 0
		if w.flow.owed >= grantAt && !w.flow.ended {
			grant, w.flow.owed = w.flow.owed, 0
			w.flow.unread -= grant
		}
		s.mu.Unlock()
		if grant > 0 {
			s.control(&sidecastv1.ServeResponse{Frame: &sidecastv1.ServeResponse_StreamCredit{
				StreamCredit: &sidecastv1.StreamCredit{CallId: w.id, Bytes: int64(grant)},
			}})
		}
	}
	return nil
}

// upload carries the request until the peer has sent all or the call has ended.
func (s *appStream) upload(ctx context.Context, w *work, peer call.ServerStream) error {
	for {
		chunk, err := peer.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return s.send(ctx, w, nil, true)
		}
		if err != nil {
			return err
		}
		for len(chunk) > 0 {
			n, err := s.reserve(ctx, w, min(len(chunk), chunkSize))
			if n == 0 || err != nil {
				return err
			}
			if err := s.send(ctx, w, chunk[:n], false); err != nil {
				return err
			}
			chunk = chunk[n:]
		}
	}
}

// reserve waits until the app takes at least one byte and the outbox a chunk. It is 0 when the app has ended the call.
func (s *appStream) reserve(ctx context.Context, w *work, want int) (int, error) {
	f := w.flow
	for {
		s.mu.Lock()
		n := int(min(int64(want), f.credit))
		if f.queued >= chunksQueued {
			n = 0
		}
		ended := f.ended
		if !ended && n > 0 {
			f.credit -= int64(n)
			f.queued++
		}
		s.mu.Unlock()
		switch {
		case ended:
			return 0, nil
		case n > 0:
			return n, nil
		}
		select {
		case <-f.room:
		case <-ctx.Done():
			return 0, fault.FromContext(w.need.String(), ctx, "the app to take more of the request")
		}
	}
}

// send queues a chunk that was reserved, or the end.
func (s *appStream) send(ctx context.Context, w *work, data []byte, end bool) error {
	var message grpc.PreparedMsg
	err := message.Encode(s.wire, &sidecastv1.ServeResponse{Frame: &sidecastv1.ServeResponse_Chunk{
		Chunk: &sidecastv1.StreamChunk{CallId: w.id, Data: data, End: end},
	}})
	if err != nil {
		return fault.E(w.need.String(), fault.Internal, fault.Defect, err)
	}
	o := outgoing{message: message}
	if !end {
		o.chunkOf = w.flow
	}
	s.queue(o)
	return nil
}

// onChunk takes bytes of an answer.
func (s *appStream) onChunk(c *sidecastv1.StreamChunk) error {
	id := c.GetCallId()
	s.mu.Lock()
	e, ok := s.table[id]
	if !ok || e.kind != streamWork {
		s.mu.Unlock()
		return violation("a chunk of call %d, which is no open stream", id)
	}
	ended, overrun := c.GetEnd(), false
	if e.work != nil {
		overrun = !e.work.flow.accept(c.GetData())
		switch {
		case overrun:
			s.table[id] = entry{nil, streamWork} // the call fails; its end may be still to come
			e.work.finish(fault.New(e.work.need.String(), fault.AppAnswer,
				"the app sent more than the %d bytes that it may before some are taken", window))
		case ended:
			e.work.finish(nil)
		}
	}
	if ended {
		s.forget(id)
	}
	s.mu.Unlock()
	if ended {
		s.hub.release(s)
	} else if overrun {
		s.control(&sidecastv1.ServeResponse{Frame: &sidecastv1.ServeResponse_Cancel{Cancel: &sidecastv1.Cancel{CallId: id}}})
	}
	return nil
}

// onStreamCredit opens the app's window. Credit for a call that has just ended is late, not wrong.
func (s *appStream) onStreamCredit(c *sidecastv1.StreamCredit) error {
	if c.GetBytes() < 1 {
		return violation("a stream credit of %d bytes", c.GetBytes())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.GetCallId() > s.lastID.Load() {
		return violation("a stream credit for call %d, which does not exist", c.GetCallId())
	}
	if e, ok := s.table[c.GetCallId()]; ok && e.work != nil && e.work.flow != nil {
		e.work.flow.credit = min(e.work.flow.credit+min(c.GetBytes(), maxWindow), maxWindow)
		nudge(e.work.flow.room)
	}
	return nil
}

// header needs the stream's mu, as do opened, finish and accept.
func (w *work) header(a *sidecastv1.CallAnswer) error {
	switch {
	case a.GetResponse() == nil:
		return violation("an answer to call %d that holds neither a response nor an error", a.GetCallId())
	case w == nil: // its caller has gone
		return nil
	case w.flow.headed:
		return violation("a second header for call %d", a.GetCallId())
	}
	w.flow.headed, w.flow.answer = true, a.GetResponse()
	nudge(w.flow.changed)
	return nil
}

// opened says that the app may see the work from now on.
func (w *work) opened() {
	if w.flow != nil {
		w.flow.open = true
		nudge(w.flow.changed)
	}
}

// finish ends the flow.
func (w *work) finish(err error) {
	w.flow.ended, w.flow.err = true, err
	nudge(w.flow.changed)
	nudge(w.flow.room)
}

// accept takes bytes of the answer. It is false when they are more than the app's window allows.
func (f *flow) accept(data []byte) bool {
	if f.unread += len(data); f.unread > window {
		return false
	}
	last := len(f.inbox) - 1
	switch {
	case len(data) == 0:
	case len(f.inbox) >= inboxChunks && len(f.inbox[last])+len(data) <= chunkSize:
		f.inbox[last] = append(f.inbox[last], data...)
	default:
		f.inbox = append(f.inbox, data)
	}
	nudge(f.changed)
	return true
}
