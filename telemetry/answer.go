package telemetry

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/call"
)

// Answer is what a front door tells its caller of the trace that a call belongs to. The nil Answer tells nothing.
type Answer struct {
	parent, state string                            // as the caller gave them
	span          atomic.Pointer[trace.SpanContext] // the first that was begun for the call
}

type answerKey struct{}

// Below is Under for a front door that answers with the trace: the Answer is nil where there is nothing to tell, which is so
// for every call that brings no trace to a sidecar without spans.
func (t *Tracer) Below(ctx context.Context, get func(key string) string) (context.Context, *Answer) {
	a := &Answer{parent: get("traceparent"), state: get("tracestate")}
	if _, ok := call.TraceBinary(a.parent); !ok {
		a.parent, a.state = "", ""
	}
	if !t.Records() {
		if !t.Traces() || a.parent == "" {
			return ctx, nil
		}
		return context.WithValue(ctx, answerKey{}, a), a
	}
	return context.WithValue(t.Under(ctx, get), answerKey{}, a), a
}

// AnswerOf is the Answer of the call that ctx belongs to, or nil.
func AnswerOf(ctx context.Context) *Answer {
	a, _ := ctx.Value(answerKey{}).(*Answer)
	return a
}

// begun notes the first span of a call.
func begun(ctx context.Context, span trace.SpanContext) {
	if a := AnswerOf(ctx); a != nil && a.span.Load() == nil {
		a.span.CompareAndSwap(nil, &span)
	}
}

// Trace is what to answer with: the first span of the call, or the caller's own where none was begun. Both are "" when there
// is neither.
func (a *Answer) Trace() (traceparent, tracestate string) {
	if a == nil {
		return "", ""
	}
	span := a.span.Load()
	if span == nil || !span.IsValid() {
		return a.parent, a.state
	}
	id, own := span.TraceID(), span.SpanID()
	return call.Traceparent(id[:], own[:], byte(span.TraceFlags())), span.TraceState().String()
}
