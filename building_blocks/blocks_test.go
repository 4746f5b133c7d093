package blocks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/state"
)

func TestInvokeReachesTheOtherAppAndTellsWhoCalls(t *testing.T) {
	dir := t.TempDir()
	sidecar(t, dir, "pricing", &testApp{invoke: echo}, 0)
	caller := sidecar(t, dir, "intake", &testApp{invoke: echo}, 0)

	resp, err := caller.Invocation.Invoke(t.Context(), &call.Request{App: "pricing", Method: "price", Body: []byte("7"), Caller: "mallory"})
	if err != nil {
		t.Fatal(err)
	}
	if string(resp.Body) != "7" || resp.Header.Get("caller") != "intake" {
		t.Errorf("got %q from caller %q", resp.Body, resp.Header.Get("caller"))
	}
}

func TestInvokeOfAnUnknownAppSaysWhoIsKnown(t *testing.T) {
	caller := sidecar(t, t.TempDir(), "intake", &testApp{invoke: echo}, 0)
	_, err := caller.Invocation.Invoke(t.Context(), &call.Request{App: "pricng", Method: "price"})
	wantReason(t, err, fault.AppNotFound)
	if !strings.Contains(err.Error(), "intake") {
		t.Errorf("the error does not tell which apps are known: %v", err)
	}
}

// The lanes of an app stay while it may be back soon, and go when it stays away.
func TestLanesOfAppsThatLeftAreForgotten(t *testing.T) {
	b := sidecar(t, t.TempDir(), "caller", &testApp{}, 0)
	v := b.Invocation
	ghost := []fabric.Instance{{App: "ghost", ID: "1", Ready: true, Weight: 1}}
	v.instancesChanged("ghost", ghost)
	v.instancesChanged("ghost", nil)
	at := func(app string, present bool, after time.Duration) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.note(app, present, time.Now().Add(after))
	}
	old := v.target("ghost")
	at("other", true, forgetAfter-time.Minute)
	if v.target("ghost") != old {
		t.Fatal("forgotten at once")
	}
	v.instancesChanged("ghost", ghost)
	at("other", true, forgetAfter+time.Minute)
	if v.target("ghost") != old {
		t.Fatal("forgotten though it came back")
	}
	v.instancesChanged("ghost", nil)
	at("other", true, forgetAfter+time.Minute)
	if v.target("ghost") != nil {
		t.Fatal("never forgotten")
	}
	_, err := v.Invoke(t.Context(), &call.Request{App: "ghost", Method: "m"})
	wantReason(t, err, fault.AppNotFound)
	if v.instancesChanged("ghost", ghost); v.target("ghost") == nil || v.target("ghost").calls == old.calls {
		t.Error("an app that came back after all has no lane of its own")
	}
}

func TestInvokeRefusesWhatCannotBe(t *testing.T) {
	caller := sidecar(t, t.TempDir(), "intake", &testApp{invoke: echo}, 0)
	for _, req := range []*call.Request{{Method: "m"}, {App: strings.Repeat("a", maxName+1), Method: "m"}} {
		_, err := caller.Invocation.Invoke(t.Context(), req)
		wantReason(t, err, fault.BadRequest)
	}
}

func TestAnswerOfAnHTTPAppComesBackWhateverItsStatus(t *testing.T) {
	dir := t.TempDir()
	var calls atomic.Int32
	sidecar(t, dir, "web", &testApp{invoke: func(context.Context, *call.Request) (*call.Response, error) {
		calls.Add(1)
		return &call.Response{Status: 503, Body: []byte("sorry")}, nil
	}}, 0)
	caller := sidecar(t, dir, "intake", &testApp{invoke: echo}, 0)
	resp, err := caller.Invocation.Invoke(t.Context(), &call.Request{App: "web", Method: "x"})
	if err != nil || resp.Status != 503 || string(resp.Body) != "sorry" {
		t.Fatalf("got %+v, %v", resp, err)
	}
	if calls.Load() != 1 {
		t.Errorf("a call that is not idempotent was made %d times", calls.Load())
	}
}

func TestPanicInAHandlerIsAnswered(t *testing.T) {
	dir := t.TempDir()
	sidecar(t, dir, "web", &testApp{invoke: func(context.Context, *call.Request) (*call.Response, error) { panic("boom") }}, 0)
	caller := sidecar(t, dir, "intake", &testApp{invoke: echo}, 0)
	_, err := caller.Invocation.Invoke(t.Context(), &call.Request{App: "web", Method: "x"})
	wantReason(t, err, fault.Panicked)
}

func TestHungHandlerEndsWithTheCallersDeadline(t *testing.T) {
	dir := t.TempDir()
	gone := make(chan struct{}, 20)
	var began atomic.Bool
	sidecar(t, dir, "web", &testApp{invoke: func(ctx context.Context, _ *call.Request) (*call.Response, error) {
		began.Store(true)
		<-ctx.Done()
		gone <- struct{}{}
		return nil, fault.FromContext("hang", ctx, "nothing")
	}}, 0)
	caller := sidecar(t, dir, "intake", &testApp{invoke: echo}, 0)
	for within := 300 * time.Millisecond; !began.Load(); within *= 2 { // until the machine is quick enough to bring it to the handler
		ctx, cancel := context.WithTimeout(t.Context(), within)
		_, err := caller.Invocation.Invoke(ctx, &call.Request{App: "web", Method: "x"})
		cancel()
		if fault.KindOf(err) != fault.Timeout {
			t.Fatalf("got %v, want a timeout", err)
		}
	}
	<-gone // the deadline reached the handler too
}

func TestAppNeverSeesMoreThanItsConcurrency(t *testing.T) {
	dir := t.TempDir()
	var now, most atomic.Int32
	release := make(chan struct{})
	sidecar(t, dir, "web", &testApp{invoke: func(context.Context, *call.Request) (*call.Response, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		<-release
		return &call.Response{}, nil
	}}, 4)
	caller := sidecar(t, dir, "intake", &testApp{invoke: echo}, 0)
	var calls sync.WaitGroup
	var failed atomic.Int32
	for range 100 {
		calls.Go(func() {
			if _, err := caller.Invocation.Invoke(t.Context(), &call.Request{App: "web", Method: "x"}); err != nil {
				failed.Add(1)
			}
		})
	}
	eventually(t, "four calls in the app", func() bool { return now.Load() == 4 })
	close(release)
	calls.Wait()
	if most.Load() != 4 || failed.Load() != 0 {
		t.Errorf("the app saw %d calls at once, want 4; %d failed", most.Load(), failed.Load())
	}
}

func TestStreamEchoes(t *testing.T) {
	dir := t.TempDir()
	sidecar(t, dir, "web", &testApp{invoke: echo}, 0)
	caller := sidecar(t, dir, "intake", &testApp{invoke: echo}, 0)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	var got bytes.Buffer
	chunks := slices.Collect(slices.Chunk(sent, 10_000))
	err := caller.Invocation.Relay(t.Context(), &call.Request{App: "web", Method: "x"}, Exchange{
		Next: func() ([]byte, error) {
			if len(chunks) == 0 {
				return nil, io.EOF
			}
			chunk := chunks[0]
			chunks = chunks[1:]
			return chunk, nil
		},
		Header: func(*call.Response) error { return nil },
		Chunk: func(chunk []byte) error {
			got.Write(chunk)
			return nil
		},
	})
	if err != nil || !bytes.Equal(got.Bytes(), sent) {
		t.Fatalf("%d of %d bytes came back, error %v", got.Len(), len(sent), err)
	}
}

func TestStateKeepsAppsApart(t *testing.T) {
	dir := t.TempDir()
	one := sidecar(t, dir, "one", &testApp{}, 0)
	etags, err := one.State.Apply(t.Context(), "", []state.Op{{Key: "k", Value: []byte("v")}})
	if err != nil {
		t.Fatal(err)
	}
	items, err := one.State.Get(t.Context(), "", []string{"missing", "k"})
	if err != nil || len(items) != 1 || items[0].Key != "k" || items[0].ETag != etags[0] {
		t.Fatalf("got %+v, %v; want k with etag %s", items, err, etags[0])
	}
	_, err = one.State.Apply(t.Context(), "", []state.Op{{Key: "k", Value: []byte("w"), Match: state.Absent}})
	wantReason(t, err, fault.ETagMismatch)
	var e *fault.Error
	if errors.As(err, &e); e.Meta["key"] != "k" {
		t.Errorf("the conflict names key %q, want the app's own name k", e.Meta["key"])
	}
	if strings.Contains(err.Error(), keySeparator) {
		t.Errorf("the conflict shows how keys are stored: %v", err)
	}
}

func TestStateListPages(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	var ops []state.Op
	for i := range 25 {
		ops = append(ops, state.Op{Key: fmt.Sprintf("p/%02d", i), Value: []byte{byte(i)}})
	}
	if _, err := one.State.Apply(t.Context(), "", append(ops, state.Op{Key: "q", Value: []byte("no")})); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for token, pages := "", 0; ; pages++ {
		items, next, err := one.State.List(t.Context(), "", "p/", 10, token, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			keys = append(keys, item.Key)
		}
		if token = next; token == "" {
			break
		}
	}
	if len(keys) != 25 || !slices.IsSorted(keys) || keys[24] != "p/24" {
		t.Errorf("got %d keys: %v", len(keys), keys)
	}
	_, _, err := one.State.List(t.Context(), "", "q", 10, "!", true)
	wantReason(t, err, fault.PageInvalid)
}

func TestStateRefusesWhatCannotBe(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	for reason, op := range map[fault.Reason]state.Op{
		fault.KeyInvalid: {Key: ""},
		fault.TTLInvalid: {Key: "k", TTL: -time.Second},
	} {
		_, err := one.State.Apply(t.Context(), "", []state.Op{op})
		wantReason(t, err, reason)
	}
	_, err := one.State.Apply(t.Context(), "", []state.Op{{Key: "k"}, {Key: "k"}})
	wantReason(t, err, fault.BadRequest)
	_, err = one.State.Get(t.Context(), "nosuch", []string{"k"})
	wantReason(t, err, fault.ComponentNotFound)
}

func TestLockHoldLetsGoWithItsContext(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{}, 0)
	ctx, cancel := context.WithCancel(t.Context())
	taken := make(chan lock.Lease, 1)
	held := make(chan error, 1)
	go func() {
		held <- one.Lock.Hold(ctx, LockRequest{Name: "l", Owner: "a"}, func(lease lock.Lease) error {
			taken <- lease
			return nil
		})
	}()
	first := <-taken
	_, err := one.Lock.Acquire(t.Context(), LockRequest{Name: "l", Owner: "b"})
	wantReason(t, err, fault.LockHeld)
	_, err = one.Lock.Acquire(t.Context(), LockRequest{Name: "l", Owner: "b", Wait: 100 * time.Millisecond})
	wantReason(t, err, fault.LockHeld)
	cancel()
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	second, err := one.Lock.Acquire(t.Context(), LockRequest{Name: "l", Owner: "b"})
	if err != nil || second.Token <= first.Token {
		t.Fatalf("token %d after %d, error %v", second.Token, first.Token, err)
	}
}

func TestEventsReachEachGroupInOrderOfTheirKey(t *testing.T) {
	dir := t.TempDir()
	var mu sync.Mutex
	got := map[string][]string{}
	for _, app := range []string{"billing", "shipping"} {
		sidecar(t, dir, app, &testApp{
			subs: []appchannel.Subscription{{Topic: "orders"}},
			deliver: func(_ context.Context, event *appchannel.Event) (appchannel.Outcome, error) {
				mu.Lock()
				defer mu.Unlock()
				got[app+"/"+event.Key] = append(got[app+"/"+event.Key], string(event.Data))
				return appchannel.Outcome{}, nil
			},
		}, 0)
	}
	publisher := sidecar(t, dir, "intake", &testApp{}, 0)
	for i := range 60 {
		draft := Draft{Data: fmt.Appendf(nil, "%02d", i), ContentType: "text/plain", Key: fmt.Sprint("k", i%3)}
		if _, err := publisher.PubSub.Publish(t.Context(), "", "orders", draft); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all events delivered to both groups", func() bool {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, events := range got {
			n += len(events)
		}
		return n >= 120
	})
	mu.Lock()
	defer mu.Unlock()
	for who, events := range got {
		if len(events) != 20 || !slices.IsSorted(events) {
			t.Errorf("%s got %v", who, events)
		}
	}
}

func TestEventThatFailsGoesToTheDeadLetterTopic(t *testing.T) {
	dir := t.TempDir()
	var tries atomic.Int32
	letters := make(chan *appchannel.Event, 1)
	one := sidecar(t, dir, "one", &testApp{
		subs: []appchannel.Subscription{
			{Topic: "orders", DeadLetterTopic: "dead", MaxDeliveries: 3},
			{Topic: "dead"},
		},
		deliver: func(_ context.Context, event *appchannel.Event) (appchannel.Outcome, error) {
			if event.Topic == "dead" {
				letters <- event
				return appchannel.Outcome{}, nil
			}
			tries.Add(1)
			return appchannel.Outcome{Verdict: appchannel.Retry, Delay: time.Millisecond, Reason: "not today"}, nil
		},
	}, 0)
	id, err := one.PubSub.Publish(t.Context(), "", "orders", Draft{Data: []byte(`{"a":1}`), ContentType: "application/json"})
	if err != nil {
		t.Fatal(err)
	}
	var letter *appchannel.Event
	select {
	case letter = <-letters:
	case <-time.After(20 * time.Second):
		t.Fatalf("no dead letter after %d tries", tries.Load())
	}
	if tries.Load() != 3 || letter.ID != id || string(letter.Data) != `{"a":1}` {
		t.Errorf("after %d tries: %+v", tries.Load(), letter)
	}
	if reason := letter.Header.Get("sidecast-dead-letter-reason"); reason != "not today" {
		t.Errorf("the letter's reason is %q", reason)
	}
}

func TestEventThatTheAppNeverSawDoesNotCountAsTried(t *testing.T) {
	app := &testApp{subs: []appchannel.Subscription{{Topic: "orders", DeadLetterTopic: "dead", MaxDeliveries: 1}}}
	var seen atomic.Int32
	app.deliver = func(context.Context, *appchannel.Event) (appchannel.Outcome, error) {
		if seen.Add(1) == 1 {
			return appchannel.Outcome{}, fault.New("deliver", fault.AppNotConnected, "gone").After(time.Millisecond)
		}
		return appchannel.Outcome{}, nil
	}
	one := sidecar(t, t.TempDir(), "one", app, 0)
	if _, err := one.PubSub.Publish(t.Context(), "", "orders", Draft{Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a second delivery", func() bool { return seen.Load() == 2 })
}

func TestSubscriptionPausesWhileTheAppIsNotReady(t *testing.T) {
	app := &testApp{subs: []appchannel.Subscription{{Topic: "orders"}}, ready: fault.New("app", fault.AppUnhealthy, "not well")}
	var seen atomic.Int32
	app.deliver = func(context.Context, *appchannel.Event) (appchannel.Outcome, error) {
		seen.Add(1)
		return appchannel.Outcome{}, nil
	}
	one := sidecar(t, t.TempDir(), "one", app, 0)
	if _, err := one.PubSub.Publish(t.Context(), "", "orders", Draft{Data: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the subscription", func() bool {
		subs := one.PubSub.Subscriptions()
		return len(subs) == 1 && subs[0].State == "active"
	})
	if seen.Load() != 0 {
		t.Error("an app that is not ready was given an event")
	}
	app.setReady(nil)
	eventually(t, "the event", func() bool { return seen.Load() == 1 })
}

func TestPublishRefusesWhatCannotBe(t *testing.T) {
	one := sidecar(t, t.TempDir(), "one", &testApp{deliver: handled}, 0)
	for reason, draft := range map[fault.Reason]Draft{
		fault.DelayInvalid: {Delay: -time.Second},
		fault.EventInvalid: {Data: []byte("{"), ContentType: "application/json"},
	} {
		_, err := one.PubSub.Publish(t.Context(), "", "orders", draft)
		wantReason(t, err, reason)
	}
	_, err := one.PubSub.Publish(t.Context(), "", "", Draft{})
	wantReason(t, err, fault.TopicInvalid)

	results, err := one.PubSub.PublishBatch(t.Context(), "", "orders", []Draft{{Data: []byte("ok")}, {Delay: -1}})
	if err != nil || results[0].Err != nil || fault.ReasonOf(results[1].Err) != fault.DelayInvalid {
		t.Errorf("got %+v, %v", results, err)
	}
}

// TestCallersAreToldOfRoom: what an instance cannot take is refused where it comes from, and the app sees none of it.
func TestCallersAreToldOfRoom(t *testing.T) {
	dir := t.TempDir()
	arrived, release := make(chan struct{}, 1024), make(chan struct{})
	busy := &testApp{invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		arrived <- struct{}{}
		<-release
		return echo(ctx, req)
	}}
	caller := sidecar(t, dir, "caller", &testApp{}, 0)
	callee := sidecar(t, dir, "callee", busy, 1)
	if room := callee.App.Room(); room != appQueue+2 {
		t.Fatalf("an app that works on one call at a time says it has room for %d", room)
	}
	if room := caller.App.Room(); room != 2*DefaultAppConcurrency+appQueue {
		t.Errorf("an app whose concurrency nobody set says it has room for %d", room)
	}
	invoke := func() error {
		_, err := caller.Invocation.Invoke(t.Context(), &call.Request{App: "callee", Method: "m"})
		return err
	}
	const callers = appQueue + 50
	answers := make(chan error, callers)
	go func() { answers <- invoke() }()
	<-arrived
	for range callers - 1 {
		go func() { answers <- invoke() }()
	}
	for range callers - appQueue - 1 {
		err := <-answers
		if reason := fault.ReasonOf(err); reason != fault.TargetFull && reason != fault.QueueFull {
			t.Errorf("refused with %v", err)
		}
		if fault.RetryAfter(err) == 0 {
			t.Errorf("%v says nothing about when to come back", err)
		}
	}
	close(release)
	for range appQueue + 1 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
}
