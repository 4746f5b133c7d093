package blocks

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// scripted is the far end of an attempt: it takes what is sent until more than most bytes came, and then fails.
type scripted struct {
	most   int
	got    []byte
	failed chan struct{}
}

var notBegun = fault.New("call", fault.NoResponders, "nobody there")

func (s *scripted) Send(_ context.Context, data []byte) error {
	s.got = append(s.got, data...)
	if len(s.got) > s.most {
		close(s.failed)
		return notBegun
	}
	return nil
}
func (s *scripted) Header(ctx context.Context) (*call.Response, error) {
	<-s.failed
	return nil, notBegun
}
func (s *scripted) Recv(context.Context) ([]byte, error) { return nil, notBegun }
func (s *scripted) CloseSend(context.Context) error      { return nil }
func (s *scripted) Close()                               {}

func TestStreamIsNotTriedAgainWhenItsBeginningIsGone(t *testing.T) {
	up := &upload{frames: make(chan uploaded, 2)}
	for _, attempt := range []struct {
		chunk, sent int
		again       bool
	}{
		{chunk: maxReplay - pieceCost, sent: maxReplay - pieceCost, again: true},
		{chunk: 1, sent: maxReplay - pieceCost + 1, again: false}, // more than may be kept
	} {
		up.frames <- uploaded{data: make([]byte, attempt.chunk)}
		to := &scripted{most: attempt.sent - 1, failed: make(chan struct{})}
		err := up.attempt(t.Context(), to, Exchange{})
		if len(to.got) != attempt.sent {
			t.Errorf("%d bytes were sent, want %d", len(to.got), attempt.sent)
		}
		if again := fault.NotSent(err); again != attempt.again || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("after %d bytes: may be made again: %v; %v", attempt.sent, again, err)
		}
	}
}

// ended is the far end of a stream whose answer is whole.
type ended struct{ head call.Response }

func (e *ended) Send(context.Context, []byte) error             { return nil }
func (e *ended) Header(context.Context) (*call.Response, error) { return &e.head, nil }
func (e *ended) Recv(context.Context) ([]byte, error)           { return nil, io.EOF }
func (e *ended) CloseSend(context.Context) error                { return nil }
func (e *ended) Close()                                         {}

// The lane hears of a call that failed though its answer came whole, and the caller does not hear of it twice.
func TestLanesHearWhatAnswersSay(t *testing.T) {
	inBody := fault.New("proxy", fault.InstanceLost, "said in the body")
	for name, c := range map[string]struct {
		status int
		body   error
		want   fault.Kind
	}{
		"a success":                {status: 204},
		"an answer with no status": {},
		"a failure of the server":  {status: 503, want: fault.Unavailable},
		"a failure in the body":    {status: 200, body: inBody, want: inBody.Kind},
	} {
		up := &upload{frames: make(chan uploaded, 1)}
		broken := errors.New("the caller's request broke off")
		up.frames <- uploaded{err: broken}
		err := up.attempt(t.Context(), &ended{call.Response{Status: c.status}}, Exchange{
			Header: func(*call.Response) error { return nil }, Failure: func() error { return c.body },
		})
		var told toldFailure
		if fault.KindOf(err) != c.want || errors.As(err, &told) != (c.want != fault.None) || fault.NotSent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// room keeps so many bytes.
type room struct{ left, kept int64 }

func (r *room) Take(context.Context, int64) error { return nil }
func (r *room) Keep(bytes int64) bool {
	if bytes > r.left {
		return false
	}
	r.left, r.kept = r.left-bytes, r.kept+bytes
	return true
}
func (r *room) Drop() { r.left, r.kept = r.left+r.kept, 0 }

// What is kept of a request takes room beyond the first of it, and when there is none no attempt follows.
func TestRequestsAreKeptAsLongAsThereIsRoom(t *testing.T) {
	r := &room{left: 3 * maxReplay}
	up := &upload{bound: ToHead, room: r}
	frame := uploaded{data: make([]byte, maxReplay-pieceCost)}
	failed := fault.New("call", fault.InstanceLost, "gone")
	for i, kept := range []int64{0, 1, 2, 3, 0, 0} {
		up.keep(frame)
		if r.kept != kept*maxReplay || up.spent.Load() != (i > 3) || (len(up.taken) == 0) != (i > 3) {
			t.Errorf("after %d pieces %d bytes are kept, and %d pieces", i+1, r.kept, len(up.taken))
		}
		var final resiliency.Final
		if err := up.judge(failed); errors.As(err, &final) != (i > 3) || !errors.Is(err, failed) {
			t.Errorf("after %d pieces: %v", i+1, err)
		}
	}
	lasting := &upload{}
	if err := lasting.judge(failed); !errors.As(err, new(resiliency.Final)) {
		t.Errorf("a stream that broke is made again: %v", err)
	}
	if err := lasting.judge(notBegun); errors.As(err, new(resiliency.Final)) {
		t.Errorf("a stream that never began is not made again: %v", err)
	}
}

// Once the answer has begun nothing is kept, also when no more of the request comes; what is being sent again is until it was.
func TestNothingIsKeptOnceTheAnswerHasBegun(t *testing.T) {
	frame := uploaded{data: make([]byte, 2*maxReplay)}
	r := &room{left: 1 << 30}
	up := &upload{bound: ToEnd, room: r}
	up.keep(frame)
	if r.kept == 0 || len(up.taken) != 1 {
		t.Fatal("nothing is kept")
	}
	up.passed(Exchange{Passed: func() (bool, int) { return false, 0 }}) // held back by the front door
	if len(up.taken) != 1 {
		t.Error("it is dropped before the answer has begun")
	}
	up.passed(Exchange{})
	if r.kept != 0 || up.taken != nil || !up.spent.Load() {
		t.Errorf("%d bytes are kept, and %d pieces", r.kept, len(up.taken))
	}
	up.keep(frame)
	if r.kept != 0 || up.taken != nil {
		t.Error("more is kept")
	}

	up = &upload{bound: ToEnd, room: r}
	up.keep(frame)
	up.keep(frame)
	sent := 0
	if done, err := up.again(func(uploaded) (bool, error) {
		up.passed(Exchange{})
		if r.kept == 0 {
			t.Error("what is being sent again takes no room")
		}
		sent++
		return false, nil
	}); done || err != nil || sent != 2 {
		t.Errorf("%d pieces were sent again: %v %v", sent, done, err)
	}
	if r.kept != 0 || up.taken != nil || !up.spent.Load() {
		t.Errorf("after it was sent again, %d bytes are kept, and %d pieces", r.kept, len(up.taken))
	}
}

// What small pieces take counts, and what is left unused behind them.
func TestSmallPiecesTakeNoMoreThanLargeOnes(t *testing.T) {
	for name, c := range map[string]struct {
		piece []byte
		most  int
	}{
		"a few bytes each":              {make([]byte, 5), maxRepeat / pieceCost},
		"a few bytes of a large buffer": {make([]byte, 100, 32<<10), maxRepeat / (32 << 10)},
	} {
		up, kept := &upload{bound: ToEnd, room: &room{left: 1 << 30}}, 0
		for ; !up.spent.Load() && kept <= c.most; kept++ {
			up.keep(uploaded{data: c.piece})
		}
		if kept > c.most {
			t.Errorf("%s: %d pieces are kept", name, kept)
		}
	}
}

// A failure that fits is held back for the lane to decide, and given to the caller where no attempt follows.
func TestFailuresAreHeldBack(t *testing.T) {
	for _, size := range []int{10, maxHeldBack + 1} {
		var got []byte
		status := 0
		x := Exchange{
			Header: func(head *call.Response) error { status = head.Status; return nil },
			Chunk:  func(chunk []byte) error { got = append(got, chunk...); return nil },
		}
		up := &upload{bound: ToHead, frames: make(chan uploaded, 1)}
		up.frames <- uploaded{err: io.EOF}
		err := up.attempt(t.Context(), &failing{ended{call.Response{Status: 503}}, make([]byte, size)}, x)
		held := size <= maxHeldBack
		if fault.KindOf(err) != fault.Unavailable || errors.As(err, new(resiliency.Final)) == held || (status == 0) != held {
			t.Errorf("%d bytes: %v, and the caller got %d", size, err, status)
		}
		if held {
			if up.held == nil || up.held.pass(x) != nil {
				t.Fatal("nothing is held")
			}
		}
		if status != 503 || len(got) != size {
			t.Errorf("the caller got %d and %d bytes of %d", status, len(got), size)
		}
	}
}

// failing is the far end of a stream that answers with a body.
type failing struct {
	ended
	body []byte
}

func (f *failing) Recv(context.Context) ([]byte, error) {
	if f.body == nil {
		return nil, io.EOF
	}
	body := f.body
	f.body = nil
	return body, nil
}

// A call in pieces whose lane's time is up says so, and counts as a failure of its target.
func TestTheTimeOfARelayIsUp(t *testing.T) {
	dir := t.TempDir()
	sidecar(t, dir, "web", &testApp{}, 0)
	for name, bound := range map[string]Bound{"a large body": ToHead, "a proxied call": ToEnd} {
		t.Run(name, func(t *testing.T) {
			caller := sidecar(t, dir, "intake", &testApp{}, 0)
			caller.SetRules(rules(t, `
  policies:
    timeouts: {short: {call: 100ms}}
    circuitBreakers: {quick: {timeout: 1h, trip: consecutiveFailures >= 1}}
  targets: {apps: {web: {timeout: short, circuitBreaker: quick}}}
`))
			over := make(chan struct{})
			defer close(over)
			try := func() error {
				return caller.Invocation.Relay(t.Context(), &call.Request{App: "web", Method: "hang"}, Exchange{
					Bound: bound,
					Next:  func() ([]byte, error) { <-over; return nil, io.EOF }, // until then the app has nothing to echo
				})
			}
			wantReason(t, try(), fault.DeadlineExceeded)
			if s := caller.Invocation.target("web").calls.Status(t.Context()); s.Failed != 1 || s.TimedOut != 1 || s.Breaker != "open" {
				t.Errorf("the lane has %+v", s)
			}
			wantReason(t, try(), fault.BreakerOpen)
		})
	}
}

// streamApp is an app that answers streams as it likes.
type streamApp struct {
	testApp
	stream func(ctx context.Context, req *call.Request, stream call.ServerStream) error
}

func (a *streamApp) Stream(ctx context.Context, req *call.Request, stream call.ServerStream) error {
	return a.stream(ctx, req, stream)
}

// Requests in pieces are made again by the same rule as whole ones, be they short or longer than what is always kept.
func TestRequestsInPiecesAreRepeatedByTheirVerb(t *testing.T) {
	dir := t.TempDir()
	var tries atomic.Int32
	sidecarOf(t, dir, "web", "web-1", &streamApp{stream: func(ctx context.Context, req *call.Request, stream call.ServerStream) error {
		size := 0
		for {
			chunk, err := stream.Recv(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			size += len(chunk)
		}
		status := 503
		if tries.Add(1) == 2 {
			status = 200
		}
		if err := stream.Answer(ctx, &call.Response{Status: status}); err != nil {
			return err
		}
		return stream.Send(ctx, []byte(strconv.Itoa(size)))
	}}, 0, nil, nil)
	shop := sidecar(t, dir, "shop", &testApp{}, 0)
	sees(t, shop, "web")
	for name, spec := range map[string]string{
		"target":    "apps: {web: {retry: safe}}",
		"operation": "apps: {web: {operations: {all: {retry: safe}}}}",
	} {
		shop.SetRules(rules(t, `
  policies: {retries: {safe: {duration: 1ms, maxRetries: 1, nonIdempotent: false}}}
  targets: {`+spec+`}
`))
		for _, c := range []struct {
			verb           string
			pieces, status int
			tries          int32
		}{{"PUT", 1, 200, 2}, {"PUT", 4, 200, 2}, {"POST", 1, 503, 1}, {"GET", 0, 200, 2}} {
			tries.Store(0)
			status, body, left := 0, "", c.pieces
			ctx := call.WithRoom(t.Context(), &room{left: 1 << 30})
			err := shop.Invocation.Relay(ctx, &call.Request{App: "web", Method: "all", Verb: c.verb}, Exchange{
				Bound: ToHead,
				Next: func() ([]byte, error) {
					if left--; left < 0 {
						return nil, io.EOF
					}
					return make([]byte, 32<<10), nil
				},
				Header: func(head *call.Response) error { status = head.Status; return nil },
				Chunk:  func(chunk []byte) error { body += string(chunk); return nil },
			})
			if err != nil || status != c.status || tries.Load() != c.tries || body != strconv.Itoa(c.pieces*32<<10) {
				t.Errorf("%s, %s of %d pieces: %d %q, %v after %d tries", name, c.verb, c.pieces, status, body, err, tries.Load())
			}
		}
	}
}

// An app's own lane has no request in pieces made again that the app was sent: what it took of the stream is gone.
func TestWhatTheAppTookOfAStreamIsNotSentAgain(t *testing.T) {
	dir := t.TempDir()
	var tries atomic.Int32
	web := sidecarOf(t, dir, "web", "web-1", &streamApp{stream: func(ctx context.Context, _ *call.Request, stream call.ServerStream) error {
		if tries.Add(1) == 1 {
			return fault.New("serve", fault.AppUnreachable, "not yet")
		}
		if _, err := stream.Recv(ctx); err != nil {
			return err
		}
		return fault.New("serve", fault.InstanceLost, "it broke off")
	}}, 0, nil, nil)
	shop := sidecar(t, dir, "shop", &testApp{}, 0)
	sees(t, shop, "web")
	web.SetRules(rules(t, `
  policies: {retries: {any: {duration: 1ms, maxRetries: 3}}}
  targets: {app: {retry: any}}
`))
	left := 1
	err := shop.Invocation.Relay(t.Context(), &call.Request{App: "web", Method: "all", Verb: "POST"}, Exchange{
		Bound: ToHead,
		Next: func() ([]byte, error) {
			if left--; left < 0 {
				return nil, io.EOF
			}
			return []byte("whole"), nil
		},
		Header: func(*call.Response) error { return nil },
		Chunk:  func([]byte) error { return nil },
	})
	if fault.ReasonOf(err) != fault.InstanceLost || tries.Load() != 2 {
		t.Errorf("%v after %d tries", err, tries.Load())
	}
}

// What an app is given of time for a stream is up to the beginning of its answer, in its own lane and in that of a rule.
func TestTimeoutsOfTheAppHoldUntilItsStreamIsAnswered(t *testing.T) {
	dir := t.TempDir()
	const bound = time.Second
	web := sidecarOf(t, dir, "web", "web-1", &streamApp{stream: func(ctx context.Context, req *call.Request, stream call.ServerStream) error {
		var err error
		switch req.Method {
		case "all/heads":
			err = stream.Answer(ctx, &call.Response{Status: 200})
		case "all/sends":
			err = stream.Send(ctx, []byte("one "))
		default:
			<-ctx.Done()
			return fault.FromContext("serve", ctx, "the test")
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fault.FromContext("serve", ctx, "the test")
		case <-time.After(bound + bound/2):
			return stream.Send(ctx, []byte("last"))
		}
	}}, 0, nil, nil)
	shop := sidecar(t, dir, "shop", &testApp{}, 0)
	sees(t, shop, "web")
	web.SetRules(rules(t, `
  policies: {timeouts: {short: 1s}}
  targets: {app: {timeout: short, operations: {all/*: {timeout: short}}}}
`))
	var calls sync.WaitGroup
	defer calls.Wait()
	for method, want := range map[string]string{"all/heads": "last", "all/sends": "one last", "all/hangs": "", "hangs": ""} {
		calls.Go(func() {
			body := ""
			err := shop.Invocation.Relay(t.Context(), &call.Request{App: "web", Method: method, Verb: "POST"}, Exchange{
				Bound: ToHead, Next: func() ([]byte, error) { return nil, io.EOF },
				Header: func(*call.Response) error { return nil },
				Chunk:  func(chunk []byte) error { body += string(chunk); return nil },
			})
			if want == "" && fault.ReasonOf(err) != fault.AttemptTimeout || want != "" && (err != nil || body != want) {
				t.Errorf("%s: %q, %v", method, body, err)
			}
		})
	}
}

// A caller who leaves an answer long after its head says nothing of the target, whatever the timeouts.
func TestWhoLeavesARelayBlamesNobody(t *testing.T) {
	dir := t.TempDir()
	sidecarOf(t, dir, "web", "web-1", &streamApp{stream: func(ctx context.Context, _ *call.Request, stream call.ServerStream) error {
		for {
			if err := stream.Send(ctx, []byte("tick")); err != nil {
				return err
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
				return fault.FromContext("serve", ctx, "the test")
			}
		}
	}}, 0, nil, nil)
	shop := sidecar(t, dir, "shop", &testApp{}, 0)
	sees(t, shop, "web")
	shop.SetRules(rules(t, `
  policies:
    timeouts: {short: {call: 200ms}}
    circuitBreakers: {quick: {timeout: 1h, trip: consecutiveFailures >= 1, slowRatio: 50%, slowAfter: 300ms, windowCalls: 1, minCalls: 1}}
  targets: {apps: {web: {timeout: short, circuitBreaker: quick, operations: {all: {timeout: short, circuitBreaker: quick}}}}}
`))
	lanes := shop.Invocation.target("web").calls
	for name, bound := range map[string]Bound{"in pieces": ToHead, "a stream": Lasting, "in messages": ToEnd} {
		for _, cancels := range []bool{true, false} {
			if bound != ToHead && !cancels {
				continue // its messages are read, and may be wrong
			}
			ctx, cancel := context.WithCancel(t.Context())
			late := time.Now().Add(400 * time.Millisecond)
			messages := 0
			err := shop.Invocation.Relay(ctx, &call.Request{App: "web", Method: "all", Verb: "GET"}, Exchange{
				Bound:  bound,
				Next:   func() ([]byte, error) { return nil, io.EOF },
				Header: func(*call.Response) error { return nil },
				Chunk: func([]byte) error {
					switch messages++; {
					case time.Now().Before(late):
					case cancels:
						cancel()
					default:
						return errors.New("write: broken pipe")
					}
					return nil
				},
				Passed: func() (bool, int) { return true, messages },
			})
			cancel()
			if fault.KindOf(err) != fault.Canceled || time.Now().Before(late) {
				t.Errorf("%s, cancels %v: %v", name, cancels, err)
			}
			rule, set := lanes.enter("GET", "all")
			for _, lane := range []*actors.Lane{lanes.Lane, rule.Lane} {
				if s := lane.Status(t.Context()); s.TimedOut != 0 || s.Breaker != "closed" || s.Admitted == 0 {
					t.Errorf("%s, cancels %v: the lane %s has %+v", name, cancels, lane.Name(), s)
				}
			}
			set.leave()
		}
	}
}

// A request in pieces can be read once at a time: no policy has it made beside itself, also where its verb allows that.
func TestRequestsInPiecesAreNotHedged(t *testing.T) {
	dir := t.TempDir()
	var tries atomic.Int32
	sidecarOf(t, dir, "web", "web-1", &streamApp{stream: func(ctx context.Context, _ *call.Request, stream call.ServerStream) error {
		tries.Add(1)
		time.Sleep(50 * time.Millisecond)
		return stream.Answer(ctx, &call.Response{Status: 200})
	}}, 0, nil, nil)
	shop := sidecar(t, dir, "shop", &testApp{}, 0)
	sees(t, shop, "web")
	shop.Invocation.target("web").calls.inPieces().SetPolicy(resiliency.Policy{Name: "p", Hedge: resiliency.Hedge{After: time.Millisecond, Max: 2}})
	err := shop.Invocation.Relay(t.Context(), &call.Request{App: "web", Method: "all", Verb: "PUT", Idempotent: true}, Exchange{
		Bound:  ToHead,
		Next:   func() ([]byte, error) { return nil, io.EOF },
		Header: func(*call.Response) error { return nil },
		Chunk:  func([]byte) error { return nil },
	})
	if err != nil || tries.Load() != 1 {
		t.Errorf("%v after %d tries", err, tries.Load())
	}
}
