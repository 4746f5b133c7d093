package appchanneltest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// Fixture is a channel and the app behind it.
type Fixture struct {
	Channel appchannel.Channel
	// Kill ends the app without a word; Restart starts it again.
	Kill, Restart func()
	// Garbage makes ready to answer the method Garbage; may be nil.
	Garbage func()
	// Statuses says that handlers fail by an HTTP status, which is an answer and not an error of the channel.
	Statuses bool
	// Codes says that handlers fail by a gRPC code alone: kinds of one code are one, there is no reason, and a method that
	// the app does not have is a failure like any other.
	Codes bool
	// Listed is a subscription of the app's as its protocol can say it; nil when it can say all.
	Listed func(appchannel.Subscription) appchannel.Subscription
}

// Open makes a Fixture whose app takes work, or will soon. It cleans up after the test, the channel included.
type Open func(t *testing.T, app *App) Fixture

// Run checks everything that Channel promises.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, *suite){
		"Invoke": testInvoke, "Errors": testErrors, "Panic": testPanic, "Deadline": testDeadline, "Cancel": testCancel,
		"Garbage": testGarbage, "Kill": testKill, "Concurrent": testConcurrent, "Large": testLarge, "Events": testEvents,
		"Streams": testStreams, "StreamEnds": testStreamEnds, "StreamKill": testStreamKill, "Close": testClose,
	} {
		t.Run(name, func(t *testing.T) {
			app := newApp()
			s := &suite{Fixture: open(t, app), app: app}
			s.awaitReady(t)
			test(t, s)
		})
	}
}

type suite struct {
	Fixture
	app *App
}

// patience is how long the suite waits for what must come; only a failure takes so long.
const patience = time.Minute

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (s *suite) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "the channel is ready", func() bool { return s.Channel.Ready() == nil })
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func receive(t *testing.T, from <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-from:
	case <-time.After(patience):
		t.Fatalf("never: %s", what)
	}
}

// works fails the test unless the app answers.
func (s *suite) works(t *testing.T) {
	t.Helper()
	response, err := s.Channel.Invoke(within(t), &call.Request{Method: Echo, Body: []byte("still there?")})
	if err != nil || string(response.Body) != "still there?" {
		t.Fatalf("the channel no longer works: %v %v", response, err)
	}
}

func check(t *testing.T, err error, kind fault.Kind, notSent bool) {
	t.Helper()
	if fault.KindOf(err) != kind || fault.NotSent(err) != notSent {
		t.Errorf("want %s (not sent: %t), got %s (not sent: %t): %v", kind, notSent, fault.KindOf(err), fault.NotSent(err), err)
	}
}

func testInvoke(t *testing.T, s *suite) {
	for _, body := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("1 KiB "), 170)} {
		response, err := s.Channel.Invoke(within(t), &call.Request{
			Method: Echo, Caller: "tester", Verb: "PUT", Query: "a=1&b=2", ContentType: "text/plain", Body: body,
			Header: call.Header{{Key: "x-one", Value: "1"}, {Key: "x-two", Value: "zwei"}, {Key: "y-three", Value: "3"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(response.Body, body) || response.ContentType != "text/plain" {
			t.Errorf("body %q, type %q", response.Body, response.ContentType)
		}
		h := response.Header
		if h.Get("x-one") != "1" || h.Get("x-two") != "zwei" || h.Get("y-three") != "" || h.Get("x-seen") != "tester PUT a=1&b=2" {
			t.Errorf("header %v", h)
		}
	}
}

func testErrors(t *testing.T, s *suite) {
	for _, kind := range fault.Kinds() {
		response, err := s.Channel.Invoke(within(t), &call.Request{
			Method: Fail, Header: call.Header{{Key: "x-kind", Value: kind.String()}, {Key: "x-reason", Value: "SOLD_OUT"}},
		})
		if s.Statuses {
			if err != nil || response.Status != kind.HTTP() {
				t.Errorf("%s: %v %v", kind, response, err)
			}
			continue
		}
		if s.Codes {
			if got := fault.KindOf(err); err == nil || got.GRPC() != kind.GRPC() || fault.NotSent(err) {
				t.Errorf("%s: %v", kind, err)
			}
			continue
		}
		check(t, err, kind, false)
		if fault.ReasonOf(err) != "SOLD_OUT" {
			t.Errorf("%s: reason %s", kind, fault.ReasonOf(err))
		}
	}
	if s.Statuses {
		return
	}
	// What a handler says of a call that it made itself must not be taken for the fate of this one.
	_, err := s.Channel.Invoke(within(t), &call.Request{
		Method: Fail, Header: call.Header{{Key: "x-kind", Value: "unavailable"}, {Key: "x-reason", Value: string(fault.AppNotFound)}},
	})
	check(t, err, fault.Unavailable, false)
	_, err = s.Channel.Invoke(within(t), &call.Request{Method: "nobody"})
	check(t, err, fault.NotFound, !s.Codes)
}

func testPanic(t *testing.T, s *suite) {
	for range 3 {
		response, err := s.Channel.Invoke(within(t), &call.Request{Method: Panic})
		if err == nil && response.Status < 500 {
			t.Error("a panic was an answer")
		}
		if fault.NotSent(err) {
			t.Errorf("claims not to have been sent: %v", err)
		}
	}
	s.works(t)
}

func testDeadline(t *testing.T, s *suite) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.Channel.Invoke(ctx, &call.Request{Method: Hang})
	check(t, err, fault.Timeout, false)
	receive(t, s.app.Canceled, "the app learns that its time is up")

	<-ctx.Done() // the app's own clock may have been ahead
	_, err = s.Channel.Deliver(ctx, &appchannel.Event{PubSub: "bus", Topic: "orders", Route: "on-orders", Data: []byte("x")})
	check(t, err, fault.Timeout, true)
	s.works(t)
}

func testCancel(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-s.app.Started; cancel() }()
	_, err := s.Channel.Invoke(ctx, &call.Request{Method: Hang})
	check(t, err, fault.Canceled, false)
	receive(t, s.app.Canceled, "the app learns that its caller has gone")
	s.works(t)
}

func testGarbage(t *testing.T, s *suite) {
	if s.Fixture.Garbage != nil {
		s.Fixture.Garbage()
	}
	_, err := s.Channel.Invoke(within(t), &call.Request{Method: Garbage})
	if kind := fault.KindOf(err); kind != fault.Internal && kind != fault.Unavailable || fault.NotSent(err) {
		t.Errorf("garbage was taken for %v", err)
	}
	eventually(t, "the channel works after garbage", func() bool {
		_, err := s.Channel.Invoke(within(t), &call.Request{Method: Echo})
		return err == nil
	})
}

func testKill(t *testing.T, s *suite) {
	lists := make(chan []appchannel.Subscription, 16)
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan error, 1)
	go func() {
		watched <- s.Channel.Subscriptions(ctx, func(list []appchannel.Subscription) { lists <- list })
	}()
	wanted := func(listed appchannel.Subscription) bool {
		want := s.app.Subscriptions()[0]
		if s.Listed != nil {
			want = s.Listed(want)
		}
		want.Route = listed.Route // some transports route by topic
		return listed.Equal(want)
	}
	awaitList := func() {
		t.Helper()
		for deadline := time.After(patience); ; {
			select {
			case list := <-lists:
				if slices.ContainsFunc(list, wanted) {
					return
				}
			case <-deadline:
				t.Fatal("the app's subscriptions never came")
			}
		}
	}
	awaitList()

	failed := make(chan error, 1)
	go func() {
		_, err := s.Channel.Invoke(within(t), &call.Request{Method: Hang})
		failed <- err
	}()
	receive(t, s.app.Started, "the call is at work")
	s.Kill()
	check(t, <-failed, fault.Unavailable, false)
	eventually(t, "the channel says that nothing was sent", func() bool {
		_, err := s.Channel.Invoke(within(t), &call.Request{Method: Echo, Body: []byte("x")})
		return fault.KindOf(err) == fault.Unavailable && fault.NotSent(err)
	})
	eventually(t, "the channel is no longer ready", func() bool { return s.Channel.Ready() != nil })

	next := s.app.Subscriptions()[0]
	next.Topic += "-of-the-next-version"
	s.app.Subscribe(next)
	s.Restart()
	s.awaitReady(t)
	s.works(t)
	awaitList()
	cancel()
	if err := <-watched; err != nil {
		t.Errorf("Subscriptions ended with %v", err)
	}
}

func testConcurrent(t *testing.T, s *suite) {
	const callers, calls = 1000, 3
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			for j := range calls {
				want := fmt.Sprintf("%d/%d", i, j)
				response, err := s.Channel.Invoke(within(t), &call.Request{Method: Echo, Body: []byte(want)})
				if err != nil || string(response.Body) != want {
					t.Errorf("%s: %v %v", want, response, err)
					return
				}
			}
		})
	}
	group.Wait()
}

func testLarge(t *testing.T, s *suite) {
	body := make([]byte, 3<<20)
	rand.Read(body)
	response, err := s.Channel.Invoke(within(t), &call.Request{Method: Echo, Body: body})
	if err != nil || !bytes.Equal(response.Body, body) {
		t.Fatalf("%d bytes: %v", len(body), err)
	}
}

func testEvents(t *testing.T, s *suite) {
	event := appchannel.Event{
		ID: "e1", PubSub: "bus", Topic: "orders", Route: "on-orders", Source: "tester", Type: "order", Key: "k",
		Time: time.Now(), ContentType: "text/plain", Delivery: 2, Header: call.Header{{Key: "x-one", Value: "1"}},
	}
	for data, want := range map[string]appchannel.Verdict{"x": appchannel.Success, "retry": appchannel.Retry, "drop": appchannel.Drop} {
		event.Data = []byte(data)
		outcome, err := s.Channel.Deliver(within(t), &event)
		if err != nil || outcome.Verdict != want {
			t.Errorf("%s: %+v %v", data, outcome, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-s.app.Started; cancel() }()
	event.Data = []byte("hang")
	_, err := s.Channel.Deliver(ctx, &event)
	check(t, err, fault.Canceled, false)
	receive(t, s.app.Canceled, "the app learns that nobody waits for the event")
}

func testStreams(t *testing.T, s *suite) {
	var group sync.WaitGroup
	for _, size := range []int{0, 1, 1000, 300 << 10, 5 << 20} {
		group.Go(func() {
			body := make([]byte, size)
			rand.Read(body)
			p := newPeer(bytes.NewReader(body))
			err := s.Channel.Stream(within(t), &call.Request{Method: StreamEcho}, p)
			if err != nil || !bytes.Equal(p.answer.Bytes(), body) {
				t.Errorf("%d bytes: %d came back: %v", size, p.answer.Len(), err)
			}
			if p.answers != 1 {
				t.Errorf("%d bytes: %d headers", size, p.answers)
			}
		})
	}
	group.Wait()
}

func testStreamEnds(t *testing.T, s *suite) {
	t.Run("the app ends early", func(t *testing.T) {
		p := newPeer(endless{})
		if err := s.Channel.Stream(within(t), &call.Request{Method: StreamEarly}, p); err != nil || p.answer.String() != "enough" {
			t.Errorf("%q: %v", p.answer.String(), err)
		}
	})
	t.Run("the app fails", func(t *testing.T) {
		p := newPeer(endless{})
		err := s.Channel.Stream(within(t), &call.Request{
			Method: StreamFail, Header: call.Header{{Key: "x-kind", Value: "denied"}, {Key: "x-reason", Value: "SOLD_OUT"}},
		}, p)
		if s.Statuses {
			if err != nil || p.header.Status != fault.Denied.HTTP() {
				t.Errorf("%v %v", p.header, err)
			}
			return
		}
		check(t, err, fault.Denied, false)
	})
	t.Run("the peer breaks off its request", func(t *testing.T) {
		broken := fault.New("peer", fault.StreamBroken, "as the suite asked")
		p := newPeer(io.MultiReader(bytes.NewReader(make([]byte, 1000)), failing{broken}))
		if err := s.Channel.Stream(within(t), &call.Request{Method: StreamEcho}, p); fault.ReasonOf(err) != fault.StreamBroken {
			t.Error(err)
		}
	})
	t.Run("the peer refuses the answer", func(t *testing.T) {
		p := newPeer(endless{})
		p.refuse = fault.New("peer", fault.StreamBroken, "as the suite asked")
		if err := s.Channel.Stream(within(t), &call.Request{Method: StreamEcho}, p); fault.ReasonOf(err) != fault.StreamBroken {
			t.Error(err)
		}
	})
	t.Run("the caller goes away", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-s.app.Started; cancel() }()
		err := s.Channel.Stream(ctx, &call.Request{Method: StreamHang}, newPeer(endless{}))
		if fault.KindOf(err) != fault.Canceled {
			t.Error(err)
		}
		receive(t, s.app.Canceled, "the app learns that its caller has gone")
	})
	s.works(t)
}

func testStreamKill(t *testing.T, s *suite) {
	failed := make(chan error, 1)
	go func() {
		failed <- s.Channel.Stream(within(t), &call.Request{Method: StreamHang}, newPeer(endless{}))
	}()
	receive(t, s.app.Started, "the stream is at work")
	s.Kill()
	check(t, <-failed, fault.Unavailable, false)
}

func testClose(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	failed, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.Channel.Invoke(ctx, &call.Request{Method: Hang})
		failed <- err
	}()
	receive(t, s.app.Started, "the call is at work")
	go func() { closed <- s.Channel.Close(within(t)) }()
	eventually(t, "new work is refused", func() bool {
		_, err := s.Channel.Invoke(within(t), &call.Request{Method: Echo})
		return fault.ReasonOf(err) == fault.Shutdown
	})
	select {
	case err := <-closed:
		t.Fatalf("closed while a call was at work: %v", err)
	default:
	}
	if s.Channel.Ready() == nil {
		t.Error("ready after Close")
	}
	cancel()
	check(t, <-failed, fault.Canceled, false)
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := s.Channel.Close(within(t)); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// peer is the far end of a stream: it sends what a reader holds and keeps what it is sent.
type peer struct {
	request io.Reader
	refuse  error
	answers int
	header  *call.Response
	answer  bytes.Buffer
}

func newPeer(request io.Reader) *peer { return &peer{request: request, header: &call.Response{}} }

func (p *peer) Recv(ctx context.Context) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, fault.FromContext("peer", ctx, "nothing")
	}
	chunk := make([]byte, 10_000)
	n, err := p.request.Read(chunk)
	if n == 0 && err == nil { // an endless request: nothing more for now
		<-ctx.Done()
		return nil, fault.FromContext("peer", ctx, "more")
	}
	if n > 0 {
		return chunk[:n], nil
	}
	return nil, err
}

func (p *peer) Send(ctx context.Context, chunk []byte) error {
	if p.refuse != nil {
		return p.refuse
	}
	if p.answers == 0 {
		p.answers = 1
	}
	p.answer.Write(chunk)
	return ctx.Err()
}

func (p *peer) Answer(_ context.Context, header *call.Response) error {
	p.answers++
	p.header = header
	return nil
}

// endless is a request of many bytes.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
