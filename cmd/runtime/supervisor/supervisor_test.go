//go:build unix

package supervisor

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
)

func TestRunEndsWhenEveryAppIsDone(t *testing.T) {
	s := newStage(t, app("intake", "exit", "0"), app("pricing", "exit", "0"), App{ID: "idle"}).start().ends(0)
	for _, line := range []string{
		"intake          | hello from intake\n", "pricing         | hello from pricing\n",
		"sidecast        | intake: sidecar answers on gRPC 127.0.0.1:", "intake: done after ",
	} {
		s.says(line)
	}
	if s.err != nil || strings.Contains(s.out.String(), "restarting") {
		t.Errorf("error %v, output:\n%s", s.err, s.out.String())
	}
}

func TestEndOfTheMainAppEndsTheRun(t *testing.T) {
	main := app("main", "exit", "7")
	main.Main = true
	s := newStage(t, app("server", "serve"), main).start().ends(7)
	if events := readEvents(); strings.Contains(events, "server start") != strings.Contains(events, "server term") {
		t.Errorf("the server was not asked to end:\n%s", events)
	}
	s.says("main: exited with status 7").says("it is not restarted")
}

func TestCrashingAppComesBackAndSaysSo(t *testing.T) {
	s := newStage(t, app("flaky", "crash", "2")).start().ends(0)
	said := regexp.MustCompile(`flaky: exited with status 3 after \S+; restarting in (\S+) \(restart (\d)\)`)
	got := said.FindAllStringSubmatch(s.out.String(), -1)
	if len(got) != 2 || got[0][1] != "200ms" || got[0][2] != "1" || got[1][1] != "400ms" || got[1][2] != "2" {
		t.Errorf("the restarts are told as %q in:\n%s", got, s.out.String())
	}
}

func TestRestartPolicies(t *testing.T) {
	never := app("never", "exit", "4")
	never.Restart = Never
	newStage(t, never, app("other", "exit", "0")).start().ends(4).says("never: exited with status 4")

	always := app("always", "exit", "0")
	always.Restart = Always
	s := newStage(t, always).start()
	s.says("(restart 2)")
	s.cancel()
	s.ends(0)
}

func TestKilledSidecarComesBackOnItsPort(t *testing.T) {
	s := newStage(t, app("pricing", "serve")).start()
	s.sees("pricing start")
	first := strings.Fields(s.sees("pricing/sidecar start"))
	if err := syscall.Kill(port(first[0]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.says("pricing/sidecar: was ended by SIGKILL after")
	if !waitFor(func() bool { return strings.Count(readEvents(), "pricing/sidecar start") == 2 }) {
		t.Fatal("the sidecar does not come back")
	}
	if n := strings.Count(readEvents(), " "+first[1]+"\n"); n != 2 {
		t.Errorf("the sidecar changed its port %s:\n%s", first[1], readEvents())
	}
	if strings.Count(readEvents(), "pricing start") != 1 {
		t.Errorf("the app was restarted with its sidecar:\n%s", readEvents())
	}
	s.cancel()
	s.ends(0)
}

func TestStoppingKeepsTheSidecarForTheAppsLastCall(t *testing.T) {
	s := newStage(t, app("pricing", "serve")).start()
	s.sees("pricing start")
	s.cancel()
	s.ends(0).says("stopping; interrupt again to kill at once")
	var order []string
	for line := range strings.Lines(readEvents()) {
		if line = strings.TrimSpace(line); !strings.Contains(line, " start ") {
			order = append(order, line)
		}
	}
	want := "pricing/sidecar drain, pricing term, pricing end, pricing/sidecar term"
	if got := strings.Join(order, ", "); got != want {
		t.Errorf("order of the end:\n got %s\nwant %s", got, want)
	}
}

func TestDeafAppIsKilledAfterTheGracePeriod(t *testing.T) {
	s := newStage(t, app("deaf", "deaf"))
	s.plan.Grace = 300 * time.Millisecond
	s.start()
	pid := port(s.sees("deaf start"))
	s.cancel()
	s.ends(0).says("deaf: was killed")
	if alive(pid) {
		t.Error("the app survived")
	}
	s.sees("deaf ignores")
	s.sees("deaf/sidecar term")
}

func TestSecondInterruptKillsAtOnce(t *testing.T) {
	s := newStage(t, app("deaf", "deaf"))
	s.plan.Grace = time.Hour
	s.start()
	pid := port(s.sees("deaf start"))
	s.cancel()
	s.sees("deaf ignores")
	close(s.kill)
	s.ends(0).says("killing everything")
	if alive(pid) {
		t.Error("the app survived")
	}
}

func TestGrandchildrenEndWithTheirApp(t *testing.T) {
	for name, role := range map[string]string{"done": "0", "stopped": "-1"} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, app("parent", "parent", role))
			s.plan.Grace = time.Second
			s.start()
			pid := port(s.sees("orphan pid"))
			if role == "-1" {
				s.sees("orphan ready")
				s.cancel()
			}
			s.ends(0)
			if alive(pid) {
				t.Errorf("grandchild %d survived", pid)
			}
		})
	}
}

func TestNothingSurvivesTheSupervisor(t *testing.T) {
	t.Setenv(eventsEnv, filepath.Join(t.TempDir(), "events"))
	file := filepath.Join(t.TempDir(), "sidecast.yaml")
	text := "version: 1\napps:\n" +
		"- {appID: server, command: [" + strconv.Quote(os.Args[0]) + ", app, serve]}\n" +
		"- {appID: parent, command: [" + strconv.Quote(os.Args[0]) + ", app, parent, '-1']}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	supervisor := exec.Command(os.Args[0], "supervise", file)
	supervisor.Stderr = os.Stderr
	if err := supervisor.Start(); err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t}
	pids := []int{
		port(s.sees("server start")), port(s.sees("parent start")), port(s.sees("orphan pid")),
		port(strings.Fields(s.sees("server/sidecar start"))[0]), port(strings.Fields(s.sees("parent/sidecar start"))[0]),
	}
	s.sees("orphan ready")
	_ = supervisor.Process.Kill()
	_ = supervisor.Wait()
	for _, pid := range pids {
		if !waitFor(func() bool { return !alive(pid) }) {
			t.Errorf("process %d survived; events:\n%s", pid, readEvents())
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func TestGarbageBecomesLines(t *testing.T) {
	s := newStage(t, app("noisy", "garbage"))
	s.plan.Format = JSON
	s.start().ends(0)
	var stdout, stderr []string
	for line := range strings.Lines(s.out.String()) {
		var got struct{ App, Source, Stream, Message string }
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("not JSON: %q: %v", line, err)
		}
		switch {
		case got.Source == "app" && got.Stream == "stdout":
			stdout = append(stdout, got.Message)
		case got.Source == "app":
			stderr = append(stderr, got.Message)
		}
		if len(got.Message) > longestLine {
			t.Errorf("a message of %d bytes", len(got.Message))
		}
	}
	want := "nul \ufffd bell \ufffd bad \ufffd\ufffd|red\ufffd[2J|no newline"
	if got := strings.Join(stdout, "|"); got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got := strings.Join(stderr, ""); got != strings.Repeat("x", 3*longestLine) {
		t.Errorf("stderr has %d bytes in %d lines", len(got), len(stderr))
	}
}

func TestWhatCannotBeStarted(t *testing.T) {
	missing := App{ID: "a", Command: []string{"no-such-program-anywhere"}}
	s := newStage(t, missing, app("server", "serve")).start().ends(1)
	if fault.ReasonOf(s.err) != fault.ProcessFailed || !strings.Contains(s.err.Error(), "no-such-program-anywhere") {
		t.Errorf("error %v", s.err)
	}

	refused := app("a", "serve")
	refused.Env = map[string]string{"SUPERVISOR_TEST_SIDECAR_EXIT": "2"}
	s = newStage(t, refused).start().ends(1)
	if fault.ReasonOf(s.err) != fault.ProcessFailed {
		t.Errorf("error %v", s.err)
	}
	s.says("a/sidecar | cannot work like this")

	noDir := app("a", "serve")
	noDir.Dir = filepath.Join(t.TempDir(), "nowhere")
	if s = newStage(t, noDir).start().ends(2); fault.ReasonOf(s.err) != fault.RunFile {
		t.Errorf("error %v", s.err)
	}
}

func TestBuildRunsOnceBeforeAnything(t *testing.T) {
	a, b := app("a", "exit", "0"), app("b", "exit", "0")
	a.Build = []string{os.Args[0], "app", "exit", "0"}
	b.Build = a.Build
	s := newStage(t, a, b).start().ends(0)
	if n := strings.Count(s.out.String(), ": building: "); n != 1 {
		t.Errorf("built %d times:\n%s", n, s.out.String())
	}

	a.Build = []string{os.Args[0], "app", "exit", "5"}
	s = newStage(t, a).start().ends(1)
	if err := s.err; err == nil || !strings.Contains(err.Error(), "build a: exited with status 5") {
		t.Errorf("error %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := app("a", "exit", "0")
	taken.GRPCPort = l.Addr().(*net.TCPAddr).Port
	s := newStage(t, taken).start().ends(2)
	if fault.ReasonOf(s.err) != fault.PortInUse || !strings.Contains(s.err.Error(), "a.grpcPort: cannot listen on port") {
		t.Errorf("error %v", s.err)
	}
	one, other := app("a", "exit", "0"), app("a", "exit", "0")
	one.MetricsPort, other.MetricsPort = 20001, 20001
	s = newStage(t, one, other).start().ends(2)
	if s.err == nil || !strings.Contains(s.err.Error(), "a#1.metricsPort and a#2.metricsPort are both 20001") {
		t.Errorf("error %v", s.err)
	}
}

func TestEnvironmentOfAnApp(t *testing.T) {
	t.Setenv("SIDECAST_API_TOKEN", "secret-token")
	t.Setenv("DAPR_GRPC_PORT", "from outside")
	e := app("orders", "env")
	e.Port, e.GRPCPort = 8080, 0
	e.Env = map[string]string{"MINE": "1"}
	s := newStage(t, e).start().ends(0)
	for _, pattern := range []string{
		`APP_ID=orders`, `APP_PORT=8080`, `SIDECAST_GRPC_PORT=\d+`, `DAPR_GRPC_PORT=\d+`,
		`SIDECAST_GRPC_ENDPOINT=127\.0\.0\.1:\d+`, `SIDECAST_API_TOKEN=secret-token`,
		`DAPR_API_TOKEN=secret-token`, `MINE=1`,
	} {
		if !regexp.MustCompile(`(?m)^orders +\| ` + pattern + `$`).MatchString(s.out.String()) {
			t.Errorf("no %s", pattern)
		}
	}
}

func TestEnvironmentOfAnAppOfDaprs(t *testing.T) {
	e := app("orders", "env")
	e.Dapr, e.Namespace = true, "shop"
	s := newStage(t, e).start().ends(0)
	for _, pattern := range []string{
		`DAPR_HTTP_PORT=\d+`, `DAPR_GRPC_PORT=\d+`, `DAPR_METRICS_PORT=\d+`, `APP_PROTOCOL=http`, `NAMESPACE=shop`,
	} {
		if !regexp.MustCompile(`(?m)^orders +\| ` + pattern + `$`).MatchString(s.out.String()) {
			t.Errorf("no %s", pattern)
		}
	}
	s.says("orders: sidecar answers on HTTP 127.0.0.1:")

	e.DaprFlags = []string{"--unix-domain-socket=/run/dapr"}
	newStage(t, e).start().ends(0).says("orders: sidecar answers on sockets in /run/dapr")
}

// As with Dapr: an app that fails is not started again, and the others go on.
func TestAppsOfDaprsAreNotRestarted(t *testing.T) {
	failing := app("failing", "exit", "3")
	failing.Dapr = true
	newStage(t, failing).start().ends(3).says("failing: exited with status 3").says("it is not restarted")
}

func TestSignals(t *testing.T) {
	ctx, kill, release := Signals(t.Context())
	defer release()
	began := time.Now()
	_ = syscall.Kill(os.Getpid(), syscall.SIGTERM)
	<-ctx.Done()
	_ = syscall.Kill(os.Getpid(), syscall.SIGTERM) // the same, as timeout(1) sends it
	select {
	case <-kill:
		if time.Since(began) < doubled {
			t.Error("the first signal kills")
		}
	case <-time.After(2 * doubled):
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGINT)
	<-kill
}

func TestNoSidecars(t *testing.T) {
	s := newStage(t, app("alone", "exit", "0"))
	s.plan.NoSidecars = true
	s.plan.Ready = func(context.Context, App) error { return nil }
	s.start().ends(0).says("alone    | hello from alone")
	if strings.Contains(readEvents(), "sidecar") {
		t.Errorf("a sidecar was started:\n%s", readEvents())
	}
}
