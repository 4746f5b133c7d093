package compat

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sidecast/sidecast/tests/machine"
)

// policies is a Resiliency resource that one app alone has.
const policies = `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
scopes: [guarded]
spec:
  policies:
    timeouts:
      soon: 200ms
    retries:
      twice: {policy: constant, duration: 10ms, maxRetries: 2}
      some: {policy: constant, duration: 10ms, maxRetries: 2, matching: {httpStatusCodes: "503"}}
    rateLimits:
      once: {limit: 1, per: 1h}
    circuitBreakers:
      quick: {maxRequests: 1, timeout: 1h, trip: consecutiveFailures >= 3}
  targets:
    apps:
      flaky: {retry: some}
      slow: {timeout: soon}
      broken: {circuitBreaker: quick}
      proxied: {circuitBreaker: quick}
      limited: {rateLimit: once}
    components:
      bus:
        inbound: {retry: twice}
      store:
        outbound: {rateLimit: once}
`

// tries counts how often an app was asked for something.
type tries struct {
	mu  sync.Mutex
	all map[string]int
}

func (c *tries) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[string]int{}
	}
	c.all[what]++
	return c.all[what]
}

func (c *tries) of(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[what]
}

// subscribing is an app that has its fill of trouble: /hopeless never takes an event, /shaky and /alone do at last.
func subscribing() (*subscriber, *tries) {
	app := newSubscriber(`[
		{"pubsubname":"bus","topic":"hopeless","route":"/hopeless","deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"shaky","route":"/shaky","deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"dropped","route":"/dropped","deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"alone","route":"/alone"},
		{"pubsubname":"bus","topic":"dead","route":"/dead"}]`)
	asked := &tries{}
	app.says = func(path string, _ map[string]any) (int, string) {
		n := asked.count(path)
		switch {
		case path == "/hopeless" && n%2 == 1, path == "/alone" && n <= 3:
			return 200, `{"status":"RETRY"}`
		case path == "/hopeless", path == "/shaky" && n <= 2:
			return 500, ""
		case path == "/dropped":
			return 200, `{"status":"DROP"}`
		}
		return 200, ""
	}
	return app, asked
}

// arrive fails the test unless events come to these paths, in this order.
func (s *subscriber) arrive(t *testing.T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if got := s.next(t); got.path != path {
			t.Fatalf("an event came to %s, not %s: %v", got.path, path, got.event)
		}
	}
}

// A policy that a document names for a component's inbound side is what decides how often an event is tried before it goes
// to the dead-letter topic, or back to the broker where there is none.
func TestInboundRetriesComeBeforeDeadLetters(t *testing.T) {
	t.Parallel()
	app, asked := subscribing()
	d := startWith(t, machine.New(t), resources+"---"+policies, "guarded", "--app-port", serve(t, app))
	d.subscribed(5)
	publish := func(topic string) {
		t.Helper()
		d.expect(204, "", "POST", "/v1.0/publish/bus/"+topic, "x")
	}
	publish("hopeless")
	app.arrive(t, "/hopeless", "/hopeless", "/hopeless", "/dead")
	publish("shaky")
	app.arrive(t, "/shaky", "/shaky", "/shaky")
	publish("dropped")
	app.arrive(t, "/dropped", "/dead")
	publish("alone")
	app.arrive(t, "/alone", "/alone", "/alone", "/alone")
	publish("shaky")
	app.arrive(t, "/shaky")
	if n := asked.of("/dead"); n != 2 {
		t.Errorf("%d events went to the dead-letter topic, not 2", n)
	}
}

// Without a policy of its own an app has one try before the dead-letter topic, and the broker's pace where there is none.
func TestPoliciesOfOthersDoNotApply(t *testing.T) {
	t.Parallel()
	app, _ := subscribing()
	d := startWith(t, machine.New(t), resources+"---"+policies, "other", "--app-port", serve(t, app))
	d.subscribed(5)
	d.expect(204, "", "POST", "/v1.0/publish/bus/hopeless", "x")
	app.arrive(t, "/hopeless", "/dead")
	d.expect(204, "", "POST", "/v1.0/publish/bus/alone", "x")
	app.arrive(t, "/alone", "/alone", "/alone", "/alone")
}

// unsteady answers 503 twice and then 200 under /flaky, 500 under /broken, and nothing under /slow.
func unsteady(asked *tries) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.count(r.URL.Path); {
		case r.URL.Path == "/flaky" && n <= 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/slow":
			<-r.Context().Done()
		case r.URL.Path == "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case r.URL.Path == "/flaky":
			_, _ = fmt.Fprintf(w, "try %d", n)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
}

// Documents guard calls through Dapr's API, whether they stand in a folder or in a file that --config names.
func TestPoliciesGuardInvocation(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "config.yaml")
	document := "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: daprConfig}\nspec: {mtls: {enabled: false}}\n---" + policies
	if err := os.WriteFile(config, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	m, asked := machine.New(t), &tries{}
	port := serve(t, unsteady(asked))
	for _, app := range []string{"flaky", "slow", "broken", "limited"} {
		start(t, m, app, "--app-port", port).await("/v1.0/healthz")
	}
	d := startWith(t, m, resources, "guarded", "--config", config)
	other := startWith(t, m, policies, "other")
	if out := d.Output(); !strings.Contains(out, "spec: has no effect in mtls") {
		t.Errorf("nothing is said of the Configuration:\n%s", out)
	}

	d.expect(200, "try 3", "POST", "/v1.0/invoke/flaky/method/flaky", "x")
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: slow, err: …`, "GET", "/v1.0/invoke/slow/method/slow", "")
	for range 3 {
		d.expect(500, "", "GET", "/v1.0/invoke/broken/method/broken", "")
	}
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: broken, err: …`, "GET", "/v1.0/invoke/broken/method/broken", "")
	if n := asked.of("/broken"); n != 3 {
		t.Errorf("the app saw %d calls; its breaker opens at the third", n)
	}
	_, err := d.client().InvokeService(context.Background(), &runtimev1.InvokeServiceRequest{Id: "broken", Message: &commonv1.InvokeRequest{
		Method: "broken", HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_GET},
	}})
	if status.Code(err) != codes.Internal || asked.of("/broken") != 3 {
		t.Errorf("over gRPC the open breaker answers %v, and the app saw %d calls", err, asked.of("/broken"))
	}

	// A limit is nothing that daprd knows: the client is told to come again.
	d.expect(404, "", "GET", "/v1.0/invoke/limited/method/any", "")
	refused := d.expect(429, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: limited, err: …`, "GET", "/v1.0/invoke/limited/method/any", "")
	d.expect(204, "", "GET", "/v1.0/state/store/any", "")
	also := d.expect(429, `{"errorCode":"ERR_STATE_GET",…`, "GET", "/v1.0/state/store/any", "")
	if seconds := refused.header.Get("Retry-After"); seconds == "" || also.header.Get("Retry-After") == "" {
		t.Errorf("a refusal says Retry-After %q, another %q", seconds, also.header.Get("Retry-After"))
	}
	_, err = d.client().GetState(context.Background(), &runtimev1.GetStateRequest{StoreName: "store", Key: "any"})
	if details := status.Convert(err).Details(); status.Code(err) != codes.ResourceExhausted || len(details) == 0 || details[len(details)-1].(*errdetails.RetryInfo).GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("over gRPC a refusal is %v with %v", err, details)
	}

	asked.mu.Lock()
	clear(asked.all)
	asked.mu.Unlock()
	if got := other.do("POST", "/v1.0/invoke/flaky/method/flaky", "x"); got.status != 503 || asked.of("/flaky") != 1 {
		t.Errorf("an app that the scopes leave out got %d after %d tries", got.status, asked.of("/flaky"))
	}
}

// A route of an app may have less room than the others, and its callers may have a way of their own to attempt calls of it.
func TestRulesForOperations(t *testing.T) {
	t.Parallel()
	m, asked := machine.New(t), &tries{}
	reporting, release := make(chan struct{}, 8), make(chan struct{})
	port := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.count(r.URL.Path)
		switch r.URL.Path {
		case "/report":
			reporting <- struct{}{}
			<-release
		case "/pay", "/order":
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	const kind = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: rules}\nspec:\n"
	startWith(t, m, kind+`
  policies: {concurrency: {one: {maxInFlight: 1, maxQueue: 0}}}
  targets: {app: {operations: {/report: {concurrency: one}}}}
`, "shop", "--app-port", port).await("/v1.0/healthz")
	till := startWith(t, m, kind+`
  policies:
    retries: {twice: {duration: 10ms, maxRetries: 2}}
    fallbacks: {later: {status: 202}}
  targets: {apps: {shop: {retry: twice, fallback: later, operations: {"POST:/pay": {failureMode: failback}}}}}
`, "till")
	plain := start(t, m, "plain")

	var first sync.WaitGroup
	first.Go(func() {
		if got := plain.do("GET", "/v1.0/invoke/shop/method/report", ""); got.status != 200 {
			t.Errorf("the first report: %+v", got)
		}
	})
	<-reporting
	plain.expect(429, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: shop, err: …`, "GET", "/v1.0/invoke/shop/method/report", "")
	for range 5 {
		plain.expect(200, "", "GET", "/v1.0/invoke/shop/method/cart", "")
	}
	close(release)
	first.Wait()

	till.expect(202, "", "POST", "/v1.0/invoke/shop/method/order", "x")
	till.expect(503, "", "POST", "/v1.0/invoke/shop/method/pay", "x")
	if orders, payments := asked.of("/order"), asked.of("/pay"); orders != 3 || payments != 1 {
		t.Errorf("%d orders and %d payments were made", orders, payments)
	}
}

// A large body and a proxied call travel as streams: what the app answers in the end is what their breakers go by.
func TestBreakersSeeTheAnswersOfStreams(t *testing.T) {
	t.Parallel()
	m, asked := machine.New(t), &tries{}
	start(t, m, "broken", "--app-port", serve(t, unsteady(asked))).await("/v1.0/healthz")
	start(t, m, "proxied", "--app-port", grpcApp(t), "--app-protocol", "grpc").await("/v1.0/healthz")
	d := startWith(t, m, policies, "guarded")
	large := strings.Repeat("x", 2<<20)
	conn := dial(t, d.grpc)
	fail := func() codes.Code {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "proxied")
		return status.Code(conn.Invoke(ctx, "/test.Streams/Echo", &wrapperspb.BytesValue{Value: []byte("fail")}, &wrapperspb.BytesValue{}))
	}
	for range 3 {
		d.expect(500, "", "POST", "/v1.0/invoke/broken/method/broken", large)
		if code := fail(); code != codes.DataLoss {
			t.Errorf("the app's own status comes as %s", code)
		}
	}
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: broken, err: …`, "POST", "/v1.0/invoke/broken/method/broken", large)
	if n := asked.of("/broken"); n != 3 {
		t.Errorf("the app saw %d calls; its breaker opens at the third", n)
	}
	if code := fail(); code != codes.Unavailable {
		t.Errorf("the open breaker answers %s", code)
	}
}

// An app that takes few events at once gets bulks of that few, at once, and not when their time is up.
func TestBulksAreNoLargerThanWhatTheAppTakesAtOnce(t *testing.T) {
	t.Parallel()
	app := newSubscriber(`[{"pubsubname":"bus","topic":"many","route":"/many","bulkSubscribe":{"enabled":true,"maxMessagesCount":100,"maxAwaitDurationMs":3600000}}]`)
	d := start(t, machine.New(t), "app", "--app-port", serve(t, app), "--app-max-concurrency", "2")
	app.says = func(_ string, event map[string]any) (int, string) {
		var statuses []string
		for _, entry := range event["entries"].([]any) {
			statuses = append(statuses, fmt.Sprintf(`{"entryId":%q,"status":"SUCCESS"}`, entry.(map[string]any)["entryId"]))
		}
		return 200, `{"statuses":[` + strings.Join(statuses, ",") + `]}`
	}
	d.subscribed(1)
	for range 4 {
		d.expect(204, "", "POST", "/v1.0/publish/bus/many", "x")
	}
	for range 2 {
		if entries := app.next(t).event["entries"].([]any); len(entries) != 2 {
			t.Errorf("a bulk holds %d events", len(entries))
		}
	}
}

// daprd has neither a breaker nor a timeout that no document asks for: an app may answer with as many errors as it likes.
func TestCallsThatNoPolicyIsForAreNotCutOff(t *testing.T) {
	m, asked := machine.New(t), &tries{}
	start(t, m, "broken", "--app-port", serve(t, unsteady(asked))).await("/v1.0/healthz")
	d := start(t, m, "caller")
	const calls = 120
	for range calls {
		d.expect(500, "", "GET", "/v1.0/invoke/broken/method/broken", "")
	}
	if n := asked.of("/broken"); n != calls {
		t.Errorf("the app saw %d of %d calls", n, calls)
	}
}
