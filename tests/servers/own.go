//go:build linux

package servers

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"
)

// Server is a server of one test, which keeps what it has acknowledged when it is killed.
type Server struct {
	kind     Kind
	instance *instance
}

// Own starts a server that ends with the test.
func Own(t testing.TB, kind Kind) *Server {
	t.Helper()
	i, err := kind.place(kind.executable(t))
	if err != nil {
		t.Fatal(err)
	}
	i.durable = true
	s := &Server{kind: kind, instance: i}
	t.Cleanup(func() {
		if err := i.remove(); err != nil {
			t.Error(err)
		}
	})
	s.Start(t)
	return s
}

// Address is where it listens for clients, host:port.
func (s *Server) Address() string { return s.instance.address() }

// Kill ends the server without a word to anybody.
func (s *Server) Kill() { s.instance.kill() }

// Freeze has the server hold still: its connections stay, and nobody answers. Thaw ends that.
func (s *Server) Freeze(t testing.TB) {
	t.Helper()
	s.instance.signal(syscall.SIGSTOP)
	for _, process := range s.instance.processes {
		file := fmt.Sprintf("/proc/%d/stat", process.cmd.Process.Pid)
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // it stops when each of its threads has heard
			stat, err := os.ReadFile(file)
			if err == nil && bytes.Contains(stat, []byte(") T ")) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not hold still: %v", s.kind.name, err)
			}
		}
	}
}

// Thaw has a frozen server go on.
func (s *Server) Thaw() { s.instance.signal(syscall.SIGCONT) }

// Start starts it where it was, and returns when it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; { // what it left behind may still hold its port or its data for a moment
		err := s.kind.run(s.instance)
		if err == nil {
			return
		}
		s.instance.kill()
		if time.Now().After(deadline) {
			t.Fatalf("start %s: %v", s.kind.name, err)
		}
	}
}
