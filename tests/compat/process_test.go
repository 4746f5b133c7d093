package compat

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/tests/machine"
)

func TestDaprdStartsAndEndsAsDaprdDoes(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Env = []string{"HOME", "PATH", "NAMESPACE"}
	// Named daprd, single dashes, flags without a meaning here, nothing else in the environment.
	program := filepath.Join(t.TempDir(), "daprd")
	if err := os.Symlink(machine.Binary(t), program); err != nil {
		t.Fatal(err)
	}
	d := &daprd{t: t, http: "127.0.0.1:" + machine.Port(t), grpc: "127.0.0.1:" + machine.Port(t)}
	metrics := machine.Port(t)
	d.Process = m.Start(program, "-app-id", "alone", "-dapr-http-port", port(d.http), "-dapr-grpc-port", port(d.grpc),
		"--metrics-port", metrics, "--enable-mtls=false", "--placement-host-address", "localhost:50005",
		"--dapr-internal-grpc-port", "0", "--scheduler-host-address", "a:1,b:2", "--log-level", "debug", "--mode", "standalone",
		"--app-health-threshold", "0", "--hot-reload-reconcile-interval", "30s", "--sentry-address", "x", "--max-body-size", "16Mi")
	d.await("/v1.0/healthz")
	d.await("/v1.0/healthz/outbound")
	d.expect(204, "", "GET", "/v1.0/healthz?appid=alone", "")
	d.expect(500, `{"errorCode":"ERR_HEALTH_APPID_NOT_MATCH","message":"dapr app-id does not match"}`, "GET", "/v1.0/healthz?appid=other", "")
	if n := strings.Count(d.Output(), "some flags have no effect"); n != 1 {
		t.Errorf("flags without a meaning are noted %d times: %s", n, d.Output())
	}
	for _, path := range []string{"/", "/metrics"} {
		response, err := http.Get("http://127.0.0.1:" + metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("metrics at %s: %s", path, response.Status)
		}
	}
	d.Terminate()
	if code := d.Wait(machine.Patience); code != 0 {
		t.Errorf("SIGTERM ends it with exit code %d: %s", code, d.Output())
	}
}

func TestDaprdEndsByTheAPI(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	d := start(t, m, "ending")
	d.expect(204, "", "POST", "/v1.0/shutdown", "")
	if code := d.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d: %s", code, d.Output())
	}
	forced := start(t, m, "forced")
	forced.expect(204, "", "POST", "/v1.0/shutdown", "", "dapr-force-shutdown: true")
	if code := forced.Wait(machine.Patience); code != 1 {
		t.Errorf("exit code %d: %s", code, forced.Output())
	}
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	taken := listen(t)
	defer taken.Close()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--app-id a --no-such-flag", 2, "unknown flag: --no-such-flag"},
		{"--app-id a --app-health-threshold many", 2, `invalid argument "many" for "--app-health-threshold"`},
		{"", 1, "parameter app-id cannot be empty"},
		{"--app-id " + strings.Repeat("a", 64), 1, "is no app id: use 1 to 63 letters"},
		{"--app-id a.b", 1, "parameter app-id cannot contain dots"},
		{"--app-id a --dapr-http-port x", 1, "error parsing dapr-http-port flag"},
		{"--app-id a --dapr-grpc-port x", 1, "error parsing dapr-grpc-port flag"},
		{"--app-id a --app-port x", 1, "error parsing app-port"},
		{"--app-id a --app-port 3500", 1, "the 'dapr-http-port' argument value 3500 conflicts with 'app-port'"},
		{"--app-id a --app-port 50001", 1, "the 'dapr-grpc-port' argument value 50001 conflicts with 'app-port'"},
		{"--app-id a --app-protocol smtp", 1, "invalid value for 'app-protocol': smtp"},
		{"--app-id a --profile-port x", 1, "error parsing profile-port flag"},
		{"--app-id a --dapr-public-port x", 1, "error parsing dapr-public-port"},
		{"--app-id a --dapr-internal-grpc-port x", 1, "error parsing dapr-internal-grpc-port"},
		{"--app-id a --metrics-port x", 1, "failed to parse metrics port"},
		{"--app-id a --log-level loud", 1, "invalid value for --log-level: loud"},
		{"--app-id a --log-file /no/such/folder/log", 1, "/no/such/folder/log"},
		{"--app-id a --max-body-size 1Q", 1, "Failed to parse flags: invalid value for 'max-body-size' option"},
		{"--app-id a --max-body-size 1.5", 1, "Failed to parse flags: invalid value for 'max-body-size' option: cannot get bytes from resource quantity value"},
		{"--app-id a --read-buffer-size -1", 1, "Failed to parse flags: invalid value for 'read-buffer-size' option"},
		{"--app-id a --actors-disseminate-timeout 0s", 1, "Failed to parse flags: invalid value for 'actors-disseminate-timeout' option: must be positive, got 0s"},
		{"--app-id a --dapr-http-max-request-size 4Mi", 2, `invalid argument "4Mi" for "--dapr-http-max-request-size"`},
		{"--app-id a --dapr-block-shutdown-duration soon", 2, `invalid argument "soon" for "--dapr-block-shutdown-duration"`},
		{"--app-id a --dapr-graceful-shutdown-seconds 5s", 2, `invalid argument "5s" for "--dapr-graceful-shutdown-seconds"`},
		{"--app-id a --enable-metrics=perhaps", 2, `invalid argument "perhaps" for "--enable-metrics"`},
		{"--app-id a --scheduler-job-streams -1", 2, `invalid argument "-1" for "--scheduler-job-streams"`},
		{"--app-id a --hot-reload-reconcile-interval 30", 2, `invalid argument "30" for "--hot-reload-reconcile-interval"`},
		{"--app-id a --disable-init-endpoints x", 1, "invalid value for 'disable-init-endpoints': x"},
		{"--app-id a --app-health-probe-interval 1 --app-health-probe-timeout 1001", 1, "'health-probe-timeout' must be smaller than 'health-probe-interval'"},
		{"--app-id a --dapr-http-port " + port(taken.Addr().String()), 1, "Fatal error from runtime: failed to start HTTP server: listen tcp "},
		{"--app-id a --config no-such-file.yaml", 1, "no-such-file.yaml"},
		{"--app-id a --mode kubernetes", 1, "invalid value for 'mode'"},
	} {
		r := m.Command(append([]string{"daprd"}, strings.Fields(c.args)...)...)
		if r.Code != c.code || !strings.Contains(r.Err, c.says) {
			t.Errorf("daprd %s\ngot  %d %s\nwant %d %s", c.args, r.Code, r.Err, c.code, c.says)
		}
	}
	if r := m.Command("daprd", "--version"); r.Code != 0 || strings.TrimSpace(r.Out) != "1.18.3" {
		t.Errorf("--version: %d %s", r.Code, r.Out)
	}
	if r := m.Command("daprd", "--build-info"); r.Code != 0 || !strings.HasPrefix(r.Out, "Version: 1.18.3\nGit Commit: ") {
		t.Errorf("--build-info: %d %s", r.Code, r.Out)
	}
}

func TestTokensAreAskedForAndSent(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Env = []string{"DAPR_API_TOKEN=key", "APP_API_TOKEN=app-key", "SIDECAST_API_TOKEN=other"}
	seen := make(chan http.Header, 1)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hello" {
			seen <- r.Header.Clone()
		}
	}))
	d := start(t, m, "guarded", "--app-port", app)
	d.await("/v1.0/healthz") // asks for no token
	if got := d.do("GET", "/v1.0/metadata", ""); got.status != 401 || got.body != "invalid api token\n" {
		t.Errorf("without a token: %d %q", got.status, got.body)
	}
	d.expect(401, "invalid api token", "GET", "/v1.0/metadata", "", "dapr-api-token: other")
	d.expect(200, "{…", "GET", "/v1.0/metadata", "", "dapr-api-token: key")
	d.expect(200, "", "GET", "/v1.0/invoke/guarded/method/hello", "", "dapr-api-token: key")
	if header := <-seen; header.Get("dapr-api-token") != "app-key" {
		t.Errorf("the app got the token %q", header.Values("dapr-api-token"))
	}
}

func TestGroupsOnOneMachineAreApart(t *testing.T) {
	t.Parallel()
	one, other := machine.New(t), machine.New(t) // each with a SIDECAST_DATA_DIR of its own
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	start(t, one, "server", "--app-port", app).await("/v1.0/healthz")
	near, far := start(t, one, "near"), start(t, other, "far")
	near.expect(202, "", "GET", "/v1.0/invoke/server/method/x", "")
	far.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: server, err: couldn't find service: server"}`, "GET", "/v1.0/invoke/server/method/x", "")
}
