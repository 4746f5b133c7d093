package governance

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/resiliency"
)

// The documents of OpenSergo's fault-tolerance specification v1alpha1
// (github.com/opensergo/opensergo-specification, specification/zh-Hans/fault-tolerance.md). Where its text and the
// definitions of its control plane differ, both are read: statDuration and statDurationSeconds, fallbackAction and action.

type sergoRateLimit struct {
	MetricType          string        `yaml:"metricType,required" oneof:"RequestAmount" doc:"What is counted."`
	LimitMode           string        `yaml:"limitMode,required" oneof:"Local|Global|GlobalToLocal" doc:"Whether each sidecar has the limit (Local) or all of them share it."`
	Threshold           float64       `yaml:"threshold,required" min:"1" max:"1000000000" doc:"How many requests are admitted within the time; a fraction is left off."`
	StatDurationSeconds int           `yaml:"statDurationSeconds" min:"1" max:"86400" doc:"The time, in seconds."`
	StatDuration        sergoDuration `yaml:"statDuration" doc:"The time, like 1s or 5min."`
}

type sergoThrottling struct {
	MinIntervalOfRequests sergoDuration `yaml:"minIntervalOfRequests,required" doc:"Least time between two requests, like 20ms."`
	QueueTimeout          sergoDuration `yaml:"queueTimeout,required" doc:"How long a request may wait for its turn, like 500ms."`
}

type sergoConcurrency struct {
	MaxConcurrency int    `yaml:"maxConcurrency,required" min:"1" doc:"How many requests may run at once."`
	LimitMode      string `yaml:"limitMode,required" oneof:"Local|Global" doc:"Local: each sidecar has the limit. Global is not supported."`
}

type sergoBreaker struct {
	Strategy         string                `yaml:"strategy,required" oneof:"SlowRequestRatio|ErrorRequestRatio" doc:"Whether slow or failed requests open it."`
	TriggerRatio     sergoRatio            `yaml:"triggerRatio,required" doc:"Share of them that opens it, like 60%."`
	StatDuration     sergoDuration         `yaml:"statDuration,required" doc:"The time that is looked at, like 30s."`
	RecoveryTimeout  sergoDuration         `yaml:"recoveryTimeout,required" doc:"How long it stays open before it lets a probe pass."`
	MinRequestAmount int                   `yaml:"minRequestAmount,required" min:"1" doc:"Requests that must have been seen within the time."`
	SlowConditions   *sergoSlowConditions  `yaml:"slowConditions" doc:"What a slow request is; needed by SlowRequestRatio."`
	ErrorConditions  *sergoErrorConditions `yaml:"errorConditions" doc:"What a failed request is: every failure of the app or the way to it."`
}

type sergoSlowConditions struct {
	MaxAllowedRT sergoDuration `yaml:"maxAllowedRt,required" doc:"A request that takes longer is slow."`
}

type sergoErrorConditions struct {
	ErrorType string `yaml:"errorType" oneof:"Any" doc:"Any, the only one there is."`
}

type sergoFallback struct {
	Behavior     string         `yaml:"behavior,required" oneof:"ReturnProvidedResponse" doc:"What is done for a request that a strategy refused."`
	BehaviorDesc *sergoResponse `yaml:"behaviorDesc,required" doc:"The response."`
}

type sergoResponse struct {
	StatusCode int           `yaml:"responseStatusCode,required" min:"200" max:"599" doc:"HTTP status."`
	Body       string        `yaml:"responseContentBody" doc:"Body."`
	Headers    []sergoHeader `yaml:"responseAdditionalHeaders" doc:"Header fields."`
}

type sergoHeader struct {
	manifest.Where
	Key   string `yaml:"key,required" doc:"Name of the field."`
	Value string `yaml:"value,required" doc:"Value of the field."`
}

type sergoRuleSpec struct {
	manifest.Where
	Selector       map[string]string `yaml:"selector" doc:"Which apps the rule is for: app: my-app; all when left out, or those of the label app."`
	Targets        []sergoTarget     `yaml:"targets,required" doc:"Which requests the rule is for."`
	Strategies     []sergoReference  `yaml:"strategies,required" doc:"What holds for them."`
	FallbackAction *sergoAction      `yaml:"fallbackAction" doc:"What refused requests are answered with: a HttpRequestFallbackAction."`
	Action         *sergoAction      `yaml:"action" doc:"The same as fallbackAction."`
}

type sergoTarget struct {
	TargetResourceName string `yaml:"targetResourceName,required" doc:"Path or method, like /foo or GET:/foo."`
}

type sergoReference struct {
	manifest.Where
	Name string `yaml:"name,required" doc:"Name of the strategy."`
	Kind string `yaml:"kind" oneof:"RateLimitStrategy|ThrottlingStrategy|ConcurrencyLimitStrategy|CircuitBreakerStrategy" doc:"Its kind; needed where two kinds have one of that name."`
}

// sergoKinds are the kinds of OpenSergo, each with a sample of its spec.
var sergoKinds = map[string]any{
	"RateLimitStrategy": sergoRateLimit{}, "ThrottlingStrategy": sergoThrottling{}, "ConcurrencyLimitStrategy": sergoConcurrency{},
	"CircuitBreakerStrategy": sergoBreaker{}, actionKind: sergoFallback{}, "FaultToleranceRule": sergoRuleSpec{},
}

const actionKind = "HttpRequestFallbackAction"

// sergoKey names a strategy or action. A rule knows those of its namespace, and those without one where it has none of the name.
type sergoKey struct{ namespace, kind, name string }

// sergoStrategy adds itself to the policy of a rule.
type sergoStrategy struct {
	source manifest.Source
	apply  func(*resiliency.Policy) (ok bool)
	answer *resiliency.Fallback // of an action
}

type sergoRule struct {
	*manifest.Document
	name, namespace, app string
	spec                 sergoRuleSpec
}

// openSergo reads a document of one of its kinds.
func (r *reader) openSergo(d *manifest.Document, o *manifest.Object, kind string) {
	name, namespace := manifest.Identity(o)
	label := labels(o)["app"]
	spec := o.Child("spec")
	key := sergoKey{namespace, kind, name}
	var s *sergoStrategy
	switch kind {
	case "RateLimitStrategy":
		s = rateLimitStrategy(d, spec, name)
	case "ThrottlingStrategy":
		s = throttlingStrategy(spec, name)
	case "ConcurrencyLimitStrategy":
		s = concurrencyStrategy(d, spec)
	case "CircuitBreakerStrategy":
		s = breakerStrategy(d, spec)
	case actionKind:
		s = fallbackAction(d, spec)
	default:
		rule := sergoRule{Document: d, name: name, namespace: namespace, app: label}
		rule.read(spec)
		if r.sees(namespace) {
			rule.Document = &manifest.Document{File: d.File}
			r.rules = append(r.rules, rule)
		}
	}
	o.Ignored = append(o.Ignored, "status")
	spec.Done()
	o.Done()
	if s == nil {
		return
	}
	s.source = manifest.Source{File: d.File, Line: o.Node.Line}
	if other, twice := r.sergo[key]; twice {
		d.Fail(o.Node.Line, "metadata.name", "the %s %q is also in %s", kind, name, other.source)
	}
	r.sergo[key] = s
}

// labels are those of the metadata, which only rules give a meaning.
func labels(o *manifest.Object) map[string]string {
	all := map[string]string{}
	if m := o.Node.Get("metadata"); m != nil && m.Value.Kind == manifest.Mapping {
		if l := m.Value.Get("labels"); l != nil && l.Value.Kind == manifest.Mapping {
			for _, p := range l.Value.Pairs {
				all[p.Key] = p.Value.Text
			}
		}
	}
	return all
}

// exactLog is the highest threshold that is kept exactly, with a time for each request; above it two counters do.
const exactLog = 4096

func rateLimitStrategy(d *manifest.Document, o *manifest.Object, name string) *sergoStrategy {
	var s sergoRateLimit
	o.Into(&s)
	if (s.StatDuration == 0) == (s.StatDurationSeconds == 0) {
		d.Fail(o.Node.Line, o.Path, "needs one of statDurationSeconds and statDuration")
	}
	limit := resiliency.RateLimit{
		Name: name, Algorithm: resiliency.SlidingLog, Limit: int(math.Floor(s.Threshold)), Global: s.LimitMode != "Local",
		Per: time.Duration(s.StatDuration) + time.Duration(s.StatDurationSeconds)*time.Second,
	}
	if limit.Limit > exactLog {
		limit.Algorithm = resiliency.SlidingCounter
	}
	return &sergoStrategy{apply: func(p *resiliency.Policy) bool {
		p.Limits = withLimit(p.Limits, limit)
		return true
	}}
}

func throttlingStrategy(o *manifest.Object, name string) *sergoStrategy {
	var s sergoThrottling
	o.Into(&s)
	limit := resiliency.RateLimit{
		Name: name, Algorithm: resiliency.LeakyBucket, Limit: 1, Burst: 1,
		Per: time.Duration(s.MinIntervalOfRequests), MaxWait: time.Duration(s.QueueTimeout),
	}
	return &sergoStrategy{apply: func(p *resiliency.Policy) bool {
		if limit.Per > 0 {
			p.Limits = withLimit(p.Limits, limit)
		}
		return true
	}}
}

func concurrencyStrategy(d *manifest.Document, o *manifest.Object) *sergoStrategy {
	var s sergoConcurrency
	o.Into(&s)
	if s.LimitMode == "Global" {
		d.Add(manifest.Finding{
			Line: o.Line("limitMode"), Key: o.At("limitMode"), Severity: manifest.Error, Reason: fault.NotSupported,
			Message: "a limit of concurrency for all sidecars together is not supported: write Local",
		})
	}
	return &sergoStrategy{apply: func(p *resiliency.Policy) bool {
		if p.MaxInFlight == 0 || s.MaxConcurrency < p.MaxInFlight {
			p.MaxInFlight = s.MaxConcurrency
		}
		return true
	}}
}

func breakerStrategy(d *manifest.Document, o *manifest.Object) *sergoStrategy {
	var s sergoBreaker
	o.Into(&s)
	b := resiliency.Breaker{
		WindowTime: time.Duration(s.StatDuration), OpenFor: time.Duration(s.RecoveryTimeout), MinCalls: s.MinRequestAmount, Probes: 1,
	}
	switch {
	case s.Strategy == "ErrorRequestRatio":
		b.Ratio = float64(s.TriggerRatio)
	case s.SlowConditions == nil:
		d.Fail(o.Node.Line, o.At("slowConditions"), "is missing: what a slow request is")
	default:
		b.SlowRatio, b.SlowAfter = float64(s.TriggerRatio), time.Duration(s.SlowConditions.MaxAllowedRT)
	}
	return &sergoStrategy{apply: func(p *resiliency.Policy) (ok bool) {
		p.Breaker, ok = bothBreakers(p.Breaker, b)
		return ok
	}}
}

// bothBreakers opens when either says so: a ratio of failures and one of slow requests, over the same time.
func bothBreakers(a, b resiliency.Breaker) (both resiliency.Breaker, ok bool) {
	if !breaks(a) {
		return b, true
	}
	if !breaks(b) || a == b {
		return a, true
	}
	both = a
	both.Ratio, both.SlowRatio, both.SlowAfter = max(a.Ratio, b.Ratio), max(a.SlowRatio, b.SlowRatio), max(a.SlowAfter, b.SlowAfter)
	times := func(b resiliency.Breaker) resiliency.Breaker {
		b.Ratio, b.SlowRatio, b.SlowAfter = 0, 0, 0
		return b
	}
	return both, times(a) == times(b) && (a.Ratio == 0 || b.Ratio == 0) && (a.SlowRatio == 0 || b.SlowRatio == 0)
}

// twoBreakers is what is wrong with breakers that one lane cannot be.
const twoBreakers = "has a second breaker for the same requests: two are one only if one is for slow requests and one for errors, and statDuration, recoveryTimeout and minRequestAmount are the same"

// sergoRefusals are what a fallback action answers: a strategy's refusal, and no failure of the app.
var sergoRefusals = resiliency.Match{Reasons: []fault.Reason{fault.RateLimited, fault.QueueFull, fault.BreakerOpen}}

func fallbackAction(d *manifest.Document, o *manifest.Object) *sergoStrategy {
	var s sergoFallback
	o.Into(&s)
	if s.BehaviorDesc == nil {
		return &sergoStrategy{answer: &resiliency.Fallback{}}
	}
	f := &resiliency.Fallback{Status: s.BehaviorDesc.StatusCode, Body: []byte(s.BehaviorDesc.Body), On: sergoRefusals}
	if bodiless(f.Status) && len(f.Body) > 0 {
		d.Fail(o.Line("behaviorDesc"), o.At("behaviorDesc.responseContentBody"), noBody, f.Status)
	}
	for _, h := range s.BehaviorDesc.Headers {
		if h.Key != "" && !isField(h.Key, h.Value) {
			d.Fail(h.Line, h.Path, noField)
		}
		f.Header = append(f.Header, resiliency.HeaderField{Key: strings.ToLower(h.Key), Value: h.Value})
	}
	f.Header = withContentType(f.Header, f.Body)
	return &sergoStrategy{answer: f}
}

func (rule *sergoRule) read(o *manifest.Object) {
	o.Into(&rule.spec)
	s := &rule.spec
	for _, key := range sorted(s.Selector) {
		if key != "app" {
			f := manifest.Unknown("is not what a rule selects by", key, []string{"app"})
			f.Line, f.Key = o.Line("selector"), o.At("selector."+key)
			rule.Add(f)
		}
	}
	if app := s.Selector["app"]; app != "" {
		rule.app = app
	}
	if s.Action != nil && s.FallbackAction != nil {
		rule.Fail(o.Line("action"), o.At("action"), "contradicts fallbackAction: write one of them")
	} else if s.Action != nil {
		s.FallbackAction = s.Action
	}
}

// resolveRules makes operations of the rules for this sidecar's app.
func (r *reader) resolveRules() []operation {
	var all []operation
	for i := range r.rules {
		rule := &r.rules[i]
		p := resiliency.Policy{Name: rule.name}
		for _, ref := range rule.spec.Strategies {
			if s := r.strategy(rule, ref); s != nil && !s.apply(&p) {
				rule.Fail(ref.Line, ref.Path, twoBreakers)
			}
		}
		if a := rule.spec.FallbackAction; a != nil {
			r.action(rule, a, &p)
		}
		if rule.app == "" || r.who.AppID == "" || rule.app == r.who.AppID {
			for _, t := range rule.spec.Targets {
				r.join(rule, &all, operation{pattern: parsePattern(t.TargetResourceName), app: rule.app, settings: settingsOf(p)})
			}
		}
		r.findings = append(r.findings, rule.Findings...)
	}
	return all
}

// join adds a rule to those for the same requests of the same app.
func (r *reader) join(rule *sergoRule, all *[]operation, o operation) {
	for i := range *all {
		own := &(*all)[i]
		if own.pattern.text != o.pattern.text || own.app != o.app {
			continue
		}
		joined, ok := joined(own.settings.over(resiliency.Policy{}), o.settings.over(resiliency.Policy{}))
		if !ok {
			rule.Fail(rule.spec.Line, rule.spec.Path, twoBreakers)
		}
		own.settings = settingsOf(joined)
		return
	}
	*all = append(*all, o)
}

// settingsOf says all that a policy of a rule does.
func settingsOf(p resiliency.Policy) settings {
	s := settings{name: p.Name, limits: p.Limits, fallback: p.Fallback}
	if p.MaxInFlight > 0 {
		s.concurrency = &concurrency{inFlight: &p.MaxInFlight}
	}
	if breaks(p.Breaker) {
		s.breaker = &p.Breaker
	}
	return s
}

// knows says whether a rule may refer to that.
func (r *reader) knows(rule *sergoRule, key sergoKey) bool {
	if key.namespace == rule.namespace || key.namespace != "" {
		return key.namespace == rule.namespace
	}
	_, own := r.sergo[sergoKey{rule.namespace, key.kind, key.name}]
	return !own
}

// strategy finds what a rule refers to.
func (r *reader) strategy(rule *sergoRule, ref sergoReference) *sergoStrategy {
	var names []string
	var found []*sergoStrategy
	var kinds []string
	for key, s := range r.sergo {
		if key.kind == actionKind || !r.knows(rule, key) || ref.Kind != "" && key.kind != ref.Kind {
			continue
		}
		names = append(names, key.name)
		if key.name == ref.Name {
			found, kinds = append(found, s), append(kinds, key.kind)
		}
	}
	slices.Sort(kinds)
	switch {
	case ref.Name == "":
	case len(found) == 0:
		f := manifest.Unknown(fmt.Sprintf("there is no strategy %q", ref.Name), ref.Name, names)
		f.Line, f.Key = ref.Line, ref.Path+".name"
		rule.Add(f)
	case len(found) > 1:
		rule.Fail(ref.Line, ref.Path+".kind", "is missing: %q is the name of a %s", ref.Name, strings.Join(kinds, " and a "))
	default:
		return found[0]
	}
	return nil
}

// action makes what a rule refers to the answer of all that its strategies refuse.
func (r *reader) action(rule *sergoRule, a *sergoAction, p *resiliency.Policy) {
	s, ok := r.sergo[sergoKey{rule.namespace, actionKind, a.Text}]
	if !ok {
		s, ok = r.sergo[sergoKey{"", actionKind, a.Text}]
	}
	if !ok {
		var names []string
		for key := range r.sergo {
			if key.kind == actionKind && r.knows(rule, key) {
				names = append(names, key.name)
			}
		}
		f := manifest.Unknown(fmt.Sprintf("there is no %s %q", actionKind, a.Text), a.Text, names)
		f.Line, f.Key = a.Line, a.Path
		rule.Add(f)
		return
	}
	p.Fallback = s.answer
	limits := slices.Clone(p.Limits)
	for i := range limits {
		limits[i].Answer = s.answer
	}
	p.Limits = limits
}

// sergoAction names an action: by its name alone, or with its kind.
type sergoAction struct{ manifest.Name }

// sergoActionParts is its long form.
type sergoActionParts struct {
	Name string `yaml:"name,required" doc:"Name of the action."`
	Kind string `yaml:"kind" oneof:"HttpRequestFallbackAction" doc:"Its kind."`
}

// DecodeNode reads either form.
func (a *sergoAction) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	a.Where = manifest.Where{Line: n.Line, Path: path}
	if n.Kind != manifest.Mapping {
		a.Text, _ = text(d, n, path)
		return
	}
	var parts sergoActionParts
	o := d.Object(n, path)
	o.Into(&parts)
	o.Done()
	a.Text = parts.Name
}

// Schema describes both forms for editors.
func (*sergoAction) Schema() map[string]any {
	return map[string]any{"anyOf": []any{map[string]any{"type": "string"}, manifest.SchemaOf(sergoActionParts{})}}
}

// sergoDuration is a whole number with one of OpenSergo's units.
type sergoDuration time.Duration

var sergoUnits = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "min": time.Minute, "minute": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

const sergoDurationPattern = `^([0-9]{1,9})(ms|s|m|min|minute|h|d)$`

var sergoDurationForm = regexp.MustCompile(sergoDurationPattern)

// DecodeNode reads a duration like 500ms or 5min.
func (t *sergoDuration) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	s, ok := text(d, n, path)
	if !ok {
		return
	}
	part := sergoDurationForm.FindStringSubmatch(s)
	if part == nil {
		d.Fail(n.Line, path, "%q is not a duration of OpenSergo: write a whole number with one of ms, s, m, min, minute, h, d", s)
		return
	}
	count, _ := strconv.ParseInt(part[1], 10, 64)
	if count > int64(math.MaxInt64/sergoUnits[part[2]]) {
		d.Fail(n.Line, path, "%q is too long", s)
		return
	}
	*t = sergoDuration(time.Duration(count) * sergoUnits[part[2]])
}

// Schema describes the duration for editors.
func (*sergoDuration) Schema() map[string]any {
	return map[string]any{"type": "string", "pattern": sergoDurationPattern}
}

// sergoRatio is a percentage of more than zero.
type sergoRatio float64

// DecodeNode reads a ratio like 60%.
func (r *sergoRatio) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	s, ok := text(d, n, path)
	if !ok {
		return
	}
	share, err := manifest.ParseShare(s)
	if err != nil || !strings.HasSuffix(s, "%") || share == 0 {
		d.Fail(n.Line, path, "%q is not a percentage of more than zero, like 60%%", s)
		return
	}
	*r = sergoRatio(share)
}

// Schema describes the ratio for editors.
func (*sergoRatio) Schema() map[string]any {
	return map[string]any{"type": "string", "pattern": `^([1-9][0-9]?|100)%$`}
}
