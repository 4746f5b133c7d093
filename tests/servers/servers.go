//go:build linux

// Package servers starts the real servers that tests of backends need, from Debian's packages: Redis, PostgreSQL, RabbitMQ,
// Mosquitto, MariaDB, etcd and memcached; and stand-ins for Kafka, which is written in Go, and for MongoDB, which Debian does
// not have, from Maven's. Each starts when a test first asks for it, on a free port of the loopback interface and with its data in a
// directory of its own, serves all tests of the process, and is ended by Stop.
//
//	func TestMain(m *testing.M) { os.Exit(servers.Run(m)) }
//
//	func TestStore(t *testing.T) { store := open(t, servers.Redis(t)) … }
//
// A test that kills its server takes one of its own: see Own.
//
// A server that is not installed skips the test that wants it and says what to install, unless the environment variable
// SIDECAST_SERVERS is "required": then the test fails. A server that may not run as root runs as the user that its package
// made. All of them die with the process.
package servers

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/tests/ports"
)

// patience is how long a server may take to start. Nothing but a broken one takes so long.
const patience = 3 * time.Minute

// program is one kind of server.
type program struct {
	name, debian string                  // what it is called, and the package that holds it
	find         func() (string, bool)   // its executable
	ports        int                     // how many it listens on; the first one is for clients
	run          func(s *instance) error // starts it on the ports and data that it has
	once         sync.Once
	*instance
	err error
}

// instance is a server.
type instance struct {
	executable string
	dir        string
	ports      []int
	durable    bool // it writes to disk what it has acknowledged
	processes  []*process
}

func (s *instance) address() string { return address(s.ports[0]) }

var programs = []*program{redis, postgres, rabbit, mosquitto, kafka, mysql, etcd, memcached, mongo}

// Run runs the tests and ends all servers. It returns what os.Exit is to be given.
func Run(m *testing.M) int {
	code := m.Run()
	if err := Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop servers:", err)
		return max(code, 1)
	}
	return code
}

// Stop ends all servers and removes their data. No test may use them after it.
func Stop() error {
	var errs []error
	for _, p := range programs {
		if p.instance == nil {
			continue
		}
		errs = append(errs, p.remove())
	}
	return errors.Join(errs...)
}

// kill ends the server as a power cut would.
func (s *instance) kill() {
	for _, process := range slices.Backward(s.processes) {
		process.end()
	}
	s.processes = nil
}

func (s *instance) signal(number syscall.Signal) {
	for _, process := range s.processes {
		_ = syscall.Kill(-process.cmd.Process.Pid, number) // it may have ended by itself
	}
}

func (s *instance) remove() error {
	s.kill()
	return os.RemoveAll(s.dir)
}

// executable is that of p; without one the test ends.
func (p *program) executable(t testing.TB) string {
	t.Helper()
	path, ok := p.find()
	if !ok {
		report := t.Skipf
		if os.Getenv("SIDECAST_SERVERS") == "required" {
			report = t.Fatalf
		}
		report("%s is not installed: apt-get install %s", p.name, p.debian)
	}
	return path
}

// place makes an instance that does not run yet.
func (p *program) place(executable string) (*instance, error) {
	dir, err := os.MkdirTemp("", "sidecast-"+p.name)
	if err != nil {
		return nil, err
	}
	s := &instance{executable: executable, dir: dir}
	for range p.ports {
		port, err := ports.Free()
		if err != nil {
			return nil, errors.Join(err, s.remove())
		}
		s.ports = append(s.ports, port)
	}
	return s, nil
}

// get returns the address of p, starting it first.
func (p *program) get(t testing.TB) string {
	t.Helper()
	path := p.executable(t)
	p.once.Do(func() {
		if p.instance, p.err = p.place(path); p.err == nil {
			p.err = p.run(p.instance)
		}
	})
	if p.err != nil {
		t.Fatalf("start %s: %v", p.name, p.err)
	}
	return p.instance.address()
}

func inPath(name string) func() (string, bool) {
	return func() (string, bool) {
		path, err := exec.LookPath(name)
		return path, err == nil
	}
}

func existing(pattern string) func() (string, bool) {
	return func() (string, bool) {
		matches, _ := filepath.Glob(pattern) // fails only for a bad pattern
		if len(matches) == 0 {
			return "", false
		}
		return matches[len(matches)-1], true
	}
}

// process is a child that dies with this process.
type process struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan struct{} // closed when it has been waited for
}

// as makes cmd run as the user called name, if this process may choose, and gives that user dir.
func as(name, dir string, cmd *exec.Cmd) error {
	cmd.Dir = dir
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.SysProcAttr.Setpgid = true
	if os.Getuid() != 0 {
		return nil
	}
	account, err := user.Lookup(name)
	if err != nil {
		return err
	}
	uid, _ := strconv.Atoi(account.Uid) // the system's own numbers
	gid, _ := strconv.Atoi(account.Gid)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return os.Chown(dir, uid, gid)
}

// start starts cmd from a thread that lives as long as it does: the death signal comes when that thread ends. The thread goes on
// after that: it may have started others before.
func (s *instance) start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.WaitDelay = time.Second // children of its own may hold the pipe
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended says nothing: it is told to
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	s.processes = append(s.processes, p)
	return p, nil
}

// ready waits until address answers or p has ended.
func (p *process) ready(address string, answers func(net.Conn) bool) error {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		select {
		case <-p.ended:
			return fmt.Errorf("it ended: %s", p.output.String())
		case <-time.After(20 * time.Millisecond):
		}
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		ok := answers(conn)
		conn.Close()
		if ok {
			return nil
		}
	}
	return fmt.Errorf("it does not answer at %s within %v", address, patience)
}

// end kills the process and its children: what they hold is thrown away.
func (p *process) end() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
	<-p.ended
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
