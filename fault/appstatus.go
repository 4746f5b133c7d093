package fault

import (
	"errors"
	"strconv"
)

// AppStatus is the fact that holds the gRPC code an app, or the program of a component, answered with, a number: several codes are
// of one kind.
const AppStatus = "grpc-status"

// AppCode is the gRPC code that an app answered with, where it is kept, and otherwise that of the error's kind.
func AppCode(err error) int {
	if code, kept := KeptCode(err); kept {
		return code
	}
	return int(KindOf(err).GRPC())
}

// KeptCode is the gRPC code that somebody answered with, where it is kept.
func KeptCode(err error) (code int, kept bool) {
	if e, ok := errors.AsType[*Error](err); ok && e.Meta[AppStatus] != "" {
		if code, err := strconv.Atoi(e.Meta[AppStatus]); err == nil {
			return code, true
		}
	}
	return 0, false
}
