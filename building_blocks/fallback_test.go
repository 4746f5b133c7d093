package blocks

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
	eventually(t, "shop sees orders", func() bool { return shop.Invocation.target("orders") != nil })
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
	eventually(t, "shop sees backup", func() bool { return shop.Invocation.target("backup") != nil })
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
	if n := shop.Invocation.target("orders").calls.Status(t.Context()).Fallbacks; n != 3 {
		t.Errorf("%d calls were answered by a fallback", n)
	}
}

func TestFallbackAnswersInboundCalls(t *testing.T) {
	dir := t.TempDir()
	var status atomic.Int32
	status.Store(500)
	orders := sidecar(t, dir, "orders", moody(&status), 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	eventually(t, "shop sees orders", func() bool { return shop.Invocation.target("orders") != nil })
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
	items, err := b.State.lastOr(t.Context(), lane, "statestore", []string{"k"}, nil, broken)
	if err != nil || len(items) != 1 || string(items[0].Value) != "v" {
		t.Errorf("%v, %v", items, err)
	}
	_, err = b.State.lastOr(t.Context(), lane, "statestore", []string{"k", "l"}, nil, broken)
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
