package governance

import (
	"context"
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
	rules, _ := Read(folder(t, "testdata/extended"), Who{})
	s := rules.AppStreams("orders", standard.App).Policy
	calls := rules.App("orders", standard.App).Policy
	if calls.AttemptTimeout == 0 || calls.Fallback == nil && calls.Hedge.After == 0 && calls.AdaptiveTimeout.Multiplier == 0 {
		t.Fatalf("nothing is there to be left out: %+v", calls)
	}
	if s.CallTimeout != calls.CallTimeout || s.AttemptTimeout != calls.AttemptTimeout || s.Retry.NonIdempotent != calls.Retry.NonIdempotent {
		t.Errorf("calls have %+v, streams %+v", calls, s)
	}
	if s.Hedge.After != 0 || s.Fallback != nil || s.AdaptiveTimeout != (resiliency.AdaptiveTimeout{}) || s.Mode == resiliency.Failsafe {
		t.Errorf("got %+v", s)
	}
	if s.Breaker.Failures != 5 {
		t.Errorf("the breaker of calls guards streams too: %+v", s.Breaker)
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
