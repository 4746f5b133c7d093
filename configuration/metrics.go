package configuration

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/manifest"
)

// Measuring is how metrics with Dapr's names are made.
type Measuring struct {
	// Buckets are those of latencies, in milliseconds, ascending; none means Dapr's.
	Buckets []int
	// LowCardinality leaves paths out of the labels of HTTP, but for those that Paths, patterns of one http.ServeMux, match.
	LowCardinality bool
	Paths          []string
	// ExcludeVerbs leaves the verb out, ErrorCodes counts errors by their code.
	ExcludeVerbs, ErrorCodes bool
	Rules                    []LabelRule
}

// LabelRule puts With in the place of what Regex matches in a label of a metric.
type LabelRule struct{ Metric, Label, Regex, With string }

// over is m with what another says in its place, key by key.
func (m *metricSpec) over(other *metricSpec) *metricSpec {
	all := *m
	if other.Enabled != nil {
		all.Enabled = other.Enabled
	}
	if other.RecordErrorCodes != nil {
		all.RecordErrorCodes = other.RecordErrorCodes
	}
	if other.HTTP != nil {
		all.HTTP = other.HTTP
	}
	if other.LatencyBuckets != nil {
		all.LatencyBuckets = other.LatencyBuckets
	}
	if len(other.Rules) > 0 {
		all.Rules = other.Rules
	}
	return &all
}

func (m *metricSpec) settings() (enabled bool, all Measuring) {
	is := func(b *bool) bool { return b != nil && *b }
	enabled = m.Enabled == nil || *m.Enabled
	all = Measuring{Buckets: m.LatencyBuckets, ErrorCodes: is(m.RecordErrorCodes)}
	if http := m.HTTP; http != nil {
		all.LowCardinality = http.IncreasedCardinality != nil && !*http.IncreasedCardinality
		all.Paths, all.ExcludeVerbs = patterns(http.PathMatching), is(http.ExcludeVerbs)
	}
	for _, rule := range m.Rules {
		for _, label := range rule.Labels {
			for _, with := range slices.Sorted(maps.Keys(label.Regex)) { // daprd takes them in any order
				all.Rules = append(all.Rules, LabelRule{rule.Name, label.Name, label.Regex[with].Text, with})
			}
		}
	}
	return enabled, all
}

func checkMetrics(d *manifest.Document, m *metricSpec) {
	for i, b := range m.LatencyBuckets {
		if b < 0 || i > 0 && b <= m.LatencyBuckets[i-1] {
			d.Fail(m.Line, m.Path+".latencyDistributionBuckets", "%d does not follow: milliseconds must ascend", b)
		}
	}
	for _, rule := range m.Rules {
		for _, label := range rule.Labels {
			for _, with := range slices.Sorted(maps.Keys(label.Regex)) {
				if _, err := regexp.Compile(label.Regex[with].Text); err != nil {
					d.Fail(label.Regex[with].Line, label.Path+".regex", "%v", err)
				}
			}
		}
	}
	if m.HTTP == nil {
		return
	}
	if err := checkPaths(m.HTTP.PathMatching); err != nil {
		d.Fail(m.HTTP.Line, m.HTTP.Path+".pathMatching", "%v", err)
	}
}

// checkPaths says why patterns cannot be matched together. http.ServeMux has no way to ask but to panic.
func checkPaths(paths []string) (err error) {
	mux := http.NewServeMux()
	for _, pattern := range patterns(paths) {
		func() {
			defer func() {
				if p := recover(); p != nil {
					err = fmt.Errorf("%v", p)
				}
			}()
			mux.Handle(pattern, http.NotFoundHandler())
		}()
	}
	return err
}

// patterns are all that paths stand for, each once: those below an invocation, too.
func patterns(paths []string) []string {
	var all []string
	for _, path := range paths {
		for strings.Contains(path, "//") {
			path = strings.ReplaceAll(path, "//", "/")
		}
		path = "/" + strings.TrimPrefix(path, "/")
		all = append(all, path)
		if !strings.HasPrefix(path, "/v1.0/invoke/") {
			all = append(all, "/v1.0/invoke/{app_id}/method"+path)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
