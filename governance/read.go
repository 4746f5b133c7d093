package governance

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
)

// Kinds are the documents that this package reads, and the API versions of each.
func Kinds() map[string][]string {
	kinds := map[string][]string{"Resiliency": {daprVersion, sidecastVersion}}
	for kind := range sergoKinds {
		kinds[kind] = []string{sergoVersion}
	}
	return kinds
}

// The API versions.
const (
	daprVersion     = "dapr.io/v1alpha1"
	sidecastVersion = "sidecast.dev/v1"
	sergoVersion    = "fault-tolerance.opensergo.io/v1alpha1"
)

// Who is the sidecar that rules are read for. The zero Who sees every document, whomever it is for.
type Who struct{ AppID, Namespace string }

// Read makes rules of documents. All documents are checked; those of other namespaces and, by their scopes or selectors,
// of other apps are then left out. Findings are errors and warnings in the order of files and lines; rules are nil when
// there is an error among them. Operations of components can be told to be misspelt as far as the components are known.
func Read(docs []manifest.Raw, who Who, known ...Component) (*Rules, []manifest.Finding) {
	r := &reader{who: who, known: make(map[string][]Component), book: newBook(), sergo: make(map[sergoKey]*sergoStrategy)}
	for _, c := range known {
		r.known[c.Name] = append(r.known[c.Name], c)
	}
	for _, raw := range docs {
		r.document(raw)
	}
	rules := r.resolve()
	manifest.SortFindings(r.findings)
	if slices.ContainsFunc(r.findings, func(f manifest.Finding) bool { return f.Severity == manifest.Error }) {
		return nil, r.findings
	}
	return rules, r.findings
}

// Error joins those findings that are errors; nil when there are none.
func Error(findings []manifest.Finding) error { return manifest.AsError(findings) }

// reader gathers documents and what is wrong with them.
type reader struct {
	who      Who
	known    map[string][]Component // by name, which those of several apps may have in common
	book     *book
	docs     []resiliencyDocument // that the sidecar sees
	sergo    map[sergoKey]*sergoStrategy
	rules    []sergoRule
	findings []manifest.Finding
}

// resiliencyDocument is one document of kind Resiliency.
type resiliencyDocument struct {
	*manifest.Document
	name string
	spec resiliencySpec
}

func (r *reader) document(raw manifest.Raw) {
	d := &manifest.Document{File: raw.Source.File}
	defer func() { r.findings = append(r.findings, d.Findings...) }()
	root, err := manifest.Parse(manifest.Chunk{Line: raw.Source.Line, Text: raw.YAML})
	var syntax *manifest.SyntaxError
	if errors.As(err, &syntax) {
		d.Fail(syntax.Line, "", "%s", syntax.Message)
		return
	}
	o := d.Object(root, "")
	o.Str("apiVersion")
	if kind := o.Str("kind"); kind != "Resiliency" {
		r.openSergo(d, o, kind)
		return
	}
	name, namespace := manifest.Identity(o)
	scopes := o.Strs("scopes")
	doc := resiliencyDocument{Document: d, name: name}
	spec := o.Child("spec")
	spec.Into(&doc.spec)
	spec.Done()
	o.Done()
	doc.check()
	r.book.check(&doc)
	if r.sees(namespace) && (r.who.AppID == "" || len(scopes) == 0 || slices.Contains(scopes, r.who.AppID)) {
		doc.Document = &manifest.Document{File: d.File} // what is found from here on is about references
		r.docs = append(r.docs, doc)
		r.book.add(&doc)
	}
}

// sees says whether a document of that namespace is for the sidecar.
func (r *reader) sees(namespace string) bool {
	return namespace == "" || r.who.Namespace == "" || namespace == r.who.Namespace
}

// resolve makes rules of the documents that the sidecar sees.
func (r *reader) resolve() *Rules {
	rules := &Rules{apps: make(map[string]*target), components: make(map[string]componentRules), book: r.book, documents: make(map[string]int)}
	for i := range r.docs {
		doc := &r.docs[i]
		rules.documents[doc.name]++
		t := &doc.spec.Targets
		for _, id := range sorted(t.Apps) {
			set := t.Apps[id]
			if set.CircuitBreakerCacheSize > 0 {
				doc.warn(set.Where, "circuitBreakerCacheSize", "has no effect: one breaker guards all methods of an app")
			}
			r.book.checkInstances(doc, &set.policySet, true)
			rules.apps[id] = r.book.target(doc, "apps."+id, &set.policySet)
		}
		for _, name := range sorted(t.Components) {
			c := t.Components[name]
			doc.checkOperations(c.Outbound, r.known[name])
			r.book.checkAnswers(doc, c.Outbound, true)
			r.book.checkAnswers(doc, c.Inbound, false)
			r.book.checkInstances(doc, c.Outbound, false)
			r.book.checkInstances(doc, c.Inbound, false)
			rules.components[name] = componentRules{
				outbound: r.book.target(doc, "components."+name+".outbound", c.Outbound),
				inbound:  r.book.target(doc, "components."+name+".inbound", c.Inbound),
			}
			if short := doc.bothWays(c); short != nil {
				r.book.checkInstances(doc, short, false)
				rules.components[name] = rules.components[name].or(c, r.book.target(doc, "components."+name, short))
			}
		}
		if t.App != nil {
			r.book.checkInstances(doc, t.App, false)
			rules.local = r.book.target(doc, "app", t.App)
		}
		doc.checkActors(r.book)
		r.findings = append(r.findings, doc.Findings...)
	}
	rules.sergo = r.resolveRules()
	return rules
}

// bothWays is what stands beside the directions of a component, for those that are left out; nil when nothing does.
func (doc *resiliencyDocument) bothWays(c componentTarget) *policySet {
	short := policyNames{Timeout: c.Timeout, Retry: c.Retry, CircuitBreaker: c.CircuitBreaker}
	if short.Timeout.Text+short.Retry.Text+short.CircuitBreaker.Text == "" {
		return nil
	}
	doc.warn(c.Where, "", "has policies where daprd itself reads none: write them under outbound or inbound")
	return &policySet{Where: c.Where, policyNames: short}
}

// or puts t in place of the directions that c leaves out.
func (r componentRules) or(c componentTarget, t *target) componentRules {
	if c.Outbound == nil {
		r.outbound = t
	}
	if c.Inbound == nil {
		r.inbound = t
	}
	return r
}

// check reports what is wrong with the policies of a document, each by itself.
func (doc *resiliencyDocument) check() {
	p := &doc.spec.Policies
	for _, name := range sorted(p.Retries) {
		doc.checkRetry(name, p.Retries[name])
	}
	for _, name := range sorted(p.CircuitBreakers) {
		doc.checkBreaker(p.CircuitBreakers[name])
	}
	for _, name := range sorted(p.RateLimits) {
		l := p.RateLimits[name]
		switch {
		case l.By == "header" && l.Header == "":
			doc.Fail(l.Line, l.Path+".header", "is missing: the header whose values have a limit each")
		case l.By != "header" && l.Header != "":
			doc.Fail(l.Line, l.Path+".header", "has no effect without by: header")
		case l.By == "" && l.MaxKeys > 0:
			doc.Fail(l.Line, l.Path+".maxKeys", "has no effect without by")
		case l.Burst > 0 && l.Algorithm != "" && l.Algorithm != "token-bucket" && l.Algorithm != "leaky-bucket":
			doc.Fail(l.Line, l.Path+".burst", "has no effect on algorithm %s", l.Algorithm)
		}
	}
	for _, name := range sorted(p.Concurrency) {
		c := p.Concurrency[name]
		if q := c.Queue; q != nil && q.Interval > 0 && q.Target == 0 {
			doc.Fail(c.Line, c.Path+".queue.interval", "has no effect without target")
		}
		if q := c.Queue; q != nil && strings.HasPrefix(q.Full, "shed-") && c.MaxQueue != nil && *c.MaxQueue == 0 {
			doc.Fail(c.Line, c.Path+".queue.full", "has no effect with maxQueue 0: nobody waits who could be shed")
		}
		switch a := c.Adaptive; {
		case a == nil:
		case a.Max > 0 && a.Min > a.Max:
			doc.Fail(c.Line, c.Path+".adaptive.min", "%d is more than max, %d", a.Min, a.Max)
		case c.MaxInFlight != nil && *c.MaxInFlight > 0 && a.Min > *c.MaxInFlight:
			doc.Fail(c.Line, c.Path+".adaptive.min", "%d is more than maxInFlight, %d", a.Min, *c.MaxInFlight)
		}
	}
	for _, name := range sorted(p.Protections) {
		if t := p.Protections[name]; t.CPU == 0 && t.Memory == 0 && t.QueueDelay == 0 {
			doc.Fail(t.Line, t.Path, "says nothing: write cpu, memory or queueDelay")
		}
	}
	for _, name := range sorted(p.Fallbacks) {
		doc.checkFallback(p.Fallbacks[name])
	}
}

func (doc *resiliencyDocument) checkRetry(name string, s retrySpec) {
	growing := s.Policy != "" && s.Policy != "constant"
	switch {
	case growing && s.Duration != nil:
		doc.warn(s.Where, "duration", "has no effect on policy "+s.Policy+", as in Dapr: write initialInterval")
	case !growing && s.MaxInterval != nil:
		doc.warn(s.Where, "maxInterval", "has no effect on policy constant")
	case !growing && s.InitialInterval != nil:
		doc.Fail(s.Line, s.Path+".initialInterval", "has no effect on policy constant: write duration")
	case !growing && s.Multiplier > 0:
		doc.Fail(s.Line, s.Path+".multiplier", "has no effect on policy constant")
	case growing && s.Policy != "exponential" && s.Jitter != nil:
		doc.Fail(s.Line, s.Path+".jitter", "has no effect on policy %s, which is random by itself", s.Policy)
	}
	if b := s.Budget; b != nil && b.Share == 0 && b.PerSecond == 0 && !doc.failed(s.Path) {
		doc.Fail(s.Line, s.Path+".budget", "says nothing: write share or perSecond; who wants no retries writes maxRetries: 0")
	}
	doc.checkMatch(s.Where, "matching", s.Matching)
	switch name {
	case builtInService:
		if s.MaxRetries != nil && *s.MaxRetries < minBuiltIn {
			doc.warn(s.Where, "maxRetries", fmt.Sprintf("is taken as %d, as in Dapr: %s may not be less", minBuiltIn, name))
		}
	case builtInInit, builtInActor, builtInReminder:
		doc.warn(s.Where, "", "is read for Dapr's sake and has no effect")
	case builtInNotFound:
		doc.warn(s.Where, "", "is protected in Dapr and has no effect")
	}
}

func (doc *resiliencyDocument) checkBreaker(b breakerSpec) {
	ratio := b.FailureRatio > 0 || b.SlowRatio > 0
	switch {
	case doc.failed(b.Path): // what is missing may be what is wrong
	case b.SlowRatio > 0 && b.SlowAfter == 0:
		doc.Fail(b.Line, b.Path+".slowAfter", "is missing: how long a call must take to be slow")
	case b.SlowAfter > 0 && b.SlowRatio == 0:
		doc.Fail(b.Line, b.Path+".slowAfter", "has no effect without slowRatio")
	case b.Window > 0 && b.WindowCalls > 0:
		doc.Fail(b.Line, b.Path+".windowCalls", "contradicts window: write one of them")
	case !ratio && (b.Window > 0 || b.WindowCalls > 0 || b.MinCalls > 0):
		doc.Fail(b.Line, b.Path, "has window, windowCalls or minCalls, which have no effect without failureRatio or slowRatio")
	}
}

// noField is what is wrong with a header field that is none, and with one that only the sender of an answer can know.
const noField = "is no header field of HTTP that an answer may be given"

// framing are the fields that say how a message is sent.
var framing = []string{"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

// isField says whether HTTP can carry a field of an answer: a token and a text without control characters (RFC 9110 §5).
func isField(key, value string) bool {
	return key != "" && !slices.Contains(framing, strings.ToLower(key)) && !strings.ContainsFunc(key, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}) && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// noBody is what is wrong with a body of an answer that has none.
const noBody = "is not sent: an answer with status %d has no body"

func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusNotModified
}

func (doc *resiliencyDocument) checkFallback(f fallbackSpec) {
	given := 0
	for _, is := range []bool{f.Status > 0, f.App != "", f.LastGood != nil} {
		if is {
			given++
		}
	}
	switch {
	case given != 1:
		doc.Fail(f.Line, f.Path, "needs exactly one of status, app and lastGood")
	case f.Status == 0 && (f.Body != "" || f.Headers != nil):
		doc.Fail(f.Line, f.Path, "has headers or body, which need a status")
	case bodiless(f.Status) && f.Body != "":
		doc.Fail(f.Line, f.Path+".body", noBody, f.Status)
	}
	for _, key := range sorted(f.Headers) {
		if !isField(key, f.Headers[key]) {
			doc.Fail(f.Line, f.Path+".headers."+key, noField)
		}
	}
	doc.checkMatch(f.Where, "on", f.On)
}

// checkMatch finds kinds and reasons that no error has.
func (doc *resiliencyDocument) checkMatch(at manifest.Where, key string, m *matchSpec) {
	if m == nil {
		return
	}
	var kinds, reasons []string
	for _, k := range fault.Kinds() {
		if k != fault.None {
			kinds = append(kinds, k.String())
		}
	}
	for _, e := range fault.Reasons() {
		reasons = append(reasons, string(e.Reason))
	}
	check := func(part string, words, valid []string) {
		for _, word := range words {
			if !slices.Contains(valid, word) {
				doc.Add(manifest.Finding{
					Line: at.Line, Key: at.Path + "." + key + "." + part, Severity: manifest.Error,
					Message: fmt.Sprintf("no error has %q; docs/reference/errors.md lists what there is", word), Suggestion: manifest.Nearest(word, valid),
				})
			}
		}
	}
	check("kinds", m.Kinds, kinds)
	check("reasons", m.Reasons, reasons)
}

// checkActors reads the targets of actors as Dapr would, and says that there are none.
func (doc *resiliencyDocument) checkActors(b *book) {
	for _, name := range sorted(doc.spec.Targets.Actors) {
		a := doc.spec.Targets.Actors[name]
		refer(doc, b.timeouts, "timeouts", a.Timeout)
		refer(doc, b.retries, "retries", a.Retry)
		refer(doc, b.breakers, "circuitBreakers", a.CircuitBreaker)
		if a.CircuitBreaker.Text != "" && a.CircuitBreakerScope == "" {
			doc.Fail(a.Line, a.Path+".circuitBreakerScope", "is missing: what has a breaker of its own")
		}
		doc.warn(a.Where, "", "has no effect: there are no actors yet")
	}
}

func (doc *resiliencyDocument) warn(at manifest.Where, key, message string) {
	if key != "" {
		key = "." + key
	}
	doc.Add(manifest.Finding{Line: at.Line, Key: at.Path + key, Severity: manifest.Warning, Message: message})
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
