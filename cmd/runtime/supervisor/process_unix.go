//go:build unix

package supervisor

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// group is a process group, named by the process id of its leader.
type group int

// newGroup makes the child the leader of a group of its own: a Ctrl-C at the terminal reaches this process alone, and a
// signal to the group reaches everything the child started.
func newGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// adopt is the group of a child that has just started.
func adopt(p *os.Process) group { return group(p.Pid) }

func (g group) terminate() { _ = syscall.Kill(-int(g), syscall.SIGTERM) }
func (g group) kill()      { _ = syscall.Kill(-int(g), syscall.SIGKILL) }
func (g group) release()   {}

// id names the group to another process.
func (g group) id() int { return int(g) }

// empty reports whether nobody is left, once the leader was waited for.
func (g group) empty() bool {
	g.reap()
	return syscall.Kill(-int(g), 0) != nil
}

// groupNamed is the group that another process named by its id.
func groupNamed(id int) group { return group(id) }

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return s.String()
}
