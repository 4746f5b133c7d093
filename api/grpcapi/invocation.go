package grpcapi

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"

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
}

func (s *invocationServer) Invoke(ctx context.Context, in *sidecastv1.InvokeRequest) (*sidecastv1.InvokeResponse, error) {
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
	up := &upload{stream: stream, frames: make(chan uploaded)}
	go up.read() // ends with the RPC: its Recv returns when this handler has
	return s.invocation.Stream(stream.Context(), req, func(ctx context.Context, to call.ClientStream) error {
		return relay(ctx, up, to)
	})
}

// relay makes one attempt: it copies both directions until the answer has ended.
func relay(ctx context.Context, up *upload, to call.ClientStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := up.copy(ctx, to); err != nil {
			cancel(err)
		}
	}()
	err := relayDown(ctx, up, to)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	cancel(nil)
	<-sent
	return up.judge(err)
}

// maxReplay is how much of a request is kept for an attempt that follows one which never began.
const maxReplay = 64 << 10

// upload is the caller's side of a stream: one goroutine reads it, whatever attempts the lane makes. What an attempt took
// is kept for the next, up to a bound; beyond it, or once the answer has begun, there is no next.
type upload struct {
	stream sidecastv1.Invocation_InvokeStreamServer
	frames chan uploaded

	begun atomic.Bool // an answer was passed on

	// These belong to the attempt that runs.
	taken []uploaded
	size  int
	spent bool // taken is no longer all
}

// uploaded is a chunk of the request, or err, its end: io.EOF when it is complete.
type uploaded struct {
	data []byte
	err  error
}

func (u *upload) read() {
	for {
		frame, err := u.stream.Recv()
		if err == nil && frame.GetOpen() != nil {
			err = fault.New("invoke stream", fault.BadRequest, "`open` came twice; after the first message send `data`")
		}
		select {
		case u.frames <- uploaded{frame.GetData(), err}:
		case <-u.stream.Context().Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// copy sends the request from its beginning.
func (u *upload) copy(ctx context.Context, to call.ClientStream) error {
	for _, frame := range u.taken {
		if done, err := frame.send(ctx, to); done {
			return err
		}
	}
	for {
		select {
		case frame := <-u.frames:
			u.keep(frame)
			if done, err := frame.send(ctx, to); done {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (u *upload) keep(frame uploaded) {
	u.size += len(frame.data)
	if u.spent = u.spent || u.size > maxReplay || u.begun.Load(); u.spent {
		u.taken = nil
		return
	}
	u.taken = append(u.taken, frame)
}

func (f uploaded) send(ctx context.Context, to call.ClientStream) (done bool, err error) {
	switch {
	case errors.Is(f.err, io.EOF):
		return true, to.CloseSend(ctx)
	case f.err != nil:
		return true, f.err
	}
	if err := to.Send(ctx, f.data); errors.Is(err, io.EOF) {
		return true, nil // the handler has returned without reading all: its answer is what counts
	} else if err != nil {
		return true, err
	}
	return false, nil
}

// judge keeps a lane from a further attempt that could not be the same call.
func (u *upload) judge(err error) error {
	if (u.spent || u.begun.Load()) && fault.NotSent(err) {
		return fault.E("invoke stream", fault.KindOf(err), fault.StreamBroken, err)
	}
	return err
}

func relayDown(ctx context.Context, up *upload, to call.ClientStream) error {
	from := up.stream
	header, err := to.Header(ctx)
	if err != nil {
		return err
	}
	up.begun.Store(true)
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
		Header:      headerOf(in.GetMetadata()),
		Body:        in.GetData(),
		Idempotent:  in.GetIdempotent(),
	}
	carryTrace(ctx, &req.Header)
	return req
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
