// Package rawjson takes JSON objects apart and writes strings and values, in one pass and without copies where encoding/json
// takes several. Each function gives what encoding/json gives: that is its test. It promises no more: what is not common is left
// to encoding/json.
//
//	fields, ok := rawjson.Fields(envelope)
//	id := rawjson.Text(fields["id"])
package rawjson

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// Fields are the members of an object, whose values are parts of it; of a name that is there twice the last one counts. It is
// false for what is no object in JSON.
func Fields(object []byte) (map[string]json.RawMessage, bool) {
	if !json.Valid(object) {
		return nil, false
	}
	s := scanner{object, 0}
	if s.skip(); s.rest[s.at] != '{' {
		return nil, false
	}
	s.at++
	fields := make(map[string]json.RawMessage, 16)
	for s.skip(); s.rest[s.at] != '}'; s.skip() {
		if s.rest[s.at] == ',' {
			s.at++
			s.skip()
		}
		name := Text(s.value())
		s.skip()
		s.at++ // the colon
		s.skip()
		fields[name] = s.value()
	}
	return fields, true
}

// scanner goes through JSON that is known to be valid.
type scanner struct {
	rest []byte
	at   int
}

func (s *scanner) skip() {
	for s.at < len(s.rest) {
		switch s.rest[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// value is the one that begins here.
func (s *scanner) value() json.RawMessage {
	from, depth := s.at, 0
	for s.at < len(s.rest) {
		switch s.rest[s.at] {
		case '"':
			s.text()
			if depth == 0 {
				return s.rest[from:s.at:s.at]
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // of the object around a number or a word
				return s.rest[from:s.at:s.at]
			}
			if depth--; depth == 0 {
				s.at++
				return s.rest[from:s.at:s.at]
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return s.rest[from:s.at:s.at]
			}
		}
		s.at++
	}
	return s.rest[from:s.at:s.at]
}

// text goes behind a string.
func (s *scanner) text() {
	for s.at++; ; s.at++ {
		next := bytes.IndexAny(s.rest[s.at:], `"\`)
		if s.at += next; s.rest[s.at] == '"' {
			s.at++
			return
		}
		s.at++ // what follows a backslash
	}
}

// Text is a string in JSON; "" for what is none.
func Text(value []byte) string {
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		if inner := value[1 : n-1]; bytes.IndexByte(inner, '\\') < 0 && bytes.IndexByte(inner, '"') < 0 && plain(inner) {
			return string(inner)
		}
	}
	var s string
	_ = json.Unmarshal(value, &s)
	return s
}

// plain says that text stands for itself in a string: no control characters, and valid UTF-8.
func plain(text []byte) bool {
	for _, c := range text {
		if c < ' ' {
			return false
		}
	}
	return utf8.Valid(text)
}

// AppendText appends s as json.Marshal writes it.
func AppendText(to []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			encoded, _ := json.Marshal(s) // a string always can be
			return append(to, encoded...)
		}
	}
	to = append(to, '"')
	to = append(to, s...)
	return append(to, '"')
}

// AppendValue appends a value as json.Marshal writes a RawMessage: without white space, and safe in HTML. It is false, and to as it was,
// for what is no JSON.
func AppendValue(to []byte, value []byte) ([]byte, bool) {
	b := bytes.NewBuffer(to)
	b.Grow(len(value))
	if json.Compact(b, value) != nil {
		return to, false
	}
	all := b.Bytes()
	if compact := all[len(to):]; bytes.ContainsAny(compact, "<>&\u2028\u2029") {
		var safe bytes.Buffer
		json.HTMLEscape(&safe, compact)
		return append(to, safe.Bytes()...), true
	}
	return all, true
}
