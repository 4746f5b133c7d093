package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// MaxFile is the most bytes a file of manifests may have.
const MaxFile = 1 << 20

// What a file may cost to read. Manifests are small; a file beyond these limits is a mistake or an attack.
const (
	maxDepth = 32
	maxNodes = 100_000
)

// Kind is what a Node is.
type Kind uint8

// The kinds.
const (
	Null Kind = iota
	Scalar
	Mapping
	Sequence
)

// String is the kind as messages say it.
func (k Kind) String() string {
	return [...]string{"empty", "a single value", "a mapping", "a list"}[k]
}

// Node is a YAML value with its line, anchors and merges resolved.
type Node struct {
	Kind  Kind
	Line  int
	Text  string // of a scalar, as it is written without its quotes
	Str   bool   // the scalar is a string: quoted, or nothing else it could be
	Pairs []Pair
	Items []*Node
}

// Pair is a key of a mapping and its value.
type Pair struct {
	Key   string
	Line  int
	Value *Node
}

// Chunk is one document of a file, still text; line is that of its first line.
type Chunk struct {
	Line int
	Text []byte
}

// Split cuts a file at its document markers. The parser could do it, but loses a document that follows an empty one.
func Split(data []byte) []Chunk {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	var chunks []Chunk
	now := Chunk{Line: 1}
	flush := func() {
		if !blank(now.Text) {
			chunks = append(chunks, now)
		}
	}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		rest, marked := cutMarker(line)
		if marked {
			flush()
			now = Chunk{Line: number}
		}
		now.Text = append(now.Text, rest...)
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

// SyntaxError is what is wrong with a document as YAML. It holds no text of the document, which may have secrets.
type SyntaxError struct {
	Line    int
	Message string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// Parse reads one document. It contains panics of the parser.
func Parse(c Chunk) (root *Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, &SyntaxError{Line: c.Line, Message: "cannot be read as YAML"}
		}
	}()
	if line := tooDeep(c.Text); line > 0 {
		return nil, &SyntaxError{Line: c.Line + line - 1, Message: "nests too deeply"}
	}
	file, err := parser.ParseBytes(c.Text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if spaced := withoutTabs(c.Text); spaced != nil {
			return Parse(Chunk{Line: c.Line, Text: spaced})
		}
		return nil, c.syntaxError(err)
	}
	if len(file.Docs) != 1 {
		return nil, &SyntaxError{Line: c.Line, Message: "cannot be read as one YAML document"}
	}
	k := converter{offset: c.Line - 1, anchors: make(map[string]ast.Node)}
	return k.convert(file.Docs[0].Body, 0)
}

// withoutTabs is the text with spaces for tabs at the beginning of lines, or nil when there are none. YAML has no such lines,
// but the parsers of others, daprd's among them, take them within quotes, where the beginning of a line means nothing.
func withoutTabs(text []byte) []byte {
	var spaced []byte
	changed := false
	for line := range bytes.Lines(text) {
		rest := bytes.TrimLeft(line, "\t")
		tabs := len(line) - len(rest)
		changed = changed || tabs > 0
		spaced = append(append(spaced, bytes.Repeat([]byte("        "), tabs)...), rest...)
	}
	if !changed {
		return nil
	}
	return spaced
}

// SyntaxError keeps the parser's message and line and drops its excerpt of the file.
func (c Chunk) syntaxError(err error) error {
	var detail yaml.Error
	if !errors.As(err, &detail) {
		return &SyntaxError{Line: c.Line, Message: "cannot be read as YAML"}
	}
	line := c.Line
	if t := detail.GetToken(); t != nil && t.Position != nil {
		line += t.Position.Line - 1
	}
	return &SyntaxError{Line: line, Message: "is not YAML: " + detail.GetMessage()}
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
	return &SyntaxError{Line: k.line(n), Message: fmt.Sprintf(format, args...)}
}

func (k *converter) convert(n ast.Node, depth int) (*Node, error) {
	if k.nodes++; depth > maxDepth || k.nodes > maxNodes {
		return nil, k.fail(n, "nests too deeply or is too large")
	}
	switch n := n.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
		return &Node{Kind: Null, Line: k.line(n)}, nil
	case *ast.MappingNode:
		return k.mapping(n, n.Values, depth)
	case *ast.MappingValueNode:
		return k.mapping(n, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		list := &Node{Kind: Sequence, Line: k.line(n)}
		for _, v := range n.Values {
			item, err := k.convert(v, depth+1)
			if err != nil {
				return nil, err
			}
			list.Items = append(list.Items, item)
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
		return &Node{Kind: Scalar, Line: k.line(n), Text: n.Value.Value, Str: true}, nil
	case *ast.StringNode:
		return &Node{Kind: Scalar, Line: k.line(n), Text: n.Value, Str: true}, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.MergeKeyNode:
		return &Node{Kind: Scalar, Line: k.line(n), Text: n.GetToken().Value}, nil
	}
	return nil, k.fail(n, "holds YAML that manifests do not have (%s)", n.Type())
}

// tagged accepts the tags of plain YAML values; what they say is checked where the value is used.
func (k *converter) tagged(n *ast.TagNode, depth int) (*Node, error) {
	switch tag := n.Start.Value; tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq":
		v, err := k.convert(n.Value, depth+1)
		if err == nil && tag == "!!str" {
			v.Str = true
		}
		return v, err
	}
	return nil, k.fail(n, "holds the tag %s, which manifests do not have", n.Start.Value)
}

func (k *converter) mapping(n ast.Node, values []*ast.MappingValueNode, depth int) (*Node, error) {
	m := &Node{Kind: Mapping, Line: k.line(n)}
	if len(values) > 0 {
		m.Line = k.line(values[0].Key)
	}
	var merged []Pair
	for _, v := range values {
		key, err := k.convert(v.Key, depth+1)
		if err != nil {
			return nil, err
		}
		if key.Kind != Scalar {
			return nil, k.fail(v.Key, "holds a key that is %s", key.Kind)
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
		m.Pairs = append(m.Pairs, Pair{Key: key.Text, Line: key.Line, Value: value})
	}
	for _, p := range merged {
		if m.Get(p.Key) == nil {
			m.Pairs = append(m.Pairs, p)
		}
	}
	return m, nil
}

// merged is what `<<: n` adds to a mapping.
func (n *Node) merged() ([]Pair, bool) {
	switch n.Kind {
	case Mapping:
		return n.Pairs, true
	case Sequence:
		var all []Pair
		for _, item := range n.Items {
			if item.Kind != Mapping {
				return nil, false
			}
			all = append(all, item.Pairs...)
		}
		return all, true
	}
	return nil, false
}

// JSON is n in JSON, with the keys of mappings in order.
func (n *Node) JSON() string {
	text, err := json.Marshal(n.plain())
	if err != nil {
		return "" // cannot be: what plain returns is JSON
	}
	return string(text)
}

func (n *Node) plain() any {
	switch n.Kind {
	case Mapping:
		m := make(map[string]any, len(n.Pairs))
		for _, p := range n.Pairs {
			m[p.Key] = p.Value.plain()
		}
		return m
	case Sequence:
		list := make([]any, len(n.Items))
		for i, item := range n.Items {
			list[i] = item.plain()
		}
		return list
	case Scalar:
		if text := strings.ToLower(n.Text); !n.Str && json.Valid([]byte(text)) {
			return json.RawMessage(text) // a number or a truth
		}
		return n.Text
	}
	return nil
}

// Get finds the value of a key; keys know no case, as in Dapr.
func (n *Node) Get(key string) *Pair {
	for i := range n.Pairs {
		if strings.EqualFold(n.Pairs[i].Key, key) {
			return &n.Pairs[i]
		}
	}
	return nil
}
