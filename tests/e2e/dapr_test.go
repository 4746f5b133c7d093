package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/tests/machine"
)

// daprApp is an app of Dapr's, which the test plays itself: it answers calls and takes events.
func daprApp(t *testing.T) (port string, events chan string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	events = make(chan string, 8)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dapr/subscribe", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"pubsubname":"pubsub","topic":"orders","route":"events"}]`)
	})
	mux.HandleFunc("POST /events", func(_ http.ResponseWriter, r *http.Request) {
		var event struct{ Data any }
		if json.NewDecoder(r.Body).Decode(&event) == nil {
			events <- fmt.Sprint(event.Data)
		}
	})
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port, events
}

// daprAPI sends a request to the HTTP API on a port until it answers with the status.
func daprAPI(t *testing.T, port, method, path, body string, status int) (answer string) {
	t.Helper()
	machine.Until(t, method+" "+path, func() error {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:"+port+"/v1.0/"+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != status {
			err = fmt.Errorf("status %d: %s", response.StatusCode, text)
		}
		answer = string(text)
		return err
	})
	return answer
}

// Dapr's quickstarts: a dapr.yaml, with nothing but names and ports, runs apps whose sidecars have Dapr's API and a statestore
// and a pubsub that nothing had to be installed for.
func TestDaprsTemplateRunsAsItIs(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	m.Env = append(m.Env, "HOME="+t.TempDir())
	app, events := daprApp(t)
	processor, checkout := machine.Port(t), machine.Port(t)
	folder := t.TempDir()
	write(t, filepath.Join(folder, "dapr.yaml"), fmt.Sprintf(`
version: 1
apps:
  - {appID: order-processor, appDirPath: ., appPort: %s, daprHTTPPort: %s}
  - {appID: checkout, appDirPath: ., daprHTTPPort: %s}
`, app, processor, checkout))
	run := m.Run("-f", folder)
	if got := daprAPI(t, checkout, "GET", "invoke/order-processor/method/hello", "", 200); got != "hello" {
		t.Errorf("the app answered %q", got)
	}
	daprAPI(t, checkout, "POST", "publish/pubsub/orders", `{"orderId":1}`, 204)
	select {
	case event := <-events:
		if event != "map[orderId:1]" {
			t.Errorf("an event with %s", event)
		}
	case <-time.After(30 * time.Second):
		t.Errorf("no event; output:\n%s", run.Output())
	}
	daprAPI(t, processor, "POST", "state/statestore", `[{"key":"order","value":{"orderId":1}}]`, 204)
	if got := daprAPI(t, processor, "GET", "state/statestore/order", "", 200); got != `{"orderId":1}` {
		t.Errorf("the state is %q", got)
	}
	if status := m.Command("status").Out; !strings.Contains(status, "DAPR HTTP") || !strings.Contains(status, " :"+processor+" ") {
		t.Errorf("status does not tell the ports of Dapr's API:\n%s", status)
	}
	run.Interrupt()
	if code := run.Wait(30 * time.Second); code != 0 {
		t.Errorf("exit code %d; output:\n%s", code, run.Output())
	}
}

// `dapr run` for one app, under Dapr's name and with its short flags, and the components of ~/.dapr.
func TestDaprRun(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	home := t.TempDir()
	m.Env = append(m.Env, "HOME="+home)
	components := filepath.Join(home, ".dapr", "components")
	if err := os.MkdirAll(components, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(components, "store.yaml"), `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec: {type: state.in-memory, version: v1}
`)
	app, _ := daprApp(t)
	port := machine.Port(t)
	run := m.Start(machine.Binary(t), "dapr", "run", "-a", "web", "-p", app, "-H", port, "--log-level", "fatal", "--enable-profiling")
	if got := daprAPI(t, port, "GET", "invoke/web/method/hello", "", 200); got != "hello" {
		t.Errorf("the app answered %q", got)
	}
	daprAPI(t, port, "POST", "state/store", `[{"key":"k","value":1}]`, 204)
	daprAPI(t, port, "GET", "state/statestore/k", "", 400) // there is only what ~/.dapr has
	run.Interrupt()
	if code := run.Wait(30 * time.Second); code != 0 {
		t.Errorf("exit code %d; output:\n%s", code, run.Output())
	}

	run = m.Start(machine.Binary(t), "dapr", "run", "-H", port, "--app-id", "logged", "--resources-path", t.TempDir(), "--enable-api-logging")
	daprAPI(t, port, "GET", "metadata", "", 200)
	run.WaitFor("HTTP API Called", machine.Patience)
	if strings.Contains(run.Output(), "app_id=") {
		t.Errorf("lines for collectors of logs:\n%s", run.Output())
	}
	run.Interrupt()
	run.Wait(30 * time.Second)

	run = m.Start(machine.Binary(t), "dapr", "run", "--app-id", "env", "--resources-path", t.TempDir(), "env")
	if code := run.Wait(30 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, name := range []string{"DAPR_HTTP_PORT=", "DAPR_GRPC_PORT=", "APP_ID=env", "APP_PROTOCOL=http"} {
		run.WaitFor(name, time.Second)
	}

	broken := t.TempDir()
	write(t, filepath.Join(broken, "broken.yaml"), "apiVersion: dapr.io/v1alpha1\nkind: Component\nspec: [\n")
	run = m.Start(machine.Binary(t), "dapr", "run", "--app-id", "broken", "--resources-path", broken, "env")
	if code := run.Wait(30 * time.Second); code == 0 || strings.Contains(run.Output(), "restarting") {
		t.Errorf("with a broken file: exit code %d, output:\n%s", code, run.Output())
	}
}

func TestAPortThatNobodyListensOnIsTold(t *testing.T) {
	t.Parallel()
	m, port := machine.New(t), machine.Port(t)
	m.Start(machine.Binary(t), "dapr", "run", "--app-id", "web", "--app-port", port).
		WaitFor("nothing listens on the app's port yet.*127.0.0.1:"+port, machine.Patience)
}

func TestOtherCommandsOfDaprsNameTheirReplacement(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	for command, want := range map[string]string{
		"stop --app-id web": "Ctrl-C", "init": "nothing has to be set up", "list": "sidecast status", "annotate -k x": "`dapr run` is",
	} {
		result := m.Command(append([]string{"dapr"}, strings.Fields(command)...)...)
		if result.Code != 2 || !strings.Contains(result.Err, want) {
			t.Errorf("dapr %s: %+v", command, result)
		}
	}
}
