package governance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/sidecast/sidecast/manifest"
)

// allows says what a schema has against a value. It knows the words that Schemas uses and no others.
func allows(schema map[string]any, value any, path string) error {
	if options, ok := schema["anyOf"].([]any); ok {
		var first error
		for _, option := range options {
			err := allows(option.(map[string]any), value, path)
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
		if schema["type"] != "array" {
			return fmt.Errorf("%s is a list", path)
		}
		for i, item := range v {
			if err := allows(schema["items"].(map[string]any), item, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	case string:
		if schema["type"] != "string" && schema["enum"] == nil && schema["const"] == nil {
			return fmt.Errorf("%s is text", path)
		}
		if pattern, ok := schema["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(v) {
			return fmt.Errorf("%s: %q does not match %s", path, v, pattern)
		}
	case float64:
		least, bounded := schema["minimum"].(float64)
		most, capped := schema["maximum"].(float64)
		switch {
		case schema["type"] != "number" && (schema["type"] != "integer" || v != float64(int64(v))):
			return fmt.Errorf("%s is a number", path)
		case bounded && v < least, capped && v > most:
			return fmt.Errorf("%s: %v is out of bounds", path, v)
		}
	case bool:
		if schema["type"] != "boolean" {
			return fmt.Errorf("%s is a truth value", path)
		}
	}
	return nil
}

func allowsObject(schema, object map[string]any, path string) error {
	if schema["type"] != "object" {
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
				if err := allows(rest, value, at); err != nil {
					return err
				}
			}
		}
		if own, ok := properties[key].(map[string]any); ok {
			if err := allows(own, value, at); err != nil {
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

// What the reader takes the schemas take. Of what the reader refuses for its shape, they refuse at least these documents.
func TestSchemasAgreeWithTheReader(t *testing.T) {
	texts, err := Schemas()
	if err != nil {
		t.Fatal(err)
	}
	schemas := make(map[string]map[string]any)
	for kind, text := range texts {
		var schema map[string]any
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatal(kind, err)
		}
		schemas[kind] = schema
	}
	check := func(t *testing.T, raw manifest.Raw) error {
		text, err := yaml.YAMLToJSON(raw.YAML)
		if err != nil {
			t.Fatal(err)
		}
		var value map[string]any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		return allows(schemas[value["kind"].(string)], value, "")
	}
	examples, err := filepath.Glob("../examples/policies/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range append(examples, "testdata/dapr", "testdata/extended", "testdata/opensergo", "testdata/defaults") {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		for _, raw := range folder(t, dir) {
			if err := check(t, raw); err != nil {
				t.Errorf("%s, %v: %v", dir, raw.Source, err)
			}
		}
	}
	for _, dir := range []string{"testdata/daprbad", "testdata/extendedbad"} {
		for _, raw := range folder(t, dir) {
			if err := check(t, raw); err == nil {
				t.Errorf("%s, %v: allowed", dir, raw.Source)
			}
		}
	}
}
