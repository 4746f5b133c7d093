package rundir_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	"github.com/sidecast/sidecast/fault"
)

// registerEnv makes the test binary a process that registers itself in that directory and waits to be killed.
const registerEnv = "RUNDIR_TEST_REGISTER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(registerEnv); dir != "" {
		if _, err := rundir.Register(dir, rundir.Entry{AppID: "victim", Instance: "v1"}); err != nil {
			panic(err)
		}
		_, _ = os.Stdout.WriteString("registered\n")
		select {}
	}
	goleak.VerifyTestMain(m)
}

func register(t *testing.T, dir string, e rundir.Entry) func() {
	t.Helper()
	release, err := rundir.Register(dir, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return release
}

func TestRecordIsFoundUntilReleased(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made on demand")
	want := rundir.Entry{
		AppID: "orders", Instance: "i1", PID: os.Getpid(), GRPCAddress: "127.0.0.1:50001", DaprHTTPAddress: "127.0.0.1:3500",
		AdminAddress: "127.0.0.1:9090", Started: time.Unix(1_700_000_000, 0).UTC(), Version: "v1.2.3",
	}
	release := register(t, dir, want)

	got, err := rundir.Find(dir, "orders")
	if err != nil || got != want {
		t.Fatalf("Find = %+v, %v; want %+v", got, err, want)
	}
	file := filepath.Join(dir, "run", "orders.i1.json")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode != 0o600 {
		t.Errorf("record has mode %o, want 600", mode)
	}
	var fields map[string]any
	text, _ := os.ReadFile(file)
	if err := json.Unmarshal(text, &fields); err != nil || fields["appId"] != "orders" || fields["grpcAddress"] != "127.0.0.1:50001" {
		t.Errorf("record is %s (%v)", text, err)
	}

	release()
	release()
	if _, err := rundir.Find(dir, "orders"); fault.ReasonOf(err) != fault.SidecarNotFound {
		t.Errorf("after release Find fails with %v, want reason %s", err, fault.SidecarNotFound)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "run")); len(left) != 0 {
		t.Errorf("release left %v behind", left)
	}
}

func TestListIsSortedAndFindPrefersTheOldest(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	register(t, dir, rundir.Entry{AppID: "b", Instance: "young", Started: now})
	register(t, dir, rundir.Entry{AppID: "b", Instance: "old", Started: now.Add(-time.Hour)})
	register(t, dir, rundir.Entry{AppID: "a/..", Instance: "x", Started: now})

	entries, err := rundir.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.AppID+" "+e.Instance)
	}
	if got, want := strings.Join(names, ","), "a/.. x,b old,b young"; got != want {
		t.Errorf("List = %s, want %s", got, want)
	}
	if e, err := rundir.Find(dir, "b"); err != nil || e.Instance != "old" {
		t.Errorf("Find = %v, %v", e, err)
	}
	_, err = rundir.Find(dir, "c")
	if err == nil || !strings.Contains(err.Error(), "there are: a/.., b") {
		t.Errorf("Find of a stranger = %v, want the names of those that run", err)
	}
}

func TestOneRecordHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	register(t, dir, rundir.Entry{AppID: "a", Instance: "i"})
	if _, err := rundir.Register(dir, rundir.Entry{AppID: "a", Instance: "i"}); fault.ReasonOf(err) != fault.DirectoryBad {
		t.Errorf("second Register = %v", err)
	}
}

func TestRecordOfAKilledProcessIsCleaned(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), registerEnv+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("child said %q: %v", line, err)
	}
	if e, err := rundir.Find(dir, "victim"); err != nil || e.PID != child.Process.Pid {
		t.Errorf("while it lives, Find = %+v, %v", e, err)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if entries, err := rundir.List(dir); err != nil || len(entries) != 0 {
		t.Errorf("after its death, List = %v, %v", entries, err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "run")); len(left) != 0 {
		t.Errorf("stale files are left: %v", left)
	}
}

func TestGarbageIsIgnored(t *testing.T) {
	dir := t.TempDir()
	release := register(t, dir, rundir.Entry{AppID: "a", Instance: "i"})
	if err := os.WriteFile(filepath.Join(dir, "run", "a.i.json"), []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if entries, err := rundir.List(dir); err != nil || len(entries) != 0 {
		t.Errorf("List = %v, %v", entries, err)
	}
	release()
}

func TestDirectoryThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := rundir.Register(file, rundir.Entry{AppID: "a", Instance: "i"}); fault.ReasonOf(err) != fault.DirectoryBad {
		t.Errorf("Register = %v", err)
	}
	if _, err := rundir.List(file); fault.ReasonOf(err) != fault.DirectoryBad {
		t.Errorf("List = %v", err)
	}
}
