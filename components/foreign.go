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
	places map[string]value
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
// tags of a struct, and open gets their text after it was checked. See State.
func Foreign[B Backend](block Block, product, doc string, fields []Field, open func(context.Context, Host, Settings) (B, error)) Component {
	c := Component{block: block, product: product, doc: doc}
	c.directed(reflect.TypeFor[B]())
	c.schema = schema{subject: c.Type(), config: reflect.TypeFor[struct{}]()}
	taken := make(map[string]bool)
	for _, f := range slices.Concat(fields, commonFields[block]) {
		f.index = -1
		c.schema.fields = append(c.schema.fields, f)
		if f.Type == "" || taken[manifest.FoldKey(f.Key)] {
			panic(fmt.Sprintf("components: %s: key %s is given twice or has no type", c.Type(), f.Key))
		}
		taken[manifest.FoldKey(f.Key)] = true
	}
	c.open = func(ctx context.Context, host Host, m metadata) (Backend, error) {
		if err := manifest.AsError(c.schema.check(m)); err != nil {
			return nil, err
		}
		b, err := open(ctx, host, settings(fields, m))
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
		}
		if truth, err := manifest.ParseBool(text); err == nil && f.Type == "bool" {
			text = strconv.FormatBool(truth) // the one spelling that all libraries read
		}
		if given || text != "" {
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
