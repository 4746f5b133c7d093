// Command sidecast is the sidecar, the embedded fabric and the command line in one binary. `sidecast help` tells the rest.
package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/cmd/runtime/commands"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/configuration"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/manifest"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := 0
	root := newRoot(func(c int) { code = c })
	if calledDaprd(os.Args[0]) {
		root.SetArgs(append([]string{"daprd"}, os.Args[1:]...))
	}
	if failed := commands.Execute(ctx, root); failed != 0 {
		code = failed
	}
	stop()
	os.Exit(code)
}

// newRoot builds the command line. exit sets the exit code of a run whose app failed.
func newRoot(exit func(code int)) *cobra.Command {
	root := &cobra.Command{
		Use:   "sidecast",
		Short: "A sidecar that takes the distributed-systems work off your app",
		Long: `Sidecast runs beside an app, in any language, and gives it service invocation, publish/subscribe, state and locks
over localhost gRPC. One binary, nothing else to install.

Start with

  sidecast run --app-id hello --app-port 8080 -- python3 -m http.server 8080

and look at it from another terminal with

  sidecast status
  sidecast tree
  sidecast invoke hello / --verb GET`,
	}
	root.AddCommand(newRun(exit), newDaprd(exit), newConfig(), newReference())
	root.AddCommand(commands.New(commands.Deps{Catalogue: catalogue{}, Lint: lint, Version: version})...)
	return root
}

// catalogue shows the known components to the commands.
type catalogue struct{}

func (catalogue) List() []commands.ComponentType {
	all := make([]commands.ComponentType, 0, len(standard.All()))
	for _, c := range standard.All() {
		all = append(all, componentType(c))
	}
	slices.SortFunc(all, func(a, b commands.ComponentType) int {
		if a.Type < b.Type {
			return -1
		}
		return 1
	})
	return all
}

func (catalogue) Describe(name string) (commands.ComponentType, bool) {
	all := standard.All()
	named := func(c components.Component) bool { return c.Describe().Title() == name }
	i := slices.IndexFunc(all, named)
	if i < 0 {
		i = slices.IndexFunc(all, func(c components.Component) bool { return c.Type() == name })
	}
	if i < 0 {
		return commands.ComponentType{}, false
	}
	return componentType(all[i]), true
}

func componentType(c components.Component) commands.ComponentType {
	d := c.Describe()
	t := commands.ComponentType{Type: d.Title(), Doc: d.Doc, Example: d.Example()}
	for _, f := range d.Fields {
		t.Keys = append(t.Keys, commands.ComponentKey{
			Key: f.Key, Accepts: f.Valid(), Default: f.Default, Required: f.Required, Secret: f.Secret, Doc: f.Doc,
		})
	}
	return t
}

func lint(paths []string) ([]commands.Finding, []commands.Explanation) {
	all, others := components.Lint(paths, standard.All())
	var policies, settings []manifest.Raw
	for _, raw := range others {
		if raw.Kind == configuration.Kind {
			settings = append(settings, raw)
		} else {
			policies = append(policies, raw)
		}
	}
	rules, more := governance.Read(policies, governance.Who{})
	_, most := configuration.Read(settings)
	all = slices.Concat(all, more, most)
	manifest.SortFindings(all)
	var findings []commands.Finding
	for _, f := range all {
		findings = append(findings, commands.Finding{
			File: f.File, Line: f.Line, Key: f.Key, Severity: string(f.Severity), Message: f.Message, Suggestion: f.Suggestion,
		})
	}
	var said []commands.Explanation
	for _, e := range rules.Explain(blocks.Defaults()) {
		said = append(said, commands.Explanation{Target: e.Target, Policy: e.Text})
	}
	return findings, said
}
