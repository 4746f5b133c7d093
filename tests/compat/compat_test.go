// Package compat holds Sidecast to Dapr's word: real `sidecast daprd` processes, spoken to as Dapr's clients and apps do.
package compat

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/plugintest"
	"github.com/sidecast/sidecast/tests/servers"
)

// Tests run at once, each on a machine of its own: most of their time they wait. What they have in common are the servers, where
// apps of a name share what they read.
func TestMain(m *testing.M) {
	if plugintest.Wanted() {
		plugintest.Main()
	}
	code := machine.Main(m)
	if err := servers.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop servers:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// resources are the components that all sidecars of these tests have.
const resources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec:
  type: state.in-memory
  version: v1
  metadata: [{name: actorStateStore, value: "true"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: bus}
spec:
  type: pubsub.jetstream
  version: v1
  metadata:
  - {name: protectedTopics, value: "secret"}
  - {name: publishingScopes, value: "limited=orders"}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: locks}
spec:
  type: lock.in-memory
  version: v1
  metadata: []
`

// daprd is a sidecar that was started as daprd and is healthy.
type daprd struct {
	*machine.Process
	t          testing.TB
	http, grpc string // addresses
}

// start starts a sidecar on free ports and waits until its app may use it.
func start(t testing.TB, m *machine.Machine, app string, args ...string) *daprd {
	t.Helper()
	return startWith(t, m, resources, app, args...)
}

func startWith(t testing.TB, m *machine.Machine, yaml, app string, args ...string) *daprd {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "resources.yaml"), []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	d := &daprd{t: t, http: "127.0.0.1:" + machine.Port(t), grpc: "127.0.0.1:" + machine.Port(t)}
	all := []string{"daprd", "--app-id", app, "--dapr-http-port", port(d.http), "--dapr-grpc-port", port(d.grpc), "--metrics-port", machine.Port(t)}
	if yaml != "" {
		all = append(all, "--resources-path", folder)
	}
	d.Process = m.Start(machine.Binary(t), append(all, args...)...)
	d.await("/v1.0/healthz/outbound")
	return d
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// await waits for a 204.
func (d *daprd) await(path string) {
	d.t.Helper()
	machine.Until(d.t, path, func() error {
		select {
		case <-d.Done():
			d.t.Fatalf("the sidecar ended: %s", d.Output())
		default:
		}
		response, err := http.Get("http://" + d.http + path)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusNoContent {
			body, _ := io.ReadAll(response.Body)
			return fmt.Errorf("%d %s", response.StatusCode, body)
		}
		return nil
	})
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// do makes a request; fields are header fields as `name: value`.
func (d *daprd) do(method, path, body string, fields ...string) answer {
	d.t.Helper()
	r, err := http.NewRequest(method, "http://"+d.http+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer response.Body.Close()
	var all bytes.Buffer
	if _, err := all.ReadFrom(response.Body); err != nil {
		d.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, all.String()}
}

// expect fails the test unless a request is answered with that status and body; a body that ends in … is a beginning.
func (d *daprd) expect(status int, want, method, path, body string, fields ...string) answer {
	d.t.Helper()
	got := d.do(method, path, body, fields...)
	head, partly := strings.CutSuffix(want, "…")
	if text := strings.TrimSpace(got.body); got.status != status || text != want && (!partly || !strings.HasPrefix(text, head)) {
		d.t.Errorf("%s %s %s\ngot  %d %s\nwant %d %s", method, path, body, got.status, text, status, want)
	}
	return got
}

func dial(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// client is the gRPC API of a sidecar.
func (d *daprd) client() runtimev1.DaprClient { return runtimev1.NewDaprClient(dial(d.t, d.grpc)) }

// listen opens a port for an app.
func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// serve runs an HTTP app until the test ends and returns its port.
func serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	listener := listen(t)
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return port(listener.Addr().String())
}
