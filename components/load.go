package components

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/manifest"
)

// Load reads all YAML files of the folders, and the files among paths. Folders are not searched in depth; names that
// start with a dot are passed over. A file that is named twice, as with its folder, is read once. It returns documents that
// are valid as a whole, or every error there is, joined, each with reason BAD_MANIFEST (NOT_SUPPORTED for what Dapr can do
// and this version cannot).
func Load(ctx context.Context, paths []string, known []Component) (*Documents, error) {
	r, err := read(ctx, paths, known)
	if err != nil {
		return nil, err
	}
	if err := manifest.AsError(r.findings); err != nil {
		return nil, err
	}
	docs := r.docs // not the reader's: that would keep all of it
	docs.Warnings = r.findings
	return &docs, nil
}

// Lint reads paths as Load does and returns all there is to say, errors and warnings, in the order of files and lines, and
// the documents as far as they are right. It opens nothing and looks no secret up.
func Lint(paths []string, known []Component) ([]Finding, *Documents) {
	r, _ := read(context.Background(), paths, known) // fails only when its context ends
	return r.findings, &r.docs
}

// read fails only when ctx ends.
func read(ctx context.Context, paths []string, known []Component) (*reader, error) {
	r := &reader{known: known}
	seen := make(map[string]bool)
	for _, path := range paths {
		for _, name := range r.files(path) {
			if whole, err := filepath.Abs(name); err == nil {
				if seen[whole] {
					continue
				}
				seen[whole] = true
			}
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("read components: %w", err)
			}
			data, err := readFile(name)
			if err != nil {
				r.broken(name, err)
				continue
			}
			r.file(name, data)
		}
	}
	r.cross()
	manifest.SortFindings(r.findings)
	return r, nil
}

// files lists the YAML files of a folder in order, or path itself when it is a file.
func (r *reader) files(path string) []string {
	info, err := os.Stat(path)
	if err != nil {
		r.broken(path, err)
		return nil
	}
	if !info.IsDir() {
		return []string{path}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		r.broken(path, err)
	}
	var names []string
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if !isManifest(name) {
			continue
		}
		if info, err := os.Stat(name); err != nil { // through symbolic links
			r.broken(name, err)
		} else if info.Mode().IsRegular() {
			names = append(names, name)
		}
	}
	if len(names) == 0 && err == nil {
		r.findings = append(r.findings, Finding{File: path, Severity: Warning, Message: "the folder holds no .yaml or .yml file"})
	}
	return names
}

// isManifest says whether a file of a folder is read.
func isManifest(name string) bool {
	ext := strings.ToLower(filepath.Ext(name))
	return !strings.HasPrefix(filepath.Base(name), ".") && (ext == ".yaml" || ext == ".yml")
}

// readFile reads a file that may not be larger than a manifest can be.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, manifest.MaxFile+1))
	if err == nil && len(data) > manifest.MaxFile {
		err = fmt.Errorf("is larger than %s", Bytes(manifest.MaxFile))
	}
	return data, err
}

// broken reports a path that cannot be read.
func (r *reader) broken(path string, err error) {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err // the path is the Finding's File
	}
	r.findings = append(r.findings, Finding{File: path, Severity: Error, Message: err.Error()})
}

// cross reports what is wrong between documents.
func (r *reader) cross() {
	at := func(line int, m Manifest, key string, f Finding) {
		f.File, f.Line, f.Key, f.Severity = m.Source.File, line, key, Error
		r.findings = append(r.findings, f)
	}
	for i, m := range r.docs.Components {
		for _, other := range r.docs.Components[:i] {
			if m.Name != "" && m.Name == other.Name && inNamespace(m.Namespace, other.Namespace) {
				at(r.lines[i].name, m, "metadata.name", Finding{Message: fmt.Sprintf("the name %q is taken by %s", m.Name, other.Source)})
			}
		}
	}
	stores := make(map[string]string) // secret store → the one its own secrets come from
	for _, m := range r.docs.Components {
		if c, ok, _ := choose(r.known, m); ok && c.block == SecretBlock {
			stores[m.Name] = m.SecretStore
		}
	}
	for _, m := range r.docs.Endpoints {
		if _, ok := stores[m.SecretStore]; m.SecretStore != "" && !ok {
			at(m.Source.Line, Manifest{Source: m.Source}, "auth.secretStore",
				manifest.Unknown("there is no secret store of that name", m.SecretStore, sortedKeys(stores)))
		}
	}
	for i, m := range r.docs.Components {
		if m.SecretStore == "" {
			continue
		}
		if _, ok := stores[m.SecretStore]; !ok {
			at(r.lines[i].secretStore, m, "auth.secretStore",
				manifest.Unknown("there is no secret store of that name", m.SecretStore, sortedKeys(stores)))
		} else if circular(stores, m.Name) {
			at(r.lines[i].secretStore, m, "auth.secretStore",
				Finding{Message: fmt.Sprintf("the secret store %s waits for its own secrets", m.SecretStore)})
		}
	}
}

// circular says whether the secret store called name gets its secrets, in the end, from itself.
func circular(stores map[string]string, name string) bool {
	at := stores[name]
	for range stores {
		if at == name {
			return true
		}
		at = stores[at]
	}
	return false
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
