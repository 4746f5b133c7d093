package contrib

import (
	"context"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/components"
)

// spelt remembers what a component is told.
type spelt struct{ components.Settings }

func (spelt) Close(context.Context) error { return nil }

// The check of a manifest passes over upper and lower case, so what reads a choice must find it as the field spells it.
func TestEveryChoiceMayBeInUpperCase(t *testing.T) {
	choices := 0
	for _, c := range All() {
		for _, f := range c.Describe().Fields {
			if len(f.OneOf) == 0 {
				continue
			}
			field := components.Field{Key: f.Key, Type: f.Type, Doc: f.Doc, OneOf: f.OneOf}
			again := components.Foreign(components.BindingBlock, "told", "A test.", func() []components.Field { return []components.Field{field} },
				func(_ context.Context, _ components.Host, s components.Settings) (spelt, error) { return spelt{s}, nil })
			for _, choice := range f.OneOf {
				choices++
				b, err := again.Open(t.Context(), components.Host{}, map[string]string{f.Key: strings.ToUpper(choice)})
				if err != nil {
					t.Errorf("%s of %s: %v", f.Key, c.Type(), err)
				} else if got := b.(spelt).Values[f.Key]; got != choice {
					t.Errorf("%s of %s is told %s for %s", f.Key, c.Type(), got, choice)
				}
			}
		}
	}
	if choices == 0 {
		t.Error("there are no choices")
	}
}
