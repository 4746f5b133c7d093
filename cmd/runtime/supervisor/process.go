package supervisor

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stragglerGrace is what processes that a dead leader left in its group get to end in.
	stragglerGrace = 2 * time.Second
	// lastWords is how long output is still read when the whole group is gone: only a process that detached on purpose
	// can hold the pipe any longer.
	lastWords  = 200 * time.Millisecond
	groupCheck = 10 * time.Millisecond
	// lastBreath is how long a killed group may take to vanish. The system frees what its processes held first, which takes
	// a busy machine a while; a process that waits for a dead disk ends with neither.
	lastBreath = 10 * time.Second
)

// spec is a process to start.
type spec struct {
	command []string
	dir     string
	env     []string
	stdin   *os.File
	out     *output
	src     source
	// sidecar says that the child ends by itself, in good order, when this process dies.
	sidecar bool
}

// process is a child in a process group of its own (on Windows: a job). Whoever started it calls wait, once.
//
// Children do not outlive this process: on Linux the kernel signals them (PR_SET_PDEATHSIG), on Windows the job ends with
// its last handle, and elsewhere the sidecar ends its app (see FollowParent). Processes that a child leaves behind in its
// group are ended with it.
type process struct {
	cmd     *exec.Cmd
	group   group
	started time.Time
	ended   chan struct{} // closed when the leader of the group was waited for
	output  sync.WaitGroup
	pipes   []*os.File
}

// start starts a child, or says in words for people why it cannot.
func start(s spec) (*process, error) {
	cmd := exec.Command(resolve(s.command[0], s.dir), s.command[1:]...)
	cmd.Dir, cmd.Env = s.dir, s.env
	if s.stdin != nil && !isTerminal(s.stdin) {
		cmd.Stdin = s.stdin
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	prepare(cmd, s.sidecar)

	var ends []io.Closer // of the child: closed here when it has them
	for _, stream := range []string{"stdout", "stderr"} {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ends)
			p.closePipes()
			return nil, err
		}
		ends, p.pipes = append(ends, w), append(p.pipes, r)
		if stream == "stdout" {
			cmd.Stdout = w
		} else {
			cmd.Stderr = w
		}
	}
	started := make(chan error, 1)
	go p.live(started)
	err := <-started
	closeAll(ends)
	if err != nil {
		p.closePipes()
		return nil, plain(err, s)
	}
	for i, r := range p.pipes {
		stream := [...]string{"stdout", "stderr"}[i]
		p.output.Go(func() { s.out.follow(s.src, stream, r) })
	}
	return p, nil
}

// live starts the leader and waits for it, on one thread: on Linux the death signal is bound to the thread that forked.
func (p *process) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	p.group = adopt(p.cmd.Process)
	started <- nil
	_ = p.cmd.Wait() // the state of the process says it all
	close(p.ended)
}

// wait waits until the process and its group are gone: by themselves, asked to by term, or killed by kill. All output
// has been passed on when it returns.
func (p *process) wait(term, kill <-chan struct{}) Exit {
	defer p.finish()
	leader, asked := p.ended, false
	var tick, hurry <-chan time.Time
	for {
		select {
		case <-leader:
			leader = nil
			if p.group.empty() {
				return p.exit()
			}
			ticker := time.NewTicker(groupCheck)
			defer ticker.Stop()
			tick = ticker.C
			if !asked {
				p.group.terminate()
				hurry = time.After(stragglerGrace)
			}
		case <-term:
			term, asked = nil, true
			p.group.terminate()
		case <-kill:
			return p.kill()
		case <-hurry:
			return p.kill()
		case <-tick:
			if p.group.empty() {
				return p.exit()
			}
		}
	}
}

// kill kills the group and waits until it is gone: a killed process goes on for as long as the system takes to end it.
func (p *process) kill() Exit {
	p.group.kill()
	<-p.ended
	ticker := time.NewTicker(groupCheck)
	defer ticker.Stop()
	for deadline := time.After(lastBreath); !p.group.empty(); {
		select {
		case <-ticker.C:
		case <-deadline:
			return p.exit()
		}
	}
	return p.exit()
}

// finish reads what output is left and lets go of the system's resources.
func (p *process) finish() {
	deadline := time.AfterFunc(lastWords, p.closePipes)
	p.output.Wait()
	deadline.Stop()
	p.closePipes()
	p.group.release()
}

func (p *process) closePipes() {
	for _, r := range p.pipes {
		_ = r.Close()
	}
}

func (p *process) exit() Exit {
	return Exit{state: p.cmd.ProcessState, Lived: time.Since(p.started).Round(time.Millisecond)}
}

// Exit is how a process ended.
type Exit struct {
	state *os.ProcessState
	// failed is why the process could not even start.
	failed error
	// Lived is how long it ran.
	Lived time.Duration
}

// Code is the exit status as shells count: 128 and the signal for a process that a signal ended, 127 for one that could
// not be started.
func (e Exit) Code() int {
	if e.state == nil {
		return 127
	}
	if e.signaled() {
		return 128 + int(e.state.Sys().(syscall.WaitStatus).Signal())
	}
	return e.state.ExitCode()
}

// signaled reports whether a signal ended it.
func (e Exit) signaled() bool {
	if e.state == nil {
		return false
	}
	status, ok := e.state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// String says it in words: `exited with status 1`, `was ended by SIGKILL`.
func (e Exit) String() string {
	if e.state == nil {
		return fmt.Sprintf("could not be started: %v", e.failed)
	}
	if e.signaled() {
		return "was ended by " + signalName(e.state.Sys().(syscall.WaitStatus).Signal())
	}
	return fmt.Sprintf("exited with status %d", e.state.ExitCode())
}

// Error lets an Exit be the cause of a failure.
func (e Exit) Error() string { return e.String() }

// resolve makes a relative program relative to the directory it will run in, on every system alike. A bare name is left
// to the search path.
func resolve(program, dir string) string {
	if dir == "" || filepath.IsAbs(program) || !strings.ContainsAny(program, `/\`) {
		return program
	}
	if abs, err := filepath.Abs(filepath.Join(dir, program)); err == nil {
		return abs
	}
	return program
}

// plain strips what the os package wraps around an error that names the program already.
func plain(err error, s spec) error {
	where := ""
	if s.dir != "" {
		where = " in " + s.dir
	}
	return fmt.Errorf("command %q%s: %w", s.command[0], where, err)
}

func closeAll(all []io.Closer) {
	for _, c := range all {
		_ = c.Close()
	}
}
