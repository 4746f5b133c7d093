// Package faults breaks one part after the other, in real processes, and looks at what the others make of it: every call
// gets an answer, nothing acknowledged is lost, and what was broken comes back.
package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	"github.com/sidecast/sidecast/tests/machine"
)

// appVariable makes this test binary an app: it serves beside the sidecar of its environment.
const appVariable = "SIDECAST_FAULTS_APP"

func TestMain(m *testing.M) {
	if os.Getenv(appVariable) != "" {
		os.Exit(serveApp())
	}
	os.Exit(machine.Main(m))
}

// long is a deadline that no call in these tests should ever reach; soon is when the answer must be there instead.
const (
	long = 60 * time.Second
	soon = 20 * time.Second
)

// handlers are what the apps of these tests can do.
func handlers(name string) []sidecast.Handler {
	return []sidecast.Handler{
		sidecast.Handle("echo", func(_ context.Context, r *sidecast.Request) ([]byte, error) { return r.Data, nil }),
		sidecast.Handle("who", func(context.Context, *sidecast.Request) ([]byte, error) { return []byte(name), nil }),
		sidecast.Handle("panic", func(context.Context, *sidecast.Request) ([]byte, error) { panic("the handler cannot go on") }),
		sidecast.Handle("hang", func(ctx context.Context, _ *sidecast.Request) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}),
		sidecast.Handle("deaf", func(context.Context, *sidecast.Request) ([]byte, error) {
			time.Sleep(2 * time.Second) // it does not look at its context
			return nil, nil
		}),
		sidecast.Handle("fail", func(_ context.Context, r *sidecast.Request) ([]byte, error) { return nil, errors.New(string(r.Data)) }),
	}
}

func serveApp() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fmt.Println("the app is here")
	if err := sidecast.Serve(ctx, handlers("a process")...); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// app starts this test binary as an app beside s.
func app(t *testing.T, m *machine.Machine, s *machine.Sidecar) *machine.Process {
	t.Helper()
	before := m.Env
	m.Env = append(append([]string{}, before...), appVariable+"=1", "SIDECAST_GRPC_ENDPOINT="+s.GRPC)
	defer func() { m.Env = before }()
	p := m.Start(os.Args[0])
	s.Ready()
	return p
}

// outcome is how a call ended.
type outcome struct {
	answer string
	err    error
	took   time.Duration
}

// begin makes a call in the background.
func begin(c *sidecast.Client, app, method string, deadline time.Duration) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		began := time.Now()
		answer, err := c.Invoke(ctx, app, method, []byte("x"))
		o := outcome{err: err, took: time.Since(began)}
		if err == nil {
			o.answer = string(answer.Data)
		}
		done <- o
	}()
	return done
}

// settled waits for a call to end soon.
func settled(t *testing.T, what string, call <-chan outcome) outcome {
	t.Helper()
	select {
	case o := <-call:
		return o
	case <-time.After(soon):
		t.Fatalf("%s: no answer after %s", what, soon)
		return outcome{}
	}
}

// try makes one call and returns its error.
func try(c *sidecast.Client, app, method, body string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := c.Invoke(ctx, app, method, []byte(body))
	return err
}

// want compares the reason of an error.
func want(t *testing.T, what string, err error, reasons ...fault.Reason) {
	t.Helper()
	for _, reason := range reasons {
		if fault.ReasonOf(err) == reason {
			return
		}
	}
	t.Errorf("%s: %v (%v, reason %q), want one of %v", what, err, fault.KindOf(err), fault.ReasonOf(err), reasons)
}

// running waits until n calls are in flight in the app's own lane.
func running(t *testing.T, s *machine.Sidecar, n int) {
	t.Helper()
	machine.Until(t, fmt.Sprintf("%d calls at the app", n), func() error {
		got, err := inFlight(s)
		if err == nil && got < n {
			err = fmt.Errorf("%d are", got)
		}
		return err
	})
}
