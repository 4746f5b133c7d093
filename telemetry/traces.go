package telemetry

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// Tracer makes spans and carries W3C trace context and baggage in headers. The nil Tracer makes none and leaves headers
// as they are, so a trace that the apps made still passes through.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	carrier  propagation.TextMapPropagator
}

// Tracing is what a document says about traces, beside the variables of OpenTelemetry. The zero Tracing says nothing.
type Tracing struct {
	// Sampled says that Rate is set: the share of the traces that begin here and are kept, 0 to 1. 0 makes no spans at all.
	// Without it all are kept, or what OTEL_TRACES_SAMPLER says.
	Sampled bool
	Rate    float64
	// Log takes a line for each span; nil writes none. Zipkin is the URL of a collector, or "".
	Log    *slog.Logger
	Zipkin string
	// Endpoint is host:port of an OpenTelemetry collector, or "" for the one that the variables name, if any; HTTP and Insecure
	// say how to speak to it, Timeout how long one export may take, 0 for the exporter's default.
	Endpoint       string
	HTTP, Insecure bool
	Headers        map[string]string
	Timeout        time.Duration
}

// NewTracer makes a tracer of what a document says and of the standard variables (OTEL_EXPORTER_OTLP_ENDPOINT,
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_SDK_DISABLED
// …). It returns nil when neither names an exporter or a rate.
func NewTracer(ctx context.Context, appID, instance, version string, t Tracing) (*Tracer, error) {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || t.Sampled && t.Rate == 0 {
		return nil, nil
	}
	exporters, err := t.exporters(ctx, appID)
	if err != nil {
		return nil, err
	}
	if len(exporters) == 0 && !t.Sampled {
		return nil, nil
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", appID),
		attribute.String("service.instance.id", instance),
		attribute.String("sidecast.version", version),
	), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fault.New("traces", fault.FlagInvalid, "OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(about)}
	for _, exporter := range exporters {
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	if t.Sampled {
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(t.Rate))))
	}
	provider := sdktrace.NewTracerProvider(options...)
	return &Tracer{
		provider: provider,
		tracer:   provider.Tracer("github.com/sidecast/sidecast"),
		carrier:  propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}, nil
}

// exporters are all that are named.
func (t Tracing) exporters(ctx context.Context, appID string) (all []sdktrace.SpanExporter, err error) {
	if t.Log != nil {
		all = append(all, logExporter{t.Log})
	}
	if t.Zipkin != "" {
		all = append(all, newZipkin(t.Zipkin, appID))
	}
	var otlp *otlptrace.Exporter
	switch {
	case t.Endpoint != "":
		otlp, err = t.otlp(ctx)
	case os.Getenv("OTEL_TRACES_EXPORTER") != "none" &&
		os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")+os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "":
		otlp, err = newExporter(ctx)
	}
	if err != nil {
		return nil, fault.New("traces", fault.FlagInvalid, "the exporter that is named cannot be made: %w", err)
	}
	if otlp != nil {
		all = append(all, otlp)
	}
	return all, nil
}

// otlp is the exporter that a document names.
func (t Tracing) otlp(ctx context.Context) (*otlptrace.Exporter, error) {
	if t.HTTP {
		options := []otlptracehttp.Option{otlptracehttp.WithEndpoint(t.Endpoint), otlptracehttp.WithHeaders(t.Headers)}
		if t.Insecure {
			options = append(options, otlptracehttp.WithInsecure())
		}
		if t.Timeout > 0 {
			options = append(options, otlptracehttp.WithTimeout(t.Timeout))
		}
		return otlptracehttp.New(ctx, options...)
	}
	options := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(t.Endpoint), otlptracegrpc.WithHeaders(t.Headers)}
	if t.Insecure {
		options = append(options, otlptracegrpc.WithInsecure())
	}
	if t.Timeout > 0 {
		options = append(options, otlptracegrpc.WithTimeout(t.Timeout))
	}
	return otlptracegrpc.New(ctx, options...)
}

func newExporter(ctx context.Context) (*otlptrace.Exporter, error) {
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	if strings.HasPrefix(protocol, "http") {
		return otlptracehttp.New(ctx)
	}
	return otlptracegrpc.New(ctx)
}

// Start begins a span whose name is parts joined. Its parent is the one that header names, which from then on names the
// new one; without a header it is the one of ctx.
func (t *Tracer) Start(ctx context.Context, kind trace.SpanKind, header *call.Header, parts ...string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	if t.tracer == nil {
		identify(header)
		return ctx, Span{}
	}
	if header == nil {
		ctx, span := t.tracer.Start(ctx, strings.Join(parts, ""), trace.WithSpanKind(kind))
		begun(ctx, span.SpanContext())
		return ctx, Span{span}
	}
	carrier := headerCarrier{header}
	ctx, span := t.tracer.Start(t.carrier.Extract(ctx, carrier), strings.Join(parts, ""), trace.WithSpanKind(kind))
	t.carrier.Inject(ctx, carrier)
	begun(ctx, span.SpanContext())
	return ctx, Span{span}
}

// Under is ctx below the span that the caller names in W3C's traceparent, tracestate and baggage, which get looks up.
func (t *Tracer) Under(ctx context.Context, get func(key string) string) context.Context {
	if !t.Records() {
		return ctx
	}
	return t.carrier.Extract(ctx, lookup(get))
}

// Records reports whether there are spans.
func (t *Tracer) Records() bool { return t != nil && t.tracer != nil }

// Close sends the spans that are left.
func (t *Tracer) Close(ctx context.Context) error {
	if !t.Records() {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Span is a span, or nothing.
type Span struct{ span trace.Span }

// End ends the span with the outcome that err holds.
func (s Span) End(err *error) {
	if s.span == nil {
		return
	}
	if *err != nil {
		s.span.SetStatus(codes.Error, (*err).Error())
		s.span.SetAttributes(attribute.String("sidecast.kind", fault.KindOf(*err).String()),
			attribute.String("sidecast.reason", string(fault.ReasonOf(*err))))
	}
	s.span.End()
}

// Event adds an event to the span.
func (s Span) Event(name string, attributes ...attribute.KeyValue) {
	if s.span != nil {
		s.span.AddEvent(name, trace.WithAttributes(attributes...))
	}
}

// lookup is a carrier that is only read.
type lookup func(key string) string

func (l lookup) Get(key string) string { return l(key) }
func (l lookup) Set(string, string)    {}
func (l lookup) Keys() []string        { return nil }

type headerCarrier struct{ header *call.Header }

func (c headerCarrier) Get(key string) string { return c.header.Get(key) }
func (c headerCarrier) Set(key, value string) { c.header.Set(key, value) }
func (c headerCarrier) Keys() []string {
	keys := make([]string, len(*c.header))
	for i, f := range *c.header {
		keys[i] = f.Key
	}
	return keys
}
