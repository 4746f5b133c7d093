package call

import (
	"net/http"
	"strconv"
	"time"
)

// RetryAfter is how long after now a Retry-After field asks callers to wait: seconds, or a date (RFC 9110, 10.2.3). A field
// that is neither asks for nothing.
func RetryAfter(field string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(field, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(field); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
