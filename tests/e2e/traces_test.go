package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
	"github.com/sidecast/sidecast/tests/machine"
)

// spans is a collector that keeps what it is sent.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu  sync.Mutex
	all []*tracev1.Span
}

func (s *spans) Export(_ context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range in.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			s.all = append(s.all, scope.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// find returns the span of that name.
func (s *spans) find(name string) (*tracev1.Span, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, span := range s.all {
		if names = append(names, span.Name); span.Name == name {
			return span, nil
		}
	}
	return nil, fmt.Errorf("there is no span %q among %q", name, names)
}

// TestOperationsAreSpansOfTheCallersTrace: whatever a caller asks of its sidecar is a span below its own, on which the lane
// tells what it decided.
func TestOperationsAreSpansOfTheCallersTrace(t *testing.T) {
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	received, server := new(spans), grpc.NewServer()
	collector.RegisterTraceServiceServer(server, received)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	m := machine.New(t)
	m.Env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + listener.Addr().String(), "OTEL_BSP_SCHEDULE_DELAY=100"}
	s := m.Sidecar("orders")
	s.Serve()
	s.Ready()
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+trace+"-"+parent+"-01")
	for _, ask := range []func() error{
		func() error {
			_, err := sidecastv1.NewStateClient(conn).Get(ctx, &sidecastv1.GetRequest{Key: "k"})
			return err
		},
		func() error {
			_, err := sidecastv1.NewPubSubClient(conn).Publish(ctx, &sidecastv1.PublishRequest{Topic: "t", Data: []byte("{}")})
			return err
		},
		func() error {
			_, err := sidecastv1.NewLockClient(conn).Acquire(ctx, &sidecastv1.AcquireRequest{Name: "l"})
			return err
		},
	} {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"state get statestore", "pubsub publish pubsub", "lock acquire lockstore"} {
		var span *tracev1.Span
		machine.Until(t, "the span "+name, func() (err error) {
			span, err = received.find(name)
			return err
		})
		if hex.EncodeToString(span.TraceId) != trace || hex.EncodeToString(span.ParentSpanId) != parent {
			t.Errorf("%s is %x of %x, want it below %s of %s", name, span.ParentSpanId, span.TraceId, parent, trace)
		}
		lane := strings.Fields(name)[0] + "/" + strings.Fields(name)[2]
		if !slices.ContainsFunc(span.Events, func(e *tracev1.Span_Event) bool {
			return e.Name == "lane.attempt" && strings.Contains(fmt.Sprint(e.Attributes), lane)
		}) {
			t.Errorf("%s has the events %v", name, span.Events)
		}
	}
}
