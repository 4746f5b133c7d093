package contrib

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	contribconversation "github.com/dapr/components-contrib/conversation"
	"github.com/dapr/components-contrib/metadata"
	"github.com/dapr/kit/logger"
	"github.com/tmc/langchaingo/llms"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/conversation"
	"github.com/sidecast/sidecast/fault"
)

// fakeConversation is a component of the library that answers as it is told.
type fakeConversation struct {
	given  map[string]string
	answer func(context.Context, *contribconversation.Request) (*contribconversation.Response, error)
	closed bool
}

func (f *fakeConversation) Init(_ context.Context, m contribconversation.Metadata) error {
	f.given = m.Properties
	if m.Properties["key"] == "wrong" {
		return errors.New("the key is wrong")
	}
	return nil
}

func (f *fakeConversation) Converse(ctx context.Context, r *contribconversation.Request) (*contribconversation.Response, error) {
	return f.answer(ctx, r)
}

func (f *fakeConversation) Close() error {
	f.closed = true
	return nil
}

func (*fakeConversation) GetComponentMetadata() metadata.MetadataMap { return nil }

func openFake(t *testing.T, f *fakeConversation, key string, options ...func(*partner)) (conversation.Partner, error) {
	t.Helper()
	c := conversationOf("fake", "A test.", func() []components.Field { return []components.Field{field("key", "string", "A key.", hidden)} }, func(logger.Logger) contribconversation.Conversation { return f }, options...)
	b, err := c.Open(t.Context(), components.Host{Log: discard}, map[string]string{"key": key})
	if err != nil {
		return nil, err
	}
	return b.(conversation.Partner), nil
}

func TestEcho(t *testing.T) {
	b, err := conversations[0].Open(t.Context(), components.Host{Log: discard}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := b.(conversation.Partner)
	got, err := p.Converse(t.Context(), conversation.Request{Messages: []conversation.Message{
		{Role: conversation.System, Texts: []string{"be brief", "be kind"}}, {Role: conversation.ByTool, Results: []conversation.ToolResult{{ID: "1", Name: "time", Text: "noon"}}},
	}, Tools: []conversation.Tool{{Name: "weather", Parameters: map[string]any{"properties": map[string]any{"city": 1, "at": 2}}}}})
	want := &conversation.Response{
		Outputs: []conversation.Output{{Choices: []conversation.Choice{{
			FinishReason: "tool_calls", Text: "be brief\nbe kind\nTool Response for tool ID '1' with name 'time': noon", Calls: []conversation.ToolCall{{ID: "0", Name: "weather", Arguments: "at,city"}},
		}}}}, Usage: &conversation.Usage{Completion: 14, Prompt: 14, Total: 28},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v %v", got, err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := p.Converse(t.Context(), conversation.Request{}); fault.ReasonOf(err) != fault.Shutdown {
		t.Errorf("after Close: %v", err)
	}
}

// What is asked of the library is what was asked, and what it answers what is answered.
func TestConversationsAreTranslated(t *testing.T) {
	day := 24 * time.Hour
	request := conversation.Request{
		Messages: []conversation.Message{
			{Role: conversation.User, Texts: []string{"what time is it?"}},
			{Role: conversation.Assistant, Texts: []string{"let me see"}, Calls: []conversation.ToolCall{{ID: "1", Name: "time", Arguments: "{}"}}},
			{Role: conversation.ByTool, Results: []conversation.ToolResult{{ID: "1", Name: "time", Text: "noon"}, {ID: "1", Name: "time", Text: "sharp"}}},
		},
		Tools: []conversation.Tool{{Name: "time", Description: "tells it", Parameters: map[string]any{"type": "object"}}}, ToolChoice: "time", Temperature: .5,
		Metadata: map[string]string{"user": "ann"}, ResponseFormat: map[string]any{"type": "object"}, CacheRetention: &day,
	}
	var told *contribconversation.Request
	fake := &fakeConversation{answer: func(_ context.Context, r *contribconversation.Request) (*contribconversation.Response, error) {
		told = r
		return &contribconversation.Response{
			Model: "fake-1", Outputs: []contribconversation.Result{{Choices: []contribconversation.Choice{
				{FinishReason: "stop", Index: 1, Message: contribconversation.Message{Content: "noon", ToolCallRequest: &[]llms.ToolCall{{ID: "2"}, {FunctionCall: &llms.FunctionCall{Name: "f", Arguments: "[]"}}}}},
			}}, {}},
			Usage: &contribconversation.Usage{
				CompletionTokens: 1, PromptTokens: 2, TotalTokens: 3, CompletionTokensDetails: &contribconversation.CompletionTokensDetails{AcceptedPredictionTokens: 4, AudioTokens: 5, ReasoningTokens: 6, RejectedPredictionTokens: 7},
				PromptTokensDetails: &contribconversation.PromptTokensDetails{AudioTokens: 8, CachedTokens: 9},
			},
		}, nil
	}}
	plain, err := openFake(t, fake, "secret")
	if err != nil || fake.given["key"] != "secret" {
		t.Fatal(fake.given, err)
	}
	got, err := plain.Converse(t.Context(), request)
	want := &conversation.Response{Model: "fake-1", Outputs: []conversation.Output{{Choices: []conversation.Choice{
		{FinishReason: "stop", Index: 1, Text: "noon", Calls: []conversation.ToolCall{{ID: "2"}, {Name: "f", Arguments: "[]"}}},
	}}, {}}, Usage: &conversation.Usage{
		Completion: 1, Prompt: 2, Total: 3, CompletionDetails: &conversation.CompletionDetails{AcceptedPrediction: 4, Audio: 5, Reasoning: 6, RejectedPrediction: 7},
		PromptDetails: &conversation.PromptDetails{Audio: 8, Cached: 9},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the answer is %+v %v", got, err)
	}
	asked, _ := json.Marshal(told)
	if text := string(asked); text != `{"Message":[{"role":"human","text":"what time is it?"},{"role":"ai","parts":[{"text":"let me see","type":"text"},{"type":"tool_call","tool_call":{"function":{"name":"time","arguments":"{}"},"id":"1","type":"function"}}]},`+
		`{"role":"tool","parts":[{"type":"tool_response","tool_response":{"content":"noon","name":"time","tool_call_id":"1"}},{"type":"tool_response","tool_response":{"content":"sharp","name":"time","tool_call_id":"1"}}]}],`+
		`"Tools":[{"type":"function","function":{"name":"time","description":"tells it","parameters":{"type":"object"}}}],"ToolChoice":"time","temperature":0.5,"metadata":{"user":"ann"},"responseFormatAsJsonSchema":{"type":"object"},`+
		`"promptCacheRetention":86400000000000,"parameters":null,"conversationContext":""}` {
		t.Errorf("asked %s", text)
	}
	if _, err := plain.Converse(t.Context(), conversation.Request{}); err != nil || told.Tools != nil || told.ToolChoice != nil || told.Message == nil {
		t.Errorf("of nothing: %+v %v", told, err)
	}

	simple, err := openFake(t, fake, "secret", toolsAsText)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := simple.Converse(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	asked, _ = json.Marshal((*told.Message)[1:])
	if text := string(asked); text != `[{"role":"ai","parts":[{"text":"let me see","type":"text"},{"text":"Tool call [ID: 1]: time({})","type":"text"}]},{"role":"human","text":"Tool response [ID: 1, Name: time]: noon\nsharp"}]` {
		t.Errorf("asked %s", text)
	}
	for _, p := range []conversation.Partner{plain, simple} {
		if err := p.Close(t.Context()); err != nil || !fake.closed {
			t.Error(err)
		}
	}
}

func TestConversationsThatFail(t *testing.T) {
	wrong := &fakeConversation{}
	if _, err := openFake(t, wrong, "wrong"); fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), "the key is wrong") || !wrong.closed {
		t.Errorf("got %v", err)
	}
	hangs := make(chan struct{})
	var open []conversation.Partner
	for _, c := range []struct {
		reason fault.Reason
		answer func() (*contribconversation.Response, error)
	}{
		{"", func() (*contribconversation.Response, error) { return nil, nil }},
		{fault.BackendFailed, func() (*contribconversation.Response, error) { return nil, errors.New("429 too many tokens") }},
		{fault.BackendDown, func() (*contribconversation.Response, error) { return nil, errors.New("dial tcp: connection refused") }},
		{fault.Panicked, func() (*contribconversation.Response, error) { panic("no choices") }},
		{fault.DeadlineExceeded, func() (*contribconversation.Response, error) { <-hangs; return nil, nil }},
	} {
		p, err := openFake(t, &fakeConversation{answer: func(context.Context, *contribconversation.Request) (*contribconversation.Response, error) {
			return c.answer()
		}}, "right")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, p)
		ctx, cancel := context.WithCancel(t.Context())
		if c.reason == fault.DeadlineExceeded {
			ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		}
		got, err := p.Converse(ctx, conversation.Request{})
		if cancel(); fault.ReasonOf(err) != c.reason || (got == nil) != (err != nil) || got != nil && len(got.Outputs) != 0 {
			t.Errorf("%v %v, not %v", got, err, c.reason)
		}
	}
	close(hangs)
	for _, p := range open {
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
