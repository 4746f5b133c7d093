package governance

import "github.com/sidecast/sidecast/resiliency"

// Defaults are the policies of targets that no document names.
type Defaults struct{ App, Component, Delivery, Local resiliency.Policy }

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
		rule := o.guard()
		all = append(all, Explanation{"calls that reach " + app + ", " + rule.Name, Words(rule.Policy)})
	}
	for _, id := range sorted(r.apps) {
		say("calls to "+id, r.App(id, d.App))
	}
	for _, name := range sorted(r.components) {
		c := r.components[name]
		if c.outbound.named {
			say("operations on "+name, c.outbound.over(d.Component))
		}
		if c.inbound.named {
			say("events from "+name, c.inbound.over(d.Delivery))
		}
	}
	if app := r.App("", d.App); app.Policy.Name != d.App.Name {
		say("calls to all other apps", app)
	}
	for _, kind := range []string{Statestore, Pubsub, Lock, Secretstore, Configuration} {
		if c := r.Component(kind, "", d.Component); c.Policy.Name != d.Component.Name {
			say("operations on all other components of type "+kind, c)
		}
	}
	if c := r.Delivery("", d.Delivery); c.Policy.Name != d.Delivery.Name {
		say("events from all other components", c)
	}
	return all
}
