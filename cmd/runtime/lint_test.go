package main

import (
	"os"
	"path/filepath"
	"testing"
)

// Rules for operations are held against the components of the folder, those that exist without a file among them.
func TestLintKnowsOperationsOfComponents(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("mail.yaml", `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: mail}
spec: {type: bindings.smtp, version: v1, metadata: [{name: host, value: localhost}, {name: port, value: "25"}]}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec: {type: state.memory, version: v1}
`)
	write("rules.yaml", `
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies: {timeouts: {t: 1s}}
  targets:
    apps: {orders: {operations: {anything: {timeout: t}}}}
    components:
      mail: {outbound: {operations: {creat: {timeout: t}}}}
      pubsub: {outbound: {operations: {get: {timeout: t}, publish: {timeout: t}}}}
      statestore: {outbound: {operations: {gett: {timeout: t}}}}
      other: {outbound: {operations: {gett: {timeout: t}}}}
`)
	found, _ := lint([]string{dir})
	var got []string
	for _, f := range found {
		if f.File == filepath.Join(dir, "rules.yaml") || filepath.Base(f.File) == "rules.yaml" {
			got = append(got, f.Severity+" "+f.Key)
		}
	}
	want := []string{
		"warning spec.targets.components.mail.outbound.operations.creat", "error spec.targets.components.pubsub.outbound.operations.publish",
		"error spec.targets.components.statestore.outbound.operations.gett",
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got[i], want[i])
		}
	}
}
