package supervisor

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
)

func TestLoadDaprsTemplate(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	plan, notes, err := Load("testdata", false) // the folder, as `-f .` names it
	if err != nil {
		t.Fatal(err)
	}
	want := []App{{
		ID: "webapp", Dir: here, Command: []string{"python3", "app.py"}, Port: 8080, Protocol: "http", MaxConcurrency: 4,
		Health: HealthCheck{
			Enabled: true, Path: "/healthz", Interval: 5 * time.Second, Timeout: 500 * time.Millisecond, Threshold: 3,
		},
		Dapr: true, DaprHTTPPort: 3510, DaprGRPCPort: 50010,
		DaprFlags: []string{
			"--app-channel-address=10.0.0.1", "--app-ssl=true", "--max-body-size=8Mi", "--read-buffer-size=8Ki", "--dapr-listen-addresses=127.0.0.1",
			"--enable-api-logging=true", "--unix-domain-socket=/tmp/sockets", "--enable-profiling=true", "--profile-port=0",
		},
		LogLevel: "info", ResourcesPaths: []string{filepath.Join(here, "webapp", "components")}, ConfigFile: filepath.Join(here, "dapr.yaml"),
		Env: map[string]string{"DEBUG": "true", "LEVEL": "3"},
	}, {
		Dapr: true, ID: "testdata", Dir: here, Command: []string{"./backend"}, Build: []string{"go", "build", "-o", "bin/backend", "."},
		Port: 3000, ResourcesPaths: []string{filepath.Join(here, "components")}, ConfigFile: filepath.Join(here, "dapr.yaml"),
		Env: map[string]string{"DEBUG": "true", "LEVEL": "high", "EMPTY": ""}, Restart: Never, Main: true,
	}}
	for i := range want {
		if !reflect.DeepEqual(plan.Apps[i], want[i]) {
			t.Errorf("app %d:\n got %+v\nwant %+v", i, plan.Apps[i], want[i])
		}
	}
	if len(notes) != 2 || !strings.Contains(notes[0], "common.appLogDestination has no effect") ||
		!strings.Contains(notes[1], "dapr.yaml:32: apps[0].placementHostAddress has no effect: there is no placement service") {
		t.Errorf("notes: %q", notes)
	}
	text, err := os.ReadFile("testdata/dapr.yaml")
	if err != nil {
		t.Fatal(err)
	}
	plan, notes, err = parse("sidecast.yaml", here, text, false)
	if err != nil || plan.Apps[0].Dapr || plan.Apps[0].GRPCPort != 50010 || len(notes) != 12 || !strings.Contains(notes[1], "have no Dapr API") {
		t.Errorf("as a file of Sidecast's own: %+v, notes %q, error %v", plan, notes, err)
	}
}

// What Dapr's command line does with paths, and where it looks for what the file does not say.
func TestWhereDaprsAppsFindTheirFiles(t *testing.T) {
	folder, home := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	load := func(text string) []App {
		t.Helper()
		write(filepath.Join(folder, "dapr.yaml"), text)
		plan, _, err := Load(folder, false)
		if err != nil {
			t.Fatal(err)
		}
		return plan.Apps
	}
	found := func(app App, config string, resources ...string) {
		t.Helper()
		if app.ConfigFile != config || !slices.Equal(app.ResourcesPaths, resources) {
			t.Errorf("%s: resources %q, Configuration %q, want %q and %q", app.ID, app.ResourcesPaths, app.ConfigFile, resources, config)
		}
	}
	in := func(parts ...string) string { return filepath.Join(append([]string{folder}, parts...)...) }
	write(in("own", "config.yaml"), "")
	write(in("local", ".dapr", "config.yaml"), "")
	write(in("local", ".dapr", "resources", "a.yaml"), "")
	write(in("plain", "main.py"), "")
	write(in("common.yaml"), "")

	const apps = `
version: 1
apps:
  - {appID: own, appDirPath: own, configFilePath: config.yaml, resourcesPath: ../shared, resourcesPaths: [~/mine]}
  - {appID: local, appDirPath: ./local/}
  - {appID: plain, appDirPath: plain}
`
	all := load(apps)
	found(all[0], in("own", "config.yaml"), in("shared"), filepath.Join(home, "mine"))
	found(all[1], in("local", ".dapr", "config.yaml"), in("local", ".dapr", "resources"))
	found(all[2], "")

	write(filepath.Join(home, ".dapr", "config.yaml"), "")
	write(filepath.Join(home, ".dapr", "components", "a.yaml"), "")
	all = load(apps)
	found(all[1], in("local", ".dapr", "config.yaml"), in("local", ".dapr", "resources"))
	found(all[2], filepath.Join(home, ".dapr", "config.yaml"), filepath.Join(home, ".dapr", "components"))

	all = load(apps + "common: {resourcesPath: everywhere, configFilePath: common.yaml}\n")
	found(all[0], in("own", "config.yaml"), in("shared"), filepath.Join(home, "mine"))
	found(all[1], in("local", ".dapr", "config.yaml"), in("local", ".dapr", "resources"))
	found(all[2], in("common.yaml"), in("everywhere"))

	write(in("other.yaml"), "version: 1\napps: [{appDirPath: plain}]\n")
	if plan, _, err := Load(in("other.yaml"), true); err != nil || !plan.Apps[0].Dapr || len(plan.Apps[0].ResourcesPaths) != 1 {
		t.Errorf("a template of another name: %+v, error %v", plan, err)
	}
	if plan, _, err := Load(in("other.yaml"), false); err != nil || plan.Apps[0].Dapr || plan.Apps[0].ResourcesPaths != nil {
		t.Errorf("a file of Sidecast's own: %+v, error %v", plan, err)
	}
}

func TestEverythingWrongIsToldAtOnce(t *testing.T) {
	_, _, err := Load("testdata/wrong.yaml", false)
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
`), false)
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
		_, _, err := parse("f.yaml", t.TempDir(), []byte(text), false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), false); fault.ReasonOf(err) != fault.RunFile {
		t.Errorf("missing file: %v", err)
	}
	if _, _, err := Load(t.TempDir(), false); err == nil || !strings.Contains(err.Error(), "holds none of [sidecast.yaml") {
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
		plan, _, err := parse("f.yaml", folder, text, len(text)%2 == 0)
		if err != nil && fault.ReasonOf(err) != fault.RunFile {
			t.Errorf("error %v has no reason", err)
		}
		if err == nil && len(plan.Apps) == 0 {
			t.Error("a plan without apps")
		}
	})
}
