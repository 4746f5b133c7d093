package components

import (
	"maps"
	"slices"

	"github.com/sidecast/sidecast/manifest"
)

// Versions are the API versions of a kind of documents.
func Versions(kind string) []string { return slices.Clone(kinds[kind]) }

// EndpointSchema is the JSON Schema (draft 2020-12) of an HTTPEndpoint, for editors. It says what endpoint reads.
func EndpointSchema() ([]byte, error) {
	text := func(doc string) map[string]any { return map[string]any{"type": "string", "description": doc} }
	object := func(doc string, required []string, properties map[string]any) map[string]any {
		o := map[string]any{"type": "object", "properties": properties, "additionalProperties": false, "description": doc}
		if required != nil {
			o["required"] = required
		}
		return o
	}
	value := map[string]any{
		"value":        map[string]any{"type": []string{"string", "number", "boolean"}, "description": "The value itself."},
		"secretKeyRef": object("The secret that has the value.", []string{"name"}, map[string]any{"name": text("The secret."), "key": text("The part of it that is meant; name when left out.")}),
		"envRef":       text("The environment variable that has the value."),
	}
	header := maps.Clone(value)
	header["name"] = text("The field of the header.")
	spec := object("The server.", []string{"baseUrl"}, map[string]any{
		"baseUrl": map[string]any{"type": "string", "pattern": "^https?://[^?#]+$", "description": "What the path of a call is added to."},
		"version": text("Means nothing."),
		"headers": map[string]any{"type": "array", "description": "Fields of every call.", "items": object("One field.", []string{"name"}, header)},
		"clientTLS": object("TLS with the server.", nil, map[string]any{
			"rootCA":        object("Authority that signed the server's certificate, in PEM.", nil, value),
			"certificate":   object("Certificate of the sidecar, in PEM.", nil, value),
			"privateKey":    object("Key of that certificate, in PEM.", nil, value),
			"renegotiation": map[string]any{"enum": renegotiations, "description": "Whether the server may ask for another handshake; Never when left out."},
		}),
	})
	return manifest.DocumentSchema("HTTPEndpoint", Versions("HTTPEndpoint"), spec, map[string]any{
		"scopes": manifest.ScopesSchema(),
		"auth":   object("Where its secrets come from.", nil, map[string]any{"secretStore": text("The component that looks secretKeyRefs up; the environment when left out.")}),
	})
}
