package blocks

import (
	"context"
	"reflect"
	"sync"
	"testing"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/conversation"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/keyring"
)

// parrot says what it was told, after it has failed as often as it is to.
type parrot struct {
	mu    sync.Mutex
	fails int
	asked int
}

func (p *parrot) Converse(_ context.Context, r conversation.Request) (*conversation.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked++; p.asked <= p.fails {
		return nil, fault.New("parrot", fault.BackendFailed, "it has nothing to say")
	}
	response := &conversation.Response{}
	for _, m := range r.Messages {
		output := conversation.Output{}
		for _, text := range m.Texts {
			output.Choices = append(output.Choices, conversation.Choice{Text: text})
		}
		for _, result := range m.Results {
			output.Choices = append(output.Choices, conversation.Choice{Text: result.Text})
		}
		response.Outputs = append(response.Outputs, output)
	}
	return response, nil
}

func (p *parrot) tries() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (*parrot) Close(context.Context) error { return nil }

// wrapper is a keyring that can do no more than it must.
type wrapper struct{}

func (wrapper) Wrap(_ context.Context, key []byte, _ keyring.With) (wrapped, tag []byte, err error) {
	return key, nil, nil
}
func (wrapper) Unwrap(_ context.Context, wrapped, _ []byte, _ keyring.With) ([]byte, error) {
	return wrapped, nil
}
func (wrapper) Close(context.Context) error { return nil }

func talking(t *testing.T, p *parrot) *Blocks {
	t.Helper()
	known := []components.Component{
		components.Foreign(components.ConversationBlock, "parrot", "A test.", nil, func(context.Context, components.Host, components.Settings) (*parrot, error) { return p, nil }),
		components.Foreign(components.CryptoBlock, "wrapper", "A test.", nil, func(context.Context, components.Host, components.Settings) (wrapper, error) { return wrapper{}, nil }),
	}
	return sidecarKnowing(t, t.TempDir(), "app", &testApp{}, known, &components.Documents{Components: []components.Manifest{
		{Name: "parrot", Type: "conversation.parrot"}, {Name: "keys", Type: "crypto.wrapper"},
	}})
}

func textsOf(r *conversation.Response) (all []string) {
	for _, o := range r.Outputs {
		for _, c := range o.Choices {
			all = append(all, c.Text)
		}
	}
	return all
}

func TestPersonalDataAreKept(t *testing.T) {
	b := talking(t, &parrot{})
	said := conversation.Request{Messages: []conversation.Message{
		{Role: conversation.User, Texts: []string{"ann@example.com", "hello"}}, {Role: conversation.User, Texts: []string{"bob@example.com"}},
		{Role: conversation.ByTool, Results: []conversation.ToolResult{{Text: "carol@example.com"}}},
	}}
	for _, c := range []struct {
		private Private
		want    []string
	}{
		{Private{}, []string{"ann@example.com", "hello", "bob@example.com", "carol@example.com"}},
		{Private{Messages: []int{0, 2}}, []string{"<EMAIL_ADDRESS>", "hello", "bob@example.com", "<EMAIL_ADDRESS>"}},
		{Private{Answer: true}, []string{"<EMAIL_ADDRESS>", "hello", "<EMAIL_ADDRESS>", "<EMAIL_ADDRESS>"}},
	} {
		got, err := b.Conversation.Converse(t.Context(), "parrot", said, c.private)
		if err != nil {
			t.Fatal(err)
		}
		if texts := textsOf(got); !reflect.DeepEqual(texts, c.want) {
			t.Errorf("%+v: %q", c.private, texts)
		}
	}
	if said.Messages[0].Texts[0] != "ann@example.com" || said.Messages[2].Results[0].Text != "carol@example.com" {
		t.Error("the caller's request has changed")
	}
	_, err := b.Conversation.Converse(t.Context(), "nobody", said, Private{})
	wantReason(t, err, fault.ComponentNotFound)
}

// A conversation costs: it is repeated where a document says so, and not otherwise.
func TestConversationsAreRepeatedAsDocumentsSay(t *testing.T) {
	p := &parrot{fails: 2}
	b := talking(t, p)
	_, err := b.Conversation.Converse(t.Context(), "parrot", conversation.Request{}, Private{})
	if wantReason(t, err, fault.BackendFailed); p.tries() != 1 {
		t.Errorf("asked %d times", p.tries())
	}
	b.SetRules(rules(t, `
  policies:
    retries: {DefaultConversationComponentOutboundRetryPolicy: {policy: constant, duration: 1ms, maxRetries: 5}}
`))
	if _, err := b.Conversation.Converse(t.Context(), "parrot", conversation.Request{}, Private{}); err != nil || p.tries() != 3 {
		t.Errorf("asked %d times: %v", p.tries(), err)
	}
}

func TestAKeyringThatOnlyWraps(t *testing.T) {
	c, ctx := talking(t, &parrot{}).Crypto, t.Context()
	if wrapped, _, err := c.Wrap(ctx, "keys", []byte("key"), keyring.With{}); err != nil || string(wrapped) != "key" {
		t.Errorf("%q %v", wrapped, err)
	}
	_, _, err := c.Seal(ctx, "keys", nil, keyring.With{})
	wantReason(t, err, fault.NotSupported)
	_, err = c.Open(ctx, "keys", nil, nil, keyring.With{})
	wantReason(t, err, fault.NotSupported)
	_, err = c.Sign(ctx, "keys", nil, keyring.With{})
	wantReason(t, err, fault.NotSupported)
	_, err = c.Verify(ctx, "keys", nil, nil, keyring.With{})
	wantReason(t, err, fault.NotSupported)
	_, err = c.PublicKey(ctx, "keys", "rsa")
	wantReason(t, err, fault.NotSupported)
}
