package components

import (
	"context"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/state"
)

// told is a component of fields that remembers what it is told.
type told struct{ Settings }

func (told) Close(context.Context) error { return nil }

func TestALibraryIsToldAChoiceInTheSpellingOfItsField(t *testing.T) {
	fields := func() []Field {
		return []Field{
			{Key: "mode", Type: "string", Doc: "A mode.", OneOf: []string{"fast", "SHA-256", "oneWay"}, Default: "fast"},
			{Key: "other", Type: "string", Doc: "Another.", OneOf: []string{"a", "b"}},
		}
	}
	open := func(_ context.Context, _ Host, s Settings) (told, error) { return told{s}, nil }
	own := Foreign(BindingBlock, "spelt", "A test.", fields, open)
	for given, want := range map[string]string{"FAST": "fast", "sha-256": "SHA-256", "ONEWAY": "oneWay", "oneWay": "oneWay"} {
		b, err := own.Open(t.Context(), Host{}, map[string]string{"MODE": given})
		if err != nil {
			t.Fatal(err)
		}
		values := b.(told).Values
		if got := values["mode"]; got != want {
			t.Errorf("mode %q is told as %q, not %q", given, got, want)
		}
		if other, given := values["other"]; given {
			t.Errorf("what is not given is told as %q", other)
		}
	}
	if _, err := own.Open(t.Context(), Host{}, map[string]string{"mode": "slow"}); err == nil {
		t.Error("what is no choice is taken")
	}
	b, err := Described(BindingBlock, "spelt", func() string { return "A test." }, fields, open).
		Open(t.Context(), Host{}, map[string]string{"Mode": "FAST"})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.(told).Values["Mode"]; got != "FAST" {
		t.Errorf("a library that reads its keys as they are is told %q", got)
	}
}

func TestTheKeysOfALibraryAreReadWhenTheyAreAskedFor(t *testing.T) {
	asked := 0
	fields := func() []Field {
		asked++
		return []Field{{Key: "mode", Type: "string", Doc: "A mode.", Required: true}}
	}
	c := Foreign(StateBlock, "far", "A test.", fields, func(_ context.Context, _ Host, s Settings) (state.Store, error) { return &fakeStore{}, nil })
	if asked != 0 || c.Doc() != "A test." {
		t.Error("the keys are read before anyone asks")
	}
	d := c.Describe()
	if asked != 1 || d.Fields[0].Key != "mode" || len(d.Fields) != 1+len(commonFields[StateBlock]) {
		t.Errorf("asked %d times, got %+v", asked, d.Fields)
	}
	if _, err := c.Open(t.Context(), Host{}, nil); err == nil || !strings.Contains(err.Error(), "state.far needs this string: A mode.") {
		t.Errorf("got %v", err)
	}
}

func TestAKeyThatALibraryHasTwiceIsADefect(t *testing.T) {
	for _, key := range []string{"MODE", "keyprefix"} { // of its own, and of the block
		c := Foreign(StateBlock, "far", "A test.", func() []Field { return []Field{{Key: "mode", Type: "string"}, {Key: key, Type: "string"}} },
			func(context.Context, Host, Settings) (state.Store, error) { return &fakeStore{}, nil })
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s is taken", key)
				}
			}()
			c.Describe()
		}()
	}
}
