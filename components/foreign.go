package components

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
)

// Settings is what a manifest says to a component whose library reads text by key itself.
type Settings struct {
	// Values holds the text of each key that is given, by the name that its Field has, and the defaults of the others.
	Values map[string]string

	at     Source
	places map[string]value // by the name of the field, or as the manifest spells it
}

// Given says whether the manifest gives key.
func (s Settings) Given(key string) bool {
	_, given := s.places[key]
	return given
}

// Bool, Int and Duration read a value that was checked; a key without a value is zero.

// Bool is the value of a key of type bool.
func (s Settings) Bool(key string) bool {
	b, _ := manifest.ParseBool(s.Values[key])
	return b
}

// Int is the value of a key of type int.
func (s Settings) Int(key string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(s.Values[key]), 10, 64)
	return n
}

// Duration is the value of a key of type duration.
func (s Settings) Duration(key string) time.Duration {
	d, _ := manifest.ParseDuration(s.Values[key])
	return d
}

// Invalid is a BAD_MANIFEST error at the place of key, or of the whole manifest when it does not give key.
func (s Settings) Invalid(key string, err error) error {
	place, given := s.places[key]
	if !given {
		return fault.E(s.at.String(), fault.None, fault.BadManifest, err)
	}
	at := place.valueAt.String()
	if at != "" {
		at += ": "
	}
	return fault.E(at+"spec.metadata."+place.key, fault.None, fault.BadManifest, err)
}

// Foreign makes a backend known whose library reads its settings itself: the keys are described by fields, not by the
// tags of a struct, and open gets their text after it was checked. Fields is asked when the keys are, and what it says is not
// kept: most components of a program are never used. Nil is no keys. Fields that break their own rules panic then. See State.
func Foreign[B Backend](block Block, product, doc string, fields func() []Field, open func(context.Context, Host, Settings) (B, error)) Component {
	own := func() []Field {
		if fields == nil {
			return nil
		}
		all := unbound(fields())
		taken := make(map[string]bool)
		for _, f := range slices.Concat(all, commonFields[block]) {
			if f.Type == "" || taken[manifest.FoldKey(f.Key)] {
				panic(fmt.Sprintf("components: %s.%s: key %s is given twice or has no type", block, product, f.Key))
			}
			taken[manifest.FoldKey(f.Key)] = true
		}
		return all
	}
	c := foreign(block, product, own, open)
	c.doc = doc
	return c
}

// Described is Foreign for a component whose documentation and keys are read when they are asked for, and not kept. The
// library gets each key as the manifest spells it. A field's Default is not for it: see Field.Usual.
func Described[B Backend](block Block, product string, doc func() string, fields func() []Field, open func(context.Context, Host, Settings) (B, error)) Component {
	read := func() []Field {
		all := slices.DeleteFunc(unbound(fields()), func(f Field) bool { // the block reads it
			return slices.ContainsFunc(commonFields[block], func(c Field) bool { return c.named(f.Key) })
		})
		for i := range all {
			all[i].asItIs = true
		}
		return all
	}
	c := foreign(block, product, read, open)
	c.about = doc
	return c
}

// NotLinked makes a component known that the program does not have: a manifest of its type is refused with the reason why, which
// follows "this program ": "is built without …".
func NotLinked(block Block, product, why string, doc func() string, fields func() []Field) Component {
	c := Described(block, product, doc, fields, func(_ context.Context, _ Host, s Settings) (Backend, error) {
		return nil, fault.New(s.at.String(), fault.BadManifest, "there is no component of type %s.%s: this program %s", block, product, why)
	})
	c.notLinked = why
	return c
}

// unbound are fields that no struct has.
func unbound(fields []Field) []Field {
	fields = slices.Clone(fields)
	for i := range fields {
		fields[i].index = -1
	}
	return fields
}

// foreign makes a component of which open is told the own keys.
func foreign[B Backend](block Block, product string, own func() []Field, open func(context.Context, Host, Settings) (B, error)) Component {
	c := Component{block: block, product: product}
	c.directed(reflect.TypeFor[B]())
	s := schema{subject: c.Type(), config: reflect.TypeFor[struct{}](), fields: commonFields[block], more: own}
	c.schema = s
	c.open = func(ctx context.Context, host Host, m metadata) (Backend, error) {
		if err := manifest.AsError(s.check(m)); err != nil {
			return nil, err
		}
		b, err := open(ctx, host, settings(own(), m))
		if err != nil {
			return nil, err // not b: an interface that holds a nil pointer is not nil
		}
		return b, nil
	}
	return c
}

// settings is what m says for fields.
func settings(fields []Field, m metadata) Settings {
	s := Settings{Values: make(map[string]string), at: m.at, places: make(map[string]value)}
	known := make(map[string]bool)
	for _, f := range fields {
		v, given := m.lookup(f, known)
		text := f.Default
		if given {
			text, s.places[f.Key] = v.text, v
			s.places[v.key] = v
		}
		if truth, err := manifest.ParseBool(text); err == nil && f.Type == "bool" {
			text = strconv.FormatBool(truth) // the one spelling that all libraries read
		}
		if i := slices.IndexFunc(f.OneOf, func(valid string) bool { return strings.EqualFold(valid, text) }); i >= 0 && !f.asItIs {
			text = f.OneOf[i] // the check passes over upper and lower case, and not all libraries do
		}
		switch {
		case given && f.asItIs:
			s.Values[v.key] = text
		case given || text != "":
			s.Values[f.Key] = text
		}
	}
	for key, v := range m.values {
		if !known[key] && known[AnyKey] {
			s.Values[v.key], s.places[v.key] = v.text, v
		}
	}
	return s
}
