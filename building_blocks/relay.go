package blocks

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// Exchange is the caller's side of a streaming call, whatever front door it came through.
type Exchange struct {
	// Next returns the next chunk of the request, which nobody changes after, or io.EOF at its end. One goroutine calls it. It
	// must return when the front door's handler has.
	Next func() ([]byte, error)
	// Trailer is what follows the request, asked once Next has returned io.EOF; it may be nil where nothing does.
	Trailer func() call.Header
	// Header takes the head of the answer, once; Chunk each piece of its body after that.
	Header func(*call.Response) error
	Chunk  func([]byte) error
	// End takes what follows a whole answer; it may be nil.
	End func(call.Header)
	// Failure is what a whole answer says of the call in its body, such as a gRPC status: nil for a success. It may be nil
	// where the head says it all.
	Failure func() error
}

// Relay makes a streaming call and carries both directions until the answer has ended. Its lane makes another attempt only
// where the request can be sent again from its beginning and nothing of an answer was passed on.
func (v *Invocation) Relay(ctx context.Context, req *call.Request, x Exchange) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := &upload{next: x.Next, trailer: x.Trailer, frames: make(chan uploaded), over: ctx.Done()}
	go up.read() // ends when the front door's handler has
	return v.Stream(ctx, req, func(ctx context.Context, to call.ClientStream) error { return up.attempt(ctx, to, x) })
}

// attempt copies both directions until the answer has ended.
func (u *upload) attempt(ctx context.Context, to call.ClientStream, x Exchange) error {
	ctx, cancel := context.WithCancelCause(ctx)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := u.copy(ctx, to); err != nil {
			cancel(err)
		}
	}()
	err := u.answer(ctx, to, x)
	var told toldFailure // came with a whole answer, which the request's own end does not change
	if cause := context.Cause(ctx); err != nil && !errors.As(err, &told) && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	<-sent
	return u.judge(err)
}

// maxReplay is how much of a request is kept for an attempt that follows one which never began.
const maxReplay = 64 << 10

// upload is the caller's side of a stream: one goroutine reads it, whatever attempts the lane makes. What an attempt took
// is kept for the next, up to a bound; beyond it, or once the answer has begun, there is no next.
type upload struct {
	next    func() ([]byte, error)
	trailer func() call.Header
	frames  chan uploaded
	over    <-chan struct{}

	begun atomic.Bool // an answer was passed on

	// These belong to the attempt that runs.
	taken []uploaded
	size  int
	spent bool // taken is no longer all
}

// uploaded is a chunk of the request, or err, its end: io.EOF when it is complete.
type uploaded struct {
	data    []byte
	err     error
	trailer call.Header // with io.EOF
}

func (u *upload) read() {
	for {
		data, err := u.next()
		frame := uploaded{data: data, err: err}
		if errors.Is(err, io.EOF) && u.trailer != nil {
			frame.trailer = u.trailer()
		}
		select {
		case u.frames <- frame:
		case <-u.over:
			return
		}
		if err != nil {
			return
		}
	}
}

// copy sends the request from its beginning.
func (u *upload) copy(ctx context.Context, to call.ClientStream) error {
	for _, frame := range u.taken {
		if done, err := frame.send(ctx, to); done {
			return err
		}
	}
	for {
		select {
		case frame := <-u.frames:
			u.keep(frame)
			if done, err := frame.send(ctx, to); done {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (u *upload) keep(frame uploaded) {
	u.size += len(frame.data)
	if u.spent = u.spent || u.size > maxReplay || u.begun.Load(); u.spent {
		u.taken = nil
		return
	}
	u.taken = append(u.taken, frame)
}

func (f uploaded) send(ctx context.Context, to call.ClientStream) (done bool, err error) {
	switch {
	case errors.Is(f.err, io.EOF):
		call.SetTrailer(to, f.trailer)
		return true, to.CloseSend(ctx)
	case f.err != nil:
		return true, f.err
	}
	if err := to.Send(ctx, f.data); errors.Is(err, io.EOF) {
		return true, nil // the handler has returned without reading all: its answer is what counts
	} else if err != nil {
		return true, err
	}
	return false, nil
}

// judge keeps a lane from a further attempt that could not be the same call.
func (u *upload) judge(err error) error {
	if (u.spent || u.begun.Load()) && fault.NotSent(err) {
		return fault.E("invoke stream", fault.KindOf(err), fault.StreamBroken, err)
	}
	return err
}

// answer passes the answer on.
func (u *upload) answer(ctx context.Context, from call.ClientStream, x Exchange) error {
	header, err := from.Header(ctx)
	if err != nil {
		return err
	}
	u.begun.Store(true)
	if err := x.Header(header); err != nil {
		return err
	}
	for {
		chunk, err := from.Recv(ctx)
		if errors.Is(err, io.EOF) {
			if trailer := call.TrailerOf(from); x.End != nil && len(trailer) > 0 {
				x.End(trailer)
			}
			return x.told(header)
		}
		if err != nil {
			return err
		}
		if err := x.Chunk(chunk); err != nil {
			return err
		}
	}
}

// told is what a whole answer says of the call, for the lane.
func (x Exchange) told(header *call.Response) error {
	err := failedStatus("stream", header)
	if err == nil && x.Failure != nil {
		err = x.Failure()
	}
	if err == nil {
		return nil
	}
	return toldFailure{err}
}
