package daprapi

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that codec stands on
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/grpcweb"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

// codec speaks protobuf. The messages of services that only the apps know it passes on as they are: it writes a *[]byte and reads
// a *grpcweb.Frame.
type codec struct{}

var protobuf = encoding.GetCodecV2("proto")

// Name is that of protobuf, which it is for all but proxied calls.
func (codec) Name() string { return "proto" }

// Marshal writes a message, or a payload as it is.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	if payload, ok := v.(*[]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(*payload)}, nil
	}
	return protobuf.Marshal(v)
}

// Unmarshal reads a message, or takes a payload as it is.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if frame, ok := v.(*grpcweb.Frame); ok {
		*frame = grpcweb.Blank(data.Len())
		data.CopyTo(frame.Payload())
		return nil
	}
	return protobuf.Unmarshal(data, v)
}

// stream is what every call passes, unary and proxied ones included.
func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	if err := s.authenticate(stream.Context()); err != nil {
		return err
	}
	now := s.now.Load()
	if now.Logging.Calls {
		defer func(began time.Time) { s.logRPC(stream.Context(), info.FullMethod, began, err) }(time.Now())
	}
	if !now.APIs.GRPC(info.FullMethod) {
		return fromHTTPStatus(http.StatusNotImplemented, "requested endpoint is not available")
	}
	if s.o.Metrics != nil {
		sized := &sizedStream{ServerStream: stream, in: -1}
		if !info.IsClientStream && !info.IsServerStream {
			sized.in = 0
		}
		stream = sized
		defer func(began time.Time) {
			s.o.Metrics.RPCServed(info.FullMethod, status.Code(err).String(), sized.in, sized.out, time.Since(began))
		}(time.Now())
	}
	traced, err := s.traceRPC(stream, info)
	if err != nil {
		return err
	}
	if traced != nil {
		stream = traced
		defer func() { traced.end(err) }() // after a panic has become err
	}
	defer s.containRPC(info.FullMethod, &err)
	if err := handle(srv, stream); err != nil {
		s.count(err)
		if p, ok := errors.AsType[*problem](err); ok && p.lane != nil {
			stream.SetTrailer(p.lane.trailer())
		}
		if traced != nil {
			traced.tell()
		}
		return grpcError(err)
	}
	if traced != nil {
		traced.tell()
	}
	return nil
}

// sizedStream measures the messages of a unary call; of others in stays -1.
type sizedStream struct {
	grpc.ServerStream
	in, out int
}

func (s *sizedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if message, ok := m.(proto.Message); ok && s.in >= 0 && err == nil {
		s.in += proto.Size(message)
	}
	return err
}

func (s *sizedStream) SendMsg(m any) error {
	if message, ok := m.(proto.Message); ok && s.in >= 0 {
		s.out += proto.Size(message)
	}
	return s.ServerStream.SendMsg(m)
}

// grpcError is err with a status: that of a problem, or of a fault; an error that is neither is UNKNOWN, as daprd's are.
func grpcError(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return s.Err() // made once, however many ask for it
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return faultgrpc.Err(err)
	}
	return status.FromContextError(err).Err()
}

func (s *Server) authenticate(ctx context.Context) error {
	if s.o.Token == "" {
		return nil
	}
	switch given := metadata.ValueFromIncomingContext(ctx, tokenHeader); {
	case len(given) == 0:
		return fromHTTPStatus(http.StatusUnauthorized, "missing api token in request metadata")
	case subtle.ConstantTimeCompare([]byte(given[0]), []byte(s.o.Token)) != 1:
		return fromHTTPStatus(http.StatusUnauthorized, "authentication error: api token mismatch")
	}
	return nil
}

func (s *Server) logRPC(ctx context.Context, method string, began time.Time, err error) {
	agent := strings.Join(metadata.ValueFromIncomingContext(ctx, "user-agent"), " ")
	s.o.Log.Info("gRPC API Called", "method", method, "useragent", agent, "code", int(status.Code(err)), "duration", time.Since(began).Milliseconds())
}

func (s *Server) containRPC(method string, err *error) {
	if p := recover(); p != nil {
		s.o.Log.Error("a call panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "the runtime panicked while it worked on the call")
	}
}

// proxy carries a call of a service that is not Dapr's to the app that its metadata names. All four kinds of streaming are
// one here: messages either way until the app has ended.
func (s *Server) proxy(_ any, stream grpc.ServerStream) error {
	ctx := stream.Context()
	method, _ := grpc.MethodFromServerStream(stream)
	target := proxyTarget(ctx)
	if target == nil {
		if strings.HasPrefix(method, "/dapr.proto.") { // of a Dapr that is newer: SDKs know that by the words
			return status.Errorf(codes.Unknown, "failed to proxy request: required metadata %s or %s not found", "dapr-callee-app-id", appIDHeader)
		}
		return status.Errorf(codes.Unknown, "cannot proxy request: missing %s or %s metadata", "dapr-callee-app-id", appIDHeader)
	}
	if target[0] == "" {
		return status.Error(codes.Unknown, "app id is empty")
	}
	app, namespace, err := s.target(target[0])
	if err != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	if s.o.Blocks.Invocation.Outside(app) {
		return status.Errorf(codes.InvalidArgument, "failed to proxy request: %s is an HTTP endpoint, which takes no gRPC", app)
	}
	share := s.o.Bodies.Open()
	defer share.Close()
	if err := share.Enter(ctx, "proxy "+method); err != nil {
		return err
	}
	req := &call.Request{App: app, Namespace: namespace, Method: method, ContentType: grpcweb.ContentType, Header: incomingHeader(ctx)}
	req.Header = slices.DeleteFunc(req.Header, func(f call.Field) bool { return f.Key == appIDHeader })
	bound := blocks.ToEnd
	if values := metadata.ValueFromIncomingContext(ctx, streamKey); len(values) > 0 && truthy(values[0]) {
		bound = blocks.Lasting
	}
	end := proxied{stream: stream, most: 64 << 20, eager: bound == blocks.Lasting}
	err = s.o.Blocks.Invocation.Relay(share.Context(ctx), req, blocks.Exchange{
		Next: func() ([]byte, error) {
			var frame grpcweb.Frame
			err := stream.RecvMsg(&frame)
			if errors.Is(err, io.EOF) {
				end.asked.Store(true)
			}
			if err != nil {
				return nil, err
			}
			return frame, nil
		},
		Bound:  bound,
		Begin:  func() { end.head, end.pending, end.trailers = nil, nil, nil },
		Header: end.header,
		Chunk:  end.chunk,
		Passed: func() (bool, int) { return end.begun, end.messages },
		Failure: func() error {
			if end.trailers == nil || end.trailers.Code == uint32(codes.OK) {
				return nil
			}
			return fault.E("proxy "+method, fault.KindFromGRPC(end.trailers.Code), fault.AppFailed, errors.New(end.trailers.Message)).
				With(fault.AppStatus, strconv.Itoa(int(end.trailers.Code)))
		},
	})
	switch {
	case end.trailers != nil:
		return end.finish()
	case deniedStatus(err) != nil:
		return deniedStatus(err)
	case fault.ReasonOf(err) == fault.AppNotFound:
		return plain(http.StatusInternalServerError, codes.Unknown, "", "%v", s.unreached(target[0], err)).of(err)
	case err != nil:
		return err
	}
	return status.Error(codes.Internal, "the app's sidecar ended the call without its status")
}

// proxyTarget is the app that the metadata of a proxied call name, in the first place, or nil.
func proxyTarget(ctx context.Context) []string {
	for _, key := range []string{"dapr-callee-app-id", appIDHeader} {
		if target := metadata.ValueFromIncomingContext(ctx, key); len(target) > 0 {
			return target
		}
	}
	return nil
}

// streamKey is the metadata by which a caller says that a proxied call is a stream.
const streamKey = "dapr-stream"

func truthy(text string) bool {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "y", "yes", "true", "t", "on", "1":
		return true
	}
	return false
}

// proxied takes the answer of a proxied call apart. Once the caller has said all, nothing is passed on before the first message:
// not even the head of an answer that is a failure, after which the call may be made again. A caller who has not may be waiting
// for the head.
type proxied struct {
	stream   grpc.ServerStream
	most     int
	eager    bool        // passes the head on as it comes
	asked    atomic.Bool // the request has ended
	begun    bool        // something was passed on
	messages int         // were passed on

	head     metadata.MD // not yet passed on; nil when there is none
	pending  []byte
	trailers *grpcweb.Trailers
}

func (p *proxied) header(head *call.Response) error {
	if head.Status != 0 && !grpcweb.Is(head.ContentType) {
		return fault.E("proxy", fault.Unsupported, fault.AppAnswer, fmt.Errorf("the app serves no gRPC: it answered in HTTP, with status %d", head.Status))
	}
	p.head = outgoing(head.Header)
	if p.asked.Load() && !p.eager {
		return nil
	}
	return p.begin()
}

// begin passes the head on, once.
func (p *proxied) begin() error {
	if p.head == nil {
		return nil
	}
	head := p.head
	p.head, p.begun = nil, true
	return p.stream.SendHeader(head)
}

// chunk passes on what is whole; payloads are parts of data, and nobody writes to that again.
func (p *proxied) chunk(data []byte) error {
	if len(p.pending) > 0 {
		p.pending = append(p.pending, data...)
		data = p.pending
	}
	for {
		payload, rest, trailers, ok, err := grpcweb.Cut(data, p.most)
		switch {
		case err != nil:
			return status.Error(codes.ResourceExhausted, err.Error())
		case !ok:
			if len(p.pending) == 0 || len(rest) < len(p.pending) { // a long message comes in many chunks: it is copied only as it grows
				p.pending = append([]byte(nil), rest...)
			}
			return nil
		case trailers:
			t, err := grpcweb.ParseTrailers(payload)
			if err != nil {
				return status.Error(codes.Internal, err.Error())
			}
			p.trailers = &t
		default:
			p.messages++
			if err := p.begin(); err != nil {
				return err
			}
			p.begun = true
			if err := p.stream.SendMsg(&payload); err != nil {
				return err
			}
		}
		data = rest
	}
}

func (p *proxied) finish() error {
	if err := p.begin(); err != nil {
		return err
	}
	p.stream.SetTrailer(outgoing(p.trailers.Fields))
	if p.trailers.Code == uint32(codes.OK) {
		return nil
	}
	if p.trailers.Details != nil {
		given := &spb.Status{}
		if proto.Unmarshal(p.trailers.Details, given) == nil {
			return status.ErrorProto(given)
		}
	}
	return status.Error(codes.Code(p.trailers.Code), p.trailers.Message)
}

// outgoing is a header as metadata.
func outgoing(header call.Header) metadata.MD {
	md := metadata.MD{}
	for _, f := range header {
		value := f.Value
		if strings.HasPrefix(f.Key, "sidecast-") || strings.HasPrefix(f.Key, ":") {
			continue
		}
		if strings.HasSuffix(f.Key, "-bin") {
			plain, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				continue
			}
			value = string(plain)
		}
		md.Append(f.Key, value)
	}
	return md
}
