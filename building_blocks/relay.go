package blocks

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// Exchange is the caller's side of a streaming call, whatever front door it came through.
type Exchange struct {
	// Next returns the next chunk of the request, which nobody changes after, or io.EOF at its end. A chunk may be kept: its
	// capacity is the memory that it takes. One goroutine calls Next. It must return when the front door's handler has.
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
	// Bound says how long timeouts hold.
	Bound Bound
	// Begin and Passed are nil where Header and Chunk pass on all that they get. Begin is told that an attempt begins: what they
	// have had of one before it does not count. Passed says whether they have passed anything on, after which no attempt
	// follows, and how many messages.
	Begin  func()
	Passed func() (begun bool, messages int)
}

// Bound says how long the timeouts of policies hold for what a relay carries.
type Bound int

const (
	// Lasting is a stream: they bound how long it waits for a turn and is tried again, and not the stream itself.
	Lasting Bound = iota
	// ToHead is a call whose bodies travel in pieces: they hold until its answer begins.
	ToHead
	// ToEnd is a call in messages, most likely one each way: they hold to its end, unless a second message in either direction
	// shows that it is a stream.
	ToEnd
)

// Relay makes a streaming call and carries both directions until the answer has ended. Its lane makes another attempt only
// where the request can be sent again from its beginning and nothing of an answer was passed on.
func (v *Invocation) Relay(ctx context.Context, req *call.Request, x Exchange) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	up := &upload{next: x.Next, trailer: x.Trailer, bound: x.Bound, frames: make(chan uploaded), over: ctx.Done()}
	go up.read() // ends when the front door's handler has
	return v.stream(ctx, req, up, x)
}

// attempt copies both directions until the answer has ended.
func (u *upload) attempt(ctx context.Context, to call.ClientStream, x Exchange) error {
	u.held = nil
	if x.Begin != nil {
		x.Begin()
	}
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

const (
	// maxReplay is how much of a request is kept, in bytes of memory, for an attempt that follows one which never began.
	maxReplay = 64 << 10
	// maxRepeat is how much is kept where a policy has calls made again that were sent, as long as there is room for it.
	maxRepeat = 8 << 20
	// pieceCost is what a piece that is kept counts beyond its bytes: many small ones must not take more than a few large ones.
	pieceCost = 128
)

// upload is the caller's side of a stream: one goroutine reads it, whatever attempts the lane makes. What an attempt took
// is kept for the next, up to a bound; beyond it, or once the answer has begun, there is no next.
type upload struct {
	next    func() ([]byte, error)
	trailer func() call.Header
	frames  chan uploaded
	over    <-chan struct{}
	bound   Bound
	room    call.Keeper // of what is kept beyond maxReplay; nil has none

	begun atomic.Bool // an answer was passed on
	spent atomic.Bool // taken is no longer all

	mu     sync.Mutex // both directions of an attempt use these
	taken  []uploaded
	size   int  // of the memory they take
	resent bool // they are being sent again, and needed for that

	// These belong to the attempt that runs.
	unhold func()                        // ends the hold that timeouts have on it; nil where they have none
	heard  func(at time.Time, well bool) // is told when the answer has begun, once timeouts have no hold on it; nil when it was, or nobody wants to know
	held   *heldAnswer                   // a whole answer that was a failure, and was not passed on
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
	sent := 0
	send := func(frame uploaded) (done bool, err error) {
		if sent++; sent > 1 && frame.err == nil && u.bound == ToEnd {
			u.letGo()
		}
		return frame.send(ctx, to)
	}
	if done, err := u.again(send); done {
		return err
	}
	for {
		select {
		case frame := <-u.frames:
			u.keep(frame)
			if done, err := send(frame); done {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// hold is the context of an attempt: it ends with within, its lane's, unless the attempt is let go. The time that is left
// does not travel with the call, which may turn out to be a stream: its end does.
func (u *upload) hold(whole, within context.Context) (ctx context.Context, done func()) {
	if u.bound == Lasting {
		return whole, func() {}
	}
	ctx, cancel := context.WithCancel(whole)
	stop := context.AfterFunc(within, cancel)
	u.unhold = func() { stop() }
	return ctx, func() {
		stop()
		cancel()
	}
}

func (u *upload) letGo() {
	if u.unhold != nil {
		u.unhold()
	}
}

// again sends what was kept.
func (u *upload) again(send func(uploaded) (bool, error)) (done bool, err error) {
	u.mu.Lock()
	kept := u.taken
	u.resent = true
	u.mu.Unlock()
	for _, frame := range kept {
		if done, err = send(frame); done {
			break
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.resent = false
	if u.begun.Load() {
		u.forget()
	}
	return done, err
}

func (u *upload) keep(frame uploaded) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.spent.Load() {
		return
	}
	before := max(u.size, maxReplay)
	u.size += cap(frame.data) + pieceCost
	more := int64(u.size - before) // beyond what takes no room
	if u.begun.Load() || more > 0 && (u.room == nil || u.size > maxRepeat || !u.room.Keep(more)) {
		u.forget()
		return
	}
	u.taken = append(u.taken, frame)
}

// begin takes note that an answer was passed on, after which no attempt follows.
func (u *upload) begin() {
	if u.begun.Load() {
		return
	}
	u.begun.Store(true)
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.resent {
		u.forget()
	}
}

// forget lets go of what is kept. The caller holds mu.
func (u *upload) forget() {
	u.spent.Store(true)
	u.taken = nil
	if u.room != nil {
		u.room.Drop()
	}
}

func (f uploaded) send(ctx context.Context, to call.ClientStream) (done bool, err error) {
	switch {
	case errors.Is(f.err, io.EOF):
		call.SetTrailer(to, f.trailer)
		return true, to.CloseSend(ctx)
	case f.err != nil:
		return true, resiliency.Final{Err: f.err} // the caller's own, which another attempt would not change
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
	repeats := !u.spent.Load() && !u.begun.Load()
	_, final := err.(resiliency.Final)
	if err == nil || final || repeats && (u.bound != Lasting || fault.NotSent(err)) {
		return err
	}
	if fault.NotSent(err) {
		err = fault.E("invoke stream", fault.KindOf(err), fault.StreamBroken, err)
	}
	return resiliency.Final{Err: err}
}

// answer passes the answer on.
func (u *upload) answer(ctx context.Context, from call.ClientStream, x Exchange) error {
	header, err := from.Header(ctx)
	if err != nil {
		return err
	}
	a := &heldAnswer{header: header}
	failure := failedStatus("stream", header)
	if failure != nil && u.bound == ToHead && !u.spent.Load() {
		whole, err := a.read(ctx, from)
		if err != nil {
			return err
		}
		if whole {
			u.held = a
			return failure
		}
	}
	if u.bound == ToHead {
		u.letGo()
	}
	if u.bound != ToEnd {
		u.begins(failure == nil)
	}
	err = a.pass(x)
	u.passed(x)
	if err != nil {
		return u.notPassed(err)
	}
	for {
		chunk, err := from.Recv(ctx)
		if errors.Is(err, io.EOF) {
			if trailer := call.TrailerOf(from); x.End != nil && len(trailer) > 0 {
				x.End(trailer)
			}
			return u.told(header, x)
		}
		if err != nil {
			return err
		}
		err = x.Chunk(chunk)
		u.passed(x)
		if err != nil {
			return u.notPassed(err)
		}
	}
}

// settle is what came of the call in a lane: a failure is answered as the lane's policy writes down, unless an answer has begun
// or the call is none of HTTP.
func (u *upload) settle(ctx context.Context, lane *actors.Lane, x Exchange, err error) error {
	answer := writtenAnswer(lane, err)
	if answer == nil || u.bound != ToHead || u.begun.Load() {
		return err
	}
	fellBack(ctx, lane, "static")
	u.begin()
	u.held = &heldAnswer{header: answer}
	if len(answer.Body) > 0 {
		u.held.chunks = [][]byte{answer.Body}
	}
	return u.held.pass(x)
}

// passed takes note of what has become of the answer so far.
func (u *upload) passed(x Exchange) {
	begun, messages := true, 0
	if x.Passed != nil {
		begun, messages = x.Passed()
	}
	if begun {
		u.begin()
	}
	if messages > 1 {
		u.letGo()
		u.begins(true)
	}
}

// begins tells the lanes that the answer has begun, and that no timeout holds any more.
func (u *upload) begins(well bool) {
	if u.heard != nil {
		u.heard(time.Now(), well)
		u.heard = nil
	}
}

// notPassed is why an answer did not pass. What has its bodies in pieces passes on bytes as they are, so it was the caller who took
// no more of them.
func (u *upload) notPassed(err error) error {
	var given *fault.Error
	if u.bound != ToHead || errors.As(err, &given) {
		return err
	}
	return fault.E("invoke stream", fault.Canceled, fault.CallCanceled, err)
}

// told is what a whole answer says of the call, for the lane. What the caller has had already, or will have from the front
// door, the lane alone has to know.
func (u *upload) told(header *call.Response, x Exchange) error {
	err := failedStatus("stream", header)
	if err == nil && x.Failure != nil {
		err = x.Failure()
	}
	if err == nil {
		return nil
	}
	return toldFailure{err}
}

// heldAnswer is what came of an answer and was not passed on.
type heldAnswer struct {
	header  *call.Response
	chunks  [][]byte
	trailer call.Header
}

// maxHeldBack bounds a failure that is held back, in bytes: a larger one is passed on, and the call not made again.
const maxHeldBack = 64 << 10

// read takes the body as well; whole says that this was all.
func (a *heldAnswer) read(ctx context.Context, from call.ClientStream) (whole bool, err error) {
	for size := 0; size <= maxHeldBack; {
		chunk, err := from.Recv(ctx)
		if errors.Is(err, io.EOF) {
			a.trailer = call.TrailerOf(from)
			return true, nil
		}
		if err != nil {
			return false, err
		}
		a.chunks = append(a.chunks, chunk)
		size += len(chunk) + pieceCost
	}
	return false, nil
}

// pass gives it to the caller.
func (a *heldAnswer) pass(x Exchange) error {
	if err := x.Header(a.header); err != nil {
		return err
	}
	for _, chunk := range a.chunks {
		if err := x.Chunk(chunk); err != nil {
			return err
		}
	}
	if x.End != nil && len(a.trailer) > 0 {
		x.End(a.trailer)
	}
	return nil
}
