package supervisor

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
)

func TestLoadDaprsTemplate(t *testing.T) {
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	plan, notes, err := Load("testdata") // the folder, as `-f .` names it
	if err != nil {
		t.Fatal(err)
	}
	want := []App{{
		ID: "webapp", Dir: here, Command: []string{"python3", "app.py"}, Port: 8080, Protocol: "http", MaxConcurrency: 4,
		Health: HealthCheck{
			Enabled: true, Path: "/healthz", Interval: 5 * time.Second, Timeout: 500 * time.Millisecond, Threshold: 3,
		},
		GRPCPort: 50010, ResourcesPaths: []string{filepath.Join(here, "webapp", "components")}, ConfigFile: filepath.Join(here, "dapr.yaml"),
		Env: map[string]string{"DEBUG": "true", "LEVEL": "3"},
	}, {
		ID: "testdata", Dir: here, Command: []string{"./backend"}, Build: []string{"go", "build", "-o", "bin/backend", "."},
		Port: 3000, ResourcesPaths: []string{filepath.Join(here, "components")}, ConfigFile: filepath.Join(here, "dapr.yaml"),
		Env: map[string]string{"DEBUG": "true", "LEVEL": "high", "EMPTY": ""}, Restart: Never, Main: true,
	}}
	for i := range want {
		if !reflect.DeepEqual(plan.Apps[i], want[i]) {
			t.Errorf("app %d:\n got %+v\nwant %+v", i, plan.Apps[i], want[i])
		}
	}
	if len(notes) != 3 || !strings.Contains(notes[0], "common.appLogDestination has no effect") ||
		!strings.Contains(notes[2], "dapr.yaml:23: apps[0].placementHostAddress has no effect: there is no placement service") {
		t.Errorf("notes: %q", notes)
	}
}

func TestEverythingWrongIsToldAtOnce(t *testing.T) {
	_, _, err := Load("testdata/wrong.yaml")
	if fault.ReasonOf(err) != fault.RunFile || fault.KindOf(err) != fault.Invalid {
		t.Fatalf("error %v", err)
	}
	dir, _ := filepath.Abs("testdata")
	_, text, _ := strings.Cut(err.Error(), ": ")
	text = strings.TrimSuffix(text, " [RUN_FILE_INVALID]") + "\n"
	text = strings.NewReplacer("testdata/wrong.yaml", "wrong.yaml", dir, "DIR", "\n  ", "\n").Replace(text)
	want, err := os.ReadFile("testdata/wrong.golden")
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", text, want)
	}
}

func TestAliasesAndMerges(t *testing.T) {
	plan, _, err := parse("f.yaml", t.TempDir(), []byte(`
version: 1
apps:
  - &base {appID: a, appPort: 1, command: &cmd [run, it], env: {X: "1"}}
  - <<: *base
    appID: b
    appPort: 2
  - {appID: c, command: *cmd}
`))
	if err != nil {
		t.Fatal(err)
	}
	if b, c := plan.Apps[1], plan.Apps[2]; b.ID != "b" || b.Port != 2 || b.Env["X"] != "1" || strings.Join(c.Command, " ") != "run it" {
		t.Errorf("merged to %+v and %+v", b, c)
	}
}

func TestRunFilesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "f.yaml:1:1: the file is empty",
		"# only words\n":                "f.yaml:1:1: the file is empty",
		"[1, 2]":                        "a mapping is expected, not sequence",
		"version: 1":                    "f.yaml:1:8: apps: is missing",
		"version: 1\napps: []":          "f.yaml:2:7: apps: is empty",
		"apps: [{appID: a}]":            "version: is missing; write `version: 1`",
		"version: 1\nversion: 1":        "f.yaml:2:1: mapping key \"version\" already defined",
		"version: 1\napps: *none":       "there is no anchor &none",
		"version: 1\napps:\n\t- a":      "f.yaml:3:",
		"version: 1\napps: &a [*a]":     "apps[0]",
		"version: 1\n---\nversion: 1\n": "one document is expected",
	} {
		_, _, err := parse("f.yaml", t.TempDir(), []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); fault.ReasonOf(err) != fault.RunFile {
		t.Errorf("missing file: %v", err)
	}
	if _, _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "holds none of [sidecast.yaml") {
		t.Errorf("empty folder: %v", err)
	}
}

func FuzzRunFile(f *testing.F) {
	for _, name := range []string{"testdata/dapr.yaml", "testdata/wrong.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("version: 1\napps: &a\n  - <<: *a\n    env: {A: &b 1, B: *b}\n"))
	f.Add([]byte("version: 1\napps: [{? {a: b} : c}, !!str x, |\n text\n]"))
	folder := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		plan, _, err := parse("f.yaml", folder, text)
		if err != nil && fault.ReasonOf(err) != fault.RunFile {
			t.Errorf("error %v has no reason", err)
		}
		if err == nil && len(plan.Apps) == 0 {
			t.Error("a plan without apps")
		}
	})
}
