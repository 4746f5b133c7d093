package components

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/manifest"
)

// Whatever a file holds, reading it ends without a panic, and every error has a place.
func FuzzManifest(f *testing.F) {
	files, err := filepath.Glob("testdata/lint/*/*.y*ml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{"a: &x [*x]", "<<: *x", "? [a]: b", "&a : 1", "- - - -", "!!str", "a: |\n\tb", "--- >\n x", "{", "*", "\x00", "%", "a: !<x> y"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		r := &reader{known: testComponents}
		r.file("f.yaml", data)
		r.cross()
		for _, finding := range r.findings {
			if finding.File != "f.yaml" || finding.Line < 1 || finding.Message == "" {
				t.Errorf("%q: %+v", data, finding)
			}
		}
	})
}

func FuzzBytes(f *testing.F) {
	for _, s := range []string{"0", "1", "8MiB", "1.5 GB", "-1", "1e30", "9223372036854775807", "9223372036854775808", "1 EiB", "16EB", "", " 7 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBytes(s)
		if err != nil {
			return
		}
		if b < 0 {
			t.Fatalf("%q is %d", s, int64(b))
		}
		if again, err := ParseBytes(b.String()); err != nil || again != b {
			t.Fatalf("%q is %s, which is %s, %v", s, b, again, err)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"0", "30", "1.5", "1h30m", "-5s", "1e400", "NaN", "9223372036", "Inf", "µs", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := manifest.ParseDuration(s)
		if err != nil {
			return
		}
		if again, err := manifest.ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("%q is %s, which is %s, %v", s, d, again, err)
		}
	})
}

func TestBytesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bytes(rapid.Int64Min(0).Draw(t, "bytes"))
		if again, err := ParseBytes(b.String()); err != nil || again != b {
			t.Fatalf("%s is %s, %v", b, again, err)
		}
	})
}

func TestSyntaxErrorsHaveALine(t *testing.T) {
	_, err := manifest.Parse(manifest.Chunk{Line: 7, Text: []byte("a: 1\nb: [\n")})
	var syntax *manifest.SyntaxError
	if !errors.As(err, &syntax) || syntax.Line != 8 {
		t.Errorf("got %v", err)
	}
}
