package governance

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/resiliency"
)

// text is a single value, or "" with a finding.
func text(d *manifest.Document, n *manifest.Node, path string) (string, bool) {
	if n.Kind != manifest.Scalar {
		d.Fail(n.Line, path, "must be a single value, not %s", n.Kind)
		return "", false
	}
	return strings.TrimSpace(n.Text), true
}

// DecodeNode reads a duration as Dapr does: Go's syntax, or a plain number of milliseconds.
func (t *duration) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	s, ok := text(d, n, path)
	if !ok {
		return
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		if ms < 0 || ms > int64(1<<63-1)/int64(time.Millisecond) {
			d.Fail(n.Line, path, "%q is not a time", s)
			return
		}
		*t = duration(time.Duration(ms) * time.Millisecond)
		if ms != 0 {
			d.Add(manifest.Finding{
				Line: n.Line, Key: path, Severity: manifest.Warning,
				Message: fmt.Sprintf("%q means %s, as it does for Dapr: write a unit to be clear", s, time.Duration(*t)),
			})
		}
		return
	}
	parsed, err := time.ParseDuration(s)
	switch {
	case err != nil:
		d.Fail(n.Line, path, "%q is not a duration: write a number with a unit, like 500ms, 30s or 1h30m", s)
	case parsed < 0:
		d.Fail(n.Line, path, "%q must not be negative", s)
	default:
		*t = duration(parsed)
	}
}

const durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^[0-9]+$`

// Schema describes a duration for editors.
func (*duration) Schema() map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "string", "pattern": durationPattern, "examples": []string{"500ms", "30s", "1h30m"}},
		map[string]any{"type": "integer", "minimum": 0, "description": "milliseconds"},
	}}
}

// DecodeNode reads a duration of more than zero.
func (t *positive) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	before := len(d.Findings)
	(*duration)(t).DecodeNode(d, n, path)
	if *t == 0 && len(d.Findings) == before {
		d.Fail(n.Line, path, "%q must be more than zero", strings.TrimSpace(n.Text))
	}
}

// Schema describes the duration for editors.
func (*positive) Schema() map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "string", "pattern": durationPattern, "not": map[string]any{"pattern": `^[0.a-zµ]+$`}, "examples": []string{"500ms", "30s", "1h30m"}},
		map[string]any{"type": "integer", "minimum": 1, "description": "milliseconds"},
	}}
}

// positiveShare is a share that zero is no value of: who wants none leaves it out.
type positiveShare float64

// DecodeNode reads a share of more than zero.
func (s *positiveShare) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	text, ok := text(d, n, path)
	if !ok {
		return
	}
	share, err := manifest.ParseShare(text)
	switch {
	case err != nil:
		d.Fail(n.Line, path, "%q %v", text, err)
	case share == 0:
		d.Fail(n.Line, path, "%q must be more than zero", text)
	}
	*s = positiveShare(share)
}

// Schema describes the share for editors.
func (*positiveShare) Schema() map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "number", "exclusiveMinimum": 0, "maximum": 1},
		map[string]any{"type": "string", "pattern": sharePattern, "not": map[string]any{"pattern": `^[0.]+%?$`}},
	}}
}

const sharePattern = `^[0-9]+(\.[0-9]+)?%?$`

// openShare is a share, or true for the usual one.
type openShare float64

// DecodeNode reads either form.
func (s *openShare) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	text, ok := text(d, n, path)
	if !ok {
		return
	}
	switch text {
	case "true":
		*s = usualOpenShare
		return
	case "false":
		return
	}
	share, err := manifest.ParseShare(text)
	if err != nil {
		d.Fail(n.Line, path, "%q %v; true is 0.01%%", text, err)
	}
	*s = openShare(share)
}

// Schema describes both forms for editors.
func (*openShare) Schema() map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "number", "minimum": 0, "maximum": 1}, map[string]any{"type": "boolean"},
		map[string]any{"type": "string", "pattern": sharePattern},
	}}
}

// codes are numbers and ranges of numbers in the form of Dapr: 429,500-599.
type codes []resiliency.Range

// Bounds of what a code may be: HTTP statuses begin where gRPC codes have ended for long.
const (
	maxGRPC          = 16
	minHTTP, maxHTTP = 100, 599
	codesPattern     = `^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`
	httpKey          = "httpStatusCodes"
)

// DecodeNode reads codes; the key says of which protocol.
func (c *codes) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	s, ok := text(d, n, path)
	if !ok {
		return
	}
	least, most := 0, maxGRPC
	if strings.HasSuffix(path, "."+httpKey) {
		least, most = minHTTP, maxHTTP
	}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(strings.TrimSpace(first))
		to := from
		if isRange && err == nil {
			to, err = strconv.Atoi(strings.TrimSpace(last))
		}
		if err != nil || from < least || to > most || to < from {
			d.Fail(n.Line, path, "%q is neither a code nor a range of codes from %d to %d", part, least, most)
			continue
		}
		*c = append(*c, resiliency.Range{First: from, Last: to})
	}
}

// Schema describes codes for editors.
func (*codes) Schema() map[string]any {
	return map[string]any{"anyOf": []any{
		map[string]any{"type": "string", "pattern": codesPattern}, map[string]any{"type": "integer"},
	}}
}

// timeoutSpec is a bound of each attempt, as in Dapr, or the bounds of a call in parts.
type timeoutSpec struct {
	timeoutParts
	plain bool
}

// DecodeNode reads either form.
func (t *timeoutSpec) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	if n.Kind != manifest.Mapping {
		t.plain, t.Where = true, manifest.Where{Line: n.Line, Path: path}
		t.Attempt.DecodeNode(d, n, path)
		return
	}
	o := d.Object(n, path)
	o.Into(&t.timeoutParts)
	o.Done()
	if t.Call > 0 && t.Attempt > t.Call {
		d.Fail(o.Line("attempt"), o.At("attempt"), "%s is longer than the whole call, %s", time.Duration(t.Attempt), time.Duration(t.Call))
	}
	if a := t.Adaptive; a != nil && a.Max > 0 && a.Min > a.Max {
		d.Fail(o.Line("adaptive"), o.At("adaptive.min"), "%s is more than max, %s", time.Duration(a.Min), time.Duration(a.Max))
	}
}

// Schema describes both forms for editors.
func (t *timeoutSpec) Schema() map[string]any {
	return map[string]any{"anyOf": []any{t.Attempt.Schema(), manifest.SchemaOf(timeoutParts{})}}
}
