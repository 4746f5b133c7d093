package bodies

import (
	"slices"

	"google.golang.org/grpc"
)

// Unary returns desc with its unary methods as streams of one message each way, which are the same on the wire: so around
// and the budget are asked before a request is read, and not when it is in memory already. grpc-go calls them as it calls
// unary ones, without the stream interceptor: around is given each method to put around it what the interceptor would have
// done. measure is the size of a request, or a refusal.
func (b *Budget) Unary(desc *grpc.ServiceDesc, around func(method string, once grpc.StreamHandler) grpc.StreamHandler,
	measure func(method string, request any) (int, error)) *grpc.ServiceDesc {
	d := *desc
	d.Methods, d.Streams = nil, slices.Clone(desc.Streams)
	for _, m := range desc.Methods {
		method := "/" + desc.ServiceName + "/" + m.MethodName
		once := func(srv any, stream grpc.ServerStream) error { return b.once(srv, stream, method, m.Handler, measure) }
		d.Streams = append(d.Streams, grpc.StreamDesc{StreamName: m.MethodName, Handler: around(method, once)})
	}
	return &d
}

// once reads the request of a unary call, handles it and sends the answer.
func (b *Budget) once(srv any, stream grpc.ServerStream, method string, handle grpc.MethodHandler,
	measure func(method string, request any) (int, error)) error {
	share := b.Open()
	defer share.Close()
	ctx := share.Context(stream.Context())
	answer, err := handle(srv, ctx, func(request any) error {
		return share.Read(ctx, method, func() (int, error) {
			if err := stream.RecvMsg(request); err != nil {
				return 0, err
			}
			return measure(method, request)
		})
	}, nil)
	if err != nil {
		return err
	}
	return stream.SendMsg(answer)
}
