package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/tests/machine"
)

// delivered is an event as an app got it.
type delivered struct {
	path  string
	event map[string]any
	kind  string // content type
}

// subscriber is an HTTP app that subscribes and records; says tells what it answers.
type subscriber struct {
	list string
	says func(path string, event map[string]any) (status int, body string)
	got  chan delivered
}

func (s *subscriber) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/dapr/subscribe" {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, s.list)
		return
	}
	if r.Method != http.MethodPost {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	d := delivered{path: r.URL.Path, kind: r.Header.Get("Content-Type")}
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

func TestRoutesVerdictsAndDeadLetters(t *testing.T) {
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
	d.expect(204, "", "POST", "/v1.0/publish/bulk/bus/many", `[{"entryId":"1","event":"a","contentType":"text/plain"},{"entryId":"2","event":"b","contentType":"text/plain"},{"entryId":"3","event":"c","contentType":"text/plain"},{"entryId":"4","event":"d","contentType":"text/plain"}]`)
	data := map[any]bool{}
	for len(data) < 4 {
		got := app.next(t)
		if got.kind != "application/json" || got.event["type"] != "com.dapr.event.sent.bulk" || got.event["topic"] != "many" || got.event["pubsubname"] != "bus" {
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

// listener is a gRPC app that subscribes.
type listener struct {
	callback
	subscriptions []*runtimev1.TopicSubscription
	got           chan *runtimev1.TopicEventRequest
	bulk          chan *runtimev1.TopicEventBulkRequest
	retries       sync.Map
}

func (l *listener) ListTopicSubscriptions(context.Context, *emptypb.Empty) (*runtimev1.ListTopicSubscriptionsResponse, error) {
	return &runtimev1.ListTopicSubscriptionsResponse{Subscriptions: l.subscriptions}, nil
}

func (l *listener) OnTopicEvent(_ context.Context, in *runtimev1.TopicEventRequest) (*runtimev1.TopicEventResponse, error) {
	l.got <- in
	if _, again := l.retries.LoadOrStore(in.GetId(), true); !again && in.GetTopic() == "retried" {
		return &runtimev1.TopicEventResponse{Status: runtimev1.TopicEventResponse_RETRY}, nil
	}
	return &runtimev1.TopicEventResponse{}, nil
}

func (l *listener) OnBulkTopicEvent(_ context.Context, in *runtimev1.TopicEventBulkRequest) (*runtimev1.TopicEventBulkResponse, error) {
	l.bulk <- in
	out := &runtimev1.TopicEventBulkResponse{}
	for _, e := range in.GetEntries() {
		out.Statuses = append(out.Statuses, &runtimev1.TopicEventBulkResponseEntry{EntryId: e.GetEntryId()})
	}
	return out, nil
}

func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(machine.Patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func TestGRPCAppsSubscribe(t *testing.T) {
	app := &listener{got: make(chan *runtimev1.TopicEventRequest, 100), bulk: make(chan *runtimev1.TopicEventBulkRequest, 100)}
	app.subscriptions = []*runtimev1.TopicSubscription{
		{PubsubName: "bus", Topic: "plain"}, {PubsubName: "bus", Topic: "retried"},
		{PubsubName: "bus", Topic: "routed", Routes: &runtimev1.TopicRoutes{Default: "rest", Rules: []*runtimev1.TopicRule{{Match: `event.type == "a"`, Path: "a"}}}},
		{PubsubName: "bus", Topic: "many", BulkSubscribe: &runtimev1.BulkSubscribeConfig{Enabled: true, MaxMessagesCount: 2, MaxAwaitDurationMs: 100}},
	}
	at := serveGRPC(t, func(s *grpc.Server) {
		runtimev1.RegisterAppCallbackServer(s, app)
		runtimev1.RegisterAppCallbackHealthCheckServer(s, callback{})
	})
	d := start(t, machine.New(t), "app", "--app-port", at, "--app-protocol", "grpc", "--enable-app-health-check")
	d.subscribed(4)
	c := d.client()
	publish := func(topic, contentType, data string, md map[string]string) {
		t.Helper()
		if _, err := c.PublishEvent(t.Context(), &runtimev1.PublishEventRequest{PubsubName: "bus", Topic: topic, Data: []byte(data), DataContentType: contentType, Metadata: md}); err != nil {
			t.Fatal(err)
		}
	}
	for contentType, data := range map[string]string{"application/json": `{"a":1}`, "text/plain": "hello", "application/octet-stream": "\x00\xff"} {
		publish("plain", contentType, data, map[string]string{"cloudevent.subject": "s"})
		got := receive(t, app.got)
		if string(got.Data) != data || got.DataContentType != contentType || got.Source != "app" || got.Type != "com.dapr.event.sent" || got.SpecVersion != "1.0" ||
			got.Topic != "plain" || got.PubsubName != "bus" || got.Path != "" || got.Extensions.AsMap()["subject"] != "s" {
			t.Errorf("got %v", got)
		}
	}
	publish("retried", "text/plain", "x", nil)
	if first, second := receive(t, app.got), receive(t, app.got); first.Id != second.Id {
		t.Errorf("%s was asked for again, %s came", first.Id, second.Id)
	}
	publish("routed", "text/plain", "x", map[string]string{"cloudevent.type": "a"})
	publish2 := receive(t, app.got)
	publish("routed", "text/plain", "x", nil)
	if got := receive(t, app.got); publish2.Path != "a" || got.Path != "rest" {
		t.Errorf("the paths are %q and %q", publish2.Path, got.Path)
	}
	answer, err := c.BulkPublishEvent(t.Context(), &runtimev1.BulkPublishRequest{PubsubName: "bus", Topic: "many", Entries: []*runtimev1.BulkPublishRequestEntry{
		{EntryId: "1", Event: []byte("a"), ContentType: "text/plain"}, {EntryId: "2", Event: []byte("b"), ContentType: "text/plain"}, {EntryId: "3", Event: []byte("c"), ContentType: "text/plain"},
	}})
	if err != nil || len(answer.GetFailedEntries()) != 0 {
		t.Fatal(answer, err)
	}
	seen := map[string]bool{}
	for len(seen) < 3 {
		bulk := receive(t, app.bulk)
		if len(bulk.Entries) > 2 || bulk.Type != "com.dapr.event.sent.bulk" || bulk.Topic != "many" {
			t.Errorf("a bulk is %v", bulk)
		}
		for _, e := range bulk.Entries {
			seen[string(e.GetCloudEvent().GetData())] = true
		}
	}
}

func TestStreamsSubscribe(t *testing.T) {
	d := start(t, machine.New(t), "app")
	c := d.client()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	open := func(ctx context.Context) runtimev1.Dapr_SubscribeTopicEventsAlpha1Client {
		t.Helper()
		stream, err := c.SubscribeTopicEventsAlpha1(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
			InitialRequest: &runtimev1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: "live"},
		}}); err != nil {
			t.Fatal(err)
		}
		if first, err := stream.Recv(); err != nil || first.GetInitialResponse() == nil {
			t.Fatal(first, err)
		}
		return stream
	}
	answer := func(stream runtimev1.Dapr_SubscribeTopicEventsAlpha1Client, id string, s runtimev1.TopicEventResponse_TopicEventResponseStatus) {
		t.Helper()
		if err := stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_EventProcessed{
			EventProcessed: &runtimev1.SubscribeTopicEventsRequestProcessedAlpha1{Id: id, Status: &runtimev1.TopicEventResponse{Status: s}},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	next := func(stream runtimev1.Dapr_SubscribeTopicEventsAlpha1Client) *runtimev1.TopicEventRequest {
		t.Helper()
		m, err := stream.Recv()
		if err != nil || m.GetEventMessage() == nil {
			t.Fatal(m, err)
		}
		return m.GetEventMessage()
	}
	stream := open(ctx)
	d.expect(204, "", "POST", "/v1.0/publish/bus/live", "one")
	first := next(stream)
	answer(stream, first.Id, runtimev1.TopicEventResponse_RETRY)
	if again := next(stream); again.Id != first.Id || string(again.Data) != "one" || again.Path != "/" {
		t.Errorf("got %v", again)
	}
	if !strings.Contains(d.do("GET", "/v1.0/metadata", "").body, `"topic":"live","rules":[{"path":"/"}],"deadLetterTopic":"","type":"STREAMING"`) {
		t.Error("metadata does not show the stream")
	}
	cancel() // without an answer: the next stream gets the event
	other := open(t.Context())
	got := next(other)
	if got.Id != first.Id {
		t.Errorf("got %v", got)
	}
	answer(other, got.Id, runtimev1.TopicEventResponse_SUCCESS)
	d.expect(204, "", "POST", "/v1.0/publish/bus/live", "two")
	if got := next(other); string(got.Data) != "two" {
		t.Errorf("got %v", got)
	} else {
		answer(other, got.Id, runtimev1.TopicEventResponse_SUCCESS)
	}
	bad, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = bad.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{})
	if _, err := bad.Recv(); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "initial request is required") {
		t.Errorf("without an initial request: %v", err)
	}
}
