package machine

import (
	"os/exec"
	"syscall"
)

// tether makes the kernel end the process with this one, even when a test runs into its time limit.
func tether(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
