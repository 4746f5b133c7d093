package plugintest

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Process is a program that was started.
type Process struct {
	t       testing.TB
	command *exec.Cmd
	output  *bytes.Buffer
	ended   chan struct{}
}

// Start runs the program on a socket, with what file holds, until it is killed or the test ends. Without lists the services
// that it does not have.
func Start(t testing.TB, socket, file string, without ...string) *Process {
	t.Helper()
	p := &Process{t: t, command: exec.Command(os.Args[0]), output: &bytes.Buffer{}, ended: make(chan struct{})}
	p.command.Env = append(os.Environ(), socketVariable+"="+socket, fileVariable+"="+file, withoutVariable+"="+strings.Join(without, " "))
	p.command.Stdout, p.command.Stderr = p.output, p.output
	if err := p.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.command.Wait() // it is killed
	}()
	t.Cleanup(p.Kill)
	return p
}

// Kill ends it as kill -9 does, and leaves its socket lying about.
func (p *Process) Kill() {
	_ = p.command.Process.Kill() // of one that has ended there is nothing to kill
	<-p.ended
	if p.t.Failed() && p.output.Len() > 0 {
		p.t.Logf("the plug-in wrote: %s", p.output)
	}
}

// PID is its process id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Signal sends it a signal.
func (p *Process) Signal(signal os.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
}
