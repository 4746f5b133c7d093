package appchannel

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// Invoke hands the app a call. It needs no goroutine but the caller's.
func (h *Hub) Invoke(ctx context.Context, req *call.Request) (*call.Response, error) {
	w := workPool.Get().(*work)
	defer w.recycle()
	w.need, w.kind, w.request = need{name: req.Method}, unaryWork, req
	a, err := h.exchange(ctx, w)
	if err != nil {
		return nil, err
	}
	switch result := a.call.GetResult().(type) {
	case *sidecastv1.CallAnswer_Response:
		return responseOf(result.Response), nil
	case *sidecastv1.CallAnswer_Error:
		return nil, fromApp(w.need.String(), faultgrpc.FromProto(result.Error))
	}
	return nil, fault.New(w.need.String(), fault.AppAnswer, "the app answered neither with a response nor with an error")
}

// Deliver hands the app an event.
func (h *Hub) Deliver(ctx context.Context, event *Event) (Outcome, error) {
	w := workPool.Get().(*work)
	defer w.recycle()
	w.need, w.kind, w.event = needOf(event), eventWork, event
	a, err := h.exchange(ctx, w)
	if err != nil {
		return Outcome{}, err
	}
	return outcomeOf(w.need.String(), a.event.GetStatus(), a.event.GetDelay(), a.event.GetReason())
}

// exchange gets w to a stream and its answer back. A stream that goes before the app has seen the work is no failure
// while there is another.
func (h *Hub) exchange(ctx context.Context, w *work) (answer, error) {
	for {
		s, err := h.submit(ctx, w)
		if err != nil {
			return answer{}, err
		}
		select {
		case a := <-w.answered:
			if !a.again {
				return a, a.err
			}
		case <-ctx.Done():
			if err := s.abandonFor(ctx, w); err != nil {
				return answer{}, err
			}
			if a := <-w.answered; !a.again {
				return a, a.err
			}
		}
	}
}

// submit takes a credit and gives w to the stream it is of.
func (h *Hub) submit(ctx context.Context, w *work) (*appStream, error) {
	for {
		s, err := h.acquire(ctx, w)
		if err != nil {
			return nil, err
		}
		w.id, w.sent = s.lastID.Add(1), false
		message, err := w.encode(ctx, s)
		if err != nil {
			h.release(s)
			return nil, err
		}
		if s.submit(w, message) {
			return s, nil
		}
	}
}

// abandonFor lets go of w because ctx has ended. It is nil when the answer is here after all.
func (s *appStream) abandonFor(ctx context.Context, w *work) error {
	seen, ok := s.abandon(w)
	switch {
	case !ok:
		return nil
	case seen:
		return fault.FromContext(w.need.String(), ctx, "the app's answer")
	}
	return neverSent(ctx, w.need.String(), "the app to read what was sent to it before")
}

// form is the memory in which a piece of work becomes a frame; it is used again for other work.
type form struct {
	frame    sidecastv1.ServeResponse
	invoke   sidecastv1.ServeResponse_Invoke
	call     sidecastv1.ServeResponse_Invocation
	request  sidecastv1.InvokeRequest
	deliver  sidecastv1.ServeResponse_Event
	carrier  sidecastv1.ServeResponse_EventDelivery
	event    sidecastv1.Event
	at       timestamppb.Timestamp
	timeout  durationpb.Duration
	metadata map[string]string
}

// clear lets go of what belongs to the caller.
func (f *form) clear() {
	f.request.Data, f.request.Metadata, f.event.Data, f.event.Metadata = nil, nil, nil, nil
	clear(f.metadata)
}

// encode makes w's first frame.
func (w *work) encode(ctx context.Context, s *appStream) (message grpc.PreparedMsg, err error) {
	left, err := w.timeLeft(ctx)
	if err != nil {
		return message, err
	}
	if w.kind == eventWork {
		w.form.delivery(w.id, w.event, left)
	} else {
		w.form.invocation(s.hub.options.AppID, w.id, w.request, left, w.kind == streamWork)
	}
	if err := message.Encode(s.wire, &w.form.frame); err != nil {
		return message, fault.E(w.need.String(), fault.Invalid, fault.BadRequest, err)
	}
	return message, nil
}

// timeLeft is what ctx allows; nil when it has no deadline.
func (w *work) timeLeft(ctx context.Context) (*durationpb.Duration, error) {
	left, ok := call.TimeLeft(ctx, time.Now())
	if !ok {
		return nil, nil
	}
	if left <= 0 {
		return nil, fault.New(w.need.String(), fault.BudgetSpent, "no time was left to send this to the app")
	}
	t := &w.form.timeout
	t.Seconds, t.Nanos = int64(left/time.Second), int32(left%time.Second)
	return t, nil
}

// fields makes a map of header; of a key that occurs more than once the first value counts.
func (f *form) fields(header call.Header) map[string]string {
	if len(header) == 0 {
		return nil
	}
	if f.metadata == nil {
		f.metadata = make(map[string]string, len(header))
	}
	clear(f.metadata)
	for i := len(header) - 1; i >= 0; i-- {
		f.metadata[header[i].Key] = header[i].Value
	}
	return f.metadata
}

func (f *form) invocation(app string, id uint64, req *call.Request, left *durationpb.Duration, streams bool) {
	r, c := &f.request, &f.call
	r.AppId, r.Method, r.ContentType, r.Metadata = app, req.Method, req.ContentType, f.fields(req.Header)
	r.HttpVerb, r.HttpQuery, r.Idempotent = req.Verb, req.Query, req.Idempotent
	if !streams {
		r.Data = req.Body
	}
	c.CallId, c.Request, c.Caller, c.Timeout, c.Streaming = id, r, req.Caller, left, streams
	f.invoke.Invoke = c
	f.frame.Frame = &f.invoke
}

func (f *form) delivery(id uint64, event *Event, left *durationpb.Duration) {
	fillEvent(&f.event, event, f.fields(event.Header))
	if !event.Time.IsZero() {
		f.at.Seconds, f.at.Nanos = event.Time.Unix(), int32(event.Time.Nanosecond())
		f.event.Time = &f.at
	}
	c := &f.carrier
	c.CallId, c.Event, c.Timeout = id, &f.event, left
	f.deliver.Event = c
	f.frame.Frame = &f.deliver
}
