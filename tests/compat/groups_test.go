package compat

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/nats-io/nats-server/v2/server"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/tests/machine"
)

// handled answers bulks: all of it is done.
func handled(_ string, event map[string]any) (int, string) {
	var statuses []string
	entries, _ := event["entries"].([]any)
	for _, e := range entries {
		statuses = append(statuses, fmt.Sprintf(`{"entryId":%q,"status":"SUCCESS"}`, e.(map[string]any)["entryId"]))
	}
	return 200, `{"statuses":[` + strings.Join(statuses, ",") + `]}`
}

func TestDeclaredBulks(t *testing.T) {
	t.Parallel()
	app := newSubscriber(`[]`)
	app.says = handled
	d := startWith(t, machine.New(t), resources+`
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: many}
spec:
  pubsubname: bus
  topic: many
  routes: {default: /many}
  bulkSubscribe: {enabled: true, maxMessagesCount: 2, maxAwaitDurationMs: 3600000}
`, "app", "--app-port", serve(t, app))
	d.subscribed(1)
	d.expect(204, "", "POST", "/v1.0/publish/bulk/bus/many", `[{"entryId":"1","event":"a","contentType":"text/plain"},{"entryId":"2","event":"b","contentType":"text/plain"},
		{"entryId":"3","event":"c","contentType":"text/plain"},{"entryId":"4","event":"d","contentType":"text/plain"}]`)
	for range 2 {
		got := app.next(t)
		if entries, _ := got.event["entries"].([]any); got.path != "/many" || len(entries) != 2 {
			t.Errorf("got %+v", got)
		}
	}
}

// oldApp is a gRPC app of the time when bulks were new.
type oldApp struct {
	listener
	runtimev1.UnimplementedAppCallbackAlphaServer
}

func (a *oldApp) OnBulkTopicEvent(ctx context.Context, in *runtimev1.TopicEventBulkRequest) (*runtimev1.TopicEventBulkResponse, error) {
	return runtimev1.UnimplementedAppCallbackServer{}.OnBulkTopicEvent(ctx, in)
}

func (a *oldApp) OnBulkTopicEventAlpha1(ctx context.Context, in *runtimev1.TopicEventBulkRequest) (*runtimev1.TopicEventBulkResponse, error) {
	return a.listener.OnBulkTopicEvent(ctx, in)
}

func TestOldGRPCAppsGetBulks(t *testing.T) {
	t.Parallel()
	app := &oldApp{listener: listener{bulk: make(chan *runtimev1.TopicEventBulkRequest, 100)}}
	app.subscriptions = []*runtimev1.TopicSubscription{{PubsubName: "bus", Topic: "many", BulkSubscribe: &runtimev1.BulkSubscribeConfig{Enabled: true, MaxMessagesCount: 1}}}
	at := serveGRPC(t, func(s *grpc.Server) {
		runtimev1.RegisterAppCallbackServer(s, app)
		runtimev1.RegisterAppCallbackAlphaServer(s, app)
	})
	d := start(t, machine.New(t), "app", "--app-port", at, "--app-protocol", "grpc")
	d.subscribed(1)
	for _, data := range []string{"one", "two"} {
		d.expect(204, "", "POST", "/v1.0/publish/bus/many", data)
		if got := receive(t, app.bulk); len(got.GetEntries()) != 1 || string(got.Entries[0].GetCloudEvent().GetData()) != data {
			t.Errorf("got %v", got)
		}
	}
}

// Apps whose component has one consumerID share its events.
func TestConsumerIDNamesTheGroup(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	const events = 20
	yaml := strings.Replace(resources, "  - {name: protectedTopics", "  - {name: consumerID, value: shared}\n  - {name: protectedTopics", 1)
	got := make(chan delivered, 10*events)
	var d *daprd
	for _, name := range []string{"one", "two"} {
		app := newSubscriber(`[{"pubsubname":"bus","topic":"shared","route":"/shared"}]`)
		app.got = got
		d = startWith(t, m, yaml, name, "--app-port", serve(t, app))
		d.subscribed(1)
	}
	seen := map[any]bool{}
	for i := range events {
		d.expect(204, "", "POST", "/v1.0/publish/bus/shared", fmt.Sprint(i))
		data := receive(t, got).event["data"]
		if seen[data] {
			t.Fatalf("%v was delivered to both", data)
		}
		seen[data] = true
	}
}

// Sidecars find each other over the NATS that the environment names.
func TestFabricOfTheEnvironment(t *testing.T) {
	t.Parallel()
	nats, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	nats.Start()
	t.Cleanup(func() { nats.Shutdown(); nats.WaitForShutdown() })
	if !nats.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS does not start")
	}
	here, there := machine.New(t), machine.New(t) // that have no folder in common
	here.Env, there.Env = []string{"SIDECAST_FABRIC=" + nats.ClientURL()}, []string{"SIDECAST_FABRIC=" + nats.ClientURL()}
	app := newSubscriber(`[{"pubsubname":"bus","topic":"t","route":"/t"}]`)
	start(t, there, "server", "--app-port", serve(t, app)).subscribed(1)
	d := start(t, here, "client")
	d.expect(200, "", "POST", "/v1.0/invoke/server/method/x", "{}")
	app.next(t)
	d.expect(204, "", "POST", "/v1.0/publish/bus/t", "over NATS")
	if got := app.next(t); got.event["data"] != "over NATS" {
		t.Errorf("got %v", got)
	}
	here.Env = append(here.Env, "SIDECAST_FABRIC_CREDS=/no/such.creds")
	if r := here.Command("daprd", "--app-id", "a", "--dapr-http-port", machine.Port(t), "--dapr-grpc-port", machine.Port(t), "--metrics-port", machine.Port(t)); r.Code != 1 || !strings.Contains(r.Err, "/no/such.creds") {
		t.Errorf("credentials that are not there: %d %s", r.Code, r.Err)
	}
}
