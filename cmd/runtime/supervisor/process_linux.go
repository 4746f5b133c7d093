package supervisor

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// prepare sets how the child lives and dies. Should this process be killed, the kernel kills an app. A sidecar learns of
// it by the end of its pipe instead, so that it can leave presence, drain and end what its app left behind.
func prepare(cmd *exec.Cmd, sidecar bool) {
	cmd.SysProcAttr = newGroup()
	if !sidecar {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	// Orphaned grandchildren come to this process instead of init, which in many containers reaps nobody: without this a
	// group would never be seen to be empty.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// reap waits for members of the group that have become children of this process and have ended.
func (g group) reap() {
	for {
		pid, err := unix.Wait4(-int(g), nil, unix.WNOHANG, nil)
		if pid <= 0 && err != unix.EINTR {
			return
		}
	}
}
