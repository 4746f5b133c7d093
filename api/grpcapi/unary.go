package grpcapi

import (
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/fault"
)

// bounded returns desc with the gate and the budget of bodies before its unary methods.
func bounded(desc *grpc.ServiceDesc, g *gate) *grpc.ServiceDesc {
	return g.bodies.Unary(desc, func(method string, once grpc.StreamHandler) grpc.StreamHandler {
		info := &grpc.StreamServerInfo{FullMethod: method}
		return func(srv any, stream grpc.ServerStream) error { return g.stream(srv, stream, info, once) }
	}, g.measure)
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
