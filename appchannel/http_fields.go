package appchannel

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// hopByHop holds the fields that concern one connection (RFC 9110, 7.6.1), that net/http writes itself, or that mean nothing to HTTP.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true,
	"Proxy-Authorization": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
	"Content-Length": true, "Host": true, "Http2-Settings": true, http.CanonicalHeaderKey(TypeURL): true,
}

// addFields copies header to fields, except what must not pass. What the Connection field names must not pass either.
func addFields(op string, fields http.Header, header call.Header) error {
	named := header.Get("connection")
	for _, f := range header {
		key := http.CanonicalHeaderKey(f.Key)
		if hopByHop[key] || strings.HasPrefix(f.Key, ":") || named != "" && lists(named, f.Key) {
			continue
		}
		if !isToken(key) || strings.ContainsFunc(f.Value, forbidden) {
			return fault.New(op, fault.BadRequest, "header field %q cannot be sent over HTTP", f.Key)
		}
		fields[key] = append(fields[key], f.Value)
	}
	return nil
}

// announceTrailer has r carry the fields that follow req's body: those of a whole call, or those that its header announces, whose
// values come with the body's end. A request without a body has none.
func announceTrailer(r *http.Request, req *call.Request) {
	names := strings.Split(req.Header.Get("trailer"), ",")
	for _, f := range req.Trailer {
		names = append(names, f.Key)
	}
	for _, name := range names {
		key := http.CanonicalHeaderKey(strings.TrimSpace(name))
		if r.Body == nil || hopByHop[key] || !isToken(key) {
			continue
		}
		if r.Trailer == nil {
			r.Trailer = make(http.Header)
		}
		r.Trailer[key] = nil
	}
	if r.Trailer != nil {
		r.ContentLength = -1 // only a body in chunks can be followed by fields
		fillTrailer(r.Trailer, req.Trailer)
	}
}

// fillTrailer gives the announced fields their values.
func fillTrailer(announced http.Header, fields call.Header) {
	for _, f := range fields {
		key := http.CanonicalHeaderKey(f.Key)
		if _, ok := announced[key]; ok && !strings.ContainsFunc(f.Value, forbidden) {
			announced[key] = append(announced[key], f.Value)
		}
	}
}

// trailerOf is what followed a body.
func trailerOf(fields http.Header) (trailer call.Header) {
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		for _, value := range fields[key] {
			trailer.Add(strings.ToLower(key), value)
		}
	}
	return trailer
}

// lists tells whether a comma-separated list names key.
func lists(list, key string) bool {
	for name := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.TrimSpace(name), key) {
			return true
		}
	}
	return false
}

// forbidden are the control characters that a field value must not hold.
func forbidden(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// isToken tells whether s is a token of RFC 9110.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// escaped keeps the escapes that path has and escapes what a path may not hold (RFC 3986, 3.3), `?` and `#` among it.
func escaped(path string) string {
	isHex := func(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("/-._~!$&'()*+,;=:@", c) >= 0,
			c == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]):
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
