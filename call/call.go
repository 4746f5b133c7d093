// Package call holds what travels when one app calls another: a Request, its Response, and a Stream of bytes both ways.
//
// The types know no transport. The front doors make them, the fabric carries them, app channels deliver them; nobody
// copies a body on the way. A Request belongs to its receiver until it answers; after that nobody may touch its Body.
package call

import (
	"context"
	"time"
)

// Request is one call of one method of an app.
type Request struct {
	// App is the id of the target, Method the method; for HTTP apps the path without a leading slash, "" for the root.
	App, Method string
	// Namespace is the target's; "" is the caller's own.
	Namespace string
	// Caller is the app id of the caller, set by the runtime and vouched for by the fabric's subjects.
	Caller string
	// CallerNamespace is the caller's, vouched for likewise; "" is the target's own.
	CallerNamespace string
	// Verb and Query are for apps reached over HTTP; an empty Verb means POST.
	Verb, Query string
	// ContentType is the media type of Body; empty means application/octet-stream.
	ContentType string
	// Header holds metadata, traceparent and baggage among it. Keys are lower case.
	Header Header
	// Body is the whole body of a unary call, Trailer the fields that follow it. What follows a stream is Trailed's.
	Body    []byte
	Trailer Header
	// Idempotent says that a policy may try the call again after it was sent.
	Idempotent bool
	// Pieces takes an answer that is not whole at once; nil wants all answers whole. Whoever cannot pass one on in pieces
	// answers as if it were nil.
	Pieces *Pieces
}

// Response is the one answer to a unary call, or the header of a stream's answer.
type Response struct {
	// Status is what an HTTP app answered with; 0 for others.
	Status      int
	ContentType string
	Header      Header
	Body        []byte
	// Trailer holds the fields that follow the body of a unary answer. What follows a stream is Trailed's.
	Trailer Header
	// Passed says that the answer went to the request's Pieces, all of it: this is its head.
	Passed bool
}

// Stream is bytes both ways after a Request. One goroutine may send while another receives. Both methods fail with a
// fault when ctx ends, the peer resets the stream or goes away.
type Stream interface {
	// Recv returns the next chunk, or io.EOF when the peer has sent all. The chunk belongs to the caller.
	Recv(ctx context.Context) ([]byte, error)
	// Send sends a chunk. It waits while the peer is not ready for more. The chunk may be reused when Send returns.
	Send(ctx context.Context, chunk []byte) error
}

// ServerStream is the stream as the called side sees it.
type ServerStream interface {
	Stream
	// Answer sends the header of the answer. At most once, before the first Send; Send does it when Answer was not called.
	Answer(ctx context.Context, header *Response) error
}

// ClientStream is the stream as the calling side sees it.
type ClientStream interface {
	Stream
	// Header waits for the header of the answer.
	Header(ctx context.Context) (*Response, error)
	// CloseSend says that the request is complete.
	CloseSend(ctx context.Context) error
	// Close lets go of the stream; a stream that has not ended is reset. Always call it.
	Close()
}

// Trailed is a Stream whose ends carry fields, as HTTP's trailers are. The field `trailer` of the header before it names those
// that its sender means to send.
type Trailed interface {
	// Trailer is what came with the peer's end. Ask when Recv has returned io.EOF.
	Trailer() Header
	// SetTrailer has fields go with this side's own end. Call it before CloseSend, or before the handler returns.
	SetTrailer(fields Header)
}

// TrailerOf is what came with the end of a stream; nil when it carries none.
func TrailerOf(s Stream) Header {
	if t, ok := s.(Trailed); ok {
		return t.Trailer()
	}
	return nil
}

// SetTrailer has fields go with this side's end of a stream that carries some.
func SetTrailer(s Stream, fields Header) {
	if t, ok := s.(Trailed); ok && len(fields) > 0 {
		t.SetTrailer(fields)
	}
}

// Field is one header field.
type Field struct{ Key, Value string }

// Header is a short list of fields in order. Keys are lower case; a key may occur more than once.
type Header []Field

// Get returns the first value of key, or "".
func (h Header) Get(key string) string {
	for i := range h {
		if h[i].Key == key {
			return h[i].Value
		}
	}
	return ""
}

// Set replaces the values of key by one.
func (h *Header) Set(key, value string) {
	kept := (*h)[:0]
	for _, f := range *h {
		if f.Key != key {
			kept = append(kept, f)
		}
	}
	*h = append(kept, Field{key, value})
}

// Add appends a field.
func (h *Header) Add(key, value string) { *h = append(*h, Field{key, value}) }

// HeaderOf makes a Header of a map, in no particular order.
func HeaderOf(m map[string]string) Header {
	if len(m) == 0 {
		return nil
	}
	h := make(Header, 0, len(m))
	for k, v := range m {
		h = append(h, Field{k, v})
	}
	return h
}

// Map makes a map of the header; of a key that occurs more than once the first value counts.
func (h Header) Map() map[string]string {
	if len(h) == 0 {
		return nil
	}
	m := make(map[string]string, len(h))
	for _, f := range h {
		if _, ok := m[f.Key]; !ok {
			m[f.Key] = f.Value
		}
	}
	return m
}

// TimeLeft is how long until ctx's deadline, and false when it has none. It may be negative.
func TimeLeft(ctx context.Context, now time.Time) (time.Duration, bool) {
	deadline, ok := ctx.Deadline()
	return deadline.Sub(now), ok
}
