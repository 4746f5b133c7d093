package appchannel

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidecast/sidecast/fault"
)

const (
	defaultCredits = 100     // of a hello that names none, as the protocol says
	maxCredits     = 1 << 16 // of one stream, whatever the app asks for: its queue is bounded by them
	maxLine        = 1 << 14 // pieces of work that wait for a credit; the lanes in front keep it far shorter
)

// Options say whose hub it is.
type Options struct {
	AppID, Instance, Namespace, Version string
	// OnReady is called when the first stream has come (nil) and when the last one has gone or drains (why); may be nil.
	OnReady func(error)
	// Log is slog.Default() when nil.
	Log *slog.Logger
}

// Hub is the Channel to an app that dials its sidecar: it serves the streams of App.Serve. An app may hold many; each
// piece of work goes to the stream that handles it and has the least to do, against one of that stream's credits. When no
// credit is free, work waits in line. A credit is free again when the app has answered, even when the caller has long
// gone: the app's handler may still be running, and it asked for no more than its credits at a time.
//
//	hub := appchannel.NewHub(appchannel.Options{AppID: "orders"})
//	front door: func (s *server) Serve(stream sidecastv1.App_ServeServer) error { return s.hub.Serve(stream) }
//	response, err := hub.Invoke(ctx, &call.Request{Method: "price"})
type Hub struct {
	options Options

	mu      sync.Mutex
	all     map[*appStream]struct{} // every stream in Serve
	streams []*appStream            // those that have said hello and not yet drained or ended
	waiting line
	changed chan struct{} // closed and replaced when streams changes
	closing bool
	running int           // goroutines of all streams
	idle    chan struct{} // closed when closing and running is 0

	readiness sync.Mutex // orders the calls of OnReady
	lastReady bool
}

var _ Channel = (*Hub)(nil)

// NewHub returns a hub that no app is connected to yet. Close it.
func NewHub(o Options) *Hub {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Hub{options: o, all: make(map[*appStream]struct{}), changed: make(chan struct{}), idle: make(chan struct{})}
}

// Kind is `stream`.
func (h *Hub) Kind() string { return "stream" }

// Ready is nil while a stream takes work.
func (h *Hub) Ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ready("app stream")
}

// ready needs h.mu.
func (h *Hub) ready(op string) error {
	switch {
	case h.closing:
		return fault.New(op, fault.Shutdown, "the sidecar is shutting down and sends its app nothing more")
	case len(h.streams) == 0:
		return fault.New(op, fault.AppNotConnected, "app %q holds no App.Serve stream to its sidecar", h.options.AppID)
	}
	return nil
}

// Subscriptions tells the subscriptions of all streams together, each once.
func (h *Hub) Subscriptions(ctx context.Context, changed func([]Subscription)) error {
	var last []Subscription
	for first := true; ; first = false {
		h.mu.Lock()
		var now []Subscription
		for _, s := range h.streams {
			now = append(now, s.subscriptions...)
		}
		next := h.changed
		h.mu.Unlock()
		now = merge(now)
		slices.SortStableFunc(now, Subscription.compare) // whichever stream came first
		if first || !slices.EqualFunc(now, last, Subscription.Equal) {
			changed(now)
			last = now
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

// Close refuses new work, tells the streams to drain and waits until each has answered what it works on. When ctx ends
// first, the streams are cut.
func (h *Hub) Close(ctx context.Context) error {
	h.mu.Lock()
	if !h.closing {
		h.closing = true
		if h.running == 0 {
			close(h.idle)
		}
	}
	all := make([]*appStream, 0, len(h.all))
	for s := range h.all {
		all = append(all, s)
	}
	h.settle()
	h.mu.Unlock()
	h.announce()
	for _, s := range all {
		s.drain()
	}
	select {
	case <-h.idle:
		return nil
	case <-ctx.Done():
	}
	late := fault.New("app stream: close", fault.Shutdown, "the sidecar stopped before the app had answered")
	for _, s := range all {
		s.end(late)
	}
	<-h.idle
	return late
}

// enter counts a stream's goroutines in.
func (h *Hub) enter(s *appStream, goroutines int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return h.ready("app stream: serve")
	}
	h.all[s] = struct{}{}
	h.running += goroutines
	return nil
}

// exit counts one of them out.
func (h *Hub) exit() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running--; h.running == 0 && h.closing {
		close(h.idle)
	}
}

// join opens a stream for work, unless it has ended in the meantime.
func (h *Hub) join(s *appStream) {
	h.mu.Lock()
	if _, lives := h.all[s]; lives && !h.closing {
		h.streams = append(h.streams, s)
		h.dispatch(s)
		h.settle()
		h.signal()
	}
	h.mu.Unlock()
	h.announce()
}

// part takes a stream out of the choice: it drains, or (gone) has ended.
func (h *Hub) part(s *appStream, gone bool) {
	h.mu.Lock()
	if i := slices.Index(h.streams, s); i >= 0 {
		h.streams = slices.Delete(h.streams, i, i+1)
		h.settle()
		h.signal()
	}
	if gone {
		delete(h.all, s)
	}
	h.mu.Unlock()
	h.announce()
}

// signal needs h.mu.
func (h *Hub) signal() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// announce calls OnReady when readiness is no longer what it told last.
func (h *Hub) announce() {
	if h.options.OnReady == nil {
		return
	}
	h.readiness.Lock()
	defer h.readiness.Unlock()
	err := h.Ready()
	if ready := err == nil; ready != h.lastReady {
		h.lastReady = ready
		h.options.OnReady(err)
	}
}

// need is what a piece of work asks of a stream: a method, or an event's route.
type need struct {
	name  string
	event bool
}

func needOf(event *Event) need {
	if event.Route == "" {
		return need{name: event.Topic, event: true}
	}
	return need{name: event.Route, event: true}
}

func (n need) String() string {
	if n.event {
		return "deliver " + n.name
	}
	return "invoke " + n.name
}

// pick needs h.mu. It returns the least busy stream with a free credit that handles n; nil when those that handle it are
// busy; an error when there is none.
func (h *Hub) pick(n need) (*appStream, error) {
	if h.closing || len(h.streams) == 0 {
		return nil, h.ready(n.String())
	}
	// An event that no stream asked for comes of a subscription in a manifest: any stream may have its handler.
	listed := !n.event || slices.ContainsFunc(h.streams, func(s *appStream) bool { return s.handles(n) })
	var best *appStream
	handled := false
	for _, s := range h.streams {
		if listed && !s.handles(n) {
			continue
		}
		handled = true
		if s.inFlight < s.limit && (best == nil || s.inFlight < best.inFlight) {
			best = s
		}
	}
	if !handled {
		return nil, fault.New(n.String(), fault.HandlerNotFound, "app %q has no handler of that name; it registered: %s",
			h.options.AppID, h.registered())
	}
	return best, nil
}

// registered needs h.mu.
func (h *Hub) registered() string {
	var names []string
	for _, s := range h.streams {
		for name := range s.methods {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	const most = 50
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, ", ")
}

// acquire takes a credit of a stream that handles w, and waits in line for one if it must.
func (h *Hub) acquire(ctx context.Context, w *work) (*appStream, error) {
	for {
		h.mu.Lock()
		s, err := h.pick(w.need)
		if s != nil {
			s.inFlight++
		} else if err == nil {
			err = h.queue(w)
		}
		h.mu.Unlock()
		if s != nil || err != nil {
			return s, err
		}
		select {
		case s := <-w.granted:
			if s != nil {
				return s, nil
			}
		case <-ctx.Done():
			return nil, h.leave(ctx, w)
		}
	}
}

// queue needs h.mu.
func (h *Hub) queue(w *work) error {
	if h.waiting.length >= maxLine {
		return fault.New(w.need.String(), fault.QueueFull, "%d pieces of work wait for app %q already", maxLine, h.options.AppID).After(time.Second)
	}
	h.waiting.push(w)
	return nil
}

// leave takes w out of the line, or gives back what it was granted in the same moment.
func (h *Hub) leave(ctx context.Context, w *work) error {
	h.mu.Lock()
	if !h.waiting.remove(w) {
		if s := <-w.granted; s != nil {
			s.inFlight--
			h.dispatch(s)
		}
	}
	h.mu.Unlock()
	return neverSent(ctx, w.need.String(), "a free credit of the app")
}

// release gives a credit back.
func (h *Hub) release(s *appStream) {
	h.mu.Lock()
	s.inFlight--
	h.dispatch(s)
	h.mu.Unlock()
}

// raise adds credits.
func (h *Hub) raise(s *appStream, credits int) {
	h.mu.Lock()
	s.limit = min(s.limit+credits, maxCredits)
	h.dispatch(s)
	h.mu.Unlock()
}

// dispatch needs h.mu. It hands the free credits of s to those who wait longest for what s handles. So nobody waits for a
// credit that is free, and newcomers overtake nobody.
func (h *Hub) dispatch(s *appStream) {
	if h.waiting.length == 0 || !slices.Contains(h.streams, s) {
		return
	}
	for w := h.waiting.first; w != nil && s.inFlight < s.limit; {
		next := w.next
		if w.need.event || s.handles(w.need) {
			if chosen, _ := h.pick(w.need); chosen == s {
				h.waiting.remove(w)
				s.inFlight++
				w.granted <- s
			}
		}
		w = next
	}
}

// settle needs h.mu. After a change of streams, those who wait for what nobody handles any more must learn of it.
func (h *Hub) settle() {
	for w := h.waiting.first; w != nil; {
		next := w.next
		if s, err := h.pick(w.need); s != nil || err != nil {
			h.waiting.remove(w)
			if s != nil {
				s.inFlight++
			}
			w.granted <- s
		}
		w = next
	}
}

// neverSent is the fault of work whose caller went before the app saw it.
func neverSent(ctx context.Context, op, waitingFor string) error {
	err := fault.FromContext(op, ctx, waitingFor)
	if err.Kind == fault.Timeout {
		err.Reason = fault.BudgetSpent
	}
	return err
}
