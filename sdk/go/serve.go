package sidecast

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

const (
	firstPause = 50 * time.Millisecond // before the second attempt to reach the sidecar
	lastPause  = 5 * time.Second       // at most between attempts
	goodbye    = 5 * time.Second       // for the sidecar to end a stream that we have closed
	cutOff     = time.Second           // for handlers to end whose context has
)

// Serve takes calls and events from the sidecar until ctx ends. It opens no port: it dials the sidecar, and dials again
// whenever the connection is lost. At most Concurrency handlers run at a time; a panic in one becomes the failure of its
// call. When ctx ends, the sidecar is told to send nothing more, running handlers may end, and Serve returns nil. It fails
// at once when handlers contradict each other, and in the end when handlers had to be cut off by DrainTimeout.
func Serve(ctx context.Context, handlers ...Handler) error {
	c, err := newClient(nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Serve(ctx, handlers...)
}

// Serve is the function Serve over this client's connection.
func (c *Client) Serve(ctx context.Context, handlers ...Handler) error {
	s := &served{methods: make(map[string]method), concurrency: 100, drain: 30 * time.Second}
	for _, h := range handlers {
		if err := h.addTo(s); err != nil {
			return err
		}
	}
	err := c.serveAgain(ctx, s)
	if err == nil && !s.finished(s.drain) { // of streams that were lost
		return s.overdue()
	}
	return err
}

// serveAgain holds one stream after the other until ctx ends or the client is closed.
func (c *Client) serveAgain(ctx context.Context, s *served) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		welcome, err := c.serve(ctx, s)
		if ctx.Err() != nil || c.closed() {
			return err
		}
		if welcome {
			pause = firstPause
		}
		c.log.Warn("the sidecar is not there; dialing again", "error", err, "after", pause)
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// session is one App.Serve stream. The goroutine of serve reads it, the handlers' goroutines write answers.
type session struct {
	client *Client
	served *served
	wire   sidecastv1.App_ServeClient
	base   context.Context // of handlers: the values of Serve's context, and the life of the stream

	sending sync.Mutex // of wire

	mu      sync.Mutex
	running map[uint64]*running
}

// running is one call or event at work.
type running struct {
	cancel context.CancelFunc
	stream *Stream // nil unless its bytes come in chunks
}

// serve holds one stream until it breaks or, after ctx has ended, is drained. Welcome tells whether the sidecar took it.
func (c *Client) serve(ctx context.Context, s *served) (welcome bool, err error) {
	if ctx.Err() != nil {
		return false, nil
	}
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	wire, err := c.app.Serve(base)
	if err != nil {
		cut()
		return false, err
	}
	n := &session{client: c, served: s, wire: wire, base: base, running: make(map[uint64]*running)}
	n.send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Hello{Hello: s.hello()}})

	late := make(chan struct{}) // closed when handlers had to be cut off
	stop := context.AfterFunc(ctx, func() {
		n.send(&sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Drain{Drain: &sidecastv1.Drain{}}})
		timer := time.AfterFunc(s.drain, func() { close(late); cut() })
		context.AfterFunc(base, func() { timer.Stop() })
	})
	for err == nil {
		var frame *sidecastv1.ServeResponse
		if frame, err = wire.Recv(); err == nil {
			welcome = welcome || frame.GetWelcome() != nil
			n.handle(frame)
		}
	}
	// Nothing can be answered any more, and handlers of calls whose answers are lost should know. One that does not heed it
	// must not keep the app from its next stream.
	stop()
	n.abort()
	cut()
	if ctx.Err() != nil {
		select {
		case <-late:
			s.finished(cutOff)
			return welcome, s.overdue()
		default:
			return welcome, nil
		}
	}
	if errors.Is(err, io.EOF) {
		return welcome, fault.New("serve", fault.SidecarLost, "the sidecar ended the stream")
	}
	return welcome, failed("serve", err)
}

func (s *served) hello() *sidecastv1.Hello {
	free := max(1, s.concurrency-int(s.busy.Load())) // handlers of a stream that was lost may still be at work
	hello := &sidecastv1.Hello{Credits: int32(free), Methods: slices.Sorted(maps.Keys(s.methods)), Sdk: sdkVersion()}
	for i := range s.events {
		hello.Subscriptions = append(hello.Subscriptions, s.events[i].proto())
	}
	return hello
}

// sdkVersion names the SDK and its version as the app was built with it.
func sdkVersion() string {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == "github.com/sidecast/sidecast" && m.Version != "" {
				version = m.Version
			}
		}
	}
	return "go/" + version
}

// send sends one frame. A stream that has ended tells why to Recv.
func (n *session) send(frame *sidecastv1.ServeRequest) {
	n.sending.Lock()
	defer n.sending.Unlock()
	_ = n.wire.Send(frame)
}

// abort cancels every handler.
func (n *session) abort() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.running {
		r.cancel()
	}
}

// handle starts what a frame asks for. It does not wait.
func (n *session) handle(frame *sidecastv1.ServeResponse) {
	switch f := frame.GetFrame().(type) {
	case *sidecastv1.ServeResponse_Invoke:
		n.invoke(f.Invoke)
	case *sidecastv1.ServeResponse_Event:
		n.event(f.Event)
	case *sidecastv1.ServeResponse_Cancel:
		if r := n.find(f.Cancel.GetCallId()); r != nil {
			r.cancel()
		}
	case *sidecastv1.ServeResponse_Chunk:
		if r := n.find(f.Chunk.GetCallId()); r != nil && r.stream != nil {
			r.stream.arrive(f.Chunk.GetData(), f.Chunk.GetEnd())
		}
	case *sidecastv1.ServeResponse_StreamCredit:
		if r := n.find(f.StreamCredit.GetCallId()); r != nil && r.stream != nil {
			r.stream.allow(f.StreamCredit.GetBytes())
		}
	}
}

func (n *session) find(id uint64) *running {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.running[id]
}

// start registers a piece of work and makes its context.
func (n *session) start(id uint64, timeout *durationpb.Duration, fields map[string]string) (context.Context, *running) {
	ctx := n.base
	if t, ok := trailOf(fields); ok {
		ctx = context.WithValue(ctx, trailKey{}, t)
	}
	r := &running{}
	if timeout != nil {
		ctx, r.cancel = context.WithTimeout(ctx, timeout.AsDuration())
	} else {
		ctx, r.cancel = context.WithCancel(ctx)
	}
	n.mu.Lock()
	n.running[id] = r
	n.mu.Unlock()
	n.served.running.Add(1)
	n.served.busy.Add(1)
	return ctx, r
}

// finish answers a piece of work and forgets it, in this order: frames that come in between still find it.
func (n *session) finish(id uint64, r *running, answer *sidecastv1.ServeRequest) {
	n.send(answer)
	n.mu.Lock()
	delete(n.running, id)
	n.mu.Unlock()
	r.cancel()
	n.served.busy.Add(-1)
	n.served.running.Done()
}

func (n *session) event(d *sidecastv1.ServeResponse_EventDelivery) {
	event := d.GetEvent()
	ctx, r := n.start(d.GetCallId(), d.GetTimeout(), event.GetMetadata())
	go func() {
		var err error
		if handler, ok := n.served.event(event); ok {
			err = n.client.handleEvent(ctx, handler, eventOf(event))
		} else {
			err = fmt.Errorf("the app has no handler for events of topic %q", event.GetTopic())
		}
		status, delay, reason := ackOf(err)
		n.finish(d.GetCallId(), r, &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_EventAnswer{
			EventAnswer: &sidecastv1.EventAnswer{CallId: d.GetCallId(), Status: status, Delay: delay, Reason: reason},
		}})
	}()
}

func (n *session) invoke(v *sidecastv1.ServeResponse_Invocation) {
	id, in := v.GetCallId(), v.GetRequest()
	ctx, r := n.start(id, v.GetTimeout(), in.GetMetadata())
	if v.GetStreaming() {
		r.stream = newStream(ctx, n, id)
	}
	request := &Request{
		Method: in.GetMethod(), Caller: v.GetCaller(), Data: in.GetData(), ContentType: in.GetContentType(),
		Metadata: in.GetMetadata(), Verb: in.GetHttpVerb(), Query: in.GetHttpQuery(),
	}
	go func() {
		m, ok := n.served.methods[request.Method]
		switch {
		case !ok:
			names := slices.Sorted(maps.Keys(n.served.methods))
			err := fault.New("invoke "+request.Method, fault.HandlerNotFound, "the app has no handler of that name; it has: %v", names)
			n.finish(id, r, &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: &sidecastv1.CallAnswer{
				CallId: id, Result: &sidecastv1.CallAnswer_Error{Error: faultgrpc.ToProto(err)},
			}}})
		case r.stream != nil:
			err := n.client.handleStream(ctx, m, request, r.stream)
			n.finish(id, r, r.stream.last(err))
		default:
			answer, err := n.client.handleCall(ctx, m, request)
			n.finish(id, r, answerOf(id, answer, err))
		}
	}()
}

func answerOf(id uint64, response *Response, err error) *sidecastv1.ServeRequest {
	answer := &sidecastv1.CallAnswer{CallId: id}
	if err == nil && !response.valid() { // such a frame cannot be encoded, and trying would end the stream
		err = fault.New("", fault.AppFailed, "the handler's answer has a content type or metadata that is not UTF-8")
	}
	if err != nil {
		answer.Result = &sidecastv1.CallAnswer_Error{Error: failure(err)}
	} else {
		answer.Result = &sidecastv1.CallAnswer_Response{Response: response.proto()}
	}
	return &sidecastv1.ServeRequest{Frame: &sidecastv1.ServeRequest_Answer{Answer: answer}}
}

// handleCall runs a handler on a whole body and contains its panic.
func (c *Client) handleCall(ctx context.Context, m method, request *Request) (response *Response, err error) {
	defer c.contain("invoke", request.Method, &err)
	if m.unary != nil {
		return m.unary(ctx, request)
	}
	s := &Stream{ctx: ctx, rest: request.Data, ended: true, whole: &Response{}}
	err = m.stream(ctx, request, s)
	return s.whole, err
}

// handleStream runs a handler on a stream and contains its panic.
func (c *Client) handleStream(ctx context.Context, m method, request *Request, s *Stream) (err error) {
	defer c.contain("invoke", request.Method, &err)
	if m.stream != nil {
		return m.stream(ctx, request, s)
	}
	if request.Data, err = io.ReadAll(io.LimitReader(s, maxWhole+1)); err != nil {
		return err
	}
	if len(request.Data) > maxWhole {
		return fault.New("invoke "+request.Method, fault.BodyTooLarge, "a handler of whole bodies takes %d bytes", maxWhole)
	}
	response, err := m.unary(ctx, request)
	if err != nil {
		return err
	}
	if err := s.Header(response); err != nil || response == nil {
		return err
	}
	_, err = s.Write(response.Data)
	return err
}

// sleep is false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
