// Package schematest says whether a document follows a JSON Schema that the program writes for editors.
//
//	schemas, err := governance.Schemas()
//	err = schematest.Document(schemas["Resiliency"], yaml)
package schematest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"github.com/goccy/go-yaml"
)

// Document says what a schema has against a document in YAML.
func Document(schema, document []byte) error {
	text, err := yaml.YAMLToJSON(document)
	if err != nil {
		return err
	}
	var value any
	var rules map[string]any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	if err := json.Unmarshal(schema, &rules); err != nil {
		return err
	}
	return Allows(rules, value, "")
}

// Allows says what a schema has against a value, as JSON has it. It knows the words that manifest.SchemaOf uses and no others.
func Allows(schema map[string]any, value any, path string) error {
	if options, ok := schema["anyOf"].([]any); ok {
		var first error
		for _, option := range options {
			err := Allows(option.(map[string]any), value, path)
			if err == nil {
				return nil
			}
			if first == nil {
				first = err
			}
		}
		return first
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, value) {
		return fmt.Errorf("%s: %v is none of %v", path, value, enum)
	}
	if only, ok := schema["const"]; ok && only != value {
		return fmt.Errorf("%s: %v is not %v", path, value, only)
	}
	switch v := value.(type) {
	case map[string]any:
		return allowsObject(schema, v, path)
	case []any:
		if !isA(schema, "array") {
			return fmt.Errorf("%s is a list", path)
		}
		items, _ := schema["items"].(map[string]any)
		for i, item := range v {
			if err := Allows(items, item, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	case string:
		if !isA(schema, "string") && schema["enum"] == nil && schema["const"] == nil {
			return fmt.Errorf("%s is text", path)
		}
		if pattern, ok := schema["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(v) {
			return fmt.Errorf("%s: %q does not match %s", path, v, pattern)
		}
	case float64:
		least, bounded := schema["minimum"].(float64)
		most, capped := schema["maximum"].(float64)
		switch {
		case !isA(schema, "number") && (!isA(schema, "integer") || v != float64(int64(v))):
			return fmt.Errorf("%s is a number", path)
		case bounded && v < least, capped && v > most:
			return fmt.Errorf("%s: %v is out of bounds", path, v)
		}
	case bool:
		if !isA(schema, "boolean") {
			return fmt.Errorf("%s is a truth value", path)
		}
	}
	return nil
}

// isA says whether a schema takes values of a type: it has one, several, or takes all.
func isA(schema map[string]any, name string) bool {
	switch t := schema["type"].(type) {
	case string:
		return t == name
	case []any:
		return slices.Contains(t, any(name))
	}
	return len(schema) == 0 || len(schema) == 1 && schema["description"] != nil
}

func allowsObject(schema, object map[string]any, path string) error {
	if !isA(schema, "object") {
		return fmt.Errorf("%s is a mapping", path)
	}
	properties, _ := schema["properties"].(map[string]any)
	for key, value := range object {
		at := path + "." + key
		switch rest := schema["additionalProperties"].(type) {
		case bool:
			if properties[key] == nil {
				return fmt.Errorf("%s is no key", at)
			}
		case map[string]any:
			if properties[key] == nil {
				if err := Allows(rest, value, at); err != nil {
					return err
				}
			}
		}
		if own, ok := properties[key].(map[string]any); ok {
			if err := Allows(own, value, at); err != nil {
				return err
			}
		}
	}
	required, _ := schema["required"].([]any)
	for _, key := range required {
		if _, ok := object[key.(string)]; !ok {
			return fmt.Errorf("%s.%s is missing", path, key)
		}
	}
	return nil
}
