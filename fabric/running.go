package fabric

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/sidecast/sidecast/fault"
)

// running is one inbound call or stream.
type running struct {
	in      *inbound
	key     string // the caller's reply subject
	caller  string
	held    int64
	arrived time.Time
	heardAt atomic.Int64

	mu      sync.Mutex
	ended   bool
	cancel  context.CancelFunc
	stream  *stream
	token   uint64 // in the outbound table, once the caller was probed
	probeAt int64
}

// openFor makes the stream of a request that opens one.
func (r *running) openFor(value string) error {
	fr, err := parseFrame(value)
	r.stream = r.newStream(fr.method)
	return err
}

// context is the handler's: it ends when the caller stops waiting. Whole ends when the caller goes away: the deadline is for the
// head of an answer that passes in pieces.
func (r *running) context(fr frame) (whole, handler context.Context, cancel context.CancelFunc) {
	switch {
	case !fr.hasLeft:
		whole, cancel = context.WithCancel(context.Background())
		return whole, whole, cancel
	case !fr.pieces:
		handler, cancel = context.WithDeadline(context.Background(), r.arrived.Add(fr.left))
		return handler, handler, cancel
	}
	whole, cancelWhole := context.WithCancel(context.Background())
	handler, cancelHandler := context.WithDeadline(whole, r.arrived.Add(fr.left))
	return whole, handler, func() {
		cancelHandler()
		cancelWhole()
	}
}

// newStream makes the called side's end of the stream.
func (r *running) newStream(method string) *stream {
	s := r.in.f.newEnd("serve "+method, r.key)
	s.called, s.broke = true, r.halt
	return s
}

// begin notes how the call is cancelled. False means that it was before it began.
func (r *running) begin(cancel context.CancelFunc, s *stream) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel, r.stream = cancel, s
	return !r.ended
}

func (r *running) openStream() *stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stream
}

// halt cancels the handler.
func (r *running) halt() {
	r.mu.Lock()
	r.ended = true
	cancel := r.cancel
	r.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// end cancels the handler: nobody waits for its answer.
func (r *running) end(err *fault.Error) {
	r.halt()
	if s := r.openStream(); s != nil {
		s.end(during(s.op, err))
	}
}

// receive takes a frame of the caller's that belongs to a running call.
func (r *running) receive(kind string, m *nats.Msg, value string) {
	r.heardAt.Store(r.in.f.clock.Load())
	if kind == kindStop {
		r.end(fault.New("", fault.CallCanceled, "the caller went away"))
		return
	}
	if s := r.openStream(); s != nil {
		s.heard(0, m, value)
	}
}

// The entry of a running call in the outbound table is how it hears that a probed caller is gone.

func (r *running) peer() (Target, string) { return Target{}, "" }

func (r *running) nobody(uint64, bool) {
	r.end(fault.New("", fault.CallCanceled, "the caller went away"))
}

func (r *running) fail(_ uint64, err *fault.Error) { r.end(err) }

func (r *running) heard(_ uint64, _ *nats.Msg, value string) {
	if kindOf(value) == kindGone {
		r.nobody(0, true)
	}
}

// probe asks a caller that was quiet for a while whether it still waits.
func (r *running) probe(_ uint64, pulse int64) {
	r.mu.Lock()
	quiet := pulse-r.heardAt.Load() >= quietPulses && pulse-r.probeAt >= quietPulses && !r.ended
	if !quiet {
		r.mu.Unlock()
		return
	}
	r.probeAt = pulse
	if r.token == 0 {
		r.token = r.in.f.outbound.add(r)
	}
	token, s := r.token, r.stream
	r.mu.Unlock()
	reply := r.in.f.outbound.later(token)
	if s != nil {
		s.sendProbe(reply)
		return
	}
	_ = r.in.f.link.publish(r.key, reply, begin(nil, kindProbe), nil) // the next pulse tries again
}
