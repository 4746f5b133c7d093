package compat

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
)

// spoken is a subscriber that also answers calls with the protocol they came by.
func spoken() *subscriber {
	return newSubscriber(`[{"pubsubname":"bus","topic":"t","route":"/t"}]`)
}

func (s *subscriber) sayProtocol(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/protocol" {
			_, _ = fmt.Fprintf(w, "%s tls=%t", r.Proto, r.TLS != nil)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestAppProtocols(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, flags, want string }{
		{"https", "--app-protocol https", "HTTP/2.0 tls=true"},
		{"http and app-ssl", "--app-protocol http --app-ssl", "HTTP/2.0 tls=true"},
		{"h2c", "--app-protocol h2c", "HTTP/2.0 tls=false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			app := spoken()
			server := httptest.NewUnstartedServer(app.sayProtocol(app))
			server.Config.ErrorLog = log.New(io.Discard, "", 0) // a look whether the port is open shakes no hands
			defer server.Close()
			if strings.HasPrefix(c.name, "h2c") {
				server.Config.Protocols = new(http.Protocols)
				server.Config.Protocols.SetUnencryptedHTTP2(true) // and no HTTP/1
				server.Start()
			} else {
				server.EnableHTTP2 = true
				server.StartTLS() // with a certificate that no one knows, for another name
			}
			d := start(t, machine.New(t), "app", append(strings.Fields(c.flags), "--app-port", port(server.Listener.Addr().String()))...)
			d.subscribed(1)
			d.expect(200, c.want, "GET", "/v1.0/invoke/app/method/protocol", "")
			d.expect(204, "", "POST", "/v1.0/publish/bus/t", "x")
			if got := app.next(t); got.path != "/t" || got.event["data"] != "x" {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("grpcs", func(t *testing.T) {
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate(t)}})))
		runtimev1.RegisterAppCallbackServer(server, callback{})
		listener := listen(t)
		done := make(chan struct{})
		go func() { defer close(done); _ = server.Serve(listener) }()
		t.Cleanup(func() { server.Stop(); <-done })
		d := start(t, machine.New(t), "app", "--app-protocol", "grpcs", "--app-port", port(listener.Addr().String()))
		d.await("/v1.0/healthz")
		d.expect(200, "PUT m?q=1 body", "PUT", "/v1.0/invoke/app/method/m?q=1", "body")
	})
}

// certificate is one that signs itself.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	return server.TLS.Certificates[0]
}

// A stop that is blocked serves on, all but events, until the app is unwell or the time is up.
func TestBlockedShutdown(t *testing.T) {
	t.Parallel()
	var unwell atomic.Bool
	events := make(chan string, 10)
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz" && unwell.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/dapr/subscribe":
			_, _ = io.WriteString(w, `[{"pubsubname":"bus","topic":"t","route":"/t"}]`)
		case r.URL.Path == "/t":
			body, _ := io.ReadAll(r.Body)
			events <- string(body)
		}
	}))
	m := machine.New(t)
	args := []string{"--app-port", app, "--enable-app-health-check", "--app-health-probe-interval", "1", "--app-health-threshold", "1"}
	d := start(t, m, "app", append(args, "--dapr-block-shutdown-duration", "1h")...)
	d.await("/v1.0/healthz")
	d.expect(204, "", "POST", "/v1.0/publish/bus/t", "before")
	if got := <-events; !strings.Contains(got, "before") {
		t.Errorf("the app got %s", got)
	}
	stream := openStream(t, d.client(), "streamed")
	d.Terminate()
	d.WaitFor("Blocking graceful shutdown for 1h0m0s or until app reports unhealthy", machine.Patience)
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a stream of events ends with %v", err)
	}
	d.expect(200, "", "GET", "/v1.0/invoke/app/method/x", "")
	d.expect(204, "", "GET", "/v1.0/healthz", "")
	d.expect(204, "", "POST", "/v1.0/state/store", `[{"key":"k","value":1}]`)
	machine.Until(t, "the subscription has ended", func() error {
		if got := d.do("GET", "/v1.0/metadata", "").body; strings.Contains(got, `"topic":"t"`) {
			return errors.New(got)
		}
		return nil
	})
	d.expect(204, "", "POST", "/v1.0/publish/bus/t", "meanwhile")
	d.expect(200, "", "GET", "/v1.0/invoke/app/method/x", "") // the event had all that time
	select {
	case got := <-events:
		t.Errorf("the app got %s", got)
	default:
	}
	unwell.Store(true)
	if code := d.Wait(machine.Patience); code != 0 {
		t.Errorf("it ends with %d when its app is unwell", code)
	}
	unwell.Store(false)
	short := start(t, m, "app", append(args, "--dapr-block-shutdown-duration", "1ms")...)
	short.await("/v1.0/healthz")
	short.Terminate()
	if code := short.Wait(machine.Patience); code != 0 || !strings.Contains(short.Output(), "Blocking graceful shutdown") {
		t.Errorf("it ends with %d when the time is up", code)
	}
}

// What is under way when it is told to stop is answered.
func TestSignalsDrain(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]func(*daprd){
		"SIGINT": func(d *daprd) { d.Interrupt() }, "SIGTERM": func(d *daprd) { d.Terminate() },
	} {
		t.Run(name, func(t *testing.T) {
			began, end := make(chan struct{}), make(chan struct{})
			app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					close(began)
					<-end
					_, _ = io.WriteString(w, "done")
				}
			}))
			d := start(t, machine.New(t), "app", "--app-port", app, "--dapr-graceful-shutdown-seconds", "30")
			d.await("/v1.0/healthz")
			answers := make(chan answer, 1)
			go func() {
				response, err := http.Get("http://" + d.http + "/v1.0/invoke/app/method/slow")
				if err != nil {
					answers <- answer{body: err.Error()}
					return
				}
				defer response.Body.Close()
				body, _ := io.ReadAll(response.Body)
				answers <- answer{status: response.StatusCode, body: string(body)}
			}()
			<-began
			signal(d)
			d.WaitFor("stopping, within 30s", machine.Patience)
			if got := d.do("GET", "/v1.0/metadata", ""); got.status != 200 {
				t.Errorf("the app uses its sidecar meanwhile: %d %s", got.status, got.body)
			}
			machine.Until(t, "another call is refused", func() error {
				if got := d.do("GET", "/v1.0/invoke/app/method/late", ""); got.status != 500 {
					return fmt.Errorf("%d %s", got.status, got.body)
				}
				return nil
			})
			close(end)
			if got := <-answers; got.status != 200 || got.body != "done" {
				t.Errorf("the call that was under way: %d %s", got.status, got.body)
			}
			if code := d.Wait(machine.Patience); code != 0 {
				t.Errorf("exit code %d: %s", code, d.Output())
			}
		})
	}
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	at := machine.Port(t)
	start(t, machine.New(t), "app", "--enable-profiling", "--profile-port", at)
	response, err := http.Get("http://127.0.0.1:" + at + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != 200 || !strings.HasPrefix(string(body), "goroutine profile:") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	off := machine.Port(t)
	start(t, machine.New(t), "app", "--profile-port", off)
	if conn, err := net.Dial("tcp", "127.0.0.1:"+off); err == nil {
		_ = conn.Close()
		t.Error("profiles are served that nobody asked for")
	}
}

// The log has the fields that daprd's has, whatever the format.
func TestLogs(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	file := filepath.Join(t.TempDir(), "daprd.log")
	d := start(t, m, "app", "--log-as-json", "--enable-api-logging", "--log-file", file, "--log-level", "DEBUG")
	d.expect(204, "", "GET", "/v1.0/state/store/k", "")
	if _, err := d.client().GetMetadata(t.Context(), &runtimev1.GetMetadataRequest{}); err != nil {
		t.Fatal(err)
	}
	d.Interrupt()
	d.Wait(machine.Patience)
	if out := d.Output(); out != "" {
		t.Errorf("what goes to the file is also printed: %s", out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]map[string]any{}
	for line := range strings.Lines(string(raw)) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		for field, want := range map[string]any{"app_id": "app", "type": "log", "ver": "1.18.3", "scope": "dapr.runtime"} {
			if entry[field] != want {
				t.Errorf("%s is %v: %s", field, entry[field], line)
			}
		}
		if level := fmt.Sprint(entry["level"]); level != strings.ToLower(level) || entry["time"] == nil {
			t.Errorf("a line is %s", line)
		}
		said[fmt.Sprint(entry["msg"], " ", entry["method"])] = entry
	}
	if said["HTTP API Called GET /v1.0/state/store/k"]["code"] != 204.0 || said["gRPC API Called /dapr.proto.runtime.v1.Dapr/GetMetadata"]["code"] != 0.0 {
		t.Errorf("calls are not in the log:\n%s", raw)
	}
	if said["dapr initialized. Status: Running <nil>"] == nil {
		t.Errorf("nothing tells that it runs:\n%s", raw)
	}
	plain := start(t, m, "app")
	plain.expect(204, "", "GET", "/v1.0/state/store/k", "")
	plain.Interrupt()
	plain.Wait(machine.Patience)
	if out := plain.Output(); !strings.Contains(out, " level=info msg=") || !strings.Contains(out, " app_id=app ") || strings.Contains(out, "API Called") {
		t.Errorf("the log is\n%s", out)
	}
}

func TestWaitReturnsWhenTheSidecarCanBeUsed(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	http, grpc := machine.Port(t), machine.Port(t)
	waiting := m.Start(machine.Binary(t), "daprd", "--wait", "--dapr-http-port", http)
	select {
	case <-waiting.Done():
		t.Fatalf("it does not wait: %s", waiting.Output())
	default:
	}
	m.Start(machine.Binary(t), "daprd", "--app-id", "app", "--dapr-http-port", http, "--dapr-grpc-port", grpc, "--metrics-port", machine.Port(t))
	if code := waiting.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d: %s", code, waiting.Output())
	}
}

func TestSizesOfRequests(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	body := fmt.Sprintf(`[{"key":"k","value":%q}]`, strings.Repeat("x", 3<<19)) // 1.5 MiB
	const tooLarge = `{"errorCode":"ERR_MALFORMED_REQUEST","message":"stream too large"}`
	for _, c := range []struct {
		flags string
		takes bool
	}{
		{"--dapr-http-max-request-size 1", false}, {"--max-body-size 1Mi", false}, {"--max-body-size 1M", false},
		{"--dapr-http-max-request-size 1 --max-body-size 2Mi", true}, {"--dapr-http-max-request-size 2", true}, {"--max-body-size 0", true},
	} {
		d := start(t, m, "app", strings.Fields(c.flags)...)
		_, err := d.client().SaveState(t.Context(), &runtimev1.SaveStateRequest{StoreName: "store", States: []*commonv1.StateItem{{Key: "k", Value: []byte(body)}}})
		if c.takes {
			d.expect(204, "", "POST", "/v1.0/state/store", body)
			d.expect(204, "", "POST", "/v1.0/publish/bus/t", body)
		} else {
			d.expect(400, tooLarge, "POST", "/v1.0/state/store", body)
		}
		if c.flags == "--max-body-size 0" { // beyond what the fabric's broker takes
			large := d.expect(500, `{"errorCode":"ERR_PUBSUB_PUBLISH_MESSAGE","message":"error when publishing to topic t in pubsub bus: …`, "POST", "/v1.0/publish/bus/t", strings.Repeat("x", 9<<20))
			if !strings.Contains(large.body, "raise max_payload") {
				t.Errorf("the error says %s", large.body)
			}
		}
		if want := map[bool]codes.Code{true: codes.OK, false: codes.ResourceExhausted}[c.takes]; status.Code(err) != want {
			t.Errorf("%s: over gRPC %v", c.flags, err)
		}
		d.Kill()
	}
}

// Headers may be as large as the read buffer, and what net/http adds to it, as in daprd.
func TestSizesOfHeaders(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	large := "X-Large: " + strings.Repeat("x", 12<<10)
	for flags, want := range map[string]int{"": 431, "--read-buffer-size 16Ki": 204, "--dapr-http-read-buffer-size 16": 204, "--read-buffer-size 2Ki --dapr-http-read-buffer-size 16": 431} {
		d := start(t, m, "app", strings.Fields(flags)...)
		if got := d.do("GET", "/v1.0/healthz/outbound", "", large); got.status != want {
			t.Errorf("%s: %d", flags, got.status)
		}
		d.Kill()
	}
}

func TestListenAddresses(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	d := start(t, m, "app", "--dapr-listen-addresses", "127.0.0.1,127.0.0.2")
	for host, open := range map[string]bool{"127.0.0.1": true, "127.0.0.2": true, "127.0.0.3": false} {
		for _, at := range []string{d.http, d.grpc} {
			conn, err := net.Dial("tcp", net.JoinHostPort(host, port(at)))
			if err == nil {
				_ = conn.Close()
			}
			if (err == nil) != open {
				t.Errorf("%s:%s: %v", host, port(at), err)
			}
		}
	}
	// Left out: loopback alone, which 127.0.0.2 stands outside of here.
	near := start(t, m, "near")
	for _, at := range []string{near.http, near.grpc} {
		if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.2", port(at))); err == nil {
			_ = conn.Close()
			t.Errorf("%s is open on all interfaces", at)
		}
	}
	all := start(t, m, "all", "--dapr-listen-addresses", "0.0.0.0")
	(&daprd{t: t, http: net.JoinHostPort("127.0.0.3", port(all.http))}).expect(204, "", "GET", "/v1.0/healthz/outbound", "")
}

// declaredOnly is a subscription that a file makes.
const declaredOnly = `
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: declared}
spec: {pubsubname: bus, topic: declared, routes: {default: /declared}}
`

func TestDisabledInitEndpoints(t *testing.T) {
	t.Parallel()
	app := spoken()
	var asked, configured atomic.Int32
	at := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dapr/subscribe":
			asked.Add(1)
		case "/dapr/config":
			configured.Add(1)
		}
		app.ServeHTTP(w, r)
	}))
	d := startWith(t, machine.New(t), resources+declaredOnly, "app", "--app-port", at, "--disable-init-endpoints", "config, subscribe")
	d.subscribed(1)
	d.expect(204, "", "POST", "/v1.0/publish/bus/declared", "x")
	if got := app.next(t); got.path != "/declared" || asked.Load()+configured.Load() != 0 {
		t.Errorf("got %v; the app was asked %d times for subscriptions, %d for its configuration", got, asked.Load(), configured.Load())
	}
	d.WaitFor("Skipping programmatic dapr configuration loading", machine.Patience)
	d.WaitFor("Skipping programmatic subscription loading", machine.Patience)
}

func TestHealthFlagsOfZeroMeanTheDefaults(t *testing.T) {
	t.Parallel()
	app := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	d := start(t, machine.New(t), "app", "--app-port", app, "--enable-app-health-check", "--app-health-threshold", "0",
		"--app-health-probe-interval", "0", "--app-health-probe-timeout", "0", "--app-max-concurrency", "-1")
	const want = `"health":{"healthCheckPath":"/healthz","healthProbeInterval":"5s","healthProbeTimeout":"500ms","healthThreshold":3}`
	if got := d.do("GET", "/v1.0/metadata", ""); !strings.Contains(got.body, want) {
		t.Errorf("got %s", got.body)
	}
}

func TestMetricsCanBeOff(t *testing.T) {
	t.Parallel()
	at := machine.Port(t)
	start(t, machine.New(t), "app", "--enable-metrics=false", "--metrics-port", at) // the later --metrics-port counts
	if conn, err := net.Dial("tcp", "127.0.0.1:"+at); err == nil {
		_ = conn.Close()
		t.Error("metrics are served")
	}
	here := machine.Port(t)
	start(t, machine.New(t), "app", "--metrics-port", here)
	if conn, err := net.Dial("tcp", "127.0.0.2:"+here); err == nil {
		_ = conn.Close()
		t.Error("metrics are served on all interfaces")
	}
	elsewhere := machine.Port(t)
	start(t, machine.New(t), "app", "--metrics-listen-address", "127.0.0.2", "--metrics-port", elsewhere)
	response, err := http.Get("http://127.0.0.2:" + elsewhere + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 200 {
		t.Error(response.Status)
	}
}

// With nothing in its environment but the folder that keeps it apart from other groups on this machine, it serves all the same.
func TestEmptyEnvironment(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	cmd := exec.Command(machine.Binary(t), "daprd", "--app-id", "app", "--dapr-http-port", machine.Port(t), "--dapr-grpc-port", machine.Port(t), "--metrics-port", machine.Port(t))
	cmd.Env = []string{"SIDECAST_DATA_DIR=" + m.Dir}
	d := &daprd{t: t, http: "127.0.0.1:" + cmd.Args[5], grpc: "127.0.0.1:" + cmd.Args[7], Process: m.StartCommand(cmd)}
	d.await("/v1.0/healthz")
	d.Terminate()
	if code := d.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d: %s", code, d.Output())
	}
}

// What a caller and its app are told of the machine and the namespace they are in.
func TestNamespaceAndHost(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Env = []string{"NAMESPACE=shop", "DAPR_HOST_IP=192.0.2.7"}
	start(t, m, "server", "--app-port", serve(t, http.HandlerFunc(echo))).await("/v1.0/healthz")
	d := start(t, m, "client")
	got := d.expect(200, "", "GET", "/v1.0/invoke/server.shop/method/x", "")
	if forwarded := got.header.Get("X-Forwarded"); !strings.HasPrefix(forwarded, "for=192.0.2.7;by=192.0.2.7") {
		t.Errorf("the call is forwarded %q", forwarded)
	}
	d.expect(500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: server.default, err: couldn't find service: server"}`, "GET", "/v1.0/invoke/server.default/method/x", "")
}

func TestWhereTheAppAndTheFilesAre(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	defer server.Close()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "all.yaml"), []byte(resources), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startWith(t, machine.New(t), "", "app", "--app-channel-address", "127.0.0.2", "--app-port", port(listener.Addr().String()), "--components-path", folder)
	d.await("/v1.0/healthz")
	d.expect(200, "hello", "POST", "/v1.0/invoke/app/method/x", "hello")
	d.expect(204, "", "GET", "/v1.0/state/store/k", "")
}

// Files that change are read again; a hangup, which asks daprd for that, ends nothing.
func TestFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	write := func(yaml string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, "all.yaml"), []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(resources)
	d := startWith(t, machine.New(t), "", "app", "--resources-path", folder)
	process, err := os.FindProcess(d.PID())
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	write(resources + "---\n" + strings.ReplaceAll(strings.Split(resources, "---")[0], "{name: store}", "{name: other}"))
	machine.Until(t, "the other store", func() error {
		if got := d.do("GET", "/v1.0/state/other/k", ""); got.status != 204 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
}
