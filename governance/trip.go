package governance

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"

	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/resiliency"
)

// trip is a CEL expression that opens a breaker.
type trip struct{ *resiliency.Trip }

// The variables of a trip, as Dapr has them.
var tripVariables = []string{"requests", "totalSuccesses", "totalFailures", "consecutiveSuccesses", "consecutiveFailures"}

// maxTrip bounds the length of an expression, and maxTripCost the work of one evaluation: it happens inside a lane.
const (
	maxTrip     = 1024
	maxTripCost = 1000
)

// DecodeNode compiles the expression.
func (t *trip) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	s, ok := text(d, n, path)
	if !ok || s == "" {
		return
	}
	compiled, err := compileTrip(s)
	if err != nil {
		d.Fail(n.Line, path, "%q is not a condition over %s: %v", s, strings.Join(tripVariables, ", "), err)
		return
	}
	t.Trip = compiled
}

// Schema describes the expression for editors.
func (*trip) Schema() map[string]any {
	return map[string]any{"type": "string", "examples": []string{"consecutiveFailures > 5", "totalFailures > 10 && totalFailures * 2 > requests"}}
}

// tripEnv is what all expressions are compiled in. It never changes, and making one is most of the work.
var tripEnv = sync.OnceValues(func() (*cel.Env, error) {
	options := make([]cel.EnvOption, len(tripVariables))
	for i, name := range tripVariables {
		options[i] = cel.Variable(name, cel.IntType)
	}
	return cel.NewEnv(options...)
})

// compileTrip makes a Trip of a CEL expression. One that fails to evaluate does not open, as in Dapr.
func compileTrip(s string) (compiled *resiliency.Trip, err error) {
	if len(s) > maxTrip {
		return nil, fmt.Errorf("it is longer than %d bytes", maxTrip)
	}
	defer func() {
		if p := recover(); p != nil {
			compiled, err = nil, errors.New("it cannot be compiled")
		}
	}()
	env, err := tripEnv()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(s)
	if issues != nil && issues.Err() != nil {
		return nil, errors.New(issues.Errors()[0].Message)
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("it gives %s, not true or false", ast.OutputType())
	}
	program, err := env.Program(ast, cel.CostLimit(maxTripCost))
	if err != nil {
		return nil, err
	}
	return &resiliency.Trip{Text: s, Open: func(c resiliency.TripCounts) bool {
		out, _, err := program.Eval(map[string]any{
			"requests": c.Requests, "totalSuccesses": c.Successes, "totalFailures": c.Failures,
			"consecutiveSuccesses": c.ConsecutiveSuccesses, "consecutiveFailures": c.ConsecutiveFailures,
		})
		return err == nil && out == types.True
	}}, nil
}
