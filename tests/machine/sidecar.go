package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/shirou/gopsutil/v4/process"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	sidecast "github.com/sidecast/sidecast/sdk/go"
)

// Sidecar is a running sidecar process that answers.
type Sidecar struct {
	*Process
	// App is its app id, Instance its own.
	App, Instance string
	// GRPC and Admin are where it listens.
	GRPC, Admin string
	machine     *Machine
}

// Sidecar starts a sidecar alone, without an app, on free ports, and returns when it is up.
func (m *Machine) Sidecar(app string, args ...string) *Sidecar {
	m.t.Helper()
	return m.Await(app, m.Run(append([]string{"--app-id", app, "--grpc-port", "0", "--metrics-port", "0"}, args...)...))
}

// Await returns the sidecar of an app when it is up: p itself, or a child of it.
func (m *Machine) Await(app string, p *Process) *Sidecar {
	m.t.Helper()
	s := &Sidecar{Process: p, App: app, machine: m}
	Until(m.t, "sidecar of "+app, func() error {
		select {
		case <-p.Done():
			m.t.Fatalf("the sidecar of %s ended: %s", app, p.Output())
		default:
		}
		entries, err := rundir.List(m.Dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.AppID == app && (e.PID == p.PID() || isParent(p.PID(), e.PID)) {
				s.Instance, s.GRPC, s.Admin = e.Instance, e.GRPCAddress, e.AdminAddress
				return nil
			}
		}
		return errors.New("it is not on record")
	})
	return s
}

func isParent(parent, child int) bool {
	p, err := process.NewProcess(int32(child))
	if err != nil {
		return false
	}
	of, err := p.Ppid()
	return err == nil && of == int32(parent)
}

// Client is a connection to the sidecar, as its app would have it. It is closed when the test ends.
func (s *Sidecar) Client(options ...sidecast.Option) *sidecast.Client {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	quiet := sidecast.Logger(slog.New(slog.DiscardHandler))
	client, err := sidecast.Connect(ctx, append([]sidecast.Option{sidecast.Endpoint(s.GRPC), quiet}, options...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Serve runs an app in this process beside the sidecar until the test ends or stop is called, and returns when presence
// shows it as ready.
func (s *Sidecar) Serve(handlers ...sidecast.Handler) (stop func()) {
	s.t.Helper()
	client := s.Client()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = client.Serve(ctx, append(handlers, sidecast.DrainTimeout(0))...) })
	stop = func() {
		cancel()
		serving.Wait()
	}
	s.t.Cleanup(stop)
	s.Ready()
	return stop
}

// Ready waits until the sidecar says that it and its app are ready.
func (s *Sidecar) Ready() {
	s.t.Helper()
	Until(s.t, s.App+" is ready", func() error {
		code, body, err := s.HTTP("/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
}

// HTTP asks the sidecar's admin port.
func (s *Sidecar) HTTP(path string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	return response.StatusCode, string(all), err
}
