package governance

import (
	"fmt"
	"strings"

	"github.com/sidecast/sidecast/manifest"
)

// Component is one that is known, by its manifest or without.
type Component struct {
	// Name and Type are those of its manifest: statestore, state.badger.
	Name, Type string
	// Operations are what a binding is known to do; it may do more.
	Operations []string
}

// operations are what is done with components of a type, by the first word of it, as rules name it. Apps say themselves what
// they ask of a binding.
var operations = map[string][]string{
	"state":         {"apply", "get", "list", "outbox", "query"},
	"pubsub":        {"publish", "publish_batch"},
	"lock":          {"acquire", "release", "renew"},
	"secretstores":  {"bulk_get", "get"},
	"configuration": {"get", "subscribe"},
	"crypto":        {"decrypt", "encrypt", "sign", "unwrap", "verify", "wrap"},
	"conversation":  {"converse"},
}

// Operations are what rules for single operations of a component of that type may name; nil where that is for apps to say.
func Operations(typ string) []string {
	block, _, _ := strings.Cut(typ, ".")
	return operations[block]
}

// checkOperations reports rules for operations of a component that there are none of. Of one that is not known, anything may be
// an operation; so it may of apps, which nobody knows but themselves.
func (doc *resiliencyDocument) checkOperations(set *policySet, known []Component) {
	if set == nil || len(known) == 0 {
		return
	}
	for _, name := range sorted(set.Operations) {
		if f, ok := unknownOperation(name, known); ok {
			f.Line, f.Key = set.Operations[name].Line, set.Operations[name].Path
			doc.Add(f)
		}
	}
}

// unknownOperation is what to say of a name that means no operation of any of the components that have the same name.
func unknownOperation(name string, known []Component) (manifest.Finding, bool) {
	p := parsePattern(name)
	var valid, types []string
	binding := false
	for _, c := range known {
		of := Operations(c.Type)
		if of == nil {
			if of = c.Operations; len(of) == 0 {
				return manifest.Finding{}, false
			}
			binding = true
		}
		for _, operation := range of {
			if p.matches("", operation) {
				return manifest.Finding{}, false
			}
		}
		valid, types = append(valid, of...), append(types, c.Type)
	}
	what := fmt.Sprintf("is no operation of %s", strings.Join(types, " or "))
	if binding {
		what += " that is known here, so it has no effect unless the app asks for just that"
	}
	f := manifest.Unknown(what, name, valid)
	if binding {
		f.Severity = manifest.Warning
	}
	return f, true
}
