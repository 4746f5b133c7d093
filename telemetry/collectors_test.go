package telemetry

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/call"
)

// export is what a collector got.
type export struct {
	request *collector.ExportTraceServiceRequest
	key     string        // the header of that name
	left    time.Duration // until the deadline; 0 without one
}

// grpcCollector takes exports over gRPC.
type grpcCollector struct {
	collector.UnimplementedTraceServiceServer
	got chan export
}

func (c *grpcCollector) Export(ctx context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	e := export{request: in, key: strings.Join(metadata.ValueFromIncomingContext(ctx, "key"), ",")}
	if deadline, ok := ctx.Deadline(); ok {
		e.left = time.Until(deadline)
	}
	c.got <- e
	return &collector.ExportTraceServiceResponse{}, nil
}

// secrets is a certificate for 127.0.0.1 that the exporters of this test trust.
func secrets(t *testing.T) *tls.Certificate {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", file)
	return &server.TLS.Certificates[0]
}

// collect starts a collector and returns where it is.
func collect(t *testing.T, overHTTP bool, certificate *tls.Certificate, got chan export) (address string) {
	t.Helper()
	if overHTTP {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			in := &collector.ExportTraceServiceRequest{}
			if r.URL.Path != "/v1/traces" || proto.Unmarshal(body, in) != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			got <- export{request: in, key: r.Header.Get("Key")}
		}))
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		if certificate != nil {
			server.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}}
			server.StartTLS()
		} else {
			server.Start()
		}
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var options []grpc.ServerOption
	if certificate != nil {
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(certificate)))
	}
	server := grpc.NewServer(options...)
	collector.RegisterTraceServiceServer(server, &grpcCollector{got: got})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// Every way to a collector that a document can name is taken, with its header and its time.
func TestEveryWayToACollector(t *testing.T) {
	for name, c := range map[string]struct{ http, insecure bool }{
		"grpc": {}, "grpc without TLS": {insecure: true}, "http": {http: true}, "http without TLS": {http: true, insecure: true},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan export, 1)
			var with *tls.Certificate
			if !c.insecure {
				with = secrets(t)
			}
			tracer := newTracer(t, Tracing{
				Sampled: true, Rate: 1, Endpoint: collect(t, c.http, with, got), HTTP: c.http, Insecure: c.insecure,
				Headers: map[string]string{"key": "a=b"}, Timeout: 5 * time.Second,
			}, false)
			_, span := tracer.Start(t.Context(), trace.SpanKindClient, nil, "x")
			var none error
			span.End(&none)
			patient, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := tracer.Close(patient); err != nil {
				t.Fatal(err)
			}
			e := <-got
			resource, spans := e.request.GetResourceSpans()[0].GetResource().String(), e.request.GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()
			if e.key != "a=b" || len(spans) != 1 || spans[0].GetName() != "x" || !strings.Contains(resource, "orders") {
				t.Errorf("got %+v", e)
			}
			if !c.http && (e.left <= 0 || e.left > 5*time.Second) { // the exporter's own time is 10s
				t.Errorf("the export has %v", e.left)
			}
		})
	}
}

// A trace that begins here is kept by its id, as OpenTelemetry says, so that all sidecars with one rate keep the same; what a
// caller has decided stays.
func TestTheRateIsOfTracesThatBeginHere(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	const rate = .25
	tracer := newTracer(t, Tracing{Sampled: true, Rate: rate, Log: slog.New(slog.DiscardHandler)}, false)
	defer func() { _ = tracer.Close(context.Background()) }()
	kept := 0
	for range 1000 {
		var header call.Header
		ctx, span := tracer.Start(t.Context(), trace.SpanKindServer, &header, "x")
		var none error
		span.End(&none)
		c := trace.SpanContextFromContext(ctx)
		id := c.TraceID()
		within := binary.BigEndian.Uint64(id[8:16])>>1 < uint64(rate*(1<<63))
		if c.IsSampled() != within || strings.HasSuffix(header.Get("traceparent"), "-01") != within {
			t.Fatalf("%v is sampled: %v", id, c.IsSampled())
		}
		if within {
			kept++
		}
	}
	if kept == 0 || kept == 1000 {
		t.Errorf("%d of 1000 are kept", kept)
	}
	for _, flags := range []string{"00", "01"} {
		for i := range 50 { // of all ids
			id := bytes.Repeat([]byte{byte(i*5 + 1)}, 24)
			header := call.Header{{Key: "traceparent", Value: call.Traceparent(id[:16], id[16:], 0)[:53] + flags}}
			ctx, span := tracer.Start(t.Context(), trace.SpanKindServer, &header, "x")
			var none error
			span.End(&none)
			if sampled := trace.SpanContextFromContext(ctx).IsSampled(); sampled != (flags == "01") {
				t.Fatalf("below a parent with the flags %s sampled is %v", flags, sampled)
			}
		}
	}
}
