package manifest

import "testing"

func TestNodesAreWrittenAsJSON(t *testing.T) {
	for text, want := range map[string]string{
		"{b: 1.5, a: [x, \"2\", true, null]}": `{"a":["x","2",true,null],"b":1.5}`,
		"[]":                                  `[]`,
		"[0x10, .5, {}]":                      `["0x10",".5",{}]`,
		"text":                                `"text"`,
		"12345678901234567890":                `12345678901234567890`,
	} {
		n, err := Parse(Chunk{Line: 1, Text: []byte(text)})
		if err != nil {
			t.Fatal(text, err)
		}
		if got := n.JSON(); got != want {
			t.Errorf("%s is %s, not %s", text, got, want)
		}
	}
}
