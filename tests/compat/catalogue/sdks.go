package catalogue

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/tests/compat/cases"
)

// SDKs are the published SDKs that are no Go, by the test that runs their programs.
func SDKs() map[string][]cases.Case {
	return map[string][]cases.Case{"compat.TestJavaScriptSDK": cases.JavaScript(), "compat.TestPythonSDK": cases.Python()}
}

// api says whether cases name what an area's rows are about.
func (a Area) api() bool {
	return slices.Contains([]string{"rpcs", "callbacks", "invocation", "routes", "app routes"}, a.ID)
}

var parameter = regexp.MustCompile(`\{[^}]*\}|\*`)

// Shape is a path without the names of its parameters.
func Shape(path string) string { return parameter.ReplaceAllString(path, "{}") }

// Names says whether name, an RPC or a verb and a path, is what a case calls shown.
func Names(name, shown string) bool {
	if name == shown {
		return true
	}
	verb, path, ok := strings.Cut(shown, " /")
	words := strings.Fields(name)
	return ok && len(words) > 1 && Shape(words[len(words)-1]) == Shape("/"+path) && (words[0] == "ANY" || slices.Contains(words[:len(words)-1], verb))
}

// shownBySDKs are the tests of SDKs whose cases show something of a row.
func (a Area) shownBySDKs(r Row) (all []string) {
	if !a.api() || r.Status == NotYet {
		return nil
	}
	for test, program := range SDKs() {
		n := 0
		for _, c := range program {
			if !c.Absent && slices.ContainsFunc(c.Shows, func(shown string) bool {
				return slices.ContainsFunc(r.Names, func(name string) bool { return Names(name, shown) })
			}) {
				n++
			}
		}
		switch n {
		case 0:
		case 1:
			all = append(all, test+" (1 case)")
		default:
			all = append(all, fmt.Sprintf("%s (%d cases)", test, n))
		}
	}
	slices.Sort(all)
	return all
}
