package gosdk

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dapr/go-sdk/client"
)

// node is a program of the soak that is started again, on the same ports, each time it was ended.
type node struct {
	name string
	args []string
	env  []string
	up   func() bool // whether it is at work

	mu      sync.Mutex
	cmd     *exec.Cmd
	ended   chan struct{}
	log     bytes.Buffer
	started int
}

// Write takes the program's output, of which the latest is kept.
func (n *node) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.log.Len() > 1<<20 {
		n.log.Reset()
	}
	return n.log.Write(p)
}

func (n *node) output() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.log.String()
}

func (n *node) start(t *testing.T) {
	t.Helper()
	n.cmd = exec.Command(n.args[0], n.args[1:]...)
	n.cmd.Env = append(os.Environ(), n.env...)
	n.cmd.Stdout, n.cmd.Stderr = n, n
	fmt.Fprintf(n, "---- start %d\n", n.started)
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.started++
	cmd, ended := n.cmd, make(chan struct{})
	n.ended = ended
	go func() { _ = cmd.Wait(); close(ended) }()
}

// end ends the program by a signal. One that was asked to has to do so by itself, with code 0.
func (n *node) end(t *testing.T, by syscall.Signal) {
	t.Helper()
	_ = n.cmd.Process.Signal(by)
	select {
	case <-n.ended:
	case <-time.After(patience):
		t.Errorf("%s does not end by %v", n.name, by)
		_ = n.cmd.Process.Kill()
		<-n.ended
	}
	if code := n.cmd.ProcessState.ExitCode(); by == syscall.SIGTERM && code != 0 {
		t.Errorf("%s was asked to end and did with code %d", n.name, code)
	}
}

func (n *node) awaitUp(t *testing.T) {
	t.Helper()
	until(t, n.name+" is up", func() bool {
		select {
		case <-n.ended:
			t.Fatalf("%s ended with code %d", n.name, n.cmd.ProcessState.ExitCode())
		default:
		}
		return n.up()
	})
}

// sidecarNode is a sidecar, and the SDK's client of it.
type sidecarNode struct {
	node
	httpURL, profile string
	client           client.Client
}

func newSidecarNode(t *testing.T, dir, folder, app string, args ...string) *sidecarNode {
	t.Helper()
	httpPort, grpcPort, profile := freePort(t), freePort(t), freePort(t)
	s := &sidecarNode{httpURL: "http://127.0.0.1:" + httpPort, profile: "http://127.0.0.1:" + profile}
	s.name = "the sidecar of " + app
	s.args = append([]string{binary, "daprd", "--app-id", app, "--dapr-http-port", httpPort, "--dapr-grpc-port", grpcPort, "--metrics-port", freePort(t),
		"--enable-profiling", "--profile-port", profile, "--resources-path", folder, "--dapr-graceful-shutdown-seconds", "10"}, args...)
	s.env = []string{"SIDECAST_DATA_DIR=" + dir}
	s.up = func() bool { return statusOf(s.httpURL+"/v1.0/healthz/outbound") == http.StatusNoContent }
	s.start(t)
	s.awaitUp(t)
	var err error
	if s.client, err = client.NewClientWithAddress("127.0.0.1:" + grpcPort); err != nil {
		t.Fatal(err)
	}
	return s
}

func statusOf(url string) int {
	response, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

var total = regexp.MustCompile(`goroutine profile: total (\d+)`)

// goroutines is how many the sidecar has, and what they do.
func (s *sidecarNode) goroutines(t *testing.T) (n int, stacks string) {
	t.Helper()
	response, err := http.Get(s.profile + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := total.FindSubmatch(body)
	if found == nil {
		t.Fatalf("no profile: %.200s", body)
	}
	n, _ = strconv.Atoi(string(found[1]))
	return n, string(body)
}

// heap is how many MiB of objects the sidecar has after a collection.
func (s *sidecarNode) heap(t *testing.T) int {
	t.Helper()
	response, err := http.Get(s.profile + "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(body), "\n") {
		if text, ok := strings.CutPrefix(line, "# HeapAlloc = "); ok {
			n, _ := strconv.Atoi(text)
			return n >> 20
		}
	}
	t.Fatal("the profile says nothing of the heap")
	return 0
}

// appNode is an app in a process of its own.
func appNode(t *testing.T, protocol, port, ledger string) *node {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{name: "the app of " + protocol, args: []string{self, "-test.run=^$"},
		env: []string{soakProtocol + "=" + protocol, soakPort + "=" + port, soakLedger + "=" + ledger}}
	n.up = func() bool { return listening("127.0.0.1:" + port) }
	n.start(t)
	n.awaitUp(t)
	return n
}
