package governance

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/resiliency"
)

var update = flag.Bool("update", false, "write the golden files anew")

// standard are defaults as a runtime has them.
var standard = Defaults{
	App:       resiliency.Policy{Name: "default-app", CallTimeout: 30 * time.Second, Retry: resiliency.Retry{Max: 5}, MaxInFlight: 2048, MaxQueue: 2048},
	Component: resiliency.Policy{Name: "default-component", CallTimeout: 15 * time.Second, MaxInFlight: 512, MaxQueue: 2048},
	Delivery:  resiliency.Policy{Name: "default-subscription", AttemptTimeout: 10 * time.Minute},
	Local:     resiliency.Policy{Name: "app-max-concurrency", MaxInFlight: 1024, MaxQueue: 256},

	Kinds: map[string]resiliency.Policy{Binding: {Name: "default-binding", CallTimeout: 5 * time.Minute}},
	Types: map[string]string{"tickets": "bindings.http"},

	AppUnderDaprd: resiliency.Policy{Name: "default-app", Retry: resiliency.Retry{Max: 5}, MaxInFlight: 2048, MaxQueue: 2048},
}

// raws cuts a file into its documents.
func raws(name string, data []byte) []manifest.Raw {
	var all []manifest.Raw
	for _, c := range manifest.Split(data) {
		all = append(all, manifest.Raw{Source: manifest.Source{File: name, Line: c.Line}, YAML: c.Text})
	}
	return all
}

func folder(t *testing.T, dir string) []manifest.Raw {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all []manifest.Raw
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raws(filepath.Base(file), data)...)
	}
	return all
}

// Each folder of testdata holds documents and, in want.txt, all there is to say about them and what they mean.
func TestRead(t *testing.T) {
	folders, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if f.Name() == "fuzz" {
			continue
		}
		t.Run(f.Name(), func(t *testing.T) {
			dir := filepath.Join("testdata", f.Name())
			rules, findings := Read(folder(t, dir), Who{})
			var b strings.Builder
			for _, f := range findings {
				b.WriteString(string(f.Severity) + " " + f.String() + "\n")
			}
			for _, e := range rules.Explain(standard) {
				b.WriteString(e.Target + ": " + e.Text + "\n")
			}
			golden(t, filepath.Join(dir, "want.txt"), b.String())
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got, file, want)
	}
}
