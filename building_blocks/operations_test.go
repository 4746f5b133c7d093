package blocks

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/sidecast/sidecast/governance"
)

// The operations that rules may name are those that the blocks pass through the lanes of components.
func TestRulesKnowTheOperationsOfComponents(t *testing.T) {
	named := regexp.MustCompile(`(?:\.do\(|doAs\(|\.publish\(|readSecrets\(|resiliency\.Call\{Op: |const op = )[^"\n]*"([a-z_]+)"`)
	for typ, files := range map[string][]string{
		"state.x": {"state.go", "outbox.go"}, "pubsub.x": {"pubsub.go"}, "lock.x": {"lock.go"}, "secretstores.x": {"secrets.go"},
		"configuration.x": {"configuration.go", "follower.go"}, "crypto.x": {"crypto.go", "subtle.go"}, "conversation.x": {"conversation.go"},
	} {
		used := map[string]bool{}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range named.FindAllSubmatch(source, -1) {
				used[string(call[1])] = true
			}
		}
		delete(used, "wait") // for a lock, in a lane that is no component's
		if typ == "state.x" {
			delete(used, "publish_batch") // the outbox's, of its broker
		}
		if got, want := governance.Operations(typ), slices.Sorted(maps.Keys(used)); !slices.Equal(got, want) {
			t.Errorf("rules of %s know %v, and there are %v", typ, got, want)
		}
	}
	if governance.Operations("bindings.http") != nil {
		t.Error("what is asked of a binding is for apps to say")
	}
}
