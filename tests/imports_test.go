// Package tests holds what is true of the whole tree: which package may import which.
package tests

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/sidecast/sidecast/"

// arrows names, for each room, the rooms it may import. A room is the longest matching prefix; rooms below another inherit
// nothing. Arrows that are not here do not exist.
var arrows = map[string][]string{
	"agenda":              {},
	"fault":               {},
	"fault/faultgrpc":     {"fault", "sdk/proto"},
	"call":                {},
	"routing":             {"fault"},
	"telemetry":           {"fault", "call"},
	"resiliency":          {"fault"},
	"actors":              {"fault", "call", "resiliency"},
	"pressure":            {"resiliency"},
	"fabric":              {"fault", "call", "fabric"},
	"fabric/subject":      {},
	"quota":               {"actors", "fabric"},
	"state":               {"agenda", "fault", "state"},
	"pubsub":              {"agenda", "fault", "pubsub"},
	"lock":                {"agenda", "fault", "lock"},
	"configstore":         {},
	"pipeline":            {"fault"},
	"keyring":             {},
	"conversation":        {},
	"binding":             {},
	"appchannel":          {"fault", "fault/faultgrpc", "call", "pipeline", "routing", "sdk/proto", "appchannel"},
	"manifest":            {"fault"},
	"governance":          {"fault", "manifest", "resiliency"},
	"access":              {"fault"},
	"configuration":       {"access", "manifest", "pipeline"},
	"components":          {"fault", "call", "manifest", "routing", "state", "pubsub", "lock", "configstore", "binding", "pipeline", "keyring", "conversation", "components"},
	"components/standard": {"components", "state", "pubsub", "lock", "configstore", "pipeline"},
	"components/badgerdb": {"fault", "fabric/subject", "components"},
	"building_blocks":     {"fault", "call", "access", "keyring", "conversation", "pipeline", "routing", "telemetry", "resiliency", "manifest", "governance", "actors", "fabric", "appchannel", "state", "pubsub", "lock", "configstore", "binding", "components"},
	"api":                 {"fault", "fault/faultgrpc", "call", "access", "actors", "appchannel", "state", "lock", "building_blocks", "components", "sdk/proto"},
	// Dapr's metrics name the policies of documents, so its door knows of them.
	"api/daprapi": {"fault", "fault/faultgrpc", "call", "access", "pipeline", "telemetry", "resiliency", "governance", "actors", "appchannel", "state", "lock", "configstore", "binding", "conversation", "keyring", "building_blocks", "components", "api/bodies", "api/entrance", "api/rpc"},
	"sdk/proto":   {},
	"sdk/go":      {"fault", "fault/faultgrpc", "sdk/proto"},
	"examples":    {"fault", "sdk/go"},
}

// backends are the rooms below a contract: they may use the component model and the subjects of the fabric.
var backends = []string{"state/", "pubsub/", "lock/", "configstore/", "pipeline/"}

// onlyIn names the libraries that few rooms may import.
var onlyIn = map[string][]string{
	"github.com/asynkron/protoactor-go": {"actors"},
	"go.uber.org/fx":                    {"cmd/runtime"},
	"go.uber.org/dig":                   {"cmd/runtime"},
	"github.com/nats-io/nats-server":    {"fabric"},
	"github.com/cloudevents/sdk-go":     {"building_blocks"},
	"github.com/spf13/cobra":            {"cmd/runtime"},
	"github.com/google/cel-go":          {"routing", "governance"}, // conditions on events, and on the counts of a breaker
}

type listed struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

func TestImportsFollowTheArrows(t *testing.T) {
	for _, pkg := range packages(t) {
		from := strings.TrimPrefix(pkg.ImportPath, module)
		if exempt(from) {
			continue
		}
		for _, imported := range pkg.Imports {
			to, ours := strings.CutPrefix(imported, module)
			switch {
			case ours && !allowed(from, to):
				t.Errorf("%s imports %s: there is no such arrow", from, to)
			case !ours:
				checkLibrary(t, from, imported)
			}
		}
	}
}

func TestFaultImportsOnlyTheStandardLibrary(t *testing.T) {
	for _, pkg := range packages(t) {
		if pkg.ImportPath != module+"fault" && pkg.ImportPath != module+"call" {
			continue
		}
		for _, imported := range pkg.Imports {
			if strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") {
				t.Errorf("%s imports %s", pkg.ImportPath, imported)
			}
		}
	}
}

// exempt rooms are the root of the graph, which knows everything, and tests.
func exempt(from string) bool {
	return strings.HasPrefix(from, "cmd/runtime") || strings.HasPrefix(from, "tests") || strings.HasPrefix(from, "docs") ||
		strings.HasSuffix(from, "test") // conformance suites: statetest, pubsubtest …
}

func allowed(from, to string) bool {
	for _, contract := range backends {
		if strings.HasPrefix(from, contract) {
			return within(to, "agenda", "fault", "fabric/subject", "components", strings.TrimSuffix(contract, "/"))
		}
	}
	if from == "components/standard" {
		return within(to, arrows[from]...)
	}
	room := from
	for arrows[room] == nil {
		cut := strings.LastIndexByte(room, '/')
		if cut < 0 {
			return false
		}
		room = room[:cut]
	}
	for _, may := range arrows[room] {
		if to == may || within(to, may) && arrows[to] == nil {
			return true
		}
	}
	return within(to, room) && room != "fabric/subject" // a room may import its own parts
}

func within(to string, rooms ...string) bool {
	for _, room := range rooms {
		if to == room || strings.HasPrefix(to, room+"/") {
			return true
		}
	}
	return false
}

func checkLibrary(t *testing.T, from, imported string) {
	for library, rooms := range onlyIn {
		if strings.HasPrefix(imported, library) && !within(from, rooms...) {
			t.Errorf("%s imports %s: only %s may", from, imported, strings.Join(rooms, " and "))
		}
	}
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports,Standard", "../...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var pkg listed
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, pkg)
	}
}

// TestTheMapHasEveryRoom: who looks for a line finds its room in docs/architecture.md.
func TestTheMapHasEveryRoom(t *testing.T) {
	page, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, plan, _ := strings.Cut(string(page), "```\n")
	plan, _, _ = strings.Cut(plan, "```")
	for _, pkg := range packages(t) {
		room, _, _ := strings.Cut(strings.TrimPrefix(pkg.ImportPath, module), "/")
		if room == "api" {
			room = strings.TrimPrefix(pkg.ImportPath, module)
		}
		if !strings.Contains(plan, room+"/") {
			t.Errorf("docs/architecture.md does not name %s/", room)
		}
	}
}
