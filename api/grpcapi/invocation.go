package grpcapi

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/sidecast/sidecast/api/bodies"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// carried are the metadata keys of the RPC itself that go with a call: W3C trace context and baggage.
var carried = [...]string{"traceparent", "tracestate", "baggage"}

type invocationServer struct {
	sidecastv1.UnimplementedInvocationServer
	invocation *blocks.Invocation
	bodies     *bodies.Budget
}

func (s *invocationServer) Invoke(ctx context.Context, in *sidecastv1.InvokeRequest) (*sidecastv1.InvokeResponse, error) {
	req, err := requestOf(ctx, in)
	if err != nil {
		return nil, err
	}
	resp, err := s.invocation.Invoke(ctx, req)
	if err != nil {
		return nil, err
	}
	return responseTo(resp), nil
}

func (s *invocationServer) InvokeStream(stream sidecastv1.Invocation_InvokeStreamServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetOpen() == nil {
		return fault.New("invoke stream", fault.BadRequest, "the first message must be `open`, naming app and method")
	}
	req, err := requestOf(stream.Context(), first.GetOpen())
	if err != nil {
		return err
	}
	req.Body = nil
	share := s.bodies.Open()
	defer share.Close()
	if err := share.Enter(stream.Context(), "invoke stream"); err != nil {
		return err
	}
	return s.invocation.Relay(share.Context(stream.Context()), req, blocks.Exchange{
		Next: func() ([]byte, error) {
			frame, err := stream.Recv()
			if err == nil && frame.GetOpen() != nil {
				err = fault.New("invoke stream", fault.BadRequest, "`open` came twice; after the first message send `data`")
			}
			return frame.GetData(), err
		},
		Header: func(header *call.Response) error {
			return stream.Send(&sidecastv1.InvokeStreamResponse{
				Frame: &sidecastv1.InvokeStreamResponse_Header{Header: responseTo(header)},
			})
		},
		Chunk: func(chunk []byte) error {
			return stream.Send(&sidecastv1.InvokeStreamResponse{Frame: &sidecastv1.InvokeStreamResponse_Data{Data: chunk}})
		},
	})
}

func requestOf(ctx context.Context, in *sidecastv1.InvokeRequest) (*call.Request, error) {
	if in.GetMethod() == "" {
		return nil, fault.New("invoke "+in.GetAppId(), fault.BadRequest, "method is empty: name the method to call")
	}
	req := &call.Request{
		App:         in.GetAppId(),
		Method:      methodOf(in.GetMethod()),
		Verb:        in.GetHttpVerb(),
		Query:       in.GetHttpQuery(),
		ContentType: in.GetContentType(),
		Header:      headerOf(in.GetMetadata()),
		Body:        in.GetData(),
		Idempotent:  in.GetIdempotent(),
	}
	carryTrace(ctx, &req.Header)
	return req, nil
}

// headerOf takes the metadata of a call over. Its keys become lower case; what only the runtime may say is left out.
func headerOf(metadata map[string]string) call.Header {
	header := make(call.Header, 0, len(metadata)+len(carried))
	for key, value := range metadata {
		if key = strings.ToLower(key); !strings.HasPrefix(key, "sidecast-") {
			header = append(header, call.Field{Key: key, Value: value})
		}
	}
	return header
}

// methodOf takes the leading slash off a path; the root of an HTTP app stays "/".
func methodOf(method string) string {
	if len(method) > 1 {
		return strings.TrimPrefix(method, "/")
	}
	return method
}

// carryTrace adds the RPC's own trace context to header unless the message brought one.
func carryTrace(ctx context.Context, header *call.Header) {
	for _, key := range carried {
		if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 && header.Get(key) == "" {
			header.Add(key, values[0])
		}
	}
}

func responseTo(resp *call.Response) *sidecastv1.InvokeResponse {
	return &sidecastv1.InvokeResponse{
		Data:        resp.Body,
		ContentType: resp.ContentType,
		Metadata:    resp.Header.Map(),
		HttpStatus:  int32(resp.Status),
	}
}
