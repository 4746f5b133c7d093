package pluggable

import (
	"errors"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// faultOf is what a program answered, or why it did not, as a fault.
func faultOf(op, socket string, err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return err
	}
	s, told := status.FromError(err)
	if !told {
		return fault.New(op, fault.BackendDown, "the plug-in at %s: %s", socket, textOf(s, err))
	}
	reason, said := fault.BackendFailed, errors.New(s.Message())
	switch s.Code() {
	case codes.Unavailable, codes.Canceled: // nobody else cancels
		reason, said = fault.BackendDown, errors.New(textOf(s, err))
	case codes.DeadlineExceeded:
		reason = fault.DeadlineExceeded
	case codes.Unimplemented:
		reason = fault.NotSupported
	}
	if words := worded(s); words != nil {
		reason, said = fault.BackendFailed, words
	}
	return fault.New(op, reason, "the plug-in at %s: %w", socket, said).With(fault.AppStatus, strconv.Itoa(int(s.Code())))
}

// textOf leaves out the layers of the library that say nothing.
func textOf(s *status.Status, err error) string {
	if s == nil {
		return err.Error()
	}
	text := s.Message()
	for _, mark := range []string{`error while dialing: `, `transport: `} {
		if i := strings.Index(text, mark); i >= 0 {
			text = strings.TrimSuffix(text[i+len(mark):], `"`)
		}
	}
	return text
}

// The keys with which a program says how an error of its own is to be answered, after daprd's pkg/components/pluggable/errors.go.
const (
	wordedKey   = "kit_error"
	httpCodeKey = "http_code"
	tagKey      = "tag"
)

// worded is the error of a program that says how it is to be answered; nil when it does not.
func worded(s *status.Status) *components.Worded {
	details := s.Details()
	if len(details) != 1 {
		return nil
	}
	info, ok := details[0].(*errdetails.ErrorInfo)
	if !ok || info.GetMetadata()[wordedKey] != "true" {
		return nil
	}
	code, err := strconv.Atoi(info.GetMetadata()[httpCodeKey])
	if err != nil {
		return nil
	}
	return &components.Worded{
		GRPC: int(s.Code()), HTTP: code, Tag: info.GetMetadata()[tagKey], Message: s.Message(), Reason: info.GetReason(), Domain: info.GetDomain(),
	}
}

// badETag says what a program says of an ETag: "" when it says nothing of it.
func badETag(err error) (fault.Reason, string) {
	s, ok := status.FromError(err)
	if !ok || len(s.Details()) != 1 {
		return "", ""
	}
	bad, ok := s.Details()[0].(*errdetails.BadRequest)
	if !ok || len(bad.GetFieldViolations()) != 1 || bad.GetFieldViolations()[0].GetField() != "etag" {
		return "", ""
	}
	text := bad.GetFieldViolations()[0].GetDescription()
	switch s.Code() {
	case codes.FailedPrecondition:
		return fault.ETagMismatch, text
	case codes.InvalidArgument:
		return fault.ETagMalformed, text
	}
	return "", ""
}
