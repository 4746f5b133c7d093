package gosdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
	"github.com/dapr/go-sdk/service/common"
	daprgrpc "github.com/dapr/go-sdk/service/grpc"
	daprhttp "github.com/dapr/go-sdk/service/http"
	"google.golang.org/grpc/status"
)

const patience = 30 * time.Second

// binary is the sidecast under test: SIDECAST_BINARY, or one that is built of the sources above.
var binary = os.Getenv("SIDECAST_BINARY")

func TestMain(m *testing.M) {
	if binary == "" {
		dir, err := os.MkdirTemp("", "sidecast-gosdk-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "sidecast")
		build := exec.Command("go", "build", "-C", "../../..", "-o", binary, "./cmd/runtime")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("the binary does not build: %v\n%s", err, out))
		}
	}
	m.Run()
}

const resources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.in-memory, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec: {type: pubsub.jetstream, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: locks}
spec: {type: lock.in-memory, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec: {type: configuration.jetstream, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.local.file, version: v1, metadata: [{name: secretsFile, value: SECRETS}, {name: multiValued, value: "true"}]}
`

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// sidecar starts a daprd of the group that dir is, and returns the SDK's client of it.
func sidecar(t *testing.T, dir, app string, args ...string) client.Client {
	t.Helper()
	folder := t.TempDir()
	secrets := filepath.Join(folder, "secrets.json")
	for name, text := range map[string]string{
		filepath.Join(folder, "r.yaml"): strings.ReplaceAll(resources, "SECRETS", secrets), secrets: `{"password": "hunter2", "db": {"user": "me", "key": "k"}}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	httpPort, grpcPort := freePort(t), freePort(t)
	cmd := exec.Command(binary, append([]string{"daprd", "--app-id", app, "--dapr-http-port", httpPort, "--dapr-grpc-port", grpcPort,
		"--metrics-port", freePort(t), "--resources-path", folder}, args...)...)
	cmd.Env = append(os.Environ(), "SIDECAST_DATA_DIR="+dir)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
			t.Errorf("the sidecar of %s did not end", app)
		}
		if code := cmd.ProcessState.ExitCode(); code != 0 || t.Failed() {
			t.Errorf("%s ended with code %d: %s", app, code, log.String())
		}
	})
	until(t, app+" is up", func() bool {
		response, err := http.Get("http://127.0.0.1:" + httpPort + "/v1.0/healthz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusNoContent
	})
	c, err := client.NewClientWithAddress("127.0.0.1:" + grpcPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.Wait(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	return c
}

func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// group is a data folder that is there until the sidecars in it have ended.
func group(t *testing.T) string {
	dir, err := os.MkdirTemp("", "sidecast-group-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestState(t *testing.T) {
	c, ctx := sidecar(t, group(t), "app"), t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.SaveState(ctx, "store", "a", []byte("one"), map[string]string{"ttlInSeconds": "100"}))
	item, err := c.GetState(ctx, "store", "a", nil)
	must(err)
	if string(item.Value) != "one" || item.Etag == "" || item.Metadata["ttlExpireTime"] == "" {
		t.Errorf("got %+v", item)
	}
	must(c.SaveStateWithETag(ctx, "store", "a", []byte("two"), item.Etag, nil, client.WithConcurrency(client.StateConcurrencyFirstWrite)))
	if err := c.SaveStateWithETag(ctx, "store", "a", []byte("three"), item.Etag, nil, client.WithConcurrency(client.StateConcurrencyFirstWrite)); err == nil {
		t.Error("an old ETag is taken")
	}
	must(c.SaveBulkState(ctx, "store", &client.SetStateItem{Key: "b", Value: []byte("B")}, &client.SetStateItem{Key: "c", Value: []byte("C")}))
	must(c.ExecuteStateTransaction(ctx, "store", nil, []*client.StateOperation{
		{Type: client.StateOperationTypeUpsert, Item: &client.SetStateItem{Key: "d", Value: []byte("D")}},
		{Type: client.StateOperationTypeDelete, Item: &client.SetStateItem{Key: "b"}},
	}))
	items, err := c.GetBulkState(ctx, "store", []string{"a", "b", "c", "d"}, nil, 2)
	must(err)
	got := ""
	for _, item := range items {
		got += item.Key + "=" + string(item.Value) + " "
	}
	if got != "a=two b= c=C d=D " {
		t.Errorf("got %s", got)
	}
	must(c.DeleteState(ctx, "store", "a", nil))
	must(c.DeleteBulkState(ctx, "store", []string{"c", "d"}, nil))
	if item, err := c.GetState(ctx, "store", "a", nil); err != nil || item.Value != nil {
		t.Errorf("got %+v %v", item, err)
	}
}

func TestLock(t *testing.T) {
	c, ctx := sidecar(t, group(t), "app"), t.Context()
	try := func(owner string) bool {
		t.Helper()
		got, err := c.TryLockAlpha1(ctx, "locks", &client.LockRequest{ResourceID: "r", LockOwner: owner, ExpiryInSeconds: 60})
		if err != nil {
			t.Fatal(err)
		}
		return got.Success
	}
	unlock := func(owner, want string) {
		t.Helper()
		got, err := c.UnlockAlpha1(ctx, "locks", &client.UnlockRequest{ResourceID: "r", LockOwner: owner})
		if err != nil || got.Status != want {
			t.Errorf("%s unlocks: %v %v, not %s", owner, got, err, want)
		}
	}
	unlock("one", "LOCK_DOES_NOT_EXIST")
	if !try("one") || try("two") || try("one") {
		t.Error("the lock is not held by one alone, once")
	}
	unlock("two", "LOCK_BELONGS_TO_OTHERS")
	unlock("one", "SUCCESS")
	if !try("two") {
		t.Error("a released lock is not free")
	}
}

func TestSecrets(t *testing.T) {
	c, ctx := sidecar(t, group(t), "app"), t.Context()
	if got, err := c.GetSecret(ctx, "vault", "db", map[string]string{"version": "1"}); err != nil || !maps.Equal(got, map[string]string{"user": "me", "key": "k"}) {
		t.Errorf("got %v, %v", got, err)
	}
	want := map[string]map[string]string{"password": {"password": "hunter2"}, "db": {"user": "me", "key": "k"}}
	if got, err := c.GetBulkSecret(ctx, "vault", nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	_, err := c.GetSecret(ctx, "vault", "nope", nil)
	if want := "failed getting secret with key nope from secret store vault: secret nope not found"; status.Convert(errors.Unwrap(err)).Message() != want {
		t.Errorf("got %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	dir := group(t)
	c, ctx := sidecar(t, dir, "app"), t.Context()
	set := func(key, value string) {
		t.Helper()
		cmd := exec.Command(binary, "config", "set", key, value, "--store", "settings")
		cmd.Env = append(os.Environ(), "SIDECAST_DATA_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	set("a", "1")
	set("b", "2")
	if got, err := c.GetConfigurationItem(ctx, "settings", "a"); err != nil || got.Value != "1" || got.Version != "1" {
		t.Errorf("got %v, %v", got, err)
	}
	items, err := c.GetConfigurationItems(ctx, "settings", nil, client.WithConfigurationMetadata("x", "y"))
	if err != nil || len(items) != 2 || items["b"].Value != "2" {
		t.Errorf("got %v, %v", items, err)
	}
	told := make(chan string, 100)
	id, err := c.SubscribeConfigurationItems(ctx, "settings", []string{"a"}, func(id string, items map[string]*client.ConfigurationItem) {
		for key, item := range items {
			told <- id + " " + key + "=" + item.Value
		}
	})
	if err != nil || id == "" {
		t.Fatalf("id %q, %v", id, err)
	}
	set("b", "3")
	set("a", "4")
	select {
	case got := <-told:
		if got != id+" a=4" {
			t.Errorf("told %s", got)
		}
	case <-time.After(patience):
		t.Error("no change is told")
	}
	if err := c.UnsubscribeConfigurationItems(ctx, "settings", id); err != nil {
		t.Error(err)
	}
	if err := c.UnsubscribeConfigurationItems(ctx, "settings", id); err == nil || !strings.Contains(err.Error(), "subscription does not exist") {
		t.Errorf("twice: %v", err)
	}
}

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

func TestMetadataAndShutdown(t *testing.T) {
	c, ctx := sidecar(t, group(t), "app"), t.Context()
	if err := c.SetMetadata(ctx, "colour", "blue"); err != nil {
		t.Fatal(err)
	}
	m, err := c.GetMetadata(ctx)
	if err != nil || m.ID != "app" || m.ExtendedMetadata["colour"] != "blue" || len(m.RegisteredComponents) != 5 {
		t.Errorf("got %+v %v", m, err)
	}
	if err := c.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}
