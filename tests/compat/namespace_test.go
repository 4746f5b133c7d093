package compat

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/tests/machine"
)

func TestAppsOfOtherNamespaces(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	// app tells which of the servers of one name it is, and who calls it.
	app := func(name string) string {
		return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Server", name)
			w.Header().Set("X-Caller", r.Header.Get("dapr-caller-app-id")+" of "+r.Header.Get("dapr-caller-namespace"))
			echo(w, r)
		}))
	}
	m.Env = []string{"NAMESPACE=shop"}
	start(t, m, "server", "--app-port", app("shop")).await("/v1.0/healthz")
	guarded := configuration(t, `
  accessControl:
    defaultAction: deny
    policies:
    - {appId: client, namespace: home, trustDomain: public, defaultAction: allow}
    - {appId: other, namespace: shop, trustDomain: public, defaultAction: allow}
`)
	start(t, m, "guarded", "--app-port", app("guarded"), "--config", guarded).await("/v1.0/healthz")
	start(t, m, "grpc-app", "--app-port", grpcApp(t), "--app-protocol", "grpc").await("/v1.0/healthz")
	m.Env = []string{"NAMESPACE=home"}
	start(t, m, "server", "--app-port", app("home")).await("/v1.0/healthz")
	policies := `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec:
  policies: {retries: {none: {policy: constant, duration: 1h, maxRetries: 0}}, rateLimits: {once: {limit: 1, per: 1h}}}
  targets: {apps: {grpc-app.shop: {rateLimit: once}}}
`
	client, other := startWith(t, m, policies, "client"), start(t, m, "other")
	for target, want := range map[string]string{"server": "home", "server.home": "home", "server.shop": "shop"} {
		got := client.do("POST", "/v1.0/invoke/"+target+"/method/x", "body")
		if got.status != 200 || got.body != "body" || got.header.Get("X-Server") != want || got.header.Get("X-Caller") != "client of home" || got.header.Get("X-Callers") != "client>server" {
			t.Errorf("%s: %d %s %v", target, got.status, got.body, got.header)
		}
	}
	big := strings.Repeat("x", 3<<20)
	if got := client.do("POST", "/v1.0/invoke/server.shop/method/x", big); got.status != 200 || got.body != big {
		t.Errorf("a stream: %d, %d bytes", got.status, len(got.body))
	}
	// Access control knows the namespaces apart.
	client.expect(200, "", "GET", "/v1.0/invoke/guarded.shop/method/x", "")
	other.expect(403, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: guarded.shop, err: rpc error: code = PermissionDenied desc = access control policy has denied access to id: spiffe://public/ns/home/other operation: x verb: GET"}`,
		"GET", "/v1.0/invoke/guarded.shop/method/x", "")
	other.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: guarded, err: …`, "GET", "/v1.0/invoke/guarded/method/x", "")
	other.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: server.nowhere, err: couldn't find service: server"}`, "GET", "/v1.0/invoke/server.nowhere/method/x", "")
	// gRPC, and policies by the whole name.
	conn := dial(t, client.grpc)
	proxied := metadata.AppendToOutgoingContext(t.Context(), "dapr-app-id", "grpc-app.shop")
	const health = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck"
	if err := conn.Invoke(proxied, health, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
		t.Error(err)
	}
	if err := conn.Invoke(proxied, health, &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the policy for grpc-app.shop does not hold: %v", err)
	}
	// Nobody is seen where they only call.
	m.Env = []string{"NAMESPACE=shop"}
	shopper := start(t, m, "shopper")
	shopper.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE",…`, "GET", "/v1.0/invoke/client/method/x", "")

	// A sidecar that was started natively keeps to its own namespace.
	native := m.Sidecar("native", "--namespace", "shop", "--app-port", app("native"), "--app-protocol", "http")
	native.Ready()
	if got := shopper.do("GET", "/v1.0/invoke/native/method/x", ""); got.status != 200 {
		t.Errorf("from its namespace: %d %s", got.status, got.body)
	}
	if got := client.do("GET", "/v1.0/invoke/native.shop/method/x", ""); got.status != 403 {
		t.Errorf("from another namespace: %d %s", got.status, got.body)
	}
	client.Terminate()
	if code := client.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d: %s", code, client.Output())
	}
}
