package daprapi

import (
	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/fault"
)

// protocol is what a caller speaks. Retry policies match a broker's failure to publish by the HTTP status or the gRPC code that it has
// there, as daprd's pkg/runtime/pubsub/publish_resiliency.go has it.
type protocol int

const (
	asHTTP protocol = iota
	asGRPC
)

// judged gives a failure its status or code, where the broker's program told one; all others are tried again.
func (p protocol) judged(err error) error {
	code, kept := fault.KeptCode(err)
	switch {
	case !kept:
		return err
	case p == asHTTP:
		return httpFailure{err, httpOfCode(codes.Code(code))}
	}
	return grpcFailure{err, code}
}

type httpFailure struct {
	error
	status int
}

// HTTPStatus is what policies match.
func (f httpFailure) HTTPStatus() int { return f.status }

// Unwrap is the failure.
func (f httpFailure) Unwrap() error { return f.error }

type grpcFailure struct {
	error
	code int
}

// GRPCCode is what policies match.
func (f grpcFailure) GRPCCode() int { return f.code }

// Unwrap is the failure.
func (f grpcFailure) Unwrap() error { return f.error }
