package natsstore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/tests/ports"
)

// The servers of the tests run in a process of their own, the test binary again: their goroutines are not ours.
const (
	serverDir  = "NATSSTORE_TEST_SERVER" // where the data is; set in the server's process
	serverSize = "NATSSTORE_TEST_SIZE"   // how many servers, 1 or 3
	serverPort = "NATSSTORE_TEST_PORT"   // of the first
)

const maxPayload = 4 << 20

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		if err := serve(dir, os.Getenv(serverSize) == "3"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serve runs servers, prints their URLs, and ends with its input.
func serve(dir string, cluster bool) error {
	names := []string{"a"}
	var peers []int
	var routes []string
	if cluster {
		names = append(names, "b", "c")
		for range names {
			port, err := ports.Free()
			if err != nil {
				return err
			}
			peers, routes = append(peers, port), append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
		}
	}
	port, err := strconv.Atoi(os.Getenv(serverPort))
	if err != nil {
		return err
	}
	var servers []*server.Server
	var urls []string
	for i, name := range names {
		opts := &server.Options{ServerName: name, Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: filepath.Join(dir, name), NoSigs: true, NoLog: true, MaxPayload: maxPayload}
		if cluster {
			opts.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: peers[i]}
			opts.Routes = server.RoutesFromStr(strings.Join(routes, ","))
		}
		if i == 0 {
			opts.Port = port
		}
		s, err := server.NewServer(opts)
		if err != nil {
			return err
		}
		s.Start()
		servers = append(servers, s)
		urls = append(urls, "")
	}
	for i, s := range servers {
		if !s.ReadyForConnections(30 * time.Second) {
			return fmt.Errorf("server %s does not start", s.Name())
		}
		urls[i] = s.ClientURL()
	}
	for deadline := time.Now().Add(60 * time.Second); cluster; time.Sleep(10 * time.Millisecond) {
		ready := false
		for _, s := range servers {
			ready = ready || s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(servers)
		}
		if ready {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the cluster has no leader")
		}
	}
	fmt.Println(strings.Join(urls, ","))
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, s := range servers {
		s.Shutdown()
	}
	return nil
}

// remote is servers in another process.
type remote struct {
	place string // the port of the first one, as start takes it
	urls  string
	cmd   *exec.Cmd
	in    io.Closer
}

// start starts servers on the data in dir, with more in their environment.
func start(t testing.TB, dir string, size int, env ...string) *remote {
	t.Helper()
	place := fmt.Sprintf("%s=%d", serverPort, ports.Get(t))
	if at := slices.IndexFunc(env, func(v string) bool { return strings.HasPrefix(v, serverPort+"=") }); at >= 0 {
		place = env[at]
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), serverDir+"="+dir, fmt.Sprintf("%s=%d", serverSize, size), place), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &remote{place: place, cmd: cmd, in: in}
	t.Cleanup(r.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server does not start: %v", err)
	}
	r.urls = strings.TrimSpace(line)
	return r
}

// stop ends the servers as an operator would, kill as a power cut would.
func (r *remote) stop() {
	_ = r.in.Close()
	_ = r.cmd.Wait()
}

func (r *remote) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

// again starts the servers again, where they were.
func (r *remote) again(t testing.TB, dir string) *remote {
	t.Helper()
	return start(t, dir, 1, r.place)
}

// connect returns a connection that is closed, completely, when the test ends.
func connect(t testing.TB, r *remote, options ...nats.Option) *nats.Conn {
	t.Helper()
	closed := make(chan struct{})
	options = append([]nats.Option{nats.ClosedHandler(func(*nats.Conn) { close(closed) }), nats.ReconnectWait(20 * time.Millisecond), nats.MaxReconnects(-1)}, options...)
	conn, err := nats.Connect(r.urls, options...)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Request("nobody", nil, time.Second) // starts the goroutine that all requests share
	t.Cleanup(func() {
		conn.Close()
		<-closed
	})
	return conn
}

func using(conn *nats.Conn) func(context.Context) (*nats.Conn, error) {
	return func(context.Context) (*nats.Conn, error) { return conn, nil }
}
