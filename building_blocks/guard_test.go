package blocks

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/resiliency"
)

// rules reads the policies and targets of a Resiliency document.
func rules(t *testing.T, spec string) *governance.Rules {
	t.Helper()
	text := "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: test}\nspec:\n" + spec
	read, findings := governance.Read([]manifest.Raw{{Source: manifest.Source{File: "r.yaml", Line: 1}, YAML: []byte(text)}}, governance.Who{})
	if read == nil {
		t.Fatal(findings)
	}
	return read
}

func testGuard(b *Blocks) *guard {
	return b.rules.guard("sub/test", false, func(*governance.Rules) governance.Target {
		return governance.Target{Policy: deliveryPolicy}
	})
}

// operationLanes are the lanes of rules for single operations.
func operationLanes(t *testing.T, b *Blocks) (names []string) {
	for _, child := range b.Runtime.Tree(t.Context()).Children {
		if strings.Contains(child.Name, "/op:") {
			names = append(names, child.Name)
		}
	}
	return names
}

const lateRule = `
  policies:
    timeouts: {bound: 30s}
    concurrency: {one: {maxInFlight: 1}}
  targets:
    app:
      operations:
        /late/*: {timeout: bound}
        /single: {concurrency: one}
`

func TestARuleIsForItsOperationsAlone(t *testing.T) {
	release := make(chan struct{})
	b := sidecar(t, t.TempDir(), "orders", &testApp{invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		select {
		case <-release:
			return &call.Response{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}, 0)
	b.SetRules(rules(t, strings.ReplaceAll(lateRule, "30s", "300ms")))

	_, err := b.App.ServeCall(t.Context(), &call.Request{App: "orders", Method: "late/night"})
	wantReason(t, err, fault.AttemptTimeout)
	if policy := err.(*fault.Error).Meta["policy"]; policy != "test/app./late/*" {
		t.Errorf("policy %q refused it", policy)
	}

	var served sync.WaitGroup
	for range 2 {
		served.Go(func() {
			if _, err := b.App.ServeCall(t.Context(), &call.Request{App: "orders", Method: "other"}); err != nil {
				t.Error(err)
			}
		})
	}
	served.Go(func() { _, _ = b.App.ServeCall(t.Context(), &call.Request{App: "orders", Method: "single"}) })
	eventually(t, "three calls run", func() bool { return b.App.lane.Status(t.Context()).InFlight == 3 })
	_, err = b.App.ServeCall(t.Context(), &call.Request{App: "orders", Method: "single"})
	wantReason(t, err, fault.QueueFull)
	close(release)
	served.Wait()
}

// A caller takes a refusal for one of all calls only when it is: not that of a rule for some operations, and not one for want of
// priority.
func TestARefusalOfSomeCallsIsNotOneOfAll(t *testing.T) {
	arrived, release := make(chan struct{}, 8), make(chan struct{})
	dir := t.TempDir()
	caller := sidecar(t, dir, "caller", &testApp{}, 0)
	orders := sidecar(t, dir, "orders", &testApp{invoke: func(ctx context.Context, req *call.Request) (*call.Response, error) {
		if req.Method != "other" {
			arrived <- struct{}{}
			<-release
		}
		return echo(ctx, req)
	}}, 0)
	var running sync.WaitGroup
	defer func() { close(release); running.Wait() }()
	invoke := func(method, priority string) error {
		req := &call.Request{App: "orders", Method: method}
		if priority != "" {
			req.Header.Add("x-priority", priority)
		}
		_, err := caller.Invocation.Invoke(t.Context(), req)
		return err
	}
	hold := func(method, priority string) {
		running.Go(func() {
			if err := invoke(method, priority); err != nil {
				t.Error(err)
			}
		})
	}

	orders.SetRules(rules(t, `
  policies: {concurrency: {one: {maxInFlight: 1, maxQueue: 0}}}
  targets: {app: {operations: {/slow: {concurrency: one}}}}
`))
	hold("slow", "")
	<-arrived
	wantReason(t, invoke("slow", ""), fault.QueueFull)
	if err := invoke("other", ""); err != nil {
		t.Error(err)
	}

	orders.SetRules(rules(t, `
  policies: {concurrency: {two: {maxInFlight: 2, maxQueue: 1, queue: {full: shed-lowest-priority, priorityHeader: x-priority}}}}
  targets: {app: {concurrency: two}}
`))
	hold("running", "")
	<-arrived
	shed := make(chan error, 1)
	go func() { shed <- invoke("waiting", "3") }()
	eventually(t, "it waits", func() bool { return orders.App.lane.Status(t.Context()).Queued == 1 })
	wantReason(t, invoke("refused", "1"), fault.QueueFull)
	hold("urgent", "9")
	wantReason(t, <-shed, fault.QueueShed)
}

func TestAFailureTellsTheLaneItIsOf(t *testing.T) {
	b := sidecar(t, t.TempDir(), "orders", &testApp{invoke: func(context.Context, *call.Request) (*call.Response, error) {
		return nil, fault.New("x", fault.AppUnreachable, "no")
	}}, 0)
	b.SetRules(rules(t, lateRule))
	_, err := b.App.ServeCall(t.Context(), &call.Request{App: "orders", Method: "late/x"})
	wantReason(t, err, fault.AppUnreachable)
	if meta := err.(*fault.Error).Meta; meta["lane"] != "app" || meta["policy"] != "app-max-concurrency" {
		t.Errorf("got %v", meta)
	}
}

// A rule that says how calls are attempted says it in place of the target, and what fails is answered as it says before the target
// does.
func TestARuleTakesThePlaceOfItsTarget(t *testing.T) {
	dir := t.TempDir()
	var tries atomic.Int32
	var bounded atomic.Bool // as the target says: with a second at most
	sidecar(t, dir, "orders", &testApp{deliver: handled, invoke: func(ctx context.Context, _ *call.Request) (*call.Response, error) {
		tries.Add(1)
		deadline, ok := ctx.Deadline()
		bounded.Store(ok && time.Until(deadline) <= time.Second)
		return &call.Response{Status: 500}, nil
	}}, 0)
	shop := sidecar(t, dir, "shop", &testApp{invoke: echo, deliver: handled}, 0)
	sees(t, shop, "orders")
	shop.SetRules(rules(t, `
  policies:
    timeouts: {short: {attempt: 1s}, long: {attempt: 1h}}
    retries: {none: {maxRetries: 0}, once: {maxRetries: 1, duration: 1ms}, twice: {maxRetries: 2, duration: 1ms}}
    circuitBreakers: {b: {failures: 2, timeout: 1h}}
    concurrency: {few: {maxInFlight: 100}}
    fallbacks: {all: {status: 210}, own: {status: 211}}
  targets:
    apps:
      orders:
        timeout: short
        retry: twice
        fallback: all
        operations:
          none: {retry: none}
          once: {retry: once}
          failfast: {failureMode: failfast}
          failback: {failureMode: failback}
          longer: {timeout: long}
          limited: {concurrency: few}
          own: {fallback: own}
          breaker: {circuitBreaker: b}
`))
	ask := func(method string) int {
		tries.Store(0)
		resp, err := shop.Invocation.Invoke(t.Context(), &call.Request{App: "orders", Method: method, Verb: "GET"})
		if err != nil {
			return int(fault.KindOf(err).HTTP())
		}
		return resp.Status
	}
	for _, c := range []struct {
		method string
		status int
		tries  int32
	}{
		{"longer", 210, 3}, {"other", 210, 3}, {"none", 210, 1}, {"once", 210, 2}, {"failfast", 210, 1}, {"failback", 500, 1}, {"limited", 210, 3},
		{"own", 211, 3}, {"breaker", 210, 3}, {"breaker", 210, 3}, {"breaker", 210, 0},
	} {
		if status := ask(c.method); status != c.status || tries.Load() != c.tries {
			t.Errorf("%s: status %d after %d tries, want %d after %d", c.method, status, tries.Load(), c.status, c.tries)
		}
		if bounded.Load() != (c.method != "longer") {
			t.Errorf("%s: within a second is %v", c.method, bounded.Load())
		}
	}
}

// Rules come, change and go while calls run: none fails, and the lanes of rules that went are gone.
func TestNewRulesDropNoCall(t *testing.T) {
	b := sidecar(t, t.TempDir(), "orders", &testApp{invoke: echo}, 0)
	sets := []*governance.Rules{
		rules(t, lateRule), nil,
		rules(t, strings.ReplaceAll(lateRule, "maxInFlight: 1", "maxInFlight: 100, maxQueue: 1000")),
		rules(t, "  policies: {concurrency: {many: {maxInFlight: 64, maxQueue: 64}}}\n  targets: {app: {concurrency: many, operations: {late/*: {concurrency: many}}}}\n"),
	}
	done := make(chan struct{})
	var callers sync.WaitGroup
	var calls atomic.Int64
	for range 8 {
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := b.App.ServeCall(t.Context(), &call.Request{App: "orders", Method: "late/x"}); err != nil {
					t.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for round := range 40 {
		before := calls.Load()
		b.SetRules(sets[round%len(sets)])
		eventually(t, "calls go on", func() bool { return calls.Load() > before+8 || t.Failed() })
	}
	close(done)
	callers.Wait()
	b.SetRules(nil)
	if left := operationLanes(t, b); left != nil {
		t.Errorf("%v are left", left)
	}
}

func TestALaneOfARuleThatStaysKeepsWhatItKnows(t *testing.T) {
	b := sidecar(t, t.TempDir(), "orders", &testApp{invoke: echo}, 0)
	b.SetRules(rules(t, lateRule))
	late := func() *actors.Lane {
		r, set := b.App.lane.enter("", "late/x")
		defer set.leave()
		return r.Lane
	}
	before := late()
	b.SetRules(rules(t, strings.ReplaceAll(lateRule, "30s", "40s")))
	after := late()
	if before != after {
		t.Error("the lane was made anew")
	}
	eventually(t, "the new policy is in force", func() bool { return after.Policy().AttemptTimeout == 40*time.Second })
	if lanes := operationLanes(t, b); len(lanes) != 2 {
		t.Errorf("got %v", lanes)
	}
}

func TestRulesReachEveryLane(t *testing.T) {
	dir := t.TempDir()
	b := sidecar(t, dir, "orders", &testApp{invoke: echo, deliver: handled,
		subs: []appchannel.Subscription{{Topic: "t"}}}, 0)
	sees(t, b, "orders")
	if _, err := b.State.Get(t.Context(), "", []string{"k"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it subscribes", func() bool {
		subs := b.PubSub.Subscriptions()
		return len(subs) == 1 && subs[0].State == "active"
	})
	all := "concurrency: c, timeout: t, retry: r"
	b.SetRules(rules(t, `
  policies:
    timeouts: {t: 3s}
    retries: {r: {duration: 1ms, maxRetries: 1}}
    concurrency: {c: {maxInFlight: 7}}
  targets:
    app: {`+all+`}
    apps: {orders: {`+all+`}}
    components:
      statestore: {outbound: {`+all+`}}
      pubsub: {outbound: {`+all+`}, inbound: {`+all+`}}
      lockstore: {outbound: {`+all+`}}
`))
	pubsub, done := b.PubSub.deliveries.use("pubsub", "t")
	defer done()
	for name, lane := range map[string]*guard{
		"app": b.App.lane, "calls": b.Invocation.target("orders").calls,
		"state": b.State.lanes.of("statestore"), "publish": b.PubSub.lanes.of("pubsub"), "lock": b.Lock.lanes.of("lockstore"), "deliver": pubsub,
	} {
		p := lane.Policy()
		if p.MaxInFlight != 7 || p.Retry.Max != 1 || p.AttemptTimeout != 3*time.Second {
			t.Errorf("%s has %+v", name, p)
		}
	}
}

// What the app asks to have again is tried again in the lane first, and goes back to the broker after that.
func TestDeliveriesAreRetriedInTheirLane(t *testing.T) {
	b := sidecar(t, t.TempDir(), "orders", &testApp{invoke: echo}, 0)
	b.SetRules(rules(t, `
  policies: {retries: {r: {duration: 1ms, maxRetries: 2}}}
  targets: {components: {pubsub: {inbound: {retry: r}}}}
`))
	for asked, want := range map[int]string{2: "ack", 3: "retry"} {
		tries := 0
		sink := &scriptedSink{takes: make(chan int, 2), deliver: func(context.Context) (appchannel.Outcome, error) {
			if tries++; tries <= asked {
				return appchannel.Outcome{Verdict: appchannel.Retry, Reason: "not yet"}, nil
			}
			return appchannel.Outcome{}, nil
		}}
		sink.takes <- 1 // each try uses up a credit of its own
		sink.takes <- 1
		c := testConsumer(b, sink, nil, appchannel.Subscription{PubSub: "pubsub", Topic: "t"})
		lane, done := b.PubSub.deliveries.use("pubsub", "t")
		c.lane = lane
		d := &observed{attempt: 1}
		c.deliver(t.Context(), t.Context(), d, turn{})
		done()
		if len(d.said) != 1 || d.said[0] != want || tries != min(asked+1, 3) {
			t.Errorf("after %d refusals: %v in %d tries, want %s", asked, d.said, tries, want)
		}
	}
}

// What the lane refuses is not shown to the app, so it does not count against the deliveries of an event.
func TestRefusedDeliveriesAreNotTries(t *testing.T) {
	b := sidecar(t, t.TempDir(), "orders", &testApp{invoke: echo}, 0)
	sink := &scriptedSink{takes: make(chan int, 1), deliver: func(context.Context) (appchannel.Outcome, error) {
		return appchannel.Outcome{Verdict: appchannel.Retry, Reason: "not yet"}, nil
	}}
	c := testConsumer(b, sink, nil, appchannel.Subscription{PubSub: "pubsub", Topic: "t", MaxDeliveries: 2})
	lane, done := b.PubSub.deliveries.use("pubsub", "t")
	defer done()
	c.lane = lane
	d := &observed{stored: stored{message: pubsub.Message{ID: "1"}}}
	deliver := func(admission, want string) {
		t.Helper()
		if _, err := b.Runtime.Steer(Operator{}, Order{Lane: "sub/pubsub/t", Admission: admission}); err != nil {
			t.Fatal(err)
		}
		d.attempt++
		c.deliver(t.Context(), t.Context(), d, turn{})
		if got := d.said[len(d.said)-1]; got != want {
			t.Errorf("delivery %d: %s, want %s", d.attempt, got, want)
		}
	}
	deliver("drained", "retry")
	deliver("drained", "retry")
	deliver("admitting", "retry")
	deliver("admitting", "ack")
}

// Of the rules for topics a subscription has only the one for its own.
func TestASubscriptionHasTheRuleForItsTopic(t *testing.T) {
	b := sidecar(t, t.TempDir(), "orders", &testApp{invoke: echo}, 0)
	b.SetRules(rules(t, `
  policies: {timeouts: {t: 3s}}
  targets: {components: {pubsub: {inbound: {operations: {placed: {timeout: t}, "paid*": {timeout: t}, paid.late: {timeout: t}}}}}}
`))
	for _, topic := range []string{"placed", "paid.late", "shipped"} {
		_, done := b.PubSub.deliveries.use("pubsub", topic)
		defer done()
	}
	if names := operationLanes(t, b); !slices.Equal(names, []string{"sub/pubsub/paid.late/op:paid.late", "sub/pubsub/placed/op:placed"}) {
		t.Errorf("got %v", names)
	}
}

func TestPassSettlesWithTheRuleAndThenTheLane(t *testing.T) {
	b := sidecar(t, t.TempDir(), "orders", &testApp{invoke: echo}, 0)
	b.SetRules(rules(t, lateRule))
	var lanes []string
	value, err := pass(t.Context(), b.App.lane, "", resiliency.Call{Op: "late/x"},
		func(context.Context, actors.Grant) (int, error) { return 1, nil },
		func(_ context.Context, lane *actors.Lane, value int, err error) (int, error) {
			lanes = append(lanes, lane.Policy().Name)
			return value + 1, err
		})
	if value != 3 || err != nil || len(lanes) != 2 || lanes[0] != "test/app./late/*" || lanes[1] != "app-max-concurrency" {
		t.Errorf("got %d, %v, by %v", value, err, lanes)
	}
}
