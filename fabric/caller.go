package fabric

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// answer is what a unary call waits for: a message, the stream that a large answer comes on, or a fault.
type answer struct {
	message *nats.Msg
	value   string
	stream  *stream
	err     *fault.Error
}

// waiting is one unary call whose answer has not come. Whoever drops it from the table answers it, exactly once; so the
// caller may reuse the channel when it dropped the call itself or has the answer.
type waiting struct {
	f      *Fabric
	to     Target
	method string
	route  *route
	sent   atomic.Int64 // the pulse at which the request was on its way, plus one; 0 before
	answer chan answer
}

func (w *waiting) peer() (Target, string) { return w.to, w.route.subject }

func (w *waiting) give(token uint64, a answer) {
	if w.f.outbound.drop(token, w) {
		w.answer <- a
	}
}

func (w *waiting) heard(token uint64, m *nats.Msg, value string) {
	w.route.heardAt.Store(w.f.clock.Load())
	switch kindOf(value) {
	case kindOK, kindFailed:
		w.give(token, answer{message: m, value: value})
	case kindHead:
		s := w.f.newStream(opOf(w.to, w.method), w.to, w.route)
		s.token, s.back = token, w.f.outbound.later(token)
		s.outEnd = true // the request was whole
		if w.f.outbound.replace(token, w, s) {
			s.heard(token, m, value)
			w.answer <- answer{stream: s}
		}
	case kindGone:
		w.fail(token, fault.New("", fault.InstanceLost, "the instance does not know the call: it, or its answer, was lost on the way"))
	}
}

func (w *waiting) nobody(token uint64, later bool) {
	err := nobodyThere(w.to)
	if later {
		err = fault.New("", fault.InstanceLost, "instance %s of %s went away while it worked on the call", w.to.Instance, w.to.App)
	}
	w.fail(token, err)
	w.f.presence.eject(w.to)
}

func nobodyThere(t Target) *fault.Error {
	return fault.New("", fault.NoResponders, "nobody listens for instance %s of %s", t.Instance, t.App)
}

func (w *waiting) fail(token uint64, err *fault.Error) { w.give(token, answer{err: err}) }

// probe asks only for what was sent. A request may wait for a busy connection, and a probe that overtook it would be told
// that nobody knows the call, which then came and was served.
func (w *waiting) probe(token uint64, pulse int64) {
	sent := w.sent.Load()
	if age := pulse - (sent - 1); sent > 0 && age >= quietPulses && age%quietPulses == 0 {
		_ = w.f.link.publish(w.route.subject, w.f.outbound.later(token), begin(nil, kindProbe), nil) // the next pulse tries again
	}
}

// buffers holds the slices in which frame values are built.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Call asks the target and returns its answer, whatever the size of either body up to MaxBody. It fails at once when
// nobody listens for the target (fault.NoResponders), when the fabric is away (fault.FabricDown) and when the target
// goes away while it works (fault.InstanceLost). When ctx ends early the target's handler is cancelled. Caller is set by
// the fabric. A fault of the target comes back as it was returned there. An answer that passes to req.Pieces may be of any size,
// and goes on when ctx ends.
func (f *Fabric) Call(ctx context.Context, to Target, req *call.Request) (*call.Response, error) {
	left, bounded, refusal := f.admit(ctx, to, req)
	if refusal != nil {
		return nil, refusal
	}
	if f.isOwn(to) {
		return f.callOwn(ctx, to, req)
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	*buffer = appendRequest(begin((*buffer)[:0], kindCall), req, left, bounded)
	if !f.link.fits(len(*buffer), len(req.Body)) {
		return f.callInChunks(ctx, to, req)
	}

	o := &f.outbound
	answers := o.answers.Get().(chan answer)
	defer o.answers.Put(answers)
	w := &waiting{f: f, to: to, method: req.Method, route: f.route(to), answer: answers}
	token := o.add(w)
	if err := f.link.publish(w.route.subject, o.reply(token), *buffer, req.Body); err != nil && o.drop(token, w) {
		return nil, downFault(opOf(to, req.Method), err)
	}
	w.sent.Store(f.clock.Load() + 1)
	select {
	case a := <-answers:
		return f.read(ctx, a, to, req)
	case <-ctx.Done():
	}
	if o.drop(token, w) {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) { // that, the target knows by itself
			_ = f.link.publish(w.route.subject, o.later(token), begin(nil, kindStop), nil) // its probe finds out otherwise
		}
		return nil, fault.FromContext(opOf(to, req.Method), ctx, "the answer of instance "+to.Instance)
	}
	return f.read(ctx, <-answers, to, req)
}

// read makes the result of a call of what came back.
func (f *Fabric) read(ctx context.Context, a answer, to Target, req *call.Request) (*call.Response, error) {
	switch {
	case a.err != nil:
		return nil, during(opOf(to, req.Method), a.err)
	case a.stream != nil:
		defer a.stream.Close()
		return a.stream.answerTo(ctx, req)
	}
	fr, err := parseFrame(a.value)
	if err != nil {
		return nil, fault.New(opOf(to, req.Method), fault.Defect, "instance %s answered with a malformed frame: %w", to.Instance, err)
	}
	if fr.kind == kindFailed {
		return nil, fr.failure.fault(string(a.message.Data))
	}
	return fr.response(a.message.Data), nil
}

// admit refuses what cannot be sent, and tells how long the callee has.
func (f *Fabric) admit(ctx context.Context, to Target, req *call.Request) (left time.Duration, bounded bool, err error) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return 0, false, fault.New(opOf(to, req.Method), fault.CallCanceled, "the caller went away before the call was sent")
	}
	left, bounded = call.TimeLeft(ctx, time.Now())
	switch {
	case bounded && left <= 0:
		return 0, false, fault.New(opOf(to, req.Method), fault.BudgetSpent, "the deadline passed %v before the call could be sent", -left)
	case len(to.App) > maxName || len(to.Instance) > maxName:
		return 0, false, fault.New(opOf(to, req.Method), fault.BadRequest, "an app id or instance may have %d bytes", maxName)
	case int64(len(req.Body)) > f.config.MaxBody:
		return 0, false, fault.New(opOf(to, req.Method), fault.BodyTooLarge, "the body has %d bytes, the limit is %d", len(req.Body), f.config.MaxBody)
	case !f.link.up.Load() && !f.isOwn(to):
		return 0, false, downFault(opOf(to, req.Method), errDown)
	}
	return left, bounded, nil
}

func opOf(to Target, method string) string { return "call " + to.App + "/" + method }

// during is a copy of err that says what was tried. One fault may end many exchanges.
func during(op string, err *fault.Error) *fault.Error {
	c := *err
	c.Op = op
	return &c
}

// callInChunks is Call for a request that does not fit into one message.
func (f *Fabric) callInChunks(ctx context.Context, to Target, req *call.Request) (*call.Response, error) {
	s, err := f.open(ctx, to, req, true)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.Send(ctx, req.Body); err != nil && !errors.Is(err, io.EOF) { // EOF: the answer did not need the whole body
		return nil, err
	}
	if err := s.CloseSend(ctx); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return s.answerTo(ctx, req)
}

// Stream opens a stream to the target. The stream ends with ctx: when ctx is cancelled, so is the target's handler. The
// body of req is the first chunk, if there is one.
func (f *Fabric) Stream(ctx context.Context, to Target, req *call.Request) (call.ClientStream, error) {
	s, err := f.open(ctx, to, req, false)
	if err != nil {
		return nil, err
	}
	if len(req.Body) > 0 {
		if err := s.Send(ctx, req.Body); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

func (f *Fabric) open(ctx context.Context, to Target, req *call.Request, unary bool) (*stream, error) {
	left, bounded, err := f.admit(ctx, to, req)
	if err != nil {
		return nil, err
	}
	value := begin(nil, kindOpen)
	if unary {
		value = append(value, "&u=1"...)
		value = appendNumber(value, "n", int64(len(req.Body)))
	}
	value = appendRequest(value, req, left, bounded)
	if !f.link.fits(len(value), 0) {
		return nil, fault.New(opOf(to, req.Method), fault.BodyTooLarge, "the metadata has %d bytes, the fabric's limit is %d", len(value), f.link.maxPayload.Load()-frameOverhead)
	}
	s := f.newStream(opOf(to, req.Method), to, f.route(to))
	f.outbound.addStream(s)
	s.watch(ctx)
	s.sending.Lock() // no probe may overtake this
	err = f.link.publish(s.to, f.outbound.reply(s.token), value, nil)
	s.sending.Unlock()
	if err != nil {
		s.Close()
		return nil, downFault(s.op, err)
	}
	return s, nil
}

// watch ends the stream with ctx.
func (s *stream) watch(ctx context.Context) {
	s.unwatch = context.AfterFunc(ctx, func() {
		if s.end(fault.FromContext(s.op, ctx, "the stream to end")) {
			s.tellStop()
		}
	})
}
