package manifest

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Where
	Inner   `yaml:",inline"`
	Word    string           `yaml:"word,required" oneof:"red|green" doc:"A colour."`
	Count   int              `yaml:"count" min:"1" max:"5" doc:"How many."`
	Ratio   float64          `yaml:"ratio" doc:"A ratio."`
	Share   Share            `yaml:"share" doc:"A share."`
	Wait    time.Duration    `yaml:"wait" doc:"A time."`
	On      *bool            `yaml:"on" doc:"A switch."`
	Refers  Name             `yaml:"refers" doc:"A name."`
	List    []string         `yaml:"list" doc:"Words."`
	ByName  map[string]Inner `yaml:"byName" doc:"Things."`
	Pointer *Inner           `yaml:"pointer" doc:"A thing."`
}

type Inner struct {
	Depth int `yaml:"depth" doc:"How deep."`
}

func decode(t *testing.T, text string) (sample, []string) {
	t.Helper()
	root, err := Parse(Chunk{Line: 1, Text: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	d := &Document{File: "f"}
	o := d.Object(root, "")
	o.Into(&s)
	o.Done()
	var said []string
	for _, f := range d.Findings {
		said = append(said, f.String())
	}
	return s, said
}

func TestIntoReadsEveryType(t *testing.T) {
	got, said := decode(t, `
word: red
count: "3"
ratio: 0.5
share: 25%
wait: 2s
on: no
refers: someone
list: [a, b]
byName: {x: {depth: 2}, y: }
pointer: {depth: 7}
depth: 1
`)
	if said != nil {
		t.Fatal(said)
	}
	off := false
	want := sample{
		Where: Where{Line: 2}, Inner: Inner{1}, Word: "red", Count: 3, Ratio: .5, Share: .25, Wait: 2 * time.Second, On: &off,
		Refers: Name{"someone", Where{8, "refers"}}, List: []string{"a", "b"}, ByName: map[string]Inner{"x": {2}, "y": {}}, Pointer: &Inner{7},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestIntoSaysAllThatIsWrong(t *testing.T) {
	_, said := decode(t, `
word: rde
count: 9
ratio: half
share: 150%
wait: soon
on: perhaps
refers: [a]
list: [1, {a: b}]
byName: {x: 5, z: {dept: 1}}
pointer: []
`)
	want := []string{
		`f:2: word: "rde" is not one of them; valid: green, red; did you mean "red"?`,
		`f:3: count: "9" is more than 5`,
		`f:4: ratio: "half" is not a number`,
		`f:5: share: "150%" is not a share`,
		`f:6: wait: "soon" is not a duration`,
		`f:7: on: "perhaps" is neither true nor false`,
		`f:8: refers: must be a single value, not a list`,
		`f:9: list[0]: must be text: write "1" in quotes`,
		`f:9: list[1]: must be a single value, not a mapping`,
		`f:10: byName.x: must be a mapping, not a single value`,
		`f:10: byName.z.dept: there is no such key here; valid: depth; did you mean "depth"?`,
		`f:11: pointer: must be a mapping, not a list`,
	}
	if len(said) != len(want) {
		t.Fatalf("got:\n%s", strings.Join(said, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(said[i], want[i]) {
			t.Errorf("got  %s\nwant %s", said[i], want[i])
		}
	}
	if _, said := decode(t, "count: 1"); len(said) != 1 || said[0] != "f:1: word: is missing: a colour" {
		t.Errorf("got %v", said)
	}
}

func TestSchemaSaysWhatIntoReads(t *testing.T) {
	s := SchemaOf(sample{})
	properties := s["properties"].(map[string]any)
	if len(properties) != len(Fields(reflect.TypeFor[sample]())) || s["additionalProperties"] != false {
		t.Errorf("got %v", s)
	}
	if required := s["required"]; !reflect.DeepEqual(required, []string{"word"}) {
		t.Errorf("required: %v", required)
	}
	if word := properties["word"].(map[string]any); !reflect.DeepEqual(word["enum"], []string{"red", "green"}) || word["description"] != "A colour." {
		t.Errorf("word: %v", word)
	}
}
