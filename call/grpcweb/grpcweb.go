// Package grpcweb lets any gRPC call travel as a stream of bytes: messages framed as gRPC frames them, and the trailers as
// a last frame, in the way of gRPC-Web (github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md). The content type of the
// request says that a stream is one.
//
//	frame := grpcweb.Message(payload)
//	reader := grpcweb.Reader{From: stream}
//	kind, payload, err := reader.Next(ctx)
package grpcweb

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/sidecast/sidecast/call"
)

// ContentType is that of a request whose stream holds frames.
const ContentType = "application/grpc-web+proto"

// Is says whether a request's stream holds frames.
func Is(contentType string) bool { return strings.HasPrefix(contentType, "application/grpc-web") }

const (
	head         = 5    // a flag and a length
	trailersFlag = 0x80 // of the last frame
)

// ErrTooLarge is the error of a frame beyond Reader's Most.
var ErrTooLarge = errors.New("a gRPC message is larger than this sidecar accepts")

// Message frames a message.
func Message(payload []byte) []byte { return frame(0, payload) }

func frame(flag byte, payload []byte) []byte {
	f := Blank(len(payload))
	f[0] = flag
	copy(f.Payload(), payload)
	return f
}

// Frame is a whole frame.
type Frame []byte

// Blank is the frame of a message of n bytes that are yet to be written, so that they are written once.
func Blank(n int) Frame {
	f := make(Frame, head+n)
	binary.BigEndian.PutUint32(f[1:], uint32(n))
	return f
}

// Payload is what a frame holds.
func (f Frame) Payload() []byte { return f[head:] }

// Cut takes the first frame off data: its payload, which is part of data, and what follows. Without a whole frame in data,
// rest is all of it and ok is false. It fails as Reader does; most bounds the payload when it is not 0.
func Cut(data []byte, most int) (payload, rest []byte, trailers, ok bool, err error) {
	if len(data) < head {
		return nil, data, false, false, nil
	}
	flag, length := data[0], int(binary.BigEndian.Uint32(data[1:head]))
	switch {
	case flag&^trailersFlag != 0:
		return nil, data, false, false, errForeign
	case most > 0 && length > most:
		return nil, data, false, false, ErrTooLarge
	case len(data)-head < length:
		return nil, data, false, false, nil
	}
	return data[head : head+length : head+length], data[head+length:], flag == trailersFlag, true, nil
}

var errForeign = errors.New("a gRPC frame is compressed, or is none")

// Trailers is how a call ended.
type Trailers struct {
	Code    uint32 // google.golang.org/grpc/codes
	Message string
	// Details is a google.rpc.Status in binary, or nil.
	Details []byte
	// Fields are the trailing metadata, those whose key ends with -bin in base64.
	Fields call.Header
}

// Frame frames trailers, as the last frame of a stream.
func (t Trailers) Frame() []byte {
	var b strings.Builder
	field := func(key, value string) { b.WriteString(key + ": " + value + "\r\n") }
	field("grpc-status", strconv.FormatUint(uint64(t.Code), 10))
	field("grpc-message", url.PathEscape(t.Message))
	if t.Details != nil {
		field("grpc-status-details-bin", base64.StdEncoding.EncodeToString(t.Details))
	}
	for _, f := range t.Fields {
		if !strings.ContainsAny(f.Key+f.Value, "\r\n") {
			field(f.Key, f.Value)
		}
	}
	return frame(trailersFlag, []byte(b.String()))
}

// ParseTrailers reads the payload of the last frame.
func ParseTrailers(payload []byte) (Trailers, error) {
	t := Trailers{Code: 2}
	for line := range strings.SplitSeq(string(payload), "\r\n") {
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		key, value = strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value)
		switch key {
		case "grpc-status":
			code, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return t, fmt.Errorf("grpc-status %q is no number", value)
			}
			t.Code = uint32(code)
		case "grpc-message":
			text, err := url.PathUnescape(value)
			if err != nil {
				text = value
			}
			t.Message = text
		case "grpc-status-details-bin":
			if details, err := base64.StdEncoding.DecodeString(value); err == nil {
				t.Details = details
			}
		default:
			t.Fields.Add(key, value)
		}
	}
	return t, nil
}

// Reader takes frames off a stream, however the bytes of them are cut.
type Reader struct {
	From interface {
		Recv(ctx context.Context) ([]byte, error)
	}
	// Most bounds a payload in bytes; 0 does not.
	Most int
	rest []byte
}

// Next returns the next payload, and whether it is the trailers. It fails with io.EOF between frames and with
// io.ErrUnexpectedEOF within one.
func (r *Reader) Next(ctx context.Context) (payload []byte, trailers bool, err error) {
	if err := r.fill(ctx, head); err != nil {
		return nil, false, err
	}
	for whole := false; ; {
		if payload, r.rest, trailers, whole, err = Cut(r.rest, r.Most); whole || err != nil {
			return payload, trailers, err
		}
		if err := r.fill(ctx, head+int(binary.BigEndian.Uint32(r.rest[1:head]))); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, false, err
		}
	}
}

func (r *Reader) fill(ctx context.Context, n int) error {
	for len(r.rest) < n {
		chunk, err := r.From.Recv(ctx)
		switch {
		case errors.Is(err, io.EOF) && len(r.rest) > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case len(r.rest) == 0:
			r.rest = slices.Clip(chunk)
		default:
			if cap(r.rest) < n {
				r.rest = append(make([]byte, 0, n), r.rest...)
			}
			r.rest = append(r.rest, chunk...)
		}
	}
	return nil
}
