package governance

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/resiliency"
)

func read(t *testing.T, who Who, text string) *Rules {
	t.Helper()
	rules, findings := Read(raws("f.yaml", []byte(text)), who)
	if rules == nil {
		t.Fatal(findings)
	}
	return rules
}

// Dapr's own documents mean what they mean to Dapr v1.18.
func TestDaprPoliciesMeanWhatTheyMeanToDapr(t *testing.T) {
	rules, findings := Read(folder(t, "testdata/dapr"), Who{AppID: "cart"})
	if rules == nil {
		t.Fatal(findings)
	}
	orders := rules.App("orders", standard.App).Policy
	if orders.AttemptTimeout != 5*time.Second || orders.CallTimeout != 0 {
		t.Errorf("a timeout bounds each attempt and nothing else: %v, %v", orders.AttemptTimeout, orders.CallTimeout)
	}
	trip := orders.Breaker.Trip
	orders.Breaker.Trip = nil
	if want := (resiliency.Breaker{Probes: 2, Interval: 8 * time.Second, OpenFor: 45 * time.Second}); orders.Breaker != want {
		t.Errorf("got %+v", orders.Breaker)
	}
	if trip.Open(resiliency.TripCounts{ConsecutiveFailures: 8}) || !trip.Open(resiliency.TripCounts{ConsecutiveFailures: 9}) {
		t.Errorf("%s does not open after nine failures", trip.Text)
	}
	retry := resiliency.Retry{
		Max: 3, Backoff: resiliency.Constant, Initial: 5 * time.Second, MaxInterval: 5 * time.Second, NonIdempotent: true,
		On: resiliency.Match{Kinds: anyKind(), Statuses: []resiliency.Range{{First: 429, Last: 429}, {First: 500, Last: 599}},
			Codes: []resiliency.Range{{First: 4, Last: 4}, {First: 8, Last: 14}}},
	}
	if !reflect.DeepEqual(orders.Retry, retry) {
		t.Errorf("got  %+v\nwant %+v", orders.Retry, retry)
	}
	growing := rules.App("prices", standard.App).Policy
	if r := growing.Retry; r.Max != -1 || r.Initial != 500*time.Millisecond || r.MaxInterval != 15*time.Second || r.Multiplier != 1.5 || r.Jitter != .5 {
		t.Errorf("got %+v", r)
	}
	if growing.CallTimeout != 15*time.Minute || growing.AttemptTimeout != 30*time.Second {
		t.Errorf("growing retries end after 15 minutes: %v, %v", growing.CallTimeout, growing.AttemptTimeout)
	}
	store := rules.Component(Statestore, "statestore", standard.Component).Policy
	if store.Retry.Max != -1 || store.Retry.Initial != 5*time.Second || store.AttemptTimeout != 250*time.Millisecond {
		t.Errorf("got %+v", store)
	}
	if want := (resiliency.Breaker{Failures: 6, OpenFor: time.Minute, Probes: 1}); store.Breaker != want {
		t.Errorf("got %+v", store.Breaker)
	}
	if p := rules.App("unnamed", standard.App).Policy; !reflect.DeepEqual(p, standard.App) {
		t.Errorf("an app that nobody names has %+v", p)
	}
	for _, e := range []resiliency.Policy{orders, growing, store} {
		if err := e.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestScopesAndNamespacesSayWhomADocumentIsFor(t *testing.T) {
	const text = `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r, namespace: prod}
spec: {policies: {timeouts: {t: 1s}}, targets: {apps: {orders: {timeout: t}}}}
scopes: [cart]
---
apiVersion: fault-tolerance.opensergo.io/v1alpha1
kind: ConcurrencyLimitStrategy
metadata: {name: c, namespace: prod}
spec: {maxConcurrency: 3, limitMode: Local}
---
apiVersion: fault-tolerance.opensergo.io/v1alpha1
kind: FaultToleranceRule
metadata: {name: r, namespace: prod, labels: {app: cart}}
spec: {targets: [{targetResourceName: /foo}], strategies: [{name: c}]}
`
	for _, c := range []struct {
		who  Who
		sees bool
	}{
		{Who{"cart", "prod"}, true}, {Who{"cart", ""}, true}, {Who{}, true},
		{Who{"other", "prod"}, false}, {Who{"cart", "test"}, false},
	} {
		rules := read(t, c.who, text)
		if got := rules.App("orders", standard.App).Policy.AttemptTimeout == time.Second; got != c.sees {
			t.Errorf("%+v sees the Resiliency: %v", c.who, got)
		}
		if got := len(rules.Local(standard.Local).Operations) == 1; got != c.sees {
			t.Errorf("%+v sees the rule: %v", c.who, got)
		}
	}
}

func TestStreamsAreGuardedAsCallsAreWhereThatCanBe(t *testing.T) {
	rules := read(t, Who{}, `
apiVersion: sidecast.dev/v1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    timeouts: {bounded: {call: 5s, attempt: 1s, adaptive: {quantile: 99.9%, min: 20ms, max: 1s}}}
    retries: {spread: {duration: 1ms, maxRetries: 3, nonIdempotent: true}}
    hedges: {tail: {after: 50ms}}
    fallbacks:
      other: {app: orders-backup}
      busy: {status: 429}
  targets:
    apps:
      orders: {timeout: bounded, retry: spread, hedge: tail, fallback: other, failureMode: failsafe}
      stock: {failureMode: failsafe, fallback: busy}
`)
	target := rules.AppWithPieces("orders", standard.App, standard.App)
	calls, s := target.Policy, *target.Apart
	if calls.Fallback == nil || calls.Hedge.After == 0 || calls.AdaptiveTimeout.Quantile == 0 || calls.Mode != resiliency.Failsafe || calls.Pieces != nil {
		t.Fatalf("nothing is there to be left out: %+v", calls)
	}
	if s.CallTimeout != 5*time.Second || s.AttemptTimeout != time.Second || s.Retry.Max != 3 || !s.Retry.NonIdempotent {
		t.Errorf("calls have %+v, streams %+v", calls, s)
	}
	if s.Hedge.After != 0 || s.Fallback != nil || s.AdaptiveTimeout != (resiliency.AdaptiveTimeout{}) || s.Mode == resiliency.Failsafe {
		t.Errorf("got %+v", s)
	}
	s = *rules.AppWithPieces("stock", standard.App, standard.App).Apart
	if s.Mode != resiliency.Failsafe || s.Fallback == nil || s.Fallback.Status != 429 {
		t.Errorf("an answer that is written down is for calls in pieces too: %+v", s)
	}
}

// What a document counts it counts together, and what it does not say of streams is as it is for them.
func TestALimitCountsStreamsToo(t *testing.T) {
	const policies = `
    timeouts: {t: {call: 5s, attempt: 1s}}
    rateLimits: {l: {limit: 1, per: 1s}}
    circuitBreakers: {b: {failures: 5}}
    hedges: {h: {after: 50ms}}
    protections: {p: {cpu: 85%}}
    concurrency:
      few: {maxInFlight: 10}
      more: {maxQueue: 7}
      following: {adaptive: {algorithm: vegas, max: 200}}
`
	calls := resiliency.Policy{Name: "calls", CallTimeout: 30 * time.Second, MaxInFlight: 2048}
	pieces := resiliency.Policy{Name: "pieces", MaxInFlight: 1024}
	for says, want := range map[string]*resiliency.Pieces{
		"rateLimit: l":                               {MaxInFlight: 1024},
		"circuitBreaker: b":                          {MaxInFlight: 1024},
		"circuitBreaker: b, timeout: t":              {CallTimeout: 5 * time.Second, AttemptTimeout: time.Second, MaxInFlight: 1024},
		"concurrency: few":                           {},
		"concurrency: few, rateLimit: l, timeout: t": {CallTimeout: 5 * time.Second, AttemptTimeout: time.Second},
		"timeout: t, hedge: h":                       nil, "concurrency: more": nil, "concurrency: following": nil, "protection: p": nil,
	} {
		rules := read(t, Who{}, "apiVersion: sidecast.dev/v1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies:"+policies+
			"  targets: {apps: {orders: {"+says+"}}}\n")
		got := rules.AppWithPieces("orders", calls, pieces)
		if (got.Apart == nil) != (want != nil) || !reflect.DeepEqual(got.Policy.Pieces, want) {
			t.Errorf("%s: apart they have %+v, together %+v, want %+v", says, got.Apart, got.Policy.Pieces, want)
		}
		if err := got.Policy.Validate(); err != nil {
			t.Error(err)
		}
		if other := rules.AppWithPieces("others", calls, pieces); other.Apart == nil || !reflect.DeepEqual(*other.Apart, pieces) {
			t.Errorf("an app that nobody names has %+v", other)
		}
	}
	all := read(t, Who{}, "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec: {policies: {circuitBreakers: {DefaultAppCircuitBreakerPolicy: {timeout: 1s, trip: consecutiveFailures > 3}}}, targets: {}}\n")
	if got := all.AppWithPieces("orders", calls, pieces); got.Apart != nil || got.Policy.Pieces == nil {
		t.Errorf("a default of all apps: %+v", got)
	}
	var none *Rules
	if got := none.AppWithPieces("orders", calls, pieces); got.Apart == nil || !reflect.DeepEqual(got.Policy, calls) {
		t.Errorf("without documents: %+v", got)
	}
}

func TestTheMostSpecificOperationIsFirst(t *testing.T) {
	rules, _ := Read(folder(t, "testdata/extended"), Who{})
	local := rules.Local(standard.Local)
	for call, want := range map[string]string{
		"GET reports/today": "GET:/reports/today", "POST reports/today": "/reports/today", "GET reports/old": "/reports/*", "GET other": "",
	} {
		verb, path, _ := strings.Cut(call, " ")
		got := ""
		for i := range local.Operations {
			if local.Operations[i].Matches(verb, path) {
				got = local.Operations[i].Name
				break
			}
		}
		if got != want {
			t.Errorf("%s is for %q, not %q", call, got, want)
		}
	}
}

// A rule that says how calls are attempted has from the target what it leaves out, but for what only the target's lane can do.
func TestARuleSaysHowCallsAreAttempted(t *testing.T) {
	const policies = `apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    timeouts: {short: 1s, long: 1m}
    retries: {few: {maxRetries: 2}, many: {maxRetries: 9}, elsewhere: {maxRetries: 3, elsewhere: true}}
    hedges: {h: {after: 10ms}}
    fallbacks: {f: {status: 200}}
    concurrency: {c: {maxInFlight: 1}}
  targets: {apps: {a: {`
	type says struct {
		timeout, hedge time.Duration
		retries        int
		mode           resiliency.FailureMode
		decides        resiliency.Decided
	}
	all := resiliency.Decided{Timeout: true, Retry: true, Hedge: true}
	for _, c := range []struct {
		target, rule string
		want         says
	}{
		{"timeout: short, retry: few, hedge: h", "concurrency: c", says{}},
		{"timeout: short, retry: few, hedge: h", "fallback: f, failureMode: failsafe", says{mode: "failsafe"}},
		{"timeout: short, retry: few, hedge: h", "timeout: long", says{time.Minute, 10 * time.Millisecond, 2, "", all}},
		{"timeout: short, retry: few, hedge: h", "retry: many", says{time.Second, 10 * time.Millisecond, 9, "", all}},
		{"timeout: short, retry: few, hedge: h", "failureMode: failfast", says{time.Second, 10 * time.Millisecond, 0, "failfast", all}},
		{"timeout: short", "failureMode: failcache", says{time.Second, 0, 0, "failcache", resiliency.Decided{Timeout: true, Retry: true}}},
		{"failureMode: failback", "timeout: long", says{time.Minute, 0, 0, "failfast", resiliency.Decided{Timeout: true, Retry: true}}},
		{"failureMode: failover", "timeout: long", says{time.Minute, 0, 0, "", resiliency.Decided{Timeout: true}}},
		{"retry: elsewhere", "timeout: long", says{time.Minute, 0, 0, "", resiliency.Decided{Timeout: true}}},
		{"", "retry: few", says{0, 0, 2, "", resiliency.Decided{Retry: true}}},
	} {
		text := policies + strings.TrimPrefix(c.target+", operations: {x: {"+c.rule+"}}}}}\n", ", ")
		rule := read(t, Who{}, text).App("a", standard.App).Operations[0]
		p := rule.Policy
		if got := (says{p.AttemptTimeout, p.Hedge.After, p.Retry.Max, p.Mode, rule.Decides}); got != c.want {
			t.Errorf("%s, and for an operation %s: %+v", c.target, c.rule, got)
		}
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, verb, op string
		want              bool
	}{
		{"/foo", "GET", "foo", true}, {"/foo", "", "/foo", true}, {"foo", "", "foo", true}, {"/foo", "", "foo/bar", false},
		{"*", "", "", true}, {"/a*c", "", "abc", true}, {"/a*c", "", "ab", false}, {"/a*b*c", "", "axxbyyc", true}, {"a*a", "", "a", false},
		{"GET:/foo", "GET", "foo", true}, {"GET /foo", "POST", "foo", false}, {"GET:/foo", "", "foo", false},
		{"shop.Orders/List", "", "shop.Orders/List", true}, {"a:b", "", "a:b", true},
	} {
		if got := parsePattern(c.pattern).matches(c.verb, c.op); got != c.want {
			t.Errorf("%q matches %s %q: %v", c.pattern, c.verb, c.op, got)
		}
	}
}

// What matches a pattern is what a plain search over all ways to fill the stars finds.
func TestPatternsMatchAsTheirDefinitionSays(t *testing.T) {
	var naive func(p, s string) bool
	naive = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return naive(p[1:], s) || s != "" && naive(p, s[1:])
		}
		return s != "" && s[0] == p[0] && naive(p[1:], s[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringMatching(`[ab*]{0,6}`).Draw(t, "pattern")
		s := rapid.StringMatching(`[ab]{0,8}`).Draw(t, "operation")
		if got := parsePattern(p).matches("", s); got != naive(p, s) {
			t.Fatalf("%q matches %q: %v", p, s, got)
		}
	})
}

func TestNoDocumentsSayNothing(t *testing.T) {
	rules, findings := Read(nil, Who{})
	if len(findings) > 0 {
		t.Error(findings)
	}
	for _, r := range []*Rules{nil, rules} {
		for _, got := range []Target{
			r.App("a", standard.App), r.Component(Lock, "a", standard.App), r.Delivery("a", standard.App), r.Local(standard.App),
		} {
			if !reflect.DeepEqual(got, Target{Policy: standard.App}) {
				t.Errorf("got %+v", got)
			}
		}
		if all := r.Explain(standard); all != nil {
			t.Errorf("got %v", all)
		}
	}
}

func TestOneErrorIsEnough(t *testing.T) {
	rules, findings := Read(raws("f.yaml", []byte(`
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: good}
spec: {policies: {timeouts: {t: 1s}}, targets: {}}
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: bad}
spec: {policies: {timeouts: {t: 1x}}, targets: {}}
`)), Who{})
	err := Error(findings)
	if rules != nil || fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), "f.yaml:10: spec.policies.timeouts.t") {
		t.Errorf("got %v, %v", rules, err)
	}
}

// Evaluating an expression ends soon, whatever it is.
func TestTripsAreBounded(t *testing.T) {
	all := strings.Repeat("[1,2,3,4,5,6,7,8].all(a, ", 8) + "true" + strings.Repeat(")", 8)
	trip, err := compileTrip(all)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan bool, 1)
	go func() { done <- trip.Open(resiliency.TripCounts{}) }()
	select {
	case opened := <-done:
		if opened {
			t.Error("an expression that was cut off opens the breaker")
		}
	case <-ctx.Done():
		t.Error("the expression does not end")
	}
}

// Whatever documents hold, reading them ends without a panic, every finding has a place, and what is read is valid.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		for _, raw := range raws(name, data) {
			f.Add(raw.YAML)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 {
			return
		}
		rules, findings := Read(raws("f.yaml", data), Who{})
		for _, finding := range findings {
			if finding.File != "f.yaml" || finding.Line < 1 || finding.Message == "" {
				t.Errorf("%q: %+v", data, finding)
			}
		}
		if (rules == nil) != (manifest.AsError(findings) != nil) {
			t.Errorf("%q: rules %v beside %v", data, rules, findings)
		}
		for _, e := range rules.Explain(standard) {
			if e.Text == "" {
				t.Errorf("%q: nothing to say about %s", data, e.Target)
			}
		}
	})
}

// The example of OpenSergo's specification: the rule is of a namespace, what it refers to is of none.
func TestARuleKnowsStrategiesWithoutANamespace(t *testing.T) {
	const text = `
apiVersion: fault-tolerance.opensergo.io/v1alpha1
kind: ConcurrencyLimitStrategy
metadata: {name: few}
spec: {maxConcurrency: 3, limitMode: Local}
---
apiVersion: fault-tolerance.opensergo.io/v1alpha1
kind: ConcurrencyLimitStrategy
metadata: {name: few, namespace: test}
spec: {maxConcurrency: 5, limitMode: Local}
---
apiVersion: fault-tolerance.opensergo.io/v1alpha1
kind: HttpRequestFallbackAction
metadata: {name: busy}
spec: {behavior: ReturnProvidedResponse, behaviorDesc: {responseStatusCode: 429}}
---
apiVersion: fault-tolerance.opensergo.io/v1alpha1
kind: FaultToleranceRule
metadata: {name: r, namespace: prod}
spec: {targets: [{targetResourceName: /foo}], strategies: [{name: few}], fallbackAction: busy}
---
apiVersion: fault-tolerance.opensergo.io/v1alpha1
kind: FaultToleranceRule
metadata: {name: r, namespace: test}
spec: {targets: [{targetResourceName: /foo}], strategies: [{name: few}]}
`
	for namespace, most := range map[string]int{"prod": 3, "test": 5} {
		ops := read(t, Who{"cart", namespace}, text).Local(standard.Local).Operations
		if len(ops) != 1 || ops[0].Policy.MaxInFlight != most {
			t.Errorf("%s: got %+v", namespace, ops)
		}
	}
}

// A failure mode by itself never repeats what may have been done, unlike a document's retries.
func TestAFailureModeThatTriesAgainRepeatsOnlyWhatIsSafe(t *testing.T) {
	rules := read(t, Who{}, `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: modes}
spec:
  policies: {retries: {own: {maxRetries: 7, duration: 10ms}}}
  targets:
    apps:
      over: {failureMode: failover}
      cache: {failureMode: failcache}
      both: {failureMode: failcache, retry: own}
`)
	answer := func(kind fault.Kind) error { return fault.E("serve", kind, fault.AppFailed, errors.New("of the app")) }
	post, get, marked := resiliency.Call{}, resiliency.Call{Repeatable: true}, resiliency.Call{Idempotent: true}
	for _, c := range []struct {
		what  string
		call  resiliency.Call
		err   error
		alone bool // the mode by itself repeats it
		both  bool // and with a retry
	}{
		{"POST 500", post, answer(fault.Internal), false, true},
		{"POST 409", post, answer(fault.Conflict), false, true},
		{"POST 404", post, answer(fault.NotFound), false, true},
		{"GET 500", get, answer(fault.Internal), true, true},
		{"GET 503", get, answer(fault.Unavailable), true, true},
		{"GET 400", get, answer(fault.Invalid), false, true},
		{"marked 500", marked, answer(fault.Internal), true, true},
		{"marked 404", marked, answer(fault.NotFound), false, true},
		{"POST that was cut off", post, fault.New("call", fault.InstanceLost, "gone"), false, true},
		{"POST that was not sent", post, fault.New("call", fault.Shutdown, "drains"), true, true},
		{"POST that was refused for want of room", post, fault.New("call", fault.TargetFull, "full"), true, true},
	} {
		for app, want := range map[string]bool{"over": c.alone, "cache": c.alone, "both": c.both} {
			if got := repeats(t, rules.App(app, standard.App).Policy, c.call, c.err); got != want {
				t.Errorf("%s, %s: repeated %v, want %v", app, c.what, got, want)
			}
		}
	}
	for app, want := range map[string]string{"over": "2 other instances at once (failover)", "cache": "3 retries, 1s apart"} {
		want += " after failures that may pass, internal ones among them, of calls that were not sent or may be repeated"
		if got := Words(rules.App(app, standard.App).Policy); !strings.Contains(got, want) {
			t.Errorf("got %s", got)
		}
	}
}

// repeats reports whether a lane under p makes another attempt of a call after err.
func repeats(t *testing.T, p resiliency.Policy, c resiliency.Call, err error) bool {
	t.Helper()
	m, now, turn := resiliency.NewBalanced("app/orders", p), time.Unix(0, 0), &resiliency.Turn{}
	m.Step(now, resiliency.SetEndpoints{Endpoints: []resiliency.Endpoint{{ID: "a"}, {ID: "b"}}})
	turn.Begin(c, nil)
	if d := m.Step(now, resiliency.Enter{Turn: turn})[0]; d.Verb != resiliency.Go {
		t.Fatalf("the call did not enter: %+v", d)
	}
	return m.Step(now, &resiliency.Outcome{Turn: turn, Err: err})[0].Verb == resiliency.Again
}

func TestOpenShareMayBeTheUsualOne(t *testing.T) {
	for text, want := range map[string]float64{"true": .0001, "false": 0, "1%": .01} {
		rules := read(t, Who{}, `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: share}
spec: {policies: {circuitBreakers: {b: {openShare: `+text+`}}}, targets: {apps: {a: {circuitBreaker: b}}}}
`)
		if got := rules.App("a", standard.App).Policy.Breaker.OpenShare; got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}

// What is done with components is known where these are, and so is what nothing is done by.
func TestOperationsThatAreNone(t *testing.T) {
	known := []Component{
		{Name: "orders", Type: "state.redis"}, {Name: "events", Type: "pubsub.kafka"}, {Name: "shared", Type: "state.redis"},
		{Name: "shared", Type: "lock.redis"}, {Name: "mail", Type: "bindings.smtp", Operations: []string{"create"}}, {Name: "web", Type: "bindings.http"},
	}
	find := func(component, operation string) []manifest.Finding {
		_, findings := Read(raws("f.yaml", []byte(`
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies: {timeouts: {t: 1s}}
  targets:
    components:
      `+component+`:
        inbound: {operations: {any-topic: {timeout: t}}}
        outbound:
          operations:
            "`+operation+`": {timeout: t}
`)), Who{}, known...)
		return findings
	}
	for component, names := range map[string][]string{
		"orders": {"get", "apply", "*", "l*", "/query"}, "events": {"publish", "publish_batch"}, "shared": {"list", "renew"},
		"mail": {"create"}, "web": {"anything"}, "elsewhere": {"gett"},
	} {
		for _, name := range names {
			if found := find(component, name); found != nil {
				t.Errorf("%s, %s: %v", component, name, found)
			}
		}
	}
	for _, c := range []struct{ component, name, want string }{
		{"orders", "gett", `f.yaml:13: spec.targets.components.orders.outbound.operations.gett: is no operation of state.redis; valid: apply, get, list, outbox, query; did you mean "get"?`},
		{"orders", "GET:/get", `f.yaml:13: spec.targets.components.orders.outbound.operations.GET:/get: is no operation of state.redis; valid: apply, get, list, outbox, query`},
		{"events", "get", `f.yaml:13: spec.targets.components.events.outbound.operations.get: is no operation of pubsub.kafka; valid: publish, publish_batch`},
		{"shared", "publish", `f.yaml:13: spec.targets.components.shared.outbound.operations.publish: is no operation of state.redis or lock.redis; valid: acquire, apply, get, list, outbox, query, release, renew`},
		{"mail", "creat", `f.yaml:13: spec.targets.components.mail.outbound.operations.creat: is no operation of bindings.smtp that is known here, so it has no effect unless the app asks for just that; valid: create; did you mean "create"?`},
	} {
		if found := find(c.component, c.name); len(found) != 1 || found[0].String() != c.want || (found[0].Severity == manifest.Warning) != (c.component == "mail") {
			t.Errorf("%s, %s: %v, want\n%s", c.component, c.name, found, c.want)
		}
	}
}
