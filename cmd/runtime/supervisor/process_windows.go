package supervisor

import (
	"os"
	"os/exec"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// group is a job object with the child and everything it starts. The job of an app ends with its last handle, which this
// process holds: nothing survives it.
type group struct {
	pid uint32
	job windows.Handle
}

// prepare sets how the child lives: in a console group of its own, so that Ctrl-C reaches this process alone.
func prepare(cmd *exec.Cmd, _ bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// adopt puts a child that has just started into a job. Without a job only the child itself can be ended.
func adopt(p *os.Process) group {
	g := group{pid: uint32(p.Pid)}
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return g
	}
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	if err == nil {
		err = g.assign(job)
	}
	if err != nil {
		_ = windows.CloseHandle(job)
		return g
	}
	g.job = job
	return g
}

func (g group) assign(job windows.Handle) error {
	child, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, g.pid)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(child)
	return windows.AssignProcessToJobObject(job, child)
}

// terminate sends Ctrl-Break, which Go and most runtimes treat as an interrupt.
func (g group) terminate() { _ = windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, g.pid) }

func (g group) kill() {
	if g.job != 0 {
		_ = windows.TerminateJobObject(g.job, 1)
		return
	}
	if child, err := os.FindProcess(int(g.pid)); err == nil {
		_ = child.Kill()
	}
}

func (g group) release() {
	if g.job != 0 {
		_ = windows.CloseHandle(g.job)
	}
}

// id is 0: the job ends with this process, nobody else needs to know it.
func (g group) id() int { return 0 }

// empty is true once the leader is gone: what it left in the job ends when the job is released.
func (g group) empty() bool { return true }

// groupNamed is never called with anything but 0 here.
func groupNamed(int) group { return group{} }

func signalName(s syscall.Signal) string { return s.String() }
