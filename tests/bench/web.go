package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/shirou/gopsutil/v4/process"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// runWeb is an app over HTTP in a process of its own.
func runWeb() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("/work", func(w http.ResponseWriter, r *http.Request) { working.work(r.Context()) })
	mux.HandleFunc("/most", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, working.most.Swap(0)) })
	return http.Serve(listener, mux)
}

// webStage is an app over HTTP beside a daprd, which is called through its HTTP API.
type webStage struct {
	dapr    *daprStage // its folder and its client
	sidecar *daprd
	app     *exec.Cmd
	address string
}

func newWebStage(binary string) (s *webStage, err error) {
	s = &webStage{dapr: &daprStage{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}}}
	if s.dapr.dir, err = os.MkdirTemp("", "sidecast-bench-web-"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(s.dapr.dir, "resources.yaml"), []byte(daprResources), 0o600); err != nil {
		return nil, err
	}
	if s.app, s.address, err = startRole("web"); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return nil, err
	}
	if s.sidecar, err = s.dapr.start(binary, "web", "--app-port", port, "--app-max-concurrency", strconv.Itoa(workers)); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = s.ask(context.Background()); err == nil || time.Now().After(deadline) {
			return s, err
		}
	}
}

func (s *webStage) close() {
	_ = s.sidecar.cmd.Process.Signal(os.Interrupt)
	_ = s.sidecar.cmd.Wait()
	_ = s.app.Process.Kill()
	_ = s.app.Wait()
	_ = os.RemoveAll(s.dapr.dir)
}

func (s *webStage) door() door {
	return door{
		ask: s.ask, most: s.most, refuser: s.sidecar.process, idle: rssMiB(s.sidecar.process), all: []*process.Process{s.sidecar.process},
	}
}

func (s *webStage) ask(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.sidecar.http+"/v1.0/invoke/web/method/work", nil)
	if err != nil {
		return err
	}
	response, err := s.dapr.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode == http.StatusOK:
		return nil
	case response.StatusCode != http.StatusTooManyRequests:
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	refusal := status.New(codes.ResourceExhausted, string(text))
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		advised, err := refusal.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Duration(seconds) * time.Second)})
		if err != nil {
			return err
		}
		refusal = advised
	}
	return refusal.Err()
}

func (s *webStage) most(ctx context.Context) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+"/most", nil)
	if err != nil {
		return 0, err
	}
	response, err := s.dapr.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}
