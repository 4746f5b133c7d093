package fabric

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
)

// outbound is everything that waits for messages in this sidecar's inbox: one subscription, one table by token.
//
// The request of an exchange carries the reply subject <inbox><token>; later frames carry <inbox><token>-. So when the
// server answers that nobody listens, it is known whether the exchange began.
type outbound struct {
	inbox string

	mu      sync.Mutex
	next    uint64
	entries map[uint64]entry

	routesMu sync.RWMutex
	routes   map[Target]string

	answers sync.Pool // of chan answer
}

// entry is one exchange that waits in the inbox. Its methods must not block, and are called without the table's lock.
type entry interface {
	// heard takes a message; nobody says that nobody listens at the peer any more.
	heard(token uint64, m *nats.Msg, value string)
	nobody(token uint64, later bool)
	// fail ends the exchange.
	fail(token uint64, err *fault.Error)
	// probe asks the peer whether it still knows the exchange, when nothing was heard for a while.
	probe(token uint64, pulse int64)
	// peer is who the exchange is with, and the subject its frames go to.
	peer() (Target, string)
}

func (o *outbound) init() {
	o.inbox = nats.NewInbox() + "."
	o.entries = make(map[uint64]entry)
	o.routes = make(map[Target]string)
	o.answers.New = func() any { return make(chan answer, 1) }
}

func (o *outbound) add(e entry) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	o.entries[o.next] = e
	return o.next
}

// addStream is add for a stream, which knows its own token.
func (o *outbound) addStream(s *stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	s.token, s.back = o.next, o.later(o.next)
	o.entries[s.token] = s
}

// drop forgets an exchange. False means that someone else did: that one answers it.
func (o *outbound) drop(token uint64, e entry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[token] != e {
		return false
	}
	delete(o.entries, token)
	return true
}

func (o *outbound) replace(token uint64, old, e entry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.entries[token] != old {
		return false
	}
	o.entries[token] = e
	return true
}

func (o *outbound) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.entries)
}

// each calls do for a snapshot of the exchanges that match.
func (o *outbound) each(match func(entry) bool, do func(uint64, entry)) {
	type pair struct {
		token uint64
		entry entry
	}
	o.mu.Lock()
	var found []pair
	for token, e := range o.entries {
		if match == nil || match(e) {
			found = append(found, pair{token, e})
		}
	}
	o.mu.Unlock()
	for _, p := range found {
		do(p.token, p.entry)
	}
}

func (o *outbound) failAll(match func(entry) bool, err *fault.Error) {
	o.each(match, func(token uint64, e entry) { e.fail(token, err) })
}

func (o *outbound) failStreams(err *fault.Error) {
	o.failAll(func(e entry) bool { _, ok := e.(*stream); return ok }, err)
}

func (o *outbound) failSubject(to string, err *fault.Error) {
	o.failAll(func(e entry) bool { _, s := e.peer(); return s == to }, err)
}

// failTarget ends what waits for an instance that is no more.
func (o *outbound) failTarget(t Target) {
	o.failAll(func(e entry) bool { at, _ := e.peer(); return at == t },
		fault.New("", fault.InstanceLost, "instance %s of %s left or died while it worked on the call", t.Instance, t.App))
}

// reply is the reply subject of an exchange's request, later that of its other frames.
func (o *outbound) reply(token uint64) string {
	var b [64]byte
	return string(strconv.AppendUint(append(b[:0], o.inbox...), token, 36))
}

func (o *outbound) later(token uint64) string { return o.reply(token) + "-" }

// route is the subject on which a target takes the calls of this sidecar.
func (f *Fabric) route(t Target) string {
	o := &f.outbound
	o.routesMu.RLock()
	to, known := o.routes[t]
	o.routesMu.RUnlock()
	if known {
		return to
	}
	to = f.prefix + "call." + subject.Token(t.App) + "." + subject.Token(t.Instance) + "." + subject.Token(f.config.AppID)
	o.routesMu.Lock()
	if len(o.routes) >= maxInstances {
		clear(o.routes)
	}
	o.routes[t] = to
	o.routesMu.Unlock()
	return to
}

// inboxLimit bounds the messages that wait for the inbox's goroutine. It only sorts them, so that they do not gather.
const (
	pendingMessages = 1 << 18
	pendingBytes    = 256 << 20
)

func (f *Fabric) subscribeInbox() error {
	sub, err := f.link.nc.Subscribe(f.outbound.inbox+"*", f.hear)
	if err != nil {
		return err
	}
	return sub.SetPendingLimits(pendingMessages, pendingBytes)
}

// hear sorts one message of the inbox.
func (f *Fabric) hear(m *nats.Msg) {
	name := m.Subject[len(f.outbound.inbox):]
	if name == presenceToken {
		f.presence.answered(m)
		return
	}
	name, later := strings.CutSuffix(name, "-")
	token, err := strconv.ParseUint(name, 36, 64)
	if err != nil {
		f.badFrames.Add(1)
		return
	}
	f.outbound.mu.Lock()
	e := f.outbound.entries[token]
	f.outbound.mu.Unlock()
	if noResponders(m) {
		if e != nil {
			e.nobody(token, later)
		}
		return
	}
	value := valueOf(m)
	switch {
	case value == "":
		f.badFrames.Add(1)
	case e != nil:
		e.heard(token, m, value)
	case m.Reply != "":
		f.tellGone(m.Reply)
	}
}

func (f *Fabric) tellGone(to string) {
	_ = f.link.publish(to, "", begin(nil, kindGone), nil) // best effort: the peer asks again
}

// valueOf is the frame's value in the message's header, or "".
func valueOf(m *nats.Msg) string {
	if values := m.Header[headerKey]; len(values) == 1 {
		return values[0]
	}
	return ""
}

func noResponders(m *nats.Msg) bool {
	if len(m.Data) != 0 {
		return false
	}
	status := m.Header["Status"]
	return len(status) == 1 && status[0] == "503"
}

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
	route  string
	born   int64 // pulse
	answer chan answer
}

func (w *waiting) peer() (Target, string) { return w.to, w.route }

func (w *waiting) give(token uint64, a answer) {
	if w.f.outbound.drop(token, w) {
		w.answer <- a
	}
}

func (w *waiting) heard(token uint64, m *nats.Msg, value string) {
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

func (w *waiting) probe(token uint64, pulse int64) {
	if age := pulse - w.born; age >= quietPulses && age%quietPulses == 0 {
		_ = w.f.link.publish(w.route, w.f.outbound.later(token), begin(nil, kindProbe), nil) // the next pulse tries again
	}
}

// buffers holds the slices in which frame values are built.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// Call asks the target and returns its answer, whatever the size of either body up to MaxBody. It fails at once when
// nobody listens for the target (fault.NoResponders), when the fabric is away (fault.FabricDown) and when the target
// goes away while it works (fault.InstanceLost). When ctx ends early the target's handler is cancelled. Caller is set by
// the fabric. A fault of the target comes back as it was returned there.
func (f *Fabric) Call(ctx context.Context, to Target, req *call.Request) (*call.Response, error) {
	left, bounded, refusal := f.admit(ctx, to, req)
	if refusal != nil {
		return nil, refusal
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
	w := &waiting{f: f, to: to, method: req.Method, route: f.route(to), born: f.clock.Load(), answer: answers}
	token := o.add(w)
	if err := f.link.publish(w.route, o.reply(token), *buffer, req.Body); err != nil && o.drop(token, w) {
		return nil, downFault(opOf(to, req.Method), err)
	}
	select {
	case a := <-answers:
		return f.read(ctx, a, to, req.Method)
	case <-ctx.Done():
	}
	if o.drop(token, w) {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) { // that, the target knows by itself
			_ = f.link.publish(w.route, o.later(token), begin(nil, kindStop), nil) // its probe finds out otherwise
		}
		return nil, fault.FromContext(opOf(to, req.Method), ctx, "the answer of instance "+to.Instance)
	}
	return f.read(ctx, <-answers, to, req.Method)
}

// read makes the result of a call of what came back.
func (f *Fabric) read(ctx context.Context, a answer, to Target, method string) (*call.Response, error) {
	switch {
	case a.err != nil:
		return nil, during(opOf(to, method), a.err)
	case a.stream != nil:
		defer a.stream.Close()
		return a.stream.readAll(ctx, f.config.MaxBody)
	}
	fr, err := parseFrame(a.value)
	if err != nil {
		return nil, fault.New(opOf(to, method), fault.Defect, "instance %s answered with a malformed frame: %w", to.Instance, err)
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
	case int64(len(req.Body)) > f.config.MaxBody:
		return 0, false, fault.New(opOf(to, req.Method), fault.BodyTooLarge, "the body has %d bytes, the limit is %d", len(req.Body), f.config.MaxBody)
	case !f.link.up.Load():
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
	return s.readAll(ctx, f.config.MaxBody)
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
	route := f.route(to)
	s := f.newStream(opOf(to, req.Method), to, route)
	f.outbound.addStream(s)
	s.unwatch = context.AfterFunc(ctx, func() {
		if s.end(fault.FromContext(s.op, ctx, "the stream to end")) {
			s.tellStop()
		}
	})
	if err := f.link.publish(route, f.outbound.reply(s.token), value, nil); err != nil {
		s.Close()
		return nil, downFault(s.op, err)
	}
	return s, nil
}
