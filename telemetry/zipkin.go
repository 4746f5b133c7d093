package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// zipkinTimeout bounds one export.
const zipkinTimeout = 10 * time.Second

// zipkin sends spans to a collector that takes Zipkin's JSON, version 2 (POST /api/v2/spans of its OpenAPI description).
type zipkin struct {
	url, service string
	client       http.Client
}

func newZipkin(url, service string) *zipkin {
	return &zipkin{url: url, service: service, client: http.Client{
		Timeout: zipkinTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
	}}
}

// zipkinSpan is a span as Zipkin reads it. Times are microseconds.
type zipkinSpan struct {
	TraceID       string            `json:"traceId"`
	ID            string            `json:"id"`
	ParentID      string            `json:"parentId,omitempty"`
	Name          string            `json:"name"`
	Kind          string            `json:"kind,omitempty"`
	Timestamp     int64             `json:"timestamp"`
	Duration      int64             `json:"duration"`
	LocalEndpoint zipkinEndpoint    `json:"localEndpoint"`
	Annotations   []zipkinNote      `json:"annotations,omitempty"`
	Tags          map[string]string `json:"tags,omitempty"`
}

type zipkinEndpoint struct {
	ServiceName string `json:"serviceName"`
}

type zipkinNote struct {
	Timestamp int64  `json:"timestamp"`
	Value     string `json:"value"`
}

// ExportSpans sends spans in one request.
func (z *zipkin) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	all := make([]zipkinSpan, len(spans))
	for i, s := range spans {
		all[i] = z.span(s)
	}
	body, err := json.Marshal(all)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, z.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := z.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 4<<10)) // so that the connection can be used again
	if response.StatusCode >= 300 {
		return fmt.Errorf("zipkin answered %s", response.Status)
	}
	return nil
}

// Shutdown closes the connection.
func (z *zipkin) Shutdown(context.Context) error {
	z.client.CloseIdleConnections()
	return nil
}

func (z *zipkin) span(s sdktrace.ReadOnlySpan) zipkinSpan {
	all := zipkinSpan{
		TraceID: s.SpanContext().TraceID().String(), ID: s.SpanContext().SpanID().String(), Name: strings.ToLower(s.Name()), // names are in lowercase there
		Timestamp: s.StartTime().UnixMicro(), Duration: max(1, s.EndTime().Sub(s.StartTime()).Microseconds()),
		LocalEndpoint: zipkinEndpoint{strings.ToLower(z.service)}, Tags: make(map[string]string, len(s.Attributes())+1),
	}
	if s.Parent().HasSpanID() {
		all.ParentID = s.Parent().SpanID().String()
	}
	if kind := s.SpanKind(); kind != trace.SpanKindInternal && kind != trace.SpanKindUnspecified {
		all.Kind = strings.ToUpper(kind.String())
	}
	for _, a := range s.Attributes() {
		all.Tags[string(a.Key)] = a.Value.String()
	}
	if status := s.Status(); status.Code == codes.Error {
		all.Tags["error"], all.Tags["otel.status_code"] = status.Description, "ERROR"
	}
	for _, e := range s.Events() {
		all.Annotations = append(all.Annotations, zipkinNote{e.Time.UnixMicro(), eventText(e)})
	}
	return all
}

// eventText is an event in a line: its name, and its attributes as JSON, as OpenTelemetry's own exporter to Zipkin has them.
func eventText(e sdktrace.Event) string {
	if len(e.Attributes) == 0 {
		return e.Name
	}
	about := make(map[string]any, len(e.Attributes))
	for _, a := range e.Attributes {
		about[string(a.Key)] = a.Value.AsInterface()
	}
	text, err := json.Marshal(about)
	if err != nil {
		return e.Name
	}
	return e.Name + ": " + string(text)
}

// logExporter writes a line for each span.
type logExporter struct{ log *slog.Logger }

// ExportSpans writes spans.
func (e logExporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	for _, s := range spans {
		about := []any{
			"name", s.Name(), "trace", s.SpanContext().TraceID().String(), "parent", s.Parent().SpanID().String(),
			"span", s.SpanContext().SpanID().String(), "began", s.StartTime(), "took", s.EndTime().Sub(s.StartTime()),
		}
		if status := s.Status(); status.Code == codes.Error {
			about = append(about, "error", status.Description)
		}
		if events := s.Events(); len(events) > 0 {
			texts := make([]string, len(events))
			for i, event := range events {
				texts[i] = eventText(event)
			}
			about = append(about, "events", texts)
		}
		e.log.Info("span", about...)
	}
	return nil
}

// Shutdown has nothing to close.
func (logExporter) Shutdown(context.Context) error { return nil }
