package commands

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// Catalogue knows the types of components that this program has.
type Catalogue interface {
	// List returns all types, sorted by name.
	List() []ComponentType
	// Describe returns one type by its name, `state.badger`; false when there is none.
	Describe(name string) (ComponentType, bool)
}

// ComponentType documents one type of component.
type ComponentType struct {
	// Type is its name: `state.badger`.
	Type string `json:"type"`
	// Doc says what it is. The first sentence stands in lists.
	Doc string `json:"doc"`
	// Keys are what a manifest may hold under spec.metadata.
	Keys []ComponentKey `json:"keys"`
	// Example is a manifest in YAML.
	Example string `json:"example,omitempty"`
	// NotLinked is why this program does not have the type; empty for one that it has.
	NotLinked string `json:"notLinked,omitempty"`
	// Operations are those of a binding, SignIns ways to sign in, Links pages about it.
	Operations []ComponentNote `json:"operations,omitempty"`
	SignIns    []ComponentNote `json:"signIns,omitempty"`
	Links      []ComponentNote `json:"links,omitempty"`
}

// ComponentNote is something about a type that has a name.
type ComponentNote struct {
	Name string `json:"name"`
	Doc  string `json:"doc,omitempty"`
	// Needs are the keys that it cannot do without.
	Needs []string `json:"needs,omitempty"`
}

// ComponentKey documents one key of a manifest.
type ComponentKey struct {
	// Key is its name, Accepts what its value may be, in words, and Default what it is when the key is left out.
	Key     string `json:"key"`
	Accepts string `json:"accepts"`
	Default string `json:"default,omitempty"`
	// Required says that it cannot be left out, Secret that its value is never shown.
	Required bool `json:"required,omitempty"`
	Secret   bool `json:"secret,omitempty"`
	// Doc says what it means.
	Doc string `json:"doc"`
	// Example is a value of it.
	Example string `json:"example,omitempty"`
}

// componentView is a component of a sidecar in JSON.
type componentView struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	State  string `json:"state"`
	Error  string `json:"error,omitempty"`
	Origin string `json:"origin"`
}

func componentsCommand(o *options) *cobra.Command {
	var available bool
	cmd := &cobra.Command{
		Use:   "components",
		Short: "Show the components of a sidecar, or all types that there are",
		Long: `Shows the components of a running sidecar: name, type, state and where each was defined. "idle" was
not used yet, "ready" works, "degraded" could not start and is tried again; the reason stands below
the table.

With --available it shows the types of components that there are, and "components describe TYPE"
what one of them is and takes; for both no sidecar needs to run. A type with a star is not in this
program: it is in one that is built with -tags all_components.`,
		Example: examples(
			`sidecast components --app-id orders`,
			`sidecast components --available`,
			`sidecast components describe state.badger`,
			`sidecast components -o json | jq 'select(.state == "degraded")'`,
		),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if available {
				return o.printTypes(cmd)
			}
			return o.printComponents(cmd)
		},
	}
	cmd.Flags().BoolVar(&available, "available", false, "show the types that there are instead")
	cmd.AddCommand(o.describeType())
	return cmd
}

func (o *options) printComponents(cmd *cobra.Command) error {
	ctx, cancel := o.within(cmd.Context(), 0)
	defer cancel()
	return o.dialed(ctx, func(conn *grpc.ClientConn) error {
		who, err := sidecastv1.NewRuntimeClient(conn).Describe(ctx, &sidecastv1.DescribeRequest{})
		if err != nil {
			return err
		}
		if o.json() {
			for _, c := range who.Components {
				if err := printJSON(cmd.OutOrStdout(), componentView{c.Name, c.Type, c.State, c.Error, c.Origin}); err != nil {
					return err
				}
			}
			return nil
		}
		t := newTable(cmd.OutOrStdout(), "NAME", "TYPE", "STATE", "ORIGIN")
		for _, c := range who.Components {
			t.row(c.Name, c.Type, c.State, c.Origin)
		}
		if err := t.flush(); err != nil {
			return err
		}
		for _, c := range who.Components {
			if c.Error != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "  ! %s: %s\n", c.Name, c.Error)
			}
		}
		return nil
	})
}

// types are what the catalogue lists; without one there are none.
func (o *options) types() []ComponentType {
	if o.deps.Catalogue == nil {
		return nil
	}
	return o.deps.Catalogue.List()
}

func (o *options) printTypes(cmd *cobra.Command) error {
	if o.json() {
		for _, t := range o.types() {
			if err := printJSON(cmd.OutOrStdout(), t); err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(cmd.OutOrStdout(), "TYPE", "WHAT IT IS")
	why := ""
	for _, c := range o.types() {
		name := c.Type
		if c.NotLinked != "" {
			name, why = name+" *", c.NotLinked
		}
		t.row(name, firstSentence(c.Doc))
	}
	if err := t.flush(); err != nil || why == "" {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "\n* this program %s\n", why)
	return err
}

func firstSentence(doc string) string {
	doc = strings.Join(strings.Fields(doc), " ")
	if at := strings.Index(doc, ". "); at >= 0 {
		return doc[:at+1]
	}
	return doc
}

func (o *options) describeType() *cobra.Command {
	return &cobra.Command{
		Use:   "describe TYPE",
		Short: "Explain a type of component: what it is, its keys, an example",
		Long: `Explains a type of component: what it is, which keys its manifest takes, and a manifest to start
from.`,
		Example: examples(
			`sidecast components describe state.badger`,
			`sidecast components describe pubsub.jetstream -o json`,
		),
		Args: exactArgs("TYPE"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return o.typeNames(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.deps.Catalogue == nil {
				return unknownType(args[0], nil)
			}
			t, ok := o.deps.Catalogue.Describe(args[0])
			if !ok {
				return unknownType(args[0], o.typeNames())
			}
			if o.json() {
				return printJSON(cmd.OutOrStdout(), t)
			}
			return writeType(cmd.OutOrStdout(), t)
		},
	}
}

func (o *options) typeNames() []string {
	var names []string
	for _, t := range o.types() {
		names = append(names, t.Type)
	}
	return names
}

func unknownType(name string, known []string) error {
	text := fmt.Sprintf("there is no type %q", name)
	if len(known) > 0 {
		nearest := slices.MinFunc(known, func(a, b string) int {
			return levenshtein.ComputeDistance(a, name) - levenshtein.ComputeDistance(b, name)
		})
		if levenshtein.ComputeDistance(nearest, name) <= len(name)/2 {
			text += fmt.Sprintf(" (did you mean %q?)", nearest)
		}
	}
	return fault.E("components describe", fault.NotFound, "", fmt.Errorf("%s; `sidecast components --available` lists them", text))
}

func writeType(w io.Writer, c ComponentType) error {
	fmt.Fprintf(w, "%s\n\n%s\n", c.Type, strings.TrimSpace(c.Doc))
	if c.NotLinked != "" {
		fmt.Fprintf(w, "\nThis program %s.\n", c.NotLinked)
	}
	if len(c.Keys) > 0 {
		fmt.Fprintln(w)
		t := newTable(w, "KEY", "ACCEPTS", "DEFAULT", "MEANING")
		for _, key := range c.Keys {
			standard := key.Default
			if key.Required {
				standard = "(required)"
			}
			doc := key.Doc
			if key.Example != "" {
				doc += " Example: " + key.Example
			}
			if key.Secret {
				doc += " Never shown."
			}
			t.row(key.Key, key.Accepts, standard, doc)
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		head  string
		notes []ComponentNote
	}{{"OPERATION", c.Operations}, {"TO SIGN IN", c.SignIns}, {"PAGE", c.Links}} {
		if err := writeNotes(w, part.head, part.notes); err != nil {
			return err
		}
	}
	if c.Example != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.Example))
	}
	return nil
}

func writeNotes(w io.Writer, head string, notes []ComponentNote) error {
	if len(notes) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, head, "ABOUT")
	for _, n := range notes {
		doc := n.Doc
		if len(n.Needs) > 0 {
			doc = strings.TrimSpace(doc + " Needs " + strings.Join(n.Needs, ", ") + ".")
		}
		t.row(n.Name, doc)
	}
	return t.flush()
}

// describeSidecar asks the sidecar meant, quickly: it is for completions, which nobody waits for.
func (o *options) describeSidecar(ctx context.Context) *sidecastv1.DescribeResponse {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	conn, err := o.connect(ctx, anySidecar)
	if err != nil {
		return nil
	}
	defer conn.Close()
	who, _ := sidecastv1.NewRuntimeClient(conn).Describe(ctx, &sidecastv1.DescribeRequest{})
	return who
}
