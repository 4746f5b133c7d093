package compat

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/tests/machine"
)

// delivered is an event as an app got it.
type delivered struct {
	path  string
	event map[string]any
	kind  string // content type
	trace string
}

// subscriber is an HTTP app that subscribes and records; says tells what it answers.
type subscriber struct {
	list string
	says func(path string, event map[string]any) (status int, body string)
	got  chan delivered
}

func (s *subscriber) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/dapr/subscribe" {
		if r.Header.Get("Dapr-App-Id") == "" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, s.list)
		return
	}
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	d := delivered{path: r.URL.Path, kind: r.Header.Get("Content-Type"), trace: r.Header.Get("traceparent")}
	_ = json.NewDecoder(r.Body).Decode(&d.event)
	status, body := 200, ""
	if s.says != nil {
		status, body = s.says(d.path, d.event)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
	s.got <- d
}

func newSubscriber(list string) *subscriber {
	return &subscriber{list: list, got: make(chan delivered, 1000)}
}

func (s *subscriber) next(t testing.TB) delivered {
	t.Helper()
	select {
	case d := <-s.got:
		return d
	case <-time.After(machine.Patience):
		t.Fatal("no event came")
		panic("unreachable")
	}
}

// subscribed waits until metadata shows n subscriptions.
func (d *daprd) subscribed(n int) {
	d.t.Helper()
	d.await("/v1.0/healthz")
	machine.Until(d.t, "subscriptions", func() error {
		var m struct{ Subscriptions []struct{ Topic string } }
		if err := json.Unmarshal([]byte(d.do("GET", "/v1.0/metadata", "").body), &m); err != nil {
			return err
		}
		if len(m.Subscriptions) != n {
			return fmt.Errorf("there are %v", m.Subscriptions)
		}
		return nil
	})
}

func TestPublishedEventsAreCloudEvents(t *testing.T) {
	t.Parallel()
	app := newSubscriber(`[{"pubsubname":"bus","topic":"orders","route":"/orders"}]`)
	d := start(t, machine.New(t), "app", "--app-port", serve(t, app))
	d.subscribed(1)
	check := func(what string, event map[string]any, want map[string]any) {
		t.Helper()
		for key, value := range want {
			if fmt.Sprint(event[key]) != fmt.Sprint(value) {
				t.Errorf("%s: %s is %v, not %v", what, key, event[key], value)
			}
		}
	}
	common := map[string]any{"specversion": "1.0", "source": "app", "type": "com.dapr.event.sent", "topic": "orders", "pubsubname": "bus"}
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders", `{"n":1}`, "Content-Type: application/json")
	got := app.next(t)
	if got.path != "/orders" || got.kind != "application/cloudevents+json" || got.event["id"] == "" || got.event["time"] == "" {
		t.Errorf("got %+v", got)
	}
	check("JSON", got.event, common)
	check("JSON", got.event, map[string]any{"datacontenttype": "application/json", "data": map[string]any{"n": 1}})
	if parent := fmt.Sprint(got.event["traceparent"]); !regexp.MustCompile("^00-[0-9a-f]{32}-[0-9a-f]{16}-00$").MatchString(parent) || strings.Contains(parent, "-0000000000000000-") {
		t.Errorf("without a trace: traceparent is %s", parent)
	}
	d.expect(204, "", "PUT", "/v1.0/publish/bus/orders", `hello`)
	check("nothing said", app.next(t).event, map[string]any{"datacontenttype": "text/plain", "data": "hello"})
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders", "\x00\x01", "Content-Type: application/octet-stream")
	check("binary", app.next(t).event, map[string]any{"datacontenttype": "application/octet-stream", "data_base64": "AAE="})
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders", `{broken`, "Content-Type: application/json")
	check("broken JSON", app.next(t).event, map[string]any{"datacontenttype": "application/json", "data": "{broken"})
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders?metadata.cloudevent.id=mine&metadata.cloudevent.type=made&metadata.cloudevent.source=here&metadata.cloudevent.subject=it&metadata.cloudevent.traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", `x`)
	check("overrides", app.next(t).event, map[string]any{"id": "mine", "type": "made", "source": "here", "subject": "it",
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "traceid": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders", `{"specversion":"1.0","id":"own","source":"s","type":"t","ext":{"deep":[1]},"data":12345678901234567890}`, "Content-Type: application/cloudevents+json; charset=utf-8")
	got = app.next(t)
	check("a CloudEvent", got.event, map[string]any{"id": "own", "source": "s", "type": "t", "topic": "orders", "pubsubname": "bus", "ext": map[string]any{"deep": []any{1}}})
	if got.event["time"] == nil {
		t.Error("a CloudEvent without a time is not completed")
	}
	// Expired before it could be delivered: the one that follows comes first.
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders?metadata.ttlInSeconds=100", `stays`)
	if got := app.next(t).event; got["data"] != "stays" || got["expiration"] == nil {
		t.Errorf("got %v", got)
	}
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders", `{"specversion":"1.0","id":"x","source":"s","type":"t","expiration":"2001-01-01T00:00:00Z"}`, "Content-Type: application/cloudevents+json")
	d.expect(204, "", "POST", "/v1.0/publish/bus/orders", `after`)
	check("after one that has expired", app.next(t).event, map[string]any{"data": "after"})
}

func TestBadPublishRequests(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "limited")
	d.expect(404, `{"errorCode":"ERR_PUBSUB_NOT_FOUND","message":"pubsub nope is not found","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","domain":"dapr.io","metadata":{},"reason":"DAPR_PUBSUB_NOT_FOUND"}]}`, "POST", "/v1.0/publish/nope/t", "")
	d.expect(400, `{"errorCode":"ERR_PUBSUB_REQUEST_METADATA","message":"failed deserializing metadata. Error: …`, "POST", "/v1.0/publish/bus/orders?metadata.rawPayload=perhaps", "")
	d.expect(500, `{"errorCode":"ERR_PUBSUB_CLOUD_EVENTS_SER","message":"cannot create cloudevent",…`, "POST", "/v1.0/publish/bus/orders", "no json", "Content-Type: application/cloudevents+json")
	for topic, code := range map[string]int{"orders": 204, "others": 403, "secret": 403} {
		if got := d.do("POST", "/v1.0/publish/bus/"+topic, "x"); got.status != code {
			t.Errorf("to %s: %d %s", topic, got.status, got.body)
		}
	}
	d.expect(403, `{"errorCode":"ERR_PUBSUB_FORBIDDEN","message":"topic secret is not allowed for app id limited",…`, "POST", "/v1.0/publish/bus/secret", "x")
	for _, version := range []string{"v1.0", "v1.0-alpha1"} {
		bulk := "/" + version + "/publish/bulk/bus/orders"
		d.expect(204, "", "POST", bulk, `[{"entryId":"1","event":{"a":1},"contentType":"application/json"},{"entryId":"2","event":"text","contentType":"text/plain"},{"entryId":"3","event":"AAE=","contentType":"application/octet-stream"}]`)
		d.expect(400, `{"errorCode":"ERR_PUBSUB_EVENTS_SER","message":"error when unmarshaling the request for topic orders pubsub bus: …`, "POST", bulk, `nonsense`)
		d.expect(400, `{"errorCode":"ERR_PUBSUB_EVENTS_SER","message":"error marshaling events to bytes for topic orders pubsub bus. error: entryId is duplicated or not present for entry",…`, "POST", bulk, `[{"event":"x","contentType":"text/plain"}]`)
		d.expect(400, `{"errorCode":"ERR_PUBSUB_EVENTS_SER","message":"error when marshalling cloud event envelope for topic orders pubsub bus: error: mismatch between contentType and event",…`, "POST", bulk, `[{"entryId":"1","event":{"a":1},"contentType":"text/plain"}]`)
	}
	c := d.client()
	_, err := c.PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: "nope", Topic: "t"})
	fails(t, err, codes.InvalidArgument, "DAPR_PUBSUB_NOT_FOUND", "pubsub nope is not found")
	_, err = c.PublishEvent(t.Context(), &runtimev1.PublishEventRequest{Topic: "t"})
	fails(t, err, codes.InvalidArgument, "DAPR_PUBSUB_NAME_EMPTY", "pubsub name is empty")
	_, err = c.PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: "bus"})
	fails(t, err, codes.InvalidArgument, "DAPR_PUBSUB_TOPIC_NAME_EMPTY", "topic is empty in pubsub bus")
	_, err = c.PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: "bus", Topic: "secret"})
	fails(t, err, codes.PermissionDenied, "DAPR_PUBSUB_FORBIDDEN", "topic secret is not allowed for app id limited")
}

// What has become of a bulk that fails is told in the header, too.
func TestABulkThatFails(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	path := "/v1.0/publish/bulk/bus/" + strings.Repeat("x", 300) // no topic has such a name
	got := d.expect(500, `{"failedEntries":[{"entryId":"1","error":"…`, "POST", path, `[{"entryId":"1","event":"x","contentType":"text/plain"}]`)
	if !strings.HasSuffix(got.body, `"}],"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE"}`) || got.header.Get("metadata.responseData") != got.body ||
		!strings.HasPrefix(got.header.Get("metadata.error"), "api error: code = Internal desc = error when publishing to topic xx") {
		t.Errorf("got %s %v", got.body, got.header)
	}
}

func TestRoutesVerdictsAndDeadLetters(t *testing.T) {
	t.Parallel()
	app := newSubscriber(`[
		{"pubsubname":"bus","topic":"routed","routes":{"rules":[{"match":"event.type == \"big\"","path":"/big"},{"match":"event.data.n > 5","path":"/many"}],"default":"/rest"}},
		{"pubsubname":"bus","topic":"strict","routes":{"rules":[{"match":"event.type == \"big\"","path":"/strict"}]},"deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"flaky","route":"/flaky"},
		{"pubsubname":"bus","topic":"hopeless","route":"/hopeless","deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"dropped","route":"/dropped","deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"missing","route":"/missing","deadLetterTopic":"dead"},
		{"pubsubname":"bus","topic":"dead","route":"/dead"},
		{"pubsubname":"bus","topic":"raw","route":"/raw","metadata":{"rawPayload":"true"}}]`)
	var mu sync.Mutex
	tries := map[string]int{}
	app.says = func(path string, event map[string]any) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		tries[path]++
		switch {
		case path == "/flaky" && tries[path] == 1:
			return 200, `{"status":"RETRY"}`
		case path == "/flaky" && tries[path] == 2:
			return 500, ""
		case path == "/flaky" && tries[path] == 3:
			return 200, `{"status":"MAYBE"}`
		case path == "/hopeless":
			return 200, `{"status":"RETRY"}`
		case path == "/dropped":
			return 200, `{"status":"DROP"}`
		case path == "/missing":
			return 404, ""
		}
		return 200, `{"status":"SUCCESS"}`
	}
	d := start(t, machine.New(t), "app", "--app-port", serve(t, app))
	d.subscribed(8)
	publish := func(topic, body string, fields ...string) {
		t.Helper()
		d.expect(204, "", "POST", "/v1.0/publish/bus/"+topic, body, append(fields, "Content-Type: application/json")...)
	}
	arrives := func(paths ...string) (last delivered) {
		t.Helper()
		for _, path := range paths {
			if last = app.next(t); last.path != path {
				t.Fatalf("an event came to %s, not %s: %v", last.path, path, last.event)
			}
		}
		return last
	}
	publish("routed?metadata.cloudevent.type=big", `{"n":9}`)
	arrives("/big")
	publish("routed", `{"n":9}`)
	arrives("/many")
	publish("routed", `{"n":5}`)
	arrives("/rest")
	publish("strict", `1`)
	if got := arrives("/dead"); fmt.Sprint(got.event["data"]) != "1" || got.event["topic"] != "strict" {
		t.Errorf("what no route matches comes to the dead-letter topic as %v", got.event)
	}
	publish("flaky", `2`)
	arrives("/flaky", "/flaky", "/flaky", "/flaky")
	publish("hopeless", `3`)
	arrives("/hopeless", "/dead")
	publish("dropped", `4`)
	arrives("/dropped", "/dead")
	publish("missing", `5`)
	arrives("/missing", "/dead")
	publish("raw?metadata.rawPayload=true", `{"x":1}`)
	if got := arrives("/raw"); got.event["data_base64"] != "eyJ4IjoxfQ==" || got.event["datacontenttype"] != "application/octet-stream" || got.event["specversion"] != "1.0" {
		t.Errorf("a raw payload comes as %v", got.event)
	}
	publish("flaky?metadata.rawPayload=true", `{"x":2}`)
	if got := arrives("/flaky"); fmt.Sprint(got.event["x"]) != "2" {
		t.Errorf("a raw payload comes to one who asked for CloudEvents as %v", got.event)
	}
}

func TestDeclaredSubscriptionsAndBulk(t *testing.T) {
	t.Parallel()
	app := newSubscriber(`[{"pubsubname":"bus","topic":"many","route":"/many","bulkSubscribe":{"enabled":true,"maxMessagesCount":3,"maxAwaitDurationMs":200}}]`)
	app.says = func(path string, event map[string]any) (int, string) {
		var statuses []string
		entries, _ := event["entries"].([]any)
		for _, e := range entries {
			statuses = append(statuses, fmt.Sprintf(`{"entryId":%q,"status":"SUCCESS"}`, e.(map[string]any)["entryId"]))
		}
		return 200, `{"statuses":[` + strings.Join(statuses, ",") + `]}`
	}
	yaml := resources + `
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: one}
spec: {pubsubname: bus, topic: one, route: /one, metadata: {whatever: "1"}}
scopes: [app]
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: two}
spec:
  pubsubname: bus
  topic: two
  routes: {rules: [{match: event.type == "a", path: /a}], default: /b}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: others}
spec: {pubsubname: bus, topic: one, routes: {default: /no}}
scopes: [another]
`
	d := startWith(t, machine.New(t), yaml, "app", "--app-port", serve(t, app))
	d.subscribed(3)
	for topic, path := range map[string]string{"one": "/one", "two?metadata.cloudevent.type=a": "/a", "two": "/b"} {
		d.expect(204, "", "POST", "/v1.0/publish/bus/"+topic, "x")
		if got := app.next(t); got.path != path {
			t.Errorf("%s came to %s", topic, got.path)
		}
	}
	d.expect(204, "", "POST", "/v1.0/publish/bulk/bus/many", `[{"entryId":"1","event":"a","contentType":"text/plain"},{"entryId":"2","event":"b","contentType":"text/plain"},{"entryId":"3","event":"c","contentType":"text/plain"},{"entryId":"4","event":"d","contentType":"text/plain"}]`, "traceparent: "+traceParent)
	data := map[any]bool{}
	for len(data) < 4 {
		got := app.next(t)
		if got.kind != "application/json" || got.event["type"] != "com.dapr.event.sent.bulk" || got.event["topic"] != "many" || got.event["pubsubname"] != "bus" || got.trace != traceParent {
			t.Fatalf("a bulk is %+v", got)
		}
		entries := got.event["entries"].([]any)
		if len(entries) == 0 || len(entries) > 3 {
			t.Errorf("%d entries at once", len(entries))
		}
		for _, e := range entries {
			entry := e.(map[string]any)
			data[entry["event"].(map[string]any)["data"]] = true
		}
	}
	metadata := d.do("GET", "/v1.0/metadata", "").body
	for _, want := range []string{
		`"pubsubname":"bus","topic":"one","metadata":{"whatever":"1"},"rules":[{"path":"/one"}],"deadLetterTopic":"","type":"DECLARATIVE"`,
		`"topic":"two","rules":[{"match":"event.type == \"a\"","path":"/a"},{"path":"/b"}]`, `"topic":"many","rules":[{"path":"/many"}],"deadLetterTopic":"","type":"PROGRAMMATIC"`,
	} {
		if !strings.Contains(metadata, want) {
			t.Errorf("metadata has no %s: %s", want, metadata)
		}
	}
}
