package governance

import (
	"strings"

	"github.com/sidecast/sidecast/resiliency"
)

// Defaults are the policies of targets that no document names.
type Defaults struct {
	App, Component, Delivery, Local resiliency.Policy
	// AppUnderDaprd takes the place of App in a sidecar that was started as daprd.
	AppUnderDaprd resiliency.Policy
	// Kinds take the place of Component for components of those types, by governance's names of them.
	Kinds map[string]resiliency.Policy
	// Types are those of the components that are known, by name: bindings.kafka.
	Types map[string]string
}

// component is the default of a component, or of all of a type where it has no name.
func (d *Defaults) component(kind, name string) resiliency.Policy {
	switch block, _, _ := strings.Cut(d.Types[name], "."); block {
	case "bindings":
		kind = Binding
	case "conversation":
		kind = Conversation
	}
	if p, ok := d.Kinds[kind]; ok {
		return p
	}
	return d.Component
}

// Explanation says in words how the calls to a target are guarded.
type Explanation struct{ Target, Text string }

// Explain says in words what the rules do to every target that a document names, and to all others where a document sets
// policies for them.
func (r *Rules) Explain(d Defaults) []Explanation {
	if r == nil {
		return nil
	}
	var all []Explanation
	say := func(what string, t Target) {
		for _, o := range t.Operations {
			all = append(all, Explanation{what + ", " + o.Name, Words(o.Policy)})
		}
		all = append(all, Explanation{what, Words(t.Policy)})
	}
	if r.local != nil {
		say("calls to the local app", r.local.over(d.Local))
	}
	for _, o := range r.sergo {
		app := "every app"
		if o.app != "" {
			app = "app " + o.app
		}
		rule := o.guard(new(settings))
		all = append(all, Explanation{"calls that reach " + app + ", " + rule.Name, Words(rule.Policy)})
	}
	toApp := func(what, id string) {
		native, daprd := r.App(id, d.App), r.App(id, d.AppUnderDaprd)
		say(what, native)
		if text := Words(daprd.Policy); text != Words(native.Policy) {
			all = append(all, Explanation{what + ", under sidecast daprd", text})
		}
	}
	for _, id := range sorted(r.apps) {
		toApp("calls to "+id, id)
	}
	for _, name := range sorted(r.components) {
		c := r.components[name]
		if c.outbound.named {
			say("operations on "+name, r.Component("", name, d.component("", name)))
		}
		if c.inbound.named {
			say("events from "+name, c.inbound.over(d.Delivery))
		}
	}
	if app := r.App("", d.App); app.Policy.Name != d.App.Name {
		toApp("calls to all other apps", "")
	}
	for _, kind := range []string{Statestore, Pubsub, Lock, Secretstore, Configuration, Crypto, Binding, Conversation} {
		base := d.component(kind, "")
		if c := r.Component(kind, "", base); c.Policy.Name != base.Name {
			say("operations on all other components of type "+kind, c)
		}
	}
	if c := r.Delivery("", d.Delivery); c.Policy.Name != d.Delivery.Name {
		say("events from all other components", c)
	}
	return all
}
