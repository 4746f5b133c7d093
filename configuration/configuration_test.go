package configuration_test

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/configuration"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/manifest/schematest"
	"github.com/sidecast/sidecast/pipeline"
)

const head = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec:\n"

// documents are bodies of spec as documents of one file each.
func documents(specs ...string) []manifest.Raw {
	var all []manifest.Raw
	for i, spec := range specs {
		all = append(all, manifest.Raw{
			Kind: configuration.Kind, YAML: []byte(head + spec), Source: manifest.Source{File: string(rune('a'+i)) + ".yaml", Line: 1},
		})
	}
	return all
}

func read(t *testing.T, specs ...string) *configuration.Settings {
	t.Helper()
	s, findings := configuration.Read(documents(specs...))
	if s == nil {
		t.Fatal(findings)
	}
	return s
}

func TestDefaultsAreDaprs(t *testing.T) {
	want := &configuration.Settings{
		Access: access.Rules{DefaultAction: "allow", TrustDomain: "public"}, Tracing: configuration.Tracing{Rate: 1e-4}, Metrics: true,
		Features: []string{"HotReload", "WorkflowsRemoteActivityReminder"},
	}
	if got := read(t); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

const everything = `  accessControl:
    defaultAction: deny
    trustDomain: shop
    policies:
    - appId: cart
      defaultAction: deny
      trustDomain: public
      namespace: default
      operations:
      - {name: /price/*, httpVerb: [GET, "*"], action: allow}
  api:
    allowed: [{name: state, version: v1, protocol: http}]
    denied: [{name: invoke, version: v1, protocol: grpc}]
  tracing:
    samplingRate: 0.5
    stdout: true
    zipkin: {endpointAddress: "http://zipkin:9411/api/v2/spans"}
    otel: {endpointAddress: "${COLLECTOR}", isSecure: false, protocol: grpc, headers: ["a=b=c"], timeout: 3s}
  metric: {enabled: true, recordErrorCodes: true, latencyDistributionBuckets: [1], rules: [{name: other, labels: []}]}
  metrics:
    enabled: false
    latencyDistributionBuckets: [10, 100]
    http: {increasedCardinality: false, pathMatching: ["/orders/{id}", //v1.0/invoke/app/method/x, "orders/{id}"], excludeVerbs: true}
    rules:
    - name: dapr_http_server_request_count
      labels: [{name: path, regex: {b: "/b.*", a: /a+}}, {name: method, regex: {"1": 2}}]
  logging: {apiLogging: {enabled: true, obfuscateURLs: true, omitHealthChecks: true}}
  components: {deny: [state.redis, pubsub.kafka/v1]}
  secrets: {scopes: [{storeName: vault, defaultAccess: deny, allowedSecrets: [a], deniedSecrets: [b]}]}
  features: [{name: HotReload, enabled: false}, {name: New, enabled: true}]
  httpPipeline: {handlers: [{name: auth, type: middleware.http.bearer}, {name: up, type: middleware.http.uppercase, version: v1}]}
  appHttpPipeline: {handlers: [{name: up, type: middleware.http.uppercase}]}
`

func TestEverythingIsRead(t *testing.T) {
	t.Setenv("COLLECTOR", "otel:4317")
	got := read(t, everything)
	want := &configuration.Settings{
		Access: access.Rules{DefaultAction: "deny", TrustDomain: "shop", Policies: []access.Policy{{
			App: "cart", Namespace: "default", TrustDomain: "public", DefaultAction: "deny",
			Operations: []access.Operation{{Name: "/price/*", Verbs: []string{"GET", "*"}, Action: "allow"}},
		}}},
		Secrets: access.SecretScopes{"vault": {DefaultAccess: "deny", Allowed: []string{"a"}, Denied: []string{"b"}}},
		Allowed: []access.APIRule{{Name: "state", Version: "v1", Protocol: "http"}},
		Denied:  []access.APIRule{{Name: "invoke", Version: "v1", Protocol: "grpc"}},
		Tracing: configuration.Tracing{
			Sampled: true, Rate: .5, Stdout: true, Zipkin: "http://zipkin:9411/api/v2/spans",
			OTLP: configuration.OTLP{Endpoint: "otel:4317", Protocol: "grpc", Insecure: true, Headers: map[string]string{"a": "b=c"}, Timeout: 3 * time.Second},
		},
		Measuring: configuration.Measuring{
			Buckets: []int{10, 100}, LowCardinality: true, ExcludeVerbs: true, ErrorCodes: true,
			Paths: []string{"/orders/{id}", "/v1.0/invoke/app/method/x", "/v1.0/invoke/{app_id}/method/orders/{id}"},
			Rules: []configuration.LabelRule{
				{"dapr_http_server_request_count", "path", "/a+", "a"}, {"dapr_http_server_request_count", "path", "/b.*", "b"},
				{"dapr_http_server_request_count", "method", "2", "1"},
			},
		},
		Logging:        configuration.APILogging{Enabled: true, ObfuscateURLs: true, OmitHealthChecks: true},
		DenyComponents: []string{"state.redis", "pubsub.kafka/v1"},
		Features:       []string{"New", "WorkflowsRemoteActivityReminder"},
		Pipeline:       []pipeline.Handler{{Name: "auth", Type: "middleware.http.bearer"}, {Name: "up", Type: "middleware.http.uppercase", Version: "v1"}},
		AppPipeline:    []pipeline.Handler{{Name: "up", Type: "middleware.http.uppercase"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// What the reader takes the schema takes; of what the reader refuses for its shape, it refuses these.
func TestSchemaAgreesWithTheReader(t *testing.T) {
	schema, err := configuration.Schema([]string{"dapr.io/v1alpha1"})
	if err != nil {
		t.Fatal(err)
	}
	unused := "  httpPipeline: {handlers: [{name: a, type: middleware.http.bearer, version: v1, selector: {fields: [{field: f, value: 1}]}}]}\n" +
		"  nameResolution: {component: consul, configuration: {deep: [1, {a: b}]}}\n  workflow: {maxConcurrentWorkflowInvocations: 3}\n"
	for spec, allowed := range map[string]bool{
		everything: true, unused: true, "  tracing: {samplingRate: \"0\"}\n": true,
		"  tracings: {}\n": false, "  tracing: {stdout: 7}\n": false, "  api: {allowed: {name: state}}\n": false,
		"  accessControl: {policies: [{appId: a, trustDomain: t}]}\n": false, "  tracing: {otel: {protocol: carrier pigeon}}\n": false,
	} {
		doc := documents(spec)[0]
		err := schematest.Document(schema, doc.YAML)
		settings, findings := configuration.Read([]manifest.Raw{doc})
		if (err == nil) != allowed || (settings != nil) != allowed {
			t.Errorf("%s\nthe schema says %v, the reader %v", spec, err, findings)
		}
	}
}

func TestLaterDocumentsAreLaidOverEarlierOnes(t *testing.T) {
	got := read(t,
		"  accessControl: {defaultAction: deny, trustDomain: one}\n  tracing: {samplingRate: \"1\", stdout: true}\n  components: {deny: [a.b, c.d]}\n",
		"  accessControl: {trustDomain: two}\n  tracing: {samplingRate: \"0\"}\n  components: {deny: [e.f]}\n")
	if got.Access.DefaultAction != "deny" || got.Access.TrustDomain != "two" {
		t.Errorf("got %+v", got.Access)
	}
	if !got.Tracing.Stdout || !got.Tracing.Sampled || got.Tracing.Rate != 0 || !slices.Equal(got.DenyComponents, []string{"e.f"}) {
		t.Errorf("got %+v %v", got.Tracing, got.DenyComponents)
	}
}

func TestMistakesHaveAPlace(t *testing.T) {
	for spec, want := range map[string]string{
		"  accessControll: {}\n": `a.yaml:5: spec.accessControll: there is no such key here`,
		"  accessControl:\n    policies:\n    - appId: x\n      namespace: n\n":                                       `a.yaml:7: spec.accessControl.policies[0].trustDomain: is missing`,
		"  accessControl: {defaultAction: alow}\n":                                                                    `a.yaml:5: spec.accessControl.defaultAction: "alow" is neither allow nor deny`,
		"  api:\n    denied:\n    - {name: state, version: v1, protocol: tcp}\n":                                      `a.yaml:7: spec.api.denied[0].protocol: "tcp" is neither http nor grpc`,
		"  tracing:\n    samplingRate: often\n":                                                                       `a.yaml:6: spec.tracing.samplingRate: "often" is no number from 0 to 1`,
		"  tracing: {otel: {endpointAddress: x, protocol: udp}}\n":                                                    `spec.tracing.otel.protocol: "udp" is not one of them`,
		"  tracing: {zipkin: {endpointAddress: zipkin}}\n":                                                            `spec.tracing.zipkin.endpointAddress: "zipkin" is no URL`,
		"  secrets: {scopes: [{storeName: a}, {storeName: a}]}\n":                                                     `"a" is given twice`,
		"  accessControl: {policies: [{appId: a, namespace: n, trustDomain: t, operations: [{name: x, action: a}]}]}": `operations[0].action: "a" is neither allow nor deny`,
		"  httpPipeline:\n    handlers:\n    - {name: a, type: state.redis}\n":                                        `a.yaml:7: spec.httpPipeline.handlers[0].type: "state.redis" is no type of HTTP middleware`,
		"  appHttpPipeline: {handlers: [{type: middleware.http.x}]}\n":                                                `spec.appHttpPipeline.handlers[0].name: is missing`,
		"  metrics:\n    latencyDistributionBuckets: [2, 1]\n":                                                        `spec.metrics.latencyDistributionBuckets: 1 does not follow`,
		"  metric:\n    rules:\n    - name: x\n      labels:\n      - {name: y, regex: {z: \"(\"}}\n":                 `a.yaml:9: spec.metric.rules[0].labels[0].regex: error parsing regexp`,
		"  metric:\n    http: {pathMatching: [\"/{\"]}\n":                                                             `a.yaml:6: spec.metric.http.pathMatching:`,
		"  metric:\n    http: {pathMatching: [\"/x\", \"/v1.0/invoke/{a}/method/x\"]}\n":                              `conflicts with pattern`,
		"  features: [{name: x, enabled: perhaps}]\n":                                                                 `"perhaps" is neither true nor false`,
	} {
		s, findings := configuration.Read(documents(spec))
		told := slices.ContainsFunc(findings, func(f manifest.Finding) bool {
			return f.Severity == manifest.Error && strings.Contains(f.String(), want)
		})
		if s != nil || !told {
			t.Errorf("%s\ngot  %v\nwant %s", spec, findings, want)
		}
	}
}

// Dapr's other keys are known, and named once.
func TestWhatHasNoEffectIsNamedOnce(t *testing.T) {
	s, findings := configuration.Read(documents(`  mtls: {enabled: true, workloadCertTTL: 24h, allowedClockSkew: 15m, sentryAddress: a, controlPlaneTrustDomain: b, tokenValidators: [{name: jwks, options: {a: [1]}}]}
  httpPipeline: {handlers: [{name: a, type: middleware.http.x, version: v1, selector: {fields: [{field: a, value: b}]}}]}
  appHttpPipeline: {handlers: []}
  secrets: {scopes: [{storeName: a, defaultAccess: Deny, allowedSecrets: [a], deniedSecrets: [b]}]}
  nameResolution: {component: mdns, version: v1, configuration: {any: {thing: 1}}}
  wasm: {strictSandbox: true}
  workflow: {maxConcurrentWorkflowInvocations: 1, maxConcurrentActivityInvocations: 2, globalMaxConcurrentWorkflowInvocations: 3, globalMaxConcurrentActivityInvocations: 4, workflowConcurrencyLimits: [{name: a, maxConcurrent: 1}], activityConcurrencyLimits: [], stateRetentionPolicy: {anyTerminal: 1h, completed: 1m, failed: 0s, terminated: 5s}}
`))
	if s == nil || len(findings) != 1 || findings[0].Severity != manifest.Warning {
		t.Fatal(findings)
	}
	for _, name := range []string{"mtls", "nameResolution", "wasm", "workflow"} {
		if !strings.Contains(findings[0].Message, name) {
			t.Errorf("%s is not named: %s", name, findings[0].Message)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(head + "  tracing: {samplingRate: 1}\n"))
	f.Add([]byte(head + "  accessControl: {policies: [{appId: a}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if os.ExpandEnv(string(data)) != string(data) {
			t.Skip("what it means depends on the environment")
		}
		_, _ = configuration.Read([]manifest.Raw{{Kind: configuration.Kind, YAML: data}})
	})
}
