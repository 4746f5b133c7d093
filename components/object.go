package components

import (
	"fmt"
	"strings"
	"time"
)

// document collects what is wrong with one document of a file.
type document struct {
	file     string
	findings []Finding
}

func (d *document) fail(line int, key, format string, args ...any) {
	d.add(Finding{Line: line, Key: key, Severity: Error, Message: fmt.Sprintf(format, args...)})
}

// add puts a finding into the document's file.
func (d *document) add(f Finding) {
	f.File = d.file
	d.findings = append(d.findings, f)
}

// object reads a mapping key by key. Every key that is asked for is valid; done reports the others.
type object struct {
	doc   *document
	path  string // "" for the root
	node  *node
	valid []string
	// ignored are keys that are allowed and say nothing here; they are not advertised.
	ignored []string
}

// object reads n as a mapping; what is no mapping is reported and read as an empty one.
func (d *document) object(n *node, path string) *object {
	if n.kind != mapping {
		if n.kind != null {
			d.fail(n.line, path, "must be a mapping, not %s", n.kind)
		}
		n = &node{kind: mapping, line: n.line}
	}
	o := &object{doc: d, path: path, node: n}
	first := make(map[string]int, len(n.pairs))
	for _, p := range n.pairs {
		if line, twice := first[foldKey(p.key)]; twice {
			d.fail(p.line, o.at(p.key), "is given twice, first in line %d", line)
			continue
		}
		first[foldKey(p.key)] = p.line
	}
	return o
}

func (o *object) at(key string) string {
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

// line is where key stands, or the mapping when it is not there.
func (o *object) line(key string) int {
	if p := o.node.get(key); p != nil {
		return p.line
	}
	return o.node.line
}

// get is the pair of a valid key, or nil when it is not there or empty.
func (o *object) get(key string) *pair {
	o.valid = append(o.valid, key)
	if p := o.node.get(key); p != nil && p.value.kind != null {
		return p
	}
	return nil
}

// child reads the mapping under key; it is empty when there is none.
func (o *object) child(key string) *object {
	if p := o.get(key); p != nil {
		return o.doc.object(p.value, o.at(key))
	}
	return o.doc.object(&node{kind: null, line: o.node.line}, o.at(key))
}

// list is the items under key.
func (o *object) list(key string) []*node {
	p := o.get(key)
	if p == nil {
		return nil
	}
	if p.value.kind != sequence {
		o.doc.fail(p.line, o.at(key), "must be a list, not %s", p.value.kind)
		return nil
	}
	return p.value.items
}

// scalar is the single value under key and whether there is one.
func (o *object) scalar(key string) (*pair, bool) {
	p := o.get(key)
	if p == nil {
		return nil, false
	}
	if p.value.kind != scalar {
		o.doc.fail(p.line, o.at(key), "must be a single value, not %s", p.value.kind)
		return nil, false
	}
	return p, true
}

// str is the text under key; a number or a truth value that is not quoted is an error.
func (o *object) str(key string) string {
	p, ok := o.scalar(key)
	if !ok {
		return ""
	}
	if !p.value.str {
		o.doc.fail(p.line, o.at(key), "must be text: write %q in quotes", p.value.text)
	}
	return strings.TrimSpace(p.value.text)
}

// need is str for a key that must be there.
func (o *object) need(key, what string) string {
	if p := o.node.get(key); p == nil || p.value.kind == null {
		o.valid = append(o.valid, key)
		o.doc.fail(o.node.line, o.at(key), "is missing: %s", what)
		return ""
	}
	text := o.str(key)
	if p := o.node.get(key); text == "" && p.value.kind == scalar {
		o.doc.fail(p.line, o.at(key), "must not be empty: %s", what)
	}
	return text
}

// flag is the truth value under key, or false.
func (o *object) flag(key string) bool {
	p, ok := o.scalar(key)
	if !ok {
		return false
	}
	b, err := parseBool(p.value.text)
	if err != nil {
		o.doc.fail(p.line, o.at(key), "%q %v", p.value.text, err)
	}
	return b
}

// duration is the time under key, or 0; it must be positive.
func (o *object) duration(key string) time.Duration {
	p, ok := o.scalar(key)
	if !ok {
		return 0
	}
	d, err := parseDuration(p.value.text)
	switch {
	case err != nil:
		o.doc.fail(p.line, o.at(key), "%q %v", p.value.text, err)
	case d <= 0:
		o.doc.fail(p.line, o.at(key), "%q must be more than zero", p.value.text)
	}
	return d
}

// strs is the list of texts under key.
func (o *object) strs(key string) []string {
	var all []string
	for i, item := range o.list(key) {
		if item.kind != scalar || !item.str || strings.TrimSpace(item.text) == "" {
			o.doc.fail(item.line, fmt.Sprintf("%s[%d]", o.at(key), i), "must be text")
			continue
		}
		all = append(all, strings.TrimSpace(item.text))
	}
	return all
}

// done reports the keys that nobody asked for.
func (o *object) done() {
	for _, p := range o.node.pairs {
		if contains(o.valid, p.key) || contains(o.ignored, p.key) {
			continue
		}
		f := unknown("there is no such key here", p.key, o.valid)
		f.Line, f.Key = p.line, o.at(p.key)
		o.doc.add(f)
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
