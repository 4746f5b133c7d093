// Package datasheet knows what the components of github.com/dapr/components-contrib say about themselves: their keys,
// operations, ways to sign in and pages, as their own metadata.yaml has them, by the types that daprd registers.
//
//	sheet, ok := datasheet.Of("bindings.aws.s3", "v1")
//	for _, key := range sheet.Keys { … }
//
// The texts are the library's (Copyright The Dapr Authors, Apache License 2.0). What is unpacked, in a few milliseconds,
// is kept for no longer than someone uses it. It promises no more than the files do: a key that a component takes and its
// file leaves out is not here.
package datasheet

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"weak"
)

// Sheet is what one component says about itself.
type Sheet struct {
	// Names are what a manifest may call it.
	Names []Name `json:"names"`
	// Title is what it is called, Status how mature the library says it is (stable, beta, alpha), Doc what else it says; all are
	// empty for a component without a file.
	Title  string `json:"title,omitempty"`
	Status string `json:"status,omitempty"`
	Doc    string `json:"doc,omitempty"`
	// Input and Output are the directions of a binding, Operations what an output can do.
	Input      bool        `json:"input,omitempty"`
	Output     bool        `json:"output,omitempty"`
	Operations []Operation `json:"operations,omitempty"`
	// Profiles are ways to sign in; their keys are among Keys.
	Profiles []Profile `json:"profiles,omitempty"`
	Links    []Link    `json:"links,omitempty"`
	Keys     []Key     `json:"keys,omitempty"`
}

// Operation is something that an output binding can do.
type Operation struct {
	Name string `json:"name"`
	Doc  string `json:"doc,omitempty"`
}

// Profile is a way to sign in: Needed are the keys that it cannot do without, Keys the others.
type Profile struct {
	Title  string   `json:"title"`
	Doc    string   `json:"doc,omitempty"`
	Needed []string `json:"needed,omitempty"`
	Keys   []string `json:"keys,omitempty"`
}

// Link is a page about the component.
type Link struct {
	Title string `json:"title"`
	URL   string `json:"url"`
}

// Key is a key of spec.metadata.
type Key struct {
	Name string `json:"name"`
	// Type is string, number, bool, duration or bytesize.
	Type string `json:"type,omitempty"`
	Doc  string `json:"doc,omitempty"`
	// Required says that the component does not start without it, Secret that its value is never shown.
	Required bool `json:"required,omitempty"`
	Secret   bool `json:"secret,omitempty"`
	// Default is what the component does without the key, Example a value, both in words and not always a value that it takes.
	Default string `json:"default,omitempty"`
	Example string `json:"example,omitempty"`
	// OneOf lists all values that there are; none for any.
	OneOf []string `json:"oneOf,omitempty"`
	// Only is the one direction of a binding that has the key, input or output; empty for both.
	Only string `json:"only,omitempty"`
	URL  string `json:"url,omitempty"`
}

var (
	//go:embed sheets.jsonl.gz
	packed []byte
	//go:embed types.txt
	types string
)

// Name is what a manifest writes under spec.type and spec.version.
type Name struct {
	Type    string `json:"type"`
	Version string `json:"version"`
}

// Names yields each type that daprd registers for a component, sorted, without unpacking anything.
func Names() iter.Seq[Name] {
	return func(yield func(Name) bool) {
		for line := range strings.Lines(types) {
			typ, version, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if !yield(Name{typ, version}) {
				return
			}
		}
	}
}

// Of is the sheet of a type and version; "" is v1. It is shared: nobody changes it.
func Of(typ, version string) (*Sheet, bool) {
	if version == "" {
		version = "v1"
	}
	s := unpack().named[Name{typ, version}]
	return s, s != nil
}

// All yields every sheet, in the order of names.
func All() iter.Seq[*Sheet] { return slices.Values(unpack().all) }

// book is all sheets. It is kept for as long as someone uses it, and for those who ask before the next garbage collection.
type book struct {
	all   []*Sheet
	named map[Name]*Sheet
}

var last struct {
	mu   sync.Mutex
	book weak.Pointer[book]
}

func unpack() *book {
	last.mu.Lock()
	defer last.mu.Unlock()
	if b := last.book.Value(); b != nil {
		return b
	}
	b, err := read()
	if err != nil {
		panic(fmt.Sprintf("datasheet: %v", err)) // what is embedded was tested
	}
	last.book = weak.Make(b)
	return b
}

func read() (*book, error) {
	lines, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	b := &book{named: map[Name]*Sheet{}}
	for all := json.NewDecoder(lines); ; {
		s := &Sheet{}
		if err := all.Decode(s); errors.Is(err, io.EOF) {
			return b, nil
		} else if err != nil {
			return nil, err
		}
		b.all = append(b.all, s)
		for _, n := range s.Names {
			b.named[n] = s
		}
	}
}
