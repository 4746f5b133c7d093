package components

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/manifest"
)

// metadata is what one manifest says under spec.metadata, by lower-case key: Dapr's keys know no case.
type metadata struct {
	at     Source // of the manifest
	values map[string]value
}

// value is the text of one key.
type value struct {
	key     string // as the manifest spells it
	at      Source // of the key
	valueAt Source
	text    string
	// pending says that the text is a reference that is resolved when the component is opened.
	pending bool
	// hidden says that the text came from a secret or the environment and must not be shown.
	hidden bool
}

// shown is the value as an error may quote it.
func (v value) shown(secret bool) string {
	if v.hidden || secret {
		return "the secret value"
	}
	return strconv.Quote(veil(v.text))
}

// Field documents one key of a component's metadata.
type Field struct {
	// Key is what a manifest writes, Type what it may write there: string, bool, int, float, duration or bytes.
	Key, Type string
	// Doc is a sentence for the user.
	Doc string
	// Default is the value of a key that is left out; "" is the type's zero.
	Default string
	// Required says that leaving the key out is an error.
	Required bool
	// Secret says that the value is never shown.
	Secret bool
	// Min and Max bound the value when they are not empty, both included; OneOf lists all that are valid.
	Min, Max string
	OneOf    []string
	// Aliases are other names of the key.
	Aliases []string
	// Usual is what a library does that is told nothing of the key, and Sample a value of it: in its words, for the user alone.
	Usual, Sample string

	index  int  // of the struct's field
	asItIs bool // the library gets the key as the manifest spells it
}

// AnyKey is the Key of a Field that stands for all keys that no other has.
const AnyKey = "*"

// schema is what the tags of a Config say.
type schema struct {
	subject string // what has these keys, for messages: state.badger
	config  reflect.Type
	fields  []Field
	more    func() []Field // further ones, which are not kept; nil for none
}

// all are the fields there are.
func (s schema) all() []Field {
	if s.more == nil {
		return s.fields
	}
	return slices.Concat(s.more(), s.fields)
}

// fieldTypes are the types a Config's fields may have, by the name that documentation uses.
var fieldTypes = map[reflect.Type]string{
	reflect.TypeFor[string]():        "string",
	reflect.TypeFor[bool]():          "bool",
	reflect.TypeFor[int]():           "int",
	reflect.TypeFor[int64]():         "int",
	reflect.TypeFor[float64]():       "float",
	reflect.TypeFor[time.Duration](): "duration",
	reflect.TypeFor[Bytes]():         "bytes",
}

// typeNamed is the type that documentation calls name.
func typeNamed(name string) reflect.Type {
	for t, n := range fieldTypes {
		if n == name {
			return t
		}
	}
	panic(fmt.Sprintf("components: there is no type of keys called %q", name))
}

// schemaOf reads the tags of C; common are keys that the block reads itself. A Config that breaks its own rules is a
// defect of the program, hence the panic.
func schemaOf[C any](subject string, common ...Field) schema {
	config := reflect.TypeFor[C]()
	if config.Kind() != reflect.Struct {
		panic(fmt.Sprintf("components: the Config of %s is %s, not a struct", subject, config))
	}
	s := schema{subject: subject, config: config}
	for i := range config.NumField() {
		sf := config.Field(i)
		tag, ok := sf.Tag.Lookup("meta")
		if !ok {
			continue
		}
		key, option, _ := strings.Cut(tag, ",")
		f := Field{
			Key: key, Type: fieldTypes[sf.Type], Doc: sf.Tag.Get("doc"), Default: sf.Tag.Get("default"),
			Required: option == "required", Secret: sf.Tag.Get("secret") == "true",
			Min: sf.Tag.Get("min"), Max: sf.Tag.Get("max"), index: i,
		}
		if one := sf.Tag.Get("oneof"); one != "" {
			f.OneOf = strings.Split(one, "|")
		}
		if err := f.check(sf, option); err != nil {
			panic(fmt.Sprintf("components: %s: field %s: %v", subject, sf.Name, err))
		}
		s.fields = append(s.fields, f)
	}
	s.fields = append(s.fields, common...)
	taken := make(map[string]bool, len(s.fields))
	for _, f := range s.fields {
		if taken[manifest.FoldKey(f.Key)] {
			panic(fmt.Sprintf("components: %s has two keys %s", subject, f.Key))
		}
		taken[manifest.FoldKey(f.Key)] = true
	}
	return s
}

// check reports what is wrong with the tags themselves.
func (f Field) check(sf reflect.StructField, option string) error {
	switch {
	case !sf.IsExported():
		return errors.New("is not exported")
	case f.Type == "":
		return fmt.Errorf("has type %s, which metadata cannot hold", sf.Type)
	case f.Key == "" || option != "" && option != "required":
		return fmt.Errorf("has the tag meta:%q", sf.Tag.Get("meta"))
	}
	for _, text := range []string{f.Min, f.Max} {
		if text == "" {
			continue
		}
		if f.Type == "string" || f.Type == "bool" {
			return fmt.Errorf("is a %s and has no order", f.Type)
		}
		if err := parseInto(reflect.New(sf.Type).Elem(), text); err != nil {
			return fmt.Errorf("bound %q %w", text, err)
		}
	}
	if f.Default == "" {
		return nil
	}
	if err := f.set(reflect.New(sf.Type).Elem(), f.Default); err != nil {
		return fmt.Errorf("default %q %w", f.Default, err)
	}
	return nil
}

// set stores text in v, or says what is wrong with it: a clause that follows the value's own text.
func (f Field) set(v reflect.Value, text string) error {
	if len(f.OneOf) > 0 {
		for _, valid := range f.OneOf {
			if strings.EqualFold(valid, text) {
				return parseInto(v, valid)
			}
		}
		return fmt.Errorf("is not one of %s", strings.Join(f.OneOf, ", "))
	}
	if err := parseInto(v, text); err != nil {
		return err
	}
	return f.bound(v)
}

// bound says when v is below Min or above Max.
func (f Field) bound(v reflect.Value) error {
	limit := reflect.New(v.Type()).Elem()
	below := func(a, b reflect.Value) bool {
		if a.CanFloat() {
			return a.Float() < b.Float()
		}
		return a.Int() < b.Int()
	}
	if f.Min != "" && parseInto(limit, f.Min) == nil && below(v, limit) {
		return fmt.Errorf("is less than %s", f.Min)
	}
	if f.Max != "" && parseInto(limit, f.Max) == nil && below(limit, v) {
		return fmt.Errorf("is more than %s", f.Max)
	}
	return nil
}

// parseInto reads text as the type of v.
func parseInto(v reflect.Value, text string) error {
	switch v.Interface().(type) {
	case string:
		v.SetString(text)
	case bool:
		b, err := manifest.ParseBool(text)
		if err != nil {
			return err
		}
		v.SetBool(b)
	case time.Duration:
		d, err := manifest.ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case Bytes:
		b, err := ParseBytes(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(b))
	case float64:
		n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || n != n {
			return errors.New("is not a number")
		}
		v.SetFloat(n)
	default:
		n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		if err != nil || v.OverflowInt(n) {
			return errors.New("is not a whole number")
		}
		v.SetInt(n)
	}
	return nil
}

// decode fills config, the struct of the schema, from m and the defaults, and returns all that is wrong with m.
func (s schema) decode(m metadata, config reflect.Value) []Finding {
	var findings []Finding
	report := func(at Source, key, format string, args ...any) {
		findings = append(findings, Finding{
			File: at.File, Line: at.Line, Key: "spec.metadata." + key, Severity: Error, Message: fmt.Sprintf(format, args...),
		})
	}
	fields := s.all()
	known := make(map[string]bool, len(fields))
	for _, f := range fields {
		v, given := m.lookup(f, known)
		switch {
		case !given && f.Required:
			report(m.at, f.Key, "%s needs this %s: %s", s.subject, f.Type, f.Doc)
			continue
		case !given && f.Default == "", v.pending:
			continue
		case !given:
			v.text = f.Default
		case f.Required && v.text == "":
			report(v.valueAt, f.Key, "must not be empty")
			continue
		}
		into := reflect.New(typeNamed(f.Type)).Elem() // what the block, or another's library, reads itself is only checked
		if f.index >= 0 {
			into = config.Field(f.index)
		}
		if err := f.set(into, v.text); err != nil {
			report(v.valueAt, f.Key, "%s %v", v.shown(f.Secret), err)
		}
	}
	for key, v := range m.values {
		if known[key] || known[AnyKey] {
			continue
		}
		f := manifest.Unknown(s.subject+" has no such key", v.key, keysOf(fields))
		f.File, f.Line, f.Key, f.Unknown = v.at.File, v.at.Line, "spec.metadata."+v.key, true
		findings = append(findings, f)
	}
	manifest.SortFindings(findings)
	return findings
}

// lookup finds the value of f under any of its names, which it adds to known.
func (m metadata) lookup(f Field, known map[string]bool) (found value, given bool) {
	for _, key := range append([]string{f.Key}, f.Aliases...) {
		known[manifest.FoldKey(key)] = true
		if v, ok := m.values[manifest.FoldKey(key)]; ok && !given {
			found, given = v, true
		}
	}
	return found, given
}

// check decodes into nothing: what is wrong with m, as far as can be told before its references are resolved.
func (s schema) check(m metadata) []Finding {
	return s.decode(m, reflect.New(s.config).Elem())
}

// keysOf lists the keys of fields.
func keysOf(fields []Field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.Key
	}
	return keys
}
