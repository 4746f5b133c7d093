package manifest

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Field is a key of a mapping as a struct's tags describe it: yaml names it (`yaml:"name"`, `yaml:"name,required"`,
// `yaml:",inline"`), doc explains it, oneof lists what it may be, min and max bound it, both included.
type Field struct {
	Key, Doc string
	Required bool
	// Extension says that Dapr does not have the key.
	Extension bool
	OneOf     []string
	Min, Max  string
	Type      reflect.Type

	index []int
}

// Decoder is implemented by pointers to types that read a value in their own way and describe it for editors.
type Decoder interface {
	// DecodeNode reads n, which stands at path, and reports to d what is wrong with it.
	DecodeNode(d *Document, n *Node, path string)
	// Schema is the JSON Schema of what DecodeNode accepts.
	Schema() map[string]any
}

// Where is the place of a value. A field of this type, untagged, is filled with the place of its struct.
type Where struct {
	Line int
	Path string
}

// Name is a word that refers to something else, and its place.
type Name struct {
	Text string
	Where
}

// Share is a part of a whole, 0 to 1. It is written so, or in percent.
type Share float64

var (
	decoderType  = reflect.TypeFor[Decoder]()
	whereType    = reflect.TypeFor[Where]()
	nameType     = reflect.TypeFor[Name]()
	shareType    = reflect.TypeFor[Share]()
	durationType = reflect.TypeFor[time.Duration]()
)

// Fields are the keys of a struct, those of inlined structs among them. A struct that breaks the rules of the tags is a
// defect of the program, hence the panic.
func Fields(t reflect.Type) []Field {
	var all []Field
	for i := range t.NumField() {
		sf := t.Field(i)
		tag, ok := sf.Tag.Lookup("yaml")
		if !ok {
			continue
		}
		key, option, _ := strings.Cut(tag, ",")
		if option == "inline" {
			for _, f := range Fields(sf.Type) {
				f.index = append([]int{i}, f.index...)
				all = append(all, f)
			}
			continue
		}
		f := Field{
			Key: key, Doc: sf.Tag.Get("doc"), Required: option == "required", Extension: sf.Tag.Get("ext") != "",
			Min: sf.Tag.Get("min"), Max: sf.Tag.Get("max"), Type: sf.Type, index: []int{i},
		}
		if one := sf.Tag.Get("oneof"); one != "" {
			f.OneOf = strings.Split(one, "|")
		}
		if key == "" || !sf.IsExported() || option != "" && option != "required" || f.Doc == "" {
			panic(fmt.Sprintf("manifest: %s.%s has the tag yaml:%q and doc %q", t, sf.Name, tag, f.Doc))
		}
		all = append(all, f)
	}
	return all
}

// Into reads the keys of o into the struct that into points to.
func (o *Object) Into(into any) { o.into(reflect.ValueOf(into).Elem()) }

func (o *Object) into(v reflect.Value) {
	o.place(v)
	for _, f := range Fields(v.Type()) {
		p := o.Get(f.Key)
		switch {
		case p != nil:
			f.decode(o.Doc, p.Value, p.Line, o.At(f.Key), v.FieldByIndex(f.index))
		case f.Required:
			o.Doc.Fail(o.Line(f.Key), o.At(f.Key), "is missing: %s", f.clause())
		}
	}
}

// clause is the documentation as the second part of a sentence.
func (f Field) clause() string {
	text := strings.TrimSuffix(f.Doc, ".")
	if len(text) > 1 && (text[1] == ' ' || text[1] >= 'a') {
		text = strings.ToLower(text[:1]) + text[1:]
	}
	return text
}

// place fills in where the struct and those inlined into it stand.
func (o *Object) place(v reflect.Value) {
	for i := range v.NumField() {
		switch sf := v.Type().Field(i); {
		case sf.Type == whereType:
			v.Field(i).Set(reflect.ValueOf(Where{o.Node.Line, o.Path}))
		case sf.Tag.Get("yaml") == ",inline":
			o.place(v.Field(i))
		}
	}
}

// decode reads one value. Line is that of its key.
func (f Field) decode(d *Document, n *Node, line int, path string, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if v.Addr().Type().Implements(decoderType) {
		v.Addr().Interface().(Decoder).DecodeNode(d, n, path)
		return
	}
	switch {
	case v.Type() == nameType, v.Kind() != reflect.Struct && v.Kind() != reflect.Map && v.Kind() != reflect.Slice:
		f.scalar(d, n, line, path, v)
	case v.Kind() == reflect.Struct:
		o := d.Object(n, path)
		o.into(v)
		o.Done()
	case v.Kind() == reflect.Map:
		f.entries(d, n, line, path, v)
	default:
		f.items(d, n, line, path, v)
	}
}

// entries reads a mapping of names to values.
func (f Field) entries(d *Document, n *Node, line int, path string, v reflect.Value) {
	if n.Kind != Mapping {
		d.Fail(line, path, "must be a mapping, not %s", n.Kind)
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Pairs)))
	first := make(map[string]int, len(n.Pairs))
	for _, p := range n.Pairs {
		at := path + "." + p.Key
		if line, twice := first[p.Key]; twice {
			d.Fail(p.Line, at, "is given twice, first in line %d", line)
			continue
		}
		first[p.Key] = p.Line
		value := reflect.New(v.Type().Elem()).Elem()
		inner := Field{Min: f.Min, Max: f.Max, OneOf: f.OneOf}
		switch {
		case strings.TrimSpace(p.Key) == "":
			d.Fail(p.Line, path, "holds an empty name")
		case p.Value.Kind == Null && value.Kind() == reflect.Struct:
			inner.decode(d, &Node{Kind: Mapping, Line: p.Line}, p.Line, at, value)
		default:
			inner.decode(d, p.Value, p.Line, at, value)
		}
		v.SetMapIndex(reflect.ValueOf(p.Key), value)
	}
}

// items reads a list.
func (f Field) items(d *Document, n *Node, line int, path string, v reflect.Value) {
	if n.Kind != Sequence {
		d.Fail(line, path, "must be a list, not %s", n.Kind)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Items), len(n.Items)))
	for i, item := range n.Items {
		Field{Min: f.Min, Max: f.Max, OneOf: f.OneOf}.decode(d, item, item.Line, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
	}
}

// scalar reads a single value.
func (f Field) scalar(d *Document, n *Node, line int, path string, v reflect.Value) {
	if n.Kind != Scalar {
		d.Fail(line, path, "must be a single value, not %s", n.Kind)
		return
	}
	text := strings.TrimSpace(n.Text)
	fail := func(format string, args ...any) { d.Fail(line, path, "%q %s", n.Text, fmt.Sprintf(format, args...)) }
	if len(f.OneOf) > 0 && !slices.Contains(f.OneOf, text) {
		u := Unknown(fmt.Sprintf("%q is not one of them", text), text, f.OneOf)
		u.Line, u.Key = line, path
		d.Add(u)
		return
	}
	switch {
	case v.Type() == nameType:
		if !n.Str || text == "" {
			fail("must be a name: write it in quotes")
		}
		v.Set(reflect.ValueOf(Name{text, Where{line, path}}))
	case v.Type() == durationType:
		parsed, err := ParseDuration(text)
		if err != nil {
			fail("%v", err)
		}
		v.SetInt(int64(parsed))
	case v.Type() == shareType:
		share, err := ParseShare(text)
		if err != nil {
			fail("%v", err)
		}
		v.SetFloat(share)
	case v.Kind() == reflect.String:
		if !n.Str {
			d.Fail(line, path, "must be text: write %q in quotes", n.Text)
		}
		v.SetString(n.Text)
	case v.Kind() == reflect.Bool:
		b, err := ParseBool(text)
		if err != nil {
			fail("%v", err)
		}
		v.SetBool(b)
	case v.CanInt():
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v.OverflowInt(i) {
			fail("is not a whole number")
			return
		}
		v.SetInt(i)
	case v.CanFloat():
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || x != x || x > 1e300 || x < -1e300 {
			fail("is not a number")
			return
		}
		v.SetFloat(x)
	default:
		panic(fmt.Sprintf("manifest: %s cannot be read", v.Type()))
	}
	if err := f.bound(v); err != "" {
		fail("%s", err)
	}
}

// bound says when a number is below Min or above Max.
func (f Field) bound(v reflect.Value) string {
	var number float64
	parse := func(s string) float64 {
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			d, _ := time.ParseDuration(s)
			return float64(d)
		}
		return x
	}
	switch {
	case v.CanInt():
		number = float64(v.Int())
	case v.CanFloat():
		number = v.Float()
	default:
		return ""
	}
	switch {
	case f.Min != "" && number < parse(f.Min):
		return "is less than " + f.Min
	case f.Max != "" && number > parse(f.Max):
		return "is more than " + f.Max
	}
	return ""
}
