package configuration

import "github.com/sidecast/sidecast/manifest"

// Schema is the JSON Schema (draft 2020-12) of a document, for editors. It follows from the same structs as the reader.
func Schema(versions []string) ([]byte, error) {
	return manifest.DocumentSchema(Kind, versions, manifest.SchemaOf(spec{}), map[string]any{})
}
