package components

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/state"
)

// bindingFields are the keys that all bindings have in common, with Dapr's meaning. The Bindings block obeys them.
var bindingFields = []Field{
	{Key: "direction", Type: "string", index: -1,
		Doc: "What the app uses of it: input, output, or both with a comma between. Left out, all that there is, and an app is asked whether it wants the events; with input it gets them unasked."},
	{Key: "route", Type: "string", index: -1,
		Doc: "Path of an HTTP app that events are posted to; the component's name when left out."},
}

// Binding is what a binding is for the app.
type Binding struct {
	// Input says that it hands over events, Output that it does operations.
	Input, Output bool
	// Declared says that the manifest names the direction of input: the app gets events unasked.
	Declared bool
	// Route is the path of an HTTP app that events go to.
	Route string
}

func bindingOf(m Manifest, c Component) Binding {
	b := Binding{Input: c.input, Output: c.output, Route: m.Name}
	for _, e := range m.Metadata {
		switch manifest.FoldKey(e.Key) {
		case "direction":
			named := directions(e.Value)
			b.Declared = b.Input && slices.Contains(named, "input")
			b.Input, b.Output = b.Declared, b.Output && slices.Contains(named, "output")
		case "route":
			b.Route = strings.TrimSpace(e.Value)
		}
	}
	return b
}

func directions(text string) []string { return list(strings.ToLower(text)) }

// checkBinding reports directions that do not exist, and values that are not known before the binding is open.
func checkBinding(d *manifest.Document, m Manifest) {
	for _, e := range m.Metadata {
		key := manifest.FoldKey(e.Key)
		switch {
		case key != "direction" && key != "route":
		case e.Secret != nil || e.Env != "":
			d.Fail(e.Line, e.path(), "must be a plain value")
		case key == "direction":
			for _, word := range directions(e.Value) {
				if word != "input" && word != "output" {
					f := manifest.Unknown("must be input, output or both with a comma between", word, []string{"input", "output"})
					f.Line, f.Key = e.Line, e.path()
					d.Add(f)
				}
			}
		}
	}
}

// directed notes which directions a backend of the type has, and whether it has values alone.
func (c *Component) directed(backend reflect.Type) {
	c.plain = backend.Implements(reflect.TypeFor[state.Plain]())
	c.input = backend.Implements(reflect.TypeFor[binding.Input]())
	c.output = backend.Implements(reflect.TypeFor[binding.Output]())
}

// Binding is the binding of that name, and whether the app may use one. It opens nothing.
func (s *Set) Binding(name string) (Binding, bool) {
	if slot := s.current.Load().slots[name]; slot != nil && slot.component.block == BindingBlock && !slot.denied {
		return slot.binding, true
	}
	return Binding{}, false
}

// Inputs are the bindings that the app may have events of, by name.
func (s *Set) Inputs() map[string]Binding {
	all := map[string]Binding{}
	for name, slot := range s.current.Load().slots {
		if slot.component.block == BindingBlock && !slot.denied && slot.binding.Input {
			all[name] = slot.binding
		}
	}
	return all
}

// OutputBinding gives the use of a binding that does operations.
func (s *Set) OutputBinding(ctx context.Context, name string) (Use[binding.Output], error) {
	return enterBinding[binding.Output](ctx, s, name, "does no operations", func(b Binding) bool { return b.Output })
}

// InputBinding gives the use of a binding that hands over events.
func (s *Set) InputBinding(ctx context.Context, name string) (Use[binding.Input], error) {
	return enterBinding[binding.Input](ctx, s, name, "hands over no events", func(b Binding) bool { return b.Input })
}

// enterBinding opens nothing that has not the direction.
func enterBinding[T Backend](ctx context.Context, s *Set, name, lack string, has func(Binding) bool) (Use[T], error) {
	lacking := fault.New("bindings "+name, fault.ComponentNotFound, "the component of that name %s", lack).With("component", name)
	if b, found := s.Binding(name); found && !has(b) {
		return Use[T]{}, lacking
	}
	use, err := enter[Backend](ctx, s, BindingBlock, name)
	if err != nil {
		return Use[T]{}, err
	}
	backend, ok := use.Backend.(T)
	if !ok || !has(use.slot.binding) { // it was replaced between the two
		use.Release()
		return Use[T]{}, lacking
	}
	return Use[T]{Backend: backend, Name: use.Name, Type: use.Type, Binding: use.slot.binding, slot: use.slot}, nil
}
