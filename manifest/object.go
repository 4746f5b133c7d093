package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Document collects what is wrong with one document of a file.
type Document struct {
	File     string
	Findings []Finding
}

// Fail adds an error.
func (d *Document) Fail(line int, key, format string, args ...any) {
	d.Add(Finding{Line: line, Key: key, Severity: Error, Message: fmt.Sprintf(format, args...)})
}

// Add puts a finding into the document's file.
func (d *Document) Add(f Finding) {
	f.File = d.File
	d.Findings = append(d.Findings, f)
}

// Object reads a mapping key by key. Every key that is asked for is valid; Done reports the others.
type Object struct {
	Doc   *Document
	Path  string // "" for the root
	Node  *Node
	Valid []string // all keys that were asked for
	// Ignored are keys that are allowed and say nothing here; they are not advertised.
	Ignored []string
}

// Object reads n as a mapping; what is no mapping is reported and read as an empty one.
func (d *Document) Object(n *Node, path string) *Object {
	if n.Kind != Mapping {
		if n.Kind != Null {
			d.Fail(n.Line, path, "must be a mapping, not %s", n.Kind)
		}
		n = &Node{Kind: Mapping, Line: n.Line}
	}
	o := &Object{Doc: d, Path: path, Node: n}
	first := make(map[string]Pair, len(n.Pairs))
	for _, p := range n.Pairs {
		before, twice := first[FoldKey(p.Key)]
		switch {
		case !twice:
			first[FoldKey(p.Key)] = p
		case p.Value.Kind != Scalar || before.Value.Kind != Scalar || p.Value.Text != before.Value.Text: // saying the same twice harms nobody
			d.Fail(p.Line, o.At(p.Key), "is given twice, first in line %d", before.Line)
		}
	}
	return o
}

// At is the path of a key of the mapping.
func (o *Object) At(key string) string {
	if o.Path == "" {
		return key
	}
	return o.Path + "." + key
}

// Line is where key stands, or the mapping when it is not there.
func (o *Object) Line(key string) int {
	if p := o.Node.Get(key); p != nil {
		return p.Line
	}
	return o.Node.Line
}

// Get is the pair of a valid key, or nil when it is not there or empty.
func (o *Object) Get(key string) *Pair {
	o.Valid = append(o.Valid, key)
	if p := o.Node.Get(key); p != nil && p.Value.Kind != Null {
		return p
	}
	return nil
}

// Child reads the mapping under key; it is empty when there is none.
func (o *Object) Child(key string) *Object {
	if p := o.Get(key); p != nil {
		return o.Doc.Object(p.Value, o.At(key))
	}
	return o.Doc.Object(&Node{Kind: Null, Line: o.Node.Line}, o.At(key))
}

// List is the items under key.
func (o *Object) List(key string) []*Node {
	p := o.Get(key)
	if p == nil {
		return nil
	}
	if p.Value.Kind != Sequence {
		o.Doc.Fail(p.Line, o.At(key), "must be a list, not %s", p.Value.Kind)
		return nil
	}
	return p.Value.Items
}

// Scalar is the single value under key and whether there is one.
func (o *Object) Scalar(key string) (*Pair, bool) {
	p := o.Get(key)
	if p == nil {
		return nil, false
	}
	if p.Value.Kind != Scalar {
		o.Doc.Fail(p.Line, o.At(key), "must be a single value, not %s", p.Value.Kind)
		return nil, false
	}
	return p, true
}

// Str is the text under key. A number or a truth value is taken as it is written, as daprd does.
func (o *Object) Str(key string) string {
	p, ok := o.Scalar(key)
	if !ok {
		return ""
	}
	return strings.TrimSpace(p.Value.Text) // a number or a truth, too, as it is written
}

// Need is str for a key that must be there.
func (o *Object) Need(key, what string) string {
	if p := o.Node.Get(key); p == nil || p.Value.Kind == Null {
		o.Valid = append(o.Valid, key)
		o.Doc.Fail(o.Node.Line, o.At(key), "is missing: %s", what)
		return ""
	}
	text := o.Str(key)
	if p := o.Node.Get(key); text == "" && p.Value.Kind == Scalar {
		o.Doc.Fail(p.Line, o.At(key), "must not be empty: %s", what)
	}
	return text
}

// Flag is the truth value under key, or false.
func (o *Object) Flag(key string) bool {
	p, ok := o.Scalar(key)
	if !ok {
		return false
	}
	b, err := ParseBool(p.Value.Text)
	if err != nil {
		o.Doc.Fail(p.Line, o.At(key), "%q %v", p.Value.Text, err)
	}
	return b
}

// Count is the number under key, or 0; it must not be negative.
func (o *Object) Count(key string) int {
	p, ok := o.Scalar(key)
	if !ok {
		return 0
	}
	n, err := strconv.Atoi(p.Value.Text)
	if err != nil || n < 0 {
		o.Doc.Fail(p.Line, o.At(key), "%q is not a whole number of 0 or more", p.Value.Text)
		return 0
	}
	return n
}

// Duration is the time under key, or 0; it must be positive.
func (o *Object) Duration(key string) time.Duration {
	p, ok := o.Scalar(key)
	if !ok || p.Value.Text == "" { // daprd writes an empty one where there is none
		return 0
	}
	d, err := ParseDuration(p.Value.Text)
	switch {
	case err != nil:
		o.Doc.Fail(p.Line, o.At(key), "%q %v", p.Value.Text, err)
	case d <= 0:
		o.Doc.Fail(p.Line, o.At(key), "%q must be more than zero", p.Value.Text)
	}
	return d
}

// Strs is the list of texts under key.
func (o *Object) Strs(key string) []string {
	var all []string
	for i, item := range o.List(key) {
		if item.Kind != Scalar || !item.Str || strings.TrimSpace(item.Text) == "" {
			o.Doc.Fail(item.Line, fmt.Sprintf("%s[%d]", o.At(key), i), "must be text")
			continue
		}
		all = append(all, strings.TrimSpace(item.Text))
	}
	return all
}

// Done reports the keys that nobody asked for.
func (o *Object) Done() {
	for _, p := range o.Node.Pairs {
		if contains(o.Valid, p.Key) || contains(o.Ignored, p.Key) {
			continue
		}
		f := Unknown("there is no such key here", p.Key, o.Valid)
		f.Line, f.Key = p.Line, o.At(p.Key)
		if p.Key == "true" && contains(o.Valid, "on") {
			f.Message, f.Suggestion = "is what tools of YAML 1.1 make of a bare on: quote that key in the file that they read", ""
		}
		o.Doc.Add(f)
	}
}

func contains(keys []string, key string) bool {
	for _, k := range keys {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}
