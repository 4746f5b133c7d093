package daprapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/fault"
)

// domain is the one of google.rpc.ErrorInfo that Dapr's clients look for.
const domain = "dapr.io"

// problem is an error in Dapr's words: what an HTTP client gets as status and JSON, and a gRPC client as status and
// details. Dapr has two families of errors. The older has a code, a message and no more; the newer adds details.
type problem struct {
	http    int
	grpc    codes.Code
	tag     string // errorCode over HTTP
	message string
	// plainHTTP leaves the details out over HTTP, plainGRPC over gRPC: some routes are of the older family on one side only.
	plainHTTP, plainGRPC bool
	details              []protoadapt.MessageV1
	retryAfter           time.Duration // 0 says nothing
	grpcWords            *problem      // what a gRPC client gets instead; nil for the same
	lane                 *laneFacts    // what the lane knows that gave up; nil where none did
}

// of has p tell what daprd does not know of: that err is a refusal, a limit that a policy sets or a lane or broker that is
// full, that the client may come again, and which lane gave up.
func (p *problem) of(err error) *problem {
	p.retryAfter, p.lane = fault.RetryAfter(err), factsOf(err)
	if fault.KindOf(err) == fault.Exhausted {
		p.http, p.grpc = http.StatusTooManyRequests, codes.ResourceExhausted
	}
	return p
}

func (p *problem) Error() string {
	return fmt.Sprintf("api error: code = %s desc = %s", p.grpc, p.message)
}

// reason is the more exact of its two codes: that of gRPC where there is one.
func (p *problem) reason() string {
	for _, d := range p.details {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.Reason != "" {
			return info.Reason
		}
	}
	return p.tag
}

// category is the part of the API that a reason is of.
func category(code string) string {
	for _, part := range []struct{ word, category string }{
		{"SECRET", "secret"}, {"PERMISSION_DENIED", "secret"}, {"CONFIGURATION_", "configuration"}, {"PUBSUB", "pubsub"}, {"TOPIC", "pubsub"}, {"PUBLISH", "pubsub"}, {"STATE", "state"}, {"LOCK", "lock"}, {"DIRECT_INVOKE", "service-invocation"}, {"HEALTH", "health"}, {"OUTPUT_BINDING", "binding"}, {"CRYPTO", "crypto"}, {"CONVERSATION", "conversation"}, {"ACTOR", "actor"}, {"SCHEDULER", "job"},
	} {
		if strings.Contains(code, part.word) {
			return part.category
		}
	}
	return "common"
}

// count counts an error that the API answers with.
func (s *Server) count(err error) {
	if s.o.Metrics == nil {
		return
	}
	if p, ok := errors.AsType[*problem](err); ok {
		code, reason := p.tag, p.reason()
		if code == "" {
			code = reason
		}
		s.o.Metrics.Failed(code, category(reason))
	}
}

// GRPCStatus is what a gRPC client gets.
func (p *problem) GRPCStatus() *status.Status {
	var details []protoadapt.MessageV1
	retryAfter := time.Duration(0)
	if p.lane != nil && p.lane.refusal() || p.grpc == codes.ResourceExhausted {
		retryAfter = p.retryAfter
	}
	if p.lane != nil && p.lane.refusal() { // first: Dapr's clients take the last of a kind
		details = append(details, p.lane.detail())
	}
	if p.grpcWords != nil {
		p = p.grpcWords
	}
	s := status.New(p.grpc, p.message)
	if !p.plainGRPC {
		details = append(details, p.details...)
	}
	if retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	}
	if len(details) == 0 {
		return s
	}
	if full, err := s.WithDetails(details...); err == nil {
		return full
	}
	return s
}

// write answers an HTTP client.
func (p *problem) write(w http.ResponseWriter) {
	body := struct {
		ErrorCode string `json:"errorCode"`
		Message   string `json:"message"`
		Details   []any  `json:"details,omitempty"`
	}{ErrorCode: p.tag, Message: p.message}
	if !p.plainHTTP {
		for _, d := range p.details {
			body.Details = append(body.Details, detailJSON(d))
		}
	}
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(int64((p.retryAfter+time.Second-1)/time.Second), 10))
	}
	if p.lane != nil {
		p.lane.write(w.Header().Set)
	}
	data, _ := json.Marshal(body) // strings only
	answerData(w, p.http, data)
}

// detailJSON is a detail in the form of Dapr's HTTP errors, which is not that of protojson.
func detailJSON(detail protoadapt.MessageV1) map[string]any {
	switch d := detail.(type) {
	case *errdetails.ErrorInfo:
		return map[string]any{
			"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": d.Reason, "domain": d.Domain, "metadata": d.Metadata,
		}
	case *errdetails.ResourceInfo:
		return map[string]any{
			"@type":         "type.googleapis.com/google.rpc.ResourceInfo",
			"resource_type": d.ResourceType, "resource_name": d.ResourceName, "owner": d.Owner, "description": d.Description,
		}
	case *errdetails.BadRequest:
		return map[string]any{"@type": "type.googleapis.com/google.rpc.BadRequest", "field_violations": d.FieldViolations}
	case *errdetails.Help:
		return map[string]any{"@type": "type.googleapis.com/google.rpc.Help", "links": d.Links}
	}
	return map[string]any{"@type": "unknown"}
}

func errorInfo(reason string, metadata map[string]string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: reason, Domain: domain, Metadata: metadata}
}

// plain makes an error of the older family.
func plain(http int, grpc codes.Code, tag, format string, args ...any) *problem {
	return &problem{http: http, grpc: grpc, tag: tag, message: fmt.Sprintf(format, args...), plainHTTP: true, plainGRPC: true}
}

// basic is of the older family over HTTP; over gRPC it tells its code in ErrorInfo.
func basic(http int, grpc codes.Code, tag, format string, args ...any) *problem {
	p := plain(http, grpc, tag, format, args...)
	p.plainGRPC, p.details = false, []protoadapt.MessageV1{errorInfo(tag, nil)}
	return p
}

func malformed(err error) *problem {
	return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: %v", err).of(err)
}

func unreadable(err error) *problem {
	return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_BODY_READ", "failed to read request body: %v", err).of(err)
}

// problemOf is err as a problem; what is none is a generic error.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	return plain(http.StatusInternalServerError, codes.Internal, "ERROR", "%v", err).of(err)
}

// fromHTTPStatus is the gRPC error that stands for an HTTP status: nil for a success. Dapr gives it to gRPC callers of HTTP
// apps, and to those without the right token.
func fromHTTPStatus(code int, detail string) error {
	c := codeOfHTTP(code)
	if c == codes.OK {
		return nil
	}
	const most = 63 // of a value in ErrorInfo
	if len(detail) > most {
		detail = detail[:most]
	}
	text := http.StatusText(code)
	s := status.New(c, text)
	if full, err := s.WithDetails(errorInfo(text, map[string]string{
		"http.code": strconv.Itoa(code), "http.error_message": toValidUTF8(detail),
	})); err == nil {
		s = full
	}
	return s.Err()
}

// codeOfHTTP is Dapr's own table (grpc's http-grpc-status-mapping.md, with changes).
func codeOfHTTP(code int) codes.Code {
	if code >= 200 && code < 300 {
		return codes.OK
	}
	switch code {
	case http.StatusRequestTimeout:
		return codes.Canceled
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusConflict:
		return codes.AlreadyExists
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Unknown
}

// httpOfCode is the way back: the status that an HTTP caller of a gRPC app gets.
func httpOfCode(code codes.Code) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.Canceled:
		return http.StatusRequestTimeout
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
