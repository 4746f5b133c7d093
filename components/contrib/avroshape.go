package contrib

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// deepest is how many levels a schema, a value in Avro and one in JSON may have within each other. The library reads all of them
// by calling itself, and a stack that overflows ends the process: by a record that holds itself it does so without a byte to read.
const deepest = 1000

// A value may have as many parts as four to a byte, and these for nothing: nulls, and records of nothing, take no bytes, so that
// three bytes make as much of them as there is memory.
const (
	partsOfAByte = 4
	freeParts    = 1 << 16
)

// avroShape is what a schema says of how many bytes a value has, and no more.
type avroShape struct {
	kind  avroKind
	size  int          // of one that always has so many bytes
	parts []*avroShape // fields of a record, members of a union, the items of an array or a map
}

type avroKind byte

const (
	avroFixed avroKind = iota
	avroNumber
	avroBytes
	avroArray
	avroMap
	avroUnion
	avroRecord
)

// newShape reads a schema that goavro has taken, names as it does: Avro's specification, 1.11.1, Names.
func newShape(schema string) (*avroShape, error) {
	var parsed any
	if err := json.Unmarshal([]byte(schema), &parsed); err != nil {
		return nil, err
	}
	number, text := &avroShape{kind: avroNumber}, &avroShape{kind: avroBytes}
	names := avroNames{
		"null": {}, "boolean": {size: 1}, "float": {size: 4}, "double": {size: 8},
		"int": number, "long": number, "bytes": text, "string": text,
	}
	return names.shape(parsed, "")
}

// avroNames are the types that a schema has named so far.
type avroNames map[string]*avroShape

func (n avroNames) shape(schema any, namespace string) (*avroShape, error) {
	switch schema := schema.(type) {
	case string:
		return n.named(schema, namespace, nil)
	case map[string]any:
		if name, ok := schema["type"].(string); ok {
			return n.named(name, namespace, schema)
		}
		return n.shape(schema["type"], namespace)
	case []any:
		return n.of(avroUnion, namespace, schema...)
	}
	return nil, fmt.Errorf("%T is no type of Avro", schema)
}

func (n avroNames) of(kind avroKind, namespace string, schemas ...any) (*avroShape, error) {
	shape := &avroShape{kind: kind}
	for _, schema := range schemas {
		part, err := n.shape(schema, namespace)
		if err != nil {
			return nil, err
		}
		shape.parts = append(shape.parts, part)
	}
	return shape, nil
}

func (n avroNames) named(name, namespace string, schema map[string]any) (*avroShape, error) {
	if logical, ok := schema["logicalType"].(string); ok {
		if known := n[name+"."+logical]; known != nil {
			return known, nil
		}
	}
	if known := n[name]; known != nil {
		return known, nil
	}
	if known := n[namespace+"."+name]; namespace != "" && known != nil {
		return known, nil
	}
	switch name {
	case "array":
		return n.of(avroArray, namespace, schema["items"])
	case "map":
		return n.of(avroMap, namespace, schema["values"])
	case "enum":
		shape := &avroShape{kind: avroNumber}
		n.add(shape, namespace, schema)
		return shape, nil
	case "fixed":
		size, _ := schema["size"].(float64)
		shape := &avroShape{size: int(size)}
		n.add(shape, namespace, schema)
		return shape, nil
	case "record":
		shape := &avroShape{kind: avroRecord}
		within := n.add(shape, namespace, schema)
		fields, _ := schema["fields"].([]any)
		all, err := n.of(avroRecord, within, fields...)
		if err != nil {
			return nil, err
		}
		shape.parts = all.parts
		return shape, nil
	}
	return nil, fmt.Errorf("there is no type %q", name)
}

// add names the type of schema, and returns the namespace of what is within it.
func (n avroNames) add(shape *avroShape, namespace string, schema map[string]any) (within string) {
	name, _ := schema["name"].(string)
	if name == "" {
		logical, _ := schema["logicalType"].(string)
		n["fixed."+logical] = shape // goavro names it so, and takes it for all others of that kind
		return namespace
	}
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			n[name] = shape
			return name[:i]
		}
	}
	if own, _ := schema["namespace"].(string); own != "" {
		namespace = own
	}
	if namespace != "" {
		name = namespace + "." + name
	}
	n[name] = shape
	return namespace
}

var errShort = errors.New("the value ends too soon (short buffer)")

// check says why data is no value of the shape, or one that must not be read.
func (s *avroShape) check(data []byte) error {
	w := avroWalk{data: data, parts: freeParts + partsOfAByte*len(data)}
	return w.over(s, 0)
}

// avroWalk reads a value and keeps nothing of it.
type avroWalk struct {
	data  []byte
	parts int // that it may still have
}

func (w *avroWalk) over(s *avroShape, depth int) error {
	if depth > deepest {
		return fmt.Errorf("the value is nested more than %d levels deep", deepest)
	}
	if w.parts--; w.parts < 0 {
		return errors.New("the value has far more parts than bytes")
	}
	switch s.kind {
	case avroFixed:
		return w.skip(int64(s.size))
	case avroNumber:
		_, err := w.number()
		return err
	case avroBytes:
		return w.bytes()
	case avroArray, avroMap:
		return w.blocks(s, depth)
	case avroUnion:
		which, err := w.number()
		if err != nil {
			return err
		}
		if which < 0 || which >= int64(len(s.parts)) {
			return fmt.Errorf("a union of %d types has none of number %d", len(s.parts), which)
		}
		return w.over(s.parts[which], depth+1)
	}
	for _, field := range s.parts {
		if err := w.over(field, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// blocks reads an array or a map: blocks of items, the last one empty.
func (w *avroWalk) blocks(s *avroShape, depth int) error {
	for {
		n, err := w.number()
		if err != nil || n == 0 {
			return err
		}
		if n < 0 { // the length of the block in bytes follows
			if _, err := w.number(); err != nil {
				return err
			}
			n = -n
		}
		if n > int64(w.parts) || n == math.MinInt64 {
			return errors.New("the value has far more parts than bytes")
		}
		for range n {
			if s.kind == avroMap {
				if err := w.bytes(); err != nil {
					return err
				}
			}
			if err := w.over(s.parts[0], depth+1); err != nil {
				return err
			}
		}
	}
}

func (w *avroWalk) bytes() error {
	n, err := w.number()
	if err != nil {
		return err
	}
	return w.skip(n)
}

func (w *avroWalk) skip(n int64) error {
	if n < 0 || n > int64(len(w.data)) {
		return errShort
	}
	w.data = w.data[n:]
	return nil
}

// number reads a number of variable length: seven bits a byte, the lowest first, and the sign in the lowest of all.
func (w *avroWalk) number() (int64, error) {
	var n uint64
	for i, b := range w.data {
		n |= uint64(b&0x7f) << (7 * uint(i))
		if b&0x80 == 0 {
			w.data = w.data[i+1:]
			return int64(n>>1) ^ -int64(n&1), nil
		}
	}
	return 0, errShort
}

// tooDeep says whether JSON is nested deeper than what reads it can bear. What is no JSON may be taken for deeper than it is.
func tooDeep(text []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case quoted && b == '\\':
			i++
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{', b == '[':
			if depth++; depth > deepest {
				return true
			}
		case b == '}', b == ']':
			depth--
		}
	}
	return false
}
