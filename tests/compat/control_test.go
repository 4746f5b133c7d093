package compat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
)

func TestLocksOverHTTP(t *testing.T) {
	t.Parallel()
	d := start(t, machine.New(t), "app")
	const try, unlock = "/v1.0-alpha1/lock/locks", "/v1.0-alpha1/unlock/locks"
	d.expect(200, `{"status":1}`, "POST", unlock, `{"resourceId":"r","lockOwner":"me"}`)
	for _, c := range []struct{ owner, want string }{{"me", "true"}, {"me", "false"}, {"you", "false"}} {
		if got := d.do("POST", try, `{"resourceId":"r","lockOwner":"`+c.owner+`","expiryInSeconds":60,"unknown":1}`); got.status != 200 || strings.ReplaceAll(got.body, " ", "") != `{"success":`+c.want+`}` {
			t.Errorf("%s: %d %s", c.owner, got.status, got.body)
		}
	}
	d.expect(200, `{"status":2}`, "POST", unlock, `{"resourceId":"r","lockOwner":"you"}`)
	d.expect(200, `{"status":0}`, "POST", unlock, `{"resourceId":"r","lockOwner":"me"}`)
	d.expect(200, `{"success":…`, "POST", try, `{"resourceId":"long","lockOwner":"me","expiryInSeconds":2147483647}`)
	d.expect(200, `{"status":0}`, "POST", unlock, `{"resourceId":"long","lockOwner":"me"}`)
	bad := func(path, body, message string) {
		t.Helper()
		d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"`+message+`…`, "POST", path, body)
	}
	bad(try, `{"resourceId":"r","lockOwner":"me"}`, "ExpiryInSeconds is not positive in lock store locks")
	bad(try, `{"lockOwner":"me","expiryInSeconds":1}`, "ResourceId is empty in lock store locks")
	bad(try, `{"resourceId":"r","expiryInSeconds":1}`, "LockOwner is empty in lock store locks")
	bad(unlock, `{"lockOwner":"me"}`, "ResourceId is empty in lock store locks")
	bad(try, `nonsense`, "failed deserializing HTTP body: ")
	d.expect(400, `{"errorCode":"ERR_LOCK_STORE_NOT_FOUND","message":"lock store nope not found"}`, "POST", "/v1.0-alpha1/lock/nope", `{"resourceId":"r","lockOwner":"me","expiryInSeconds":1}`)
	const illegal = `input key/keyPrefix 'a||b' can't contain '||'`
	d.expect(500, `{"errorCode":"ERR_TRY_LOCK","message":"failed to try acquiring lock: `+illegal+`"}`, "POST", try, `{"resourceId":"a||b","lockOwner":"me","expiryInSeconds":1}`)
	d.expect(500, `{"errorCode":"ERR_UNLOCK","message":"failed to release lock: `+illegal+`"}`, "POST", unlock, `{"resourceId":"a||b","lockOwner":"me"}`)
	_, err := d.client().TryLockAlpha1(t.Context(), &runtimev1.TryLockRequest{StoreName: "nope", ResourceId: "r", LockOwner: "o", ExpiryInSeconds: 1})
	fails(t, err, codes.InvalidArgument, "", "lock store nope not found")
	bare := startWith(t, machine.New(t), "", "bare")
	bare.expect(500, `{"errorCode":"ERR_LOCK_STORE_NOT_CONFIGURED","message":"lock store is not configured"}`, "POST", try, `{"resourceId":"r","lockOwner":"me","expiryInSeconds":1}`)
	bare.expect(404, `{"errorCode":"ERR_PUBSUB_NOT_FOUND","message":"pubsub bus is not found",…`, "POST", "/v1.0/publish/bus/t", "x")
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	app := serve(t, http.NotFoundHandler())
	public := machine.Port(t)
	d := start(t, machine.New(t), "app", "--app-port", app, "--app-max-concurrency", "7", "--enable-app-health-check",
		"--app-health-check-path", "well", "--app-health-probe-interval", "3", "--app-health-probe-timeout", "200", "--app-health-threshold", "2",
		"--dapr-public-port", public, "--dapr-public-listen-address", "127.0.0.1")
	d.expect(204, "", "PUT", "/v1.0/metadata/colour", "blue and green")
	d.expect(413, `{"errorCode":"ERR_METADATA_SET","message":"with this value of 1048576 bytes…`, "PUT", "/v1.0/metadata/large", strings.Repeat("x", 1<<20))
	_, err := d.client().SetMetadata(t.Context(), &runtimev1.SetMetadataRequest{Key: "large", Value: strings.Repeat("x", 1<<20)})
	fails(t, err, codes.ResourceExhausted, "", "with this value of 1048576 bytes")
	for _, address := range []string{d.http, "127.0.0.1:" + public} {
		at := &daprd{t: t, http: address}
		var got struct {
			ID, RuntimeVersion string
			Components         []struct {
				Name, Type, Version string
				Capabilities        []string
			}
			Extended                map[string]string
			AppConnectionProperties struct {
				Port                     int
				Protocol, ChannelAddress string
				MaxConcurrency           int
				Health                   struct {
					HealthCheckPath, HealthProbeInterval, HealthProbeTimeout string
					HealthThreshold                                          int
				}
			}
		}
		if err := json.Unmarshal([]byte(at.do("GET", "/v1.0/metadata", "").body), &got); err != nil {
			t.Fatal(err)
		}
		for _, c := range got.Components { // of locks and brokers there are none to tell of
			if want := map[bool]int{true: 6}[c.Type == "state.in-memory"]; len(c.Capabilities) != want {
				t.Errorf("%s has the capabilities %q", c.Type, c.Capabilities)
			}
		}
		health := got.AppConnectionProperties.Health
		if got.ID != "app" || got.RuntimeVersion != "1.18.3" || len(got.Components) != 3 || got.Components[0].Version != "v1" || got.Extended["colour"] != "blue and green" ||
			fmt.Sprint(got.AppConnectionProperties.Port) != app || got.AppConnectionProperties.Protocol != "http" || got.AppConnectionProperties.MaxConcurrency != 7 ||
			got.AppConnectionProperties.ChannelAddress != "127.0.0.1" || health.HealthCheckPath != "/well" || health.HealthProbeInterval != "3s" ||
			health.HealthProbeTimeout != "200ms" || health.HealthThreshold != 2 {
			t.Errorf("%s: got %+v", address, got)
		}
	}
	(&daprd{t: t, http: "127.0.0.1:" + public}).expect(404, "404 page not found", "GET", "/v1.0/state/store/x", "")
}

func TestAnUnhealthyAppGetsNothing(t *testing.T) {
	t.Parallel()
	var well atomic.Bool
	well.Store(true)
	app := newSubscriber(`[{"pubsubname":"bus","topic":"t","route":"/t"}]`)
	at := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" && !well.Load() {
			w.WriteHeader(http.StatusFound) // only a 2xx is well
			return
		}
		if r.URL.Path == "/healthz" {
			return
		}
		app.ServeHTTP(w, r)
	}))
	m := machine.New(t)
	d := start(t, m, "app", "--app-port", at, "--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1")
	d.subscribed(1)
	caller := start(t, m, "caller")
	well.Store(false)
	machine.Until(t, "the app is unwell", func() error {
		if got := d.do("POST", "/v1.0/invoke/app/method/x", ""); got.status != 500 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	// It is refused at once, in one piece and in several, at home and from elsewhere.
	const head, unwell = `{"errorCode":"ERR_DIRECT_INVOKE","message":"`, "rpc error: code = Internal desc = app is not in a healthy state"
	for from, words := range map[*daprd]string{
		d:      "failed to invoke, id: app, err: " + unwell,
		caller: "failed to invoke, id: app, err: rpc error: code = Internal desc = error invoking app channel: " + unwell,
	} {
		for _, body := range []string{"", strings.Repeat("x", 2<<20)} {
			got := from.expect(500, head+words+`"}`, "POST", "/v1.0/invoke/app/method/x", body)
			if tries, reason := got.header.Get("Sidecast-Attempts"), got.header.Get("Sidecast-Reason"); tries != "1" || body == "" && reason != "APP_UNHEALTHY" {
				t.Errorf("refused after %s tries for %s", tries, reason)
			}
		}
		_, err := from.client().InvokeService(t.Context(), &runtimev1.InvokeServiceRequest{Id: "app", Message: &commonv1.InvokeRequest{Method: "x"}})
		if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != words {
			t.Errorf("over gRPC: %v\nwant %s", err, words)
		}
	}
	for from, words := range map[*daprd]string{
		d:      "rpc error: code = Internal desc = app channel is not initialized",
		caller: "cannot invoke local endpoint: app channel not initialized",
	} {
		got := from.expect(500, head+"failed to invoke, id: caller, err: "+words+`"}`, "GET", "/v1.0/invoke/caller/method/x", "")
		if tries := got.header.Get("Sidecast-Attempts"); tries != "1" {
			t.Errorf("a sidecar without an app was asked %s times", tries)
		}
	}
	for len(app.got) > 0 { // what came while it was well
		<-app.got
	}
	d.expect(204, "", "POST", "/v1.0/publish/bus/t", "later")
	d.expect(204, "", "GET", "/v1.0/healthz", "") // the sidecar itself is well
	well.Store(true)
	for {
		if got := app.next(t); got.path == "/t" {
			if got.event["data"] != "later" {
				t.Errorf("got %v", got.event)
			}
			break
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	d := start(t, m, "app", "--allowed-origins", "http://one.example, http://two.example,https://*.three.example")
	allow := func(method, origin string, more ...string) string {
		t.Helper()
		return d.do(method, "/v1.0/metadata", "", append(more, "Origin: "+origin)...).header.Get("Access-Control-Allow-Origin")
	}
	if got := allow("GET", "http://two.example"); got != "http://two.example" {
		t.Errorf("an allowed origin gets %q", got)
	}
	if got := allow("GET", "http://evil.example"); got != "" {
		t.Errorf("another origin gets %q", got)
	}
	if got := allow("GET", "https://a.b.three.example"); got != "https://a.b.three.example" {
		t.Errorf("an origin that a star means gets %q", got)
	}
	for _, c := range []struct{ origin, method, allowed string }{
		{"http://one.example", "post", "POST"}, {"http://evil.example", "POST", ""}, {"http://one.example", "CONNECT", ""}, {"", "POST", ""},
	} {
		fields := []string{"Access-Control-Request-Method: " + c.method, "Access-Control-Request-Headers: x-a,x-b"}
		if c.origin != "" {
			fields = append(fields, "Origin: "+c.origin)
		}
		got := d.do("OPTIONS", "/v1.0/state/store", "", fields...)
		headers, origin := "", ""
		if c.allowed != "" {
			headers, origin = "X-A, X-B", c.origin
		}
		if got.status != 200 || got.header.Get("Access-Control-Allow-Methods") != c.allowed || got.header.Get("Access-Control-Allow-Headers") != headers ||
			got.header.Get("Access-Control-Allow-Origin") != origin || len(got.header.Values("Vary")) != 3 {
			t.Errorf("a preflight of %+v: %d %v", c, got.status, got.header)
		}
	}
	all := start(t, m, "all", "--allowed-origins", "*")
	if got := all.do("OPTIONS", "/v1.0/metadata", "", "Origin: *", "Access-Control-Request-Method: GET"); got.status != 200 || got.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("a preflight where all are allowed: %d %v", got.status, got.header)
	}
}

func TestUnixSockets(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	dir, err := os.MkdirTemp("", "dapr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := m.Start(machine.Binary(t), "daprd", "--app-id", "app", "--unix-domain-socket", dir, "--metrics-port", machine.Port(t))
	p.WaitFor("sidecar is up", machine.Patience)
	if _, err := os.Stat(filepath.Join(dir, "dapr-app-http.socket")); err != nil {
		t.Error(err)
	}
	md, err := runtimev1.NewDaprClient(dial(t, "unix://"+filepath.Join(dir, "dapr-app-grpc.socket"))).GetMetadata(t.Context(), &runtimev1.GetMetadataRequest{})
	if err != nil || md.GetId() != "app" {
		t.Errorf("got %v %v", md, err)
	}
}
