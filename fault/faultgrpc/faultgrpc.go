// Package faultgrpc is the gRPC form of a fault: a status whose details are google.rpc.ErrorInfo and google.rpc.RetryInfo,
// and the Failure message for errors that travel inside other messages. Both forms keep kind, reason, text, facts and
// retry-after, so a fault that crosses a process reads the same on the other side; the chain of causes becomes text.
//
//	return nil, faultgrpc.Err(err)  // a server answers
//	return faultgrpc.From(err)      // a client hands on what it was answered
package faultgrpc

import (
	"errors"
	"iter"
	"maps"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

const (
	// kindKey is where ErrorInfo's metadata tells the kind, which the code alone cannot: Tripped shares UNAVAILABLE.
	kindKey = "kind"
	// maxText bounds the message. A status travels in trailers, once as text and once in its details, and gRPC core's
	// peers refuse trailers beyond 8 KiB.
	maxText = 2 << 10
	// maxFacts bounds keys and values of the metadata together, for the same reason.
	maxFacts = 1 << 10
)

// Status is err as a gRPC status: nil (which is OK) for nil, the status itself for a foreign status error, Internal with
// reason DEFECT for an error that is no fault at all. Text too long for trailers is cut, invalid UTF-8 replaced.
func Status(err error) *status.Status {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		if s, ok := status.FromError(err); ok {
			return s
		}
		e = classify(err)
	}
	wire := &spb.Status{Code: int32(code(e.Kind)), Message: clean(err.Error()), Details: []*anypb.Any{{TypeUrl: errorInfo, Value: infoOf(e)}}}
	if e.RetryAfter > 0 {
		wire.Details = append(wire.Details, &anypb.Any{TypeUrl: retryInfo, Value: retryOf(e.RetryAfter)})
	}
	return status.FromProto(wire)
}

// The details are written by hand: a sidecar that is overrun answers little else, and by reflection they would be a tenth
// of what a refusal costs.
const (
	errorInfo = "type.googleapis.com/google.rpc.ErrorInfo"
	retryInfo = "type.googleapis.com/google.rpc.RetryInfo"
)

// infoOf is e as a google.rpc.ErrorInfo: reason, domain and metadata are its fields 1, 2 and 3.
func infoOf(e *fault.Error) []byte {
	b := make([]byte, 0, 256)
	b = appendText(b, 1, clean(string(e.Reason)))
	b = appendText(b, 2, fault.Domain)
	b = appendFact(b, kindKey, e.Kind.String())
	for k, v := range fitting(e.Meta) {
		if k != kindKey {
			b = appendFact(b, k, v)
		}
	}
	return b
}

// retryOf is a google.rpc.RetryInfo: a duration of seconds and nanoseconds is its field 1.
func retryOf(after time.Duration) []byte {
	whole, rest := after/time.Second, after%time.Second
	size := protowire.SizeTag(1) + protowire.SizeVarint(uint64(whole)) + protowire.SizeTag(2) + protowire.SizeVarint(uint64(rest))
	b := protowire.AppendTag(make([]byte, 0, 24), 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = protowire.AppendTag(b, 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(whole))
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(rest))
}

func appendFact(b []byte, key, value string) []byte {
	size := protowire.SizeTag(1) + protowire.SizeBytes(len(key)) + protowire.SizeTag(2) + protowire.SizeBytes(len(value))
	b = protowire.AppendTag(b, 3, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	return appendText(appendText(b, 1, key), 2, value)
}

func appendText(b []byte, field protowire.Number, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), text)
}

// Err is err as a gRPC status error, nil for nil.
func Err(err error) error { return Status(err).Err() }

// From is the inverse of Err: the *fault.Error that a gRPC status error stands for, nil for nil. Statuses of other
// servers map by their code, with the reason of their ErrorInfo or none. What holds a fault already is returned unchanged,
// and so is an error that is neither fault, status nor the end of a context.
func From(err error) error {
	var e *fault.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		if fault.KindOf(err) == fault.Internal {
			return err
		}
		return classify(err)
	}
	e = &fault.Error{Kind: fault.KindFromGRPC(uint32(s.Code())), Err: errors.New(s.Message())}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Meta = fault.Reason(d.Reason), without(d.Metadata, kindKey)
			if kind, ok := fault.KindNamed(d.Metadata[kindKey]); ok && d.Domain == fault.Domain && code(kind) == s.Code() {
				e.Kind = kind
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.RetryDelay.AsDuration()
		}
	}
	if e.Reason == "" {
		e.Reason = contextReason(e.Kind)
	}
	return e
}

// ToProto is err as a message inside a message, nil for nil.
func ToProto(err error) *sidecastv1.Failure {
	if err == nil {
		return nil
	}
	var e *fault.Error
	if !errors.As(From(err), &e) {
		e = classify(err)
	}
	f := &sidecastv1.Failure{
		Kind: e.Kind.String(), Reason: clean(string(e.Reason)), Message: clean(err.Error()), Metadata: maps.Collect(fitting(e.Meta)),
	}
	if s, ok := status.FromError(err); ok {
		f.Message = clean(s.Message())
	}
	if e.RetryAfter > 0 {
		f.RetryAfter = durationpb.New(e.RetryAfter)
	}
	return f
}

// FromProto is the inverse of ToProto, nil for nil. A kind that is unknown or missing is Internal.
func FromProto(f *sidecastv1.Failure) error {
	if f == nil {
		return nil
	}
	kind, ok := fault.KindNamed(f.Kind)
	if !ok || kind == fault.None {
		kind = fault.Internal
	}
	e := &fault.Error{
		Kind: kind, Reason: fault.Reason(f.Reason), Meta: without(f.Metadata, ""), RetryAfter: f.RetryAfter.AsDuration(),
	}
	if f.Message != "" {
		e.Err = errors.New(f.Message)
	}
	return e
}

// classify makes a fault of an error that holds none: the end of a context, or a defect.
func classify(err error) *fault.Error {
	kind := fault.KindOf(err)
	reason := contextReason(kind)
	if reason == "" {
		reason = fault.Defect
	}
	return fault.E("", kind, reason, err)
}

// contextReason is the reason of those kinds that gRPC itself answers with when a context ends.
func contextReason(kind fault.Kind) fault.Reason {
	switch kind {
	case fault.Timeout:
		return fault.DeadlineExceeded
	case fault.Canceled:
		return fault.CallCanceled
	}
	return ""
}

func code(kind fault.Kind) codes.Code {
	if kind == fault.None { // an error of no kind must not become OK
		return codes.Internal
	}
	return codes.Code(kind.GRPC())
}

// clean makes s fit for a protobuf string in a trailer.
func clean(s string) string {
	if len(s) > maxText {
		cut := maxText
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// fitting yields as much of meta as fits.
func fitting(meta map[string]string) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		room := maxFacts
		for k, v := range meta {
			if room -= len(k) + len(v); room < 0 || !yield(clean(k), clean(v)) {
				return
			}
		}
	}
}

// without copies meta except one key; nil when nothing is left.
func without(meta map[string]string, key string) map[string]string {
	var kept map[string]string
	for k, v := range meta {
		if k == key {
			continue
		}
		if kept == nil {
			kept = make(map[string]string, len(meta))
		}
		kept[k] = v
	}
	return kept
}
