package compat

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
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
	t.Parallel()
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
	for contentType, data := range map[string]string{"application/json": `{"a":1}`, "text/plain": "hello", "application/octet-stream": "\x00\xff", "application/vnd.x+json": `{"b":1}`} {
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
		{EntryId: "1", Event: []byte("a"), ContentType: "text/plain"}, {EntryId: "2", Event: []byte("b"), ContentType: "text/plain"}, {EntryId: "3", Event: []byte("\x00\xff"), ContentType: "application/octet-stream"},
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
			if e.GetContentType() != "application/cloudevents+json" {
				t.Errorf("an entry is %v", e)
			}
			seen[string(e.GetCloudEvent().GetData())] = true
		}
	}
	if !seen["a"] || !seen["b"] || !seen["\x00\xff"] {
		t.Errorf("in bulks came %q", slices.Sorted(maps.Keys(seen)))
	}
}

func TestStreamsSubscribe(t *testing.T) {
	t.Parallel()
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
	// An app that closes its side, as the SDKs do, says no more: what it has not answered goes to the next stream.
	d.expect(204, "", "POST", "/v1.0/publish/bus/live", "three")
	third := next(other)
	if err := other.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that was closed ends with %v", err)
	}
	last := open(t.Context())
	if got := next(last); got.Id != third.Id || string(got.Data) != "three" {
		t.Errorf("got %v", got)
	}
	answer(last, third.Id, runtimev1.TopicEventResponse_SUCCESS)
	bad, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = bad.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{})
	if _, err := bad.Recv(); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "initial request is required") {
		t.Errorf("without an initial request: %v", err)
	}
}

func TestAStreamOfATopicThatIsNotTheAppsIsRefused(t *testing.T) {
	t.Parallel()
	d := startWith(t, machine.New(t), `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.in-memory, version: v1, metadata: [{name: subscriptionScopes, value: "app=one"}]}
`, "app")
	stream, err := d.client().SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
		InitialRequest: &runtimev1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: "two"},
	}})
	_, err = stream.Recv()
	fails(t, err, codes.Unknown, "", "failed to create subscription for bus: subscription to topic 'two' on pubsub 'bus' is not allowed")
	openStream(t, d.client(), "one") // is the app's
}

// openStream subscribes by stream.
func openStream(t *testing.T, c runtimev1.DaprClient, topic string) runtimev1.Dapr_SubscribeTopicEventsAlpha1Client {
	t.Helper()
	stream, err := c.SubscribeTopicEventsAlpha1(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_InitialRequest{
		InitialRequest: &runtimev1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: "bus", Topic: topic},
	}}); err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || first.GetInitialResponse() == nil {
		t.Fatal(first, err)
	}
	return stream
}
