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
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/overloads"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"

	"github.com/sidecast/sidecast/fault"
)

const (
	// maxCost bounds one evaluation, in CEL's own units of work; an ordinary rule costs fewer than a hundred. The whole of it
	// takes a fraction of a second.
	maxCost = 100_000
	// maxText bounds an expression in bytes: what is not in a loop is evaluated once, and so bounded by it.
	maxText = 8 << 10
	// maxNesting bounds how deep an expression is: the time to check its types grows faster than it.
	maxNesting = 60
)

// Rule is a compiled expression. The zero Rule holds for every event.
type Rule struct {
	text    string
	program cel.Program
}

var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(cel.Variable("event", cel.DynType), cel.ParserRecursionLimit(maxNesting))
})

// Compile reads an expression; an empty one holds always.
func Compile(text string) (Rule, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return Rule{}, nil
	}
	if len(text) > maxText {
		return Rule{}, fault.New("routing rule", fault.BadRequest, "%q has %d bytes; at most %d are allowed", short(text), len(text), maxText)
	}
	env, err := environment()
	if err != nil {
		return Rule{}, fault.E("routing", fault.Internal, fault.Defect, err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return Rule{}, fault.New("routing rule", fault.BadRequest, "%q is no expression in CEL over `event`: %s", short(text),
			short(strings.SplitN(issues.Err().Error(), "\n", 2)[0]))
	}
	program, err := env.Program(ast, cel.CostLimit(maxCost), cel.CostTracking(compared{}))
	if err != nil {
		return Rule{}, fault.New("routing rule", fault.BadRequest, "%q cannot be evaluated: %w", short(text), err)
	}
	return Rule{text: text, program: program}, nil
}

// short is as much of a text as an error or a log line should hold.
func short(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
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
		return false, fault.New("routing rule", fault.BadRequest, "%q: %w", short(r.text), err)
	}
	holds, ok := out.Value().(bool)
	if !ok {
		return false, fault.New("routing rule", fault.BadRequest, "the result of match expression %s was not a boolean", short(r.text))
	}
	return holds, nil
}

// compared has comparisons cost what they look at, and other functions what their texts are long. CEL takes a list or a map for
// one thing, however much is in it, and anything of a type that it learns from the event as well.
type compared struct{}

var _ interpreter.ActualCostEstimator = compared{}

// CallCost is nil for what CEL knows better.
func (compared) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	deep := false
	switch function {
	case operators.Equals, operators.NotEquals, operators.In, operators.OldIn:
		deep = true
	case overloads.Matches, overloads.Contains:
		return nil
	}
	cost := uint64(1)
	for _, arg := range args {
		left := maxCost
		count(arg, deep, &left)
		cost += uint64(maxCost - left)
	}
	return &cost
}

// count takes the bytes of a text from left, and, when it is to go deep, the parts of a list or a map, until nothing is left.
func count(value ref.Val, deep bool, left *int) {
	*left = max(0, *left-1)
	switch v := value.(type) {
	case types.String:
		*left = max(0, *left-len(v)/64)
		return
	case types.Bytes:
		*left = max(0, *left-len(v)/64)
		return
	}
	parts, ok := value.(traits.Iterable)
	if !ok || !deep {
		return
	}
	fields, _ := value.(traits.Indexer)
	_, isMap := value.(traits.Mapper)
	for at := parts.Iterator(); *left > 0 && at.HasNext() == types.True; {
		part := at.Next()
		count(part, deep, left)
		if isMap && fields != nil {
			count(fields.Get(part), deep, left)
		}
	}
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
