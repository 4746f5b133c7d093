package contrib

import (
	"slices"
	"strings"

	contribmetadata "github.com/dapr/components-contrib/metadata"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/datasheet"
	"github.com/sidecast/sidecast/manifest"
)

// described is a component of the library that is known by what it says of itself: by its datasheet, and, where there is one to
// ask, by the struct that it reads its settings into. Nothing of it is kept.
type described struct {
	block            components.Block
	product, version string
	// own makes the library's component, to ask it for its struct; nil in a program without it.
	own func() any
}

func (d described) sheet() *datasheet.Sheet {
	if s, ok := datasheet.Of(string(d.block)+"."+d.product, d.version); ok {
		return s
	}
	return &datasheet.Sheet{}
}

// doc is what the component is: its title, what a binding does, and how mature the library says that it is.
func (d described) doc() string {
	s := d.sheet()
	if s.Title == "" {
		return "A component of components-contrib."
	}
	text := s.Title
	var names []string
	for _, o := range s.Operations {
		names = append(names, o.Name)
	}
	switch {
	case len(names) > 0 && s.Input:
		text += ": " + strings.Join(names, ", ") + ", and events"
	case len(names) > 0:
		text += ": " + strings.Join(names, ", ")
	case s.Input:
		text += ": events"
	}
	text += "."
	if s.Doc != "" {
		text += " " + strings.TrimSuffix(s.Doc, ".") + "."
	}
	if s.Status != "" && s.Status != "stable" {
		text += " Components-contrib calls it " + s.Status + "."
	}
	return text
}

// fields are the keys of the datasheet and those of the struct. Where the two do not agree, both are right.
func (d described) fields() []components.Field {
	s := d.sheet()
	var read contribmetadata.MetadataMap
	if d.own != nil {
		if c, ok := d.own().(interface {
			GetComponentMetadata() contribmetadata.MetadataMap
		}); ok {
			read = c.GetComponentMetadata()
		}
	}
	var all []components.Field
	taken := map[string]bool{}
	for _, key := range s.Keys {
		taken[manifest.FoldKey(key.Name)] = true
	}
	take := func(f components.Field, from contribmetadata.MetadataField) {
		for _, name := range from.Aliases {
			if name = strings.TrimSpace(name); name != "" && !taken[manifest.FoldKey(name)] {
				taken[manifest.FoldKey(name)] = true
				f.Aliases = append(f.Aliases, name)
			}
		}
		all = append(all, f)
	}
	for _, key := range s.Keys {
		name, from := settingOf(read, key.Name)
		f := fieldOfKey(key, s.Input && s.Output)
		if name == "" && len(read) > 0 {
			f.Required = false // it is of requests, or of the past
		}
		f.Required = f.Required || slices.Contains(besides, string(d.block)+"."+d.product+" "+key.Name)
		if name != "" && typeOfGo(from.Type) != f.Type {
			f.Type = mixed(f.Type, typeOfGo(from.Type))
		}
		take(f, from)
	}
	names := make([]string, 0, len(read))
	for name := range read {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if taken[manifest.FoldKey(name)] {
			continue
		}
		taken[manifest.FoldKey(name)] = true
		take(components.Field{Key: lowerFirst(name), Type: typeOfGo(read[name].Type), Secret: looksSecret(name),
			Doc: "Read by the component; its own description does not mention it."}, read[name])
	}
	all = withOtherNames(d.product, all)
	if slices.Contains(openEnded, string(d.block)+"."+d.product) {
		all = append(all, components.Field{Key: components.AnyKey, Type: "string", Doc: "Further keys, whose names hold a name of the app's own."})
	}
	return all
}

// besides are keys that a component needs although its description says that it does not: its client panics without them.
var besides = []string{"secretstores.huaweicloud.csms region"}

// openEnded are those that make sense of keys that no list can have: Pulsar's have a topic in their name, as `orders.jsonschema`.
var openEnded = []string{"pubsub.pulsar"}

func settingOf(read contribmetadata.MetadataMap, key string) (string, contribmetadata.MetadataField) {
	for name, from := range read {
		if manifest.FoldKey(name) == manifest.FoldKey(key) {
			return name, from
		}
	}
	return "", contribmetadata.MetadataField{}
}

// fieldOfKey is a key of a datasheet. What only one direction of a binding needs is needed by no binding that has both.
func fieldOfKey(key datasheet.Key, twoWay bool) components.Field {
	f := components.Field{
		Key: key.Name, Type: "string", Doc: key.Doc, Required: key.Required && (key.Only == "" || !twoWay), Secret: key.Secret || looksSecret(key.Name),
		OneOf: key.OneOf, Usual: key.Default, Sample: key.Example,
	}
	switch key.Type {
	case "bool", "duration":
		f.Type = key.Type
	case "number":
		f.Type = "float"
	}
	switch {
	case f.Doc == "":
		f.Doc = "Its own description says nothing more."
	case !strings.ContainsAny(f.Doc[len(f.Doc)-1:], ".!?)"):
		f.Doc += "."
	}
	if key.Only != "" {
		f.Doc += " For " + key.Only + " alone."
	}
	return f
}

// typeOfGo is the type of what a struct of the library holds.
func typeOfGo(name string) string {
	switch name = strings.TrimPrefix(name, "*"); {
	case name == "bool":
		return "bool"
	case strings.HasSuffix(name, ".Duration"):
		return "duration"
	case strings.HasPrefix(name, "int"), strings.HasPrefix(name, "uint"):
		return "int"
	case strings.HasPrefix(name, "float"):
		return "float"
	}
	return "string"
}

// mixed is a type that takes what either takes, as far as one is known to.
func mixed(said, read string) string {
	if said == "float" && read == "int" {
		return "int"
	}
	return "string"
}

// lowerFirst is how manifests spell the name of a struct's field.
func lowerFirst(name string) string {
	end := 0
	for end < len(name) && name[end] >= 'A' && name[end] <= 'Z' {
		end++
	}
	if end > 1 && end < len(name) {
		end-- // the last capital begins the next word: URLPath
	}
	return strings.ToLower(name[:end]) + name[end:]
}

// looksSecret says whether a key is one whose value is not shown, where its description forgets to say so.
func looksSecret(name string) bool {
	name = strings.ToLower(name)
	for _, end := range []string{"url", "uri", "file", "path", "name", "arn", "type", "ttl", "version", "format"} {
		if strings.HasSuffix(name, end) {
			return false
		}
	}
	for _, part := range []string{"password", "passphrase", "secret", "token", "accesskey", "accountkey", "privatekey", "apikey", "sharedkey", "masterkey",
		"connectionstring", "credential", "clientkey", "signingkey"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}
