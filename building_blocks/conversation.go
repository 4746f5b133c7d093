package blocks

import (
	"context"
	"slices"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/conversation"
	"github.com/sidecast/sidecast/conversation/scrub"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
)

// Conversation is with language models. It keeps personal data from them and from the app, where it is told to.
type Conversation struct {
	components *components.Set
	lanes      *componentLanes
}

func newConversation(d Deps, rules *rulebook) *Conversation {
	return &Conversation{
		components: d.Components,
		lanes:      newComponentLanes(d, rules, "conversation", governance.Conversation).under(conversationPolicy),
	}
}

// Private says where personal data are taken out: of which messages of a request, by their place, and of the answer.
type Private struct {
	Messages []int
	Answer   bool
}

// Converse has a component answer.
func (c *Conversation) Converse(ctx context.Context, component string, r conversation.Request, private Private) (response *conversation.Response, err error) {
	use, err := c.components.Partner(ctx, component)
	if err != nil {
		return nil, err
	}
	defer use.Release()
	const op = "converse"
	ctx, record := c.lanes.begin(ctx, use.Name, op)
	defer record.end(&err)
	defer func(began time.Time) { record.metrics.Dapr().ConversationDone(use.Name, began, err) }(time.Now())
	r.Messages = slices.Clone(r.Messages)
	for _, i := range private.Messages {
		r.Messages[i] = scrubbed(r.Messages[i])
	}
	err = c.lanes.of(use.Name).Do(ctx, resiliency.Call{Op: op}, func(ctx context.Context, _ actors.Grant) (err error) {
		response, err = use.Backend.Converse(ctx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	if private.Answer {
		for _, output := range response.Outputs {
			for i := range output.Choices {
				output.Choices[i].Text = scrub.Text(output.Choices[i].Text)
			}
		}
	}
	return response, nil
}

// scrubbed is m without the personal data of its texts and results. The arguments of calls are the model's own words.
func scrubbed(m conversation.Message) conversation.Message {
	texts := make([]string, 0, len(m.Texts))
	for _, text := range m.Texts {
		texts = append(texts, scrub.Text(text))
	}
	m.Texts, m.Results = texts, slices.Clone(m.Results)
	for i := range m.Results {
		m.Results[i].Text = scrub.Text(m.Results[i].Text)
	}
	return m
}
