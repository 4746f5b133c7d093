package sidecast

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

const (
	jsonType  = "application/json"
	chunkSize = 32 << 10 // of what a stream sends in one message
)

// Request is a call as its handler sees it.
type Request struct {
	// Method is what was called, Caller the app id of who calls, as its sidecar vouches for it.
	Method, Caller string
	// Data is the body; empty for a stream.
	Data        []byte
	ContentType string
	// Metadata holds header fields, keys in lower case.
	Metadata map[string]string
	// Verb and Query are those of an HTTP caller.
	Verb, Query string
}

// Response is the answer to a call.
type Response struct {
	Data        []byte
	ContentType string
	// Metadata holds header fields, keys in lower case.
	Metadata map[string]string
	// Status is what an app reached over HTTP answered with; 0 for other apps.
	Status int
}

func responseOf(r *sidecastv1.InvokeResponse) *Response {
	return &Response{Data: r.GetData(), ContentType: r.GetContentType(), Metadata: r.GetMetadata(), Status: int(r.GetHttpStatus())}
}

func (r *Response) proto() *sidecastv1.InvokeResponse {
	if r == nil {
		return &sidecastv1.InvokeResponse{}
	}
	return &sidecastv1.InvokeResponse{Data: r.Data, ContentType: r.ContentType, Metadata: r.Metadata, HttpStatus: int32(r.Status)}
}

// valid tells whether r's strings can be protobuf strings.
func (r *Response) valid() bool {
	if r == nil {
		return true
	}
	for k, v := range r.Metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return false
		}
	}
	return utf8.ValidString(r.ContentType)
}

// InvokeOption changes one call.
type InvokeOption interface {
	invoke(*sidecastv1.InvokeRequest)
}

type invokeOption func(*sidecastv1.InvokeRequest)

func (o invokeOption) invoke(r *sidecastv1.InvokeRequest) { o(r) }

// Idempotent says that doing the call twice is the same as doing it once, so that a policy may try it again after it was
// sent.
func Idempotent() InvokeOption {
	return invokeOption(func(r *sidecastv1.InvokeRequest) { r.Idempotent = true })
}

// Verb is the HTTP verb for an app reached over HTTP; the default is POST.
func Verb(verb string) InvokeOption {
	return invokeOption(func(r *sidecastv1.InvokeRequest) { r.HttpVerb = verb })
}

// Query is the query string for an app reached over HTTP, without the question mark.
func Query(query string) InvokeOption {
	return invokeOption(func(r *sidecastv1.InvokeRequest) { r.HttpQuery = query })
}

// ContentType is the media type of the body or payload; the default is application/octet-stream.
func ContentType(media string) interface {
	InvokeOption
	PublishOption
} {
	return contentType(media)
}

type contentType string

func (t contentType) invoke(r *sidecastv1.InvokeRequest)   { r.ContentType = string(t) }
func (t contentType) publish(r *sidecastv1.PublishRequest) { r.ContentType = string(t) }

// Metadata adds a header field to a call, or an extension attribute to an event. Keys are lower case.
func Metadata(key, value string) interface {
	InvokeOption
	PublishOption
} {
	return field{key, value}
}

type field struct{ key, value string }

func (f field) invoke(r *sidecastv1.InvokeRequest)   { r.Metadata = f.in(r.Metadata) }
func (f field) publish(r *sidecastv1.PublishRequest) { r.Metadata = f.in(r.Metadata) }

func (f field) in(m map[string]string) map[string]string {
	if m == nil {
		m = make(map[string]string, 1)
	}
	m[f.key] = f.value
	return m
}

// Invoke calls a method of an app and returns its answer.
func (c *Client) Invoke(ctx context.Context, app, method string, data []byte, options ...InvokeOption) (*Response, error) {
	r := &sidecastv1.InvokeRequest{AppId: app, Method: method, Data: data}
	for _, o := range options {
		o.invoke(r)
	}
	answer, err := c.invocation.Invoke(ctx, r)
	if err != nil {
		return nil, err
	}
	return responseOf(answer), nil
}

// InvokeJSON calls a method with in as JSON and reads the answer's JSON into an Out.
func InvokeJSON[Out any](ctx context.Context, c *Client, app, method string, in any, options ...InvokeOption) (out Out, err error) {
	data, err := json.Marshal(in)
	if err != nil {
		return out, fault.E("invoke "+method, fault.Invalid, fault.BadRequest, err)
	}
	answer, err := c.Invoke(ctx, app, method, data, append([]InvokeOption{ContentType(jsonType)}, options...)...)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(answer.Data, &out); err != nil {
		return out, fault.New("invoke "+method, fault.AppAnswer, "the answer is not the JSON expected: %w", err)
	}
	return out, nil
}

// InvokeStream opens a stream of bytes to a method and back. Neither side keeps the boundaries of what the other wrote.
// Close the stream at the end.
func (c *Client) InvokeStream(ctx context.Context, app, method string, options ...InvokeOption) (*ClientStream, error) {
	r := &sidecastv1.InvokeRequest{AppId: app, Method: method}
	for _, o := range options {
		o.invoke(r)
	}
	ctx, cancel := context.WithCancel(ctx)
	wire, err := c.invocation.InvokeStream(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &ClientStream{wire: wire, cancel: cancel}
	err = wire.Send(&sidecastv1.InvokeStreamRequest{Frame: &sidecastv1.InvokeStreamRequest_Open{Open: r}})
	if err = s.sent(err); err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// ClientStream is a streaming call as its caller sees it. One goroutine may write while another reads.
type ClientStream struct {
	wire   sidecastv1.Invocation_InvokeStreamClient
	cancel context.CancelFunc
	head   *Response
	rest   []byte
}

// Write sends bytes of the request. It waits while the far end reads slowly.
func (s *ClientStream) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		chunk := p[:min(len(p), chunkSize)]
		err := s.wire.Send(&sidecastv1.InvokeStreamRequest{Frame: &sidecastv1.InvokeStreamRequest_Data{Data: chunk}})
		if err != nil {
			return n, s.sent(err)
		}
		n, p = n+len(chunk), p[len(chunk):]
	}
	return n, nil
}

// sent turns the EOF by which gRPC says that a stream has ended into its status.
func (s *ClientStream) sent(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		if err = s.wire.RecvMsg(&sidecastv1.InvokeStreamResponse{}); err == nil || errors.Is(err, io.EOF) {
			return fault.New("invoke stream", fault.StreamBroken, "the far end has ended the stream")
		}
	}
	return failed("invoke stream", err)
}

// CloseWrite says that the request is complete.
func (s *ClientStream) CloseWrite() error { return s.wire.CloseSend() }

// Header waits for the header of the answer.
func (s *ClientStream) Header() (*Response, error) {
	for s.head == nil && len(s.rest) == 0 {
		if err := s.next(); err != nil {
			return nil, err
		}
	}
	if s.head == nil {
		s.head = &Response{}
	}
	return s.head, nil
}

// Read reads bytes of the answer; io.EOF is its end.
func (s *ClientStream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *ClientStream) next() error {
	frame, err := s.wire.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return failed("invoke stream", err)
	}
	if header := frame.GetHeader(); header != nil {
		s.head = responseOf(header)
	}
	s.rest = frame.GetData()
	return nil
}

// Close lets go of the stream; one that has not ended is reset.
func (s *ClientStream) Close() error {
	s.cancel()
	return nil
}
