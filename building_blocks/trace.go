package blocks

import (
	"context"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/telemetry"
)

// Trace makes an event on the span of ctx of each decision of a lane:
//
//	lane.attempt        an attempt begins: which one, at which endpoint
//	lane.hedge          another begins beside it; lane.hedge_refused: the lane has no room for it
//	lane.wait           the call waits until it conforms to a rate limit
//	lane.retry          an attempt failed, another follows after a wait
//	lane.refused        no attempt was made, and why
//	lane.gave_up        no other attempt follows the one that failed
//	lane.fallback       after that: what the caller gets is not the target's answer
//
// A context whose span is not recorded costs nothing. It is made for actors.Options.
func Trace(ctx context.Context, d actors.Decided) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	if name, attributes := describe(d); name != "" {
		span.AddEvent(name, trace.WithAttributes(telemetry.Texts(append(attributes, attribute.String("sidecast.lane", d.Lane)))...))
	}
}

// fellBack notes that a fallback answers the call: `static`, `app` or `last-good`.
func fellBack(ctx context.Context, lane *actors.Lane, how string) {
	lane.Answered()
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("lane.fallback", trace.WithAttributes(telemetry.Texts([]attribute.KeyValue{
			attribute.String("sidecast.fallback", how), attribute.String("sidecast.lane", lane.Name()),
		})...))
	}
}

func describe(d actors.Decided) (name string, about []attribute.KeyValue) {
	switch d.Verb {
	case resiliency.Go:
		name = "lane.hedge"
		if !d.Hedge {
			name = "lane.attempt"
			about = append(about, attribute.Int("sidecast.attempt", d.Attempt))
		}
		if d.Endpoint != "" {
			about = append(about, attribute.String("sidecast.endpoint", d.Endpoint))
		}
	case resiliency.Again:
		name = "lane.wait"
		if d.Err != nil {
			name, about = "lane.retry", failure(d.Err)
		}
		about = append(about, attribute.Int64("sidecast.wait_ms", d.After.Milliseconds()))
	case resiliency.GiveUp:
		name, about = gaveUp(d)
	}
	return name, about
}

// gaveUp describes the end of a call that failed, with what the lane tells its caller.
func gaveUp(d actors.Decided) (name string, about []attribute.KeyValue) {
	about = failure(d.Err)
	name = "lane.gave_up"
	if f, ok := d.Err.(*fault.Error); ok {
		about = append(about, attribute.String("sidecast.policy", f.Meta["policy"]))
		attempts, _ := strconv.Atoi(f.Meta["attempts"])
		if about = append(about, attribute.Int("sidecast.attempts", attempts)); attempts == 0 {
			name = "lane.refused"
		}
		if f.RetryAfter > 0 {
			about = append(about, attribute.Int64("sidecast.retry_after_ms", f.RetryAfter.Milliseconds()))
		}
	}
	if d.Hedge {
		name = "lane.hedge_refused"
	}
	return name, about
}

func failure(err error) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("sidecast.reason", string(fault.ReasonOf(err))),
		attribute.String("sidecast.kind", fault.KindOf(err).String()),
		attribute.String("sidecast.error", err.Error()),
	}
}
