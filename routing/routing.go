// Package routing chooses the path of an event by its content: rules in the Common Expression Language (CEL,
// https://cel.dev), in order, over the CloudEvent under the name `event`.
//
//	rule, err := routing.Compile(`event.type == "order.placed" && event.data.total > 100`)
//	ok, err := rule.Match(event)
//
// Evaluation is bounded: an expression cannot loop for ever, and one that costs too much fails.
package routing

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"

	"github.com/sidecast/sidecast/fault"
)

// maxCost bounds one evaluation, in CEL's own units of work; an ordinary rule costs fewer than a hundred.
const maxCost = 1_000_000

// Rule is a compiled expression. The zero Rule holds for every event.
type Rule struct {
	text    string
	program cel.Program
}

var environment = sync.OnceValues(func() (*cel.Env, error) { return cel.NewEnv(cel.Variable("event", cel.DynType)) })

// Compile reads an expression; an empty one holds always.
func Compile(text string) (Rule, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Rule{}, nil
	}
	env, err := environment()
	if err != nil {
		return Rule{}, fault.E("routing", fault.Internal, fault.Defect, err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return Rule{}, fault.New("routing rule", fault.BadRequest, "%q is no expression in CEL over `event`: %s", text,
			strings.SplitN(issues.Err().Error(), "\n", 2)[0])
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost))
	if err != nil {
		return Rule{}, fault.New("routing rule", fault.BadRequest, "%q cannot be evaluated: %w", text, err)
	}
	return Rule{text: text, program: program}, nil
}

// String is the expression.
func (r Rule) String() string { return r.text }

// Match says whether the rule holds for event, which holds what encoding/json makes of a CloudEvent. An expression that
// reads what the event has not fails, and so does one that is neither true nor false.
func (r Rule) Match(event map[string]any) (bool, error) {
	if r.program == nil {
		return true, nil
	}
	out, _, err := r.program.Eval(map[string]any{"event": event})
	if err != nil {
		return false, fault.New("routing rule", fault.BadRequest, "%q: %w", r.text, err)
	}
	holds, ok := out.Value().(bool)
	if !ok {
		return false, fault.New("routing rule", fault.BadRequest, "the result of match expression %s was not a boolean", r.text)
	}
	return holds, nil
}

// Route is a path and the rule that leads to it.
type Route struct {
	Rule Rule
	Path string
}

// Choose is the path of the first route whose rule holds for the CloudEvent in JSON, and false when there is none. Numbers
// are doubles, as in JSON.
func Choose(routes []Route, envelope []byte) (path string, ok bool, err error) {
	var event map[string]any
	for _, r := range routes {
		if r.Rule.program == nil {
			return r.Path, true, nil
		}
		if event == nil {
			if err := json.Unmarshal(envelope, &event); err != nil {
				return "", false, fault.New("routing", fault.EventInvalid, "the event is no JSON object: %w", err)
			}
		}
		holds, err := r.Rule.Match(event)
		if err != nil {
			return "", false, fmt.Errorf("route %s: %w", r.Path, err)
		}
		if holds {
			return r.Path, true, nil
		}
	}
	return "", false, nil
}

// Equal says whether two lists lead events the same ways.
func Equal(a, b []Route) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Path != b[i].Path || a[i].Rule.text != b[i].Rule.text {
			return false
		}
	}
	return true
}
