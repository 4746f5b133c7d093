// Package subject turns any string into one token of a NATS subject and back.
//
// App ids, topics and keys may hold dots, spaces, wildcards or nothing at all; a NATS token may not. Token keeps
// [A-Za-z0-9_-] and writes every other byte as =XX, so that plain names stay readable and no two names share a token:
//
//	subject.Token("orders.v2") // "orders=2Ev2"
//
// The package promises Untoken(Token(s)) == s for every s, and nothing about the order of tokens.
package subject

import (
	"fmt"
	"strings"
)

const hexDigits = "0123456789ABCDEF"

// Token encodes s as one subject token. The empty string becomes "=", which no other string does.
func Token(s string) string {
	if s == "" {
		return "="
	}
	escapes := 0
	for i := range len(s) {
		if !plain(s[i]) {
			escapes++
		}
	}
	if escapes == 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 2*escapes)
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('=')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

// Untoken decodes what Token made. It accepts nothing else: one string has one token.
func Untoken(token string) (string, error) {
	switch token {
	case "":
		return "", fmt.Errorf("an empty subject token stands for nothing")
	case "=":
		return "", nil
	}
	if strings.IndexByte(token, '=') < 0 {
		for i := range len(token) {
			if !plain(token[i]) {
				return "", fmt.Errorf("subject token %q holds the byte %q, which has to be written as =%02X", token, token[i], token[i])
			}
		}
		return token, nil
	}
	var b strings.Builder
	b.Grow(len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		if c != '=' {
			if !plain(c) {
				return "", fmt.Errorf("subject token %q holds the byte %q, which has to be written as =%02X", token, c, c)
			}
			b.WriteByte(c)
			continue
		}
		if i+2 >= len(token) {
			return "", fmt.Errorf("subject token %q ends inside an escape", token)
		}
		high, low := strings.IndexByte(hexDigits, token[i+1]), strings.IndexByte(hexDigits, token[i+2])
		if high < 0 || low < 0 || plain(byte(high<<4|low)) {
			return "", fmt.Errorf("subject token %q holds the escape %q, which Token does not write", token, token[i:i+3])
		}
		b.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return b.String(), nil
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}
