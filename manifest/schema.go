package manifest

import (
	"encoding/json"
	"reflect"
	"strconv"
)

// SchemaOf is the JSON Schema of a struct that Into reads. Keys that are not in it are errors.
func SchemaOf(sample any) map[string]any { return structSchema(reflect.TypeOf(sample)) }

func structSchema(t reflect.Type) map[string]any {
	properties := map[string]any{}
	var required []string
	for _, f := range Fields(t) {
		property := f.schema()
		property["description"] = f.Doc
		properties[f.Key] = property
		if f.Required {
			required = append(required, f.Key)
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		s["required"] = required
	}
	return s
}

// schema describes one key. What YAML takes for another type may be written all the same where it means the same.
func (f Field) schema() map[string]any {
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(decoderType) {
		return reflect.New(t).Interface().(Decoder).Schema()
	}
	inner := Field{Type: t, OneOf: f.OneOf, Min: f.Min, Max: f.Max}
	switch {
	case t == nameType:
		return map[string]any{"type": "string"}
	case t == shareType:
		return map[string]any{"anyOf": []any{
			map[string]any{"type": "number", "minimum": 0, "maximum": 1},
			map[string]any{"type": "string", "pattern": `^[0-9]+(\.[0-9]+)?%?$`},
		}}
	case t == durationType:
		return map[string]any{"type": []string{"string", "number"}}
	case t.Kind() == reflect.Struct:
		return structSchema(t)
	case t.Kind() == reflect.Map:
		inner.Type = t.Elem()
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": inner.schema()} // null: nothing yet but comments
	case t.Kind() == reflect.Slice:
		inner.Type = t.Elem()
		return map[string]any{"type": "array", "items": inner.schema()}
	case t.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case t.Kind() == reflect.String:
		s := map[string]any{"type": "string"}
		if f.OneOf != nil {
			s["enum"] = f.OneOf
		}
		return s
	}
	return f.numberSchema(t)
}

func (f Field) numberSchema(t reflect.Type) map[string]any {
	s := map[string]any{"type": "integer"}
	if t.Kind() == reflect.Float64 {
		s["type"] = "number"
	}
	for key, bound := range map[string]string{"minimum": f.Min, "maximum": f.Max} {
		if x, err := strconv.ParseFloat(bound, 64); err == nil {
			s[key] = x
		}
	}
	return map[string]any{"anyOf": []any{s, map[string]any{"type": "string", "pattern": `^-?[0-9]+(\.[0-9]+)?$`}}}
}

// DocumentSchema is the JSON Schema (draft 2020-12) of documents of a kind, whose spec has that schema and which have these
// properties beside what all have.
func DocumentSchema(kind string, versions []string, spec, properties map[string]any) ([]byte, error) {
	properties["apiVersion"] = map[string]any{"enum": versions}
	properties["kind"] = map[string]any{"const": kind}
	properties["metadata"] = map[string]any{
		"type": "object", "required": []string{"name"},
		"properties": map[string]any{
			"name":      map[string]any{"type": "string", "description": "What it is called."},
			"namespace": map[string]any{"type": "string", "description": "The namespace whose sidecars see it; all when left out."},
			"labels":    map[string]any{"type": "object"},
		},
	}
	properties["spec"] = spec
	text, err := json.MarshalIndent(map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind, "type": "object",
		"required": []string{"apiVersion", "kind", "metadata", "spec"}, "properties": properties, "additionalProperties": false,
	}, "", "  ")
	return append(text, '\n'), err
}

// ScopesSchema is that of the app ids that see a document.
func ScopesSchema() map[string]any {
	return map[string]any{
		"type": []string{"array", "null"}, "items": map[string]any{"type": "string"},
		"description": "The app ids that see the document; all when left out.",
	}
}
