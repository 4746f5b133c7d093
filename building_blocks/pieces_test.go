package blocks

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// heard is a Sink that keeps an answer.
type heard struct {
	mu    sync.Mutex
	head  *call.Response
	body  strings.Builder
	ended bool
	came  chan struct{} // gets a token for each piece, if there is room
}

func newHeard() *heard { return &heard{came: make(chan struct{}, 16)} }

func (h *heard) Begin(head *call.Response) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.head = head
	return nil
}

func (h *heard) Send(piece []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.body.Write(piece)
	h.came <- struct{}{}
	return nil
}

func (h *heard) End(call.Header) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
}

// inPieces answers as an app whose answers are not whole at once: more is asked for each further piece until it has none.
func inPieces(ctx context.Context, req *call.Request, status int, more func(ctx context.Context, n int) (string, error)) (*call.Response, error) {
	passage := req.Pieces.Open(ctx)
	defer passage.Close()
	head := &call.Response{Status: status}
	if err := passage.Begin(head); err != nil {
		return nil, fault.E("answer", fault.KindOf(err), fault.CallCanceled, err)
	}
	for n := 0; ; n++ {
		piece, err := more(passage, n)
		switch {
		case err != nil:
			return nil, err
		case piece == "":
			passage.End(nil)
			head.Passed = true
			return head, nil
		}
		if err := passage.Send([]byte(piece)); err != nil {
			return nil, err
		}
	}
}

// two is a body of two pieces.
func two(_ context.Context, n int) (string, error) { return []string{"one ", "two", ""}[n], nil }

// pieced are a caller and an app, each with its sidecar.
func pieced(t *testing.T, invoke func(context.Context, *call.Request) (*call.Response, error), p resiliency.Policy) (shop *Blocks, ask func(method string) (*heard, *call.Request, *call.Response, error)) {
	t.Helper()
	dir := t.TempDir()
	sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: invoke}, 1)
	shop = sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders")
	shop.Invocation.target("orders").calls.SetPolicy(p)
	return shop, func(method string) (*heard, *call.Request, *call.Response, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		to := newHeard()
		req := &call.Request{App: "orders", Method: method, Verb: "GET", Idempotent: true, Pieces: call.PiecesTo(ctx, to)}
		resp, err := shop.Invocation.Invoke(ctx, req)
		return to, req, resp, err
	}
}

var threeTries = resiliency.Retry{Max: 2, Initial: time.Millisecond, NonIdempotent: true}

// Failures are tried again before an answer passes, and one that breaks off is the last.
func TestRetriesComeBeforeAnAnswerInPieces(t *testing.T) {
	var tries atomic.Int32
	_, ask := pieced(t, func(ctx context.Context, req *call.Request) (*call.Response, error) {
		n := tries.Add(1)
		switch {
		case n < 3 && req.Method == "at last":
			return &call.Response{Status: 503, Body: []byte("busy")}, nil
		case req.Method == "never":
			return &call.Response{Status: 503, Body: []byte("busy")}, nil
		case req.Method == "large failure":
			return inPieces(ctx, req, 500, two)
		case req.Method == "breaks":
			return inPieces(ctx, req, 200, func(_ context.Context, n int) (string, error) {
				if n == 0 {
					return "half", nil
				}
				return "", fault.New("answer", fault.InstanceLost, "it broke")
			})
		}
		return inPieces(ctx, req, 200, two)
	}, resiliency.Policy{Name: "p", CallTimeout: 10 * time.Second, Retry: threeTries})
	for _, c := range []struct {
		method, body string
		tries        int32
		passed       bool
		status       int
		reason       fault.Reason
	}{
		{"at last", "one two", 3, true, 200, ""}, {"never", "", 3, false, 503, ""},
		{"large failure", "one two", 1, true, 500, ""}, {"breaks", "half", 1, false, 0, fault.InstanceLost},
	} {
		tries.Store(0)
		to, req, resp, err := ask(c.method)
		if fault.ReasonOf(err) != c.reason || tries.Load() != c.tries || to.body.String() != c.body || to.ended != c.passed || req.Pieces.Taken() != (c.body != "") {
			t.Errorf("%s: %v after %d tries; %q came, ended %v", c.method, err, tries.Load(), to.body.String(), to.ended)
		}
		if err == nil && (resp.Passed != c.passed || resp.Status != c.status || c.passed != (to.head != nil && to.head.Status == c.status)) {
			t.Errorf("%s: %+v, head %+v", c.method, resp, to.head)
		}
	}
}

// A hedge may answer in pieces in the place of an attempt that is slow to begin, and is alone in that.
func TestHedgesOfAnswersInPieces(t *testing.T) {
	var tries, canceled atomic.Int32
	dir := t.TempDir()
	release, came := make(chan struct{}), make(chan struct{}, 16)
	sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		if tries.Add(1) == 1 {
			if req.Method == "late" { // its answer comes when the other passes already
				<-release
				resp, err := inPieces(ctx, req, 200, func(ctx context.Context, _ int) (string, error) {
					<-ctx.Done()
					return "", fault.FromContext("answer", ctx, "nothing")
				})
				if err != nil {
					canceled.Add(1)
				}
				return resp, err
			}
			<-ctx.Done()
			canceled.Add(1)
			return nil, fault.FromContext("answer", ctx, "nothing")
		}
		return inPieces(ctx, req, 200, func(ctx context.Context, n int) (string, error) {
			if n == 1 && req.Method == "late" {
				<-came // the caller has taken this answer
				close(release)
				eventually(t, "the other attempt is let go", func() bool { return canceled.Load() == 1 })
			}
			return two(ctx, n)
		})
	}}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders")
	shop.Invocation.target("orders").calls.SetPolicy(resiliency.Policy{
		Name: "p", CallTimeout: 15 * time.Second, Hedge: resiliency.Hedge{After: 5 * time.Millisecond, Max: 1}, Breaker: resiliency.Breaker{Failures: 1},
	})
	for _, method := range []string{"never", "late"} {
		tries.Store(0)
		canceled.Store(0)
		to := newHeard()
		if method == "late" {
			to.came = came
		}
		resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{
			App: "orders", Method: method, Verb: "GET", Idempotent: true, Pieces: call.PiecesTo(t.Context(), to),
		})
		if err != nil || !resp.Passed || to.body.String() != "one two" || !to.ended || tries.Load() != 2 {
			t.Errorf("%s: %+v, %v after %d tries; %q came", method, resp, err, tries.Load(), to.body.String())
		}
		eventually(t, "the other attempt is let go", func() bool { return canceled.Load() == 1 })
	}
	status := shop.Invocation.target("orders").calls.Status(t.Context())
	if status.Breaker != "closed" || status.InFlight != 0 {
		t.Errorf("the lane counts %+v", status)
	}
}

// While an answer passes its call keeps its place at the app, and the timeouts of policies do not end it.
func TestAnswersInPiecesKeepTheirPlace(t *testing.T) {
	var running, most atomic.Int32
	next := make(chan struct{})
	_, ask := pieced(t, func(ctx context.Context, req *call.Request) (*call.Response, error) {
		if now := running.Add(1); now > most.Load() {
			most.Store(now)
		}
		defer running.Add(-1)
		return inPieces(ctx, req, 200, func(ctx context.Context, n int) (string, error) {
			if n == 1 {
				select {
				case <-next:
				case <-ctx.Done():
					return "", fault.FromContext("answer", ctx, "the test")
				}
			}
			return two(ctx, n)
		})
	}, resiliency.Policy{Name: "p", CallTimeout: time.Second})
	var first sync.WaitGroup
	first.Go(func() {
		to, _, resp, err := ask("long")
		if err != nil || !resp.Passed || to.body.String() != "one two" {
			t.Errorf("%+v, %v; %q came", resp, err, to.body.String())
		}
	})
	eventually(t, "the first is at work", func() bool { return running.Load() == 1 })
	if _, req, _, err := ask("second"); fault.KindOf(err) != fault.Timeout || req.Pieces.Taken() { // longer than the timeout of both
		t.Errorf("a call that waits for its turn: %v", err)
	}
	close(next)
	first.Wait()
	if to, _, resp, err := ask("third"); err != nil || !resp.Passed || to.body.String() != "one two" || most.Load() != 1 {
		t.Errorf("%+v, %v; %d were at work at once", resp, err, most.Load())
	}
}

// A caller who leaves long after the head of an answer, or whose connection breaks, says nothing of the target, to any lane on
// the way: whatever the timeouts, and however long the answer has passed.
func TestWhoLeavesAnAnswerInPiecesBlamesNobody(t *testing.T) {
	dir := t.TempDir()
	orders := sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		return inPieces(ctx, req, 200, func(ctx context.Context, n int) (string, error) {
			if n == 0 {
				return "one", nil
			}
			select {
			case <-ctx.Done():
				return "", fault.FromContext("answer", ctx, "the test")
			case <-time.After(5 * time.Millisecond):
				return "more", nil
			}
		})
	}}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders")
	quick := `
  policies:
    timeouts: {short: {call: 200ms}}
    circuitBreakers: {quick: {timeout: 1h, trip: consecutiveFailures >= 1}}
  targets:
    app: {timeout: short, circuitBreaker: quick, operations: {all*: {timeout: short, circuitBreaker: quick}}}
    apps: {orders: {timeout: short, circuitBreaker: quick, operations: {all*: {timeout: short, circuitBreaker: quick}}}}
`
	orders.SetRules(rules(t, quick))
	shop.SetRules(rules(t, quick))
	for name, leave := range map[string]func(cancel func()) error{
		"cancels": func(cancel func()) error { cancel(); return nil },
		"breaks":  func(func()) error { return errors.New("write: broken pipe") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		late := time.Now().Add(400 * time.Millisecond) // beyond the timeouts of all lanes
		to := &leaving{heard: newHeard(), leave: func() error {
			if time.Now().Before(late) {
				return nil
			}
			return leave(cancel)
		}}
		_, err := shop.Invocation.Invoke(ctx, &call.Request{App: "orders", Method: "all", Verb: "GET", Idempotent: true, Pieces: call.PiecesTo(ctx, to)})
		cancel()
		if fault.KindOf(err) != fault.Canceled || time.Now().Before(late) {
			t.Errorf("%s: %v", name, err)
		}
		for which, lanes := range map[string]*guard{"the caller's": shop.Invocation.target("orders").calls, "the app's": orders.App.lane} {
			rule, set := lanes.enter("GET", "all")
			for _, lane := range []*actors.Lane{lanes.Lane, rule.Lane} {
				eventually(t, which+" call is over", func() bool { return lane.Status(t.Context()).InFlight == 0 })
				if s := lane.Status(t.Context()); s.TimedOut != 0 || s.Breaker != "closed" {
					t.Errorf("%s: %s lane %s has %+v", name, which, lane.Name(), s)
				}
			}
			set.leave()
		}
	}
}

// leaving is a caller who leaves at some piece.
type leaving struct {
	*heard
	leave func() error
}

func (l *leaving) Send([]byte) error { return l.leave() }

// What a rule for an operation makes of the time that its target takes is that until the answer begins, also where the answer
// breaks off.
func TestARuleHearsWhenAnAnswerInPiecesBegins(t *testing.T) {
	dir := t.TempDir()
	orders := sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		return inPieces(ctx, req, 200, func(_ context.Context, n int) (string, error) {
			if n == 1 {
				time.Sleep(1100 * time.Millisecond)
				if req.Method == "all/breaks" {
					return "", fault.New("answer", fault.BadRequest, "it broke")
				}
			}
			return two(ctx, n)
		})
	}}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders")
	slow := rules(t, `
  policies: {circuitBreakers: {slow: {timeout: 1h, slowRatio: 50%, slowAfter: 1s, windowCalls: 1, minCalls: 1}}}
  targets:
    app: {operations: {all/*: {circuitBreaker: slow}}}
    apps: {orders: {operations: {all/*: {circuitBreaker: slow}}}}
`)
	orders.SetRules(slow)
	shop.SetRules(slow)
	for _, method := range []string{"all/breaks", "all/whole"} {
		_, err := shop.Invocation.Invoke(t.Context(), &call.Request{App: "orders", Method: method, Verb: "GET", Pieces: call.PiecesTo(t.Context(), newHeard())})
		if (err == nil) != (method == "all/whole") {
			t.Error(err)
		}
		for _, g := range []*guard{shop.Invocation.target("orders").calls, orders.App.lane} {
			rule, set := g.enter("GET", method)
			if s := rule.Status(t.Context()); s.Breaker != "closed" || s.Admitted == 0 {
				t.Errorf("%s: the lane %s has %+v", method, rule.Name(), s)
			}
			set.leave()
		}
	}
}

// Nothing takes the place of an answer that has begun. That of another app says whose it is.
func TestFallbacksOfAnswersInPieces(t *testing.T) {
	broken := func(ctx context.Context, req *call.Request) (*call.Response, error) {
		if req.Method == "fails" {
			return &call.Response{Status: 500}, nil
		}
		return inPieces(ctx, req, 200, func(_ context.Context, n int) (string, error) {
			if n == 0 {
				return "half", nil
			}
			return "", fault.New("answer", fault.InstanceLost, "it broke")
		})
	}
	_, ask := pieced(t, broken, resiliency.Policy{Name: "p", CallTimeout: 10 * time.Second, Fallback: &resiliency.Fallback{Status: 299, Body: []byte("closed")}})
	if to, _, resp, err := ask("breaks"); fault.ReasonOf(err) != fault.InstanceLost || to.body.String() != "half" || to.ended {
		t.Errorf("%+v, %v; %q came", resp, err, to.body.String())
	}
	if _, req, resp, err := ask("fails"); err != nil || resp.Status != 299 || resp.Passed || req.Pieces.Taken() {
		t.Errorf("a failure: %+v, %v", resp, err)
	}
}

// What has passed in pieces is kept as the last good answer, if it came to its end and is not too large.
func TestAnswersInPiecesAreKept(t *testing.T) {
	var broken atomic.Bool
	size := map[string]int{"moderate": 20000, "large": maxKept + 1, "breaks": 20000}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		of := r.URL.Path[1:]
		w.Header().Set("Content-Length", strconv.Itoa(size[of]))
		w.Header().Set("Content-Type", "text/x")
		half := strings.Repeat("x", size[of]/2)
		_, _ = io.WriteString(w, half)
		if _ = http.NewResponseController(w).Flush(); of != "breaks" {
			_, _ = io.WriteString(w, strings.Repeat("y", size[of]-len(half)))
		}
	}))
	t.Cleanup(app.Close)
	shop := sidecar(t, t.TempDir(), "shop", &testApp{invoke: echo, deliver: handled}, 0)
	lastGood := resiliency.Policy{Name: "p", CallTimeout: 10 * time.Second, Fallback: &resiliency.Fallback{LastGood: true}}
	shop.Invocation.target(app.URL).calls.SetPolicy(lastGood)
	ask := func(method string) (*heard, *call.Response, error) {
		to := newHeard()
		to.came = make(chan struct{}, 1024)
		resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{App: app.URL, Method: method, Verb: "GET", Pieces: call.PiecesTo(t.Context(), to)})
		return to, resp, err
	}
	good := map[string]string{}
	for method := range size {
		to, resp, err := ask(method)
		good[method] = to.body.String()
		if (err == nil) != (method != "breaks") || err == nil && (!resp.Passed || len(good[method]) != size[method]) {
			t.Errorf("%s: %v, %d bytes came", method, err, to.body.Len())
		}
	}
	broken.Store(true)
	to, resp, err := ask("moderate")
	if err != nil || resp.Status != 200 || resp.Passed || string(resp.Body) != good["moderate"] || resp.ContentType != "text/x" || resp.Header.Get(FallbackHeader) != "last-good" || to.head != nil {
		t.Errorf("moderate: %+v, %v", resp, err)
	}
	for _, method := range []string{"large", "breaks"} {
		if _, resp, err := ask(method); err != nil || resp.Status != 500 {
			t.Errorf("%s: %+v, %v", method, resp, err)
		}
	}
	shop.App.lane.SetPolicy(lastGood) // of calls that come in
	for verb, want := range map[string]bool{"GET": true, "POST": false} {
		req := keepingLast(shop.App.lane, &call.Request{Verb: verb, Pieces: call.PiecesTo(t.Context(), to)})
		if _, kept := req.Pieces.Sink().(*keeping); kept != want {
			t.Errorf("of a %s: kept %v", verb, kept)
		}
	}
}

func TestAFallbackAppAnswersInPieces(t *testing.T) {
	dir := t.TempDir()
	sidecar(t, dir, "backup", &testApp{deliver: handled, invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		return inPieces(ctx, req, 200, two)
	}}, 0)
	sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: func(context.Context, *call.Request) (*call.Response, error) {
		return &call.Response{Status: 500}, nil
	}}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "backup")
	withFallback(t, shop, &resiliency.Fallback{App: "backup"})
	to := newHeard()
	resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{App: "orders", Method: "m", Verb: "GET", Pieces: call.PiecesTo(t.Context(), to)})
	if err != nil || !resp.Passed || to.body.String() != "one two" || to.head.Header.Get(FallbackHeader) != "app" {
		t.Errorf("%+v, %v; %q came after %+v", resp, err, to.body.String(), to.head)
	}
}

// A fallback is for what is left of all attempts: while one beside the failed one goes on, nobody else is asked.
func TestNoFallbackBesideAnAttempt(t *testing.T) {
	dir := t.TempDir()
	var tries, spare atomic.Int32
	failed := make(chan struct{})
	sidecar(t, dir, "spare", &testApp{deliver: handled, invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		spare.Add(1)
		return echo(ctx, req)
	}}, 0)
	sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		if tries.Add(1) > 1 {
			defer close(failed)
			return &call.Response{Status: 500}, nil
		}
		select {
		case <-failed:
		case <-ctx.Done():
		}
		return inPieces(ctx, req, 200, two)
	}}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders", "spare")
	shop.SetRules(rules(t, `
  policies:
    hedges: {soon: {after: 5ms, max: 1}}
    fallbacks: {spare: {app: spare}}
  targets:
    apps:
      orders: {fallback: spare, operations: {m: {hedge: soon}}}
`))
	to := newHeard()
	resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{
		App: "orders", Method: "m", Verb: "GET", Idempotent: true, Pieces: call.PiecesTo(t.Context(), to),
	})
	if err != nil || !resp.Passed || to.body.String() != "one two" || to.head.Header.Get(FallbackHeader) != "" || tries.Load() != 2 || spare.Load() != 0 {
		t.Errorf("%+v, %v after %d tries, and %d of the spare; %q came after %+v", resp, err, tries.Load(), spare.Load(), to.body.String(), to.head)
	}
}

// What another app answers in pieces comes after all attempts of a rule: no timeout of the rule holds for it, its breaker learns
// nothing of it, and nothing follows it where it breaks off.
func TestAFallbackInPiecesIsNoAttemptOfARule(t *testing.T) {
	dir := t.TempDir()
	var tries atomic.Int32
	sidecar(t, dir, "spare", &testApp{deliver: handled, invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		return inPieces(ctx, req, 200, func(ctx context.Context, n int) (string, error) {
			if n == 1 {
				if req.Method == "m/breaks" {
					return "", fault.New("answer", fault.InstanceLost, "it broke")
				}
				select { // beyond what the rule lets an attempt take, or finds slow
				case <-time.After(2200 * time.Millisecond):
				case <-ctx.Done():
					return "", fault.FromContext("answer", ctx, "the test")
				}
			}
			return two(ctx, n)
		})
	}}, 0)
	sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: func(context.Context, *call.Request) (*call.Response, error) {
		tries.Add(1)
		return &call.Response{Status: 500}, nil
	}}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders", "spare")
	shop.SetRules(rules(t, `
  policies:
    fallbacks: {spare: {app: spare}}
    retries:
      none: {maxRetries: 0}
      more: {maxRetries: 2, duration: 1ms}
    timeouts: {short: {attempt: 2s}}
    circuitBreakers: {slow: {timeout: 1h, slowRatio: 50%, slowAfter: 2s, windowCalls: 1, minCalls: 1}}
  targets:
    apps: {orders: {retry: none, fallback: spare, operations: {m/*: {retry: more, timeout: short, circuitBreaker: slow}}}}
`))
	ask := func(method string) (*heard, *call.Response, error) {
		to := newHeard()
		resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{App: "orders", Method: method, Verb: "GET", Idempotent: true, Pieces: call.PiecesTo(t.Context(), to)})
		return to, resp, err
	}
	to, resp, err := ask("m/whole")
	if err != nil || !resp.Passed || to.body.String() != "one two" || !to.ended || to.head.Header.Get(FallbackHeader) != "app" {
		t.Errorf("%+v, %v; %q came", resp, err, to.body.String())
	}
	g := shop.Invocation.target("orders").calls
	rule, set := g.enter("GET", "m/whole")
	defer set.leave()
	if s := rule.Status(t.Context()); s.Breaker != "closed" || s.TimedOut != 0 || s.Retried != 2 {
		t.Errorf("the rule has %+v", s)
	}
	tries.Store(0)
	to, resp, err = ask("m/breaks")
	if resp != nil || fault.KindOf(err) == fault.None || fault.KindOf(err) == fault.Canceled || tries.Load() != 3 || to.body.String() != "one " {
		t.Errorf("%+v, %v after %d tries; %q came", resp, err, tries.Load(), to.body.String())
	}
}
