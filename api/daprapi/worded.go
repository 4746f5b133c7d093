package daprapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"

	"github.com/sidecast/sidecast/components"
)

// as has p answer as a pluggable component says that its error err is to be answered: over gRPC with its words alone, over
// HTTP with its status. An error that says nothing of it leaves p as it is.
func (p *problem) as(err error, format string, args ...any) *problem {
	var w *components.Worded
	if errors.As(err, &w) {
		p.http, p.grpcWords = errorStatus(w.HTTP), inWords(w)
		p.message = fmt.Sprintf(format, append(args, inWords(w).Error())...)
	}
	return p
}

// inWords is a pluggable component's error as it is.
func inWords(w *components.Worded) *problem {
	return &problem{
		http: errorStatus(w.HTTP), grpc: codes.Code(w.GRPC), tag: cmp.Or(w.Tag, w.Reason), message: w.Message,
		details: []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: w.Reason, Domain: w.Domain}},
	}
}

// errorStatus is the status that a component asks for: any number may come, but only one of an error can be answered with.
func errorStatus(asked int) int {
	if asked < http.StatusBadRequest || asked > 599 {
		return http.StatusInternalServerError
	}
	return asked
}
