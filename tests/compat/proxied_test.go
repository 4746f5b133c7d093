package compat

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sidecast/sidecast/tests/machine"
)

const proxiedPolicies = resources + `
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: shield}
spec:
  policies:
    timeouts: {soon: 1s, late: 60s}
    retries: {twice: {policy: constant, duration: 1ms, maxRetries: 2}}
    circuitBreakers: {quick: {maxRequests: 1, timeout: 1h, trip: consecutiveFailures >= 3}}
  targets:
    apps:
      hasty: {timeout: soon}
      flaky: {timeout: late, retry: twice}
      broken: {timeout: late, circuitBreaker: quick}
`

// tested is a service that only the apps know. It has what a test gives it.
func tested(handle grpc.StreamHandler) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: "test.Policies", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{
		{StreamName: "Call", ServerStreams: true, ClientStreams: true, Handler: handle},
	}}
}

const testedMethod = "/test.Policies/Call"

func grpcServer(t *testing.T, m *machine.Machine, app string, handle grpc.StreamHandler) {
	t.Helper()
	start(t, m, app, "--app-protocol", "grpc", "--app-port", serveGRPC(t, func(s *grpc.Server) {
		runtimev1.RegisterAppCallbackServer(s, callback{})
		s.RegisterService(tested(handle), nil)
	})).await("/v1.0/healthz")
}

func TestPoliciesHoldForProxiedCalls(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	canceled := make(chan struct{}, 9)
	next := make(chan struct{})
	grpcServer(t, m, "hasty", func(_ any, stream grpc.ServerStream) error {
		in := &wrapperspb.BytesValue{}
		if err := stream.RecvMsg(in); err != nil {
			return err
		}
		switch string(in.Value) {
		case "hang":
			_ = stream.SendHeader(metadata.Pairs("early", "yes"))
			<-stream.Context().Done()
			canceled <- struct{}{}
		case "watch":
			for range 2 {
				_ = stream.SendMsg(in)
			}
			<-next
			return stream.SendMsg(in)
		case "chat":
			_ = stream.SendHeader(metadata.Pairs("early", "yes")) // for which the caller waits
			if err := stream.RecvMsg(in); err != nil {
				return err
			}
			<-next
			return stream.SendMsg(in)
		}
		return nil
	})
	var tries atomic.Int32
	grpcServer(t, m, "flaky", func(_ any, stream grpc.ServerStream) error {
		in := &wrapperspb.BytesValue{}
		if err := stream.RecvMsg(in); err != nil {
			return err
		}
		n := tries.Add(1)
		_ = stream.SetHeader(metadata.Pairs("try", string(rune('0'+n))))
		if bytes.HasPrefix(in.Value, []byte("answers")) {
			_ = stream.SendMsg(in)
			return status.Error(codes.Unavailable, "after the answer")
		}
		if bytes.HasPrefix(in.Value, []byte("never")) || n < 3 {
			return status.Error(codes.Unavailable, "not yet")
		}
		return stream.SendMsg(in)
	})
	grpcServer(t, m, "broken", func(any, grpc.ServerStream) error {
		tries.Add(1)
		return status.Error(codes.Unavailable, "broken")
	})
	d := startWith(t, m, proxiedPolicies, "client", "--max-body-size", "32Mi")
	conn := dial(t, d.grpc)
	to := func(app string, more ...string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), append(more, "dapr-app-id", app)...)
	}
	unary := func(ctx context.Context, text string, options ...grpc.CallOption) (*wrapperspb.BytesValue, error) {
		out := &wrapperspb.BytesValue{}
		return out, conn.Invoke(ctx, testedMethod, &wrapperspb.BytesValue{Value: []byte(text)}, out, append(options, grpc.MaxCallRecvMsgSize(64<<20))...)
	}

	if _, err := unary(to("hasty"), "hang"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a unary call without an answer: %v", err)
	}
	receive(t, canceled) // the app hears of it

	// A stream is cut only as long as nothing shows that it is one.
	open := func(ctx context.Context, text string) grpc.ClientStream {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, testedMethod)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&wrapperspb.BytesValue{Value: []byte(text)}); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	watch, chat, said := open(to("hasty"), "watch"), open(to("hasty"), "chat"), open(to("hasty", "dapr-stream", "true"), "hang")
	_ = watch.CloseSend()
	for range 2 {
		if err := watch.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
			t.Fatal(err)
		}
	}
	if head, err := chat.Header(); err != nil || head.Get("early") == nil {
		t.Fatal(head, err)
	}
	_ = chat.SendMsg(&wrapperspb.BytesValue{})
	if head, err := said.Header(); err != nil || head.Get("early") == nil {
		t.Fatal(head, err)
	}
	if _, err := unary(to("hasty"), "hang"); status.Code(err) != codes.DeadlineExceeded { // by now the others would be over, too
		t.Error(err)
	}
	receive(t, canceled)
	close(next)
	for what, stream := range map[string]grpc.ClientStream{"watch": watch, "chat": chat} {
		if err := stream.RecvMsg(&wrapperspb.BytesValue{}); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	select {
	case <-canceled:
		t.Error("what says that it is a stream was cut")
	default:
	}

	for name, c := range map[string]struct {
		text  string
		tries int32
		fails bool
	}{
		"fails twice":            {"x", 3, false},
		"fails always":           {"never", 3, true},
		"fails after its answer": {"answers", 1, true},
		"is large":               {"x" + strings.Repeat("y", 5<<20), 3, false},
		"is too large":           {"never" + strings.Repeat("y", 9<<20), 1, true},
	} {
		tries.Store(0)
		var head metadata.MD
		got, err := unary(to("flaky"), c.text, grpc.Header(&head))
		switch {
		case tries.Load() != c.tries:
			t.Errorf("a call that %s was made %d times", name, tries.Load())
		case c.fails && status.Code(err) != codes.Unavailable, !c.fails && err != nil:
			t.Errorf("a call that %s: %v", name, err)
		case !c.fails && (len(got.Value) != len(c.text) || strings.Join(head.Get("try"), ",") != "3"):
			t.Errorf("a call that %s has the answer %.10q and %v", name, got.Value, head)
		}
	}

	tries.Store(0)
	for range 5 {
		if _, err := unary(to("broken"), "x"); err == nil {
			t.Error("no error")
		}
	}
	if n := tries.Load(); n != 3 {
		t.Errorf("the breaker let %d calls pass", n)
	}
}

func TestPoliciesHoldForLargeBodies(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	var tries atomic.Int32
	canceled := make(chan struct{}, 9)
	release := make(chan struct{})
	var once sync.Once
	app := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := tries.Add(1); {
		case r.URL.Path == "/hang":
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			canceled <- struct{}{}
		case r.URL.Path == "/slow":
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			once.Do(func() { canceled <- struct{}{} })
			<-release
			_, _ = w.Write(make([]byte, 2<<20))
		case r.URL.Path == "/never", r.URL.Path == "/twice" && n < 3:
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("X-Try", string(rune('0'+n)))
			w.WriteHeader(503)
			_, _ = io.WriteString(w, "not yet")
		default:
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		}
	}))
	for _, name := range []string{"hasty", "flaky", "broken"} {
		start(t, m, name, "--app-port", app, "--max-body-size", "64Mi").await("/v1.0/healthz")
	}
	d := startWith(t, m, proxiedPolicies, "client", "--max-body-size", "64Mi")
	send := func(app, path string, size int) answer {
		tries.Store(0)
		return d.do("POST", "/v1.0/invoke/"+app+"/method/"+path, strings.Repeat("x", size))
	}
	if got := send("hasty", "hang", 2<<20); got.status != 500 || !strings.Contains(got.body, "ERR_DIRECT_INVOKE") {
		t.Errorf("a call without an answer: %d %s", got.status, got.body)
	}
	receive(t, canceled)

	slow := make(chan answer)
	go func() { slow <- send("hasty", "slow", 2<<20) }()
	receive(t, canceled)                                    // its answer has begun
	if got := send("hasty", "hang", 0); got.status == 200 { // as long as the limit
		t.Error("no limit")
	}
	close(release)
	if got := receive(t, slow); got.status != 200 || len(got.body) != 2<<20 {
		t.Errorf("an answer that has begun in time: %d, %d bytes", got.status, len(got.body))
	}

	for _, c := range []struct {
		path         string
		size, status int
		tries        int32
	}{{"twice", 2 << 20, 200, 3}, {"never", 2 << 20, 503, 3}, {"never", 20 << 20, 503, 1}} {
		got := send("flaky", c.path, c.size)
		if got.status != c.status || tries.Load() != c.tries {
			t.Errorf("%s of %d bytes: %d after %d tries", c.path, c.size, got.status, tries.Load())
		}
		if c.status == 200 && len(got.body) != c.size || c.status == 503 && (got.body != "not yet" || got.header.Get("X-Try") != string(rune('0'+c.tries))) {
			t.Errorf("%s of %d bytes: %.20s %v", c.path, c.size, got.body, got.header)
		}
	}
	tries.Store(0)
	ofUnknownLength := struct{ io.Reader }{strings.NewReader("some")}
	if response, err := http.Post("http://"+d.http+"/v1.0/invoke/flaky/method/twice", "text/plain", ofUnknownLength); err != nil {
		t.Error(err)
	} else if body, _ := io.ReadAll(response.Body); response.Body.Close() != nil || string(body) != "some" || tries.Load() != 3 {
		t.Errorf("a body of unknown length: %s, %q after %d tries", response.Status, body, tries.Load())
	}
	for range 5 {
		send("broken", "never", 2<<20)
	}
	if got := send("broken", "never", 2<<20); got.status != 500 || tries.Load() != 0 || !strings.Contains(got.body, "ERR_DIRECT_INVOKE") {
		t.Errorf("the breaker lets calls pass: %d %s", got.status, got.body)
	}
}
