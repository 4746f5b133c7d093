package fabric

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
)

// Handler takes the calls that come in. Its methods are called concurrently, one goroutine a call. The context carries
// the caller's deadline and is cancelled when the caller goes away. A returned fault reaches the caller as it is.
type Handler interface {
	// ServeCall answers a unary call. Its answer passes to req.Pieces or is returned.
	ServeCall(ctx context.Context, req *call.Request) (*call.Response, error)
	// ServeStream serves a stream; it has ended when ServeStream returns.
	ServeStream(ctx context.Context, req *call.Request, stream call.ServerStream) error
}

const (
	// maxRunning is how many inbound calls and streams may run at once, maxHeld how many bytes of requests they may hold.
	maxRunning = 8192
	maxHeld    = 256 << 20
	// busyFor is how long a refused caller is asked to wait.
	busyFor = 100 * time.Millisecond
	// answerPatience is how long an answer waits for the fabric to come back, when the caller set no deadline.
	answerPatience = 10 * time.Second
)

// inbound is the calls that come in: which run, and how many more may.
type inbound struct {
	f       *Fabric
	handler Handler
	serving atomic.Bool // the handler is there
	leaving atomic.Bool
	owned   atomic.Uint64 // calls that this instance made to itself
	refused atomic.Uint64

	mu      sync.Mutex
	running map[string]*running // by the reply subject of the request
	held    int64
	idle    chan struct{} // closed when nothing runs; nil while nobody waits for that
}

func (in *inbound) init(f *Fabric) {
	in.f = f
	in.running = make(map[string]*running)
}

// Serve takes the calls to this sidecar from now on. It is called once.
func (f *Fabric) Serve(h Handler) error {
	const op = "serve calls"
	if h == nil || f.inbound.handler != nil {
		return fault.New(op, fault.Defect, "Serve takes one handler, once")
	}
	f.inbound.handler = h
	own := f.prefix + "call." + subject.Token(f.config.AppID) + "." + subject.Token(f.config.Instance) + ".*"
	sub, err := f.link.nc.Subscribe(own, f.inbound.receive)
	if err == nil {
		err = sub.SetPendingLimits(pendingMessages, pendingBytes)
	}
	if err == nil {
		err = f.link.nc.FlushTimeout(5 * time.Second) // the server knows of it before anyone is told
	}
	if err != nil {
		return downFault(op, err)
	}
	f.inbound.serving.Store(true)
	return nil
}

func (in *inbound) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.running)
}

// receive sorts one message. It never waits.
func (in *inbound) receive(m *nats.Msg) {
	value := valueOf(m)
	if value == "" || m.Reply == "" {
		in.f.badFrames.Add(1)
		return
	}
	kind := kindOf(value)
	if kind == kindCall || kind == kindOpen {
		in.accept(m, value, kind)
		return
	}
	key := strings.TrimSuffix(m.Reply, "-")
	in.mu.Lock()
	r := in.running[key]
	in.mu.Unlock()
	if r != nil {
		r.receive(kind, m, value)
		return
	}
	switch kind {
	case kindData, kindEnd, kindProbe:
		in.f.tellGone(key)
	}
}

func (in *inbound) accept(m *nats.Msg, value, kind string) {
	caller, err := subject.Untoken(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	r := &running{in: in, key: m.Reply, caller: caller, held: int64(len(m.Data)), arrived: time.Now()}
	r.heardAt.Store(in.f.clock.Load())
	if err == nil && kind == kindOpen { // its chunks may be next: the stream has to be there
		err = r.openFor(value)
	}
	if err != nil {
		in.f.badFrames.Add(1)
		in.f.tellFailed(m.Reply, fault.New("", fault.BadRequest, "the request could not be read: %w", err))
		return
	}
	if err := in.enter(r); err != nil {
		in.f.tellFailed(m.Reply, err)
		return
	}
	go in.run(r, m.Data, value)
}

// enter admits a call or says why not.
func (in *inbound) enter(r *running) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.leaving.Load():
		return fault.New("", fault.Shutdown, "instance %s of %s is leaving", in.f.config.Instance, in.f.config.AppID)
	case len(in.running) >= maxRunning:
		in.refused.Add(1)
		return fault.New("", fault.FabricBusy, "instance %s of %s already works on %d calls", in.f.config.Instance, in.f.config.AppID, maxRunning).After(busyFor)
	case in.running[r.key] != nil:
		return fault.New("", fault.BadRequest, "two calls have the same reply subject")
	}
	if err := in.hold(r.held); err != nil {
		return err
	}
	in.running[r.key] = r
	return nil
}

// hold reserves memory for request bodies. in.mu is held. One large body always fits.
func (in *inbound) hold(bytes int64) error {
	if in.held > 0 && in.held+bytes > maxHeld {
		in.refused.Add(1)
		return fault.New("", fault.FabricBusy, "the requests that instance %s of %s works on hold %d bytes already", in.f.config.Instance, in.f.config.AppID, in.held).After(busyFor)
	}
	in.held += bytes
	return nil
}

func (in *inbound) finish(r *running) {
	r.mu.Lock()
	r.ended = true
	token := r.token
	r.mu.Unlock()
	if token != 0 {
		in.f.outbound.drop(token, r)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.running, r.key)
	in.held -= r.held
	if len(in.running) == 0 && in.idle != nil {
		close(in.idle)
		in.idle = nil
	}
}

// wait returns when nothing runs, or a fault when ctx ends first.
func (in *inbound) wait(ctx context.Context, op string) error {
	in.mu.Lock()
	left := len(in.running)
	if left == 0 {
		in.mu.Unlock()
		return nil
	}
	if in.idle == nil {
		in.idle = make(chan struct{})
	}
	idle := in.idle
	in.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fault.FromContext(op, ctx, fmt.Sprintf("%d inbound calls to end", in.count()))
	}
}

func (in *inbound) snapshot() []*running {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := make([]*running, 0, len(in.running))
	for _, r := range in.running {
		all = append(all, r)
	}
	return all
}

func (in *inbound) cancelAll() {
	for _, r := range in.snapshot() {
		r.end(fault.New("", fault.Shutdown, "this sidecar closes its fabric"))
	}
}

func (in *inbound) failStreams(err *fault.Error) {
	for _, r := range in.snapshot() {
		if s := r.openStream(); s != nil {
			s.end(err)
		}
	}
}

// run is the goroutine of one call.
func (in *inbound) run(r *running, body []byte, value string) {
	defer in.finish(r)
	s := r.stream
	fr, err := parseFrame(value)
	if err != nil {
		in.f.badFrames.Add(1)
		in.f.tellFailed(r.key, fault.New("", fault.BadRequest, "the request could not be read: %w", err))
		return
	}
	whole, ctx, cancel := r.context(fr)
	defer cancel()
	switch {
	case !r.begin(cancel, s): // the caller went away meanwhile
	case ctx.Err() != nil:
		in.f.tellFailed(r.key, fault.New("", fault.BudgetSpent, "the deadline passed before the call could start"))
	case s == nil:
		req := fr.request(in.f.config.AppID, r.caller, body)
		p := in.passing(whole, r, fr, req)
		resp, err := in.serve(ctx, req)
		if !p.over(resp, err) {
			in.answer(ctx, r, fr.method, resp, err)
		}
	case fr.unary:
		in.runChunked(ctx, whole, r, s, fr)
	default:
		s.finish(in.serveStream(ctx, fr.request(in.f.config.AppID, r.caller, nil), s))
	}
}

// runChunked serves a unary call whose body follows in chunks.
func (in *inbound) runChunked(ctx, whole context.Context, r *running, s *stream, fr frame) {
	body, err := in.collect(ctx, r, s, fr.size)
	if err != nil {
		s.finish(err)
		return
	}
	req := fr.request(in.f.config.AppID, r.caller, body)
	p := in.passing(whole, r, fr, req)
	resp, err := in.serve(ctx, req)
	if p.over(resp, err) {
		return
	}
	if err == nil {
		err = s.answerWhole(ctx, resp)
	}
	s.finish(err)
}

// collect reads a body of the given size.
func (in *inbound) collect(ctx context.Context, r *running, s *stream, size int64) ([]byte, error) {
	if size > in.f.config.MaxBody {
		return nil, fault.New(s.op, fault.BodyTooLarge, "the body has %d bytes, the limit is %d", size, in.f.config.MaxBody)
	}
	in.mu.Lock()
	err := in.hold(size)
	if err == nil {
		r.held += size
	}
	in.mu.Unlock()
	if err != nil {
		return nil, err
	}
	body := make([]byte, 0, size)
	for int64(len(body)) < size {
		chunk, err := s.Recv(ctx)
		switch {
		case err == io.EOF:
			return nil, fault.New(s.op, fault.BadRequest, "the body ended after %d of %d bytes", len(body), size)
		case err != nil:
			return nil, err
		case int64(len(body)+len(chunk)) > size:
			return nil, fault.New(s.op, fault.BadRequest, "the body is longer than the %d bytes announced", size)
		}
		body = append(body, chunk...)
	}
	return body, nil
}

// serve calls the handler and contains its panic.
func (in *inbound) serve(ctx context.Context, req *call.Request) (resp *call.Response, err error) {
	defer in.contain(req, &err)
	resp, err = in.handler.ServeCall(ctx, req)
	if err == nil && resp == nil {
		resp = &call.Response{}
	}
	return resp, err
}

func (in *inbound) serveStream(ctx context.Context, req *call.Request, s *stream) (err error) {
	defer in.contain(req, &err)
	return in.handler.ServeStream(ctx, req, s)
}

func (in *inbound) contain(req *call.Request, err *error) {
	if p := recover(); p != nil {
		in.f.log.Error("a call's handler panicked", "method", req.Method, "caller", req.Caller, "panic", p, "stack", string(debug.Stack()))
		*err = fault.New("serve "+req.Method, fault.Panicked, "the handler panicked: %v", p)
	}
}

// answer sends the result of a unary call. When the fabric is away the answer waits for it.
func (in *inbound) answer(ctx context.Context, r *running, method string, resp *call.Response, err error) {
	if err == nil {
		err = in.answerOK(ctx, r, method, resp)
	}
	if err != nil {
		value, text := appendFailure(begin(nil, kindFailed), err)
		in.deliver(ctx, r, value, []byte(text))
	}
}

func (in *inbound) answerOK(ctx context.Context, r *running, method string, resp *call.Response) error {
	if int64(len(resp.Body)) > in.f.config.MaxBody {
		return in.answerTooLarge(method, resp)
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	*buffer = appendResponse(begin((*buffer)[:0], kindOK), resp)
	if in.f.link.fits(len(*buffer), len(resp.Body)) {
		in.deliver(ctx, r, *buffer, resp.Body)
		return nil
	}
	if !in.f.link.fits(len(*buffer)+maxNumbers, 0) {
		return fault.New("serve "+method, fault.AnswerTooLarge, "the metadata of the answer has %d bytes", len(*buffer))
	}
	s := r.newStream(method)
	if r.begin(r.cancel, s) {
		s.finish(s.answerWhole(ctx, resp))
	}
	return nil
}

func (in *inbound) answerTooLarge(method string, resp *call.Response) error {
	return fault.New("serve "+method, fault.AnswerTooLarge, "the answer has %d bytes, the limit is %d", len(resp.Body), in.f.config.MaxBody)
}

// deliver sends an answer. When there was an outage meanwhile it waits until the fabric is back, and the caller too: the
// call stays known until then.
func (in *inbound) deliver(ctx context.Context, r *running, value, body []byte) {
	l := in.f.link
	if l.backAt.Load() < r.arrived.UnixNano() && l.publish(r.key, "", value, body) == nil {
		return
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerPatience)
		defer cancel()
	}
	for l.wait(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(time.Until(time.Unix(0, l.backAt.Load()).Add(pulseEvery)), 10*time.Millisecond)):
		}
		if l.publish(r.key, "", value, body) == nil {
			return
		}
	}
}

func (f *Fabric) tellFailed(to string, err error) {
	value, text := appendFailure(begin(nil, kindFailed), err)
	_ = f.link.publish(to, "", value, []byte(text)) // when it is lost the caller's probe finds out
}
