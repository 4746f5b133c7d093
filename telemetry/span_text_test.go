package telemetry

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// What a lane decided is told wherever spans go, with the reason.
func TestEventsOfSpansAreTold(t *testing.T) {
	span := tracetest.SpanStub{
		Name: "invoke orders/list", Status: sdktrace.Status{Code: codes.Error, Description: "it is open"},
		Events: []sdktrace.Event{
			{Name: "lane.attempt"},
			{Name: "lane.refused", Attributes: []attribute.KeyValue{attribute.String("sidecast.reason", "BREAKER_OPEN"), attribute.Int("sidecast.attempts", 0)}},
		},
	}.Snapshot()
	const refused = `lane.refused: {"sidecast.attempts":0,"sidecast.reason":"BREAKER_OPEN"}`

	notes := newZipkin("http://localhost", "app").span(span).Annotations
	if len(notes) != 2 || notes[0].Value != "lane.attempt" || notes[1].Value != refused {
		t.Errorf("Zipkin gets %+v", notes)
	}

	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	if err := (logExporter{log}).ExportSpans(context.Background(), []sdktrace.ReadOnlySpan{span}); err != nil {
		t.Fatal(err)
	}
	if line := strings.ReplaceAll(out.String(), `\"`, `"`); !strings.Contains(line, refused) || !strings.Contains(line, `"error":"it is open"`) {
		t.Errorf("the log has %s", line)
	}
	out.Reset()
	_ = (logExporter{log}).ExportSpans(context.Background(), []sdktrace.ReadOnlySpan{tracetest.SpanStub{Name: "quiet"}.Snapshot()})
	if line := out.String(); strings.Contains(line, "events") || strings.Contains(line, "error") {
		t.Error(line)
	}
}
