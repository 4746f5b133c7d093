package telemetry

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// DaprOptions are what a Configuration says of Dapr's metrics. The zero value is what Dapr does when none says anything.
type DaprOptions struct {
	// Buckets are those of latencies, in milliseconds, ascending; none means Dapr's.
	Buckets []float64
	// LowCardinality leaves paths out of the labels of HTTP, but for those that Paths matches.
	LowCardinality bool
	// Paths are patterns that one http.ServeMux takes. A path that one matches has the pattern as its label.
	Paths []string
	// ExcludeVerbs leaves the verb out.
	ExcludeVerbs bool
	// ErrorCodes counts the errors of the API by their code.
	ErrorCodes bool
	// Rules rewrite labels.
	Rules LabelRules
}

// Replacement puts With, in which $1 is the first group, in the place of all that Regex matches.
type Replacement struct {
	Regex *regexp.Regexp
	With  string
}

// LabelRules are replacements by the name of a metric and of its label, made one after the other.
type LabelRules map[string]map[string][]Replacement

// Add has a rule follow those that are there. The prefix of Dapr's metrics may be left out of the name.
func (r LabelRules) Add(metric, label string, replacements ...Replacement) {
	metric = "dapr_" + strings.TrimPrefix(strings.ReplaceAll(metric, "/", "_"), "dapr_")
	if r[metric] == nil {
		r[metric] = map[string][]Replacement{}
	}
	r[metric][label] = append(r[metric][label], replacements...)
}

// Label is the value of a label after its rules. Dapr knows no empty labels to rewrite.
func (r LabelRules) Label(metric, label, value string) string {
	return replaced(value, r[metric][label])
}

func replaced(value string, replacements []Replacement) string {
	if value == "" {
		return ""
	}
	for _, r := range replacements {
		value = r.Regex.ReplaceAllString(value, r.With)
	}
	return value
}

// pathLabels makes labels of the paths of HTTP, as daprd does.
type pathLabels struct {
	full  bool           // what no pattern matches has a label, too
	match *http.ServeMux // nil without patterns
}

func newPathLabels(o DaprOptions) *pathLabels {
	l := &pathLabels{full: !o.LowCardinality}
	if len(o.Paths) == 0 {
		return l
	}
	l.match = http.NewServeMux()
	for _, pattern := range o.Paths {
		l.match.Handle(pattern, http.NotFoundHandler())
	}
	return l
}

// slashed begins with a slash and has none beside another.
func slashed(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return path
}

// label is "" for a path that has none.
func (l *pathLabels) label(path string) string {
	switch path {
	case "/dapr/config", "/dapr/metrics", "/dapr/subscribe", "/healthz":
		return path
	}
	if pattern := l.pattern(path); pattern != "" {
		return pattern
	}
	short := withoutKeys(path)
	if pattern := l.pattern(short); pattern != "" && pattern != "/" {
		return pattern
	}
	if !l.full {
		return ""
	}
	return short
}

func (l *pathLabels) pattern(path string) string {
	if l.match == nil || path == "" {
		return ""
	}
	_, pattern := l.match.Handler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: slashed(path)}})
	return pattern
}

// withoutKeys leaves out of a path what is different in each: the keys of state and secrets, the ids of actors and workflows.
func withoutKeys(path string) string {
	if path == "" {
		return ""
	}
	path = slashed(path)
	const most = 6 // as in v1.0/actors/type/id/timers/name
	parts := strings.SplitN(path[1:], "/", most)
	if len(parts) < 3 {
		return path
	}
	if parts[0] == "actors" {
		parts[2] = "{id}"
		return strings.Join(parts, "/")
	}
	switch parts[1] {
	case "state", "secrets":
		return "/" + strings.Join(parts[:3], "/")
	case "actors":
		if len(parts) < 5 {
			return path
		}
		parts[3] = "{id}"
		return "/" + strings.Join(parts[:5], "/")
	case "workflows":
		return workflowPath(path, parts)
	}
	return path
}

// workflowPath is that of v1.0/workflows/component/instance or /name/start, and of what is done with an instance.
func workflowPath(path string, parts []string) string {
	switch {
	case len(parts) < 4:
		return path
	case len(parts) == 5 && strings.HasPrefix(parts[4], "start"):
		return "/" + strings.Join(parts[:4], "/") + "/start"
	}
	parts[3] = "{instanceId}"
	if len(parts) == 6 && parts[4] == "raiseEvent" && parts[5] != "" {
		parts[5] = "{eventName}"
		return "/" + strings.Join(parts, "/")
	}
	return "/" + strings.Join(parts[:min(len(parts), 5)], "/")
}
