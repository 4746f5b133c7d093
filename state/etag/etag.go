// Package etag makes ETags for stores whose backend has no version of its own: 64 random bits, written as 16 hex digits.
//
// Random, not counted, so that nothing has to be remembered to keep the promise that an ETag is never used again: not the
// last number of a key that was deleted, nor that of a store that was restarted. Two of a billion tags are the same with
// a chance of 1 in 37; that both are of one key and one caller holds the older is what would have to come on top.
//
//	tag := etag.New()
//	item.ETag = tag.String()
package etag

import (
	"encoding/hex"
	"math/rand/v2"
	"strconv"
)

// Tag is an ETag. Zero is none: New never returns it.
type Tag uint64

// New returns a tag that was not used before.
func New() Tag {
	for {
		if t := Tag(rand.Uint64()); t != 0 {
			return t
		}
	}
}

// String is the tag as a caller sees it: 16 lower-case hex digits.
func (t Tag) String() string {
	var b [8]byte
	for i := range b {
		b[i] = byte(t >> (56 - 8*i))
	}
	return hex.EncodeToString(b[:])
}

// Parse is the inverse of String. It reports false for a text that String cannot have returned for a tag of New.
func Parse(s string) (Tag, bool) {
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil || n == 0 || Tag(n).String() != s {
		return 0, false
	}
	return Tag(n), true
}
