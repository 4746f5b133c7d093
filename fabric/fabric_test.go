package fabric_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		os.Exit(runChild(role))
	}
	goleak.VerifyTestMain(m)
}

// handler is a Handler of two functions.
type handler struct {
	call   func(ctx context.Context, req *call.Request) (*call.Response, error)
	stream func(ctx context.Context, req *call.Request, s call.ServerStream) error
}

func (h handler) ServeCall(ctx context.Context, req *call.Request) (*call.Response, error) {
	if h.call == nil {
		return &call.Response{Header: req.Header, ContentType: req.ContentType, Body: req.Body}, nil
	}
	return h.call(ctx, req)
}

func (h handler) ServeStream(ctx context.Context, req *call.Request, s call.ServerStream) error {
	if h.stream == nil {
		return echo(ctx, s)
	}
	return h.stream(ctx, req, s)
}

func echo(ctx context.Context, s call.ServerStream) error {
	for {
		chunk, err := s.Recv(ctx)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = s.Send(ctx, chunk)
		}
		if err != nil {
			return err
		}
	}
}

// within is a context that ends when something that should be quick is not.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func config(dir, app, instance string) fabric.Config {
	c := fabric.Config{Namespace: "test", AppID: app, Instance: instance, Dir: dir}
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("app", app, "instance", instance)
	}
	return c
}

func open(t testing.TB, c fabric.Config) *fabric.Fabric {
	t.Helper()
	f, err := fabric.Open(within(t), c)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { shut(t, f) })
	return f
}

func shut(t testing.TB, f *fabric.Fabric) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// pair is a host with app "a" and a guest with app "b" that serves h.
func pair(t testing.TB, h fabric.Handler, change ...func(*fabric.Config)) (a, b *fabric.Fabric) {
	t.Helper()
	dir := t.TempDir()
	ca, cb := config(dir, "a", "a1"), config(dir, "b", "b1")
	for _, c := range change {
		c(&ca)
		c(&cb)
	}
	a, b = open(t, ca), open(t, cb)
	if a.Describe() != "embedded host" || b.Describe() != "embedded guest" {
		t.Fatalf("roles are %q and %q", a.Describe(), b.Describe())
	}
	serve(t, b, h)
	return a, b
}

func serve(t testing.TB, f *fabric.Fabric, h fabric.Handler) {
	t.Helper()
	if err := f.Serve(h); err != nil {
		t.Fatalf("Serve: %v", err)
	}
	f.Announce(fabric.Instance{Ready: true})
}

var b1 = fabric.Target{App: "b", Instance: "b1"}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func wantReason(t testing.TB, err error, want fault.Reason) {
	t.Helper()
	if got := fault.ReasonOf(err); got != want {
		t.Fatalf("error is %v with reason %q, want %q", err, got, want)
	}
}

func body(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func TestCallCarriesEverything(t *testing.T) {
	got := make(chan *call.Request, 1)
	a, _ := pair(t, handler{call: func(_ context.Context, req *call.Request) (*call.Response, error) {
		got <- req
		return &call.Response{Status: 207, ContentType: "text/plain; charset=utf-8", Body: []byte("answer"),
			Header: call.Header{{Key: "x-one", Value: "1"}, {Key: "x-one", Value: " 2\r\n"}, {Key: "leer", Value: ""}}}, nil
	}})
	header := call.Header{{Key: "traceparent", Value: "00-4bf92f-01"}, {Key: "baggage", Value: "a=b&c=%d e"}, {Key: "x=&%", Value: "=ü\x00"}, {Key: "x", Value: ""}}
	resp, err := a.Call(within(t), b1, &call.Request{App: "ignored", Caller: "forged", Method: "v1/orders & more", Verb: "GET",
		Query: "a=1&b=%20", ContentType: "application/json", Header: header, Body: []byte(`{"n":1}`), Idempotent: true})
	if err != nil {
		t.Fatal(err)
	}
	req := <-got
	if req.App != "b" || req.Caller != "a" || req.Method != "v1/orders & more" || req.Verb != "GET" || req.Query != "a=1&b=%20" ||
		req.ContentType != "application/json" || string(req.Body) != `{"n":1}` || !req.Idempotent || fmt.Sprint(req.Header) != fmt.Sprint(header) {
		t.Errorf("request came as %+v", req)
	}
	if resp.Status != 207 || resp.ContentType != "text/plain; charset=utf-8" || string(resp.Body) != "answer" ||
		fmt.Sprintf("%q", resp.Header) != `[{"x-one" "1"} {"x-one" " 2\r\n"} {"leer" ""}]` {
		t.Errorf("response came as %+v", resp)
	}
}

func TestCallToOneself(t *testing.T) {
	_, b := pair(t, handler{})
	resp, err := b.Call(within(t), b1, &call.Request{Method: "m", Body: []byte("x")})
	if err != nil || string(resp.Body) != "x" {
		t.Fatalf("%v %v", resp, err)
	}
}

func TestStrangeNames(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, config(dir, "a.*", "über 1")), open(t, config(dir, "b >", "1.2"))
	caller := make(chan string, 1)
	serve(t, b, handler{call: func(_ context.Context, req *call.Request) (*call.Response, error) {
		caller <- req.Caller
		return nil, nil
	}})
	if _, err := a.Call(within(t), fabric.Target{App: "b >", Instance: "1.2"}, &call.Request{Method: "m"}); err != nil {
		t.Fatal(err)
	}
	if got := <-caller; got != "a.*" {
		t.Errorf("caller is %q", got)
	}
	eventually(t, "presence of a strange name", func() bool { return len(a.Instances("b >")) == 1 })
}

func TestFaultsCrossExactly(t *testing.T) {
	cause := errors.New("the pricing table has 3 & no more = rows\nsecond line")
	sent := map[string]error{
		"fault":   fault.New("price widget", fault.QueueFull, "%w", cause).After(1500*time.Millisecond).With("lane", "app/x & y").With("empty", ""),
		"kind":    fault.E("op", fault.Tripped, fault.Reason("MADE_UP"), nil),
		"wrapped": fmt.Errorf("around: %w", fault.New("op", fault.ETagMismatch, "inner")),
		"plain":   errors.New("plain"),
		"timeout": context.DeadlineExceeded,
	}
	a, _ := pair(t, handler{call: func(_ context.Context, req *call.Request) (*call.Response, error) { return nil, sent[req.Method] },
		stream: func(_ context.Context, req *call.Request, _ call.ServerStream) error { return sent[req.Method] }})
	check := func(t *testing.T, name string, err error) {
		t.Helper()
		want := sent[name]
		var e *fault.Error
		if !errors.As(want, &e) {
			if fault.KindOf(err) != fault.KindOf(want) || !strings.Contains(err.Error(), want.Error()) {
				t.Errorf("%s came as %v", name, err)
			}
			return
		}
		var got *fault.Error
		if !errors.As(err, &got) || got.Kind != e.Kind || got.Reason != e.Reason || got.RetryAfter != e.RetryAfter ||
			fmt.Sprint(got.Meta) != fmt.Sprint(e.Meta) || fault.NotSent(err) != fault.NotSent(want) {
			t.Errorf("%s came as %#v, want %#v", name, got, e)
		}
		if !strings.HasPrefix(err.Error(), want.Error()) {
			t.Errorf("%s says %q, want %q", name, err, want)
		}
	}
	for name := range sent {
		_, err := a.Call(within(t), b1, &call.Request{Method: name})
		check(t, name, err)
		s, err := a.Stream(within(t), b1, &call.Request{Method: name})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv(within(t))
		check(t, name, err)
		_, err = s.Header(within(t))
		check(t, name, err)
		s.Close()
	}
}

func TestNobodyListens(t *testing.T) {
	a, b := pair(t, handler{})
	eventually(t, "b is known", func() bool { return len(a.Instances("b")) == 1 })
	_, err := a.Call(within(t), fabric.Target{App: "b", Instance: "nobody"}, &call.Request{Method: "m"})
	wantReason(t, err, fault.NoResponders)
	if !fault.NotSent(err) {
		t.Error("no responders must mean not sent")
	}
	s, err := a.Stream(within(t), fabric.Target{App: "b", Instance: "nobody"}, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Recv(within(t))
	wantReason(t, err, fault.NoResponders)
	_, err = a.Call(within(t), fabric.Target{App: "b", Instance: "nobody"}, &call.Request{Method: "m", Body: body(3 << 20)})
	wantReason(t, err, fault.NoResponders)

	// A registered instance whose subscription is gone is ejected by the first call.
	shut(t, b)
	dir := t.TempDir()
	c, d := open(t, config(dir, "c", "c1")), open(t, config(dir, "d", "d1"))
	d.Announce(fabric.Instance{})
	eventually(t, "d is known", func() bool { return len(c.Instances("d")) == 1 })
	_, err = c.Call(within(t), fabric.Target{App: "d", Instance: "d1"}, &call.Request{Method: "m"})
	wantReason(t, err, fault.NoResponders)
}

func TestDeadlineTravels(t *testing.T) {
	left := make(chan time.Duration, 1)
	a, _ := pair(t, handler{call: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		if req.Method == "hang" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, nil
	}})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := a.Call(ctx, b1, &call.Request{Method: "m"}); err != nil {
		t.Fatal(err)
	}
	if got := <-left; got > 30*time.Second || got < 20*time.Second {
		t.Errorf("%v left of 30 s", got)
	}
	var short context.Context
	var err error
	for wait, late := 50*time.Millisecond, true; late; wait *= 2 { // until the machine is quick enough to send it in time
		short, cancel = context.WithTimeout(context.Background(), wait)
		defer cancel()
		_, err = a.Call(short, b1, &call.Request{Method: "hang"})
		late = fault.ReasonOf(err) == fault.BudgetSpent
	}
	if fault.KindOf(err) != fault.Timeout || fault.NotSent(err) {
		t.Errorf("a call whose deadline passed failed with %v", err)
	}
	_, err = a.Call(short, b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.BudgetSpent)
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = a.Call(canceled, b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.CallCanceled)
}

func TestCancellationReachesTheHandler(t *testing.T) {
	began, ended := make(chan struct{}, 8), make(chan error, 8)
	hang := func(ctx context.Context) error {
		began <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	a, _ := pair(t, handler{
		call:   func(ctx context.Context, _ *call.Request) (*call.Response, error) { return nil, hang(ctx) },
		stream: func(ctx context.Context, _ *call.Request, _ call.ServerStream) error { return hang(ctx) },
	})
	for name, do := range map[string]func(context.Context) error{
		"call": func(ctx context.Context) error { _, err := a.Call(ctx, b1, &call.Request{Method: "m"}); return err },
		"large": func(ctx context.Context) error {
			_, err := a.Call(ctx, b1, &call.Request{Method: "m", Body: body(2 << 20)})
			return err
		},
		"stream": func(ctx context.Context) error {
			s, err := a.Stream(ctx, b1, &call.Request{Method: "m"})
			if err != nil {
				return err
			}
			defer s.Close()
			_, err = s.Recv(context.Background())
			return err
		},
	} {
		ctx, cancel := context.WithCancel(within(t))
		done := make(chan error, 1)
		go func() { done <- do(ctx) }()
		select {
		case <-began:
		case err := <-done:
			t.Fatalf("%s: failed before it began: %v", name, err)
		}
		cancel()
		if err := <-done; fault.KindOf(err) != fault.Canceled {
			t.Errorf("%s: cancelled call failed with %v", name, err)
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the handler was not cancelled", name)
		}
	}
	// Close of a stream is enough, too.
	s, err := a.Stream(within(t), b1, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	<-began
	s.Close()
	<-ended
	if waiting := a.Stats().Waiting; waiting != 0 {
		t.Errorf("%d exchanges still wait", waiting)
	}
}

func TestPanicIsContained(t *testing.T) {
	a, b := pair(t, handler{call: func(_ context.Context, req *call.Request) (*call.Response, error) { panic("boom") },
		stream: func(context.Context, *call.Request, call.ServerStream) error { panic("boom") }})
	_, err := a.Call(within(t), b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.Panicked)
	s, err := a.Stream(within(t), b1, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Recv(within(t))
	wantReason(t, err, fault.Panicked)
	eventually(t, "nothing runs", func() bool { return b.Stats().Running == 0 })
}

func TestLeaveRefusesNewAndFinishesRunning(t *testing.T) {
	began, finish := make(chan struct{}), make(chan struct{})
	a, b := pair(t, handler{call: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		close(began)
		<-finish
		return &call.Response{Body: []byte("done")}, nil
	}})
	eventually(t, "b is known", func() bool { return len(a.Instances("b")) == 1 })
	running := make(chan error, 1)
	go func() {
		resp, err := a.Call(within(t), b1, &call.Request{Method: "m"})
		if err == nil && string(resp.Body) != "done" {
			err = fmt.Errorf("answer %q", resp.Body)
		}
		running <- err
	}()
	<-began
	brief, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := b.Leave(brief); fault.KindOf(err) != fault.Timeout {
		t.Fatalf("Leave with a call running: %v", err)
	}
	eventually(t, "b has left", func() bool { return len(a.Instances("b")) == 0 })
	_, err := a.Call(within(t), b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.Shutdown)
	if !fault.NotSent(err) {
		t.Error("a refused call was not sent")
	}
	s, err := a.Stream(within(t), b1, &call.Request{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = s.Recv(within(t))
	wantReason(t, err, fault.Shutdown)
	close(finish)
	if err := b.Leave(within(t)); err != nil {
		t.Errorf("Leave: %v", err)
	}
	if err := <-running; err != nil {
		t.Errorf("the running call: %v", err)
	}
}

func TestConcurrentCalls(t *testing.T) {
	var served atomic.Int64
	a, b := pair(t, handler{call: func(_ context.Context, req *call.Request) (*call.Response, error) {
		served.Add(1)
		return &call.Response{Body: req.Body}, nil
	}})
	const callers, each = 32, 100
	errs := make(chan error, callers)
	for i := range callers {
		go func() {
			for n := range each {
				want := fmt.Sprintf("%d/%d", i, n)
				resp, err := a.Call(within(t), b1, &call.Request{Method: "m", Body: []byte(want)})
				if err == nil && string(resp.Body) != want {
					err = fmt.Errorf("answer %q to %q", resp.Body, want)
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if served.Load() != callers*each {
		t.Errorf("%d calls were served, want %d", served.Load(), callers*each)
	}
	if a.Stats().Waiting != 0 {
		t.Errorf("stats: %+v", a.Stats())
	}
	eventually(t, "nothing runs", func() bool { return b.Stats().Running == 0 })
}

func TestTooManyRunningCallsAreRefused(t *testing.T) {
	release := make(chan struct{})
	a, b := pair(t, handler{call: func(context.Context, *call.Request) (*call.Response, error) {
		<-release
		return nil, nil
	}})
	const limit = 8192
	done := make(chan error, limit)
	for range limit {
		go func() {
			_, err := a.Call(within(t), b1, &call.Request{Method: "m"})
			done <- err
		}()
	}
	eventually(t, "all run", func() bool { return b.Stats().Running == limit })
	_, err := a.Call(within(t), b1, &call.Request{Method: "m"})
	wantReason(t, err, fault.FabricBusy)
	if fault.RetryAfter(err) <= 0 || !fault.NotSent(err) {
		t.Errorf("a busy sidecar said %v", err)
	}
	close(release)
	for range limit {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}
