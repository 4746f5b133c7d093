package standard

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEveryComponentIsDocumented(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range All() {
		d := c.Describe()
		if seen[d.Title()] || d.Doc == "" {
			t.Errorf("%s is listed twice or has no documentation", d.Title())
		}
		seen[d.Title()] = true
		for _, f := range d.Fields {
			if f.Doc == "" {
				t.Errorf("%s: key %s has no documentation", d.Type, f.Key)
			}
		}
		if d.NotLinked != "" {
			continue // no manifest of it is right
		}
		file := filepath.Join(t.TempDir(), "example.yaml")
		if err := os.WriteFile(file, []byte(d.Example()), 0o644); err != nil {
			t.Fatal(err)
		}
		findings, _ := components.Lint([]string{file}, All())
		for _, f := range findings {
			t.Errorf("the example of %s: %s", d.Type, f)
		}
	}
}

func TestDefaultsAreListed(t *testing.T) {
	for _, m := range Defaults() {
		if !slices.ContainsFunc(All(), func(c components.Component) bool { return c.Type() == m.Type }) {
			t.Errorf("%s is a %s, which is not listed", m.Name, m.Type)
		}
	}
}
