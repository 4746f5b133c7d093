package contrib

import (
	"bytes"
	numbers "encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
	"pgregory.net/rapid"
)

// schemaSeven is a registry that has a schema, as number 7, and nobody to ask.
func schemaSeven(t *testing.T, schema string) *schemaRegistry {
	t.Helper()
	r := &schemaRegistry{byID: map[uint32]*avroSchema{}}
	known, err := r.parse(schema)
	if err != nil {
		t.Fatal(err)
	}
	r.byID[7] = known
	return r
}

// No bytes of a producer, and no schema, end the process or take its memory: what is nested too deep, and what claims to have more
// than it has bytes for, is unreadable.
func TestAvroOfAnybodyIsRead(t *testing.T) {
	const list = `{"type":"record","name":"list","namespace":"a.b","fields":[{"name":"next","type":["null","list"]}]}`
	doubling := `"null"`
	for i := range 40 {
		doubling = fmt.Sprintf(`{"type":"record","name":"r%d","fields":[{"name":"a","type":%s},{"name":"b","type":"%s"}]}`, i, doubling, map[bool]string{true: "null", false: fmt.Sprint("r", i-1)}[i == 0])
	}
	for _, c := range []struct{ name, schema, value, why string }{
		{"a list of two", list, "\x02\x02\x00", ""},
		{"a list as long as may be", list, strings.Repeat("\x02", deepest/2-1) + "\x00", ""},
		{"a list of a million", list, strings.Repeat("\x02", 1_000_000) + "\x00", "levels deep"},
		{"a record that holds itself", `{"type":"record","name":"r","fields":[{"name":"r","type":"r"}]}`, "", "levels deep"},
		{"arrays in arrays", `{"type":"record","name":"r","fields":[{"name":"r","type":{"type":"array","items":"r"}}]}`, strings.Repeat("\x02", 1_000_000), "levels deep"},
		{"a value that doubles forty times", doubling, "", "more parts than bytes"},
		{"a block of too many", `{"type":"array","items":"int"}`, string(numbers.AppendVarint(nil, 1<<40)), "more parts than bytes"},
		{"a block of fewer than none", `{"type":"map","values":"int"}`, string(numbers.AppendVarint(nil, -1<<63)) + "\x00", "more parts than bytes"},
		{"many blocks of nothing", `{"type":"array","items":"null"}`, strings.Repeat(string(numbers.AppendVarint(nil, 60_000)), 20), "more parts than bytes"},
		{"a text that ends too soon", `"string"`, "\x04a", "short buffer"},
		{"a text of a negative length", `"bytes"`, "\x01a", "short buffer"},
		{"no such member", `["null","int"]`, "\x04\x00", "none of number 2"},
	} {
		data, err := schemaSeven(t, c.schema).decode(t.Context(), append([]byte{0, 0, 0, 0, 7}, c.value...))
		_, never := errors.AsType[unreadableError](err)
		if c.why == "" && (err != nil || len(data) == 0) || c.why != "" && (!never || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%s gives %d bytes, %.200v", c.name, len(data), err)
		}
	}
	for _, levels := range []int{deepest + 1, 1_000_000} {
		schema := strings.Repeat(`{"type":`, levels) + `"int"` + strings.Repeat("}", levels)
		if _, err := new(schemaRegistry).parse(schema); err == nil || !strings.Contains(err.Error(), "more than 1000 levels") {
			t.Errorf("a schema of %d levels gives %.200v", levels, err)
		}
	}
	deep := strings.Repeat(`{"next":`, 1_000_000) + "null" + strings.Repeat("}", 1_000_000)
	if _, err := new(schemaRegistry).encode(t.Context(), "topic", []byte(deep)); err == nil || !strings.Contains(err.Error(), "more than 1000 levels") {
		t.Errorf("JSON of a million levels gives %.200v", err)
	}
	if tooDeep([]byte(`{"a":"` + strings.Repeat(`[\"`, 2*deepest) + `","b":[` + strings.Repeat("[],", 2*deepest) + `0]}`)) {
		t.Error("brackets in a text, and such that close again, are taken for levels")
	}
}

// What goavro reads has the shape that newShape sees, to the byte.
func TestAvroShapesAreTheLibrarys(t *testing.T) {
	read := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		schema := schemas(t, new(int), 3)
		codec, err := goavro.NewCodec(schema)
		if err != nil {
			t.Skip(err) // a union may have but one of a kind
		}
		shape, err := newShape(schema)
		if err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		data := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0, 0, 1, 2, 2, 4, 6, 0x80, 0xff}), 0, 40).Draw(t, "data")
		w := avroWalk{data: data, parts: freeParts}
		seen := w.over(shape, 0)
		if seen != nil && (strings.Contains(seen.Error(), "levels deep") || strings.Contains(seen.Error(), "more parts")) {
			t.Skip(seen) // the library would not return
		}
		_, rest, err := codec.NativeFromBinary(data)
		if err == nil && (seen != nil || !bytes.Equal(rest, w.data)) {
			t.Fatalf("%s of % x: the library leaves % x, the walk % x, %v", schema, data, rest, w.data, seen)
		}
		read[err == nil]++
	})
	if read[true] == 0 || read[false] == 0 {
		t.Errorf("read, and not: %v", read)
	}
}

// schemas makes a schema of at most so many levels.
func schemas(t *rapid.T, names *int, levels int) string {
	kinds := []string{`"null"`, `"boolean"`, `"int"`, `"long"`, `"float"`, `"double"`, `"bytes"`, `"string"`,
		`{"type":"long","logicalType":"timestamp-millis"}`, `{"type":"int","logicalType":"none"}`, "enum", "fixed", "known"}
	if levels > 0 {
		kinds = append(kinds, "array", "map", "union", "record", "record", "wrapped")
	}
	part := func() string { return schemas(t, names, levels-1) }
	name := func() string {
		*names++
		return rapid.SampledFrom([]string{`"name":"n%d"`, `"name":"n%d","namespace":"a.b"`, `"name":"c.n%d"`}).Draw(t, "name")
	}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case "enum":
		return fmt.Sprintf(`{"type":"enum",`+name()+`,"symbols":["A","B"]}`, *names)
	case "fixed":
		return fmt.Sprintf(`{"type":"fixed",`+name()+`,"size":%d}`, *names, rapid.IntRange(1, 3).Draw(t, "size"))
	case "known":
		return fmt.Sprintf(`"%sn%d"`, rapid.SampledFrom([]string{"", "a.b.", "c."}).Draw(t, "of"), rapid.IntRange(1, *names+1).Draw(t, "which"))
	case "array":
		return `{"type":"array","items":` + part() + `}`
	case "map":
		return `{"type":"map","values":` + part() + `}`
	case "wrapped":
		return `{"type":` + part() + `}`
	case "union":
		return "[" + part() + "," + part() + "]"
	case "record":
		head := fmt.Sprintf(`{"type":"record",`+name()+`,"fields":[`, *names)
		return head + `{"name":"x","type":` + part() + `},{"name":"y","type":` + part() + `}]}`
	default:
		return kind
	}
}
