package grpcapi

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc/metadata"

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
	maxBody    int64
}

func (s *invocationServer) Invoke(ctx context.Context, in *sidecastv1.InvokeRequest) (*sidecastv1.InvokeResponse, error) {
	if int64(len(in.GetData())) > s.maxBody {
		return nil, fault.New("invoke "+in.GetAppId(), fault.BodyTooLarge, "the body has %d bytes; this sidecar takes %d", len(in.GetData()), s.maxBody)
	}
	req := requestOf(ctx, in)
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
	req := requestOf(stream.Context(), first.GetOpen())
	req.Body = nil
	return s.invocation.Stream(stream.Context(), req, func(ctx context.Context, to call.ClientStream) error {
		return relay(ctx, stream, to)
	})
}

// relay copies both directions until the answer has ended.
func relay(ctx context.Context, from sidecastv1.Invocation_InvokeStreamServer, to call.ClientStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	up := make(chan struct{})
	go func() {
		defer close(up)
		if err := relayUp(ctx, from, to); err != nil {
			cancel(err)
		}
	}()
	err := relayDown(ctx, from, to)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	if err != nil {
		return err
	}
	_ = up // ends with the RPC: its Recv returns when this handler has
	return nil
}

func relayUp(ctx context.Context, from sidecastv1.Invocation_InvokeStreamServer, to call.ClientStream) error {
	for {
		frame, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return to.CloseSend(ctx)
		}
		if err != nil {
			return err
		}
		if frame.GetOpen() != nil {
			return fault.New("invoke stream", fault.BadRequest, "`open` came twice; after the first message send `data`")
		}
		if err := to.Send(ctx, frame.GetData()); err != nil {
			return err
		}
	}
}

func relayDown(ctx context.Context, from sidecastv1.Invocation_InvokeStreamServer, to call.ClientStream) error {
	header, err := to.Header(ctx)
	if err != nil {
		return err
	}
	if err := from.Send(&sidecastv1.InvokeStreamResponse{
		Frame: &sidecastv1.InvokeStreamResponse_Header{Header: responseTo(header)},
	}); err != nil {
		return err
	}
	for {
		chunk, err := to.Recv(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := from.Send(&sidecastv1.InvokeStreamResponse{Frame: &sidecastv1.InvokeStreamResponse_Data{Data: chunk}}); err != nil {
			return err
		}
	}
}

func requestOf(ctx context.Context, in *sidecastv1.InvokeRequest) *call.Request {
	req := &call.Request{
		App:         in.GetAppId(),
		Method:      methodOf(in.GetMethod()),
		Verb:        in.GetHttpVerb(),
		Query:       in.GetHttpQuery(),
		ContentType: in.GetContentType(),
		Header:      call.HeaderOf(in.GetMetadata()),
		Body:        in.GetData(),
		Idempotent:  in.GetIdempotent(),
	}
	carryTrace(ctx, &req.Header)
	return req
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
