package faults

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shirou/gopsutil/v4/process"

	"github.com/sidecast/sidecast/tests/machine"
)

// A log that nobody reads any more is no reason to die.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(machine.Binary(t), "run", "--app-id", "mute", "--data-dir", m.Dir, "--fabric-port", "0", "--grpc-port", "0", "--metrics-port", "0")
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	_ = read.Close() // before it has said a word
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	machine.Until(t, "it answers", func() error {
		if r := m.Command("state", "list"); r.Code != 0 {
			return errors.New(r.Err)
		}
		return nil
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it did not end in good order: %v", err)
	}
}

// `sidecast run … | tee log`: Ctrl-C ends tee first, and still everything stops in good order.
func TestCtrlCWhenTheReaderOfTheLogIsGone(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	mark := filepath.Join(t.TempDir(), "mark")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(machine.Binary(t), "run", "--app-id", "piped", "--data-dir", m.Dir, "--fabric-port", "0",
		"--grpc-port", machine.Port(t), "--metrics-port", machine.Port(t), "--",
		"sh", "-c", `trap 'echo saved > "$0"; exit 0' TERM; echo started; while :; do sleep 0.05; done`, mark)
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	for lines := bufio.NewScanner(read); lines.Scan() && !strings.Contains(lines.Text(), "started"); {
	}
	_ = read.Close()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it did not end in good order: %v", err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("the app could not save its work: %v", err)
	}
}

// When the supervisor is killed, so that nobody reads the output of app and sidecar either, both end by themselves, and
// the sidecar in good order.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	run := m.Run("--app-id", "orphan", "--sidecar-logs", "--grpc-port", machine.Port(t), "--metrics-port", machine.Port(t), "--",
		"sh", "-c", `echo started; while :; do sleep 0.05; done`)
	run.WaitFor("started", machine.Patience)
	children := run.Children()
	if len(children) != 2 {
		t.Fatalf("%d children, want 2", len(children))
	}
	run.Kill()
	machine.Until(t, "app and sidecar end", func() error {
		for _, id := range children {
			if alive, _ := process.PidExists(id); alive {
				return errors.New("one lives on")
			}
		}
		return nil
	})
	if left, err := os.ReadDir(filepath.Join(m.Dir, "run")); err != nil || len(left) > 0 {
		t.Errorf("the sidecar has left its record behind, as if it had been killed: %v, %v", left, err)
	}
}
