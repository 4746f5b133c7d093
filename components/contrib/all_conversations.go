//go:build all_components

package contrib

import (
	contribconversation "github.com/dapr/components-contrib/conversation"
	"github.com/dapr/components-contrib/conversation/anthropic"
	"github.com/dapr/components-contrib/conversation/aws/bedrock"
	"github.com/dapr/components-contrib/conversation/deepseek"
	"github.com/dapr/components-contrib/conversation/googleai"
	"github.com/dapr/components-contrib/conversation/huggingface"
	"github.com/dapr/components-contrib/conversation/mistral"
	"github.com/dapr/components-contrib/conversation/ollama"
	"github.com/dapr/components-contrib/conversation/openai"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
)

// allConversations are in builds with the tag all_components alone.
var allConversations = []components.Component{
	plainConversation("anthropic", anthropic.NewAnthropic),
	plainConversation("aws.bedrock", bedrock.NewAWSBedrock),
	plainConversation("deepseek", deepseek.NewDeepseek),
	plainConversation("googleai", googleai.NewGoogleAI),
	plainConversation("huggingface", huggingface.NewHuggingface),
	plainConversation("mistral", mistral.NewMistral, toolsAsText),
	plainConversation("ollama", ollama.NewOllama),
	plainConversation("openai", openai.NewOpenAI),
}

// plainConversation makes a component that is known by what it says of itself.
func plainConversation(product string, make func(logger.Logger) contribconversation.Conversation, options ...func(*partner)) components.Component {
	d := described{block: components.ConversationBlock, product: product, own: func() any { return make(logs{log: unheard}) }}
	return components.Described(d.block, product, d.doc, d.fields, openPartner(product, make, options))
}
