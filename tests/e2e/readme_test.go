package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"

	"github.com/sidecast/sidecast/tests/machine"
)

const greeting = "hello from a plain web server\n"

// hello runs the README's single app: Python's web server beside a sidecar.
func hello(t *testing.T) (*machine.Machine, *machine.Sidecar) {
	t.Helper()
	m := machine.New(t)
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed: ", err)
	}
	www := t.TempDir()
	for name, text := range map[string]string{"index.html": greeting, "page.json": `{"page":1}`} {
		if err := os.WriteFile(filepath.Join(www, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := machine.Port(t)
	run := m.Run("--app-id", "hello", "--app-port", port, "--grpc-port", machine.Port(t), "--metrics-port", machine.Port(t),
		"--", python, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", www, port)
	s := m.Await("hello", run)
	s.Ready()
	return m, s
}

func TestReadmeSingleApp(t *testing.T) {
	m, s := hello(t)
	session(t, m, []step{
		{run: "invoke hello / --verb GET", out: `^` + greeting + `$`},
		{run: "invoke hello /index.html --verb GET", out: `^` + greeting + `$`},
		{run: "invoke hello page.json -X get -o json", out: `"status":200.*"data":\{"page":1\}`},
		{run: "invoke hello nothing-here -X GET", code: 1, out: `(?s)404`, err: `HTTP status 404`},
		{run: "state set greeting", args: []string{"good morning"}, out: `^[0-9a-f]{16}\n$`},
		{run: "state get greeting", out: `^good morning$`},
		{run: "status", out: `(?m)^hello .*ready`},
		{run: "tree", out: `(?s)app/hello .*breaker closed`},
	})
	_ = s
}

func TestReadmeCtrlCStopsAll(t *testing.T) {
	for _, c := range []struct {
		name string
		stop func(*machine.Sidecar)
	}{
		{"SIGINT", func(s *machine.Sidecar) { s.Interrupt() }},
		{"SIGTERM", func(s *machine.Sidecar) { s.Terminate() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, s := hello(t)
			children := s.Children()
			if len(children) != 2 {
				t.Fatalf("%d children, want the app and its sidecar", len(children))
			}
			c.stop(s)
			if code := s.Wait(machine.Patience); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			for _, id := range children {
				if alive, _ := process.PidExists(id); alive {
					t.Errorf("process %d is left behind", id)
				}
			}
			if r := m.Command("status", "-o", "json"); !strings.Contains(r.Out, `"machine":[]`) {
				t.Errorf("the sidecar is still on record: %s", r.Out)
			}
			if strings.Contains(s.Output(), "level=ERROR") || strings.Contains(s.Output(), "level=WARN") {
				t.Error("a plain stop complains")
			}
		})
	}
}

// A terminal sends Ctrl-C to the whole foreground group: supervisor and, if they were in it, app and sidecar.
func TestCtrlCOfATerminalReachesTheWholeGroup(t *testing.T) {
	m := machine.New(t)
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no shell: ", err)
	}
	cmd := exec.Command(machine.Binary(t), "run", "--data-dir", m.Dir, "--fabric-port", "0", "--app-id", "group",
		"--grpc-port", machine.Port(t), "--metrics-port", machine.Port(t),
		"--", shell, "-c", `trap 'echo saved my work; exit 0' TERM; echo started; while :; do sleep 0.05; done`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run := m.StartCommand(cmd)
	run.WaitFor("started", machine.Patience)
	if err := syscall.Kill(-run.PID(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := run.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	run.WaitFor("saved my work", time.Second)
}

func TestRunPassesOnTheExitCodeOfTheApp(t *testing.T) {
	m := machine.New(t)
	run := func(command ...string) *machine.Process {
		return m.Run(append([]string{"--app-id", "brief", "--grpc-port", machine.Port(t), "--metrics-port", machine.Port(t), "--"}, command...)...)
	}
	done := run("sh", "-c", "exit 0")
	if code := done.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d for an app that is done, want 0", code)
	}
	failed := run("sh", "-c", "exit 7")
	if code := failed.Wait(machine.Patience); code != 7 {
		t.Errorf("exit code %d for an app that failed with 7", code)
	}
	missing := run("/no/such/program")
	if code := missing.Wait(machine.Patience); code == 0 || code == -1 {
		t.Errorf("exit code %d for an app that does not exist", code)
	}
	if out := missing.Output(); !strings.Contains(out, "/no/such/program") || !strings.Contains(out, "no such file") {
		t.Errorf("the error does not name the program and the cause: %s", out)
	}
}

func TestAppsOfARunFileAreStartedAgain(t *testing.T) {
	m := machine.New(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "sidecast.yaml")
	text := `version: 1
apps:
  - appID: phoenix
    main: true
    restart: on-failure
    command: [sh, -c, 'if [ -e mark ]; then echo second life; exit 0; fi; : > mark; exit 7']
    appDirPath: .
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := m.Run("-f", file)
	run.WaitFor(`exited with status 7 .*restarting in`, machine.Patience)
	run.WaitFor(`second life`, machine.Patience)
	if code := run.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d, want that of the last life", code)
	}
}

func TestSidecarThatDiesIsStartedAgain(t *testing.T) {
	m, s := hello(t)
	m.Must("state", "set", "k", "kept")
	if err := s.Child("--exit-with-parent").Kill(); err != nil {
		t.Fatal(err)
	}
	s.WaitFor("SIGKILL .*restarting", machine.Patience)
	machine.Until(t, "the sidecar is back", func() error {
		if r := m.Command("invoke", "hello", "index.html", "-X", "GET"); r.Out != greeting {
			return fmt.Errorf("exit code %d: %s", r.Code, r.Err)
		}
		return nil
	})
	if got := m.Must("state", "get", "k"); got != "kept" {
		t.Errorf("state is %q after the sidecar was killed", got)
	}
}

func TestAppFindsItsSidecarInTheEnvironment(t *testing.T) {
	m := machine.New(t)
	run := m.Run("--app-id", "script", "--grpc-port", machine.Port(t), "--metrics-port", machine.Port(t), "--",
		"sh", "-c", `"$0" state set from-the-app works >/dev/null && "$0" state get from-the-app; echo " on $SIDECAST_GRPC_PORT"`, machine.Binary(t))
	run.WaitFor(`works on \d+`, machine.Patience)
	if code := run.Wait(machine.Patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestAdminPort(t *testing.T) {
	s := machine.New(t).Sidecar("admin", "--pprof")
	for path, want := range map[string]string{
		"/healthz":                       `"status": "live"`,
		"/tree":                          `"presence"`,
		"/metrics":                       `sidecast_`,
		"/debug/pprof/goroutine?debug=1": `goroutine profile: total`,
	} {
		code, body, err := s.HTTP(path)
		if err != nil || code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %v, and not %q in %.200s", path, code, err, want, body)
		}
	}
	plain := machine.New(t).Sidecar("plain")
	if code, _, err := plain.HTTP("/debug/pprof/"); err != nil || code != http.StatusNotFound {
		t.Errorf("without --pprof: %d %v, want 404", code, err)
	}
}

// step is one command of a session and what it should print: patterns, and "" for nothing at all.
type step struct {
	run      string
	args     []string // more arguments, with spaces
	stdin    string
	out, err string
	code     int
}

// session types commands one after the other.
func session(t *testing.T, m *machine.Machine, steps []step) {
	t.Helper()
	for _, s := range steps {
		args := append(strings.Fields(s.run), s.args...)
		r := m.Pipe(s.stdin, args...)
		line := strings.Join(args, " ")
		if r.Code != s.code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", line, r.Code, s.code, r.Out, r.Err)
			continue
		}
		matches(t, line+": standard output", r.Out, s.out)
		matches(t, line+": standard error", r.Err, s.err)
	}
}

func matches(t *testing.T, what, got, pattern string) {
	t.Helper()
	switch {
	case pattern == "" && got != "":
		t.Errorf("%s should be empty: %s", what, got)
	case pattern != "" && !regexp.MustCompile(pattern).MatchString(got):
		t.Errorf("%s does not match %q: %s", what, pattern, got)
	}
}

// parsesAsJSON reads one JSON value a line.
func parsesAsJSON(t *testing.T, what, text string) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	values := 0
	for {
		var v any
		err := decoder.Decode(&v)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Errorf("%s: not JSON: %v: %s", what, err, text)
			return
		}
		values++
	}
	if values == 0 {
		t.Errorf("%s: no JSON at all", what)
	}
}

// TestReadmeDapr types what the README says to those who come from Dapr, on ports of its own.
func TestReadmeDapr(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "## Coming from Dapr")
	section, _, _ = strings.Cut(section, "\n## ")
	want := []string{`Directory listing`, `^$`, `^"good morning"$`, `^$`, `^\{"success":true\}$`}
	m, port, appPort := machine.New(t), machine.Port(t), machine.Port(t)
	m.Env = append(m.Env, "HOME="+t.TempDir())
	ran := 0
	for line := range strings.Lines(section) {
		line = strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(line), "3500", port), "8081", appPort)
		switch {
		case strings.HasPrefix(line, "bin/sidecast "):
			if _, err := exec.LookPath("python3"); err != nil {
				t.Skip("python3 is not installed: ", err)
			}
			args := append(strings.Fields(line)[1:], "--bind", "127.0.0.1", "--directory", t.TempDir())
			m.Start(machine.Binary(t), args...).WaitFor("sidecar answers on HTTP", machine.Patience)
			daprAPI(t, port, "GET", "healthz", "", http.StatusNoContent) // the app has opened its port as well
		case strings.HasPrefix(line, "curl "):
			curl, err := exec.LookPath("curl")
			if err != nil {
				t.Skip("curl is not installed: ", err)
			}
			out, err := exec.Command("sh", "-c", strings.Replace(line, "curl", curl+" -sS --fail --max-time 20", 1)).CombinedOutput()
			if err != nil || !regexp.MustCompile(want[ran]).Match(out) {
				t.Errorf("%s: %v, %s", line, err, out)
			}
			ran++
		}
	}
	if ran != len(want) {
		t.Errorf("%d of %d commands were found", ran, len(want))
	}
}
