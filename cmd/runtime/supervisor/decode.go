package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/sidecast/sidecast/fault"
)

// node is a piece of the file.
type node = ast.Node

// decoder turns YAML into structs by their `run` tags and collects everything that is wrong, with its place.
type decoder struct {
	file    string
	dapr    bool // the file is Dapr's
	anchors map[string]node
	// places holds where each value stood, by path: `apps[1].appPort`.
	places   map[string]node
	problems []problem
	notes    []string
}

type problem struct {
	line, column int
	text         string
}

// deepest bounds nesting, so that an alias that names itself ends.
const deepest = 32

// parse returns the root mapping of the only document in text, or nil.
func (d *decoder) parse(text []byte) node {
	d.anchors, d.places = make(map[string]node), make(map[string]node)
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		var place yaml.Error
		if errors.As(err, &place) && place.GetToken() != nil {
			d.report(place.GetToken(), "%s", place.GetMessage())
		} else {
			d.problems = append(d.problems, problem{1, 1, err.Error()})
		}
		return nil
	}
	var bodies []node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.NullType {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		d.problems = append(d.problems, problem{1, 1, "the file is empty"})
		return nil
	case 1:
		ast.Walk(anchorFinder(d.anchors), bodies[0])
		return bodies[0]
	default:
		d.report(bodies[1].GetToken(), "one document is expected, another begins here")
		return nil
	}
}

type anchorFinder map[string]node

func (f anchorFinder) Visit(n node) ast.Visitor {
	if anchor, ok := n.(*ast.AnchorNode); ok {
		f[anchor.Name.GetToken().Value] = anchor.Value
	}
	return f
}

// resolve follows anchors, aliases and tags to the value itself.
func (d *decoder) resolve(n node) node {
	for range deepest {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.AliasNode:
			name := v.Value.GetToken().Value
			target, ok := d.anchors[name]
			if !ok {
				d.report(v.GetToken(), "there is no anchor &%s", name)
				return nil
			}
			n = target
		case *ast.TagNode:
			n = v.Value
		default:
			return n
		}
	}
	d.report(n.GetToken(), "aliases lead in a circle")
	return nil
}

// fields returns the values of a mapping by key and reports keys that do not exist. The first name of a key that has
// several is the one returned.
func (d *decoder) fields(at string, n node, known map[string]string) map[string]node {
	found := make(map[string]node)
	d.collect(at, n, known, found, 0)
	return found
}

func (d *decoder) collect(at string, n node, known map[string]string, found map[string]node, depth int) {
	value := d.resolve(n)
	mapping, ok := value.(ast.MapNode)
	if !ok || depth > deepest {
		d.mismatch(n, at, "a mapping", value)
		return
	}
	var merged []node
	for rows := mapping.MapRange(); rows.Next(); {
		if rows.Key().IsMergeKey() {
			merged = append(merged, rows.Value())
			continue
		}
		key := scalar(rows.Key())
		name, ok := known[key]
		why := meaningless[key]
		if daprKeys[key] != "" && !d.dapr {
			why = "the sidecars of this file have no Dapr API; those of a file called dapr.yaml do"
		}
		switch {
		case why != "":
			d.notes = append(d.notes, fmt.Sprintf("%s:%d: %s has no effect: %s",
				d.file, rows.Key().GetToken().Position.Line, join(at, key), why))
		case ok:
			found[name] = rows.Value()
			d.places[join(at, name)] = rows.Key()
		default:
			d.report(rows.Key().GetToken(), "%s: there is no such key%s", join(at, key), nearest(key, known))
		}
	}
	for _, source := range merged { // what is written out wins over what is merged in
		inherited := make(map[string]node)
		d.collect(at, source, known, inherited, depth+1)
		for name, value := range inherited {
			if _, ok := found[name]; !ok {
				found[name] = value
			}
		}
	}
}

// items returns the items of a list.
func (d *decoder) items(at string, n node) ([]node, bool) {
	value := d.resolve(n)
	list, ok := value.(*ast.SequenceNode)
	if !ok {
		d.mismatch(n, at, "a list", value)
		return nil, false
	}
	return list.Values, true
}

// value decodes one value into what target points to.
func (d *decoder) value(at string, n node, target any) {
	d.decode(at, n, reflect.ValueOf(target).Elem(), "")
}

func (d *decoder) decode(at string, n node, target reflect.Value, tag reflect.StructTag) {
	if value := d.resolve(n); value == nil || value.Type() == ast.NullType {
		return
	}
	if target.Type() == reflect.TypeFor[time.Duration]() {
		d.duration(at, n, target, tag.Get("unit"))
		return
	}
	switch target.Kind() {
	case reflect.Struct:
		known, index := keysOf(target.Type())
		values := d.fields(at, n, known)
		for name, value := range values {
			field := target.Type().FieldByIndex(index[name])
			d.decode(join(at, name), value, target.FieldByIndex(index[name]), field.Tag)
		}
	case reflect.Slice:
		items, ok := d.items(at, n)
		list := make([]string, len(items))
		for i, item := range items {
			d.value(fmt.Sprintf("%s[%d]", at, i), item, &list[i])
		}
		if ok {
			target.Set(reflect.ValueOf(list))
		}
	case reflect.Map:
		d.environment(at, n, target)
	default:
		oneof := tag.Get("oneof")
		if d.dapr {
			oneof = cmp.Or(tag.Get("dapr"), oneof)
		}
		d.scalarInto(at, n, target, oneof)
	}
}

// environment decodes a mapping of names to scalars. Names that are there already stay unless they are named again.
func (d *decoder) environment(at string, n node, target reflect.Value) {
	value := d.resolve(n)
	mapping, ok := value.(ast.MapNode)
	if !ok {
		d.mismatch(n, at, "a mapping of names to values", value)
		return
	}
	env := target.Interface().(map[string]string)
	if env == nil {
		env = make(map[string]string)
		target.Set(reflect.ValueOf(env))
	}
	for rows := mapping.MapRange(); rows.Next(); {
		if rows.Key().IsMergeKey() {
			d.report(rows.Key().GetToken(), "%s: merge keys are not supported here", at)
			continue
		}
		name, text := scalar(rows.Key()), ""
		if strings.ContainsAny(name, "=\x00") || name == "" {
			d.report(rows.Key().GetToken(), "%s: %q is not the name of a variable", at, name)
			continue
		}
		d.value(join(at, name), rows.Value(), &text)
		env[name] = text
	}
}

func (d *decoder) scalarInto(at string, n node, target reflect.Value, oneof string) {
	value := d.resolve(n)
	if _, ok := value.(ast.ScalarNode); !ok {
		d.mismatch(n, at, "a single value", value)
		return
	}
	text := scalar(value)
	switch target.Kind() {
	case reflect.String:
		if strings.ContainsRune(text, 0) {
			d.report(n.GetToken(), "%s: a value cannot hold a NUL", at)
			return
		}
		if choices := strings.Split(oneof, "|"); oneof != "" && !slices.Contains(choices, text) {
			d.report(n.GetToken(), "%s: %q is none of %s", at, text, strings.Join(choices, ", "))
			return
		}
		target.SetString(text)
	case reflect.Bool:
		on, err := strconv.ParseBool(text)
		if err != nil || value.Type() != ast.BoolType {
			d.mismatch(n, at, "true or false", value)
			return
		}
		target.SetBool(on)
	case reflect.Int:
		number, err := strconv.Atoi(text)
		if err != nil || value.Type() != ast.IntegerType {
			d.mismatch(n, at, "a whole number", value)
			return
		}
		target.SetInt(int64(number))
	default:
		panic("supervisor: no decoding for " + target.Type().String())
	}
}

// duration takes `5s` as well as a bare number in the given unit.
func (d *decoder) duration(at string, n node, target reflect.Value, unit string) {
	value := d.resolve(n)
	text := scalar(value)
	if value.Type() == ast.IntegerType {
		text += unit
	}
	length, err := time.ParseDuration(text)
	if err != nil {
		d.mismatch(n, at, "a duration such as 5s", value)
		return
	}
	target.SetInt(int64(length))
}

// scalar is the text of a scalar as it is written, without quotes.
func scalar(n node) string {
	switch v := n.(type) {
	case *ast.LiteralNode:
		return v.Value.Value
	case *ast.NullNode:
		return ""
	case *ast.AnchorNode:
		return scalar(v.Value)
	}
	if n == nil || n.GetToken() == nil {
		return ""
	}
	return n.GetToken().Value
}

// runFileKeys are the keys at the top of the file.
var runFileKeys, _ = keysOf(reflect.TypeFor[runFile]())

// keysOf maps each key of a struct, under all its names, to its first name, and that to its field.
func keysOf(t reflect.Type) (known map[string]string, index map[string][]int) {
	known, index = make(map[string]string), make(map[string][]int)
	for _, field := range reflect.VisibleFields(t) {
		tag := field.Tag.Get("run")
		if tag == "" {
			continue
		}
		names := strings.Split(tag, ",")
		for _, name := range names {
			known[name] = names[0]
		}
		index[names[0]] = field.Index
	}
	return known, index
}

// nearest suggests the key that was probably meant.
func nearest(key string, known map[string]string) string {
	best, distance := "", max(2, len(key)/3)+1
	for name := range known {
		away := levenshtein.ComputeDistance(strings.ToLower(key), strings.ToLower(name))
		if away < distance || away == distance && best != "" && name < best {
			best, distance = name, away
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

func (d *decoder) mismatch(n node, at, want string, got node) {
	if got == nil {
		return // reported when it was resolved
	}
	what := strings.ToLower(got.Type().String())
	if _, ok := got.(ast.ScalarNode); ok {
		what = fmt.Sprintf("%q", scalar(got))
	}
	d.report(n.GetToken(), "%s: %s is expected, not %s", at, want, what)
}

// problem reports what is wrong with a key at the place of n.
func (d *decoder) problem(n node, key, format string, args ...any) {
	d.report(n.GetToken(), "%s: "+format, append([]any{key}, args...)...)
}

// problemAt reports what is wrong with a key of the mapping at a path, at the key's own place if it has one.
func (d *decoder) problemAt(at, key, format string, args ...any) {
	place := d.places[join(at, key)]
	if place == nil {
		place = d.places["apps"]
	}
	d.problem(place, join(at, key), format, args...)
}

func (d *decoder) report(at *token.Token, format string, args ...any) {
	line, column := 1, 1
	if at != nil && at.Position != nil {
		line, column = at.Position.Line, at.Position.Column
	}
	d.problems = append(d.problems, problem{line, column, fmt.Sprintf(format, args...)})
}

// err is everything that was reported, in the order of the file.
func (d *decoder) err() error {
	if len(d.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(d.problems, func(a, b problem) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column), cmp.Compare(a.text, b.text))
	})
	var lines []string
	for _, p := range slices.Compact(d.problems) {
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", d.file, p.line, p.column, p.text))
	}
	text := strings.Join(lines, "\n  ")
	if len(lines) > 1 {
		text = fmt.Sprintf("%d things are wrong\n  %s", len(lines), text)
	}
	return fault.New("run file", fault.RunFile, "%s", text)
}
