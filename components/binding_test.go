package components

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/fault"
)

// sink is a binding that only does operations, source one that only hands over events, pipe one of both directions.
type sink struct{ host Host }

func (*sink) Operations() []string { return nil }
func (*sink) Invoke(context.Context, binding.Request) (*binding.Response, error) {
	return nil, nil
}
func (*sink) Close(context.Context) error { return nil }

type source struct{}

func (*source) Read(context.Context, binding.Handler) error { return nil }
func (*source) Close(context.Context) error                 { return nil }

type pipe struct {
	sink
	source
}

func (*pipe) Close(context.Context) error { return nil }

func testBindings() []Component {
	return []Component{
		Foreign(BindingBlock, "sink", "A test.", nil, func(_ context.Context, h Host, _ Settings) (*sink, error) { return &sink{h}, nil }),
		Foreign(BindingBlock, "source", "A test.", nil, func(context.Context, Host, Settings) (*source, error) { return &source{}, nil }),
		Foreign(BindingBlock, "pipe", "A test.", nil, func(_ context.Context, h Host, _ Settings) (*pipe, error) { return &pipe{sink: sink{h}}, nil }),
	}
}

func TestDirectionsOfBindings(t *testing.T) {
	both := Binding{Input: true, Output: true}
	for _, c := range []struct {
		kind, direction string
		want            Binding
	}{
		{"sink", "", Binding{Output: true}},
		{"source", "", Binding{Input: true}},
		{"pipe", "", both},
		{"sink", "output", Binding{Output: true}},
		{"sink", "input", Binding{}},
		{"source", "input, output", Binding{Input: true, Declared: true}},
		{"pipe", " Input ,OUTPUT", Binding{Input: true, Output: true, Declared: true}},
		{"pipe", "output", Binding{Output: true}},
	} {
		m := Manifest{Name: "b", Type: "bindings." + c.kind, Metadata: []Entry{{Key: "ROUTE", Value: "/way"}}}
		if c.direction != "" {
			m.Metadata = append(m.Metadata, Entry{Key: "Direction", Value: c.direction})
		}
		set := NewSet(Options{Known: testBindings(), Documents: &Documents{Components: []Manifest{m}}})
		c.want.Route = "/way"
		if got, found := set.Binding("b"); !found || got != c.want {
			t.Errorf("%s %q is %+v, not %+v", c.kind, c.direction, got, c.want)
		}
		if got := set.Inputs(); len(got) > 0 != c.want.Input {
			t.Errorf("%s %q: the inputs are %v", c.kind, c.direction, got)
		}
		out, err := set.OutputBinding(t.Context(), "b")
		if (err == nil) != c.want.Output || err != nil && fault.ReasonOf(err) != fault.ComponentNotFound {
			t.Errorf("%s %q as an output: %v", c.kind, c.direction, err)
		}
		if s, ok := out.Backend.(*sink); ok && s.host.Binding != c.want {
			t.Errorf("%s %q is opened as %+v", c.kind, c.direction, s.host.Binding)
		}
		out.Release()
		in, err := set.InputBinding(t.Context(), "b")
		if (err == nil) != c.want.Input || err != nil && fault.ReasonOf(err) != fault.ComponentNotFound {
			t.Errorf("%s %q as an input: %v", c.kind, c.direction, err)
		}
		in.Release()
		if err := set.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestLintOfBindings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.yaml")
	const manifest = `apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: b}
spec:
  type: bindings.pipe
  version: v1
  metadata:
  - {name: direction, value: "input, outptu"}
  - name: route
    secretKeyRef: {name: a, key: b}
`
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	findings, _ := Lint([]string{file}, testBindings())
	var all []string
	for _, f := range findings {
		all = append(all, f.String())
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{file + ":8", `did you mean "output"?`, "must be a plain value", "spec.metadata.route"} {
		if !strings.Contains(text, want) {
			t.Errorf("the findings do not hold %q:\n%s", want, text)
		}
	}
}
