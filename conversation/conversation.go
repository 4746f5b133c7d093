// Package conversation is the contract of a backend that talks: a large language model, or what stands for one. The block
// Conversation stands on it.
package conversation

import (
	"context"
	"time"
)

// Partner answers messages. All methods may be called concurrently.
type Partner interface {
	// Converse answers the messages of r. It keeps nothing of them: a conversation goes on by sending what was said before again.
	Converse(ctx context.Context, r Request) (*Response, error)
	// Close returns when nothing of the partner is running any more.
	Close(ctx context.Context) error
}

// Request is what is said, and what kind of answer is wanted.
type Request struct {
	Messages []Message
	// Tools are what the partner may ask to be called; nil says nothing of tools, where an empty list says that there are none.
	Tools []Tool
	// ToolChoice is `none`, `auto`, `required` or the name of one of Tools; "" leaves it to the partner.
	ToolChoice string
	// Temperature is how much chance there is in the answer, from 0, which leaves it to the partner, to 2.
	Temperature float64
	// Metadata go on to the partner as they are.
	Metadata map[string]string
	// ResponseFormat is a JSON Schema that the answer is to follow; nil asks for none.
	ResponseFormat map[string]any
	// CacheRetention is how long the partner may keep what it has read of the messages; nil leaves it to the partner.
	CacheRetention *time.Duration
}

// Role is who says a message.
type Role string

// The roles.
const (
	User      Role = "user"
	System    Role = "system"
	Assistant Role = "assistant" // the partner itself
	ByTool    Role = "tool"
	Function  Role = "function"
	Generic   Role = "generic"
)

// Message is one of a conversation. Its parts come in the order of the fields.
type Message struct {
	Role  Role
	Texts []string
	// Calls are those that the partner asked for, in a message of an Assistant; Results what came of them.
	Calls   []ToolCall
	Results []ToolResult
}

// Tool is a function that the partner may ask to be called.
type Tool struct {
	Name, Description string
	// Parameters are a JSON Schema of its arguments.
	Parameters map[string]any
}

// ToolCall asks for a function to be called. Arguments are JSON, as the partner has written it.
type ToolCall struct{ ID, Name, Arguments string }

// ToolResult is what came of a ToolCall.
type ToolResult struct{ ID, Name, Text string }

// Response is what the partner says.
type Response struct {
	Outputs []Output
	// Model is the one that answered; "" where that is not known.
	Model string
	Usage *Usage // nil where the partner does not tell
}

// Output is an answer, of which there may be several to choose from.
type Output struct{ Choices []Choice }

// Choice is one of the answers: text, calls, or both.
type Choice struct {
	// FinishReason is why the answer ends here: `stop`, `length`, `tool_calls`, `content_filter`, or a word of the partner's own.
	FinishReason string
	Index        int64
	Text         string
	Calls        []ToolCall
}

// Usage is what the answer took, in tokens of the model.
type Usage struct {
	Completion, Prompt, Total uint64
	CompletionDetails         *CompletionDetails // nil where the partner does not tell
	PromptDetails             *PromptDetails
}

// CompletionDetails are parts of Usage.Completion.
type CompletionDetails struct{ AcceptedPrediction, Audio, Reasoning, RejectedPrediction uint64 }

// PromptDetails are parts of Usage.Prompt.
type PromptDetails struct{ Audio, Cached uint64 }
