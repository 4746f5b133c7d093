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

	tracer, err := NewTracer(t.Context(), "orders", "orders-1", "test", Tracing{})
	if err != nil || tracer == nil {
		t.Fatalf("got %v, %v", tracer, err)
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
	tracer, err := NewTracer(t.Context(), "orders", "orders-1", "test", Tracing{})
	if err != nil || tracer != nil {
		t.Fatalf("got %v, %v", tracer, err)
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
	tracer := Identifier()
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
	tracer, err := NewTracer(t.Context(), "orders", "orders-1", "test", Tracing{
		Sampled: true, Rate: 1, Zipkin: server.URL, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil || tracer == nil {
		t.Fatalf("got %v, %v", tracer, err)
	}
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
		tracer, err := NewTracer(t.Context(), "orders", "orders-1", "test", Tracing{Sampled: true, Rate: rate})
		if err != nil || (tracer != nil) != want {
			t.Errorf("rate %v: %v %v", rate, tracer, err)
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
	tracer, err := NewTracer(t.Context(), "orders", "orders-1", "test", Tracing{
		Sampled: true, Rate: 1, Endpoint: strings.TrimPrefix(server.URL, "http://"), HTTP: true, Insecure: true,
		Headers: map[string]string{"Key": "value"}, Timeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
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
