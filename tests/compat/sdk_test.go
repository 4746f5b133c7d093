package compat

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/tests/compat/cases"
	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// sdkNode is where a sidecar and its app listen, as the programs of the SDKs are told in the variable COMPAT_NODES.
type sdkNode struct {
	ID         string
	HTTP, GRPC string // ports of the sidecar
	App        string // port that the app shall have; "" when there is none
	Token      string // that the sidecar asks for; "" when it asks for none
}

// sdk is a published Dapr SDK and the program that uses it.
type sdk struct {
	name string
	lock string // the file that names every package it needs, in exact versions
	// needs are commands that succeed where it can be installed and run, and print the versions that do it.
	needs [][]string
	// install puts the packages of the lock file into a folder, which is moved elsewhere afterwards.
	install func(folder, to string) [][]string
	// run is the command line of the program in folder, with the packages in from, and what it adds to the environment.
	run func(folder, from string) (args, env []string)
	// apps are the apps that the program serves, with the protocols that their sidecars speak.
	apps  map[string]string
	cases []cases.Case
}

func TestJavaScriptSDK(t *testing.T) {
	t.Parallel()
	testSDK(t, sdk{
		name: "jssdk", lock: "package-lock.json", needs: [][]string{{"node", "--version"}, {"npm", "--version"}},
		install: func(folder, to string) [][]string {
			return [][]string{
				{"cp", filepath.Join(folder, "package.json"), filepath.Join(folder, "package-lock.json"), to},
				{"npm", "ci", "--prefix", to, "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"},
			}
		},
		run: func(folder, from string) (args, env []string) {
			return []string{"node", filepath.Join(folder, "main.js")}, []string{"NODE_PATH=" + filepath.Join(from, "node_modules")}
		},
		apps:  map[string]string{"http": "http", "grpc": "grpc"},
		cases: cases.JavaScript(),
	})
}

func TestPythonSDK(t *testing.T) {
	t.Parallel()
	python := func(folder string) string { return filepath.Join(folder, "bin", "python") }
	testSDK(t, sdk{
		name: "pysdk", lock: "requirements.txt",
		needs: [][]string{{"python3", "-c", "import ensurepip, venv, sys; assert sys.version_info >= (3, 11), sys.version; print(sys.version)"}},
		install: func(folder, to string) [][]string {
			return [][]string{
				{"python3", "-m", "venv", to},
				{python(to), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "-r", filepath.Join(folder, "requirements.txt")},
			}
		},
		run: func(folder, from string) (args, env []string) {
			return []string{python(from), filepath.Join(folder, "main.py")}, []string{"PYTHONDONTWRITEBYTECODE=1"}
		},
		apps:  map[string]string{"grpc": "grpc", "fastapi": "http", "flask": "http"},
		cases: cases.Python(),
	})
}

// testSDK runs the program of an SDK, and each of its cases as a test of its own.
func testSDK(t *testing.T, s sdk) {
	m := machine.New(t)
	folder, err := filepath.Abs(s.name)
	if err != nil {
		t.Fatal(err)
	}
	packages := s.installed(t, folder)
	files, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		_, _ = os.ReadFile(file) // tells go test of it, which otherwise takes the result of the last run when only the program has changed
	}
	nodes, ends := s.sidecars(t, m)
	told, err := json.Marshal(nodes)
	if err != nil {
		t.Fatal(err)
	}
	args, env := s.run(folder, packages)
	cmd := exec.Command(args[0], args[1:]...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DAPR_") && !strings.HasPrefix(v, "OTEL_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, env...), "COMPAT_NODES="+string(told), "COMPAT_SIDECAST="+machine.Binary(t), "SIDECAST_DATA_DIR="+m.Dir, "NO_PROXY=127.0.0.1,localhost")
	program := m.StartCommand(cmd)
	code := program.Wait(6 * machine.Patience)

	said := map[string]string{} // the error of each case
	for _, line := range strings.Split(program.Output(), "\n") {
		text, ok := strings.CutPrefix(line, "case ")
		if !ok {
			continue
		}
		var end struct{ Name, Error string }
		if err := json.Unmarshal([]byte(text), &end); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if _, twice := said[end.Name]; twice {
			t.Errorf("two cases are named %s", end.Name)
		}
		said[end.Name] = end.Error
	}
	for _, c := range s.cases {
		if c.Postgres && nodes["queried"].HTTP == "" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			problem, ran := said[c.Name]
			switch delete(said, c.Name); {
			case !ran:
				t.Error("the program did not run it")
			case problem != "":
				t.Error(problem)
			}
		})
	}
	for name := range said {
		t.Errorf("the case %s is in no table", name)
	}
	if code != 0 {
		t.Fatalf("the program ends with code %d", code)
	}
	for _, d := range ends {
		if code := d.Wait(machine.Patience); code != 0 {
			t.Errorf("a sidecar that was told to end does so with code %d: %s", code, d.Output())
		}
	}
}

// sidecars starts what the program talks to: the sidecars of its apps, that of an app which only calls, one with stores that can
// be queried where there is PostgreSQL, one that asks for a token, and two that are told to end.
func (s *sdk) sidecars(t *testing.T, m *machine.Machine) (nodes map[string]sdkNode, ends []*daprd) {
	nodes = map[string]sdkNode{}
	base := withSettings + `---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec:
  type: secretstores.local.file
  version: v1
  metadata: [{name: secretsFile, value: ` + writeFile(t, "secrets.json", `{"password": "hunter2", "db": {"user": "me", "key": "k"}}`) + `}, {name: multiValued, value: "true"}]
` + component("talker", "conversation.echo")
	yaml := base
	add := func(m *machine.Machine, name string, node sdkNode, args ...string) *daprd {
		node.ID = s.name + "-" + name
		d := startWith(t, m, yaml, node.ID, args...)
		node.HTTP, node.GRPC = port(d.http), port(d.grpc)
		nodes[name] = node
		return d
	}
	for name, protocol := range s.apps {
		app := machine.Port(t)
		yaml = base + component("files", "bindings.localstorage", "rootPath: "+t.TempDir()) + component("tick", "bindings.cron", "schedule: @every 1s")
		add(m, name, sdkNode{App: app}, "--app-port", app, "--app-protocol", protocol,
			"--enable-app-health-check", "--app-health-probe-interval", "2", "--app-health-probe-timeout", "1900", "--app-health-threshold", "2")
	}
	yaml = base
	add(m, "caller", sdkNode{})
	if servers.HasPostgres(t) {
		queried := sdkNode{ID: s.name + "-queried"}
		d := startWith(t, m, fmt.Sprintf(queryResources, servers.Postgres(t), time.Now().UnixNano()), queried.ID)
		queried.HTTP, queried.GRPC = port(d.http), port(d.grpc)
		nodes["queried"] = queried
	}
	for _, protocol := range []string{"http", "grpc"} {
		ends = append(ends, add(m, "ending-"+protocol, sdkNode{}))
	}
	other := machine.New(t)
	other.Env = []string{"DAPR_API_TOKEN=key"}
	add(other, "guarded", sdkNode{Token: "key"})
	return nodes, ends
}

// installed is a folder with the packages of the SDK. It is made once for each lock file and version of what installs it, in
// the user's cache. Where that is missing, the test is skipped, unless SIDECAST_SDKS is "required".
func (s *sdk) installed(t *testing.T, folder string) string {
	t.Helper()
	lock, err := os.ReadFile(filepath.Join(folder, s.lock))
	if err != nil {
		t.Fatal(err)
	}
	key := sha256.New()
	key.Write(lock)
	for _, args := range s.needs {
		version, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			if os.Getenv("SIDECAST_SDKS") == "required" {
				t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, version)
			}
			t.Skipf("%s: %v; SIDECAST_SDKS=required makes this a failure\n%s", strings.Join(args, " "), err, version)
		}
		key.Write(version)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "sidecast-tests")
	ready := filepath.Join(cache, fmt.Sprintf("%s-%x", s.name, key.Sum(nil)[:8]))
	if _, err := os.Stat(ready); err == nil {
		return ready
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(cache, s.name+"-new-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	began := time.Now()
	for _, args := range s.install(folder, fresh) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	t.Logf("installing the SDK took %v of this test", time.Since(began).Round(time.Second))
	if err := os.Rename(fresh, ready); err != nil {
		if _, other := os.Stat(ready); other != nil { // no other run was faster
			t.Fatal(err)
		}
	}
	return ready
}
