package components

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The API versions of the kinds.
const (
	daprV1Alpha1 = "dapr.io/v1alpha1"
	daprV2Alpha1 = "dapr.io/v2alpha1"
	sidecastV1   = "sidecast.dev/v1"
)

// kinds are the documents a folder may hold, and the API versions of each.
var kinds = map[string][]string{
	"Component":     {daprV1Alpha1, sidecastV1},
	"Subscription":  {daprV1Alpha1, daprV2Alpha1, sidecastV1},
	"Resiliency":    {daprV1Alpha1, sidecastV1},
	"Configuration": {daprV1Alpha1, sidecastV1},
	"HTTPEndpoint":  {daprV1Alpha1, sidecastV1},
}

// validName is what a component or subscription may be called.
var validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

// serverKeys are what a cluster adds to an object's metadata: `kubectl get -o yaml` shows them, they say nothing here.
var serverKeys = []string{
	"labels", "annotations", "creationTimestamp", "generation", "resourceVersion", "uid", "managedFields", "ownerReferences",
	"finalizers", "selfLink",
}

// reader gathers documents and what is wrong with them.
type reader struct {
	known    []Component
	docs     Documents
	lines    []lines // of docs.Components
	findings []Finding
}

// lines is where a Component says what other documents may contradict.
type lines struct{ name, secretStore int }

// file reads all documents of one file.
func (r *reader) file(name string, data []byte) {
	for _, c := range split(data) {
		d := &document{file: name}
		root, err := parse(c)
		var syntax *syntaxError
		switch {
		case errors.As(err, &syntax):
			d.fail(syntax.line, "", "%s", syntax.message)
		case root.kind != mapping:
			d.fail(root.line, "", "must be a mapping with apiVersion and kind, not %s", root.kind)
		default:
			r.document(d, c, root)
		}
		r.findings = append(r.findings, d.findings...)
	}
}

func (r *reader) document(d *document, c chunk, root *node) {
	o := d.object(root, "")
	version, kind := o.need("apiVersion", "write "+daprV1Alpha1), o.need("kind", "write Component or Subscription")
	if version == "" || kind == "" {
		return
	}
	versions, ok := kinds[kind]
	if !ok {
		f := unknown("is not a kind this folder may hold", kind, sortedKeys(kinds))
		f.Line, f.Key = o.line("kind"), "kind"
		d.add(f)
		return
	}
	if !slices.Contains(versions, version) {
		f := unknown("is not an API version of "+kind, version, versions)
		f.Line, f.Key = o.line("apiVersion"), "apiVersion"
		d.add(f)
		return
	}
	source := Source{d.file, root.line}
	switch kind {
	case "Component":
		r.component(d, o, source)
	case "Subscription":
		r.subscription(d, o, source, version)
	default:
		r.other(d, o, Raw{Kind: kind, Source: Source{d.file, c.line}, YAML: c.text})
	}
}

// identity reads metadata.name and metadata.namespace.
func identity(o *object) (name, namespace string) {
	m := o.child("metadata")
	name, namespace = m.need("name", "what apps call it"), m.str("namespace")
	if name != "" && !validName.MatchString(name) {
		m.doc.fail(m.line("name"), m.at("name"), "%q must be letters, digits, dots, dashes and underscores", name)
	}
	m.ignored = serverKeys
	m.done()
	return name, namespace
}

func (r *reader) component(d *document, o *object, source Source) {
	m := Manifest{Source: source}
	m.Name, m.Namespace = identity(o)
	m.Scopes = o.strs("scopes")
	auth := o.child("auth")
	m.SecretStore = auth.str("secretStore")
	auth.done()

	spec := o.child("spec")
	m.Type = spec.need("type", "like state.badger")
	if version := spec.str("version"); version != "" && version != "v1" {
		d.fail(spec.line("version"), spec.at("version"), "%q is not a version of %s; valid: v1", version, m.Type)
	}
	m.InitTimeout = spec.duration("initTimeout")
	m.Required = spec.flag("required")
	if spec.flag("ignoreErrors") && m.Required {
		d.fail(spec.line("required"), spec.at("required"), "contradicts ignoreErrors: the sidecar cannot do both")
	}
	m.Metadata = entries(d, spec)
	spec.done()
	o.done()

	component, ok := r.find(m.Type)
	switch {
	case ok:
		r.check(d, component, m)
	case m.Type != "":
		f := unknown("there is no component of that type", m.Type, r.types(m.Type))
		f.Line, f.Key = spec.line("type"), "spec.type"
		d.add(f)
	}
	r.docs.Components = append(r.docs.Components, m)
	r.lines = append(r.lines, lines{name: o.child("metadata").line("name"), secretStore: auth.line("secretStore")})
}

// check reports what the component says about the manifest's metadata.
func (r *reader) check(d *document, c Component, m Manifest) {
	md := m.metadata()
	for _, f := range c.schema.check(md) {
		d.add(f)
	}
	if v, ok := md.values[foldKey(keyPrefixField.Key)]; ok && c.block == StateBlock && strings.Contains(v.text, keySeparator) {
		d.fail(v.valueAt.Line, "spec.metadata."+v.key, "must not hold %q", keySeparator)
	}
}

func (r *reader) find(typ string) (Component, bool) {
	for _, c := range r.known {
		if c.Type() == typ {
			return c, true
		}
	}
	return Component{}, false
}

// types lists the types that typ may have been meant to be: those of its block, or all.
func (r *reader) types(typ string) []string {
	block, _, _ := strings.Cut(typ, ".")
	var own, all []string
	for _, c := range r.known {
		all = append(all, c.Type())
		if string(c.block) == block {
			own = append(own, c.Type())
		}
	}
	if own != nil {
		return own
	}
	return all
}

// entries reads spec.metadata.
func entries(d *document, spec *object) []Entry {
	var all []Entry
	first := make(map[string]int)
	for i, item := range spec.list("metadata") {
		path := fmt.Sprintf("%s[%d]", spec.at("metadata"), i)
		if item.kind != mapping {
			d.fail(item.line, path, "must be a mapping with name and value, not %s", item.kind)
			continue
		}
		o := d.object(item, path)
		e, ok := entry(o)
		if !ok {
			continue
		}
		if line, twice := first[foldKey(e.Key)]; twice {
			d.fail(e.Line, spec.at("metadata")+"."+e.Key, "is given twice, first in line %d", line)
			continue
		}
		first[foldKey(e.Key)] = e.Line
		all = append(all, e)
	}
	return all
}

func entry(o *object) (Entry, bool) {
	e := Entry{Key: o.need("name", "the key that this entry sets")}
	if e.Key == "" {
		o.valid = append(o.valid, "value", "secretKeyRef", "envRef")
		o.done()
		return Entry{}, false
	}
	e.Line = o.line("name")
	o.path = "spec.metadata." + e.Key
	var given []string
	for _, key := range []string{"value", "secretKeyRef", "envRef"} {
		if p := o.node.get(key); p != nil {
			given = append(given, key)
			e.valueLine = p.line
		}
	}
	if len(given) != 1 {
		o.doc.fail(e.Line, o.path, "needs exactly one of value, secretKeyRef and envRef, and has %s", cmp.Or(strings.Join(given, " and "), "none"))
	}
	if p, ok := o.scalar("value"); ok {
		e.Value = p.value.text
	}
	if slices.Contains(given, "secretKeyRef") {
		ref := o.child("secretKeyRef")
		e.Secret = &SecretRef{Name: ref.need("name", "the secret"), Key: ref.str("key")}
		e.Secret.Key = cmp.Or(e.Secret.Key, e.Secret.Name)
		ref.done()
	}
	o.valid = append(o.valid, "secretKeyRef")
	if slices.Contains(given, "envRef") {
		e.Env = o.need("envRef", "the environment variable")
	}
	o.valid = append(o.valid, "envRef")
	o.done()
	return e, true
}
