package telemetry

import (
	"context"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/call"
)

// Answer is the trace that a call belongs to, as a front door tells it to its caller, and the call's own span. That is there from
// the moment the door has the call, so what the door refuses has one too; the first span that a block begins for the call is
// that same one. The nil Answer tells nothing.
type Answer struct {
	parent, state string // as the caller gave them
	span          trace.Span
	from          *source // nil makes no spans
	part          string  // the name of spans of the call's parts
	taken         atomic.Bool
}

type answerKey struct{}

// Below is Under for a front door that answers with the trace: the Answer is nil where there is nothing to tell, which is so
// for every call that brings no trace to a sidecar without spans. Where there are spans the call's own begins here, with that
// name, and must be ended.
func (t *Tracer) Below(ctx context.Context, kind trace.SpanKind, name string, get func(key string) string) (context.Context, *Answer) {
	a := &Answer{}
	a.parent, a.state = TraceContext(get)
	if a.from = t.enter(nil); a.from == nil {
		if !t.Traces() || a.parent == "" {
			return ctx, nil
		}
		return context.WithValue(ctx, answerKey{}, a), a
	}
	a.part = clean(name)
	ctx, a.span = a.from.tracer.Start(t.carrier.Extract(ctx, lookup(get)), a.part, trace.WithSpanKind(kind))
	return context.WithValue(ctx, answerKey{}, a), a
}

// TraceContext is the trace that a caller names in W3C's traceparent and tracestate, which get looks up; both are "" where the first
// is none, and the second where it is none itself.
func TraceContext(get func(key string) string) (traceparent, tracestate string) {
	traceparent = get("traceparent")
	if _, ok := call.TraceBinary(traceparent); !ok {
		return "", ""
	}
	if tracestate = get("tracestate"); tracestate != "" {
		if _, err := trace.ParseTraceState(tracestate); err != nil {
			tracestate = ""
		}
	}
	return traceparent, tracestate
}

// AnswerOf is the Answer of the call that ctx belongs to, or nil.
func AnswerOf(ctx context.Context) *Answer {
	a, _ := ctx.Value(answerKey{}).(*Answer)
	return a
}

// Records reports whether the call's span is kept, so that it is worth telling something about it.
func (a *Answer) Records() bool { return a != nil && a.span != nil && a.span.IsRecording() }

// Rename gives the call's span another name.
func (a *Answer) Rename(name string) {
	if a.Records() {
		a.span.SetName(clean(name))
	}
}

// Parts is the name of the spans of what a call is made of, such as the events of one batch; otherwise they have the name that
// the call began with.
func (a *Answer) Parts(name string) {
	if a != nil {
		a.part = clean(name)
	}
}

// Tell adds attributes to the call's span. Those whose text is empty are left out.
func (a *Answer) Tell(attributes ...attribute.KeyValue) {
	if !a.Records() {
		return
	}
	told := attributes[:0]
	for _, one := range Texts(attributes) {
		if one.Value.Type() != attribute.STRING || one.Value.AsString() != "" {
			told = append(told, one)
		}
	}
	a.span.SetAttributes(told...)
}

// End ends the call's span, which has failed unless failure is "". It is called once, after the last that begins one for the call.
func (a *Answer) End(failure string) {
	if a == nil || a.span == nil {
		return
	}
	a.taken.Store(true)
	defer a.from.leave()
	if failure != "" {
		a.span.SetStatus(codes.Error, clean(failure))
	}
	a.span.End()
}

// take gives the call's span to the block that asks first.
func (a *Answer) take() bool { return a != nil && a.span != nil && a.taken.CompareAndSwap(false, true) }

// Trace is what to answer with: the call's span, or the caller's own where there are no spans. Both are "" when there is neither.
func (a *Answer) Trace() (traceparent, tracestate string) {
	if a == nil {
		return "", ""
	}
	if a.span == nil {
		return a.parent, a.state
	}
	span := a.span.SpanContext()
	id, own := span.TraceID(), span.SpanID()
	return call.Traceparent(id[:], own[:], byte(span.TraceFlags())), span.TraceState().String()
}

// under is ctx below the span that a header names. In a call that has a span of its own that is the caller's caller: what begins
// in the call is below the call.
func (t *Tracer) under(ctx context.Context, header *call.Header) context.Context {
	if a := AnswerOf(ctx); a != nil && a.span != nil && header.Get("traceparent") == a.parent {
		return ctx
	}
	return t.carrier.Extract(ctx, headerCarrier{header})
}

// joined is the name of a span, of its parts.
func joined(parts []string) string { return clean(strings.Join(parts, "")) }
