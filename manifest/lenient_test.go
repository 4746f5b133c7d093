package manifest

import (
	"strings"
	"testing"
)

// What daprd's reader takes and YAML's grammar does not.
func TestParseTakesTabsWithinQuotes(t *testing.T) {
	root, err := Parse(Chunk{Line: 3, Text: []byte("a: '{\n\t \"x\": 1,\n\t\t\"y\": 2\n\t}'\nb: |\n  x\n  \ty\n")})
	if err != nil {
		t.Fatal(err)
	}
	if got := root.Get("a").Value.Text; got != `{ "x": 1, "y": 2 }` {
		t.Errorf("a is %q", got)
	}
	if got := root.Get("b"); got.Value.Text != "x\n\ty\n" || got.Line != 7 {
		t.Errorf("b is %q in line %d", got.Value.Text, got.Line)
	}
	if _, err := Parse(Chunk{Line: 1, Text: []byte("a:\n\tb: [")}); err == nil {
		t.Error("what is wrong otherwise is taken")
	}
}

func TestIdentity(t *testing.T) {
	name := func(text string) (string, int) {
		root, err := Parse(Chunk{Line: 1, Text: []byte("metadata: {name: " + text + "}")})
		if err != nil {
			t.Fatal(err)
		}
		d := &Document{File: "f"}
		name, _ := Identity(d.Object(root, ""))
		return name, len(d.Findings)
	}
	for text, want := range map[string]string{
		"123": "123", "true": "true", "a.b-c_d": "a.b-c_d", `"k\u0220M G0O\u9200"`: "k\u0220M G0O\u9200", `"#a*b"`: "#a*b", strings.Repeat("x", 253): strings.Repeat("x", 253),
	} {
		if got, findings := name(text); got != want || findings > 0 {
			t.Errorf("%s is %q with %d findings", text, got, findings)
		}
	}
	for _, text := range []string{`""`, `"a/b"`, `"."`, `".."`, `"a%20"`, `"a\u0007b"`, strings.Repeat("x", 254)} {
		if got, findings := name(text); findings == 0 {
			t.Errorf("%s is taken as %q", text, got)
		}
	}
}

func TestWhatIsSaidTwice(t *testing.T) {
	for text, findings := range map[string]int{"a: 1\na: 1\n": 0, "a: 1\nA: 1\n": 0, "a: 1\na: 2\n": 1, "a: [1]\na: [1]\n": 1} {
		root, err := Parse(Chunk{Line: 1, Text: []byte(text)})
		if err != nil {
			t.Fatal(err)
		}
		d := &Document{File: "f"}
		d.Object(root, "")
		if len(d.Findings) != findings {
			t.Errorf("%q: %v", text, d.Findings)
		}
	}
}

func TestAnEmptyDurationIsNone(t *testing.T) {
	root, err := Parse(Chunk{Line: 1, Text: []byte(`{a: "", b: 2s}`)})
	if err != nil {
		t.Fatal(err)
	}
	d := &Document{File: "f"}
	o := d.Object(root, "")
	if a, b := o.Duration("a"), o.Duration("b"); a != 0 || b.Seconds() != 2 || len(d.Findings) > 0 {
		t.Errorf("%v %v %v", a, b, d.Findings)
	}
}
