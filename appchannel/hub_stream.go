package appchannel

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// appStream is one App.Serve stream. Two goroutines belong to it: the reader handles frames and never waits, the writer
// sends what callers put into the outbox. Only the writer waits for an app that does not read, so no caller ever does
// beyond its context. What the outbox may hold is bounded: one invocation or event for a credit, one cancellation for
// each, and chunksQueued chunks for a streaming call.
type appStream struct {
	hub  *Hub
	wire sidecastv1.App_ServeServer

	// Set by hello, before the hub gives the stream any work; constant afterwards.
	methods       map[string]struct{} // nil: all
	routes        map[string]struct{}
	subscriptions []Subscription

	limit, inFlight int // credits; guarded by the hub's mu

	lastID atomic.Uint64

	mu        sync.Mutex
	sdk       string           // who the app says it is
	table     map[uint64]entry // what the app has yet to answer
	outbox    outbox
	finishing bool // end when the last answer is in
	ended     bool

	wake    chan struct{} // holds one: the outbox has something, or finishing may be done
	stopped chan struct{} // closed by end
	result  error         // of Serve; set before stopped is closed
}

// Serve is the life of one stream of the app: hello, work, end. The gRPC front door calls it as the handler of App.Serve.
func (h *Hub) Serve(wire sidecastv1.App_ServeServer) error {
	s := &appStream{
		hub: h, wire: wire, table: make(map[uint64]entry),
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	// The handler waits while reader and writer work, because gRPC lets go of a blocked Recv or Send only when the handler
	// has returned. The hub counts all three and waits for them in Close.
	if err := h.enter(s, 3); err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	defer h.exit()
	go func() { defer h.exit(); s.end(s.read()) }()
	go func() { defer h.exit(); s.end(s.write()) }()
	select {
	case <-s.stopped:
	case <-wire.Context().Done():
		s.end(wire.Context().Err())
		<-s.stopped
	}
	return s.result
}

// read handles frames until the app ends the stream (nil), breaks it or breaks the protocol.
func (s *appStream) read() error {
	frame, err := s.wire.Recv()
	if err != nil {
		return broken(err)
	}
	hello := frame.GetHello()
	if hello == nil {
		return violation("the first frame must be hello, not %T", frame.GetFrame())
	}
	if err := s.greet(hello); err != nil {
		return err
	}
	for {
		if frame, err = s.wire.Recv(); err != nil {
			return broken(err)
		}
		if err := s.handle(frame); err != nil {
			return err
		}
	}
}

// broken is nil for an app that closed its side properly.
func broken(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// violation is how a stream ends that breaks the protocol.
func violation(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, "App.Serve: "+format, args...)
}

func (s *appStream) greet(hello *sidecastv1.Hello) error {
	s.limit = int(hello.Credits)
	switch {
	case hello.Credits < 0:
		return violation("hello allows %d credits", hello.Credits)
	case hello.Credits == 0:
		s.limit = defaultCredits
	case hello.Credits > maxCredits:
		s.limit = maxCredits
	}
	s.mu.Lock()
	s.sdk = hello.Sdk
	s.mu.Unlock()
	if len(hello.Methods) > 0 {
		s.methods = make(map[string]struct{}, len(hello.Methods))
		for _, method := range hello.Methods {
			s.methods[method] = struct{}{}
		}
	}
	s.routes = make(map[string]struct{}, len(hello.Subscriptions))
	for _, subscription := range subscriptionsOf(hello.Subscriptions) {
		if subscription.Topic == "" {
			return violation("a subscription of hello names no topic")
		}
		s.subscriptions = append(s.subscriptions, subscription)
		s.routes[subscription.route()] = struct{}{}
	}
	o := s.hub.options
	var welcome grpc.PreparedMsg
	err := welcome.Encode(s.wire, &sidecastv1.ServeResponse{Frame: &sidecastv1.ServeResponse_Welcome{Welcome: &sidecastv1.Welcome{
		AppId: o.AppID, Instance: o.Instance, Namespace: o.Namespace, Version: o.Version,
	}}})
	if err != nil {
		return err
	}
	// The welcome goes first, but not before the hub knows the stream: an app that was welcomed is reachable.
	s.mu.Lock()
	s.outbox.push(outgoing{message: welcome})
	s.mu.Unlock()
	s.hub.join(s)
	s.rouse()
	o.Log.Info("app connected", "sdk", hello.Sdk, "credits", s.limit, "methods", len(s.methods), "subscriptions", len(s.subscriptions))
	return nil
}

// handles tells whether the stream registered what n names.
func (s *appStream) handles(n need) bool {
	if n.event {
		_, ok := s.routes[n.name]
		return ok
	}
	if s.methods == nil {
		return true
	}
	_, ok := s.methods[n.name]
	return ok
}

// handle does what a frame asks. It does not wait.
func (s *appStream) handle(frame *sidecastv1.ServeRequest) error {
	switch f := frame.GetFrame().(type) {
	case *sidecastv1.ServeRequest_Answer:
		return s.onAnswer(f.Answer)
	case *sidecastv1.ServeRequest_EventAnswer:
		return s.onEventAnswer(f.EventAnswer)
	case *sidecastv1.ServeRequest_Chunk:
		return s.onChunk(f.Chunk)
	case *sidecastv1.ServeRequest_StreamCredit:
		return s.onStreamCredit(f.StreamCredit)
	case *sidecastv1.ServeRequest_Credit:
		if f.Credit < 1 {
			return violation("a credit of %d", f.Credit)
		}
		s.hub.raise(s, int(f.Credit))
		return nil
	case *sidecastv1.ServeRequest_Drain:
		s.onDrain()
		return nil
	case *sidecastv1.ServeRequest_Hello:
		return violation("a second hello")
	}
	return violation("a frame of a kind that this sidecar does not know")
}

func (s *appStream) onAnswer(a *sidecastv1.CallAnswer) error {
	id := a.GetCallId()
	s.mu.Lock()
	e, ok := s.table[id]
	if !ok || e.kind == eventWork {
		s.mu.Unlock()
		return violation("an answer to call %d, which waits for none", id)
	}
	if e.kind == streamWork {
		if a.GetError() == nil {
			defer s.mu.Unlock()
			return e.work.header(a)
		}
		if e.work != nil {
			e.work.finish(fromApp(e.work.need.String(), faultgrpc.FromProto(a.GetError())))
		}
	}
	s.forget(id)
	s.mu.Unlock()
	if e.kind == unaryWork && e.work != nil {
		e.work.answered <- answer{call: a}
	}
	s.hub.release(s)
	return nil
}

func (s *appStream) onEventAnswer(a *sidecastv1.EventAnswer) error {
	id := a.GetCallId()
	s.mu.Lock()
	e, ok := s.table[id]
	if !ok || e.kind != eventWork {
		s.mu.Unlock()
		return violation("an answer to event %d, which waits for none", id)
	}
	s.forget(id)
	s.mu.Unlock()
	if e.work != nil {
		e.work.answered <- answer{event: a}
	}
	s.hub.release(s)
	return nil
}

// forget needs s.mu. The caller releases the credit once it has let go of s.mu.
func (s *appStream) forget(id uint64) {
	delete(s.table, id)
	if s.finishing && len(s.table) == 0 {
		s.rouse()
	}
}

// submit registers w under the id it was encoded with and queues its frame. It is false when the stream takes no more:
// the credit is given back, the app has seen nothing.
func (s *appStream) submit(w *work, message grpc.PreparedMsg) bool {
	s.mu.Lock()
	taken := !s.ended && !s.finishing
	if taken {
		s.table[w.id] = entry{w, w.kind}
		s.outbox.push(outgoing{opens: w.id, message: message})
	}
	s.mu.Unlock()
	if taken {
		s.rouse()
	} else {
		s.hub.release(s)
	}
	return taken
}

// abandon lets go of w, whose caller has gone. It is false when w is being answered in this moment. Work that the app has
// not seen is withdrawn with its credit; otherwise the app is told, and owes the answer that gives the credit back.
func (s *appStream) abandon(w *work) (wasSent, ok bool) {
	s.mu.Lock()
	e, found := s.table[w.id]
	if !found || e.work != w {
		s.mu.Unlock()
		return false, false
	}
	if !w.sent {
		s.forget(w.id)
		s.mu.Unlock()
		s.hub.release(s)
		return false, true
	}
	s.table[w.id] = entry{nil, e.kind}
	s.mu.Unlock()
	s.control(&sidecastv1.ServeResponse{Frame: &sidecastv1.ServeResponse_Cancel{Cancel: &sidecastv1.Cancel{CallId: w.id}}})
	return true, true
}

// control queues a frame of the protocol itself.
func (s *appStream) control(frame *sidecastv1.ServeResponse) {
	var message grpc.PreparedMsg
	if err := message.Encode(s.wire, frame); err != nil {
		s.end(err)
		return
	}
	s.queue(outgoing{message: message})
}

func (s *appStream) queue(o outgoing) {
	s.mu.Lock()
	if !s.ended {
		s.outbox.push(o)
	}
	s.mu.Unlock()
	s.rouse()
}

// rouse wakes the writer.
func (s *appStream) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write sends what the outbox holds until the stream ends, and ends it (nil) when it is finishing and all is answered.
func (s *appStream) write() error {
	var sending outgoing
	for {
		select {
		case <-s.wake:
		case <-s.stopped:
			return nil
		}
		for {
			s.mu.Lock()
			found := s.next(&sending)
			done := !found && s.finishing && len(s.table) == 0
			s.mu.Unlock()
			if done {
				return nil
			}
			if !found {
				break
			}
			if err := s.wire.SendMsg(&sending.message); err != nil {
				return err
			}
		}
	}
}

// next needs s.mu. It takes the next frame that is still wanted; its work counts as seen by the app from now on.
func (s *appStream) next(o *outgoing) bool {
	for s.outbox.pop(o) {
		if o.opens != 0 {
			e, ok := s.table[o.opens]
			if !ok {
				continue
			}
			e.work.sent = true
			e.work.opened()
		}
		if o.chunkOf != nil {
			o.chunkOf.queued--
			nudge(o.chunkOf.room)
		}
		return true
	}
	return false
}

// onDrain is the app's wish to be given nothing more. What it has not been sent yet goes elsewhere.
func (s *appStream) onDrain() {
	s.hub.part(s, false)
	s.mu.Lock()
	s.finishing = true
	unseen := s.withdraw(func(w *work) bool { return !w.sent })
	s.mu.Unlock()
	for _, w := range unseen {
		s.lose(w, nil)
		s.hub.release(s)
	}
	s.rouse()
}

// drain tells the app that no new work comes, and ends the stream when the last answer is in. A stream that has not said
// hello ends at once.
func (s *appStream) drain() {
	s.hub.part(s, false)
	s.control(&sidecastv1.ServeResponse{Frame: &sidecastv1.ServeResponse_Drain{Drain: &sidecastv1.Drain{}}})
	s.mu.Lock()
	s.finishing = true
	s.mu.Unlock()
	s.rouse()
}

// withdraw needs s.mu. It takes the work that matches out of the table.
func (s *appStream) withdraw(match func(*work) bool) []*work {
	var taken []*work
	for id, e := range s.table {
		if e.work != nil && match(e.work) {
			taken = append(taken, e.work)
			delete(s.table, id)
		}
	}
	return taken
}

// end ends the stream once; later calls do nothing. Work that the app may have seen fails, other work finds another
// stream.
func (s *appStream) end(cause error) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	s.outbox = outbox{}
	s.mu.Unlock()
	s.hub.part(s, true)

	s.mu.Lock()
	unanswered, sdk := s.withdraw(func(*work) bool { return true }), s.sdk
	s.mu.Unlock()
	for _, w := range unanswered {
		s.lose(w, cause)
	}
	log := s.hub.options.Log
	switch faultgrpc.Status(cause).Code() {
	case codes.OK, codes.Canceled:
		log.Info("app disconnected", "sdk", sdk, "unanswered", len(unanswered))
	default:
		log.Warn("app stream broke", "sdk", sdk, "unanswered", len(unanswered), "error", cause)
	}
	s.result = faultgrpc.Err(cause)
	close(s.stopped)
}

// lose answers work that was withdrawn: nobody else can any more. What the app has not seen may go elsewhere.
func (s *appStream) lose(w *work, cause error) {
	a := answer{again: !w.sent}
	if w.sent {
		text := "the app ended its stream while it worked on this"
		if cause != nil {
			text += ": " + cause.Error()
		}
		a.err = fault.New(w.need.String(), fault.InstanceLost, "%s", text)
	}
	if w.kind != streamWork {
		w.answered <- a
		return
	}
	s.mu.Lock()
	w.flow.again = a.again
	w.finish(a.err)
	s.mu.Unlock()
}
