package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// spans is a collector that keeps what it is sent.
type spans struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

func (s *spans) Export(_ context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.got <- in
	return &collector.ExportTraceServiceResponse{}, nil
}

func ready(t *testing.T, tracing Tracing, identify bool) Traces {
	t.Helper()
	traces, err := tracing.Ready(t.Context(), "orders", "orders-1", "test", identify)
	if err != nil {
		t.Fatal(err)
	}
	return traces
}

func newTracer(t *testing.T, tracing Tracing, identify bool) *Tracer {
	t.Helper()
	return NewTracer(ready(t, tracing, identify))
}

func TestSpansReachTheCollectorAndHeadersNameThem(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received := &spans{got: make(chan *collector.ExportTraceServiceRequest, 1)}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, received)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())

	tracer := newTracer(t, Tracing{}, false)
	if !tracer.Records() {
		t.Fatal("there are no spans")
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	header := call.Header{{Key: "traceparent", Value: parent}}
	_, span := tracer.Start(t.Context(), trace.SpanKindClient, &header, "invoke ", "pricing", "/", "price")
	failed := error(fault.New("invoke", fault.QueueFull, "full"))
	span.End(&failed)
	if now := header.Get("traceparent"); now == parent || !strings.HasPrefix(now, parent[:35]) {
		t.Errorf("the header names %s after %s: want the same trace and a new span", now, parent)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case in := <-received.got:
		s := in.ResourceSpans[0].ScopeSpans[0].Spans[0]
		if s.Name != "invoke pricing/price" || !strings.Contains(s.String(), string(fault.QueueFull)) {
			t.Errorf("got span %v", s)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no span came")
	}
}

func TestWithoutTheVariablesThereIsNoTracerAndHeadersPass(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	tracer := newTracer(t, Tracing{}, false)
	if tracer.Records() {
		t.Fatal("there are spans")
	}
	header := call.Header{{Key: "traceparent", Value: "as it was"}}
	_, span := tracer.Start(t.Context(), trace.SpanKindClient, &header, "x")
	var none error
	span.End(&none)
	if header.Get("traceparent") != "as it was" || tracer.Close(t.Context()) != nil {
		t.Errorf("header %v", header)
	}
}

func TestAnIdentifierBeginsTracesWhereThereAreNone(t *testing.T) {
	tracer := newTracer(t, Tracing{}, true)
	var header call.Header
	for range 2 { // the second has one
		ctx, span := tracer.Start(t.Context(), trace.SpanKindClient, &header, "x")
		var none error
		span.Event("y")
		span.End(&none)
		if trace.SpanContextFromContext(ctx).IsValid() || len(header) != 1 {
			t.Errorf("the header is %v", header)
		}
	}
	parent := propagation.TraceContext{}.Extract(t.Context(), headerCarrier{&header})
	if c := trace.SpanContextFromContext(parent); !c.IsValid() || c.IsSampled() {
		t.Errorf("%v is no trace, or a sampled one", header)
	}
	given := call.Header{{Key: "traceparent", Value: "as it was"}}
	tracer.Start(t.Context(), trace.SpanKindClient, &given, "x")
	if given.Get("traceparent") != "as it was" || tracer.Close(t.Context()) != nil {
		t.Errorf("the header is %v", given)
	}
	off := newTracer(t, Tracing{Sampled: true}, true)
	header = nil
	off.Start(t.Context(), trace.SpanKindClient, &header, "x")
	if off.Records() || len(header) != 0 {
		t.Errorf("with a rate of 0 the header is %v", header)
	}
}

func TestOperationsAreCountedByKind(t *testing.T) {
	m := NewMetrics()
	op := Op{Block: "state", Target: "statestore", Name: "get"}
	for _, err := range []error{nil, fault.New("get", fault.BackendDown, "gone"), errors.New("defect")} {
		m.Observe(op, time.Now(), &err)
	}
	if n := testutil.CollectAndCount(m.seconds); n != 3 {
		t.Errorf("%d series, want one for each kind: ok, unavailable, internal", n)
	}
}

func TestSpansReachZipkinAndTheLog(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	bodies := make(chan []byte, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- body
	}))
	defer server.Close()
	var log bytes.Buffer
	tracer := newTracer(t, Tracing{Sampled: true, Rate: 1, Zipkin: server.URL, Log: slog.New(slog.NewTextHandler(&log, nil))}, false)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	header := call.Header{{Key: "traceparent", Value: parent}}
	_, span := tracer.Start(t.Context(), trace.SpanKindServer, &header, "invoke pricing/price")
	failed := error(fault.New("invoke", fault.QueueFull, "full"))
	span.Event("waited")
	span.End(&failed)
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var spans []zipkinSpan
	if err := json.Unmarshal(<-bodies, &spans); err != nil || len(spans) != 1 {
		t.Fatal(spans, err)
	}
	s := spans[0]
	if s.TraceID != parent[3:35] || s.ParentID != parent[36:52] || s.Kind != "SERVER" || s.Duration < 1 || s.LocalEndpoint.ServiceName != "orders" ||
		s.Tags["sidecast.reason"] != string(fault.QueueFull) || s.Tags["error"] == "" || len(s.Annotations) != 1 || s.Annotations[0].Value != "waited" {
		t.Errorf("got %+v", s)
	}
	if !strings.Contains(log.String(), "trace="+s.TraceID) {
		t.Errorf("the log has %s", log.String())
	}
}

func TestTheRateDecidesWhetherThereAreSpans(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	for rate, want := range map[float64]bool{0: false, 0.5: true} {
		tracer := newTracer(t, Tracing{Sampled: true, Rate: rate}, false)
		if tracer.Records() != want {
			t.Errorf("rate %v: spans are %v", rate, !want)
		}
		_ = tracer.Close(t.Context())
	}
}

func TestACollectorThatADocumentNames(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1") // the document counts
	got := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/traces" {
			got <- r.Header
		}
	}))
	defer server.Close()
	tracer := newTracer(t, Tracing{
		Sampled: true, Rate: 1, Endpoint: strings.TrimPrefix(server.URL, "http://"), HTTP: true, Insecure: true,
		Headers: map[string]string{"Key": "value"}, Timeout: 5 * time.Second,
	}, false)
	var header call.Header
	_, span := tracer.Start(t.Context(), trace.SpanKindClient, &header, "x")
	var none error
	span.End(&none)
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if header := <-got; header.Get("Key") != "value" {
		t.Errorf("got %v", header)
	}
}

// zipkinAt is a collector that tells the names of the spans it is sent.
func zipkinAt(t *testing.T) (url string, names chan string) {
	names = make(chan string, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var spans []zipkinSpan
		if err := json.NewDecoder(r.Body).Decode(&spans); err != nil {
			t.Error(err)
		}
		for _, s := range spans {
			names <- s.Name
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, names
}

func TestSpansGoToTheCollectorThatWasInUseWhenTheyBegan(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	first, one := zipkinAt(t)
	second, two := zipkinAt(t)
	tracer := newTracer(t, Tracing{Sampled: true, Rate: 1, Zipkin: first}, false)
	begin := func(name string) Span {
		_, span := tracer.Start(t.Context(), trace.SpanKindClient, nil, name)
		return span
	}
	var none error
	ended, runs := begin("ended"), begin("runs")
	ended.End(&none)
	tracer.Use(ready(t, Tracing{Sampled: true, Rate: 1, Zipkin: second}, false))
	if name := <-one; name != "ended" { // sent at the change, not when the last span ends
		t.Errorf("the first collector got %s", name)
	}
	later := begin("later")
	runs.End(&none)
	later.End(&none)
	if name := <-one; name != "runs" {
		t.Errorf("the first collector got %s", name)
	}
	tracer.Use(ready(t, Tracing{}, true)) // traces are turned off
	if begin("nothing"); tracer.Records() {
		t.Error("there are spans still")
	}
	if name := <-two; name != "later" {
		t.Errorf("the second collector got %s", name)
	}
	if err := tracer.Close(t.Context()); err != nil || len(one)+len(two) != 0 {
		t.Errorf("%v, and spans came twice", err)
	}
}

// Spans begin and end while collectors change: each reaches one, once.
func TestNoSpanIsLostWhenCollectorsChange(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	url, names := zipkinAt(t)
	fresh := func() Traces { return ready(t, Tracing{Sampled: true, Rate: 1, Zipkin: url}, false) }
	tracer := NewTracer(fresh())
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			for range 100 {
				_, span := tracer.Start(t.Context(), trace.SpanKindClient, nil, "x")
				var none error
				span.End(&none)
			}
		})
	}
	for range 10 {
		tracer.Use(fresh())
	}
	callers.Wait()
	if err := tracer.Close(t.Context()); err != nil || len(names) != 400 {
		t.Errorf("%v, %d of 400 spans came", err, len(names))
	}
}
