//go:build unix && !linux

package supervisor

import "os/exec"

// prepare sets how the child lives. There is no death signal here: see FollowParent.
func prepare(cmd *exec.Cmd, _ bool) { cmd.SysProcAttr = newGroup() }

// reap has nothing to do: orphans go to init.
func (g group) reap() {}
