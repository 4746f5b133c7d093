package sidecast

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// Handler is a part of what Serve serves: a method, a topic, or a setting.
type Handler interface {
	addTo(*served) error
}

type handler func(*served) error

func (h handler) addTo(s *served) error { return h(s) }

// served is all that one Serve serves.
type served struct {
	methods     map[string]method
	events      []subscribed
	concurrency int
	drain       time.Duration

	// running are the handlers of all streams: those of one that was lost may outlive it.
	running sync.WaitGroup
	busy    atomic.Int32 // how many
}

// finished waits for the handlers for as long as they may take, and says whether they have ended.
func (s *served) finished(within time.Duration) bool {
	done := make(chan struct{})
	go func() { // ends with the last handler
		s.running.Wait()
		close(done)
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// overdue is the failure of handlers that would not end.
func (s *served) overdue() error {
	return fault.New("serve", fault.DeadlineExceeded, "handlers were still running %s after the app was told to end", s.drain)
}

// method is one of the two.
type method struct {
	unary  func(context.Context, *Request) (*Response, error)
	stream func(context.Context, *Request, *Stream) error
}

type subscribed struct {
	Subscription
	handler EventHandler
}

func (s *served) add(name string, m method) error {
	if name == "" {
		return fault.New("serve", fault.BadRequest, "a handler without a method name")
	}
	if _, ok := s.methods[name]; ok {
		return fault.New("serve", fault.BadRequest, "two handlers for method %q", name)
	}
	s.methods[name] = m
	return nil
}

// Handle serves a method. The answer is a whole Response, or just its body.
func Handle[Answer *Response | []byte](name string, fn func(ctx context.Context, r *Request) (Answer, error)) Handler {
	unary := func(ctx context.Context, r *Request) (*Response, error) {
		answer, err := fn(ctx, r)
		switch answer := any(answer).(type) {
		case *Response:
			return answer, err
		case []byte:
			return &Response{Data: answer}, err
		}
		return nil, err
	}
	return handler(func(s *served) error { return s.add(name, method{unary: unary}) })
}

// HandleJSON serves a method whose request and answer are JSON.
func HandleJSON[In, Out any](name string, fn func(ctx context.Context, in In) (Out, error)) Handler {
	return Handle(name, func(ctx context.Context, r *Request) (*Response, error) {
		var in In
		if err := json.Unmarshal(r.Data, &in); err != nil {
			return nil, fault.New(name, fault.BadRequest, "the body is not the JSON expected: %w", err)
		}
		out, err := fn(ctx, in)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(out)
		if err != nil {
			return nil, fault.E(name, fault.Internal, fault.AppFailed, err)
		}
		return &Response{Data: data, ContentType: jsonType}, nil
	})
}

// HandleStream serves a method with bytes both ways. The stream ends when fn returns. A caller that does not stream finds
// what fn writes in the body of its answer.
func HandleStream(name string, fn func(ctx context.Context, r *Request, s *Stream) error) Handler {
	return handler(func(s *served) error { return s.add(name, method{stream: fn}) })
}

// SubscribeOption changes a subscription.
type SubscribeOption interface {
	subscribe(*Subscription)
}

type subscribeOption func(*Subscription)

func (o subscribeOption) subscribe(s *Subscription) { o(s) }

// Group is the consumer group; without it the app id.
func Group(name string) SubscribeOption {
	return subscribeOption(func(s *Subscription) { s.Group = name })
}

// DeadLetter is the topic that takes events which were dropped, or delivered maxDeliveries times in vain (0 means 5).
func DeadLetter(topic string, maxDeliveries int) SubscribeOption {
	return subscribeOption(func(s *Subscription) { s.DeadLetter, s.MaxDeliveries = topic, maxDeliveries })
}

// AckWait is how long a delivery may go unanswered once its handler is gone; 10 s without it.
func AckWait(d time.Duration) SubscribeOption {
	return subscribeOption(func(s *Subscription) { s.AckWait = d })
}

// OnlyNew starts a new group at the events published from now on, not at the oldest kept.
func OnlyNew() SubscribeOption {
	return subscribeOption(func(s *Subscription) { s.OnlyNew = true })
}

// OnEvent serves the events of a topic.
func OnEvent(topic string, fn EventHandler, options ...SubscribeOption) Handler {
	return handler(func(s *served) error {
		if topic == "" {
			return fault.New("serve", fault.TopicInvalid, "an event handler without a topic")
		}
		sub := subscribed{Subscription{Topic: topic}, fn}
		for _, o := range options {
			o.subscribe(&sub.Subscription)
		}
		s.events = append(s.events, sub)
		return nil
	})
}

// Concurrency is how many calls and events Serve handles at a time; 100 without it. The sidecar holds back what is more.
func Concurrency(n int) Handler {
	return handler(func(s *served) error {
		if n < 1 {
			return fault.New("serve", fault.BadRequest, "a concurrency of %d", n)
		}
		s.concurrency = n
		return nil
	})
}

// DrainTimeout is how long Serve lets running handlers work on when its context ends; 30 s without it.
func DrainTimeout(d time.Duration) Handler {
	return handler(func(s *served) error { s.drain = d; return nil })
}

// event is the handler of an event: by topic and component, else by topic alone.
func (s *served) event(e *sidecastv1.Event) (EventHandler, bool) {
	var found EventHandler
	for i := range s.events {
		sub := &s.events[i]
		if sub.Topic != e.GetTopic() && sub.Topic != e.GetRoute() {
			continue
		}
		if sub.PubSub == e.GetPubsubName() {
			return sub.handler, true
		}
		if found == nil {
			found = sub.handler
		}
	}
	return found, found != nil
}

// failure is a handler's error as its caller sees it.
func failure(err error) *sidecastv1.Failure {
	var e *fault.Error
	if !errors.As(err, &e) {
		if _, ok := status.FromError(err); !ok && fault.KindOf(err) == fault.Internal {
			err = fault.E("", fault.Internal, fault.AppFailed, err)
		}
		return faultgrpc.ToProto(err)
	}
	f := faultgrpc.ToProto(err)
	if e.Reason == fault.HandlerNotFound { // of a call that the handler made, not of this one
		if f.Metadata == nil {
			f.Metadata = make(map[string]string, 1)
		}
		f.Reason, f.Metadata["reason"] = string(fault.AppFailed), f.Reason
	}
	return f
}

// contain turns a panic of a handler into its error. Call it deferred.
func (c *Client) contain(doing, name string, err *error) {
	if p := recover(); p != nil {
		what := doing + " " + name
		c.log.LogAttrs(context.Background(), slog.LevelError, "handler panicked",
			slog.String("handling", what), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		*err = fault.New(what, fault.Panicked, "the handler panicked: %v", p)
	}
}

// text is an error's text as a protobuf string, cut to a size for logs.
func text(err error) string {
	s := err.Error()
	if len(s) > 1024 {
		s = s[:1024] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
