package sidecast_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
)

type item struct{ SKU string }

type price struct{ Cents int }

func echo(_ context.Context, r *sidecast.Request) (*sidecast.Response, error) {
	return &sidecast.Response{Data: r.Data, ContentType: r.ContentType, Metadata: r.Metadata}, nil
}

func TestServeCalls(t *testing.T) {
	s := start(t, "")
	client := s.connect(t, sidecast.Token("secret"))
	s.serve(t, client,
		sidecast.Handle("echo", echo),
		sidecast.Handle("bytes", func(_ context.Context, r *sidecast.Request) ([]byte, error) {
			return []byte(r.Caller + " " + r.Verb + " " + r.Query), nil
		}),
		sidecast.HandleJSON("price", func(_ context.Context, in item) (price, error) {
			if in.SKU == "" {
				return price{}, fault.New("price", "SOLD_OUT", "nothing left")
			}
			return price{len(in.SKU)}, nil
		}),
		sidecast.Handle("plain", func(context.Context, *sidecast.Request) ([]byte, error) { return nil, errors.New("boom") }),
		sidecast.Handle("panic", func(context.Context, *sidecast.Request) ([]byte, error) { panic("boom") }),
		sidecast.Handle("garbled", func(context.Context, *sidecast.Request) (*sidecast.Response, error) {
			return &sidecast.Response{Metadata: map[string]string{"a": "\xff"}}, nil
		}),
		sidecast.Handle("nil", func(context.Context, *sidecast.Request) (*sidecast.Response, error) { return nil, nil }),
	)
	ctx := t.Context()
	r, err := client.Invoke(ctx, "any", "echo", []byte("x"), sidecast.ContentType("text/plain"), sidecast.Metadata("a", "1"), sidecast.Metadata("b", "2"))
	if err != nil || string(r.Data) != "x" || r.ContentType != "text/plain" || r.Metadata["a"] != "1" || r.Metadata["b"] != "2" {
		t.Errorf("%+v %v", r, err)
	}
	if token := s.seen.Get("sidecast-api-token"); len(token) != 1 || token[0] != "secret" {
		t.Errorf("token %v", token)
	}
	r, err = client.Invoke(ctx, "any", "bytes", nil, sidecast.Verb("PUT"), sidecast.Query("q=1"), sidecast.Idempotent())
	if err != nil || string(r.Data) != "caller PUT q=1" {
		t.Errorf("%+v %v", r, err)
	}
	p, err := sidecast.InvokeJSON[price](ctx, client, "any", "price", item{"four"})
	if err != nil || p.Cents != 4 {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := client.Invoke(ctx, "any", "nil", nil); err != nil {
		t.Error(err)
	}
	for method, want := range map[string]struct {
		kind   fault.Kind
		reason fault.Reason
	}{
		"plain":   {fault.Internal, fault.AppFailed},
		"panic":   {fault.Internal, fault.Panicked},
		"garbled": {fault.Internal, fault.AppFailed},
		"nobody":  {fault.NotFound, fault.HandlerNotFound},
	} {
		if _, err := client.Invoke(ctx, "any", method, nil); sidecast.KindOf(err) != want.kind || sidecast.ReasonOf(err) != want.reason {
			t.Errorf("%s: %v", method, err)
		}
	}
	if _, err := sidecast.InvokeJSON[price](ctx, client, "any", "price", item{}); sidecast.ReasonOf(err) != "SOLD_OUT" {
		t.Error(err)
	}
	if _, err := client.Invoke(ctx, "any", "price", []byte("{")); sidecast.KindOf(err) != fault.Invalid {
		t.Error(err)
	}
	if _, err := sidecast.InvokeJSON[price](ctx, client, "any", "echo", "not a price"); sidecast.ReasonOf(err) != fault.AppAnswer {
		t.Error(err)
	}
}

// TestServePropagates is a handler that calls on: what its caller traced and allowed goes along.
func TestServePropagates(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	left := make(chan time.Duration, 1)
	s.serve(t, client,
		sidecast.Handle("first", func(ctx context.Context, _ *sidecast.Request) (*sidecast.Response, error) {
			return client.Invoke(ctx, "any", "second", nil)
		}),
		sidecast.Handle("second", func(ctx context.Context, r *sidecast.Request) ([]byte, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			return []byte(r.Metadata["traceparent"]), nil
		}),
		sidecast.Handle("nobody's", func(ctx context.Context, _ *sidecast.Request) (*sidecast.Response, error) {
			return client.Invoke(ctx, "any", "nobody", nil)
		}),
	)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := client.Invoke(ctx, "any", "first", nil, sidecast.Metadata("traceparent", "00-1-2-01"), sidecast.Metadata("baggage", "a=b"))
	if err != nil || string(r.Data) != "00-1-2-01" {
		t.Errorf("%+v %v", r, err)
	}
	if d := <-left; d <= 0 || d > time.Minute {
		t.Errorf("%s left", d)
	}
	s.mu.Lock()
	if baggage := s.seen.Get("baggage"); len(baggage) != 1 || baggage[0] != "a=b" {
		t.Errorf("baggage %v", baggage)
	}
	s.mu.Unlock()
	// The handler was found; it is a call of its own that found none.
	if _, err := client.Invoke(ctx, "any", "nobody's", nil); fault.NotSent(err) || sidecast.ReasonOf(err) != fault.AppFailed {
		t.Error(err)
	}
}

func TestServeStreams(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	s.serve(t, client,
		sidecast.HandleStream("upper", func(_ context.Context, r *sidecast.Request, stream *sidecast.Stream) error {
			if err := stream.Header(&sidecast.Response{ContentType: "text/loud", Metadata: r.Metadata}); err != nil {
				return err
			}
			buffer := make([]byte, 5000)
			for {
				n, err := stream.Read(buffer)
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if _, err := stream.Write(bytes.ToUpper(buffer[:n])); err != nil {
					return err
				}
			}
		}),
		sidecast.Handle("whole", echo),
		sidecast.HandleStream("panic", func(context.Context, *sidecast.Request, *sidecast.Stream) error { panic("boom") }),
	)
	body := bytes.Repeat([]byte("some text "), 100_000)
	for _, method := range []string{"upper", "whole"} {
		stream, err := client.InvokeStream(t.Context(), "any", method, sidecast.Metadata("a", "1"), sidecast.ContentType("text/plain"))
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := stream.Write(body); err != nil {
				t.Error(err)
			}
			if err := stream.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		header, err := stream.Header()
		if err != nil || header.Metadata["a"] != "1" {
			t.Errorf("%s: %+v %v", method, header, err)
		}
		got, err := io.ReadAll(stream)
		if err != nil || !bytes.EqualFold(got, body) {
			t.Errorf("%s: %d bytes, %v", method, len(got), err)
		}
		group.Wait()
		stream.Close()
	}
	// A caller that does not stream.
	r, err := client.Invoke(t.Context(), "any", "upper", []byte("x"))
	if err != nil || string(r.Data) != "X" || r.ContentType != "text/loud" {
		t.Errorf("%+v %v", r, err)
	}
	stream, err := client.InvokeStream(t.Context(), "any", "panic")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(stream); sidecast.ReasonOf(err) != fault.Panicked {
		t.Error(err)
	}
	if _, err := stream.Write(make([]byte, 10<<20)); err == nil {
		t.Error("wrote to a stream that has failed")
	}
	stream.Close()
}

func TestServeEvents(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	got := make(chan *sidecast.Event, 10)
	keep := func(answer error) sidecast.EventHandler {
		return func(_ context.Context, e *sidecast.Event) error { got <- e; return answer }
	}
	boom := errors.New("boom")
	s.serve(t, client,
		sidecast.OnEvent("done", keep(nil)),
		sidecast.OnEvent("drop", keep(sidecast.Drop(boom)), sidecast.DeadLetter("dead", 3), sidecast.Group("g"), sidecast.AckWait(time.Minute), sidecast.OnlyNew(), sidecast.Raw()),
		sidecast.OnEvent("later", keep(sidecast.RetryAfter(time.Minute, boom))),
		sidecast.OnEvent("again", keep(boom)),
		sidecast.OnEvent("same", keep(nil), sidecast.PubSub("a")),
		sidecast.OnEvent("same", keep(sidecast.Drop(nil)), sidecast.PubSub("b")),
		sidecast.OnEvent("panic", func(context.Context, *sidecast.Event) error { panic("boom") }),
	)
	for _, test := range []struct {
		pubsub, topic string
		want          appchannel.Outcome
	}{
		{"bus", "done", appchannel.Outcome{}},
		{"bus", "drop", appchannel.Outcome{Verdict: appchannel.Drop, Reason: "boom"}},
		{"bus", "later", appchannel.Outcome{Verdict: appchannel.Retry, Delay: time.Minute, Reason: "boom"}},
		{"bus", "again", appchannel.Outcome{Verdict: appchannel.Retry, Reason: "boom"}},
		{"a", "same", appchannel.Outcome{}},
		{"b", "same", appchannel.Outcome{Verdict: appchannel.Drop, Reason: "the handler gave no reason"}},
		{"bus", "panic", appchannel.Outcome{Verdict: appchannel.Retry, Reason: "event of panic: the handler panicked: boom [PANICKED]"}},
		{"bus", "other", appchannel.Outcome{Verdict: appchannel.Retry, Reason: `the app has no handler for events of topic "other"`}},
	} {
		outcome, err := s.hub.Deliver(t.Context(), &appchannel.Event{
			ID: "1", PubSub: test.pubsub, Topic: test.topic, Data: []byte(`{"Cents":7}`), Time: time.Unix(1, 2), Key: "k", Delivery: 3,
			Header: call.Header{{Key: "a", Value: "1"}},
		})
		if err != nil || outcome != test.want {
			t.Errorf("%s: %+v %v", test.topic, outcome, err)
		}
	}
	e := <-got
	var p price
	if err := e.JSON(&p); err != nil || p.Cents != 7 || !e.Time.Equal(time.Unix(1, 2)) || e.Key != "k" || e.Delivery != 3 || e.Metadata["a"] != "1" {
		t.Errorf("%+v %v", e, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_ = s.hub.Subscriptions(ctx, func(list []appchannel.Subscription) {
		for _, sub := range list {
			want := appchannel.Subscription{Topic: "drop", Group: "g", DeadLetterTopic: "dead", MaxDeliveries: 3, AckWait: time.Minute, Raw: true, OnlyNew: true}
			if sub.Topic == "drop" && !sub.Equal(want) {
				t.Errorf("%+v", sub)
			}
		}
		cancel()
	})
}

// TestServeDrains is an app told to end while a handler runs: the caller gets its answer, new callers are refused, and
// Serve returns without an error.
func TestServeDrains(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	began, release := make(chan struct{}), make(chan struct{})
	stop := s.serve(t, client, sidecast.Handle("slow", func(context.Context, *sidecast.Request) ([]byte, error) {
		close(began)
		<-release
		return []byte("done"), nil
	}))
	answered := make(chan error, 1)
	go func() {
		r, err := s.hub.Invoke(t.Context(), &call.Request{Method: "slow"})
		if err == nil && string(r.Body) != "done" {
			err = errors.New("a wrong answer")
		}
		answered <- err
	}()
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for s.hub.Ready() == nil {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.hub.Invoke(t.Context(), &call.Request{Method: "slow"}); !fault.NotSent(err) {
		t.Error(err)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestServeCutsOff(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	began, canceled := make(chan struct{}), make(chan struct{})
	stop := s.serve(t, client, sidecast.DrainTimeout(time.Millisecond),
		sidecast.Handle("stuck", func(ctx context.Context, _ *sidecast.Request) ([]byte, error) {
			close(began)
			<-ctx.Done()
			close(canceled)
			return nil, ctx.Err()
		}))
	go func() { _, _ = s.hub.Invoke(t.Context(), &call.Request{Method: "stuck"}) }()
	<-began
	if err := stop(); sidecast.ReasonOf(err) != fault.DeadlineExceeded {
		t.Error(err)
	}
	<-canceled
}

// TestServeReconnects is a sidecar that dies and comes back while the app lives on.
func TestServeReconnects(t *testing.T) {
	first := start(t, "")
	client := first.connect(t)
	first.serve(t, client, sidecast.Handle("echo", echo))
	first.stop()
	if _, err := client.Invoke(t.Context(), "any", "echo", nil); sidecast.KindOf(err) != fault.Unavailable || sidecast.ReasonOf(err) != fault.SidecarLost {
		t.Errorf("without a sidecar: %v", err)
	}
	second := start(t, first.address)
	for deadline := time.Now().Add(20 * time.Second); second.hub.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the app never came back")
		}
	}
	if r, err := client.Invoke(t.Context(), "any", "echo", []byte("x")); err != nil || string(r.Data) != "x" {
		t.Errorf("%v %v", r, err)
	}
}

func TestServeBounds(t *testing.T) {
	const limit = 7
	s := start(t, "")
	client := s.connect(t)
	var now, most atomic.Int32
	s.serve(t, client, sidecast.Concurrency(limit), sidecast.Handle("count", func(context.Context, *sidecast.Request) ([]byte, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		return nil, nil
	}))
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			for range 10 {
				if _, err := s.hub.Invoke(t.Context(), &call.Request{Method: "count"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if most.Load() > limit {
		t.Errorf("%d handlers at a time, allowed are %d", most.Load(), limit)
	}
}

func TestServeRefusesContradictions(t *testing.T) {
	for name, handlers := range map[string][]sidecast.Handler{
		"two of a name":  {sidecast.Handle("a", echo), sidecast.Handle("a", echo)},
		"no name":        {sidecast.Handle("", echo)},
		"no topic":       {sidecast.OnEvent("", func(context.Context, *sidecast.Event) error { return nil })},
		"no concurrency": {sidecast.Concurrency(0)},
	} {
		if err := sidecast.Serve(t.Context(), handlers...); sidecast.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServeLargeBodies(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	s.serve(t, client, sidecast.Handle("echo", echo))
	body := make([]byte, 20<<20)
	rand.Read(body)
	r, err := client.Invoke(t.Context(), "any", "echo", body)
	if err != nil || !bytes.Equal(r.Data, body) {
		t.Errorf("%v", err)
	}
}

func TestServeEventsOnly(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	s.serve(t, client, sidecast.OnEvent("a", func(context.Context, *sidecast.Event) error { return nil }))
	_, err := client.Invoke(t.Context(), "any", "echo", nil)
	if sidecast.ReasonOf(err) != fault.HandlerNotFound || !strings.Contains(err.Error(), "no handler of that name") {
		t.Error(err)
	}
}
