package contrib

import (
	"context"
	"maps"

	contribconversation "github.com/dapr/components-contrib/conversation"
	"github.com/dapr/components-contrib/conversation/echo"
	"github.com/dapr/components-contrib/conversation/langchaingokit"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	"github.com/dapr/kit/logger"
	"github.com/tmc/langchaingo/llms"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/conversation"
)

// conversations are those of the default build. Those of builds with the tag all_components are in allConversations.
var conversations = []components.Component{
	conversationOf("echo", "Says what it is told, and asks for every tool: for tests.", modelFields, echo.NewEcho),
}

// modelFields are what manifests of models have, in whose place they may name the echo. It takes nothing of them.
func modelFields() []components.Field {
	const doc = "Does nothing: it is for manifests that name the echo in the place of a model."
	return []components.Field{field("key", "string", doc, hidden), field("model", "string", doc), field("endpoint", "string", doc), field("responseCacheTTL", "string", doc, also("cacheTTL"))}
}

// conversationOf makes a component of one of the library's. Options say what is particular to it: toolsAsText.
func conversationOf(product, doc string, fields func() []components.Field, make func(logger.Logger) contribconversation.Conversation, options ...func(*partner)) components.Component {
	return components.Foreign(components.ConversationBlock, product, doc, fields, openPartner(product, make, options))
}

func openPartner(product string, make func(logger.Logger) contribconversation.Conversation, options []func(*partner)) func(context.Context, components.Host, components.Settings) (*partner, error) {
	return func(ctx context.Context, host components.Host, s components.Settings) (*partner, error) {
		p := newPartner("conversation."+product, host, make(newLogs(host.Log, nil)))
		for _, option := range options {
			option(p)
		}
		err := initialize(ctx, p.life, p.inner, func() error {
			return p.inner.Init(ctx, contribconversation.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: maps.Clone(s.Values)}})
		})
		if err != nil {
			return nil, badOpen(ctx, p.name+": open", s, err)
		}
		return p, nil
	}
}

// toolsAsText is for a component that understands calls of tools and their results as text alone, as daprd knows of Mistral's.
func toolsAsText(p *partner) { p.toolsAsText = true }

// partner makes a conversation component of the library one of ours.
type partner struct {
	name        string // the component's type
	inner       contribconversation.Conversation
	life        *life
	out         chan struct{} // holds one for each request that the library is at, maybe for nobody any more
	toolsAsText bool
}

var _ conversation.Partner = (*partner)(nil)

func newPartner(name string, host components.Host, inner contribconversation.Conversation) *partner {
	return &partner{name: name, inner: inner, life: newLife(host.Log), out: make(chan struct{}, mostOut)}
}

// Converse implements conversation.Partner.
func (p *partner) Converse(ctx context.Context, r conversation.Request) (*conversation.Response, error) {
	op := p.name + ": converse"
	calling, leave, err := p.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	request := p.request(r)
	answer, err := bounded(calling, p.life, p.out, func() (*contribconversation.Response, error) { return p.inner.Converse(calling, request) })
	if err != nil {
		return nil, p.life.failure(ctx, op, err)
	}
	return responseOf(answer), nil
}

// Close implements conversation.Partner.
func (p *partner) Close(ctx context.Context) error {
	return p.life.close(ctx, p.name+": close", p.inner.Close)
}

// request is r in the library's words. Nothing of r is shared: the library may be at it for longer than the caller waits.
func (p *partner) request(r conversation.Request) *contribconversation.Request {
	messages := make([]llms.MessageContent, 0, len(r.Messages))
	for _, m := range r.Messages {
		messages = append(messages, p.message(m))
	}
	request := &contribconversation.Request{
		Message: &messages, Temperature: r.Temperature, Metadata: maps.Clone(r.Metadata), ResponseFormatAsJSONSchema: r.ResponseFormat,
		PromptCacheRetention: r.CacheRetention,
	}
	if r.ToolChoice != "" {
		request.ToolChoice = &r.ToolChoice
	}
	if r.Tools != nil {
		tools := make([]llms.Tool, 0, len(r.Tools))
		for _, t := range r.Tools {
			tools = append(tools, llms.Tool{Type: "function", Function: &llms.FunctionDefinition{Name: t.Name, Description: t.Description, Parameters: t.Parameters}})
		}
		request.Tools = &tools
	}
	return request
}

// rolesOf are the library's.
var rolesOf = map[conversation.Role]llms.ChatMessageType{
	conversation.User: llms.ChatMessageTypeHuman, conversation.System: llms.ChatMessageTypeSystem, conversation.Assistant: llms.ChatMessageTypeAI,
	conversation.ByTool: llms.ChatMessageTypeTool, conversation.Function: llms.ChatMessageTypeFunction, conversation.Generic: llms.ChatMessageTypeGeneric,
}

func (p *partner) message(m conversation.Message) llms.MessageContent {
	var parts []llms.ContentPart
	for _, text := range m.Texts {
		parts = append(parts, llms.TextContent{Text: text})
	}
	for _, c := range m.Calls {
		call := llms.ToolCall{ID: c.ID, Type: "function", FunctionCall: &llms.FunctionCall{Name: c.Name, Arguments: c.Arguments}}
		if p.toolsAsText {
			parts = append(parts, langchaingokit.CreateToolCallPart(&call))
		} else {
			parts = append(parts, call)
		}
	}
	var results []llms.ContentPart
	for _, r := range m.Results {
		results = append(results, llms.ToolCallResponse{ToolCallID: r.ID, Name: r.Name, Content: r.Text})
	}
	if p.toolsAsText && len(results) > 0 {
		return langchaingokit.CreateToolResponseMessage(results...)
	}
	return llms.MessageContent{Role: rolesOf[m.Role], Parts: append(parts, results...)}
}

// responseOf is what the library says in words of ours.
func responseOf(answer *contribconversation.Response) *conversation.Response {
	response := &conversation.Response{}
	if answer == nil {
		return response
	}
	response.Model, response.Usage = answer.Model, usageOf(answer.Usage)
	for _, o := range answer.Outputs {
		output := conversation.Output{}
		for _, c := range o.Choices {
			choice := conversation.Choice{FinishReason: c.FinishReason, Index: c.Index, Text: c.Message.Content}
			if calls := c.Message.ToolCallRequest; calls != nil {
				for _, call := range *calls {
					asked := conversation.ToolCall{ID: call.ID}
					if f := call.FunctionCall; f != nil {
						asked.Name, asked.Arguments = f.Name, f.Arguments
					}
					choice.Calls = append(choice.Calls, asked)
				}
			}
			output.Choices = append(output.Choices, choice)
		}
		response.Outputs = append(response.Outputs, output)
	}
	return response
}

func usageOf(u *contribconversation.Usage) *conversation.Usage {
	if u == nil {
		return nil
	}
	usage := &conversation.Usage{Completion: u.CompletionTokens, Prompt: u.PromptTokens, Total: u.TotalTokens}
	if d := u.CompletionTokensDetails; d != nil {
		usage.CompletionDetails = &conversation.CompletionDetails{
			AcceptedPrediction: d.AcceptedPredictionTokens, Audio: d.AudioTokens, Reasoning: d.ReasoningTokens, RejectedPrediction: d.RejectedPredictionTokens,
		}
	}
	if d := u.PromptTokensDetails; d != nil {
		usage.PromptDetails = &conversation.PromptDetails{Audio: d.AudioTokens, Cached: d.CachedTokens}
	}
	return usage
}
