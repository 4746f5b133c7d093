package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/process"
)

// Process is one run of a program and all that it printed.
type Process struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}

	mu    sync.Mutex
	lines []string
	grown chan struct{} // closed and replaced with each line
}

// Run starts `sidecast run` with a data directory and a fabric port of this machine's own, and does not wait for anything.
func (m *Machine) Run(args ...string) *Process {
	m.t.Helper()
	return m.Start(Binary(m.t), append([]string{"run", "--data-dir", m.Dir, "--fabric-port", "0"}, args...)...)
}

// Start starts any program in the environment of this machine. It is killed when the test ends.
func (m *Machine) Start(program string, args ...string) *Process {
	m.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = m.environ()
	return m.StartCommand(cmd)
}

// StartCommand is Start for a command that the caller has prepared, environment included.
func (m *Machine) StartCommand(cmd *exec.Cmd) *Process {
	m.t.Helper()
	p := &Process{t: m.t, cmd: cmd, done: make(chan struct{}), grown: make(chan struct{})}
	out, in, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	tether(cmd)
	err = cmd.Start()
	_ = in.Close()
	if err != nil {
		_ = out.Close()
		m.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer out.Close()
		p.read(out)
	}()
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
		select {
		case <-read:
		case <-time.After(time.Second): // a child that outlives it holds the pipe
		}
	}()
	m.t.Cleanup(func() {
		p.killFamily()
		if m.t.Failed() {
			m.t.Logf("%s\n%s", strings.Join(cmd.Args[1:], " "), p.Output())
		}
	})
	return p
}

func (p *Process) read(out io.Reader) {
	reader := bufio.NewReader(out)
	for {
		line, err := reader.ReadString('\n')
		if line != "" {
			p.mu.Lock()
			p.lines = append(p.lines, strings.TrimSuffix(line, "\n"))
			close(p.grown)
			p.grown = make(chan struct{})
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// Output is what the process has printed so far, on both streams.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// WaitFor returns the first line, printed or yet to be, that matches pattern.
func (p *Process) WaitFor(pattern string, within time.Duration) string {
	p.t.Helper()
	wanted := regexp.MustCompile(pattern)
	deadline := time.After(within)
	for seen := 0; ; {
		p.mu.Lock()
		for ; seen < len(p.lines); seen++ {
			if wanted.MatchString(p.lines[seen]) {
				defer p.mu.Unlock()
				return p.lines[seen]
			}
		}
		grown := p.grown
		p.mu.Unlock()
		select {
		case <-grown:
		case <-p.done:
			p.t.Fatalf("the process ended with %d before it printed %q", p.cmd.ProcessState.ExitCode(), pattern)
		case <-deadline:
			p.t.Fatalf("no line with %q within %s", pattern, within)
		}
	}
}

// Wait waits for the process to end and returns its exit code.
func (p *Process) Wait(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.t.Fatalf("still running after %s", within)
		return -1
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Interrupt is Ctrl-C.
func (p *Process) Interrupt() { _ = p.cmd.Process.Signal(os.Interrupt) }

// Terminate asks it to end, as service managers do.
func (p *Process) Terminate() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }

// Kill ends it at once and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// killFamily ends it and its children at once, and waits until none is left that could write to the test's folders.
func (p *Process) killFamily() {
	children := p.Children()
	p.Kill()
	for _, id := range children {
		if child, err := process.NewProcess(id); err == nil {
			_ = child.Kill()
		}
	}
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		children = slices.DeleteFunc(children, func(id int32) bool {
			alive, err := process.PidExists(id)
			return err == nil && !alive
		})
		if len(children) == 0 {
			return
		}
	}
	p.t.Errorf("processes %v do not end", children)
}

// Child finds the child process whose command line holds text.
func (p *Process) Child(text string) *process.Process {
	p.t.Helper()
	var found *process.Process
	Until(p.t, fmt.Sprintf("a child process with %q", text), func() error {
		parent, err := process.NewProcess(int32(p.PID()))
		if err != nil {
			return err
		}
		children, err := parent.Children()
		if err != nil {
			return err
		}
		for _, child := range children {
			if line, err := child.Cmdline(); err == nil && strings.Contains(line, text) {
				found = child
				return nil
			}
		}
		return errors.New("none of its children is")
	})
	return found
}

// Children are the process ids of its children.
func (p *Process) Children() []int32 {
	parent, err := process.NewProcess(int32(p.PID()))
	if err != nil {
		return nil
	}
	children, _ := parent.Children() // none is an error too
	var ids []int32
	for _, child := range children {
		ids = append(ids, child.Pid)
	}
	return ids
}
