package components

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/manifest"
)

// The API versions of the kinds.
const (
	daprV1Alpha1 = "dapr.io/v1alpha1"
	daprV2Alpha1 = "dapr.io/v2alpha1"
	sidecastV1   = "sidecast.dev/v1"

	openSergoV1Alpha1 = "fault-tolerance.opensergo.io/v1alpha1"
)

// kinds are the documents a folder may hold, and the API versions of each.
var kinds = map[string][]string{
	"Component":     {daprV1Alpha1, sidecastV1},
	"Subscription":  {daprV1Alpha1, daprV2Alpha1, sidecastV1},
	"Configuration": {daprV1Alpha1, sidecastV1},
	"HTTPEndpoint":  {daprV1Alpha1, sidecastV1},

	// Read by others, as Documents.Policies and Configurations.
	"Resiliency":                {daprV1Alpha1, sidecastV1},
	"RateLimitStrategy":         {openSergoV1Alpha1},
	"ThrottlingStrategy":        {openSergoV1Alpha1},
	"ConcurrencyLimitStrategy":  {openSergoV1Alpha1},
	"CircuitBreakerStrategy":    {openSergoV1Alpha1},
	"HttpRequestFallbackAction": {openSergoV1Alpha1},
	"FaultToleranceRule":        {openSergoV1Alpha1},
}

// groups are the API groups of the kinds.
var groups = []string{"dapr.io", "sidecast.dev", "fault-tolerance.opensergo.io"}

// isForeign says whether a document is for somebody else: of a group that is not ours, as a Configuration of Knative is, of a
// kind that is not ours without such a group, as a ConfigMap of Kubernetes is, or of a kind for a part of Dapr that Sidecast
// does not have. What is near to ours is a slip.
func isForeign(version, kind string) bool {
	group, _, grouped := strings.Cut(version, "/")
	switch {
	case group == "dapr.io":
		return kind == "MCPServer" || kind == "WorkflowAccessPolicy"
	case slices.Contains(groups, group):
		return false
	case grouped && strings.Contains(group, ".") && manifest.Nearest(group, groups) == "":
		return true
	}
	return manifest.Nearest(kind, sortedKeys(kinds)) == ""
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
	for _, c := range manifest.Split(data) {
		d := &manifest.Document{File: name}
		root, err := manifest.Parse(c)
		var syntax *manifest.SyntaxError
		switch {
		case errors.As(err, &syntax):
			d.Fail(syntax.Line, "", "%s", syntax.Message)
		case root.Kind != manifest.Mapping:
			d.Fail(root.Line, "", "must be a mapping with apiVersion and kind, not %s", root.Kind)
		default:
			r.document(d, c, root)
		}
		r.findings = append(r.findings, d.Findings...)
	}
}

func (r *reader) document(d *manifest.Document, c manifest.Chunk, root *manifest.Node) {
	o := d.Object(root, "")
	version, kind := o.Need("apiVersion", "write "+daprV1Alpha1), o.Need("kind", "write Component or Subscription")
	if version == "" || kind == "" {
		return
	}
	versions, ok := kinds[kind]
	var f Finding
	switch {
	case isForeign(version, kind):
		f = Finding{Severity: Warning, Message: fmt.Sprintf("%s of %s means nothing to a sidecar: the document is passed over", kind, version)}
		f.Line, f.Key = o.Line("kind"), "kind"
	case !ok:
		f = manifest.Unknown("is not a kind this folder may hold", kind, sortedKeys(kinds))
		f.Line, f.Key = o.Line("kind"), "kind"
	case !slices.Contains(versions, version):
		f = manifest.Unknown("is not an API version of "+kind, version, versions)
		f.Line, f.Key = o.Line("apiVersion"), "apiVersion"
	}
	if f.Message != "" {
		d.Add(f)
		return
	}
	source := Source{File: d.File, Line: root.Line}
	switch kind {
	case "Component":
		r.component(d, o, source)
	case "Subscription":
		r.subscription(d, o, source, version)
	case "HTTPEndpoint":
		r.endpoint(d, o, source)
	case "Configuration":
		r.docs.Configurations = append(r.docs.Configurations, Raw{Kind: kind, Source: Source{File: d.File, Line: c.Line}, YAML: c.Text})
	default:
		r.docs.Policies = append(r.docs.Policies, Raw{Kind: kind, Source: Source{File: d.File, Line: c.Line}, YAML: c.Text})
	}
}

func (r *reader) component(d *manifest.Document, o *manifest.Object, source Source) {
	m := Manifest{Source: source}
	m.Name, m.Namespace = manifest.Identity(o)
	m.Scopes = o.Strs("scopes")
	auth := o.Child("auth")
	m.SecretStore = auth.Str("secretStore")
	auth.Done()

	spec := o.Child("spec")
	m.Type = spec.Need("type", "like state.badger")
	if m.Version = spec.Str("version"); m.Version == "v1" {
		m.Version = ""
	}
	m.InitTimeout = spec.Duration("initTimeout")
	m.Required = spec.Flag("required")
	if m.IgnoreErrors = spec.Flag("ignoreErrors"); m.IgnoreErrors && m.Required {
		d.Fail(spec.Line("required"), spec.At("required"), "contradicts ignoreErrors: the sidecar cannot do both")
	}
	m.Metadata = entries(d, spec, "metadata")
	spec.Done()
	o.Done()

	component, ok, versions := choose(r.known, m)
	switch {
	case ok && component.notLinked != "":
		d.Fail(spec.Line("type"), spec.At("type"), "there is no component of type %s: this program %s", m.Type, component.notLinked)
	case ok:
		r.check(d, component, m)
		if component.awaited != nil {
			why, _ := component.awaited(m.Type)
			d.Add(Finding{Line: spec.Line("type"), Key: "spec.type", Severity: Warning, Message: why, Suggestion: manifest.Nearest(m.Type, r.types(m.Type))})
		}
	case versions != nil:
		slices.Sort(versions)
		d.Fail(spec.Line("version"), spec.At("version"), "%q is not a version of %s; valid: %s",
			cmp.Or(m.Version, "v1"), m.Type, strings.Join(slices.Compact(versions), ", "))
		if len(versions) == 1 { // what else is wrong can be told all the same
			meant := m
			meant.Version = versions[0]
			component, _, _ = choose(r.known, meant)
			r.check(d, component, m)
		}
	case m.Type != "":
		what := "there is no component of that type"
		if c, ok := elsewhere(r.known, m.Type); ok {
			why, _ := c.awaited(m.Type)
			what += ", and " + why
		}
		f := manifest.Unknown(what, m.Type, r.types(m.Type))
		f.Line, f.Key = spec.Line("type"), "spec.type"
		d.Add(f)
	}
	r.docs.Components = append(r.docs.Components, m)
	r.lines = append(r.lines, lines{name: o.Child("metadata").Line("name"), secretStore: auth.Line("secretStore")})
}

// check reports what the component says about the manifest's metadata.
func (r *reader) check(d *manifest.Document, c Component, m Manifest) {
	md := m.metadata()
	for _, f := range c.schema.check(md) {
		d.Add(f)
	}
	if v, ok := md.values[manifest.FoldKey(keyPrefixField.Key)]; ok && (c.block == StateBlock || c.block == LockBlock) && strings.Contains(v.text, keySeparator) {
		d.Fail(v.valueAt.Line, "spec.metadata."+v.key, "must not hold %q", keySeparator)
	}
	switch c.block {
	case StateBlock:
		checkOutbox(d, m)
		checkEncryption(d, m)
	case BindingBlock:
		checkBinding(d, m)
	}
}

// types lists the types that typ may have been meant to be: those of its block, or all.
func (r *reader) types(typ string) []string {
	block, _, _ := strings.Cut(typ, ".")
	var own, all []string
	for _, c := range r.known {
		if c.awaited != nil || slices.Contains(all, c.Type()) {
			continue
		}
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

// entries reads spec.metadata, or another list of its form.
func entries(d *manifest.Document, spec *manifest.Object, list string) []Entry {
	var all []Entry
	first := make(map[string]int)
	for i, item := range spec.List(list) {
		path := fmt.Sprintf("%s[%d]", spec.At(list), i)
		if item.Kind != manifest.Mapping {
			d.Fail(item.Line, path, "must be a mapping with name and value, not %s", item.Kind)
			continue
		}
		o := d.Object(item, path)
		e, ok := entry(o, spec.At(list))
		if !ok {
			continue
		}
		if line, twice := first[manifest.FoldKey(e.Key)]; twice {
			d.Fail(e.Line, spec.At(list)+"."+e.Key, "is given twice, first in line %d", line)
			continue
		}
		first[manifest.FoldKey(e.Key)] = e.Line
		all = append(all, e)
	}
	return all
}

func entry(o *manifest.Object, list string) (Entry, bool) {
	e := Entry{Key: o.Need("name", "the key that this entry sets")}
	if e.Key == "" {
		o.Valid = append(o.Valid, "value", "secretKeyRef", "envRef")
		o.Done()
		return Entry{}, false
	}
	e.Line = o.Line("name")
	o.Path = list + "." + e.Key
	e.reference(o)
	return e, true
}

// reference reads the value of an entry, or what stands for it.
func (e *Entry) reference(o *manifest.Object) {
	var given []string
	for _, key := range []string{"value", "secretKeyRef", "envRef"} {
		if p := o.Node.Get(key); p != nil {
			given = append(given, key)
			e.valueLine = p.Line
		}
	}
	if len(given) != 1 {
		o.Doc.Fail(e.Line, o.Path, "needs exactly one of value, secretKeyRef and envRef, and has %s", cmp.Or(strings.Join(given, " and "), "none"))
	}
	switch p := o.Get("value"); {
	case p == nil:
	case p.Value.Kind == manifest.Scalar:
		e.Value = p.Value.Text
	default: // Dapr's values are JSON, which a list or a mapping stays
		e.Value = p.Value.JSON()
	}
	if slices.Contains(given, "secretKeyRef") {
		ref := o.Child("secretKeyRef")
		e.Secret = &SecretRef{Name: ref.Need("name", "the secret"), Key: ref.Str("key")}
		e.Secret.Key = cmp.Or(e.Secret.Key, e.Secret.Name)
		ref.Done()
	}
	o.Valid = append(o.Valid, "secretKeyRef")
	if slices.Contains(given, "envRef") {
		e.Env = o.Need("envRef", "the environment variable")
	}
	o.Valid = append(o.Valid, "envRef")
	o.Done()
}
