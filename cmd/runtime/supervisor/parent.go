package supervisor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// DrainedService is the name under which a sidecar answers grpc.health.v1 checks with NOT_SERVING, and with SERVING once
// it has been told to drain and no call or event of others is running any more. A sidecar that does not know the name is
// taken to be drained at once.
const DrainedService = "sidecast.drained"

// The pipe from the supervisor to the standard input of a sidecar carries lines: `drain`, and `app N` when the process
// group of the app is N (0: it is not running). Its end means that the supervisor is gone.
const (
	lineDrain = "drain"
	lineApp   = "app "
)

// FollowParent is the sidecar's end of the pipe: it reads r, the standard input of a sidecar started with
// --exit-with-parent, until its end.
//
// When the supervisor asks, drain is called: the sidecar leaves presence and refuses new calls and events but goes on
// serving its app, and sets DrainedService when the running ones have ended. When the supervisor is gone the order is that
// of any stop: drain is called if it was not yet, an app that the supervisor left behind is asked to end and killed after
// grace, and then gone is called and the sidecar ends. Neither function may block, and each is called at most once.
func FollowParent(r io.Reader, grace time.Duration, drain, gone func()) {
	var app int
	var draining sync.Once
	for lines := bufio.NewScanner(r); lines.Scan(); {
		switch line := lines.Text(); {
		case line == lineDrain:
			draining.Do(drain)
		case strings.HasPrefix(line, lineApp):
			app, _ = strconv.Atoi(line[len(lineApp):])
		}
	}
	draining.Do(drain)
	if app > 1 {
		endOrphan(groupNamed(app), grace)
	}
	gone()
}

// endOrphan ends the group of an app that has lost its supervisor.
func endOrphan(app group, grace time.Duration) {
	app.terminate()
	ticker := time.NewTicker(groupCheck)
	defer ticker.Stop()
	for deadline := time.After(grace); !app.empty(); {
		select {
		case <-ticker.C:
		case <-deadline:
			app.kill()
			return
		}
	}
}

// parentPipe is the supervisor's end of the pipe. It is made anew for each start of the sidecar.
type parentPipe struct {
	mu    sync.Mutex
	w     *os.File
	group int // of the app
}

// open makes the pipe for the next start of the sidecar and returns the child's end.
func (p *parentPipe) open() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.w = w
	p.send(lineApp + strconv.Itoa(p.group))
	return r, nil
}

func (p *parentPipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil {
		_ = p.w.Close()
		p.w = nil
	}
}

// tellApp says which group the app is.
func (p *parentPipe) tellApp(group int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.group = group
	p.send(lineApp + strconv.Itoa(group))
}

func (p *parentPipe) tellDrain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send(lineDrain)
}

// send writes a line. A sidecar that has just died does not read it, which is no matter: the next one is told anew. The
// lines of a sidecar that never reads fit into any pipe's buffer.
func (p *parentPipe) send(line string) {
	if p.w != nil {
		_, _ = fmt.Fprintln(p.w, line)
	}
}

// answers is the default of Plan.Ready: something answers a health check on the sidecar's gRPC port, whatever it says.
func answers(ctx context.Context, app App) error {
	address := sidecarAddress(app)
	// A refused connection costs less to find out this way than by a gRPC client.
	probe, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	_ = probe.Close()
	_, err = checkHealth(ctx, address, "")
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return err
	}
	return nil
}

// drained waits until the sidecar says that it has drained, cannot say so, or ctx ends.
func drained(ctx context.Context, app App) {
	for {
		answer, err := checkHealth(ctx, sidecarAddress(app), DrainedService)
		if err != nil || answer == healthpb.HealthCheckResponse_SERVING {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pollEvery):
		}
	}
}

func checkHealth(ctx context.Context, address, service string) (healthpb.HealthCheckResponse_ServingStatus, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	return answer.GetStatus(), err
}

func sidecarAddress(app App) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(app.GRPCPort)) }
