package call

import "net/http"

// Repeatable reports whether HTTP lets a request of that verb be made twice: doing it again is the same as doing it once
// (RFC 9110 §9.2.2).
func Repeatable(verb string) bool {
	switch verb {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
