package governance

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/manifest/schematest"
)

// What the reader takes the schemas take. Of what the reader refuses for its shape, they refuse at least these documents.
func TestSchemasAgreeWithTheReader(t *testing.T) {
	texts, err := Schemas()
	if err != nil {
		t.Fatal(err)
	}
	kind := regexp.MustCompile(`(?m)^kind: *(\w+)`)
	check := func(raw manifest.Raw) error {
		return schematest.Document(texts[string(kind.FindSubmatch(raw.YAML)[1])], raw.YAML)
	}
	examples, err := filepath.Glob("../examples/policies/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(examples, "testdata/dapr", "testdata/extended", "testdata/opensergo", "testdata/defaults") {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		for _, raw := range folder(t, dir) {
			if err := check(raw); err != nil {
				t.Errorf("%s, %v: %v", dir, raw.Source, err)
			}
		}
	}
	for _, dir := range []string{"testdata/daprbad", "testdata/extendedbad"} {
		for _, raw := range folder(t, dir) {
			if err := check(raw); err == nil {
				t.Errorf("%s, %v: allowed", dir, raw.Source)
			}
		}
	}
}
