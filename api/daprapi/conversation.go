package daprapi

import (
	"context"
	"net/http"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/conversation"
	"github.com/sidecast/sidecast/fault"
)

// checkConversation validates what both versions have in common.
func (s *Server) checkConversation(name string, inputs int) error {
	if found, _ := s.component(components.ConversationBlock, name); !found {
		return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_CONVERSATION_NOT_FOUND", "failed finding conversation component %s", name)
	}
	if inputs == 0 {
		return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_CONVERSATION_MISSING_INPUTS", "failed conversing with component %s: missing inputs in request", name)
	}
	return nil
}

// badConversation is the problem of a request that makes no sense. daprd has the reason after a mistake of its format.
func badConversation(name, why string) error {
	return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_CONVERSATION_INVALID_PARMS", "failed conversing with component %s: invalid params: %s", name, why)
}

// converse has the block do it. A component that failed is told of in its own words, and else the lane that refused.
func (s *Server) converse(ctx context.Context, name string, r conversation.Request, private blocks.Private) (*conversation.Response, error) {
	response, err := s.o.Blocks.Conversation.Converse(ctx, name, r, private)
	if err != nil {
		return nil, plain(http.StatusInternalServerError, codes.Internal, "ERR_CONVERSATION_INVOKE", "failed conversing with component %s: %s", name, ownWords(err)).of(err)
	}
	return response, nil
}

// ownWords is err without what the component's backend has put around what its client said.
func ownWords(err error) error {
	for {
		f, ok := err.(*fault.Error)
		if !ok || f.Err == nil {
			return err
		}
		switch f.Reason {
		case fault.BackendFailed, fault.BackendDown, fault.NotSupported, fault.BadRequest:
			err = f.Err
		default:
			return err
		}
	}
}

// saysAs are the names that alpha1 has for roles; others are the user's.
var saysAs = map[string]conversation.Role{
	"system": conversation.System, "assistant": conversation.Assistant, "ai": conversation.Assistant,
	"tool": conversation.ByTool, "function": conversation.Function, "generic": conversation.Generic,
}

//lint:ignore SA1019 alpha1 is there as long as Dapr's clients have it
func (a *api) ConverseAlpha1(ctx context.Context, in *runtimev1.ConversationRequest) (*runtimev1.ConversationResponse, error) {
	if err := a.s.checkConversation(in.GetName(), len(in.GetInputs())); err != nil {
		return nil, err
	}
	r := conversation.Request{Tools: []conversation.Tool{}, Temperature: in.GetTemperature()} // as with daprd, metadata do not go on
	private := blocks.Private{Answer: in.GetScrubPII()}
	for i, input := range in.GetInputs() {
		role, ok := saysAs[input.GetRole()]
		if !ok {
			role = conversation.User
		}
		r.Messages = append(r.Messages, conversation.Message{Role: role, Texts: []string{input.GetContent()}})
		if input.GetScrubPII() {
			private.Messages = append(private.Messages, i)
		}
	}
	response, err := a.s.converse(ctx, in.GetName(), r, private)
	if err != nil {
		return nil, err
	}
	//lint:ignore SA1019 see above
	out := &runtimev1.ConversationResponse{ContextID: unlessEmpty(in.GetContextID())}
	for _, output := range response.Outputs {
		text := ""
		if len(output.Choices) > 0 { // the one that this version has room for
			text = output.Choices[0].Text
		}
		out.Outputs = append(out.Outputs, newResult(text, in.GetParameters()))
	}
	return out, nil
}

//lint:ignore SA1019 see above
func newResult(text string, parameters map[string]*anypb.Any) *runtimev1.ConversationResult {
	//lint:ignore SA1019 see above
	return &runtimev1.ConversationResult{Result: text, Parameters: parameters}
}

func unlessEmpty(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func (a *api) ConverseAlpha2(ctx context.Context, in *runtimev1.ConversationRequestAlpha2) (*runtimev1.ConversationResponseAlpha2, error) {
	name := in.GetName()
	if err := a.s.checkConversation(name, len(in.GetInputs())); err != nil {
		return nil, err
	}
	r := conversation.Request{Metadata: in.GetMetadata(), Temperature: in.GetTemperature(), ToolChoice: in.GetToolChoice()}
	private := blocks.Private{Answer: in.GetScrubPii()}
	for _, input := range in.GetInputs() {
		for _, said := range input.GetMessages() {
			message, err := messageOf(name, said)
			if err != nil {
				return nil, err
			}
			if input.GetScrubPii() {
				private.Messages = append(private.Messages, len(r.Messages))
			}
			r.Messages = append(r.Messages, message)
		}
	}
	if format := in.GetResponseFormat(); format != nil {
		r.ResponseFormat = format.AsMap()
	}
	if retention := in.GetPromptCacheRetention(); retention != nil {
		d := retention.AsDuration()
		r.CacheRetention = &d
	}
	if err := chooseTools(name, in.GetTools(), &r); err != nil {
		return nil, err
	}
	response, err := a.s.converse(ctx, name, r, private)
	if err != nil {
		return nil, err
	}
	return answerOf(response, in.GetContextId()), nil
}

// messageOf is a message by its type, which says who speaks.
func messageOf(name string, m *runtimev1.ConversationMessage) (out conversation.Message, err error) {
	var content []*runtimev1.ConversationMessageContent
	switch said := m.GetMessageTypes().(type) {
	case *runtimev1.ConversationMessage_OfDeveloper:
		out.Role, content = conversation.User, said.OfDeveloper.GetContent()
	case *runtimev1.ConversationMessage_OfSystem:
		out.Role, content = conversation.System, said.OfSystem.GetContent()
	case *runtimev1.ConversationMessage_OfUser:
		out.Role, content = conversation.User, said.OfUser.GetContent()
	case *runtimev1.ConversationMessage_OfAssistant:
		out.Role, content = conversation.Assistant, said.OfAssistant.GetContent()
		for _, call := range said.OfAssistant.GetToolCalls() {
			if call.GetToolTypes() == nil {
				return out, badConversation(name, "tool types cannot be nil")
			}
			out.Calls = append(out.Calls, conversation.ToolCall{ID: call.GetId(), Name: call.GetFunction().GetName(), Arguments: call.GetFunction().GetArguments()})
		}
	case *runtimev1.ConversationMessage_OfTool:
		out.Role = conversation.ByTool
		for _, c := range said.OfTool.GetContent() {
			out.Results = append(out.Results, conversation.ToolResult{ID: said.OfTool.GetToolId(), Name: said.OfTool.GetName(), Text: c.GetText()})
		}
	default:
		return out, badConversation(name, "message type cannot be nil")
	}
	for _, c := range content {
		out.Texts = append(out.Texts, c.GetText())
	}
	return out, nil
}

// chooseTools sets the tools of r, and checks which of them it wants.
func chooseTools(name string, tools []*runtimev1.ConversationTools, r *conversation.Request) error {
	known := false
	for _, tool := range tools {
		f := tool.GetFunction()
		if f == nil {
			continue
		}
		known = known || f.GetName() == r.ToolChoice
		r.Tools = append(r.Tools, conversation.Tool{Name: f.GetName(), Description: f.GetDescription(), Parameters: f.GetParameters().AsMap()})
	}
	if tools != nil && r.Tools == nil {
		r.Tools = []conversation.Tool{}
	}
	switch choice := r.ToolChoice; {
	case choice == "" && len(tools) > 0:
		r.ToolChoice = "auto"
	case choice == "required" && len(tools) == 0:
		return badConversation(name, "tool choice must be 'auto', 'none', 'required', or a specific tool name matching the tools available to be used")
	case choice == "", choice == "auto", choice == "none", choice == "required", known, tools == nil:
	default:
		return badConversation(name, "tool choice selected was not found. Must be 'auto', 'none', 'required', or a specific tool name matching the tools available to be used")
	}
	return nil
}

func answerOf(response *conversation.Response, contextID string) *runtimev1.ConversationResponseAlpha2 {
	out := &runtimev1.ConversationResponseAlpha2{ContextId: unlessEmpty(contextID)}
	for _, output := range response.Outputs {
		result := &runtimev1.ConversationResultAlpha2{Usage: usageOf(response.Usage), Model: unlessEmpty(response.Model)}
		for _, choice := range output.Choices {
			message := &runtimev1.ConversationResultMessage{Content: choice.Text}
			for _, call := range choice.Calls {
				message.ToolCalls = append(message.ToolCalls, &runtimev1.ConversationToolCalls{
					Id: unlessEmpty(call.ID),
					ToolTypes: &runtimev1.ConversationToolCalls_Function{
						Function: &runtimev1.ConversationToolCallsOfFunction{Name: call.Name, Arguments: call.Arguments},
					},
				})
			}
			result.Choices = append(result.Choices, &runtimev1.ConversationResultChoices{FinishReason: choice.FinishReason, Index: choice.Index, Message: message})
		}
		out.Outputs = append(out.Outputs, result)
	}
	return out
}

func usageOf(u *conversation.Usage) *runtimev1.ConversationResultAlpha2CompletionUsage {
	if u == nil {
		return nil
	}
	out := &runtimev1.ConversationResultAlpha2CompletionUsage{CompletionTokens: u.Completion, PromptTokens: u.Prompt, TotalTokens: u.Total}
	if d := u.CompletionDetails; d != nil {
		out.CompletionTokensDetails = &runtimev1.ConversationResultAlpha2CompletionUsageCompletionTokensDetails{
			AcceptedPredictionTokens: d.AcceptedPrediction, AudioTokens: d.Audio, ReasoningTokens: d.Reasoning, RejectedPredictionTokens: d.RejectedPrediction,
		}
	}
	if d := u.PromptDetails; d != nil {
		out.PromptTokensDetails = &runtimev1.ConversationResultAlpha2CompletionUsagePromptTokensDetails{AudioTokens: d.Audio, CachedTokens: d.Cached}
	}
	return out
}

func (s *Server) converseAlpha1(w http.ResponseWriter, r *http.Request, p params) error {
	//lint:ignore SA1019 see above
	in := &runtimev1.ConversationRequest{}
	return universal(s, w, r, in, func() { in.Name = p["name"] }, (&api{s: s}).ConverseAlpha1, protojson.MarshalOptions{})
}

func (s *Server) converseAlpha2(w http.ResponseWriter, r *http.Request, p params) error {
	in := &runtimev1.ConversationRequestAlpha2{}
	return universal(s, w, r, in, func() { in.Name = p["name"] }, (&api{s: s}).ConverseAlpha2, protojson.MarshalOptions{})
}
