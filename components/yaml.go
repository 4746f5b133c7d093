package components

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// What a file may cost to read. Manifests are small; a file beyond these limits is a mistake or an attack.
const (
	maxFile  = 1 << 20
	maxDepth = 32
	maxNodes = 100_000
)

type nodeKind uint8

const (
	null nodeKind = iota
	scalar
	mapping
	sequence
)

func (k nodeKind) String() string {
	return [...]string{"empty", "a single value", "a mapping", "a list"}[k]
}

// node is a YAML value with its line, anchors and merges resolved.
type node struct {
	kind  nodeKind
	line  int
	text  string // of a scalar, as it is written without its quotes
	str   bool   // the scalar is a string: quoted, or nothing else it could be
	pairs []pair
	items []*node
}

type pair struct {
	key   string
	line  int
	value *node
}

// chunk is one document of a file, still text; line is that of its first line.
type chunk struct {
	line int
	text []byte
}

// split cuts a file at its document markers. The parser could do it, but loses a document that follows an empty one.
func split(data []byte) []chunk {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	var chunks []chunk
	now := chunk{line: 1}
	flush := func() {
		if !blank(now.text) {
			chunks = append(chunks, now)
		}
	}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		rest, marked := cutMarker(line)
		if marked {
			flush()
			now = chunk{line: number}
		}
		now.text = append(now.text, rest...)
	}
	flush()
	return chunks
}

// cutMarker blanks a document marker at the start of a line, so that columns stay what they are.
func cutMarker(line []byte) (rest []byte, marked bool) {
	for _, marker := range []string{"---", "..."} {
		after, ok := bytes.CutPrefix(line, []byte(marker))
		if ok && (len(after) == 0 || strings.IndexByte(" \t\n", after[0]) >= 0) {
			return append([]byte("   "), after...), true
		}
	}
	return line, false
}

// blank says whether a document holds nothing but comments and directives.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// syntaxError is what is wrong with a document as YAML. It holds no text of the document, which may have secrets.
type syntaxError struct {
	line    int
	message string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.message) }

// parse reads one document. It contains panics of the parser.
func parse(c chunk) (root *node, err error) {
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, &syntaxError{line: c.line, message: "cannot be read as YAML"}
		}
	}()
	if line := tooDeep(c.text); line > 0 {
		return nil, &syntaxError{line: c.line + line - 1, message: "nests too deeply"}
	}
	file, err := parser.ParseBytes(c.text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, c.syntaxError(err)
	}
	if len(file.Docs) != 1 {
		return nil, &syntaxError{line: c.line, message: "cannot be read as one YAML document"}
	}
	k := converter{offset: c.line - 1, anchors: make(map[string]ast.Node)}
	return k.convert(file.Docs[0].Body, 0)
}

// syntaxError keeps the parser's message and line and drops its excerpt of the file.
func (c chunk) syntaxError(err error) error {
	var detail yaml.Error
	if !errors.As(err, &detail) {
		return &syntaxError{line: c.line, message: "cannot be read as YAML"}
	}
	line := c.line
	if t := detail.GetToken(); t != nil && t.Position != nil {
		line += t.Position.Line - 1
	}
	return &syntaxError{line: line, message: "is not YAML: " + detail.GetMessage()}
}

// tooDeep finds, before the parser recurses into it, nesting that needs no indentation; 0 means none.
func tooDeep(text []byte) int {
	brackets, number := 0, 0
	for line := range bytes.Lines(text) {
		number++
		for _, b := range line {
			switch b {
			case '[', '{':
				brackets++
			case ']', '}':
				brackets = max(0, brackets-1)
			}
		}
		marks := 0
		for _, word := range bytes.Fields(line) {
			if !bytes.Contains([]byte("-?:"), word) && word[0] != '!' && word[0] != '&' {
				break
			}
			marks++
		}
		if brackets > maxDepth || marks > maxDepth {
			return number
		}
	}
	return 0
}

// converter turns the parser's tree into nodes.
type converter struct {
	offset  int // lines before the document
	anchors map[string]ast.Node
	nodes   int
}

func (k *converter) line(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return k.offset + 1
	}
	return k.offset + n.GetToken().Position.Line
}

func (k *converter) fail(n ast.Node, format string, args ...any) error {
	return &syntaxError{line: k.line(n), message: fmt.Sprintf(format, args...)}
}

func (k *converter) convert(n ast.Node, depth int) (*node, error) {
	if k.nodes++; depth > maxDepth || k.nodes > maxNodes {
		return nil, k.fail(n, "nests too deeply or is too large")
	}
	switch n := n.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return &node{kind: null, line: k.line(n)}, nil
	case *ast.MappingNode:
		return k.mapping(n, n.Values, depth)
	case *ast.MappingValueNode:
		return k.mapping(n, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		list := &node{kind: sequence, line: k.line(n)}
		for _, v := range n.Values {
			item, err := k.convert(v, depth+1)
			if err != nil {
				return nil, err
			}
			list.items = append(list.items, item)
		}
		return list, nil
	case *ast.AnchorNode:
		k.anchors[n.Name.GetToken().Value] = n.Value
		return k.convert(n.Value, depth+1)
	case *ast.AliasNode:
		target, ok := k.anchors[n.Value.GetToken().Value]
		if !ok {
			return nil, k.fail(n, "the alias *%s has no anchor before it", n.Value.GetToken().Value)
		}
		return k.convert(target, depth+1)
	case *ast.TagNode:
		return k.tagged(n, depth)
	case *ast.MappingKeyNode:
		return k.convert(n.Value, depth+1)
	case *ast.LiteralNode:
		return &node{kind: scalar, line: k.line(n), text: n.Value.Value, str: true}, nil
	case *ast.StringNode:
		return &node{kind: scalar, line: k.line(n), text: n.Value, str: true}, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.MergeKeyNode:
		return &node{kind: scalar, line: k.line(n), text: n.GetToken().Value}, nil
	}
	return nil, k.fail(n, "holds YAML that manifests do not have (%s)", n.Type())
}

// tagged accepts the tags of plain YAML values; what they say is checked where the value is used.
func (k *converter) tagged(n *ast.TagNode, depth int) (*node, error) {
	switch tag := n.Start.Value; tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq":
		v, err := k.convert(n.Value, depth+1)
		if err == nil && tag == "!!str" {
			v.str = true
		}
		return v, err
	}
	return nil, k.fail(n, "holds the tag %s, which manifests do not have", n.Start.Value)
}

func (k *converter) mapping(n ast.Node, values []*ast.MappingValueNode, depth int) (*node, error) {
	m := &node{kind: mapping, line: k.line(n)}
	if len(values) > 0 {
		m.line = k.line(values[0].Key)
	}
	var merged []pair
	for _, v := range values {
		key, err := k.convert(v.Key, depth+1)
		if err != nil {
			return nil, err
		}
		if key.kind != scalar {
			return nil, k.fail(v.Key, "holds a key that is %s", key.kind)
		}
		value, err := k.convert(v.Value, depth+1)
		if err != nil {
			return nil, err
		}
		if _, merge := v.Key.(*ast.MergeKeyNode); merge {
			pairs, ok := value.merged()
			if !ok {
				return nil, k.fail(v.Key, "merges what is not a mapping")
			}
			merged = append(merged, pairs...)
			continue
		}
		m.pairs = append(m.pairs, pair{key: key.text, line: key.line, value: value})
	}
	for _, p := range merged {
		if m.get(p.key) == nil {
			m.pairs = append(m.pairs, p)
		}
	}
	return m, nil
}

// merged is what `<<: n` adds to a mapping.
func (n *node) merged() ([]pair, bool) {
	switch n.kind {
	case mapping:
		return n.pairs, true
	case sequence:
		var all []pair
		for _, item := range n.items {
			if item.kind != mapping {
				return nil, false
			}
			all = append(all, item.pairs...)
		}
		return all, true
	}
	return nil, false
}

// get finds the value of a key; keys know no case, as in Dapr.
func (n *node) get(key string) *pair {
	for i := range n.pairs {
		if strings.EqualFold(n.pairs[i].key, key) {
			return &n.pairs[i]
		}
	}
	return nil
}
