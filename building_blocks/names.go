package blocks

import (
	"strings"
	"unicode/utf8"

	"github.com/sidecast/sidecast/fault"
)

// What names may be. The limits keep subjects, file names and metrics within what their carriers take.
const (
	maxName  = 128      // app ids, consumer groups
	maxPath  = 16 << 10 // methods: HTTP paths may be long
	maxKey   = 1024     // state keys
	maxTopic = 256
)

// checkName refuses a name that no carrier could take: empty, too long, not UTF-8 or with control bytes.
func checkName(op, what, name string, limit int, reason fault.Reason) error {
	switch {
	case name == "":
		return fault.New(op, reason, "%s is empty", what)
	case len(name) > limit:
		return fault.New(op, reason, "%s has %d bytes; at most %d are allowed", what, len(name), limit)
	case !utf8.ValidString(name):
		return fault.New(op, reason, "%s is not valid UTF-8", what)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fault.New(op, reason, "%s %q holds a control character", what, name)
	}
	return nil
}
