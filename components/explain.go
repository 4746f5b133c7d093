package components

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/sidecast/sidecast/manifest"
)

// Explain says in words what a manifest sets up. It shows no secret, and no value at all of a type that is not known.
func Explain(m Manifest, known []Component) string {
	c, ok, _ := choose(known, m)
	var b strings.Builder
	fmt.Fprintf(&b, "%s is a component of type %s", m.Name, m.Type)
	if ok {
		fmt.Fprintf(&b, " (%s)", strings.TrimSuffix(c.doc, "."))
	}
	if m.Source.File == BuiltIn {
		b.WriteString(" that exists because no file names it.\n")
	} else {
		fmt.Fprintf(&b, ", written in %s.\n", m.Source)
	}
	if m.Namespace != "" {
		fmt.Fprintf(&b, "Only sidecars of namespace %s see it.\n", m.Namespace)
	}
	if len(m.Scopes) > 0 {
		fmt.Fprintf(&b, "Only these apps may use it: %s.\n", strings.Join(m.Scopes, ", "))
	} else {
		b.WriteString("Every app may use it.\n")
	}
	if m.Required {
		b.WriteString("The sidecar opens it at once and does not start without it.\n")
	} else {
		fmt.Fprintf(&b, "It opens when it is first used; a first user waits up to %s. When it cannot start it is tried again, and the others go on.\n",
			cmp.Or(m.InitTimeout, defaultInitTimeout))
	}
	for _, e := range m.Metadata {
		fmt.Fprintf(&b, "  %s %s\n", e.Key, e.explain(m, ok && !c.schema.secret(e.Key)))
	}
	if !ok {
		return b.String()
	}
	given := m.metadata().values
	for _, f := range c.schema.fields {
		if _, set := given[manifest.FoldKey(f.Key)]; !set && f.Default != "" {
			fmt.Fprintf(&b, "  %s is %q, its default\n", f.Key, f.Default)
		}
	}
	return b.String()
}

// explain says where the entry's value comes from, and what it is when that may be shown.
func (e Entry) explain(m Manifest, show bool) string {
	switch {
	case e.Secret != nil && m.SecretStore == "":
		return fmt.Sprintf("comes from the environment variable %s and is not shown", e.Secret.Name)
	case e.Secret != nil:
		return fmt.Sprintf("comes from secret %s, key %s, of secret store %s", e.Secret.Name, e.Secret.Key, m.SecretStore)
	case e.Env != "":
		return fmt.Sprintf("comes from the environment variable %s and is not shown", e.Env)
	case !show:
		return "is set and not shown"
	}
	return "is " + strconv.Quote(veil(e.Value))
}
