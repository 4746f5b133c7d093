package gosdk

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const echo = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: echo}
spec: {type: conversation.echo, version: v1, metadata: []}
`

func TestConversation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "echo.yaml")
	if err := os.WriteFile(file, []byte(echo), 0o600); err != nil {
		t.Fatal(err)
	}
	c := sidecar(t, t.TempDir(), "app", "--resources-path", file).(*client.GRPCClient)

	yes := true
	most, _ := anypb.New(wrapperspb.Int64(7))
	old, err := c.ConverseAlpha1(t.Context(), client.NewConversationRequest("echo", []client.ConversationInput{{Content: "ann@example.com", ScrubPII: &yes}, {Content: "hello"}}),
		client.WithContextID("c1"), client.WithParameters(map[string]*anypb.Any{"most": most}), client.WithTemperature(.5), client.WithScrubPII(true), client.WithMetadata(map[string]string{"a": "b"}))
	if err != nil || old.ContextID != "c1" || len(old.Outputs) != 1 || old.Outputs[0].Result != "<EMAIL_ADDRESS>\nhello" || old.Outputs[0].Parameters["most"].GetTypeUrl() != most.GetTypeUrl() {
		t.Errorf("alpha1 answers %+v %v", old, err)
	}
	if _, err := c.ConverseAlpha1(t.Context(), client.NewConversationRequest("nobody", nil)); status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != "failed finding conversation component nobody" {
		t.Errorf("alpha1: %v", err)
	}

	text := func(text string) []*client.ConversationMessageContentAlpha2 {
		return []*client.ConversationMessageContentAlpha2{{Text: &text}}
	}
	id, name, choice, context, warmth := "7", "weather", client.ToolChoiceAlpha2("weather"), "c2", .5
	schema, _ := structpb.NewStruct(map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string"}}})
	request := client.ConversationRequestAlpha2{
		Name: "echo", ContextID: &context, Temperature: &warmth, ScrubPII: &yes, ToolChoice: &choice, ResponseFormat: schema, Metadata: map[string]string{"a": "b"},
		Tools: []*client.ConversationToolsAlpha2{{Name: name, Description: &name, Parameters: schema}},
		Inputs: []*client.ConversationInputAlpha2{{Messages: []*client.ConversationMessageAlpha2{
			{ConversationMessageOfDeveloper: &client.ConversationMessageOfDeveloperAlpha2{Content: text("one")}},
			{ConversationMessageOfSystem: &client.ConversationMessageOfSystemAlpha2{Content: text("two")}},
			{ConversationMessageOfUser: &client.ConversationMessageOfUserAlpha2{Name: &name, Content: text("ann@example.com")}},
			{ConversationMessageOfAssistant: &client.ConversationMessageOfAssistantAlpha2{Content: text("four"), ToolCalls: []*client.ConversationToolCallsAlpha2{{ID: id, ToolTypes: client.ConversationToolAlpha2{Name: name, Arguments: "{}"}}}}},
			{ConversationMessageOfTool: &client.ConversationMessageOfToolAlpha2{ToolID: &id, Name: &name, Content: text("rain")}},
		}}},
	}
	got, err := c.ConverseAlpha2(t.Context(), request)
	if err != nil || got.ContextID != "c2" || len(got.Outputs) != 1 || len(got.Outputs[0].Choices) != 1 || got.Outputs[0].Usage == nil || got.Outputs[0].Usage.TotalTokens != 28 {
		t.Fatalf("alpha2 answers %+v %v", got, err)
	}
	answer := got.Outputs[0].Choices[0]
	if answer.FinishReason != "tool_calls" || answer.Message.Content != "one\ntwo\n<EMAIL_ADDRESS>\nfour\nTool Response for tool ID '7' with name 'weather': rain" {
		t.Errorf("alpha2 answers %+v", answer.Message)
	}
	if calls := answer.Message.ToolCalls; len(calls) != 2 || calls[0].ID != "0" || calls[0].ToolTypes.Arguments != "city" || calls[1].ID != id {
		t.Errorf("alpha2 asks for %+v", calls)
	}
	choice = "other"
	if _, err := c.ConverseAlpha2(t.Context(), request); status.Code(err) != codes.InvalidArgument {
		t.Errorf("alpha2: %v", err)
	}
}
