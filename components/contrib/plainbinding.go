package contrib

import (
	"context"

	contribbindings "github.com/dapr/components-contrib/bindings"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
)

// plainOutput, plainInput and plainTwoWay make components of bindings of which no more is known than what they say themselves:
// settings makes changes to the others.

func plainOutput[B contribbindings.OutputBinding](name string, make func(logger.Logger) B) components.Component {
	s := &system{name: "bindings." + name, output: func(l logger.Logger) contribbindings.OutputBinding { return make(l) }}
	d := described{block: components.BindingBlock, product: name, own: func() any { return make(logs{log: unheard}) }}
	return components.Described(d.block, name, d.doc, d.fields, s.openOutput)
}

func plainInput[B contribbindings.InputBinding](name string, make func(logger.Logger) B) components.Component {
	s := &system{name: "bindings." + name, input: func(l logger.Logger) contribbindings.InputBinding { return make(l) }}
	d := described{block: components.BindingBlock, product: name, own: func() any { return make(logs{log: unheard}) }}
	return components.Described(d.block, name, d.doc, d.fields, s.openInput)
}

func plainTwoWay[B contribbindings.InputOutputBinding](name string, make func(logger.Logger) B) components.Component {
	s := &system{
		name:   "bindings." + name,
		output: func(l logger.Logger) contribbindings.OutputBinding { return make(l) },
		input:  func(l logger.Logger) contribbindings.InputBinding { return make(l) },
	}
	d := described{block: components.BindingBlock, product: name, own: func() any { return make(logs{log: unheard}) }}
	return components.Described(d.block, name, d.doc, d.fields, s.openBoth)
}

var (
	_ binding.Output = (*twoWayBinding)(nil)
	_ binding.Input  = (*twoWayBinding)(nil)
)

// twoWayBinding is a system in both directions: as far as the manifest wants them.
type twoWayBinding struct {
	out *outputBinding
	in  *inputBinding
}

func (s *system) openBoth(ctx context.Context, host components.Host, settings components.Settings) (*twoWayBinding, error) {
	out, err := s.openOutput(ctx, host, settings)
	if err != nil {
		return nil, err
	}
	in, err := s.openInput(ctx, host, settings)
	if err != nil {
		_ = out.Close(ctx) // what it fails with is not what is wrong
		return nil, err
	}
	return &twoWayBinding{out, in}, nil
}

// Operations implements binding.Output.
func (b *twoWayBinding) Operations() []string { return b.out.Operations() }

// Invoke implements binding.Output.
func (b *twoWayBinding) Invoke(ctx context.Context, r binding.Request) (*binding.Response, error) {
	return b.out.Invoke(ctx, r)
}

// Read implements binding.Input.
func (b *twoWayBinding) Read(ctx context.Context, handle binding.Handler) error {
	return b.in.Read(ctx, handle)
}

// Close implements both.
func (b *twoWayBinding) Close(ctx context.Context) error {
	err := b.in.Close(ctx)
	if other := b.out.Close(ctx); err == nil {
		err = other
	}
	return err
}
