package blocks

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/state"
)

// moody is an app that answers with the status it is told.
func moody(status *atomic.Int32) *testApp {
	return &testApp{deliver: handled, invoke: func(_ context.Context, req *call.Request) (*call.Response, error) {
		return &call.Response{Status: int(status.Load()), Body: append([]byte("fresh "), req.Body...)}, nil
	}}
}

// withFallback gives the lane to orders, as shop sees it, a policy with a fallback, and waits until shop sees orders.
func withFallback(t *testing.T, shop *Blocks, f *resiliency.Fallback) {
	t.Helper()
	sees(t, shop, "orders")
	shop.Invocation.target("orders").calls.SetPolicy(resiliency.Policy{Name: "p", CallTimeout: 10 * time.Second, Fallback: f})
}

func TestFallbackAnswersInvocations(t *testing.T) {
	dir := t.TempDir()
	var status atomic.Int32
	status.Store(200)
	sidecar(t, dir, "orders", moody(&status), 0)
	backup := &testApp{deliver: handled, invoke: func(_ context.Context, req *call.Request) (*call.Response, error) {
		if req.Method == "broken" {
			return nil, fault.New("backup", fault.AppFailed, "the backup is broken")
		}
		return &call.Response{Status: 200, Body: []byte("backup for " + req.Caller)}, nil
	}}
	sidecar(t, dir, "backup", backup, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "backup")
	ask := func(method, body, user string) (*call.Response, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return shop.Invocation.Invoke(ctx, &call.Request{
			App: "orders", Method: method, Verb: http.MethodGet, Body: []byte(body), Header: call.Header{{Key: "authorization", Value: user}},
		})
	}
	answers := func(what string, resp *call.Response, err error, status int, body, from string) {
		t.Helper()
		if err != nil || resp.Status != status || string(resp.Body) != body || resp.Header.Get(FallbackHeader) != from {
			t.Errorf("%s: %+v, %v", what, resp, err)
		}
	}

	withFallback(t, shop, &resiliency.Fallback{Status: 299, Body: []byte("closed"),
		Header: []resiliency.HeaderField{{Key: "content-type", Value: "text/plain"}, {Key: "x-why", Value: "broken"}}})
	resp, err := ask("list", "", "")
	answers("a good answer", resp, err, 200, "fresh ", "")
	status.Store(404)
	resp, err = ask("list", "", "")
	answers("a caller who is wrong", resp, err, 404, "fresh ", "")
	status.Store(500)
	resp, err = ask("list", "", "")
	answers("static", resp, err, 299, "closed", "")
	if resp.ContentType != "text/plain" || resp.Header.Get("x-why") != "broken" {
		t.Errorf("static: %+v", resp)
	}

	withFallback(t, shop, &resiliency.Fallback{App: "backup"})
	resp, err = ask("list", "", "")
	answers("another app", resp, err, 200, "backup for shop", "app")
	resp, err = ask("broken", "", "")
	answers("another app that fails as well", resp, err, 500, "fresh ", "")

	withFallback(t, shop, &resiliency.Fallback{LastGood: true, MaxEntries: 2})
	resp, err = ask("list", "a", "me")
	answers("nothing kept", resp, err, 500, "fresh a", "")
	status.Store(200)
	_, _ = ask("list", "a", "me")
	status.Store(500)
	resp, err = ask("list", "a", "me")
	answers("kept", resp, err, 200, "fresh a", "last-good")
	if resp.Header.Get("age") != "0" {
		t.Errorf("kept: %+v", resp.Header)
	}
	resp, err = ask("list", "a", "you")
	answers("another user", resp, err, 500, "fresh a", "")
	resp, err = ask("list", "b", "me")
	answers("another request", resp, err, 500, "fresh b", "")

	status.Store(200)
	shop.Invocation.target("orders").calls.SetPolicy(resiliency.Policy{Name: "p", Limits: []resiliency.RateLimit{
		{Name: "one", Limit: 1, Per: time.Hour, Answer: &resiliency.Fallback{LastGood: true}},
	}})
	resp, err = ask("list", "c", "me")
	answers("within the limit", resp, err, 200, "fresh c", "")
	resp, err = ask("list", "c", "me")
	answers("beyond the limit", resp, err, 200, "fresh c", "last-good")
	if n := shop.Invocation.target("orders").calls.Status(t.Context()).Fallbacks; n != 4 {
		t.Errorf("%d calls were answered by a fallback", n)
	}
}

func TestFallbackAnswersInboundCalls(t *testing.T) {
	dir := t.TempDir()
	var status atomic.Int32
	status.Store(500)
	orders := sidecar(t, dir, "orders", moody(&status), 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders")
	orders.App.lane.SetPolicy(resiliency.Policy{Name: "p", Fallback: &resiliency.Fallback{Status: 503, Body: []byte("later")}})
	resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{App: "orders", Method: "list"})
	if err != nil || resp.Status != 503 || string(resp.Body) != "later" {
		t.Errorf("%+v, %v", resp, err)
	}
}

func TestFallbackAnswersReadsOfState(t *testing.T) {
	b := sidecar(t, t.TempDir(), "shop", &testApp{invoke: echo, deliver: handled}, 0)
	if _, err := b.State.Apply(t.Context(), "statestore", []state.Op{{Key: "k", Value: []byte("v")}}); err != nil {
		t.Fatal(err)
	}
	policy := resiliency.Policy{Name: "p", Fallback: &resiliency.Fallback{LastGood: true}}
	b.State.lanes.of("statestore").SetPolicy(policy)
	if items, err := b.State.Get(t.Context(), "statestore", []string{"k"}); err != nil || len(items) != 1 {
		t.Fatal(items, err)
	}
	broken := fault.New("get", fault.BackendDown, "gone")
	lane := b.State.lanes.of("statestore").Lane
	of := func(keys ...string) func() key { return func() key { return readKey("statestore", keys, nil) } }
	items, err := b.State.lastOr(t.Context(), lane, of("k"), nil, broken)
	if err != nil || len(items) != 1 || string(items[0].Value) != "v" {
		t.Errorf("%v, %v", items, err)
	}
	_, err = b.State.lastOr(t.Context(), lane, of("k", "l"), nil, broken)
	wantReason(t, err, fault.BackendDown)
}

// TestOnlyReadsHaveLastGoodAnswers: an old answer to a write would claim that it was done.
func TestOnlyReadsHaveLastGoodAnswers(t *testing.T) {
	for verb, want := range map[string]bool{"GET": true, "HEAD": true, "": true, "PUT": false, "DELETE": false, "POST": false} {
		if got := isRead(&call.Request{Verb: verb, Idempotent: true}); got != want {
			t.Errorf("an idempotent %q is a read: %v", verb, got)
		}
	}
	if isRead(&call.Request{}) {
		t.Error("a call without a verb that is not idempotent is a read")
	}
}

func TestLastGoodIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g lastGood[string]
		rule := &resiliency.Fallback{LastGood: true, MaxEntries: 2, MaxAge: time.Second}
		for _, k := range []string{"a", "b", "c"} {
			g.keep(rule, partsKey(k), k)
		}
		if _, _, ok := g.find(rule, partsKey("a")); ok {
			t.Error("the least used answer was kept")
		}
		time.Sleep(time.Second)
		if answer, age, ok := g.find(rule, partsKey("c")); !ok || answer != "c" || age != time.Second {
			t.Errorf("found %q of age %v: %v", answer, age, ok)
		}
		time.Sleep(time.Millisecond)
		if _, _, ok := g.find(rule, partsKey("c")); ok {
			t.Error("an answer that is too old was given")
		}
		if partsKey("a", "bc") == partsKey("ab", "c") {
			t.Error("two requests have one key")
		}
	})
}

// TestRetriesHeedTheApp: an HTTP app that says when it wants to be asked again is not asked before.
func TestRetriesHeedTheApp(t *testing.T) {
	resp := &call.Response{Status: 503, Header: call.Header{{Key: "retry-after", Value: "3"}}}
	err := failedStatus("invoke", resp)
	if fault.KindOf(err) != fault.Unavailable || fault.RetryAfter(err) != 3*time.Second {
		t.Errorf("%v, retry after %v", err, fault.RetryAfter(err))
	}
	m := resiliency.New("app/orders", resiliency.Policy{Retry: resiliency.Retry{Max: 1, Initial: time.Millisecond}})
	var turn resiliency.Turn
	turn.Begin(resiliency.Call{Op: "list", Idempotent: true}, nil)
	m.Step(time.Now(), resiliency.Enter{Turn: &turn})
	decided := m.Step(time.Now(), &resiliency.Outcome{Turn: &turn, Err: err})
	if len(decided) != 1 || decided[0].Verb != resiliency.Again || decided[0].After != 3*time.Second {
		t.Errorf("decided %+v", decided)
	}
	if err := failedStatus("invoke", &call.Response{Status: 399}); err != nil {
		t.Error(err)
	}
}

func TestReadsAreToldApart(t *testing.T) {
	kept := map[key]bool{}
	for _, k := range []key{
		readKey("s", []string{"k"}, nil), readKey("s", []string{"k", "l"}, nil), readKey("s", []string{"k", "l", "m"}, nil), readKey("t", []string{"k"}, nil),
		readKey("s", []string{"k"}, map[string]string{"l": "m"}), readKey("s", []string{"k"}, map[string]string{"m": "l"}),
	} {
		kept[k] = true
	}
	if len(kept) != 6 || readKey("s", []string{"k"}, map[string]string{}) != readKey("s", []string{"k"}, nil) {
		t.Errorf("%d reads, not 6", len(kept))
	}
}

// TestAWrittenAnswerIsForCallsInPiecesToo: what a rule refuses is answered as the rule has it, however the body travels, on
// either side; a stream, which is no call of HTTP, gets the error.
func TestAWrittenAnswerIsForCallsInPiecesToo(t *testing.T) {
	dir := t.TempDir()
	orders := sidecar(t, dir, "orders", &testApp{invoke: echo, deliver: handled}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders")
	relay := func(verb string, bound Bound) (head call.Response, body string, err error) {
		sent := false
		err = shop.Invocation.Relay(t.Context(), &call.Request{App: "orders", Method: "foo", Verb: verb}, Exchange{
			Next: func() ([]byte, error) {
				if sent {
					return nil, io.EOF
				}
				sent = true
				return []byte("piece"), nil
			},
			Header: func(h *call.Response) error { head = *h; return nil },
			Chunk:  func(chunk []byte) error { body += string(chunk); return nil },
			Bound:  bound,
		})
		return head, body, err
	}
	slow := &resiliency.Fallback{Status: 429, Body: []byte("slow down"), Header: []resiliency.HeaderField{{Key: "x-why", Value: "rule"}}}
	full := resiliency.Policy{Name: "rule", Limits: []resiliency.RateLimit{{Name: "foo", Limit: 1, Per: time.Hour, Answer: slow}}}
	broken := resiliency.Policy{Name: "rule", Breaker: resiliency.Breaker{Failures: 1}, Fallback: slow}
	for what, prepare := range map[string]func(){
		"a limit of the app":    func() { orders.App.lane.SetPolicy(full) },
		"a limit of the caller": func() { shop.Invocation.target("orders").calls.inPieces().SetPolicy(full) },
		"a breaker of the app": func() {
			orders.App.lane.SetPolicy(broken)
			_ = orders.App.lane.Lane.Do(t.Context(), resiliency.Call{}, func(context.Context, actors.Grant) error {
				return fault.New("x", fault.BackendDown, "down")
			})
		},
	} {
		orders.App.lane.SetPolicy(resiliency.Policy{})
		shop.Invocation.target("orders").calls.inPieces().SetPolicy(resiliency.Policy{})
		if head, body, err := relay("POST", ToHead); err != nil || head.Status != 0 && head.Status != 200 {
			t.Fatalf("%s: before it there is %+v, %q, %v", what, head, body, err)
		}
		prepare()
		_, _, _ = relay("POST", ToHead)
		if head, body, err := relay("POST", ToHead); err != nil || head.Status != 429 || body != "slow down" || head.Header.Get("x-why") != "rule" {
			t.Errorf("%s: %+v, %q, %v", what, head, body, err)
		}
		if head, _, err := relay("", Lasting); err == nil {
			t.Errorf("%s: a stream is answered %+v", what, head)
		}
	}
}

// A rule that refuses a call leaves it to the target's fallback, unless it has one or the caller shall have the failure.
func TestARuleLeavesItsRefusalsToTheTargetsFallback(t *testing.T) {
	dir := t.TempDir()
	spec := `
  policies:
    rateLimits:
      once: {limit: 1, per: 1h}
      own: {limit: 1, per: 1h, answer: told}
    fallbacks:
      closed: {status: 299, body: closed}
      told: {status: 298, body: told}
      past: {lastGood: {}}
  targets:
    app: {fallback: closed, operations: {inner: {rateLimit: once}}}
    apps:
      orders: {fallback: closed, operations: {plain: {rateLimit: once}, own: {rateLimit: own}, bare: {rateLimit: once, failureMode: failback}}}
      web: {fallback: closed, operations: {plain: {rateLimit: once}, bare: {rateLimit: once, failureMode: failback}}}
    components:
      statestore: {outbound: {fallback: past, operations: {get: {rateLimit: once}}}}
`
	orders := sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: echo}, 0)
	sidecarOf(t, dir, "web", "web-1", &streamApp{stream: func(ctx context.Context, _ *call.Request, stream call.ServerStream) error {
		return stream.Answer(ctx, &call.Response{Status: 200})
	}}, 0, nil, nil)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders", "web")
	if _, err := shop.State.Apply(t.Context(), "statestore", []state.Op{{Key: "k", Value: []byte("v")}}); err != nil {
		t.Fatal(err)
	}
	shop.SetRules(rules(t, spec))
	orders.SetRules(rules(t, spec))
	whole := func(method string) (string, error) {
		resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{App: "orders", Method: method, Verb: "GET", Body: []byte("fresh")})
		if err != nil {
			return "", err
		}
		return string(resp.Body), nil
	}
	pieces := func(method string) (string, error) {
		body := "fresh"
		err := shop.Invocation.Relay(t.Context(), &call.Request{App: "web", Method: method, Verb: "GET"}, Exchange{
			Bound:  ToHead,
			Next:   func() ([]byte, error) { return nil, io.EOF },
			Header: func(*call.Response) error { return nil },
			Chunk:  func(chunk []byte) error { body = string(chunk); return nil },
		})
		return body, err
	}
	for _, c := range []struct {
		what   string
		ask    func(method string) (string, error)
		method string
		want   string // "" is a refusal
	}{
		{"whole", whole, "plain", "closed"}, {"whole", whole, "own", "told"}, {"whole", whole, "bare", ""},
		{"before the app", whole, "inner", "closed"},
		{"in pieces", pieces, "plain", "closed"}, {"in pieces", pieces, "bare", ""},
	} {
		if got, err := c.ask(c.method); got != "fresh" || err != nil {
			t.Errorf("%s, %s: %q, %v", c.what, c.method, got, err)
		}
		switch got, err := c.ask(c.method); {
		case c.want == "":
			wantReason(t, err, fault.RateLimited)
		case got != c.want || err != nil:
			t.Errorf("%s, %s beyond the limit: %q, %v", c.what, c.method, got, err)
		}
	}
	for range 2 {
		items, err := shop.State.Get(t.Context(), "statestore", []string{"k"})
		if err != nil || len(items) != 1 || string(items[0].Value) != "v" {
			t.Errorf("of state: %v, %v", items, err)
		}
	}
	if n := shop.Invocation.target("orders").calls.Status(t.Context()).Fallbacks; n != 1 {
		t.Errorf("the target's fallback has answered %d calls", n)
	}
}

// A target's own failure, which its fallback leaves alone or cannot answer, is not put to it a second time for the rule before it.
func TestAFallbackIsAskedOnce(t *testing.T) {
	dir := t.TempDir()
	var asked atomic.Int32
	sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: func(context.Context, *call.Request) (*call.Response, error) {
		return &call.Response{Status: 500}, nil
	}}, 0)
	sidecar(t, dir, "spare", &testApp{deliver: handled, invoke: func(context.Context, *call.Request) (*call.Response, error) {
		asked.Add(1)
		return nil, fault.New("spare", fault.AppFailed, "it is broken as well")
	}}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders", "spare")
	shop.SetRules(rules(t, `
  policies:
    fallbacks: {spare: {app: spare}}
    concurrency: {few: {maxInFlight: 4}}
    retries: {none: {maxRetries: 0}}
  targets: {apps: {orders: {fallback: spare, operations: {m: {concurrency: few}}}, spare: {retry: none}}}
`))
	resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{App: "orders", Method: "m", Verb: "POST"})
	if err != nil || resp.Status != 500 || asked.Load() != 1 {
		t.Errorf("%+v, %v; the fallback was asked %d times", resp, err, asked.Load())
	}
}
