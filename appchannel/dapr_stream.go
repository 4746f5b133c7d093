package appchannel

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/grpcweb"
	"github.com/sidecast/sidecast/fault"
)

// Stream makes a gRPC call that came over the fabric. The caller's goroutine carries the answer, one more the request. What
// is no gRPC call is the large body of an HTTP caller, who cannot know that the app has no streams of bytes.
func (d *Dapr) Stream(ctx context.Context, req *call.Request, to call.ServerStream) error {
	op := "invoke " + req.Method
	if !grpcweb.Is(req.ContentType) {
		return d.gathered(ctx, op, req, to)
	}
	if err := d.port.begin(ctx, op); err != nil {
		return err
	}
	defer d.port.end()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var from peer.Peer
	wire, err := d.calls.NewStream(d.outgoing(ctx, req.Header, d.caller(req)...), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
		"/"+strings.TrimPrefix(req.Method, "/"), grpc.ForceCodecV2(rawCodec{}), grpc.Peer(&from))
	if err != nil {
		return d.failed(ctx, op, &from, err)
	}
	var broken error // of the caller; read it after sent
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if err := sendFrames(ctx, wire, to); err != nil && ctx.Err() == nil { // what comes of the end of ctx is no reason for it
			broken = err
			stop()
		}
	}()
	err = d.receiveFrames(ctx, op, &from, wire, to)
	stop()
	<-sent
	if err != nil && broken != nil {
		return broken
	}
	return err
}

// gathered makes one OnInvoke of a body that comes in pieces.
func (d *Dapr) gathered(ctx context.Context, op string, req *call.Request, to call.ServerStream) error {
	whole := *req
	for {
		chunk, err := to.Recv(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if int64(len(whole.Body)+len(chunk)) > d.port.MaxBody {
			return fault.New(op, fault.BodyTooLarge, "a body of more than the %d bytes that this sidecar accepts", d.port.MaxBody)
		}
		whole.Body = append(whole.Body, chunk...)
	}
	resp, err := d.Invoke(ctx, &whole)
	if err != nil {
		return err
	}
	body := resp.Body
	resp.Body = nil
	if err := to.Answer(ctx, resp); err != nil || len(body) == 0 {
		return err
	}
	return to.Send(ctx, body)
}

func sendFrames(ctx context.Context, wire grpc.ClientStream, from call.ServerStream) error {
	frames := grpcweb.Reader{From: from}
	for {
		payload, trailers, err := frames.Next(ctx)
		if errors.Is(err, io.EOF) || trailers {
			return wire.CloseSend()
		}
		if err != nil {
			return err
		}
		if wire.SendMsg(&payload) != nil {
			return nil // the call has ended; its status is what the receiving side gets
		}
	}
}

// receiveFrames passes the answer on: header, messages, and how it ended.
func (d *Dapr) receiveFrames(ctx context.Context, op string, from *peer.Peer, wire grpc.ClientStream, to call.ServerStream) error {
	head, err := wire.Header()
	if err == nil && head != nil {
		if err := to.Answer(ctx, &call.Response{ContentType: grpcweb.ContentType, Header: headerOf(head)}); err != nil {
			return err
		}
	}
	for {
		var frame grpcweb.Frame
		err := wire.RecvMsg(&frame)
		if err == nil {
			if err := to.Send(ctx, frame); err != nil {
				return err
			}
			continue
		}
		end := grpcweb.Trailers{Fields: headerOf(wire.Trailer())}
		if !errors.Is(err, io.EOF) {
			s, _ := status.FromError(err)
			if ctx.Err() != nil || s.Code() == codes.Unavailable && from.Addr == nil {
				return d.failed(ctx, op, from, err)
			}
			end.Code, end.Message = uint32(s.Code()), s.Message()
			if len(s.Proto().GetDetails()) > 0 {
				end.Details, _ = proto.Marshal(s.Proto())
			}
		}
		return to.Send(ctx, end.Frame())
	}
}

// rawCodec passes messages on as they are: it writes a *[]byte and reads a *grpcweb.Frame.
type rawCodec struct{}

var _ encoding.CodecV2 = rawCodec{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	frame := grpcweb.Blank(data.Len())
	data.CopyTo(frame.Payload())
	*v.(*grpcweb.Frame) = frame
	return nil
}
