package appchannel_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// openBound is the channel to a handler on an address that it leaves when kill is called.
func openBound(t *testing.T, handler http.Handler) (channel *appchannel.HTTP, address string, kill func()) {
	t.Helper()
	address, kill = serveHTTP(t, handler, "127.0.0.1:0")
	channel = appchannel.OpenHTTP(appchannel.Callback{Address: address, Dapr: true, Log: quiet, Token: "token"})
	t.Cleanup(func() { _ = channel.Close(context.Background()) })
	return channel, address, kill
}

// The app is asked each time it comes, until it answers, and wants nothing while it is away.
func TestAnAppIsAskedForItsBindingsWheneverItComes(t *testing.T) {
	var asked atomic.Int32
	app := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodOptions || r.Header.Get("Dapr-Api-Token") != "token" || r.Header.Get("Content-Type") != "application/json":
			t.Errorf("asked by %s %s with %v", r.Method, r.URL, r.Header)
		case r.URL.Path == "/queue" && asked.Add(1) == 1: // it breaks off
			panic(http.ErrAbortHandler)
		case r.URL.Path == "/other":
			w.WriteHeader(http.StatusMethodNotAllowed)
		case r.URL.Path != "/queue":
			w.WriteHeader(http.StatusNotFound)
		}
	})
	channel, address, kill := openBound(t, app)
	told := make(chan []string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- channel.Bindings(ctx, []appchannel.InputBinding{
			{Name: "queue", Route: "queue"}, {Name: "b", Route: "/other"}, {Name: "c", Route: "nowhere"}, {Name: "d", Route: "unasked", Declared: true},
		}, func(names []string) { told <- names })
	}()
	want := []string{"queue", "b", "d"}
	until := func(want []string) {
		t.Helper()
		for end := time.After(20 * time.Second); ; {
			select {
			case got := <-told:
				if slices.Equal(got, want) {
					return
				}
			case <-end:
				t.Fatalf("never told %v", want)
			}
		}
	}
	until(want)
	kill()
	for channel.Ready() == nil { // a call finds out
		_, _ = channel.TakeBinding(ctx, &appchannel.BindingEvent{InputBinding: appchannel.InputBinding{Name: "queue", Route: "queue"}})
	}
	until(nil)
	_, again := serveHTTP(t, app, address)
	defer again()
	until(want)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("asking ended with %v", err)
	}
}

// What is known is read while the app leaves a question open, which it is asked again.
func TestARouteThatDoesNotAnswerHoldsUpNoOther(t *testing.T) {
	var answers atomic.Bool
	var answered atomic.Int32
	told := make(chan []string, 100)
	channel, _, kill := openBound(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/queue" {
			answered.Add(1)
		} else if !answers.Load() {
			panic(http.ErrAbortHandler)
		}
	}))
	defer kill()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- channel.Bindings(ctx, []appchannel.InputBinding{
			{Name: "slow", Route: "slow"}, {Name: "queue", Route: "queue"}, {Name: "declared", Route: "declared", Declared: true},
		}, func(names []string) { told <- names })
	}()
	for _, want := range [][]string{{"declared"}, {"queue", "declared"}, {"queue", "declared"}} {
		got := <-told
		for got == nil { // it is not ready yet
			got = <-told
		}
		if !slices.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	}
	answers.Store(true)
	for want := []string{"slow", "queue", "declared"}; !slices.Equal(<-told, want); {
		continue
	}
	cancel()
	if err := <-done; err != nil || answered.Load() != 1 {
		t.Errorf("asking ended with %v; the route that answered was asked %d times", err, answered.Load())
	}
}

func TestHTTPAppsTakeBindings(t *testing.T) {
	channel, _, kill := openBound(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch string(body) {
		case "busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"to":["a"]}`)
		case "asks":
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, ` {"to":["a","b"],"data":{"n": 12345678901234567890},"concurrency":"parallel","storeName":"s",
				"state":[{"key":"k","value":{"x": 1},"etag":"7","metadata":{"ttlInSeconds":"5"},"options":{"concurrency":"first-write"}},{"key":"l"}]}`)
		case "wrong":
			_, _ = io.WriteString(w, `{"to":"a"}`)
		default:
			for key, values := range r.Header {
				if slices.Contains(values, "x") || slices.Contains(values, "stolen") {
					t.Errorf("an event says %s of its own", key)
				}
			}
			if r.Header.Get("Dapr-Own") != "y" {
				t.Error("other metadata does not arrive")
			}
			if r.ContentLength != int64(len(body)) {
				t.Errorf("the length of %q is told as %d", body, r.ContentLength)
			}
			fmt.Fprint(w, r.Method, " ", r.URL.Path, " ", r.Header["Content-Type"], r.Header["Own"], r.Header["Traceparent"], r.Header["Dapr-Api-Token"], len(r.Header["Bad Key"]))
		}
	}))
	defer kill()
	take := func(data string) *appchannel.BindingAnswer {
		t.Helper()
		got, err := channel.TakeBinding(t.Context(), &appchannel.BindingEvent{
			InputBinding: appchannel.InputBinding{Name: "q", Route: "on/q"}, Data: []byte(data),
			Metadata: map[string]string{"Own": "mine", "traceparent": "old", "bad key": "x", "line": "a\nb", "Content-Type": "text/plain", "dapr-api-token": "stolen",
				"Dapr-Caller-App-Id": "x", "dapr-callee-namespace": "x", "Sidecast-Caller": "x", "sidecast-api-token": "stolen", "dapr-own": "y"},
			Header: call.Header{{Key: "traceparent", Value: "new"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := take("plain"); got.Status != 200 || string(got.Body) != "POST /on/q [application/json] [mine] [new] [token] 0" || len(got.To)+len(got.State) > 0 {
		t.Errorf("got %+v %s", got, got.Body)
	}
	if got := take(""); got.Status != 200 { // as of cron: it goes with Content-Length: 0, not in chunks
		t.Errorf("got %+v", got)
	}
	if got := take("busy"); got.Status != 503 || got.Header.Get("retry-after") != "7" || got.To != nil {
		t.Errorf("got %+v", got)
	}
	if got := take("wrong"); got.Status != 200 || got.To != nil {
		t.Errorf("got %+v", got)
	}
	got := take("asks")
	want := &appchannel.BindingAnswer{
		Status: 201, Header: got.Header, Body: got.Body, To: []string{"a", "b"}, Data: []byte(`{"n":12345678901234567890}`), Parallel: true, StoreName: "s",
		State: []appchannel.StateItem{
			{Key: "k", Value: []byte(`{"x":1}`), ETag: "7", Metadata: map[string]string{"ttlInSeconds": "5"}, Concurrency: "first-write"},
			{Key: "l", Value: []byte("null")},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// boundServer is an app in Dapr's protocol.
type boundServer struct {
	runtimev1.UnimplementedAppCallbackServer
	list func() (*runtimev1.ListInputBindingsResponse, error)
}

func (a *boundServer) ListInputBindings(context.Context, *emptypb.Empty) (*runtimev1.ListInputBindingsResponse, error) {
	return a.list()
}

func (a *boundServer) OnBindingEvent(ctx context.Context, in *runtimev1.BindingEventRequest) (*runtimev1.BindingEventResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if string(in.GetData()) == "no" {
		return nil, status.Error(codes.FailedPrecondition, "not now")
	}
	return &runtimev1.BindingEventResponse{
		Data: []byte(fmt.Sprint(in.GetName(), in.GetMetadata(), md["traceparent"], md["dapr-api-token"])), To: []string{"a"},
		Concurrency: runtimev1.BindingEventResponse_PARALLEL, StoreName: "s",
		States: []*commonv1.StateItem{{Key: "k", Value: []byte("v"), Etag: &commonv1.Etag{Value: "7"}, Options: &commonv1.StateOptions{Concurrency: commonv1.StateOptions_CONCURRENCY_FIRST_WRITE}}},
	}, nil
}

func TestDaprAppsTakeBindings(t *testing.T) {
	asked := 0
	app := &boundServer{list: func() (*runtimev1.ListInputBindingsResponse, error) {
		if asked++; asked == 1 {
			return nil, status.Error(codes.Unavailable, "not yet")
		}
		return &runtimev1.ListInputBindingsResponse{Bindings: []string{"queue", "unknown"}}, nil
	}}
	listener := listen(t, "127.0.0.1:0")
	server := grpc.NewServer()
	runtimev1.RegisterAppCallbackServer(server, app)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	defer func() { server.Stop(); <-done }()
	channel, err := appchannel.OpenDapr(appchannel.Callback{Address: listener.Addr().String(), Dapr: true, Log: quiet, Token: "token"})
	if err != nil {
		t.Fatal(err)
	}
	defer channel.Close(context.Background())
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan []string, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- channel.Bindings(ctx, []appchannel.InputBinding{{Name: "queue"}, {Name: "c"}, {Name: "d", Declared: true}}, func(names []string) { told <- names })
	}()
	for got := <-told; !slices.Equal(got, []string{"queue", "d"}); got = <-told {
		if got != nil {
			t.Fatalf("told %v", got)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	event := &appchannel.BindingEvent{
		InputBinding: appchannel.InputBinding{Name: "queue"}, Data: []byte("yes"), Metadata: map[string]string{"a": "b"},
		Header: call.Header{{Key: "traceparent", Value: "new"}},
	}
	got, err := channel.TakeBinding(t.Context(), event)
	if err != nil {
		t.Fatal(err)
	}
	text := "queuemap[a:b] [new] [token]"
	want := &appchannel.BindingAnswer{
		Body: []byte(text), To: []string{"a"}, Data: []byte(`"` + text + `"`), Parallel: true, StoreName: "s",
		State: []appchannel.StateItem{{Key: "k", Value: []byte("v"), ETag: "7", Concurrency: "first-write"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	event.Data = []byte("no")
	if _, err := channel.TakeBinding(t.Context(), event); fault.ReasonOf(err) != fault.AppFailed {
		t.Errorf("an app that fails gives %v", err)
	}
}
