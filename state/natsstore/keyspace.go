package natsstore

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/fabric/subject"
)

// keyspace maps keys to the subjects of a bucket and back. A key is cut at each `||`, which separates the parts of keys
// in the field, and each part is a token:
//
//	orders||cart 7  →  $KV.<bucket>.orders.cart=207
//
// So the keys of one app are one wildcard.
type keyspace struct {
	bucket, root string // root is "$KV.<bucket>."
}

const (
	separator = "||"
	maxKey    = 3000 // bytes of a key's tokens: a subject must fit in a line of the protocol with another in front

	// carrier is the last token of a subject that is no key's: subject.Token escapes no byte as =_.
	carrier = "=_"
)

var bucketName = regexp.MustCompile(`^[A-Za-z0-9_=-]+$`)

func newKeyspace(bucket string) (keyspace, error) {
	if !bucketName.MatchString(bucket) {
		return keyspace{}, fmt.Errorf("%q is no name for a bucket: it has letters, digits, - and _", bucket)
	}
	return keyspace{bucket: bucket, root: "$KV." + bucket + "."}, nil
}

func (k keyspace) stream() string { return "KV_" + k.bucket }

// subject is the subject of key.
func (k keyspace) subject(key string) string { return k.root + tokens(key) }

// key is the inverse of subject; ok is false for a subject that is no key's.
func (k keyspace) key(subj string) (key string, ok bool) {
	rest, ok := strings.CutPrefix(subj, k.root)
	if !ok {
		return "", false
	}
	parts := strings.Split(rest, ".")
	for i, part := range parts {
		var err error
		if parts[i], err = subject.Untoken(part); err != nil {
			return "", false
		}
	}
	return strings.Join(parts, separator), true
}

// filter is the narrowest wildcard that takes all keys with prefix.
func (k keyspace) filter(prefix string) string {
	whole := strings.LastIndex(tokens(prefix), ".")
	return k.root + tokens(prefix)[:whole+1] + ">"
}

// carrier is a subject of the bucket that is no key's.
func (k keyspace) carrier() string { return k.root + carrier }

// sorted is the keys of subjects that start with prefix and are greater than after, in byte order.
func (k keyspace) sorted(subjects map[string]uint64, prefix, after string) []string {
	keys := make([]string, 0, len(subjects))
	for subj := range subjects {
		if key, ok := k.key(subj); ok && key > after && strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

func tokens(key string) string {
	if !strings.Contains(key, separator) {
		return subject.Token(key)
	}
	parts := strings.Split(key, separator)
	for i, part := range parts {
		parts[i] = subject.Token(part)
	}
	return strings.Join(parts, ".")
}
