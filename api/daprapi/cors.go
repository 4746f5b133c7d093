package daprapi

import (
	"net/http"
	"slices"
	"strings"
)

// cors answers browsers that ask whether they may; it is true when that was the whole request.
func (s *Server) cors(w http.ResponseWriter, r *http.Request) bool {
	if s.o.AllowedOrigins == "" {
		return false
	}
	header, origin := w.Header(), r.Header.Get("Origin")
	header.Add("Vary", "Origin")
	method, preflight := r.Method, false
	if asked := r.Header.Get("Access-Control-Request-Method"); r.Method == http.MethodOptions && asked != "" {
		method, preflight = strings.ToUpper(asked), true
		header.Add("Vary", "Access-Control-Request-Method")
		header.Add("Vary", "Access-Control-Request-Headers")
	}
	if allowed := s.allowedOrigin(origin); allowed != "" && slices.Contains(corsMethods, method) {
		header.Set("Access-Control-Allow-Origin", allowed)
		if preflight {
			header.Set("Access-Control-Allow-Methods", method)
			if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
				header.Set("Access-Control-Allow-Headers", canonical(asked))
			}
		}
	}
	if preflight { // with daprd's status, also where the answer is no
		w.WriteHeader(http.StatusOK)
	}
	return preflight
}

// allowedOrigin is what a browser is told of its origin, "" when it is not allowed. One star of an entry means any text.
func (s *Server) allowedOrigin(origin string) string {
	if origin == "" {
		return ""
	}
	for entry := range strings.SplitSeq(s.o.AllowedOrigins, ",") {
		entry = strings.ToLower(strings.TrimSpace(entry))
		if entry == "*" {
			return "*"
		}
		before, after, wild := strings.Cut(entry, "*")
		lower := strings.ToLower(origin)
		if lower == entry || wild && len(lower) >= len(before)+len(after) && strings.HasPrefix(lower, before) && strings.HasSuffix(lower, after) {
			return origin
		}
	}
	return ""
}

// canonical is a list of header fields with the names as HTTP has them.
func canonical(list string) string {
	names := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
	for i, name := range names {
		names[i] = http.CanonicalHeaderKey(name)
	}
	return strings.Join(names, ", ")
}

var corsMethods = []string{"HEAD", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
