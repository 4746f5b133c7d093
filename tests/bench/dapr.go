package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/shirou/gopsutil/v4/process"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// daprResources are the components that the native API has without any file.
const daprResources = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: statestore}
spec: {type: state.badger, version: v1, metadata: []}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec: {type: pubsub.jetstream, version: v1, metadata: []}
`

// daprStage is three sidecars that run as daprd: one whose callers are measured, which hosts the fabric, and one each beside an
// app over HTTP and one over gRPC. The apps are in this process: what they cost is not counted.
type daprStage struct {
	dir             string
	near, web, rpcs *daprd
	conn            *grpc.ClientConn
	client          *http.Client
	apps            daprApps
}

// daprd is a sidecar that was started as daprd.
type daprd struct {
	cmd        *exec.Cmd
	process    *process.Process
	http, grpc string
}

func newDaprStage(binary string) (*daprStage, error) {
	dir, err := os.MkdirTemp("", "sidecast-bench-dapr-")
	if err != nil {
		return nil, err
	}
	s := &daprStage{dir: dir, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	if err := os.WriteFile(filepath.Join(dir, "resources.yaml"), []byte(daprResources), 0o600); err != nil {
		return nil, err
	}
	web, rpcs, err := s.apps.serve()
	if err != nil {
		return nil, err
	}
	if s.near, err = s.start(binary, "load", strings.Fields(os.Getenv("BENCH_DAPRD_ARGS"))...); err != nil {
		return nil, err
	}
	if s.web, err = s.start(binary, "web", "--app-port", web); err != nil {
		return nil, err
	}
	if s.rpcs, err = s.start(binary, "rpcs", "--app-port", rpcs, "--app-protocol", "grpc"); err != nil {
		return nil, err
	}
	if s.conn, err = dial(s.near.grpc); err != nil {
		return nil, err
	}
	return s, s.settle()
}

func (s *daprStage) start(binary, app string, more ...string) (*daprd, error) {
	var ports []string
	for range 3 {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	d := &daprd{http: "http://127.0.0.1:" + ports[0], grpc: "127.0.0.1:" + ports[1]}
	d.cmd = exec.Command(binary, append([]string{"daprd", "--app-id", app, "--dapr-http-port", ports[0], "--dapr-grpc-port", ports[1],
		"--metrics-port", ports[2], "--resources-path", filepath.Join(s.dir, "resources.yaml"), "--log-level", "warn"}, more...)...)
	d.cmd.Env = append(os.Environ(), "SIDECAST_DATA_DIR="+s.dir)
	d.cmd.Stdout, d.cmd.Stderr = os.Stderr, os.Stderr
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	var err error
	if d.process, err = process.NewProcess(int32(d.cmd.Process.Pid)); err != nil {
		return nil, err
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := s.ask(context.Background(), http.MethodGet, d.http+"/v1.0/healthz", nil, "")
		if err == nil {
			return d, nil
		}
		if time.Since(began) > 20*time.Second {
			return nil, fmt.Errorf("daprd beside %s is not healthy: %w", app, err)
		}
	}
}

// settle waits until each operation succeeds.
func (s *daprStage) settle() error {
	for _, op := range s.operations(1 << 10) {
		for deadline := time.Now().Add(15 * time.Second); ; {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			err := op.do(ctx, 0)
			cancel()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %w", op.name, err)
			}
		}
	}
	return nil
}

func (s *daprStage) close() {
	_ = s.conn.Close()
	for _, d := range []*daprd{s.web, s.rpcs, s.near} {
		_ = d.cmd.Process.Signal(os.Interrupt)
		_ = d.cmd.Wait()
	}
	s.apps.close()
	_ = os.RemoveAll(s.dir)
}

// ask makes one request over HTTP.
func (s *daprStage) ask(ctx context.Context, method, url string, body []byte, contentType string) error {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	response, err := s.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if n, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode >= 300 {
		return fmt.Errorf("%s after %d bytes: %w", response.Status, n, err)
	}
	return nil
}

// operations are those of Dapr's API at a body size.
func (s *daprStage) operations(bytes int) []operation {
	body := make([]byte, bytes)
	for i := range body {
		body[i] = byte(i)
	}
	text := []byte(base64.StdEncoding.EncodeToString(body)[:bytes])
	web, rpcs := []*process.Process{s.near.process, s.web.process}, []*process.Process{s.near.process, s.rpcs.process}
	alone := web[:1]
	client, proxied := runtimev1.NewDaprClient(s.conn), sidecastv1.NewInvocationClient(s.conn)
	call := &runtimev1.InvokeServiceRequest{Id: "rpcs", Message: &commonv1.InvokeRequest{
		Method: "echo", Data: &anypb.Any{Value: body}, HttpExtension: &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_POST},
	}}
	direct := &sidecastv1.InvokeRequest{AppId: "echo", Method: "echo", Data: body}
	toApp := metadata.AppendToOutgoingContext
	return []operation{
		{"dapr-http invoke", bytes, func(ctx context.Context, _ int) error {
			return s.ask(ctx, http.MethodPost, s.near.http+"/v1.0/invoke/web/method/echo", body, "application/octet-stream")
		}, web},
		{"dapr-grpc invoke", bytes, func(ctx context.Context, _ int) error {
			_, err := client.InvokeService(ctx, call)
			return err
		}, rpcs},
		{"dapr-proxy invoke", bytes, func(ctx context.Context, _ int) error {
			_, err := proxied.Invoke(toApp(ctx, "dapr-app-id", "rpcs"), direct)
			return err
		}, rpcs},
		{"dapr-http publish", bytes, func(ctx context.Context, _ int) error {
			return s.apps.heard(ctx, func(id string) error {
				return s.ask(ctx, http.MethodPost, s.near.http+"/v1.0/publish/pubsub/web?metadata.cloudevent.id="+url.QueryEscape(id), text, "text/plain")
			})
		}, web},
		{"dapr-grpc publish", bytes, func(ctx context.Context, _ int) error {
			return s.apps.heard(ctx, func(id string) error {
				_, err := client.PublishEvent(ctx, &runtimev1.PublishEventRequest{
					PubsubName: "pubsub", Topic: "rpcs", Data: text, DataContentType: "text/plain", Metadata: map[string]string{"cloudevent.id": id},
				})
				return err
			})
		}, rpcs},
		{"dapr-http set", bytes, func(ctx context.Context, caller int) error {
			return s.ask(ctx, http.MethodPost, s.near.http+"/v1.0/state/statestore", fmt.Appendf(nil, `[{"key":"http-%d","value":"%s"}]`, caller, text), "application/json")
		}, alone},
		{"dapr-grpc set", bytes, func(ctx context.Context, caller int) error {
			_, err := client.SaveState(ctx, &runtimev1.SaveStateRequest{StoreName: "statestore", States: []*commonv1.StateItem{{Key: "grpc-" + strconv.Itoa(caller), Value: body}}})
			return err
		}, alone},
		{"dapr-http get", bytes, func(ctx context.Context, caller int) error {
			return s.ask(ctx, http.MethodGet, s.near.http+"/v1.0/state/statestore/http-"+strconv.Itoa(caller), nil, "")
		}, alone},
		{"dapr-grpc get", bytes, func(ctx context.Context, caller int) error {
			_, err := client.GetState(ctx, &runtimev1.GetStateRequest{StoreName: "statestore", Key: "grpc-" + strconv.Itoa(caller)})
			return err
		}, alone},
	}
}

// daprApps are an app over HTTP and one over gRPC: both echo what they are called with and hear events.
type daprApps struct {
	runtimev1.UnimplementedAppCallbackServer
	web   *http.Server
	rpcs  *grpc.Server
	next  atomic.Uint64
	waits sync.Map // by the id of an event, channels
}

func (a *daprApps) serve() (web, rpcs string, err error) {
	var ports [2]string
	var listeners [2]net.Listener
	for i := range listeners {
		if listeners[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "", "", err
		}
		_, ports[i], _ = net.SplitHostPort(listeners[i].Addr().String())
	}
	a.web = &http.Server{Handler: http.HandlerFunc(a.answer), ReadHeaderTimeout: time.Minute}
	a.rpcs = grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	runtimev1.RegisterAppCallbackServer(a.rpcs, a)
	sidecastv1.RegisterInvocationServer(a.rpcs, echoServer{})
	go func() { _ = a.web.Serve(listeners[0]) }() // both end with close
	go func() { _ = a.rpcs.Serve(listeners[1]) }()
	return ports[0], ports[1], nil
}

func (a *daprApps) close() {
	_ = a.web.Close()
	a.rpcs.Stop()
}

func (a *daprApps) answer(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/dapr/subscribe":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `[{"pubsubname":"pubsub","topic":"web","route":"/event"}]`)
	case "/event":
		var event struct{ ID string }
		if json.NewDecoder(r.Body).Decode(&event) == nil {
			a.hear(event.ID)
		}
	default:
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		_, _ = io.Copy(w, r.Body)
	}
}

func (a *daprApps) OnInvoke(_ context.Context, in *commonv1.InvokeRequest) (*commonv1.InvokeResponse, error) {
	return &commonv1.InvokeResponse{Data: in.GetData(), ContentType: in.GetContentType()}, nil
}

func (a *daprApps) ListTopicSubscriptions(context.Context, *emptypb.Empty) (*runtimev1.ListTopicSubscriptionsResponse, error) {
	return &runtimev1.ListTopicSubscriptionsResponse{Subscriptions: []*runtimev1.TopicSubscription{{PubsubName: "pubsub", Topic: "rpcs"}}}, nil
}

func (a *daprApps) OnTopicEvent(_ context.Context, in *runtimev1.TopicEventRequest) (*runtimev1.TopicEventResponse, error) {
	a.hear(in.GetId())
	return &runtimev1.TopicEventResponse{}, nil
}

func (a *daprApps) hear(id string) {
	if wait, ok := a.waits.Load(id); ok {
		select {
		case wait.(chan struct{}) <- struct{}{}:
		default: // delivered again
		}
	}
}

// heard publishes an event and waits until an app has heard it.
func (a *daprApps) heard(ctx context.Context, publish func(id string) error) error {
	id, wait := strconv.FormatUint(a.next.Add(1), 10), make(chan struct{}, 1)
	a.waits.Store(id, wait)
	defer a.waits.Delete(id)
	if err := publish(id); err != nil {
		return err
	}
	select {
	case <-wait:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
