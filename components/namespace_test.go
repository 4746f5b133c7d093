package components

import (
	"context"
	"testing"

	"github.com/sidecast/sidecast/fault"
)

// Where nobody says of which namespace the sidecar is, it sees manifests of all, as a daprd without NAMESPACE does. Of two
// of a name that of its own counts.
func TestAnyNamespace(t *testing.T) {
	elsewhere, taken, own := cart(), cart(), cart(Entry{Key: "dir", Value: "/own"})
	elsewhere.Name, elsewhere.Namespace = "statestore", "prod"
	taken.Namespace, own.Namespace = "prod", "default"
	for _, all := range [][]Manifest{{elsewhere, taken, own}, {elsewhere, own, taken}} {
		s := NewSet(Options{
			Host: Host{AppID: "orders", Namespace: "default"}, AnyNamespace: true, Known: testComponents, Documents: docs(all...),
			BuiltIn: []Manifest{{Name: "statestore", Type: "state.test"}},
		})
		defer closeSet(t, s)
		wanted := s.wanted(s.options.Documents)
		if len(wanted) != 2 || wanted["statestore"].Namespace != "prod" || wanted["cart"].Namespace != "default" {
			t.Errorf("got %+v", wanted)
		}
	}
	s := NewSet(Options{Host: Host{AppID: "orders", Namespace: "default"}, Known: testComponents, Documents: docs(taken)})
	defer closeSet(t, s)
	if _, err := s.State(context.Background(), "cart"); fault.ReasonOf(err) != fault.ComponentNotFound {
		t.Errorf("got %v", err)
	}
}
