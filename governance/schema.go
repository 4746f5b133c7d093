package governance

import (
	"encoding/json"

	"github.com/sidecast/sidecast/manifest"
)

// Schemas are the JSON Schemas (draft 2020-12) of the kinds that this package reads, for editors, by kind. They follow
// from the same structs as the reader.
func Schemas() (map[string][]byte, error) {
	all := make(map[string][]byte)
	for kind, versions := range Kinds() {
		var spec map[string]any
		extra := map[string]any{}
		if sample, ok := sergoKinds[kind]; ok {
			spec = manifest.SchemaOf(sample)
		} else {
			spec = manifest.SchemaOf(resiliencySpec{})
			extra["scopes"] = map[string]any{
				"type": "array", "items": map[string]any{"type": "string"},
				"description": "The app ids that see the document; all when left out.",
			}
		}
		text, err := json.MarshalIndent(documentSchema(kind, versions, spec, extra), "", "  ")
		if err != nil {
			return nil, err
		}
		all[kind] = append(text, '\n')
	}
	return all, nil
}

func documentSchema(kind string, versions []string, spec, properties map[string]any) map[string]any {
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
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind, "type": "object",
		"required": []string{"apiVersion", "kind", "metadata", "spec"}, "properties": properties, "additionalProperties": false,
	}
}
