package components

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/state"
)

func TestTypesFromElsewhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: cart}\nspec:\n  type: state.tset\n  metadata: [{name: any, value: thing}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for awaited, severity := range map[bool]manifest.Severity{true: Warning, false: Error} {
		known := []Component{testStore, Elsewhere(StateBlock, func(typ string) (string, bool) { return "nobody brings " + typ, awaited })}
		findings, _ := Lint([]string{file}, known)
		if len(findings) != 1 || findings[0].Severity != severity || findings[0].Line != 5 || findings[0].Suggestion != "state.test" ||
			!strings.Contains(findings[0].Message, "nobody brings state.tset") || strings.Contains(findings[0].Message, "*") {
			t.Errorf("awaited %t: %v", awaited, findings)
		}
		_, err := Load(t.Context(), []string{file}, known)
		if (err == nil) != awaited {
			t.Errorf("awaited %t: %v", awaited, err)
		}
	}
}

// TestWhatIsNotBuiltInMayCome: a type that only other builds of the sidecar have is refused where no program can bring it, and
// awaited where one can.
func TestWhatIsNotBuiltInMayCome(t *testing.T) {
	file := filepath.Join(t.TempDir(), "all.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: cart}\nspec:\n  type: state.test\n  version: v1\n  metadata: [{name: any, value: thing}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rare := NotLinked(StateBlock, "test", "is built without it", func() string { return "Rare." }, func() []Field { return nil })
	for awaited, want := range map[bool]string{
		true: "nobody brings state.test, and the sidecar itself is built without it", false: "there is no component of type state.test: this program is built without it",
	} {
		known := []Component{rare, Elsewhere(StateBlock, func(typ string) (string, bool) { return "nobody brings " + typ, awaited })}
		findings, _ := Lint([]string{file}, known)
		if len(findings) != 1 || (findings[0].Severity == Warning) != awaited || findings[0].Line != 5 || !strings.Contains(findings[0].Message, want) {
			t.Errorf("awaited %t: %v", awaited, findings)
		}
		docs, err := Load(t.Context(), []string{file}, known)
		if (err == nil) != awaited {
			t.Errorf("awaited %t: %v", awaited, err)
		}
		if !awaited {
			continue
		}
		s := NewSet(Options{Known: known, Documents: docs})
		if _, err := s.State(t.Context(), "cart"); fault.ReasonOf(err) != fault.ComponentDegraded || !strings.Contains(err.Error(), want) {
			t.Errorf("before it comes: %v", err)
		}
		s.SetKnown(append([]Component{anyStore.At("here")}, known...))
		use, err := s.State(t.Context(), "cart")
		if err != nil {
			t.Fatal(err)
		}
		use.Release()
		closeSet(t, s)
	}
}

// anyStore takes any metadata, as those do that programs bring.
var anyStore = Foreign(StateBlock, "test", "Any.", AnyKeys, func(context.Context, Host, Settings) (state.Store, error) { return &fakeStore{}, nil })

// TestSetKnown: a component is opened again when its program comes, or comes to do something else, and only then.
func TestSetKnown(t *testing.T) {
	late := Elsewhere(StateBlock, func(typ string) (string, bool) { return "nobody brings " + typ, true })
	s := NewSet(Options{Host: Host{AppID: "orders"}, Known: []Component{late}, Documents: docs(cart())})
	defer closeSet(t, s)
	if _, err := s.State(t.Context(), "cart"); fault.ReasonOf(err) != fault.ComponentDegraded || !strings.Contains(err.Error(), "nobody brings state.test") {
		t.Errorf("before it comes: %v", err)
	}
	opened := func(place string) any {
		t.Helper()
		s.SetKnown([]Component{testStore.At(place), late})
		use, err := s.State(t.Context(), "cart")
		if err != nil {
			t.Fatal(err)
		}
		defer use.Release()
		return use.Backend
	}
	first := opened("here")
	if opened("here") != first {
		t.Error("the same is opened again")
	}
	if opened("there") == first {
		t.Error("another is not opened")
	}
}
