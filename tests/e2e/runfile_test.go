package e2e

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/tests/machine"
)

// Dapr's key for a file with a Configuration: common to all apps, or an app's own.
func TestRunFilesNameConfigurations(t *testing.T) {
	t.Parallel()
	const configuration = "apiVersion: dapr.io/v1alpha1\nkind: Configuration\nmetadata: {name: c}\nspec: {accessControl: {defaultAction: "
	dir := t.TempDir()
	write(t, filepath.Join(dir, "deny.yaml"), configuration+"deny}}\n")
	write(t, filepath.Join(dir, "allow.yaml"), configuration+"allow}}\n")
	file := filepath.Join(dir, "dapr.yaml")
	write(t, file, `
version: 1
common: {configFilePath: deny.yaml}
apps:
  - appID: guarded
  - appID: open
    configFilePath: ./allow.yaml
  - appID: caller
`)
	m := machine.New(t)
	run := m.Run("-f", file)
	for _, app := range []string{"guarded", "open"} {
		m.Await(app, run)
	}
	client := m.Await("caller", run).Client()
	for app, want := range map[string]fault.Reason{"guarded": fault.AccessDenied, "open": fault.NoApp} {
		machine.Until(t, "an answer of "+app, func() error { // which is seen a moment after it has started
			_, err := client.Invoke(t.Context(), app, "method", nil)
			if fault.ReasonOf(err) != want {
				return fmt.Errorf("%s: %v", app, err)
			}
			return nil
		})
	}
	missing := filepath.Join(dir, "missing.yaml")
	write(t, missing, "version: 1\napps:\n  - appID: a\n    configFilePath: nowhere.yaml\n")
	refused(t, m.Run("-f", missing), 2, "missing.yaml:4", "configFilePath", "there is no file")
}
