// Package machine is a computer as the tests see it: the real binary, a data directory of its own, processes that are
// started, signalled and killed, and what the command line says about them. It knows nothing that a user could not know.
//
//	func TestMain(m *testing.M) { os.Exit(machine.Main(m)) }
//
//	m := machine.New(t)
//	pricing := m.Sidecar("pricing")
//	client := pricing.Client()
//	answer := m.Command("status", "-o", "json")
package machine

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/tests/ports"
)

// Patience bounds whatever a test waits for: long enough for two busy cores, and never a measure of speed.
const Patience = 30 * time.Second

// SkipShort leaves tests with real processes out of short runs.
func SkipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes are left out of -short")
	}
}

// Machine is one data directory and the processes that share it.
type Machine struct {
	t testing.TB
	// Dir is the data directory.
	Dir string
	// Env is added to the environment of all processes and commands; an entry without '=' takes a variable away.
	Env []string
}

// New makes a machine on which nothing runs. Its processes end with the test.
func New(t testing.TB) *Machine {
	t.Helper()
	SkipShort(t)
	return &Machine{t: t, Dir: folder(t)}
}

// environ is the environment of a process: that of the test without what would point to another sidecar, and Env.
func (m *Machine) environ() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SIDECAST_") && !strings.HasPrefix(v, "OTEL_") {
			env = append(env, v)
		}
	}
	env = append(env, "SIDECAST_DATA_DIR="+m.Dir)
	for _, v := range m.Env {
		if !strings.Contains(v, "=") {
			env = without(env, v+"=")
			continue
		}
		env = append(env, v)
	}
	return env
}

func without(env []string, prefix string) []string {
	var rest []string
	for _, v := range env {
		if !strings.HasPrefix(v, prefix) {
			rest = append(rest, v)
		}
	}
	return rest
}

// Result is what a command printed and how it ended.
type Result struct {
	Out, Err string
	Code     int
}

// Command runs one command of the binary to its end.
func (m *Machine) Command(args ...string) Result {
	m.t.Helper()
	return m.Pipe("", args...)
}

// Pipe is Command with something on standard input.
func (m *Machine) Pipe(stdin string, args ...string) Result {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(m.t), args...)
	cmd.Env = m.environ()
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cmd.ProcessState == nil {
		m.t.Fatal(err)
	}
	if ctx.Err() != nil {
		m.t.Fatalf("sidecast %s: still running after %s; so far it printed\n%s%s", strings.Join(args, " "), Patience, &out, &errs)
	}
	return Result{Out: out.String(), Err: errs.String(), Code: cmd.ProcessState.ExitCode()}
}

// Must is Command for what has to succeed; it returns what was printed.
func (m *Machine) Must(args ...string) string {
	m.t.Helper()
	r := m.Command(args...)
	if r.Code != 0 {
		m.t.Fatalf("sidecast %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Out, r.Err)
	}
	return r.Out
}

// Port is a free port, and another one each time.
func Port(t testing.TB) string {
	t.Helper()
	return strconv.Itoa(ports.Get(t))
}

// Until polls try until it succeeds, and fails the test with its last error when Patience is over.
func Until(t testing.TB, what string, try func() error) {
	t.Helper()
	UntilWithin(t, Patience, what, try)
}

// UntilWithin is Until with a patience of its own.
func UntilWithin(t testing.TB, within time.Duration, what string, try func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not within %s: %v", what, within, err)
}

// folder is a new one that is removed when all processes are gone: those whose parent was killed take a moment to follow it,
// and write until they have.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sidecast-machine-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if err := os.RemoveAll(dir); err == nil {
				return
			} else if time.Now().After(deadline) {
				t.Errorf("the machine's folder cannot be removed: %v", err)
				return
			}
		}
	})
	return dir
}
