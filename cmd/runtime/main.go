// Command sidecast is the sidecar, the embedded fabric and the command line in one binary. `sidecast help` tells the rest.
package main

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/cmd/runtime/commands"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/datasheet"
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
	if name := strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe"); name == "daprd" || name == "dapr" {
		root.SetArgs(append([]string{name}, os.Args[1:]...))
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
	root.AddCommand(newRun(exit), newDaprd(exit), newDaprCommand(exit), newConfig(), newReference())
	root.AddCommand(commands.New(commands.Deps{Catalogue: catalogue{}, Lint: lint, Version: version})...)
	return root
}

// catalogue shows the known components to the commands.
type catalogue struct{}

func (catalogue) List() []commands.ComponentType {
	var all []commands.ComponentType
	for _, c := range append(discovered().Components(), standard.All()...) {
		all = append(all, componentType(c))
	}
	slices.SortStableFunc(all, func(a, b commands.ComponentType) int { return strings.Compare(a.Type, b.Type) })
	return slices.CompactFunc(all, func(a, b commands.ComponentType) bool { return a.Type == b.Type }) // a program's goes first
}

func (catalogue) Describe(name string) (commands.ComponentType, bool) {
	all := append(discovered().Components(), standard.All()...)
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
	t := commands.ComponentType{Type: d.Title(), Doc: d.Doc, Example: d.Example(), NotLinked: d.NotLinked}
	for _, f := range d.Fields {
		t.Keys = append(t.Keys, commands.ComponentKey{
			Key: f.Key, Accepts: f.Valid(), Default: cmp.Or(f.Default, f.Usual), Required: f.Required, Secret: f.Secret, Doc: f.Doc, Example: f.Sample,
		})
	}
	sheet, ok := datasheet.Of(d.Type, d.Version)
	if !ok || d.When != "" {
		return t
	}
	for _, o := range sheet.Operations {
		t.Operations = append(t.Operations, commands.ComponentNote{Name: o.Name, Doc: o.Doc})
	}
	for _, p := range sheet.Profiles {
		t.SignIns = append(t.SignIns, commands.ComponentNote{Name: p.Title, Doc: p.Doc, Needs: p.Needed})
	}
	for _, l := range sheet.Links {
		t.Links = append(t.Links, commands.ComponentNote{Name: l.Title, Doc: l.URL})
	}
	return t
}

// knownComponents are those of documents, and the built-in ones in whose place there is none.
func knownComponents(builtIn []components.Manifest, docs *components.Documents) []governance.Component {
	var known []governance.Component
	named := make(map[string]bool, len(docs.Components))
	for _, c := range docs.Components {
		named[c.Name] = true
		known = append(known, governance.Component{Name: c.Name, Type: c.Type})
	}
	for _, c := range builtIn {
		if !named[c.Name] {
			known = append(known, governance.Component{Name: c.Name, Type: c.Type})
		}
	}
	return known
}

// operationsOf are those of a binding that its sheet tells.
func operationsOf(typ string) (names []string) {
	if !strings.HasPrefix(typ, "bindings.") {
		return nil
	}
	if sheet, ok := datasheet.Of(typ, ""); ok {
		for _, o := range sheet.Operations {
			names = append(names, o.Name)
		}
	}
	return names
}

func lint(paths []string) ([]commands.Finding, []commands.Explanation) {
	all, docs := components.Lint(paths, discovered().Known(standard.All()))
	known := knownComponents(standard.Defaults(), docs)
	for i := range known {
		known[i].Operations = operationsOf(known[i].Type)
	}
	rules, more := governance.Read(docs.Policies, governance.Who{}, known...)
	_, most := configuration.Read(docs.Configurations)
	all = slices.Concat(all, more, most)
	manifest.SortFindings(all)
	var findings []commands.Finding
	for _, f := range all {
		findings = append(findings, commands.Finding{
			File: f.File, Line: f.Line, Key: f.Key, Severity: string(f.Severity), Message: f.Message, Suggestion: f.Suggestion,
		})
	}
	var said []commands.Explanation
	defaults := blocks.Defaults()
	defaults.Types = make(map[string]string, len(docs.Components))
	for _, c := range docs.Components {
		defaults.Types[c.Name] = c.Type
	}
	for _, e := range rules.Explain(defaults) {
		said = append(said, commands.Explanation{Target: e.Target, Policy: e.Text})
	}
	return findings, said
}
