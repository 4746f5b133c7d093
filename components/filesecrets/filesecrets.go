// Package filesecrets is the secret store "secretstores.local.file": secrets from a JSON file, for development. The file
// is read at each look-up, so that a changed secret is seen at once, and followed: components that took another value from
// it are opened again. Nothing of it is kept.
//
//	spec:
//	  type: secretstores.local.file
//	  metadata:
//	  - name: secretsFile
//	    value: secrets.json
//
// Nested values are named by their path: {"redis": {"password": "…"}} holds the secret "redis:password". With
// multiValued, "redis" is one secret whose parts are what it contains.
package filesecrets

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	SecretsFile     string `meta:"secretsFile,required" doc:"Path of the JSON file, relative to where the sidecar was started."`
	NestedSeparator string `meta:"nestedSeparator" default:":" doc:"What joins the names of nested values."`
	MultiValued     bool   `meta:"multiValued" default:"false" doc:"Each name at the top of the file is one secret with several parts."`
}

// Component makes the store known to the runtime.
var Component = components.Secrets("local.file", "Secrets from a JSON file on this machine, for development.", open).AbleIf("multiValued", "MULTIPLE_KEY_VALUES_PER_SECRET")

var (
	_ components.SecretStore   = (*store)(nil)
	_ components.SecretWatcher = (*store)(nil)
)

type store struct {
	config Config
	seen   components.Seen // before the file was first read
}

func open(_ context.Context, _ components.Host, c Config) (components.SecretStore, error) {
	s := &store{config: c, seen: components.See([]string{c.SecretsFile})}
	if _, err := s.read(); err != nil {
		return nil, err
	}
	return s, nil
}

// Secret returns the parts of a secret.
func (s *store) Secret(_ context.Context, name string, _ map[string]string) (map[string]string, error) {
	secrets, err := s.read()
	if err != nil {
		return nil, err
	}
	parts, ok := secrets[name]
	if !ok {
		return nil, fault.New("secret "+name, fault.SecretNotFound, "the file %s does not hold it", s.config.SecretsFile)
	}
	return parts, nil
}

// Secrets returns all secrets of the file.
func (s *store) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	return s.read()
}

// Watch calls changed when the file has other bytes than before.
func (s *store) Watch(ctx context.Context, changed func()) error {
	return components.Watch(ctx, s.seen, changed)
}

// read returns all secrets by name. Its errors say where the file is wrong and quote nothing of it.
func (s *store) read() (map[string]map[string]string, error) {
	op := "read secrets from " + s.config.SecretsFile
	data, err := os.ReadFile(s.config.SecretsFile)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, fault.E(op, fault.None, fault.BackendDown, err)
	}
	var top map[string]any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber() // a port stays 6379 and does not become 6.379e+03
	if err := decoder.Decode(&top); err != nil {
		return nil, fault.New(op, fault.BadManifest, "is not a JSON object%s", where(data, err))
	}
	secrets := make(map[string]map[string]string)
	for name, v := range top {
		parts := make(map[string]string)
		if nested, ok := v.(map[string]any); ok && s.config.MultiValued {
			for part, v := range nested {
				s.flatten(parts, part, v)
			}
			secrets[name] = parts
			continue
		}
		s.flatten(parts, name, v)
		for part, text := range parts {
			secrets[part] = map[string]string{part: text}
		}
	}
	return secrets, nil
}

// flatten adds v, and what is nested in it, under name.
func (s *store) flatten(parts map[string]string, name string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, nested := range v {
			s.flatten(parts, name+s.config.NestedSeparator+key, nested)
		}
	case []any:
		for i, nested := range v {
			s.flatten(parts, name+s.config.NestedSeparator+strconv.Itoa(i), nested)
		}
	case nil:
	default:
		parts[name] = fmt.Sprint(v)
	}
}

// where names the line of a JSON error when it has one.
func where(data []byte, err error) string {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return ""
	}
	before := data[:min(max(int(syntax.Offset)-1, 0), len(data))] // Offset counts the byte that was wrong
	return fmt.Sprintf(": line %d cannot be read", 1+bytes.Count(before, []byte("\n")))
}

// Close has nothing to end.
func (s *store) Close(context.Context) error { return nil }
