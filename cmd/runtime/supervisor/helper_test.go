//go:build unix

package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// The test binary plays every part: `run …` makes it a sidecar, `app ROLE …` an app, `supervise …` a supervisor.
func TestMain(m *testing.M) {
	os.Setenv("GORACE", "atexit_sleep_ms=0") // children that were built with -race would each linger for a second
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "run":
			os.Exit(beSidecar(os.Args[2:]))
		case "app":
			os.Exit(beApp(os.Args[2], os.Args[3:]))
		case "supervise":
			os.Exit(beSupervisor(os.Args[2]))
		}
	}
	goleak.VerifyTestMain(m)
}

const eventsEnv = "SUPERVISOR_TEST_EVENTS"

// event appends a line to the file that all processes of a test share.
func event(format string, args ...any) {
	f, err := os.OpenFile(os.Getenv(eventsEnv), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = fmt.Fprintf(f, format+"\n", args...)
}

func sidecarArgs(a App) []string {
	return []string{"run", "--app-id", a.ID, "--grpc-port", strconv.Itoa(a.GRPCPort)}
}

func flagValue(args []string, flag string) string {
	if at := slices.Index(args, flag); at >= 0 && at+1 < len(args) {
		return args[at+1]
	}
	return ""
}

// beSidecar answers health checks, drains when asked to and ends on SIGTERM or with its parent.
func beSidecar(args []string) int {
	app := flagValue(args, "--app-id")
	if code := os.Getenv("SUPERVISOR_TEST_SIDECAR_EXIT"); code != "" {
		fmt.Fprintln(os.Stderr, "cannot work like this")
		n, _ := strconv.Atoi(code)
		return n
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+flagValue(args, "--grpc-port"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	state := health.NewServer()
	state.SetServingStatus(DrainedService, healthpb.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, state)
	go func() { _ = server.Serve(listener) }()
	event("%s/sidecar start %d %s", app, os.Getpid(), flagValue(args, "--grpc-port"))

	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	gone := make(chan struct{})
	go FollowParent(os.Stdin, time.Second, func() {
		event("%s/sidecar drain", app)
		state.SetServingStatus(DrainedService, healthpb.HealthCheckResponse_SERVING)
	}, func() { close(gone) })
	select {
	case <-term:
		event("%s/sidecar term", app)
	case <-gone:
		event("%s/sidecar orphaned", app)
	}
	return 0
}

func beApp(role string, args []string) int {
	id := os.Getenv("APP_ID")
	term := make(chan os.Signal, 8)
	signal.Notify(term, syscall.SIGTERM)
	event("%s start %d", id, os.Getpid())
	defer event("%s end", id)
	switch role {
	case "exit":
		fmt.Println("hello from", id)
		code, _ := strconv.Atoi(args[0])
		return code
	case "crash": // fails so often, then succeeds
		times, _ := strconv.Atoi(args[0])
		text, _ := os.ReadFile(os.Getenv(eventsEnv))
		if strings.Count(string(text), id+" start ") <= times {
			return 3
		}
		return 0
	case "serve":
		<-term
		event("%s term", id)
		if err := answers(context.Background(), App{GRPCPort: port(os.Getenv("SIDECAST_GRPC_PORT"))}); err != nil {
			event("%s last call failed: %v", id, err)
		}
		return 0
	case "deaf":
		for {
			<-term
			event("%s ignores", id)
		}
	case "garbage":
		_, _ = os.Stdout.Write([]byte("nul \x00 bell \a bad \xff\xfe\r\n10%\r20%\r\x1b[31mred\x1b[0m\x1b[2J\n"))
		_, _ = os.Stderr.Write(bytes.Repeat([]byte("x"), 3*longestLine))
		_, _ = os.Stdout.WriteString("no newline")
		return 0
	case "parent": // leaves a child behind that does not care about signals
		child := exec.Command(os.Args[0], "app", "orphan")
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			return 9
		}
		waitFor(func() bool { return strings.Contains(readEvents(), "orphan ready") })
		code, _ := strconv.Atoi(args[0])
		if code < 0 {
			<-term
		}
		return max(code, 0)
	case "orphan":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		event("orphan pid %d", os.Getpid())
		event("orphan ready")
		select {}
	case "env":
		for _, entry := range os.Environ() {
			fmt.Println(entry)
		}
		return 0
	}
	return 99
}

// beSupervisor runs the run file until it is killed.
func beSupervisor(file string) int {
	plan, _, err := Load(file, false)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, kill, release := Signals(context.Background())
	defer release()
	plan.Kill, plan.SidecarArgs = kill, sidecarArgs
	code, err := Run(ctx, plan)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

func port(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

func readEvents() string {
	text, _ := os.ReadFile(os.Getenv(eventsEnv))
	return string(text)
}

// waitFor polls a condition for as long as a busy machine may need.
func waitFor(condition func() bool) bool {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if condition() {
			return true
		}
	}
	return false
}

// stage is one test's plan in flight.
type stage struct {
	t      *testing.T
	out    lockedBuffer
	plan   Plan
	cancel context.CancelFunc
	kill   chan struct{}
	done   chan struct{}
	code   int
	err    error
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// app is an App that plays a role.
func app(id, role string, args ...string) App {
	return App{ID: id, Command: append([]string{os.Args[0], "app", role}, args...)}
}

func newStage(t *testing.T, apps ...App) *stage {
	t.Helper()
	t.Setenv(eventsEnv, filepath.Join(t.TempDir(), "events"))
	s := &stage{t: t, kill: make(chan struct{}), done: make(chan struct{})}
	s.plan = Plan{Apps: apps, Out: &s.out, Kill: s.kill, Grace: 20 * time.Second, SidecarArgs: sidecarArgs}
	return s
}

func (s *stage) start() *stage {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.done)
		s.code, s.err = Run(ctx, s.plan)
	}()
	s.t.Cleanup(func() {
		cancel()
		<-s.done
		if s.t.Failed() {
			s.t.Logf("output:\n%s\nevents:\n%s", s.out.String(), readEvents())
		}
	})
	return s
}

// run waits for the end and checks how it came.
func (s *stage) ends(code int) *stage {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(60 * time.Second):
		s.t.Fatalf("the run does not end; output:\n%s\nevents:\n%s", s.out.String(), readEvents())
	}
	if s.code != code {
		s.t.Errorf("exit code %d (%v), want %d", s.code, s.err, code)
	}
	return s
}

// sees waits for an event that begins so and returns the rest of its line.
func (s *stage) sees(prefix string) string {
	s.t.Helper()
	var rest string
	if !waitFor(func() bool {
		for line := range strings.Lines(readEvents()) {
			if after, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
				rest = strings.TrimSpace(after)
				return true
			}
		}
		return false
	}) {
		s.t.Fatalf("no event %q; events:\n%s\noutput:\n%s", prefix, readEvents(), s.out.String())
	}
	return rest
}

func (s *stage) says(text string) *stage {
	s.t.Helper()
	if !waitFor(func() bool { return strings.Contains(s.out.String(), text) }) {
		s.t.Fatalf("output does not contain %q:\n%s", text, s.out.String())
	}
	return s
}

func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	after := string(stat[bytes.LastIndexByte(stat, ')')+1:])
	return !strings.HasPrefix(after, " Z")
}
