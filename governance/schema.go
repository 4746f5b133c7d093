package governance

import (
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
			extra["scopes"] = manifest.ScopesSchema()
		}
		text, err := manifest.DocumentSchema(kind, versions, spec, extra)
		if err != nil {
			return nil, err
		}
		all[kind] = text
	}
	return all, nil
}
