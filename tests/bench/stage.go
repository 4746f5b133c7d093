package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// starts is how often the start is measured.
const starts = 7

// measureStart tells the median time from exec to healthy, and the resident memory of an idle sidecar that hosts the
// fabric and has its Badger open.
func measureStart(binary string) (ms, rssMiB float64, err error) {
	var took []float64
	for range starts {
		s, err := startSidecar(binary, "", "idle")
		if err != nil {
			return 0, 0, err
		}
		took = append(took, millis(s.healthyAfter))
		if len(took) == starts {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err = sidecastv1.NewStateClient(s.conn).Set(ctx, &sidecastv1.SetRequest{
				Items: []*sidecastv1.Write{{Key: "k", Value: []byte("v")}},
			})
			cancel()
			if err != nil {
				return 0, 0, err
			}
			time.Sleep(3 * time.Second) // idle is what it is when nothing happens for a while
			rssMiB = s.rssMiB()
		}
		s.stop()
	}
	slices.Sort(took)
	return took[len(took)/2], rssMiB, nil
}

// sidecar is a running sidecar process.
type sidecar struct {
	cmd          *exec.Cmd
	dir          string // removed at stop when it is the sidecar's own
	address      string
	conn         *grpc.ClientConn
	process      *process.Process
	healthyAfter time.Duration
}

// startSidecar starts a sidecar in dataDir, or in a folder of its own, and waits until it is healthy.
func startSidecar(binary, dataDir, app string, more ...string) (*sidecar, error) {
	s := &sidecar{}
	if dataDir == "" {
		dir, err := os.MkdirTemp("", "sidecast-bench-")
		if err != nil {
			return nil, err
		}
		s.dir, dataDir = dir, dir
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s.address = "127.0.0.1:" + port
	s.cmd = exec.Command(binary, "run", "--app-id", app, "--data-dir", dataDir, "--fabric-port", "0",
		"--grpc-port", port, "--metrics-port", "0", "--log-level", "warn")
	s.cmd.Args = append(s.cmd.Args, more...)
	s.cmd.Stderr = os.Stderr
	if profile := os.Getenv("BENCH_SIDECAR_ARGS"); profile != "" {
		s.cmd.Args = append(s.cmd.Args, strings.Fields(profile)...)
	}
	if s.conn, err = dial(s.address); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if s.process, err = process.NewProcess(int32(s.cmd.Process.Pid)); err != nil {
		return nil, err
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := healthpb.NewHealthClient(s.conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(false))
		cancel()
		if err == nil {
			s.healthyAfter = time.Since(began)
			return s, nil
		}
		if time.Since(began) > 20*time.Second {
			return nil, fmt.Errorf("sidecar %s is not healthy: %w", app, err)
		}
		s.conn.ResetConnectBackoff()
		time.Sleep(2 * time.Millisecond)
	}
}

func (s *sidecar) rssMiB() float64 { return rssMiB(s.process) }

func rssMiB(p *process.Process) float64 {
	memory, err := p.MemoryInfo()
	if err != nil {
		return 0
	}
	return float64(memory.RSS) / (1 << 20)
}

func (s *sidecar) stop() {
	_ = s.conn.Close()
	_ = s.cmd.Process.Signal(os.Interrupt)
	_ = s.cmd.Wait()
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// stage is two sidecars, an app beside one of them, and this process as the app beside the other.
type stage struct {
	near, far *sidecar // near hosts the fabric
	app       *exec.Cmd
	direct    *grpc.ClientConn
	both      []*process.Process
	endpoints []*process.Process // this process and the app's
	events    *events
}

func newStage(binary string, farFlags ...string) (*stage, error) {
	s := &stage{}
	var err error
	if s.near, err = startSidecar(binary, "", "load"); err != nil {
		return nil, err
	}
	if s.far, err = startSidecar(binary, s.near.dir, "echo", farFlags...); err != nil {
		return nil, err
	}
	var address string
	if s.app, address, err = startApp(s.far); err != nil {
		return nil, err
	}
	if s.direct, err = dial(address); err != nil {
		return nil, err
	}
	s.both = []*process.Process{s.near.process, s.far.process}
	for _, pid := range []int{os.Getpid(), s.app.Process.Pid} {
		p, err := process.NewProcess(int32(pid))
		if err != nil {
			return nil, err
		}
		s.endpoints = append(s.endpoints, p)
	}
	if s.events, err = subscribe(s.far.conn); err != nil {
		return nil, err
	}
	return s, s.settle()
}

// startApp starts an app beside a sidecar and tells where it takes direct calls.
func startApp(beside *sidecar) (app *exec.Cmd, address string, err error) {
	return startRole("app", "-sidecar", beside.address)
}

// startRole starts this program as one of its roles, which tells its address first.
func startRole(role string, more ...string) (app *exec.Cmd, address string, err error) {
	app = exec.Command(os.Args[0], append([]string{"-role", role}, more...)...)
	app.Stderr = os.Stderr
	out, err := app.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := app.Start(); err != nil {
		return nil, "", err
	}
	address, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, "", fmt.Errorf("the app did not start: %w", err)
	}
	return app, strings.TrimSpace(address), nil
}

// settle waits until calls from end to end succeed.
func (s *stage) settle() error {
	op := s.operations(1 << 10)[1]
	deadline := time.Now().Add(15 * time.Second)
	for {
		err := op.do(context.Background(), 0)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (s *stage) rss() []float64 { return []float64{s.near.rssMiB(), s.far.rssMiB()} }

func (s *stage) close() {
	s.events.close()
	_ = s.app.Process.Kill()
	_ = s.app.Wait()
	s.far.stop()
	s.near.stop()
}

// operations are those that are measured at a body size.
func (s *stage) operations(bytes int) []operation {
	body := make([]byte, bytes)
	for i := range body {
		body[i] = byte(i)
	}
	direct, invocation := sidecastv1.NewInvocationClient(s.direct), sidecastv1.NewInvocationClient(s.near.conn)
	store, locks := sidecastv1.NewStateClient(s.near.conn), sidecastv1.NewLockClient(s.near.conn)
	echo := &sidecastv1.InvokeRequest{AppId: "echo", Method: "echo", Data: body}
	ops := []operation{
		{"direct", bytes, func(ctx context.Context, _ int) error {
			_, err := direct.Invoke(ctx, echo)
			return err
		}, s.endpoints},
		{"invoke", bytes, func(ctx context.Context, _ int) error {
			_, err := invocation.Invoke(ctx, echo)
			return err
		}, s.both},
		{"publish", bytes, func(ctx context.Context, caller int) error {
			return s.events.publishAndWait(ctx, s.near.conn, caller, body)
		}, s.both},
		{"set", bytes, func(ctx context.Context, caller int) error {
			_, err := store.Set(ctx, &sidecastv1.SetRequest{Items: []*sidecastv1.Write{{Key: "key-" + strconv.Itoa(caller), Value: body}}})
			return err
		}, s.both},
		{"get", bytes, func(ctx context.Context, caller int) error {
			_, err := store.Get(ctx, &sidecastv1.GetRequest{Key: "key-" + strconv.Itoa(caller)})
			return err
		}, s.both},
	}
	if bytes > 1<<10 {
		return ops
	}
	return append(ops, operation{"lock", bytes, func(ctx context.Context, caller int) error {
		name := "lock-" + strconv.Itoa(caller)
		held, err := locks.Acquire(ctx, &sidecastv1.AcquireRequest{Name: name})
		if err != nil {
			return err
		}
		_, err = locks.Release(ctx, &sidecastv1.ReleaseRequest{Name: name, Owner: held.Lease.Owner, Token: held.Lease.Token})
		return err
	}, s.both})
}

func dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
}

func freePort() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}
