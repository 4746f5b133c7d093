// Package e2e runs the product as its users do: the binary, real processes, the commands of the README.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// binary is the sidecast under test, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sidecast-e2e-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "sidecast")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/runtime")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "the binary does not build:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// skipShort leaves real processes out of short runs.
func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes are left out of -short")
	}
}

// sidecast is one run of the binary and all it printed.
type sidecast struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu    sync.Mutex
	lines []string
	grown chan struct{} // closed and replaced with each line
}

// start runs the binary with a data directory and a fabric port of the test's own.
func start(t *testing.T, dataDir string, args ...string) *sidecast {
	t.Helper()
	args = append([]string{args[0], "--data-dir", dataDir, "--fabric-port", "0"}, args[1:]...)
	s := &sidecast{t: t, cmd: exec.Command(binary, args...), done: make(chan struct{}), grown: make(chan struct{})}
	out, in := io.Pipe()
	s.cmd.Stdout, s.cmd.Stderr = in, in
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			s.mu.Lock()
			s.lines = append(s.lines, lines.Text())
			close(s.grown)
			s.grown = make(chan struct{})
			s.mu.Unlock()
		}
	}()
	go func() {
		s.err = s.cmd.Wait()
		_ = in.Close()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Log(s.output())
		}
	})
	return s
}

func (s *sidecast) output() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// waitFor returns the first line, printed or yet to be, that matches pattern.
func (s *sidecast) waitFor(pattern string, within time.Duration) string {
	s.t.Helper()
	wanted := regexp.MustCompile(pattern)
	deadline := time.After(within)
	for seen := 0; ; {
		s.mu.Lock()
		for ; seen < len(s.lines); seen++ {
			if wanted.MatchString(s.lines[seen]) {
				defer s.mu.Unlock()
				return s.lines[seen]
			}
		}
		grown := s.grown
		s.mu.Unlock()
		select {
		case <-grown:
		case <-s.done:
			s.t.Fatalf("sidecast ended (%v) before it printed %q", s.err, pattern)
		case <-deadline:
			s.t.Fatalf("no line with %q within %s", pattern, within)
		}
	}
}

// wait waits for the process to end and returns its exit code.
func (s *sidecast) wait(within time.Duration) int {
	s.t.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		s.t.Fatalf("still running after %s", within)
		return -1
	}
}

// interrupt is Ctrl-C.
func (s *sidecast) interrupt() { _ = s.cmd.Process.Signal(os.Interrupt) }

// kill is SIGKILL to the process itself, and a wait for its end.
func (s *sidecast) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// child finds the child process whose command line holds text.
func (s *sidecast) child(text string) *process.Process {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		parent, err := process.NewProcess(int32(s.cmd.Process.Pid))
		if err != nil {
			continue
		}
		children, err := parent.Children()
		if err != nil {
			continue
		}
		for _, child := range children {
			if line, err := child.Cmdline(); err == nil && strings.Contains(line, text) {
				return child
			}
		}
	}
	s.t.Fatalf("no child process with %q", text)
	return nil
}

// command runs one command of the binary against the data directory and returns what it printed.
func command(t *testing.T, dataDir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "SIDECAST_DATA_DIR="+dataDir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
