package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/sidecast/sidecast/fault"
)

// Severity says whether a Finding stops a folder from being used.
type Severity string

// The severities.
const (
	Error   Severity = "error"   // the folder cannot be used
	Warning Severity = "warning" // the folder can be used; the user should know
)

// Finding is one thing that is wrong in a file, or worth knowing about it. It holds no secret.
type Finding struct {
	File string
	// Line starts at 1; 0 means the whole file.
	Line int
	// Key is the path to what is meant: spec.metadata.dir. Metadata is named by its key, not by its index.
	Key      string
	Severity Severity
	Message  string
	// Suggestion is the nearest valid word, or "".
	Suggestion string

	// Reason of the finding as an error; "" means BAD_MANIFEST.
	Reason fault.Reason
	// Unknown says that the Key is none that its place has.
	Unknown bool
}

// String is `file:line: key: message; did you mean "suggestion"?`.
func (f Finding) String() string { return f.place() + f.Text() }

func (f Finding) place() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String()
}

// Text is the message with its suggestion, without the place.
func (f Finding) Text() string {
	if f.Suggestion == "" {
		return f.Message
	}
	return fmt.Sprintf("%s; did you mean %q?", f.Message, f.Suggestion)
}

// fault is the finding as an error.
func (f Finding) fault() error {
	reason := cmp.Or(f.Reason, fault.BadManifest)
	return fault.New(strings.TrimSuffix(f.place(), ": "), reason, "%s", f.Text())
}

// AsError joins those findings that are errors; nil when there are none.
func AsError(findings []Finding) error {
	var errs []error
	for _, f := range findings {
		if f.Severity == Error {
			errs = append(errs, f.fault())
		}
	}
	return errors.Join(errs...)
}

// SortFindings puts findings in the order a reader walks through the files.
func SortFindings(findings []Finding) {
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
}

// Unknown is a Finding about a word that is not one of valid. The caller fills in the place.
func Unknown(what, word string, valid []string) Finding {
	valid = slices.Compact(slices.Sorted(slices.Values(valid)))
	return Finding{
		Severity:   Error,
		Message:    fmt.Sprintf("%s; valid: %s", what, cmp.Or(strings.Join(valid, ", "), "none")),
		Suggestion: Nearest(word, valid),
	}
}

// Nearest is the valid word that word was most likely meant to be, or "" when none is near.
func Nearest(word string, valid []string) string {
	lower := strings.ToLower(word)
	best, distance := "", max(2, len(word)/3)+1
	for _, candidate := range valid {
		if d := levenshtein.ComputeDistance(lower, strings.ToLower(candidate)); d < distance && d < len(candidate) {
			best, distance = candidate, d
		}
	}
	if best != "" || len(word) < 3 {
		return best
	}
	for _, candidate := range valid {
		if strings.HasPrefix(strings.ToLower(candidate), lower) {
			return candidate
		}
	}
	return ""
}
