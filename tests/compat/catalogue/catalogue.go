// Package catalogue says of everything that Dapr's API, command line and resources have whether Sidecast has it, and which
// test shows it. docs/dapr-compatibility.md is rendered from it. The tests of this package fail when a test that is named does
// not exist, or when something that the program or daprd's own source has is not named here.
//
//	for _, area := range catalogue.Areas() {
//		for _, row := range area.Rows { … }
//	}
package catalogue

import "strings"

// Status is how far something is there.
type Status string

// How far something is there.
const (
	Works   Status = "works"
	Differs Status = "differs"
	NotYet  Status = "not yet"
)

// Row is one thing, or several of which the same is true.
type Row struct {
	// Names are what it is called: an RPC, a route, a flag, a variable, a key.
	Names  []string
	Status Status
	// Note says what differs and what to do about it, or what else is worth knowing.
	Note string
	// Tests show it: the alias of a package in Packages, a dot, and the test's name with that of a subtest.
	Tests []string
}

// Area is a table of the page.
type Area struct {
	// ID is the area's name for the tests of this package.
	ID, Title, Intro string
	// What is in the first column.
	What string
	Rows []Row
}

// Packages are the folders of the packages whose tests rows name.
var Packages = map[string]string{
	"actors":       "actors",
	"appchannel":   "appchannel",
	"badgerlock":   "lock/badgerlock",
	"badgerstore":  "state/badgerstore",
	"blocks":       "building_blocks",
	"cluster":      "tests/cluster",
	"compat":       "tests/compat",
	"components":   "components",
	"contrib":      "components/contrib",
	"pluggable":    "components/pluggable",
	"datasheet":    "components/datasheet",
	"everything":   "tests/everything",
	"daprapi":      "api/daprapi",
	"e2e":          "tests/e2e",
	"envsecrets":   "components/envsecrets",
	"filesecrets":  "components/filesecrets",
	"gosdk":        "tests/compat/gosdk",
	"governance":   "governance",
	"memorylock":   "lock/memorylock",
	"memorypubsub": "pubsub/memorypubsub",
	"memorystore":  "state/memorystore",
	"natsconfig":   "configstore/natsconfig",
	"natslock":     "lock/natslock",
	"natspubsub":   "pubsub/natspubsub",
	"natsstore":    "state/natsstore",
	"pipeline":     "pipeline",
	"requestlimit": "pipeline/requestlimit",
	"routing":      "routing",
	"rundir":       "cmd/runtime/rundir",
	"runtime":      "cmd/runtime",
	"scrub":        "conversation/scrub",
	"sealed":       "state/sealed",
	"signin":       "pipeline/signin",
	"telemetry":    "telemetry",
	"uppercase":    "pipeline/uppercase",
}

// Areas are the tables, in the order of the page.
func Areas() []Area {
	return []Area{rpcs(), callbacks(), invocation(), routes(), appRoutes(), behaviour(), componentTypes(),
		component(), subscription(), resiliency(), configuration(), httpEndpoint(), flags(), environment()}
}

// works, differs and notYet are rows; names and tests have commas between.
func works(names, tests string, note ...string) Row {
	return Row{split(names), Works, strings.Join(note, " "), split(tests)}
}

func differs(names, tests, note string) Row {
	return Row{split(names), Differs, note, split(tests)}
}

func notYet(names string, note ...string) Row {
	return Row{Names: split(names), Status: NotYet, Note: strings.Join(note, " ")}
}

func split(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ", ")
}

// versions is a route of several versions of the API.
func versions(of, verb, path string) string {
	var all []string
	for v := range strings.FieldsSeq(of) {
		all = append(all, verb+" /"+v+"/"+path)
	}
	return strings.Join(all, ", ")
}

func joined(names ...string) string { return strings.Join(names, ", ") }
