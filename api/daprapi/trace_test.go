package daprapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sidecast/sidecast/actors"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/telemetry"
)

// A call that nobody traces allocates nothing for that.
func TestUntracedCallsCostNothing(t *testing.T) {
	s := benched()
	system := actors.NewSystem(actors.Options{Log: slog.New(slog.DiscardHandler)})
	defer func() { _ = system.Close(context.Background()) }()
	traces, err := telemetry.Tracing{}.Ready(t.Context(), "app", "app-1", "test", true)
	if err != nil {
		t.Fatal(err)
	}
	s.o.Blocks = blocks.New(blocks.Deps{System: system, Tracer: telemetry.NewTracer(traces)})
	if !s.o.Blocks.Tracing() {
		t.Fatal("calls belong to no traces")
	}
	r := httptest.NewRequest("GET", "/v1.0/metadata", nil)
	w := nowhere{http.Header{}}
	var stream grpc.ServerStream = silent{ctx: metadata.NewIncomingContext(context.Background(), metadata.Pairs("dapr-app-id", "app", "user-agent", "sdk"))}
	info := &grpc.StreamServerInfo{FullMethod: "/dapr.proto.runtime.v1.Dapr/GetState"}
	if n := testing.AllocsPerRun(100, func() {
		if _, trace := s.traceOfRequest(r); trace != nil || !s.baggage(w, r) {
			t.Fatal("there is a trace")
		}
		if traced, err := s.traceRPC(stream, info); traced != nil || err != nil {
			t.Fatal("there is a trace")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestWhatIsNoTraceContextGoesNowhere(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, c := range []struct{ parent, state, want string }{
		{parent, "a=b", "traceparent=" + parent + " tracestate=a=b baggage=x=1"},
		{parent, "==", "traceparent=" + parent + " baggage=x=1"},
		{"00-zz-b7ad6b7169203331-01", "a=b", "baggage=x=1"},
		{"", "a=b", "baggage=x=1"},
	} {
		var got []string
		for _, f := range traceOf(func(key string) string {
			return map[string]string{"traceparent": c.parent, "tracestate": c.state, "baggage": "x=1"}[key]
		}) {
			got = append(got, f.Key+"="+f.Value)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%q and %q: %s", c.parent, c.state, text)
		}
	}
}
