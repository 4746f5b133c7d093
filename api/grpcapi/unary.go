package grpcapi

import (
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/fault"
)

// bounded returns desc with its unary methods as streams of one message each way, which are the same on the wire: so the
// gate and the budget of bodies are asked before a request is read, and not when it is in memory already. grpc-go calls
// them as it calls unary ones, without the stream interceptor.
func bounded(desc *grpc.ServiceDesc, g *gate) *grpc.ServiceDesc {
	d := *desc
	d.Methods, d.Streams = nil, slices.Clone(desc.Streams)
	for _, m := range desc.Methods {
		info := &grpc.StreamServerInfo{FullMethod: "/" + desc.ServiceName + "/" + m.MethodName}
		once := func(srv any, stream grpc.ServerStream) error { return g.once(srv, stream, info.FullMethod, m.Handler) }
		d.Streams = append(d.Streams, grpc.StreamDesc{StreamName: m.MethodName, Handler: func(srv any, stream grpc.ServerStream) error {
			return g.stream(srv, stream, info, once)
		}})
	}
	return &d
}

// once reads the request of a unary call, handles it and sends the answer.
func (g *gate) once(srv any, stream grpc.ServerStream, method string, handle grpc.MethodHandler) error {
	share := g.bodies.Open()
	defer share.Close()
	ctx := share.Context(stream.Context())
	answer, err := handle(srv, ctx, func(request any) error {
		return share.Read(ctx, method, func() (int, error) {
			if err := stream.RecvMsg(request); err != nil {
				return 0, err
			}
			return g.measure(method, request)
		})
	}, nil)
	if err != nil {
		return err
	}
	return stream.SendMsg(answer)
}

// measure is the size of a request, or a refusal of one whose body is over the limit.
func (g *gate) measure(method string, request any) (int, error) {
	body, ok := request.(interface{ GetData() []byte })
	if !ok {
		return proto.Size(request.(proto.Message)), nil
	}
	size := len(body.GetData())
	if size > g.maxBody {
		return 0, fault.New(method, fault.BodyTooLarge, "the body has %d bytes; this sidecar takes %d", size, g.maxBody)
	}
	return size, nil
}
