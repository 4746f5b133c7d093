package contrib

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// isPlainJSON says whether PostgreSQL can keep a value as JSON: it refuses text that is not UTF-8, escapes that stand for NUL or
// for half a character, numbers too long for its numeric, and nesting too deep for its stack. Those are kept as bytes.
func isPlainJSON(value []byte) bool {
	return utf8.Valid(value) && json.Valid(value) && !oddEscape().Match(value) && fitsJSONB(value)
}

var oddEscape = onFirstUse(`(?i)\\u(0000|d[89a-f])`)

// maxNesting and maxDigits stay far below what a server of the smallest stack, and a float64, can hold.
const (
	maxNesting = 500
	maxDigits  = 300
)

// fitsJSONB looks at the numbers and the nesting of valid JSON.
func fitsJSONB(value []byte) bool {
	depth := 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '"':
			for i++; value[i] != '"'; i++ {
				if value[i] == '\\' {
					i++
				}
			}
		case c == '[' || c == '{':
			if depth++; depth > maxNesting {
				return false
			}
		case c == ']' || c == '}':
			depth--
		case c == '-' || c >= '0' && c <= '9':
			start := i
			for i+1 < len(value) && strings.IndexByte("+-.eE0123456789", value[i+1]) >= 0 {
				i++
			}
			if !fitsNumeric(value[start : i+1]) {
				return false
			}
		}
	}
	return true
}

// fitsNumeric says whether a number of JSON has at most maxDigits digits when it is written out.
func fitsNumeric(number []byte) bool {
	if len(number) > maxDigits {
		return false
	}
	at := bytes.IndexAny(number, "eE")
	if at < 0 {
		return true
	}
	exponent, err := strconv.Atoi(string(number[at+1:]))
	return err == nil && max(exponent, -exponent) <= maxDigits-at
}
