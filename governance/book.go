package governance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/resiliency"
)

// The policies that Dapr has built in. Of those only the first guards something here.
const (
	builtInService  = "DaprBuiltInServiceRetries"
	builtInInit     = "DaprBuiltInInitializationRetries"
	builtInActor    = "DaprBuiltInActorRetries"
	builtInReminder = "DaprBuiltInActorReminderRetries"
	builtInNotFound = "DaprBuiltInActorNotFoundRetries"
	minBuiltIn      = 3
)

// book holds the policies of all documents by name. Of two with the same name the later counts, as in Dapr.
type book struct {
	timeouts    map[string]timeoutSpec
	retries     map[string]retrySpec
	breakers    map[string]breakerSpec
	limits      map[string]rateLimitSpec
	concurrency map[string]concurrencySpec
	protections map[string]protectionSpec
	hedges      map[string]hedgeSpec
	fallbacks   map[string]fallbackSpec
	wrong       map[string]bool // what is reported already, of policies by themselves
}

func newBook() *book {
	return &book{
		timeouts: map[string]timeoutSpec{}, retries: map[string]retrySpec{}, breakers: map[string]breakerSpec{},
		limits: map[string]rateLimitSpec{}, concurrency: map[string]concurrencySpec{}, protections: map[string]protectionSpec{},
		hedges: map[string]hedgeSpec{}, fallbacks: map[string]fallbackSpec{}, wrong: map[string]bool{},
	}
}

func (b *book) add(doc *resiliencyDocument) {
	p := &doc.spec.Policies
	enter(doc, b.timeouts, "timeouts", p.Timeouts)
	enter(doc, b.retries, "retries", p.Retries)
	enter(doc, b.breakers, "circuitBreakers", p.CircuitBreakers)
	enter(doc, b.limits, "rateLimits", p.RateLimits)
	enter(doc, b.concurrency, "concurrency", p.Concurrency)
	enter(doc, b.protections, "protections", p.Protections)
	enter(doc, b.hedges, "hedges", p.Hedges)
	enter(doc, b.fallbacks, "fallbacks", p.Fallbacks)
}

// placed is a policy that knows where it stands.
type placed interface{ place() manifest.Where }

func (t timeoutSpec) place() manifest.Where     { return t.Where }
func (s retrySpec) place() manifest.Where       { return s.Where }
func (s breakerSpec) place() manifest.Where     { return s.Where }
func (s rateLimitSpec) place() manifest.Where   { return s.Where }
func (s concurrencySpec) place() manifest.Where { return s.Where }
func (s protectionSpec) place() manifest.Where  { return s.Where }
func (s hedgeSpec) place() manifest.Where       { return s.Where }
func (s fallbackSpec) place() manifest.Where    { return s.Where }

func enter[T placed](doc *resiliencyDocument, into map[string]T, part string, from map[string]T) {
	for _, name := range sorted(from) {
		if _, twice := into[name]; twice {
			doc.warn(from[name].place(), "", fmt.Sprintf("replaces another of that name in policies.%s, as in Dapr", part))
		}
		into[name] = from[name]
	}
}

// refer finds the policy that a target names.
func refer[T any](doc *resiliencyDocument, in map[string]T, part string, name manifest.Name) (T, bool) {
	policy, ok := in[name.Text]
	if !ok && name.Text != "" {
		f := manifest.Unknown(fmt.Sprintf("there is no %q in policies.%s", name.Text, part), name.Text, sorted(in))
		f.Line, f.Key = name.Line, name.Path
		doc.Add(f)
	}
	return policy, ok
}

// target resolves what a document says about one; nil when it says nothing.
func (b *book) target(doc *resiliencyDocument, what string, set *policySet) *target {
	t := new(target)
	if set == nil {
		return t // a component whose other direction is named has no defaults in this one, as in Dapr
	}
	t.named = true
	t.settings = b.settings(doc, what, &set.policyNames, set.Where)
	for _, name := range sorted(set.Operations) {
		op := set.Operations[name]
		t.operations = append(t.operations, operation{
			pattern:  parsePattern(name),
			settings: b.settings(doc, what+"."+name, &op.policyNames, op.Where),
		})
	}
	slices.SortFunc(t.operations, func(a, b operation) int { return a.pattern.compare(b.pattern) })
	return t
}

// settings resolves the names that a target gives and reports what cannot be together.
func (b *book) settings(doc *resiliencyDocument, what string, names *policyNames, at manifest.Where) settings {
	s := settings{name: doc.name + "/" + what, mode: resiliency.FailureMode(names.FailureMode)}
	if t, ok := refer(doc, b.timeouts, "timeouts", names.Timeout); ok {
		s.timeouts = ptr(t.settings())
	}
	if r, ok := b.retry(doc, names.Retry); ok {
		s.retries = ptr(r)
	}
	if s.retries == nil && (s.mode == resiliency.Failover || s.mode == resiliency.Failcache) {
		s.retries = ptr(modeRetries())
	}
	if c, ok := refer(doc, b.breakers, "circuitBreakers", names.CircuitBreaker); ok {
		s.breaker = ptr(c.settings())
	}
	limits := names.RateLimits
	if names.RateLimit.Text != "" {
		limits = append([]manifest.Name{names.RateLimit}, limits...)
	}
	for i, name := range limits {
		if slices.ContainsFunc(limits[:i], func(other manifest.Name) bool { return other.Text == name.Text }) {
			doc.Fail(name.Line, name.Path, "names %q a second time", name.Text)
			continue
		}
		if l, ok := refer(doc, b.limits, "rateLimits", name); ok {
			limit := l.settings(name.Text)
			if f, ok := refer(doc, b.fallbacks, "fallbacks", l.Answer); ok {
				limit.Answer = f.settings()
			}
			s.limits = append(s.limits, limit)
		}
	}
	if c, ok := refer(doc, b.concurrency, "concurrency", names.Concurrency); ok {
		s.concurrency = ptr(c.settings())
	}
	if p, ok := refer(doc, b.protections, "protections", names.Protection); ok {
		s.protection = ptr(p.settings())
	}
	if h, ok := refer(doc, b.hedges, "hedges", names.Hedge); ok {
		s.hedge = ptr(h.settings())
	}
	if f, ok := refer(doc, b.fallbacks, "fallbacks", names.Fallback); ok {
		s.fallback = f.settings()
	}
	b.validate(doc, at, &s)
	return s
}

// retry resolves a name of policies.retries, those that Dapr has built in among them.
func (b *book) retry(doc *resiliencyDocument, name manifest.Name) (retries, bool) {
	if own, ok := b.retries[name.Text]; ok {
		return own.settings(), true
	}
	if built, ok := builtInRetries[name.Text]; ok {
		return built.settings(), true
	}
	_, _ = refer(doc, b.retries, "retries", name)
	return retries{}, false
}

// builtInRetries are the policies that Dapr has without a document.
var builtInRetries = map[string]retrySpec{
	builtInService:  {MaxRetries: ptr(3), Duration: ptr(duration(time.Second))},
	builtInActor:    {MaxRetries: ptr(3), Duration: ptr(duration(time.Second))},
	builtInNotFound: {MaxRetries: ptr(5), Duration: ptr(duration(time.Second))},
	builtInReminder: {Policy: "exponential"},
	builtInInit:     {Policy: "exponential", MaxRetries: ptr(3), MaxInterval: ptr(duration(time.Second))},
}

// checkAnswers reports answers that nobody would get: of what components do only reads of state are answered in place of a
// failure, and from the past.
func (b *book) checkAnswers(doc *resiliencyDocument, set *policySet, outbound bool) {
	if set == nil {
		return
	}
	const why = "which has no effect here: only reads of state are answered in place of a failure, with lastGood"
	given := func(name manifest.Name) bool {
		f, known := b.fallbacks[name.Text]
		return !known || outbound && f.LastGood != nil // what is not known is said elsewhere
	}
	check := func(names *policyNames) {
		if name := names.Fallback; name.Text != "" && !given(name) {
			doc.Fail(name.Line, name.Path, "names %q, %s", name.Text, why)
		}
		for _, name := range append([]manifest.Name{names.RateLimit}, names.RateLimits...) {
			if answer := b.limits[name.Text].Answer; answer.Text != "" && !given(answer) {
				doc.warn(name.Where, "", fmt.Sprintf("names %q, whose answer is %q, %s", name.Text, answer.Text, why))
			}
		}
	}
	check(&set.policyNames)
	for _, name := range sorted(set.Operations) {
		check(ptr(set.Operations[name].policyNames))
	}
}

// checkInstances reports attempts at other instances where none are chosen: a component or the local app is one target, and for
// rules of operations the target's own lane chooses.
func (b *book) checkInstances(doc *resiliencyDocument, set *policySet, chosen bool) {
	if set == nil {
		return
	}
	check := func(names *policyNames, at manifest.Where, why string) {
		if names.FailureMode == string(resiliency.Failover) {
			doc.Fail(at.Line, at.Path+".failureMode", "failover has no effect here: %s", why)
		}
		if b.retries[names.Retry.Text].Elsewhere {
			doc.Fail(names.Retry.Line, names.Retry.Path, "names %q, which tries only elsewhere and has no effect here: %s", names.Retry.Text, why)
		}
	}
	one, all := "there is no other instance", "instances are chosen for the whole target: write it there"
	if !chosen {
		check(&set.policyNames, set.Where, one)
		all = one
	}
	for _, name := range sorted(set.Operations) {
		op := set.Operations[name]
		check(&op.policyNames, op.Where, all)
	}
}

// validate reports what a lane would not take.
func (b *book) validate(doc *resiliencyDocument, at manifest.Where, s *settings) {
	wrong := slices.DeleteFunc(wrongs(s), func(text string) bool { return b.wrong[text] })
	if len(wrong) > 0 {
		doc.Fail(at.Line, at.Path, "names policies that cannot be together: %s", strings.Join(wrong, "; "))
	}
}

// wrongs is what a lane would not take of settings.
func wrongs(s *settings) []string {
	p := s.over(resiliency.Policy{})
	if p.MaxInFlight == 0 && p.MaxQueue > 0 && s.concurrency.inFlight == nil {
		p.MaxInFlight = 1 // the target's own default will stand there
	}
	err := p.Validate()
	if err == nil {
		return nil
	}
	var f *fault.Error
	text := err.Error()
	if errors.As(err, &f) && f.Err != nil {
		text = f.Err.Error()
	}
	return strings.Split(text, "\n")
}

// alone reports what a lane would not take of a policy, whatever stands beside it, unless something is said of it already.
func (b *book) alone(doc *resiliencyDocument, at manifest.Where, s settings) {
	wrong := wrongs(&s)
	for _, text := range wrong {
		b.wrong[text] = true
	}
	if wrong != nil && !doc.failed(at.Path) {
		doc.Fail(at.Line, at.Path, "%s", strings.Join(wrong, "; "))
	}
}

// failed says whether there is an error at a path or below it.
func (doc *resiliencyDocument) failed(path string) bool {
	return slices.ContainsFunc(doc.Findings, func(f manifest.Finding) bool {
		return f.Severity == manifest.Error && (f.Key == path || strings.HasPrefix(f.Key, path+"."))
	})
}

// check reports what is wrong with the policies of a document by themselves. Targets that refer to one need not say it again.
func (b *book) check(doc *resiliencyDocument) {
	p := &doc.spec.Policies
	for _, name := range sorted(p.Timeouts) {
		b.alone(doc, p.Timeouts[name].Where, settings{timeouts: ptr(p.Timeouts[name].settings())})
	}
	for _, name := range sorted(p.Retries) {
		b.alone(doc, p.Retries[name].Where, settings{retries: ptr(p.Retries[name].settings())})
	}
	for _, name := range sorted(p.CircuitBreakers) {
		b.alone(doc, p.CircuitBreakers[name].Where, settings{breaker: ptr(p.CircuitBreakers[name].settings())})
	}
	for _, name := range sorted(p.RateLimits) {
		b.alone(doc, p.RateLimits[name].Where, settings{limits: []resiliency.RateLimit{p.RateLimits[name].settings(name)}})
	}
	for _, name := range sorted(p.Concurrency) {
		b.alone(doc, p.Concurrency[name].Where, settings{concurrency: ptr(p.Concurrency[name].settings())})
	}
	for _, name := range sorted(p.Protections) {
		b.alone(doc, p.Protections[name].Where, settings{protection: ptr(p.Protections[name].settings())})
	}
	for _, name := range sorted(p.Hedges) {
		b.alone(doc, p.Hedges[name].Where, settings{hedge: ptr(p.Hedges[name].settings())})
	}
	for _, name := range sorted(p.Fallbacks) {
		b.alone(doc, p.Fallbacks[name].Where, settings{fallback: p.Fallbacks[name].settings()})
	}
}

// defaults are the policies that hold for a target that no document names: those with Dapr's names for defaults, the
// first of levels that exists. It is nil when there are none.
func (b *book) defaults(levels ...string) *settings {
	levels = append(levels, "")
	var s settings
	if name, ok := first(b.timeouts, "Default%sTimeoutPolicy", levels); ok {
		s.name, s.timeouts = name, ptr(b.timeouts[name].settings())
	}
	if name, ok := first(b.breakers, "Default%sCircuitBreakerPolicy", levels); ok {
		s.name, s.breaker = name, ptr(b.breakers[name].settings())
	}
	if name, ok := first(b.retries, "Default%sRetryPolicy", levels); ok {
		s.name, s.retries = name, ptr(b.retries[name].settings())
	}
	return &s
}

// builtIn is the retry policy of apps that nobody names, when a document sets it.
func (b *book) builtIn() (resiliency.Retry, bool) {
	spec, ok := b.retries[builtInService]
	if !ok {
		return resiliency.Retry{}, false
	}
	r := spec.settings().Retry
	if r.Max < minBuiltIn {
		r.Max = minBuiltIn
	}
	r.NonIdempotent = spec.NonIdempotent != nil && *spec.NonIdempotent
	if spec.Matching == nil {
		r.On = resiliency.Match{}
	}
	return r, true
}

func first[T any](in map[string]T, template string, levels []string) (string, bool) {
	for _, level := range levels {
		name := fmt.Sprintf(template, level)
		if _, ok := in[name]; ok {
			return name, true
		}
	}
	return "", false
}

func ptr[T any](v T) *T { return &v }
