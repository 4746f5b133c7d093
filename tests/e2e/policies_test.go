package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

const policies = "../../examples/policies/"

// webApp serves an HTTP app in this process and returns its port.
func webApp(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	app := httptest.NewServer(handler)
	t.Cleanup(app.Close)
	_, port, err := net.SplitHostPort(app.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// copied is a folder of its own with the example of that name.
func copied(t *testing.T, example string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(policies+example)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// rewrite changes the one file of a folder.
func rewrite(t *testing.T, dir, from, to string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), from, to, 1)
	if changed == string(text) {
		t.Fatalf("%q is not in %s", from, files[0])
	}
	next := filepath.Join(t.TempDir(), "next")
	if err := os.WriteFile(next, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, files[0]); err != nil {
		t.Fatal(err)
	}
}

// caller is a client of another app's sidecar, once that sees my-app.
func caller(t *testing.T, m *machine.Machine, args ...string) *sidecast.Client {
	t.Helper()
	client := m.Sidecar("caller", args...).Client()
	machine.Until(t, "the caller sees my-app", func() error {
		_, err := get(t, client, "seen")
		return err
	})
	return client
}

func get(t *testing.T, client *sidecast.Client, method string) (*sidecast.Response, error) {
	ctx, cancel := context.WithTimeout(t.Context(), machine.Patience)
	defer cancel()
	return client.Invoke(ctx, "my-app", method, nil, sidecast.Verb(http.MethodGet))
}

func TestPolicyExamplesAreRight(t *testing.T) {
	m := machine.New(t)
	for example, want := range map[string]string{
		"opensergo": "calls that reach app my-app, /foo: admit 10 calls per 1s",
		"dapr":      "calls to my-app: each attempt may take 500ms;",
		"more":      "calls to pricing: give up after 5s; each attempt may take 1s;",
	} {
		if out := m.Must("lint", "--strict", policies+example); !strings.Contains(out, want) {
			t.Errorf("%s: %q is not in\n%s", example, want, out)
		}
	}
}

// A rule of OpenSergo admits ten requests a second to /foo and answers the others as it says; a change of its file is taken
// into use, and one that is wrong is not.
func TestOpenSergoRuleLimitsAPath(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	var reached atomic.Int64
	port := webApp(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/foo" {
			reached.Add(1)
		}
		_, _ = w.Write([]byte("served"))
	})
	dir := copied(t, "opensergo")
	app := m.Sidecar("my-app", "--app-port", port, "--resources-path", dir)
	app.Ready()
	client := caller(t, m)

	const calls = 60
	began, served, limited := time.Now(), 0, 0
	for n := range calls {
		r, err := get(t, client, "foo")
		switch {
		case err != nil:
			t.Fatal(err)
		case r.Status == http.StatusOK && string(r.Data) == "served":
			served++
		case r.Status == http.StatusTooManyRequests && string(r.Data) == "too many requests to foo" && r.Metadata["x-limited-by"] == "rate-limit-foo":
			limited++
		default:
			t.Fatalf("answer %d is %d %q %v", n, r.Status, r.Data, r.Metadata)
		}
		if n == 9 && served != 10 {
			t.Errorf("%d of the first ten were served", served)
		}
	}
	windows := int(time.Since(began)/time.Second) + 1
	if most := 10 * windows; served > most || int(reached.Load()) != served {
		t.Errorf("%d were served within %d windows, %d reached the app", served, windows, reached.Load())
	}
	if limited == 0 && windows < calls/10 {
		t.Error("none was limited")
	}
	if r, err := get(t, client, "bar"); err != nil || r.Status != http.StatusOK {
		t.Errorf("/bar is not limited: %v, %v", r, err)
	}

	rewrite(t, dir, "threshold: 10", "threshold: 1000000")
	app.WaitFor("policy files were read again", machine.Patience)
	for range calls {
		if r, err := get(t, client, "foo"); err != nil || r.Status != http.StatusOK {
			t.Fatalf("under the new limit: %v, %v", r, err)
		}
	}
	rewrite(t, dir, "threshold: 1000000", "treshold: 1")
	app.WaitFor(`limit-foo\.yaml:9: spec\.treshold: .*did you mean \\"threshold\\"`, machine.Patience)
	for range calls {
		if r, err := get(t, client, "foo"); err != nil || r.Status != http.StatusOK {
			t.Fatalf("after a file that is wrong: %v, %v", r, err)
		}
	}
}

// A Resiliency document of Dapr bounds attempts, repeats them and opens a breaker.
func TestDaprResiliency(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	var reached atomic.Int64
	hang := make(chan struct{})
	port := webApp(t, func(w http.ResponseWriter, r *http.Request) {
		n := reached.Add(1)
		switch r.URL.Path {
		case "/flaky":
			if n < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		case "/wrong":
			w.WriteHeader(http.StatusBadRequest)
		case "/hangs":
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}
	})
	t.Cleanup(func() { close(hang) })
	m.Sidecar("my-app", "--app-port", port).Ready()
	client := caller(t, m, "--resources-path", policies+"dapr")
	tries := func(method string) (tries int64, r *sidecast.Response, err error) {
		reached.Store(0)
		r, err = get(t, client, method)
		return reached.Load(), r, err
	}

	if n, r, err := tries("flaky"); n != 3 || err != nil || r.Status != http.StatusOK {
		t.Errorf("flaky: %d tries, %v, %v", n, r, err)
	}
	if n, r, err := tries("wrong"); n != 1 || err != nil || r.Status != http.StatusBadRequest {
		t.Errorf("wrong: %d tries, %v, %v", n, r, err)
	}
	if n, _, err := tries("hangs"); n != 4 || fault.ReasonOf(err) != fault.AttemptTimeout {
		t.Errorf("hangs: %d tries, %v", n, err)
	}
	n, _, err := tries("flaky")
	if n != 0 || fault.ReasonOf(err) != fault.BreakerOpen {
		t.Errorf("after four failures in a row: %d tries, %v", n, err)
	}
	if policy := fmt.Sprint(err); !strings.Contains(policy, "app/my-app") {
		t.Errorf("the refusal does not name its lane: %v", err)
	}
}

func TestAWrongPolicyKeepsASidecarFromStarting(t *testing.T) {
	m := machine.New(t)
	dir := copied(t, "dapr")
	rewrite(t, dir, "retry: thrice", "retry: trice")
	p := m.Run("--app-id", "wrong", "--grpc-port", "0", "--metrics-port", "0", "--resources-path", dir)
	if code := p.Wait(machine.Patience); code != 2 {
		t.Errorf("exit code %d", code)
	}
	p.WaitFor(`resiliency\.yaml:\d+: spec\.targets\.apps\.my-app\.retry: .*did you mean "thrice"`, machine.Patience)
}
