package pluggable

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/components"
)

var (
	_ binding.Output    = (*output)(nil)
	_ binding.Input     = (*input)(nil)
	_ binding.Output    = (*both)(nil)
	_ binding.Input     = (*both)(nil)
	_ components.Ailing = (*both)(nil)
)

// output is an output binding of a program.
type output struct {
	*link      // nil where the manifest wants no output
	operations atomic.Pointer[[]string]
}

func openOutput(ctx context.Context, host components.Host, at *place, s components.Settings) (*output, error) {
	b := &output{}
	if !host.Binding.Output {
		return b, nil
	}
	var err error
	b.link, err = openLink(ctx, at.socket, at.typeOf(components.BindingBlock), proto.OutputBinding_ServiceDesc.ServiceName, host, func(ctx context.Context, conn *grpc.ClientConn) error {
		client := proto.NewOutputBindingClient(conn)
		if _, err := client.Init(ctx, &proto.OutputBindingInitRequest{Metadata: &proto.MetadataRequest{Properties: s.Values}}); err != nil {
			return err
		}
		known, err := client.ListOperations(ctx, &proto.ListOperationsRequest{})
		if err == nil {
			all := slices.Clone(known.GetOperations())
			b.operations.Store(&all)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Operations implements binding.Output.
func (b *output) Operations() []string { return *b.operations.Load() }

// Invoke implements binding.Output.
func (b *output) Invoke(ctx context.Context, r binding.Request) (*binding.Response, error) {
	return call(ctx, b.link, r.Operation, func(ctx context.Context, conn *grpc.ClientConn) (*binding.Response, error) {
		got, err := proto.NewOutputBindingClient(conn).Invoke(ctx, &proto.InvokeRequest{Operation: r.Operation, Data: slices.Clone(r.Data), Metadata: r.Metadata})
		if err != nil {
			return nil, err
		}
		return &binding.Response{Data: got.GetData(), Metadata: got.GetMetadata()}, nil
	})
}

// Close implements binding.Output.
func (b *output) Close(ctx context.Context) error { return closeLink(ctx, b.link) }

// Ailment implements components.Ailing.
func (b *output) Ailment() error { return ailmentOf(b.link) }

// input is an input binding of a program.
type input struct {
	*link // nil where the manifest wants no input
}

func openInput(ctx context.Context, host components.Host, at *place, s components.Settings) (*input, error) {
	if !host.Binding.Input {
		return &input{}, nil
	}
	l, err := openLink(ctx, at.socket, at.typeOf(components.BindingBlock), proto.InputBinding_ServiceDesc.ServiceName, host, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := proto.NewInputBindingClient(conn).Init(ctx, &proto.InputBindingInitRequest{Metadata: &proto.MetadataRequest{Properties: s.Values}})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &input{l}, nil
}

// Read implements binding.Input. A stream that breaks is opened again.
func (b *input) Read(ctx context.Context, handle binding.Handler) error {
	var busy sync.WaitGroup
	defer busy.Wait()
	held := newRoom()
	return b.stay(ctx, nil, func() (runner, error) {
		return b.begin("read", func(streaming context.Context, cancel func(), conn *grpc.ClientConn) (runner, error) {
			stream, err := proto.NewInputBindingClient(conn).Read(streaming)
			if err != nil {
				return nil, err
			}
			f := &flow[proto.ReadRequest, proto.ReadResponse]{
				stream: stream, cancel: cancel, room: held, size: func(got *proto.ReadResponse) int { return len(got.GetData()) },
				take: func(got *proto.ReadResponse) (func() *proto.ReadRequest, func()) {
					return func() *proto.ReadRequest { return handled(got, handle) }, func() {}
				},
			}
			return func(ctx context.Context) error { return f.run(ctx, &busy) }, nil
		})
	})
}

// handled is what the program is told of an event: the app's answer, or that it failed.
func handled(got *proto.ReadResponse, handle binding.Handler) *proto.ReadRequest {
	answer := &proto.ReadRequest{MessageId: got.GetMessageId()}
	data, err := handle(binding.Event{Data: got.GetData(), Metadata: got.GetMetadata()})
	if err != nil {
		answer.ResponseError = &proto.AckResponseError{Message: err.Error()}
		return answer
	}
	answer.ResponseData = data
	return answer
}

// Close implements binding.Input.
func (b *input) Close(ctx context.Context) error { return closeLink(ctx, b.link) }

// Ailment implements components.Ailing.
func (b *input) Ailment() error { return ailmentOf(b.link) }

// both is a binding of two directions: to the program they are two components.
type both struct {
	out *output
	in  *input
}

func openBoth(ctx context.Context, host components.Host, at *place, s components.Settings) (*both, error) {
	out, err := openOutput(ctx, host, at, s)
	if err != nil {
		return nil, err
	}
	in, err := openInput(ctx, host, at, s)
	if err != nil {
		_ = out.Close(ctx) // nothing runs there yet
		return nil, err
	}
	return &both{out, in}, nil
}

func (b *both) Operations() []string { return b.out.Operations() }

func (b *both) Invoke(ctx context.Context, r binding.Request) (*binding.Response, error) {
	return b.out.Invoke(ctx, r)
}

func (b *both) Read(ctx context.Context, handle binding.Handler) error { return b.in.Read(ctx, handle) }

func (b *both) Close(ctx context.Context) error {
	return errors.Join(b.in.Close(ctx), b.out.Close(ctx))
}

func (b *both) Ailment() error { return errors.Join(b.out.Ailment(), b.in.Ailment()) }

func closeLink(ctx context.Context, l *link) error {
	if l == nil {
		return nil
	}
	return l.Close(ctx)
}

func ailmentOf(l *link) error {
	if l == nil {
		return nil
	}
	return l.Ailment()
}
