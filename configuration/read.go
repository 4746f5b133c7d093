package configuration

import (
	"cmp"
	"errors"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/pipeline"
)

// Kind is what the documents are called.
const Kind = "Configuration"

// Settings are what the documents say, laid over each other and over Dapr's defaults.
type Settings struct {
	// Access is for the callers of the app; TrustDomain in it is the app's own.
	Access access.Rules
	// Allowed and Denied are parts of Dapr's API.
	Allowed, Denied []access.APIRule
	Tracing         Tracing
	// Metrics says whether metrics are served, and Measuring how those with Dapr's names are.
	Metrics   bool
	Measuring Measuring
	Logging   APILogging
	// Secrets says which secrets the app may read.
	Secrets access.SecretScopes
	// DenyComponents are types of components that are not loaded, each as type or type/version.
	DenyComponents []string
	// Features are those that are on, by name.
	Features []string
	// Pipeline is the middleware of Dapr's HTTP API, AppPipeline that before an HTTP app.
	Pipeline, AppPipeline []pipeline.Handler
}

// Tracing is which calls are traced and where the traces go.
type Tracing struct {
	// Sampled says whether a document sets the rate, and Rate what it is: 0 to 1, 0 for no spans at all.
	Sampled bool
	Rate    float64
	// Stdout writes spans to the log. Zipkin is the URL of a collector, or "".
	Stdout bool
	Zipkin string
	OTLP   OTLP
}

// OTLP is an OpenTelemetry collector.
type OTLP struct {
	// Endpoint is host:port, or "" for none; Protocol is `grpc` or `http`.
	Endpoint, Protocol string
	Insecure           bool
	Headers            map[string]string
	Timeout            time.Duration // 0: the exporter's default
}

// APILogging is a line for each call of the API.
type APILogging struct{ Enabled, ObfuscateURLs, OmitHealthChecks bool }

// HotReload is the feature of following changed files.
const HotReload = "HotReload"

// defaultFeatures are on unless a document turns them off.
var defaultFeatures = []string{HotReload, "WorkflowsRemoteActivityReminder"}

// defaultRate is how many traces Dapr keeps when nobody says.
const defaultRate = 1e-4

// Read makes settings of documents, in their order. Settings are nil when there is an error among the findings.
func Read(docs []manifest.Raw) (*Settings, []manifest.Finding) {
	var merged spec
	var findings []manifest.Finding
	for _, raw := range docs {
		findings = append(findings, document(raw, &merged)...)
	}
	manifest.SortFindings(findings)
	if slices.ContainsFunc(findings, func(f manifest.Finding) bool { return f.Severity == manifest.Error }) {
		return nil, findings
	}
	return merged.settings(), findings
}

// document reads one and lays it over merged.
func document(raw manifest.Raw, merged *spec) []manifest.Finding {
	d := &manifest.Document{File: raw.Source.File}
	root, err := manifest.Parse(manifest.Chunk{Line: raw.Source.Line, Text: []byte(os.ExpandEnv(string(raw.YAML)))})
	var syntax *manifest.SyntaxError
	if errors.As(err, &syntax) {
		d.Fail(syntax.Line, "", "%s", syntax.Message)
		return d.Findings
	}
	o := d.Object(root, "")
	o.Str("apiVersion")
	o.Str("kind")
	manifest.Identity(o)
	body := o.Child("spec")
	var own spec
	body.Into(&own)
	body.Done()
	o.Ignored = append(o.Ignored, "status")
	o.Done()
	check(d, &own)
	unused(d, body)
	(&manifest.Document{}).Object(body.Node, "spec").Into(merged)
	return d.Findings
}

// unused names in one warning what is there and has no effect.
func unused(d *manifest.Document, body *manifest.Object) {
	var names []string
	for _, key := range []string{"mtls", "nameResolution", "wasm", "workflow"} {
		if body.Get(key) != nil {
			names = append(names, key)
		}
	}
	if len(names) > 0 {
		d.Add(manifest.Finding{
			Line: body.Node.Line, Key: "spec", Severity: manifest.Warning, Message: "has no effect in " + strings.Join(names, ", "),
		})
	}
}

// check reports what cannot be, each by itself.
func check(d *manifest.Document, s *spec) {
	action := func(at manifest.Where, key, text string) {
		if text != "" && !strings.EqualFold(text, access.Allow) && !strings.EqualFold(text, access.Deny) {
			d.Fail(at.Line, at.Path+"."+key, "%q is neither allow nor deny", text)
		}
	}
	if s.AccessControl.DefaultAction != nil {
		action(s.AccessControl.Where, "defaultAction", *s.AccessControl.DefaultAction)
	}
	for _, p := range s.AccessControl.Policies {
		action(p.Where, "defaultAction", p.DefaultAction)
		for _, o := range p.Operations {
			action(o.Where, "action", o.Action)
			for _, verb := range o.HTTPVerb {
				if verb != strings.ToUpper(verb) {
					d.Fail(o.Line, o.Path+".httpVerb", "%q is no verb: write %s", verb, strings.ToUpper(verb))
				}
			}
		}
	}
	for _, rules := range [][]apiRuleSpec{s.API.Allowed, s.API.Denied} {
		for _, r := range rules {
			if !strings.EqualFold(r.Protocol, "http") && r.Protocol != "grpc" {
				d.Fail(r.Line, r.Path+".protocol", "%q is neither http nor grpc", r.Protocol)
			}
		}
	}
	checkTracing(d, &s.Tracing)
	for _, p := range []pipelineSpec{s.HTTPPipeline, s.AppHTTPPipeline} {
		for _, h := range p.Handlers {
			if !strings.HasPrefix(h.Type, "middleware.http.") {
				d.Fail(h.Line, h.Path+".type", "%q is no type of HTTP middleware: those begin with middleware.http.", h.Type)
			}
		}
	}
	checkMetrics(d, &s.Metric)
	checkMetrics(d, &s.Metrics)
	stores := map[string]bool{}
	for _, scope := range s.Secrets.Scopes {
		if stores[scope.StoreName] {
			d.Fail(scope.Line, scope.Path+".storeName", "%q is given twice", scope.StoreName)
		}
		stores[scope.StoreName] = true
		action(scope.Where, "defaultAccess", scope.DefaultAccess)
	}
}

func checkTracing(d *manifest.Document, t *tracingSpec) {
	if t.SamplingRate.Text != "" {
		if rate, err := strconv.ParseFloat(t.SamplingRate.Text, 64); err != nil || !(rate >= 0 && rate <= 1) {
			d.Fail(t.SamplingRate.Line, t.SamplingRate.Path, "%q is no number from 0 to 1", t.SamplingRate.Text)
		}
	}
	if address := t.Zipkin.EndpointAddress; address != "" {
		if u, err := url.Parse(address); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			d.Fail(t.Zipkin.Line, t.Zipkin.Path+".endpointAddress", "%q is no URL, such as http://zipkin:9411/api/v2/spans", address)
		}
	}
	for _, field := range t.Otel.Headers {
		if name, _, ok := strings.Cut(field, "="); !ok || name == "" {
			d.Fail(t.Otel.Line, t.Otel.Path+".headers", "must be written as name=value")
		}
	}
	if t.Otel.EndpointAddress != "" && t.Otel.Protocol == "" {
		d.Add(manifest.Finding{
			Line: t.Otel.Line, Key: t.Otel.Path + ".protocol", Severity: manifest.Warning,
			Message: "is missing, and nothing is sent without it: write grpc or http",
		})
	}
}

// settings is what a merged spec says.
func (s *spec) settings() *Settings {
	all := &Settings{
		Access:  access.Rules{DefaultAction: access.Allow, TrustDomain: access.PublicDomain},
		Metrics: true, Logging: APILogging(s.Logging.APILogging), DenyComponents: s.Components.Deny, Features: s.features(),
	}
	if a := s.AccessControl.DefaultAction; a != nil {
		all.Access.DefaultAction = *a
	}
	if domain := s.AccessControl.TrustDomain; domain != nil {
		all.Access.TrustDomain = cmp.Or(*domain, access.PublicDomain)
	}
	for _, p := range s.AccessControl.Policies {
		policy := access.Policy{App: p.AppID, Namespace: p.Namespace, TrustDomain: p.TrustDomain, DefaultAction: p.DefaultAction}
		for _, o := range p.Operations {
			policy.Operations = append(policy.Operations, access.Operation{Name: o.Name, Verbs: o.HTTPVerb, Action: o.Action})
		}
		all.Access.Policies = append(all.Access.Policies, policy)
	}
	all.Allowed, all.Denied = apiRules(s.API.Allowed), apiRules(s.API.Denied)
	all.Metrics, all.Measuring = s.Metric.over(&s.Metrics).settings()
	all.Tracing = s.Tracing.tracing()
	for _, scope := range s.Secrets.Scopes {
		if all.Secrets == nil {
			all.Secrets = access.SecretScopes{}
		}
		all.Secrets[scope.StoreName] = access.SecretScope{DefaultAccess: scope.DefaultAccess, Allowed: scope.AllowedSecrets, Denied: scope.DeniedSecrets}
	}
	all.Pipeline, all.AppPipeline = s.HTTPPipeline.handlers(), s.AppHTTPPipeline.handlers()
	return all
}

func (p *pipelineSpec) handlers() (all []pipeline.Handler) {
	for _, h := range p.Handlers {
		all = append(all, pipeline.Handler{Name: h.Name, Type: h.Type, Version: h.Version})
	}
	return all
}

func apiRules(specs []apiRuleSpec) (rules []access.APIRule) {
	for _, r := range specs {
		rules = append(rules, access.APIRule{Name: r.Name, Version: r.Version, Protocol: r.Protocol})
	}
	return rules
}

func (t *tracingSpec) tracing() Tracing {
	all := Tracing{Rate: defaultRate, Stdout: t.Stdout, Zipkin: t.Zipkin.EndpointAddress}
	if t.SamplingRate.Text != "" {
		all.Sampled = true
		all.Rate, _ = strconv.ParseFloat(t.SamplingRate.Text, 64) // checked
	}
	if t.Otel.EndpointAddress == "" || t.Otel.Protocol == "" {
		return all
	}
	all.OTLP = OTLP{
		Endpoint: t.Otel.EndpointAddress, Protocol: t.Otel.Protocol, Insecure: t.Otel.IsSecure != nil && !*t.Otel.IsSecure,
		Headers: make(map[string]string, len(t.Otel.Headers)),
	}
	for _, field := range t.Otel.Headers {
		name, value, _ := strings.Cut(field, "=")
		all.OTLP.Headers[name] = value
	}
	if t.Otel.Timeout != nil {
		all.OTLP.Timeout = *t.Otel.Timeout
	}
	return all
}

// features are those that are on. One that a document names is on when it says so, whatever the default is.
func (s *spec) features() []string {
	var on []string
	for _, f := range s.Features {
		if f.Enabled && !slices.Contains(on, f.Name) {
			on = append(on, f.Name)
		}
	}
	for _, name := range defaultFeatures {
		named := slices.ContainsFunc(s.Features, func(f featureSpec) bool { return f.Name == name })
		if !named {
			on = append(on, name)
		}
	}
	slices.Sort(on)
	return on
}
