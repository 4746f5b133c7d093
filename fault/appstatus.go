package fault

import (
	"errors"
	"strconv"
)

// AppStatus is the fact that holds the gRPC code an app answered with, a number: several codes are of one kind.
const AppStatus = "grpc-status"

// AppCode is the gRPC code that an app answered with, where it is kept, and otherwise that of the error's kind.
func AppCode(err error) int {
	if e, ok := errors.AsType[*Error](err); ok && e.Meta[AppStatus] != "" {
		if code, err := strconv.Atoi(e.Meta[AppStatus]); err == nil {
			return code
		}
	}
	return int(KindOf(err).GRPC())
}
