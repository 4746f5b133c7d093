package configuration

import (
	"time"

	"github.com/sidecast/sidecast/manifest"
)

// spec is a document of kind Configuration, as of Dapr v1.18. What a tag calls unused has no effect here.
type spec struct {
	AccessControl   accessSpec     `yaml:"accessControl" doc:"Which apps may invoke which operations of this one."`
	API             apiSpec        `yaml:"api" doc:"Which parts of Dapr's API are served."`
	Tracing         tracingSpec    `yaml:"tracing" doc:"Which calls are traced and where the traces go."`
	Metric          metricSpec     `yaml:"metric" doc:"Which metrics are served."`
	Metrics         metricSpec     `yaml:"metrics" doc:"Counts before metric, key by key."`
	Logging         loggingSpec    `yaml:"logging" doc:"What is logged."`
	Components      componentsSpec `yaml:"components" doc:"Which types of components may not be used."`
	Features        []featureSpec  `yaml:"features" doc:"Features that are on or off."`
	HTTPPipeline    pipelineSpec   `yaml:"httpPipeline" doc:"Middleware that requests to Dapr's HTTP API pass."`
	AppHTTPPipeline pipelineSpec   `yaml:"appHttpPipeline" doc:"Middleware that requests to an HTTP app pass."`
	MTLS            mtlsSpec       `yaml:"mtls" doc:"Unused: the fabric knows its members."`
	Secrets         secretsSpec    `yaml:"secrets" doc:"Which secrets the app may read."`
	NameResolution  nameSpec       `yaml:"nameResolution" doc:"Unused: presence finds apps."`
	Wasm            wasmSpec       `yaml:"wasm" doc:"Unused: how WASM components are confined."`
	Workflow        workflowSpec   `yaml:"workflow" doc:"Unused: bounds of workflows."`
}

type accessSpec struct {
	manifest.Where
	DefaultAction *string      `yaml:"defaultAction" doc:"allow or deny, for callers that no policy is for; allow when left out."`
	TrustDomain   *string      `yaml:"trustDomain" doc:"The app's own trust domain; public when left out."`
	Policies      []policySpec `yaml:"policies" doc:"What holds for the callers of an app id."`
}

type policySpec struct {
	manifest.Where
	AppID         string          `yaml:"appId,required" doc:"The app id of the callers."`
	DefaultAction string          `yaml:"defaultAction" doc:"allow or deny, for operations that are not named."`
	TrustDomain   string          `yaml:"trustDomain,required" doc:"The trust domain of the callers."`
	Namespace     string          `yaml:"namespace,required" doc:"The namespace of the callers."`
	Operations    []operationSpec `yaml:"operations" doc:"What holds for single operations."`
}

type operationSpec struct {
	manifest.Where
	Name     string   `yaml:"name,required" doc:"The method or path; * stands for any text of a segment, /** for all that follow."`
	HTTPVerb []string `yaml:"httpVerb" doc:"HTTP verbs in upper case, or *; for HTTP apps."`
	Action   string   `yaml:"action,required" doc:"allow or deny."`
}

type apiSpec struct {
	Allowed []apiRuleSpec `yaml:"allowed" doc:"The only parts that are served, for each protocol that is named."`
	Denied  []apiRuleSpec `yaml:"denied" doc:"Parts that are not served."`
}

type apiRuleSpec struct {
	manifest.Where
	Name     string `yaml:"name,required" doc:"The part: state, invoke, publish, metadata."`
	Version  string `yaml:"version,required" doc:"Its version: v1, v1alpha1."`
	Protocol string `yaml:"protocol,required" doc:"http or grpc."`
}

type tracingSpec struct {
	SamplingRate anyText    `yaml:"samplingRate" doc:"Share of the traces that begin here and are kept, 0 to 1; 0 makes no spans at all, 0.0001 when left out."`
	Stdout       bool       `yaml:"stdout" doc:"Write spans to the log."`
	Zipkin       zipkinSpec `yaml:"zipkin" doc:"A Zipkin collector."`
	Otel         otelSpec   `yaml:"otel" doc:"An OpenTelemetry collector."`
}

type zipkinSpec struct {
	manifest.Where
	EndpointAddress string `yaml:"endpointAddress" doc:"URL that takes spans: http://zipkin:9411/api/v2/spans."`
}

type otelSpec struct {
	manifest.Where
	Protocol        string         `yaml:"protocol" oneof:"grpc|http" doc:"How to speak to the collector."`
	EndpointAddress string         `yaml:"endpointAddress" doc:"host:port of the collector."`
	IsSecure        *bool          `yaml:"isSecure" doc:"Whether the connection is TLS; true when left out."`
	Headers         []string       `yaml:"headers" doc:"Header fields of the exporter's requests, as name=value."`
	Timeout         *time.Duration `yaml:"timeout" doc:"How long one export may take; 10s when left out."`
}

type metricSpec struct {
	manifest.Where
	Enabled          *bool            `yaml:"enabled" doc:"Whether metrics are served; true when left out."`
	RecordErrorCodes *bool            `yaml:"recordErrorCodes" doc:"Count the errors of the API by their code: dapr_error_code_total."`
	HTTP             *metricHTTPSpec  `yaml:"http" doc:"Labels of the metrics of HTTP."`
	LatencyBuckets   []int            `yaml:"latencyDistributionBuckets" doc:"Buckets of the histograms of latencies, in milliseconds, ascending."`
	Rules            []metricRuleSpec `yaml:"rules" doc:"Labels to rewrite."`
}

type metricHTTPSpec struct {
	manifest.Where
	IncreasedCardinality *bool    `yaml:"increasedCardinality" doc:"Whether paths are labels, keys and ids left out; true when left out."`
	PathMatching         []string `yaml:"pathMatching" doc:"Patterns of paths that are labels in the place of what they match, such as /orders/{id}; also below an invocation."`
	ExcludeVerbs         *bool    `yaml:"excludeVerbs" doc:"Leave the verb out."`
}

type metricRuleSpec struct {
	Name   string            `yaml:"name" doc:"The metric, such as dapr_http_server_request_count."`
	Labels []metricLabelSpec `yaml:"labels" doc:"Its labels."`
}

type metricLabelSpec struct {
	manifest.Where
	Name  string             `yaml:"name" doc:"The label."`
	Regex map[string]anyText `yaml:"regex" doc:"What to put in the place of what a regular expression (RE2) matches: /orders/{id}: /orders/[0-9]+ ."`
}

type loggingSpec struct {
	APILogging apiLoggingSpec `yaml:"apiLogging" doc:"A line for each call of the API."`
}

type apiLoggingSpec struct {
	Enabled          bool `yaml:"enabled" doc:"Write it, unless --enable-api-logging says otherwise."`
	ObfuscateURLs    bool `yaml:"obfuscateURLs" doc:"Write the name of the route in place of the path."`
	OmitHealthChecks bool `yaml:"omitHealthChecks" doc:"Leave health checks out."`
}

type componentsSpec struct {
	Deny []string `yaml:"deny" doc:"Types of components that are not loaded: state.redis, or state.redis/v1."`
}

type featureSpec struct {
	manifest.Where
	Name    string `yaml:"name,required" doc:"The feature."`
	Enabled bool   `yaml:"enabled" doc:"Whether it is on."`
}

type pipelineSpec struct {
	Handlers []handlerSpec `yaml:"handlers" doc:"The middleware, in the order in which a request passes them."`
}

type handlerSpec struct {
	manifest.Where
	Name     string       `yaml:"name,required" doc:"Name of the component. One that the app does not have is passed over, with a warning."`
	Type     string       `yaml:"type,required" doc:"Its type, such as middleware.http.bearer."`
	Version  string       `yaml:"version" doc:"Version of the type; v1 when left out."`
	Selector selectorSpec `yaml:"selector" doc:"Unused."`
}

type selectorSpec struct {
	Fields []selectorFieldSpec `yaml:"fields" doc:"Unused."`
}

type selectorFieldSpec struct {
	Field string  `yaml:"field" doc:"Unused."`
	Value anyText `yaml:"value" doc:"Unused."`
}

type mtlsSpec struct {
	Enabled                 bool            `yaml:"enabled" doc:"Unused."`
	WorkloadCertTTL         string          `yaml:"workloadCertTTL" doc:"Unused."`
	AllowedClockSkew        string          `yaml:"allowedClockSkew" doc:"Unused."`
	SentryAddress           string          `yaml:"sentryAddress" doc:"Unused."`
	ControlPlaneTrustDomain string          `yaml:"controlPlaneTrustDomain" doc:"Unused."`
	TokenValidators         []validatorSpec `yaml:"tokenValidators" doc:"Unused."`
}

type validatorSpec struct {
	Name    string   `yaml:"name" doc:"Unused."`
	Options anything `yaml:"options" doc:"Unused."`
}

type secretsSpec struct {
	Scopes []secretsScopeSpec `yaml:"scopes" doc:"What holds for the secrets of one store."`
}

type secretsScopeSpec struct {
	manifest.Where
	DefaultAccess  string   `yaml:"defaultAccess" doc:"allow or deny, for secrets that are not named; allow when left out."`
	StoreName      string   `yaml:"storeName,required" doc:"The secret store."`
	AllowedSecrets []string `yaml:"allowedSecrets" doc:"The only secrets that may be read, where there are any."`
	DeniedSecrets  []string `yaml:"deniedSecrets" doc:"Secrets that may not be read."`
}

type nameSpec struct {
	Component     string   `yaml:"component" doc:"Unused."`
	Version       string   `yaml:"version" doc:"Unused."`
	Configuration anything `yaml:"configuration" doc:"Unused."`
}

type wasmSpec struct {
	StrictSandbox bool `yaml:"strictSandbox" doc:"Unused."`
}

type workflowSpec struct {
	MaxWorkflows       int             `yaml:"maxConcurrentWorkflowInvocations" doc:"Unused."`
	MaxActivities      int             `yaml:"maxConcurrentActivityInvocations" doc:"Unused."`
	GlobalMaxWorkflows *int            `yaml:"globalMaxConcurrentWorkflowInvocations" doc:"Unused."`
	GlobalMaxActivity  *int            `yaml:"globalMaxConcurrentActivityInvocations" doc:"Unused."`
	WorkflowLimits     []namedLimit    `yaml:"workflowConcurrencyLimits" doc:"Unused."`
	ActivityLimits     []namedLimit    `yaml:"activityConcurrencyLimits" doc:"Unused."`
	Retention          retentionPolicy `yaml:"stateRetentionPolicy" doc:"Unused."`
}

type namedLimit struct {
	Name          string `yaml:"name" doc:"Unused."`
	MaxConcurrent int    `yaml:"maxConcurrent" doc:"Unused."`
}

type retentionPolicy struct {
	AnyTerminal time.Duration `yaml:"anyTerminal" doc:"Unused."`
	Completed   time.Duration `yaml:"completed" doc:"Unused."`
	Failed      time.Duration `yaml:"failed" doc:"Unused."`
	Terminated  time.Duration `yaml:"terminated" doc:"Unused."`
}

// anyText is a single value of whatever type, as text: Dapr takes numbers there without quotes.
type anyText struct {
	Text string
	manifest.Where
}

// DecodeNode reads a single value.
func (t *anyText) DecodeNode(d *manifest.Document, n *manifest.Node, path string) {
	if n.Kind != manifest.Scalar {
		d.Fail(n.Line, path, "must be a single value, not %s", n.Kind)
		return
	}
	*t = anyText{n.Text, manifest.Where{Line: n.Line, Path: path}}
}

// Schema is that of a single value.
func (t *anyText) Schema() map[string]any {
	return map[string]any{"type": []string{"string", "number", "boolean"}}
}

// anything is a value that nobody here reads.
type anything struct{}

// DecodeNode accepts every value.
func (*anything) DecodeNode(*manifest.Document, *manifest.Node, string) {}

// Schema accepts every value.
func (*anything) Schema() map[string]any { return map[string]any{} }
