package gosdk

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprgrpc "github.com/dapr/go-sdk/service/grpc"
	daprhttp "github.com/dapr/go-sdk/service/http"
)

// service is an app of either protocol.
type service struct {
	common.Service
	mu     sync.Mutex
	events map[string][]*common.TopicEvent
	failed bool
	ticks  []*common.BindingEvent
}

// serve runs an app until the test ends, and returns its port.
func serve(t *testing.T, protocol string) (*service, string) {
	t.Helper()
	port := freePort(t)
	s := &service{events: map[string][]*common.TopicEvent{}}
	if protocol == "http" {
		s.Service = daprhttp.NewService("127.0.0.1:" + port)
	} else {
		var err error
		if s.Service, err = daprgrpc.NewService("127.0.0.1:" + port); err != nil {
			t.Fatal(err)
		}
	}
	add := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add(s.AddServiceInvocationHandler("/echo", func(_ context.Context, in *common.InvocationEvent) (*common.Content, error) {
		return &common.Content{Data: fmt.Appendf(nil, "%s %s %s", in.Verb, in.QueryString, in.Data), ContentType: in.ContentType}, nil
	}))
	record := func(topic string, answer func() (bool, error)) common.TopicEventHandler {
		return func(_ context.Context, e *common.TopicEvent) (bool, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events[topic] = append(s.events[topic], e)
			return answer()
		}
	}
	fine := func() (bool, error) { return false, nil }
	add(s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "plain", Route: "/plain"}, record("plain", fine)))
	add(s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "routed", Route: "/big", Match: `event.type == "big"`, Priority: 1}, record("big", fine)))
	add(s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "routed", Route: "/rest"}, record("rest", fine)))
	add(s.AddTopicEventHandler(&common.Subscription{PubsubName: "bus", Topic: "again", Route: "/again"}, record("again", func() (bool, error) {
		if !s.failed {
			s.failed = true
			return true, fmt.Errorf("not now")
		}
		return false, nil
	})))
	add(s.AddBindingInvocationHandler("tick", func(_ context.Context, in *common.BindingEvent) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ticks = append(s.ticks, in)
		return nil, nil
	}))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Start(); err != nil && !strings.Contains(err.Error(), "closed") {
			t.Errorf("the app ended: %v", err)
		}
	}()
	t.Cleanup(func() {
		_ = s.Stop()
		<-ended
	})
	return s, port
}

func (s *service) count(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.events[topic])
}

func TestInvocation(t *testing.T) {
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			dir := group(t)
			_, port := serve(t, protocol)
			sidecar(t, dir, "server", "--app-port", port, "--app-protocol", protocol)
			c := sidecar(t, dir, "client")
			got, err := c.InvokeMethodWithContent(t.Context(), "server", "echo?a=1", "post", &client.DataContent{ContentType: "text/plain", Data: []byte("hi")})
			if err != nil || string(got) != "POST a=1 hi" {
				t.Errorf("got %q %v", got, err)
			}
			if _, err := c.InvokeMethod(t.Context(), "server", "none", "get"); err == nil {
				t.Error("a method that is not there answers")
			}
		})
	}
}

func TestPubSub(t *testing.T) {
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			app, port := serve(t, protocol)
			c, ctx := sidecar(t, group(t), "app", "--app-port", port, "--app-protocol", protocol), t.Context()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(c.PublishEvent(ctx, "bus", "plain", map[string]int{"n": 1}))
			must(c.PublishEvent(ctx, "bus", "plain", "text", client.PublishEventWithContentType("text/plain")))
			must(c.PublishEvent(ctx, "bus", "routed", "x", client.PublishEventWithMetadata(map[string]string{"cloudevent.type": "big"})))
			must(c.PublishEvent(ctx, "bus", "routed", "x"))
			must(c.PublishEvent(ctx, "bus", "again", "x"))
			if failed := c.PublishEvents(ctx, "bus", "plain", []any{"a", "b", "c"}); failed.Error != nil {
				t.Error(failed.Error)
			}
			for topic, n := range map[string]int{"plain": 5, "big": 1, "rest": 1, "again": 2} {
				until(t, fmt.Sprintf("%d events of %s", n, topic), func() bool { return app.count(topic) >= n })
				if got := app.count(topic); got != n {
					t.Errorf("%d events of %s, not %d", got, topic, n)
				}
			}
			app.mu.Lock()
			defer app.mu.Unlock()
			found := false
			for _, e := range app.events["plain"] {
				var data map[string]int
				found = found || json.Unmarshal(e.RawData, &data) == nil && data["n"] == 1 && e.PubsubName == "bus" && e.Topic == "plain" && e.ID != "" && e.Source == "app"
			}
			if !found {
				t.Errorf("no event is the JSON that was published: %+v", app.events["plain"])
			}
		})
	}
}

func TestBindings(t *testing.T) {
	for _, protocol := range []string{"http", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			app, port := serve(t, protocol)
			more := t.TempDir()
			yaml := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: tick}\nspec: {type: bindings.cron, version: v1, metadata: [{name: schedule, value: '@every 1s'}]}\n---\n" +
				"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: files}\nspec: {type: bindings.localstorage, version: v1, metadata: [{name: rootPath, value: " + t.TempDir() + "}]}\n"
			if err := os.WriteFile(filepath.Join(more, "bindings.yaml"), []byte(yaml), 0o600); err != nil {
				t.Fatal(err)
			}
			c := sidecar(t, group(t), "app", "--resources-path", more, "--app-port", port, "--app-protocol", protocol)
			in := &client.InvokeBindingRequest{Name: "files", Operation: "create", Data: []byte("text!"), Metadata: map[string]string{"fileName": "f"}}
			if out, err := c.InvokeBinding(t.Context(), in); err != nil || string(out.Data) != `{"fileName":"f"}` {
				t.Errorf("got %v %v", out, err)
			}
			in.Operation, in.Data = "get", nil
			if out, err := c.InvokeBinding(t.Context(), in); err != nil || string(out.Data) != "text!" {
				t.Errorf("got %v %v", out, err)
			}
			in.Operation = "delete"
			if err := c.InvokeOutputBinding(t.Context(), in); err != nil {
				t.Error(err)
			}
			in.Name = "nope"
			if err := c.InvokeOutputBinding(t.Context(), in); err == nil || !strings.Contains(err.Error(), "couldn't find output binding nope") {
				t.Errorf("a binding that is not there gives %v", err)
			}
			until(t, "two events of the binding", func() bool {
				app.mu.Lock()
				defer app.mu.Unlock()
				return len(app.ticks) >= 2
			})
			if md := app.ticks[0].Metadata; md["readTimeUTC"]+md["Readtimeutc"] == "" {
				t.Errorf("an event comes with %v", md)
			}
		})
	}
}

func TestStreamingSubscription(t *testing.T) {
	c := sidecar(t, group(t), "app")
	sub, err := c.Subscribe(t.Context(), client.SubscriptionOptions{PubsubName: "bus", Topic: "live"})
	if err != nil {
		t.Fatal(err)
	}
	for _, verdict := range []string{"retry", "success"} { // of one event, twice
		if verdict == "retry" {
			if err := c.PublishEvent(t.Context(), "bus", "live", "once"); err != nil {
				t.Fatal(err)
			}
		}
		message, err := sub.Receive()
		if err != nil || string(message.RawData) != "once" {
			t.Fatalf("got %+v %v", message, err)
		}
		if verdict == "retry" {
			err = message.Retry()
		} else {
			err = message.Success()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
}
