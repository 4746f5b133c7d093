package telemetry

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
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
	current atomic.Pointer[source]
	carrier propagation.TextMapPropagator
	leaving sync.WaitGroup // sources that were replaced and whose spans are still being sent
	closed  chan struct{}
}

// source is what spans come from at one moment: nothing, trace ids alone, or spans that go to exporters.
type source struct {
	identify bool                     // without spans calls belong to traces all the same, and spans are told in Dapr's words
	provider *sdktrace.TracerProvider // nil makes no spans
	tracer   trace.Tracer
	// open counts the spans that have not ended, plus one for the source while it is in use; idle is closed when it comes to 0.
	open atomic.Int64
	idle chan struct{}
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

// Traces are made ready to be used by a Tracer; see Tracing.Ready. Those that are never used must be closed.
type Traces struct{ source *source }

// Close lets go of traces that no Tracer uses.
func (t Traces) Close(ctx context.Context) error { return t.source.close(ctx) }

// Ready makes traces of what a document says and of the standard variables (OTEL_EXPORTER_OTLP_ENDPOINT,
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_SDK_DISABLED
// …). There are no spans when neither names an exporter or a rate. Identify has each call belong to a trace all the same, if
// the rate is not 0: where the header names none it begins one that is not sampled, so that all apps on the way can log one
// id. It is what Dapr's sidecar does without a collector.
func (t Tracing) Ready(ctx context.Context, appID, instance, version string, identify bool) (Traces, error) {
	off := t.Sampled && t.Rate == 0
	none := Traces{&source{identify: identify && !off}}
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || off {
		return none, nil
	}
	exporters, err := t.exporters(ctx, appID)
	if err != nil {
		return none, err
	}
	if len(exporters) == 0 && !t.Sampled {
		return none, nil
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", appID),
		attribute.String("service.instance.id", instance),
		attribute.String("sidecast.version", version),
	), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return none, fault.New("traces", fault.FlagInvalid, "OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(about)}
	for _, exporter := range exporters {
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	if t.Sampled {
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(t.Rate))))
	}
	provider := sdktrace.NewTracerProvider(options...)
	s := &source{identify: identify, provider: provider, tracer: provider.Tracer("github.com/sidecast/sidecast"), idle: make(chan struct{})}
	s.open.Store(1)
	return Traces{s}, nil
}

// NewTracer makes a tracer of traces, and owns them from then on.
func NewTracer(t Traces) *Tracer {
	tracer := &Tracer{
		carrier: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}), closed: make(chan struct{}),
	}
	tracer.current.Store(t.source)
	return tracer
}

// Use has the spans that begin from now on come from other traces. What has ended is sent at once, spans that run go where
// they would have gone, and what the old ones hold is let go of when their last span has ended.
func (t *Tracer) Use(other Traces) {
	old := t.current.Swap(other.source)
	if old.provider == nil {
		return
	}
	old.leave()
	t.leaving.Go(func() {
		within := func(do func(context.Context) error) {
			ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
			defer cancel()
			_ = do(ctx) // OpenTelemetry's handler of errors is told
		}
		within(old.provider.ForceFlush)
		select {
		case <-old.idle:
		case <-t.closed:
		}
		within(old.close)
	})
}

// flushTimeout bounds how long traces that were replaced wait for their collector, each time.
const flushTimeout = 10 * time.Second

func (s *source) close(ctx context.Context) error {
	if s.provider == nil {
		return nil
	}
	return s.provider.Shutdown(ctx)
}

// enter counts a span in, unless the source was let go of meanwhile.
func (s *source) enter() bool {
	for {
		n := s.open.Load()
		if n == 0 {
			return false
		}
		if s.open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *source) leave() {
	if s.open.Add(-1) == 0 {
		close(s.idle)
	}
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

// Start begins a span whose name is parts joined; the first of a call that has its own from its front door is that one. Its parent is the
// one that header names, which from then on names the new one; without a header, or within such a call, it is the one of ctx. The
// span must be ended.
func (t *Tracer) Start(ctx context.Context, kind trace.SpanKind, header *call.Header, parts ...string) (context.Context, Span) {
	if t.Records() { // to look the call up takes time
		if a := AnswerOf(ctx); a.take() {
			t.name(ctx, header)
			return ctx, Span{span: a.span}
		}
	}
	s := t.enter(header)
	if s == nil {
		return ctx, Span{}
	}
	return t.begin(ctx, s, kind, header, joined(parts))
}

// begin begins a span of a source that it was counted in.
func (t *Tracer) begin(ctx context.Context, s *source, kind trace.SpanKind, header *call.Header, name string, attributes ...attribute.KeyValue) (context.Context, Span) {
	if header != nil {
		ctx = t.under(ctx, header)
	}
	ctx, span := s.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	t.name(ctx, header)
	return ctx, Span{span, s}
}

// name has header name the span of ctx.
func (t *Tracer) name(ctx context.Context, header *call.Header) {
	if header != nil {
		t.carrier.Inject(ctx, headerCarrier{header})
	}
}

// enter is the source of a new span, which is counted in; nil when there are no spans.
func (t *Tracer) enter(header *call.Header) *source {
	if t == nil {
		return nil
	}
	for {
		s := t.current.Load()
		if s.provider == nil {
			if s.identify {
				identify(header)
			}
			return nil
		}
		if s.enter() {
			return s
		}
	}
}

// Under is ctx below the span that the caller names in W3C's traceparent, tracestate and baggage, which get looks up.
func (t *Tracer) Under(ctx context.Context, get func(key string) string) context.Context {
	if !t.Records() {
		return ctx
	}
	return t.carrier.Extract(ctx, lookup(get))
}

// Traces reports whether calls belong to traces, with spans or without.
func (t *Tracer) Traces() bool { return t.Records() || t != nil && t.current.Load().identify }

// Records reports whether there are spans.
func (t *Tracer) Records() bool { return t != nil && t.current.Load().provider != nil }

// Close sends the spans that are left. No other traces may be used after it.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	close(t.closed)
	gone := make(chan struct{})
	go func() { // ends with the sources, within the time they have for it
		t.leaving.Wait()
		close(gone)
	}()
	err := t.current.Load().close(ctx)
	select {
	case <-gone:
		return err
	case <-ctx.Done():
		return errors.Join(err, fault.FromContext("traces", ctx, "the collector that was replaced"))
	}
}

// Span is a span, or nothing.
type Span struct {
	span trace.Span
	from *source // nil where the span is that of a front door's call, which ends it
}

// End ends the span with the outcome that err holds. The span of a front door's call goes on, and has the outcome that its caller sees.
func (s Span) End(err *error) { s.EndAnswered(err, 0) }

// EndAnswered is End after an app has answered with a status of HTTP, which says what is wrong better than err does; 0 is none.
func (s Span) EndAnswered(err *error, status int) {
	if s.span == nil {
		return
	}
	if *err != nil {
		s.span.SetAttributes(attribute.String("sidecast.kind", fault.KindOf(*err).String()),
			attribute.String("sidecast.reason", string(fault.ReasonOf(*err))))
	}
	if s.from == nil {
		if *err != nil {
			s.span.SetAttributes(attribute.String("sidecast.error", clean((*err).Error())))
		}
		return
	}
	defer s.from.leave()
	if failure := HTTPFailure(status); failure != "" {
		s.span.SetStatus(codes.Error, failure)
	} else if *err != nil {
		s.span.SetStatus(codes.Error, clean((*err).Error()))
	}
	s.span.End()
}

// Event adds an event to the span.
func (s Span) Event(name string, attributes ...attribute.KeyValue) {
	if s.span != nil {
		s.span.AddEvent(name, trace.WithAttributes(Texts(attributes)...))
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
