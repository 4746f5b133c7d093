package compat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	library "github.com/dapr/components-contrib/conversation"
	"github.com/dapr/components-contrib/metadata"
	conformance "github.com/dapr/components-contrib/tests/conformance/conversation"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/tmc/langchaingo/llms"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sidecast/sidecast/tests/machine"
)

var talking = component("echo", "conversation.echo") + component("limited", "conversation.echo", "key: testkey", "model: small") + component("retried", "conversation.echo") + component("theirs", "conversation.echo") + "scopes: [other]\n"

const talkPolicies = `---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec:
  policies:
    retries:
      twice: {policy: constant, duration: 10ms, maxRetries: 2}
    rateLimits:
      once: {limit: 1, per: 1h}
  targets:
    components:
      retried:
        outbound: {retry: twice}
      limited:
        outbound: {rateLimit: once}
`

const (
	oldTalk = "/v1.0-alpha1/conversation/"
	newTalk = "/v1.0-alpha2/conversation/"
)

// said is an answer over HTTP without the white space that protojson varies.
func said(t testing.TB, got answer) string {
	t.Helper()
	if got.status != 200 || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %v %s", got.status, got.header, got.body)
	}
	return string(compacted(t, []byte(got.body)))
}

func compacted(t testing.TB, data []byte) []byte {
	t.Helper()
	var all any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	out, _ := json.Marshal(all) // with its keys in order
	return out
}

// talks are what both protocols answer alike.
var talks = []struct{ name, version, body, want string }{
	{"one input", oldTalk, `{"inputs":[{"content":"hello"}]}`, `{"outputs":[{"result":"hello"}]}`},
	{"several", oldTalk, `{"contextID":"c1","temperature":0.5,"unknown":1,"metadata":{"temperature":"warm"},"inputs":[{"content":"be brief","role":"system"},{"content":"hello","role":"nobody"},{"role":"tool"}],"parameters":{"max":{"@type":"type.googleapis.com/google.protobuf.Int64Value","value":"7"}}}`,
		`{"contextID":"c1","outputs":[{"parameters":{"max":{"@type":"type.googleapis.com/google.protobuf.Int64Value","value":"7"}},"result":"be brief\nhello\n"}]}`},
	{"scrubbed inputs", oldTalk, `{"inputs":[{"content":"ann@example.com","scrubPII":true},{"content":"bob@example.com"}]}`, `{"outputs":[{"result":"\u003cEMAIL_ADDRESS\u003e\nbob@example.com"}]}`},
	{"scrubbed answer", oldTalk, `{"scrubPII":true,"inputs":[{"content":"ann@example.com"}]}`, `{"outputs":[{"result":"\u003cEMAIL_ADDRESS\u003e"}]}`},
	{"no messages", newTalk, `{"inputs":[{}]}`, `{"outputs":[{"choices":[{"finishReason":"stop","message":{}}],"usage":{}}]}`},
	{"every type", newTalk, `{"contextId":"c2","unknown":{},"inputs":[{"messages":[{"ofDeveloper":{"name":"d","content":[{"text":"one"}]}},{"ofSystem":{"content":[{"text":"two"},{"text":"three"}]}},{"ofUser":{"content":[{"text":"four"}]}}]},
		{"messages":[{"ofAssistant":{"content":[{"text":"five"}],"toolCalls":[{"id":"7","function":{"name":"f","arguments":"{}"}}]}},{"ofTool":{"toolId":"7","name":"f","content":[{"text":"six"}]}}]}]}`,
		`{"contextId":"c2","outputs":[{"choices":[{"finishReason":"tool_calls","message":{"content":"one\ntwo\nthree\nfour\nfive\nTool Response for tool ID '7' with name 'f': six","toolCalls":[{"function":{"arguments":"{}","name":"f"},"id":"7"}]}}],"usage":{"completionTokens":"15","promptTokens":"15","totalTokens":"30"}}]}`},
	{"tools", newTalk, `{"tools":[{},{"function":{"name":"weather","description":"tells it","parameters":{"type":"object","properties":{"city":{},"at":{}}}}},{"function":{"name":"time"}}],"toolChoice":"weather","responseFormat":{"type":"object"},"promptCacheRetention":"86400s","metadata":{"a":"b"},
		"inputs":[{"messages":[{"ofUser":{"content":[{"text":"hello"}]}}]}]}`,
		`{"outputs":[{"choices":[{"finishReason":"tool_calls","message":{"content":"hello","toolCalls":[{"function":{"arguments":"at,city","name":"weather"},"id":"0"},{"function":{"name":"time"},"id":"1"}]}}],"usage":{"completionTokens":"1","promptTokens":"1","totalTokens":"2"}}]}`},
	{"required", newTalk, `{"tools":[{"function":{"name":"time"}}],"toolChoice":"required","inputs":[{}]}`, `{"outputs":[{"choices":[{"finishReason":"tool_calls","message":{"toolCalls":[{"function":{"name":"time"},"id":"0"}]}}],"usage":{}}]}`},
	{"a choice without tools", newTalk, `{"toolChoice":"any","inputs":[{}]}`, `{"outputs":[{"choices":[{"finishReason":"stop","message":{}}],"usage":{}}]}`},
	{"scrubbed inputs", newTalk, `{"inputs":[{"scrubPii":true,"messages":[{"ofUser":{"content":[{"text":"ann@example.com"}]}},{"ofTool":{"name":"f","content":[{"text":"10.0.0.1"}]}}]},{"messages":[{"ofUser":{"content":[{"text":"bob@example.com"}]}}]}]}`,
		`{"outputs":[{"choices":[{"finishReason":"stop","message":{"content":"\u003cEMAIL_ADDRESS\u003e\nTool Response for tool ID '' with name 'f': \u003cIP\u003e\nbob@example.com"}}],"usage":{"completionTokens":"12","promptTokens":"12","totalTokens":"24"}}]}`},
	{"scrubbed answer", newTalk, `{"scrubPii":true,"inputs":[{"messages":[{"ofUser":{"content":[{"text":"ann@example.com"}]}}]}]}`,
		`{"outputs":[{"choices":[{"finishReason":"stop","message":{"content":"\u003cEMAIL_ADDRESS\u003e"}}],"usage":{"completionTokens":"1","promptTokens":"1","totalTokens":"2"}}]}`},
}

func TestConversation(t *testing.T) {
	t.Parallel()
	d := startWith(t, machine.New(t), talking, "app")
	client := d.client()
	for _, c := range talks {
		if got := said(t, d.do("POST", c.version+"echo/converse", c.body)); got != c.want {
			t.Errorf("%s over HTTP:\ngot  %s\nwant %s", c.name, got, c.want)
		}
		answer, err := rpc(t, client, c.version, "echo", c.body)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		data, err := protojson.Marshal(answer)
		if got := string(compacted(t, data)); err != nil || got != c.want {
			t.Errorf("%s over gRPC:\ngot  %s %v\nwant %s", c.name, got, err, c.want)
		}
	}
	if got := d.do("GET", "/v1.0/metadata", "").body; !strings.Contains(got, `{"name":"echo","type":"conversation.echo","version":"v1"`) || strings.Contains(got, "theirs") {
		t.Errorf("metadata tells of %s", got)
	}
}

// rpc makes a request that is written as for HTTP over gRPC.
func rpc(t testing.TB, client runtimev1.DaprClient, version, name, body string) (proto.Message, error) {
	t.Helper()
	read := func(into proto.Message) {
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(body), into); err != nil {
			t.Fatal(err)
		}
	}
	if version == oldTalk {
		//lint:ignore SA1019 alpha1 is there as long as clients of Dapr have it
		in := &runtimev1.ConversationRequest{}
		read(in)
		in.Name = name
		return client.ConverseAlpha1(t.Context(), in)
	}
	in := &runtimev1.ConversationRequestAlpha2{}
	read(in)
	in.Name = name
	return client.ConverseAlpha2(t.Context(), in)
}

func TestConversationsThatFail(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	metrics := machine.Port(t)
	d := startWith(t, m, talking+talkPolicies, "app", "--metrics-port", metrics, "--config", configuration(t, "  metric: {recordErrorCodes: true}\n  tracing: {samplingRate: \"1\", stdout: true}\n"))
	client := d.client()
	const (
		notFound, missing, bad, failed = "ERR_CONVERSATION_NOT_FOUND", "ERR_CONVERSATION_MISSING_INPUTS", "ERR_CONVERSATION_INVALID_PARMS", "ERR_CONVERSATION_INVOKE"
		choice                         = ". Must be 'auto', 'none', 'required', or a specific tool name matching the tools available to be used"
		with                           = "failed conversing with component echo: "
		user                           = `{"inputs":[{"messages":[{"ofUser":{"content":[{"text":"hello"}]}}]}]`
	)
	for _, c := range []struct {
		versions, name, body string
		http                 int
		grpc                 codes.Code
		code, says           string
	}{
		{oldTalk + " " + newTalk, "nobody", `{}`, 400, codes.InvalidArgument, notFound, "failed finding conversation component nobody"},
		{oldTalk + " " + newTalk, "theirs", `{}`, 400, codes.InvalidArgument, notFound, "failed finding conversation component theirs"},
		{oldTalk + " " + newTalk, "echo", ``, 400, codes.InvalidArgument, missing, with + "missing inputs in request"},
		{oldTalk + " " + newTalk, "echo", `{"inputs":[]}`, 400, codes.InvalidArgument, missing, with + "missing inputs in request"},
		{newTalk, "echo", `{"inputs":[{"messages":[{}]}]}`, 400, codes.InvalidArgument, bad, with + "invalid params: message type cannot be nil"},
		{newTalk, "echo", `{"inputs":[{"messages":[{"ofAssistant":{"toolCalls":[{"id":"1"}]}}]}]}`, 400, codes.InvalidArgument, bad, with + "invalid params: tool types cannot be nil"},
		{newTalk, "echo", user + `,"toolChoice":"required"}`, 400, codes.InvalidArgument, bad, with + "invalid params: tool choice must be 'auto', 'none', 'required', or a specific tool name matching the tools available to be used"},
		{newTalk, "echo", user + `,"toolChoice":"other","tools":[{"function":{"name":"time"}}]}`, 400, codes.InvalidArgument, bad, with + "invalid params: tool choice selected was not found" + choice},
		{newTalk, "echo", user + `,"tools":[{"function":{"name":"f","parameters":{"properties":1}}}]}`, 500, codes.Internal, failed, with + "tool function properties must be a map[string]any, got float64"},
		{newTalk, "retried", user + `,"tools":[{"function":{"name":"f","parameters":{"properties":1}}}]}`, 500, codes.Internal, failed, "failed conversing with component retried: gave up after 3 attempts: tool function properties must be a map[string]any, got float64"},
	} {
		for _, version := range strings.Fields(c.versions) {
			d.expect(c.http, fmt.Sprintf(`{"errorCode":%q,"message":%q}`, c.code, c.says), "POST", version+c.name+"/converse", c.body)
			body := c.body
			if body == "" {
				body = "{}"
			}
			_, err := rpc(t, client, version, c.name, body)
			if s := status.Convert(err); s.Code() != c.grpc || s.Message() != c.says || len(s.Details()) != 0 {
				t.Errorf("%s %s over gRPC: %v %v", version, c.body, err, s.Details())
			}
		}
	}
	for _, version := range []string{oldTalk, newTalk} {
		d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: …`, "POST", version+"echo/converse", "{")
		d.expect(400, `{"errorCode":"ERR_MALFORMED_REQUEST","message":"failed deserializing HTTP body: …`, "POST", version+"echo/converse", `{"inputs":1}`)
		if got := d.do("GET", version+"echo/converse", ""); got.status < 400 {
			t.Errorf("GET: %d %s", got.status, got.body)
		}
	}
	bare := start(t, m, "bare")
	bare.expect(400, fmt.Sprintf(`{"errorCode":%q,"message":"failed finding conversation component echo"}`, notFound), "POST", oldTalk+"echo/converse", "{}")

	// A lane that refuses, and what was counted.
	d.expect(200, "{…", "POST", newTalk+"limited/converse", user+"}")
	if got := d.do("POST", newTalk+"limited/converse", user+"}"); got.status != 429 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, failed) {
		t.Errorf("a limit answers %d %v %s", got.status, got.header, got.body)
	}
	machine.Until(t, "the spans of conversations are written", func() error {
		if !strings.Contains(d.Output(), "name=/v1.0-alpha2/conversation/echo/converse ") {
			return errors.New("there are none")
		}
		return nil
	})
	page := metricsPage(t, metrics)
	for _, line := range []string{
		`dapr_component_conversation_count{app_id="app",component="limited",namespace="",success="true"} 1`,
		`dapr_component_conversation_count{app_id="app",component="limited",namespace="",success="false"} 1`,
		`dapr_component_conversation_count{app_id="app",component="echo",namespace="",success="false"} 2`,
		`dapr_component_conversation_latencies_count{app_id="app",component="limited",namespace="",success="true"} 1`,
		`dapr_error_code_total{app_id="app",category="conversation",error_code="ERR_CONVERSATION_INVALID_PARMS"} 8`,
		`dapr_resiliency_count{app_id="app",flow_direction="outbound",name="policies",namespace="",policy="retry",status="",target="Conversation_retried"}`,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
}

// What an API list or a change of files says holds for conversations.
func TestConversationsAreListedAndReloaded(t *testing.T) {
	t.Parallel()
	m := machine.New(t)
	file := newDocument(t, component("first", "conversation.echo"))
	d := startWith(t, m, "", "app", "--resources-path", file.file, "--config", configuration(t, "  api: {denied: [{name: conversation, version: v1.0-alpha1, protocol: http}, {name: conversation, version: v1alpha1, protocol: grpc}]}\n"))
	const body = `{"inputs":[{"messages":[{"ofUser":{"content":[{"text":"hello"}]}}]}]}`
	d.expect(200, "{…", "POST", newTalk+"first/converse", body)
	if got := d.do("POST", oldTalk+"first/converse", `{"inputs":[{"content":"x"}]}`); got.status < 400 {
		t.Errorf("denied: %d %s", got.status, got.body)
	}
	if _, err := rpc(t, d.client(), oldTalk, "first", `{"inputs":[{"content":"x"}]}`); status.Code(err) != codes.Unimplemented {
		t.Errorf("denied: %v", err)
	}
	if _, err := rpc(t, d.client(), newTalk, "first", body); err != nil {
		t.Error(err)
	}
	stop := d.load(200, "POST", newTalk+"first/converse", body)
	file.write(component("first", "conversation.echo") + component("second", "conversation.echo"))
	d.until(200, "hello", "POST", newTalk+"second/converse", body)
	stop()
	file.write(component("second", "conversation.echo"))
	d.until(400, "ERR_CONVERSATION_NOT_FOUND", "POST", newTalk+"first/converse", body)
}

// The conformance functions of components-contrib, which say what a component that talks has to do for Dapr, through a sidecar.
func TestConversationsConform(t *testing.T) {
	t.Parallel()
	d := startWith(t, machine.New(t), component(conforming, "conversation.echo"), "app")
	conformance.ConformanceTests(t, nil, remotePartner{d.client()}, "echo")
}

// remotePartner is a sidecar's component as one of the library.
type remotePartner struct{ dapr runtimev1.DaprClient }

func (remotePartner) Init(context.Context, library.Metadata) error      { return nil }
func (remotePartner) Close() error                                      { return nil }
func (remotePartner) GetComponentMetadata() (none metadata.MetadataMap) { return none }

func (p remotePartner) Converse(ctx context.Context, r *library.Request) (*library.Response, error) {
	in := &runtimev1.ConversationRequestAlpha2{Name: conforming, Metadata: r.Metadata, Temperature: &r.Temperature, ToolChoice: r.ToolChoice}
	input := &runtimev1.ConversationInputAlpha2{}
	for _, m := range *r.Message {
		input.Messages = append(input.Messages, remoteMessage(m))
	}
	in.Inputs = append(in.Inputs, input)
	var err error
	if r.ResponseFormatAsJSONSchema != nil {
		if in.ResponseFormat, err = remoteObject(r.ResponseFormatAsJSONSchema); err != nil {
			return nil, err
		}
	}
	if r.Tools != nil {
		for _, tool := range *r.Tools {
			parameters, err := remoteObject(tool.Function.Parameters)
			if err != nil {
				return nil, err
			}
			in.Tools = append(in.Tools, &runtimev1.ConversationTools{ToolTypes: &runtimev1.ConversationTools_Function{
				Function: &runtimev1.ConversationToolsFunction{Name: tool.Function.Name, Description: &tool.Function.Description, Parameters: parameters},
			}})
		}
	}
	got, err := p.dapr.ConverseAlpha2(ctx, in)
	if err != nil {
		return nil, err
	}
	out := &library.Response{}
	for _, o := range got.GetOutputs() {
		result := library.Result{}
		if u := o.GetUsage(); u != nil {
			out.Usage = &library.Usage{CompletionTokens: u.GetCompletionTokens(), PromptTokens: u.GetPromptTokens(), TotalTokens: u.GetTotalTokens()}
		}
		for _, c := range o.GetChoices() {
			result.StopReason = c.GetFinishReason()
			choice := library.Choice{FinishReason: c.GetFinishReason(), Index: c.GetIndex(), Message: library.Message{Content: c.GetMessage().GetContent()}}
			var calls []llms.ToolCall
			for _, call := range c.GetMessage().GetToolCalls() {
				calls = append(calls, llms.ToolCall{ID: call.GetId(), Type: "function", FunctionCall: &llms.FunctionCall{Name: call.GetFunction().GetName(), Arguments: call.GetFunction().GetArguments()}})
			}
			if calls != nil {
				choice.Message.ToolCallRequest = &calls
			}
			result.Choices = append(result.Choices, choice)
		}
		out.Outputs = append(out.Outputs, result)
	}
	return out, nil
}

// remoteObject is a JSON Schema, whatever Go types it is written in.
func remoteObject(schema any) (*structpb.Struct, error) {
	data, err := json.Marshal(schema)
	if err != nil {
		return nil, err
	}
	object := &structpb.Struct{}
	return object, protojson.Unmarshal(data, object)
}

func remoteMessage(m llms.MessageContent) *runtimev1.ConversationMessage {
	var texts, results []*runtimev1.ConversationMessageContent
	var calls []*runtimev1.ConversationToolCalls
	var id, name string
	for _, part := range m.Parts {
		switch p := part.(type) {
		case llms.TextContent:
			texts = append(texts, &runtimev1.ConversationMessageContent{Text: p.Text})
		case llms.ToolCall:
			calls = append(calls, &runtimev1.ConversationToolCalls{Id: &p.ID, ToolTypes: &runtimev1.ConversationToolCalls_Function{
				Function: &runtimev1.ConversationToolCallsOfFunction{Name: p.FunctionCall.Name, Arguments: p.FunctionCall.Arguments},
			}})
		case llms.ToolCallResponse:
			id, name = p.ToolCallID, p.Name
			results = append(results, &runtimev1.ConversationMessageContent{Text: p.Content})
		}
	}
	switch m.Role {
	case llms.ChatMessageTypeSystem:
		return &runtimev1.ConversationMessage{MessageTypes: &runtimev1.ConversationMessage_OfSystem{OfSystem: &runtimev1.ConversationMessageOfSystem{Content: texts}}}
	case llms.ChatMessageTypeAI:
		return &runtimev1.ConversationMessage{MessageTypes: &runtimev1.ConversationMessage_OfAssistant{OfAssistant: &runtimev1.ConversationMessageOfAssistant{Content: texts, ToolCalls: calls}}}
	case llms.ChatMessageTypeTool:
		return &runtimev1.ConversationMessage{MessageTypes: &runtimev1.ConversationMessage_OfTool{OfTool: &runtimev1.ConversationMessageOfTool{ToolId: &id, Name: name, Content: results}}}
	}
	return &runtimev1.ConversationMessage{MessageTypes: &runtimev1.ConversationMessage_OfUser{OfUser: &runtimev1.ConversationMessageOfUser{Content: texts}}}
}
