package blocks

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testApp is an app in the test's own process.
type testApp struct {
	invoke  func(ctx context.Context, req *call.Request) (*call.Response, error)
	deliver func(ctx context.Context, event *appchannel.Event) (appchannel.Outcome, error)
	subs    []appchannel.Subscription

	mu    sync.Mutex
	ready error
}

var _ appchannel.Channel = (*testApp)(nil)

func (a *testApp) Kind() string { return "test" }

func (a *testApp) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ready
}

func (a *testApp) setReady(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ready = err
}

func (a *testApp) Invoke(ctx context.Context, req *call.Request) (*call.Response, error) {
	return a.invoke(ctx, req)
}

func (a *testApp) Stream(ctx context.Context, _ *call.Request, stream call.ServerStream) error {
	for {
		chunk, err := stream.Recv(ctx)
		if err != nil {
			return nil // the request has ended: so does the echo
		}
		if err := stream.Send(ctx, chunk); err != nil {
			return err
		}
	}
}

func (a *testApp) Deliver(ctx context.Context, event *appchannel.Event) (appchannel.Outcome, error) {
	return a.deliver(ctx, event)
}

func (a *testApp) Subscriptions(ctx context.Context, changed func([]appchannel.Subscription)) error {
	changed(a.subs)
	<-ctx.Done()
	return nil
}

func (a *testApp) Close(context.Context) error { return nil }

// sidecar builds one by hand, as wiring.go does.
func sidecar(t *testing.T, dir, appID string, app *testApp, maxConcurrency int) *Blocks {
	t.Helper()
	return sidecarAs(t, dir, appID, appID+"-1", app, maxConcurrency, nil)
}

func sidecarAs(t *testing.T, dir, appID, instance string, app *testApp, maxConcurrency int, docs *components.Documents) *Blocks {
	t.Helper()
	return sidecarOf(t, dir, appID, instance, app, maxConcurrency, nil, docs)
}

// sidecarKnowing is a sidecar with components of the test's own.
func sidecarKnowing(t *testing.T, dir, appID string, app appchannel.Channel, known []components.Component, docs *components.Documents) *Blocks {
	t.Helper()
	return sidecarOf(t, dir, appID, appID+"-1", app, 0, known, docs)
}

func sidecarOf(t *testing.T, dir, appID, instance string, app appchannel.Channel, maxConcurrency int, known []components.Component, docs *components.Documents) *Blocks {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	self := Self{AppID: appID, Instance: instance, Namespace: "test", Version: "test"}
	f, err := fabric.Open(ctx, fabric.Config{
		Namespace: self.Namespace, AppID: appID, Instance: self.Instance, Dir: dir + "/fabric", MaxBody: 8 << 20, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	system := actors.NewSystem(actors.Options{Log: log})
	set := components.NewSet(components.Options{
		Host: components.Host{
			Log: log, AppID: appID, Namespace: self.Namespace, Instance: self.Instance, DataDir: dir, Local: true,
			NATS: func(context.Context) (*nats.Conn, error) { return f.Conn(), nil },
		},
		Known: append(standard.All(), known...), BuiltIn: standard.Defaults(), Documents: docs,
	})
	b := New(Deps{
		Self: self, Log: log, System: system, Fabric: f, Components: set, App: app, Metrics: telemetry.NewMetrics(),
		AppMaxConcurrency: maxConcurrency, Shutdown: func() {},
	})
	if err := b.Start(ctx, nil); err != nil {
		t.Fatal(err)
	}
	f.Announce(fabric.Instance{App: appID, ID: self.Instance, Weight: 1, Room: b.App.Room(), Ready: true, Started: time.Now()})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for _, end := range []func(context.Context) error{f.Leave, b.StopIntake, system.Close, set.Close, f.Close} {
			if err := end(ctx); err != nil {
				t.Errorf("closing: %v", err)
			}
		}
	})
	return b
}

func wantReason(t *testing.T, err error, reason fault.Reason) {
	t.Helper()
	if fault.ReasonOf(err) != reason {
		t.Fatalf("got error %v, want reason %s", err, reason)
	}
}

func echo(_ context.Context, req *call.Request) (*call.Response, error) {
	return &call.Response{Body: req.Body, Header: call.Header{{Key: "caller", Value: req.Caller}}}, nil
}

func handled(context.Context, *appchannel.Event) (appchannel.Outcome, error) {
	return appchannel.Outcome{}, nil
}

// eventually polls until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come true in 20 s", what)
		}
	}
}

// sees waits until a sidecar knows where the apps are.
func sees(t *testing.T, b *Blocks, apps ...string) {
	t.Helper()
	for _, app := range apps {
		eventually(t, "the sidecar sees "+app, func() bool { return b.Invocation.target(app) != nil })
	}
}
