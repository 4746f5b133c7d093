package blocks

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

// traced runs do under a span and returns its events, as `name key=value …` without the texts of errors.
func traced(t *testing.T, policy resiliency.Policy, do func(ctx context.Context, lane *actors.Lane)) []string {
	t.Helper()
	system := actors.NewSystem(actors.Options{Observe: Trace})
	defer func() {
		if err := system.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	lane := system.BalancedLane("app/pricing", policy)
	lane.SetEndpoints([]resiliency.Endpoint{{ID: "pricing-1"}})
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	ctx, span := provider.Tracer("test").Start(t.Context(), "call")
	do(ctx, lane)
	span.End()
	var lines []string
	for _, event := range recorder.Ended()[0].Events() {
		line := event.Name
		for _, a := range event.Attributes {
			if !utf8.ValidString(a.Value.String()) {
				t.Errorf("%s holds %q, for which an exporter drops the whole batch", a.Key, a.Value.String())
			}
			if a.Key != "sidecast.error" {
				line += fmt.Sprintf(" %s=%s", strings.TrimPrefix(string(a.Key), "sidecast."), a.Value.String())
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func TestDecisionsAreEventsOfTheSpan(t *testing.T) {
	failing := func(context.Context, actors.Grant) error { return fault.New("call", fault.InstanceLost, "gone \xff") }
	for name, c := range map[string]struct {
		policy resiliency.Policy
		do     func(ctx context.Context, lane *actors.Lane)
		want   []string
	}{
		"success": {resiliency.Policy{}, func(ctx context.Context, lane *actors.Lane) {
			_ = lane.Do(ctx, resiliency.Call{}, func(context.Context, actors.Grant) error { return nil })
		}, []string{"lane.attempt attempt=1 endpoint=pricing-1 lane=app/pricing"}},
		"retry": {resiliency.Policy{Name: "p", Retry: resiliency.Retry{Max: 1, Initial: 2 * time.Millisecond}}, func(ctx context.Context, lane *actors.Lane) {
			_ = lane.Do(ctx, resiliency.Call{Idempotent: true}, failing)
		}, []string{
			"lane.attempt attempt=1 endpoint=pricing-1 lane=app/pricing",
			"lane.retry reason=INSTANCE_LOST kind=unavailable wait_ms=2 lane=app/pricing",
			"lane.attempt attempt=2 endpoint=pricing-1 lane=app/pricing",
			"lane.gave_up reason=INSTANCE_LOST kind=unavailable policy=p attempts=2 lane=app/pricing",
		}},
		"refusal": {resiliency.Policy{Name: "p", MaxInFlight: 1}, func(ctx context.Context, lane *actors.Lane) {
			_ = lane.Do(context.Background(), resiliency.Call{}, func(context.Context, actors.Grant) error {
				return lane.Do(ctx, resiliency.Call{}, failing)
			})
		}, []string{"lane.refused reason=QUEUE_FULL kind=exhausted policy=p attempts=0 retry_after_ms=100 lane=app/pricing"}},
		"hedge": {resiliency.Policy{Hedge: resiliency.Hedge{After: time.Millisecond}}, func(ctx context.Context, lane *actors.Lane) {
			var begun atomic.Int32
			_, _ = actors.Do(ctx, lane, resiliency.Call{Idempotent: true}, func(ctx context.Context, grant actors.Grant) (int, error) {
				if begun.Add(1) == 1 {
					<-ctx.Done()
				}
				return 0, ctx.Err()
			})
		}, []string{
			"lane.attempt attempt=1 endpoint=pricing-1 lane=app/pricing",
			"lane.hedge endpoint=pricing-1 lane=app/pricing",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := traced(t, c.policy, c.do); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// TestUnrecordedDecisionsCostNothing: no span, or one that was not sampled.
func TestUnrecordedDecisionsCostNothing(t *testing.T) {
	unsampled, span := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test").Start(t.Context(), "call")
	defer span.End()
	refused := fault.New("call", fault.QueueFull, "full")
	for _, ctx := range []context.Context{t.Context(), unsampled} {
		for _, d := range []resiliency.Decision{{Verb: resiliency.Go, Attempt: 1, Endpoint: "e"}, {Verb: resiliency.GiveUp, Err: refused}} {
			if n := testing.AllocsPerRun(100, func() { Trace(ctx, actors.Decided{Decision: d, Lane: "l"}) }); n != 0 {
				t.Errorf("%v allocates %v times", reflect.TypeOf(ctx), n)
			}
		}
	}
}
