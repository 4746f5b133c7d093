package compat

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	collected "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/tests/machine"
)

// otlp is a collector that notes the spans it gets, with the header that came with them.
type otlp struct {
	collected.UnimplementedTraceServiceServer
	got chan string
}

func (o *otlp) note(key string, in *collected.ExportTraceServiceRequest) {
	for _, r := range in.GetResourceSpans() {
		for _, scope := range r.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				o.got <- key + " " + s.GetName()
			}
		}
	}
}

func (o *otlp) Export(ctx context.Context, in *collected.ExportTraceServiceRequest) (*collected.ExportTraceServiceResponse, error) {
	o.note(strings.Join(metadata.ValueFromIncomingContext(ctx, "key"), ","), in)
	return &collected.ExportTraceServiceResponse{}, nil
}

func (o *otlp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	in := &collected.ExportTraceServiceRequest{}
	if r.URL.Path != "/v1/traces" || proto.Unmarshal(body, in) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	o.note(r.Header.Get("key"), in)
}

func TestTracesReachOpenTelemetry(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	for protocol, serve := range map[string]func(*otlp) string{
		"http": func(o *otlp) string { return serve(t, o) },
		"grpc": func(o *otlp) string {
			return serveGRPC(t, func(s *grpc.Server) { collected.RegisterTraceServiceServer(s, o) })
		},
	} {
		o := &otlp{got: make(chan string, 1000)}
		d := start(t, m, protocol, "--config", configuration(t, fmt.Sprintf(
			"  tracing: {samplingRate: \"1\", otel: {endpointAddress: \"127.0.0.1:%s\", isSecure: false, protocol: %s, headers: [key=a=b], timeout: 5s}}\n", serve(o), protocol)))
		d.expect(204, "", "GET", store+"/k", "")
		d.Terminate()
		d.Wait(machine.Patience)
		close(o.got)
		var all []string
		for span := range o.got {
			all = append(all, span)
		}
		if text := strings.Join(all, "\n"); !strings.Contains(text, "a=b /v1.0/state/store/k") {
			t.Errorf("over %s came %q\n%s", protocol, text, d.Output())
		}
	}
}
