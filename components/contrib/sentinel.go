//go:build all_components

package contrib

import (
	"context"
	"errors"
	"net/http"

	sentinel "github.com/alibaba/sentinel-golang/api"
	"github.com/alibaba/sentinel-golang/core/base"
	"github.com/dapr/components-contrib/common/httputils"
)

// errAnswered is what Sentinel is told of a request that failed.
var errAnswered = errors.New("the answer has a status of 500 or above")

// errorsToo stands in the place of the library's handler, which tells Sentinel of no error: rules that break at a ratio or a
// number of them would never do so. An error is an answer of 500 or above, or a panic while the client still waits.
func errorsToo(func(http.Handler) http.Handler) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			entry, refusal := sentinel.Entry(r.Method+":"+r.URL.Path, sentinel.WithResourceType(base.ResTypeWeb), sentinel.WithTrafficType(base.Inbound))
			if refusal != nil {
				httputils.RespondWithError(w, http.StatusTooManyRequests)
				return
			}
			s := &statusSeen{ResponseWriter: w}
			done := false
			defer func() {
				if s.status >= 500 || !done && !errors.Is(context.Cause(r.Context()), context.Canceled) {
					sentinel.TraceError(entry, errAnswered)
				}
				entry.Exit()
			}()
			next.ServeHTTP(s, r)
			done = true
		})
	}
}

// statusSeen remembers the status of an answer.
type statusSeen struct {
	http.ResponseWriter
	status int
}

func (s *statusSeen) WriteHeader(status int) {
	if status >= 200 && s.status == 0 {
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

func (s *statusSeen) Write(p []byte) (int, error) {
	if s.status == 0 {
		s.status = http.StatusOK
	}
	return s.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (s *statusSeen) Flush() {
	_ = http.NewResponseController(s.ResponseWriter).Flush() // one that cannot holds nothing back
}

// Unwrap is for http.ResponseController.
func (s *statusSeen) Unwrap() http.ResponseWriter { return s.ResponseWriter }
