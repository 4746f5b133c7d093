package rawjson

import (
	"bytes"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"
)

// agree fails unless all functions give what encoding/json does.
func agree(t interface{ Fatalf(string, ...any) }, data []byte) {
	var want map[string]json.RawMessage
	err := json.Unmarshal(data, &want)
	got, ok := Fields(data)
	if ok != (err == nil && want != nil) || ok && len(got) != len(want) {
		t.Fatalf("%q has the fields %q (%v), not %q (%v)", data, got, ok, want, err)
	}
	for name, value := range want {
		if !bytes.Equal(got[name], value) {
			t.Fatalf("%q has %q: %q, not %q", data, name, got[name], value)
		}
	}
	var text string
	_ = json.Unmarshal(data, &text)
	if got := Text(data); got != text {
		t.Fatalf("%q is the text %q, not %q", data, got, text)
	}
	written, _ := json.Marshal(string(data))
	if got := AppendText([]byte("x"), string(data)); string(got) != "x"+string(written) {
		t.Fatalf("%q is written as %s, not %s", data, got, written)
	}
	value, err := json.Marshal(json.RawMessage(data))
	if len(data) == 0 {
		return // json.Marshal takes nothing for null
	}
	if got, ok := AppendValue([]byte("x"), data); ok != (err == nil) || string(got) != "x"+string(value) {
		t.Fatalf("%q is written as %s (%v), not %s (%v)", data, got, ok, value, err)
	}
}

var examples = []string{
	``, `null`, `{}`, ` { } `, `[]`, `1`, `"x"`, `"\u00e9\n"`, `"é"`, "\"\xff\"", "\"a\tb\"", `"a\"b"`, `"\\"`, `"<&>"`, "\"\u2028\"", `{"a":1}`, `{"a":1,"a":2}`, `{"a" : {"b":[1,"}",{}]} , "c\u0041":"\\\"," , "d":-1.5e3,"e":true}`,
	`{"a":1}x`, `{"a"}`, `{"a":[1,2]}`, "{\n\t\"a\": [ 1 , 2 ]\n}", `{"":""}`, `{"a":"<b>"}`, `x`, `{"a":}`, "{\"\xff\":\"\xff\"}",
}

func TestAsEncodingJSON(t *testing.T) {
	for _, e := range examples {
		agree(t, []byte(e))
	}
}

func TestRandomObjectsAsEncodingJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		object := map[string]any{}
		for range rapid.IntRange(0, 6).Draw(t, "fields") {
			value := rapid.OneOf(
				rapid.Map(rapid.String(), func(s string) any { return s }),
				rapid.Map(rapid.Float64Range(-1e9, 1e9), func(f float64) any { return f }),
				rapid.Map(rapid.SliceOf(rapid.String()), func(l []string) any { return l }),
				rapid.Map(rapid.MapOf(rapid.String(), rapid.Bool()), func(m map[string]bool) any { return m }),
				rapid.Just[any](nil),
			).Draw(t, "value")
			object[rapid.String().Draw(t, "name")] = value
		}
		data, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var indented bytes.Buffer
		if rapid.Bool().Draw(t, "indented") && json.Indent(&indented, data, "\t", "  ") == nil {
			data = indented.Bytes()
		}
		agree(t, data)
	})
}

func FuzzAsEncodingJSON(f *testing.F) {
	for _, e := range examples {
		f.Add([]byte(e))
	}
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, data) })
}
