package components

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func describedFields() []Field {
	return []Field{
		{Key: "hosts", Type: "string", Doc: "Where it is.", Required: true, Sample: "db:1234"},
		{Key: "port", Type: "int", Doc: "Its port.", Usual: "the usual one", Aliases: []string{"portNumber"}},
		{Key: "pass", Type: "string", Doc: "Its password.", Secret: true},
	}
}

func TestDescribedComponentsAreReadWhenTheyAreAskedFor(t *testing.T) {
	asked := 0
	var got Settings
	c := Described(StateBlock, "far", func() string { return "A far store." }, func() []Field { asked++; return describedFields() },
		func(_ context.Context, _ Host, s Settings) (state.Store, error) { got = s; return &fakeStore{}, nil })
	if asked != 0 {
		t.Error("the keys are read before anyone asks")
	}
	if _, err := c.Open(t.Context(), Host{}, map[string]string{"HOSTS": "a", "PortNumber": "7", "keyPrefix": "name"}); err != nil {
		t.Fatal(err)
	}
	if got.Values["HOSTS"] != "a" || got.Values["PortNumber"] != "7" || len(got.Values) != 2 || !got.Given("hosts") || !got.Given("HOSTS") {
		t.Errorf("the library is told %v", got.Values)
	}
	_, err := c.Open(t.Context(), Host{}, map[string]string{"prot": "7", "port": "seven"})
	for _, want := range []string{"spec.metadata.hosts: state.far needs this string: Where it is.", `did you mean "port"?`, `"seven" is not a whole number`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
	d := c.Describe()
	if c.Doc() != "A far store." || d.Doc != c.Doc() || d.Fields[0].Example() != "db:1234" || !strings.Contains(d.Example(), `"db:1234"`) || strings.Contains(d.Example(), "port") {
		t.Errorf("%+v\n%s", d, d.Example())
	}
}

func TestComponentsThatAreNotLinkedAreRefused(t *testing.T) {
	c := NotLinked(StateBlock, "far", "is built without it", func() string { return "A far store." }, describedFields).Versioned("v2")
	file := filepath.Join(t.TempDir(), "far.yaml")
	must(t, os.WriteFile(file, []byte(c.Describe().Example()), 0o644))
	findings, _ := Lint([]string{file}, []Component{c})
	if len(findings) != 1 || findings[0].Key != "spec.type" || findings[0].Line == 0 || !strings.Contains(findings[0].Message, "this program is built without it") {
		t.Errorf("got %v", findings)
	}
	if _, err := c.Open(t.Context(), Host{}, map[string]string{"hosts": "a"}); fault.ReasonOf(err) != fault.BadManifest || !strings.Contains(err.Error(), "is built without it") {
		t.Errorf("got %v", err)
	}
	var b strings.Builder
	must(t, Reference(&b, []Component{c}))
	if !strings.Contains(b.String(), "| `state.far v2` | A far store. |") || strings.Contains(b.String(), "### state.far") || c.NotLinked() == "" {
		t.Error(b.String())
	}
}
