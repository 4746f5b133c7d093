package components

import (
	"cmp"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// Description is what a component says about itself.
type Description struct {
	// Type is what a manifest writes under spec.type.
	Type string
	// Version is that of the type; When is the key whose presence makes a manifest of the type mean this component.
	Version, When string
	Block         Block
	// Doc is a sentence for the user.
	Doc string
	// Fields are the keys of spec.metadata: required ones first.
	Fields []Field
	// NotLinked is why this program does not have the component, and what to do about it; empty for one that it has.
	NotLinked string
}

// Describe tells what the component is and which keys it has.
func (c Component) Describe() Description {
	d := Description{Type: c.Type(), Version: c.Version(), When: c.when, Block: c.block, Doc: c.Doc(), Fields: slices.Clone(c.schema.all()), NotLinked: c.notLinked}
	slices.SortStableFunc(d.Fields, func(a, b Field) int {
		switch {
		case a.Required == b.Required:
			return 0
		case a.Required:
			return -1
		}
		return 1
	})
	return d
}

// Title is the type, with what tells the component from others of its type: `state.postgresql v2`.
func (d Description) Title() string {
	title := d.Type
	if d.Version != "v1" {
		title += " " + d.Version
	}
	if d.When != "" {
		title += " with " + d.When
	}
	return title
}

// Valid says in words what the key accepts: `bytes, 1MiB to 1GiB`.
func (f Field) Valid() string {
	switch {
	case len(f.OneOf) > 0:
		return strings.Join(f.OneOf, ", ")
	case f.Min != "" && f.Max != "":
		return fmt.Sprintf("%s, %s to %s", f.Type, f.Min, f.Max)
	case f.Min != "":
		return fmt.Sprintf("%s, %s or more", f.Type, f.Min)
	case f.Max != "":
		return fmt.Sprintf("%s, %s or less", f.Type, f.Max)
	}
	return f.Type
}

// Example is a value that the key accepts: its default where it has one.
func (f Field) Example() string {
	if len(f.OneOf) > 0 {
		return cmp.Or(f.Default, f.OneOf[0])
	}
	if f.Sample != "" && f.Default == "" && f.set(reflect.New(typeNamed(f.Type)).Elem(), f.Sample) == nil {
		return f.Sample
	}
	byType := map[string]string{
		"bool": "true", "int": "1", "float": "1.5", "duration": "10s", "bytes": "1MiB", "string": "my-" + strings.ToLower(f.Key),
	}
	return cmp.Or(f.Default, f.Min, f.Max, byType[f.Type])
}

// Example is a manifest in YAML that Lint accepts: the required keys, and the others with their defaults.
func (d Description) Example() string {
	var b strings.Builder
	_, product, _ := strings.Cut(d.Type, ".")
	fmt.Fprintf(&b, "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: my-%s\nspec:\n  type: %s\n  version: %s\n",
		strings.ToLower(product), d.Type, d.Version)
	var entries []string
	for _, f := range d.Fields {
		switch {
		case f.Secret && f.Required:
			entries = append(entries, fmt.Sprintf("  - name: %s\n    secretKeyRef:\n      name: my-secret\n      key: %s\n", f.Key, f.Key))
		case f.Required, f.Default != "":
			entries = append(entries, fmt.Sprintf("  - name: %s\n    value: %q\n", f.Key, f.Example()))
		}
	}
	if len(entries) == 0 {
		b.WriteString("  metadata: []\n")
	} else {
		b.WriteString("  metadata:\n" + strings.Join(entries, ""))
	}
	return b.String()
}

var blockTitles = []struct {
	block Block
	title string
}{
	{StateBlock, "State stores"}, {PubSubBlock, "Pub/sub brokers"}, {LockBlock, "Lock stores"}, {SecretBlock, "Secret stores"},
	{ConfigurationBlock, "Configuration stores"}, {BindingBlock, "Bindings"},
	{MiddlewareBlock, "HTTP middleware"}, {CryptoBlock, "Crypto providers"}, {ConversationBlock, "Conversations"},
}

// Reference writes the page docs/reference/components.md: every component, its keys and an example.
func Reference(w io.Writer, known []Component) error {
	var b strings.Builder
	b.WriteString(referenceHead)
	for _, part := range blockTitles {
		first := true
		for _, c := range known {
			if c.block != part.block || c.notLinked != "" {
				continue
			}
			if first {
				fmt.Fprintf(&b, "\n## %s\n", part.title)
				first = false
			}
			c.Describe().write(&b)
		}
	}
	notLinked(&b, known)
	_, err := io.WriteString(w, b.String())
	return err
}

// notLinked lists the components that this program does not have.
func notLinked(b *strings.Builder, known []Component) {
	why := ""
	for _, c := range known {
		if c.notLinked == "" {
			continue
		}
		if c.notLinked != why {
			why = c.notLinked
			fmt.Fprintf(b, "\n## Not in this program\n\nIt %s. `sidecast components describe TYPE` tells their keys.\n\n| Type | What it is |\n|---|---|\n", why)
		}
		title := c.Type()
		if c.Version() != "v1" {
			title += " " + c.Version()
		}
		fmt.Fprintf(b, "| `%s` | %s |\n", title, strings.ReplaceAll(c.Doc(), "|", `\|`))
	}
}

func (d Description) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n", d.Title(), d.Doc)
	if len(d.Fields) == 0 {
		b.WriteString("It has no keys.\n")
	} else {
		b.WriteString("| Key | Accepts | Default | Meaning |\n|---|---|---|---|\n")
	}
	for _, f := range d.Fields {
		standard := "—"
		if f.Required {
			standard = "required"
		} else if text := cmp.Or(f.Default, f.Usual); text != "" {
			standard = "`" + text + "`"
		}
		doc := f.Doc
		if len(f.Aliases) > 0 {
			doc += " Also: `" + strings.Join(f.Aliases, "`, `") + "`."
		}
		if f.Secret {
			doc += " Never shown."
		}
		cell := strings.NewReplacer("|", `\|`, "\n", " ")
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.Key, cell.Replace(f.Valid()), cell.Replace(standard), cell.Replace(doc))
	}
	fmt.Fprintf(b, "\n```yaml\n%s```\n", d.Example())
}

const referenceHead = `# Components

<!-- Generated by ` + "`make gen`" + ` from the components themselves. Do not edit. -->

A component is a YAML document of kind Component in a folder given with ` + "`--resources-path`" + `. Dapr's manifests work as they
are. ` + "`sidecast lint DIR`" + ` checks a folder, ` + "`sidecast components`" + ` lists what this version knows.

Keys know no case. A key that a component does not have, a missing one and a value that cannot be are errors. Durations are
written like ` + "`500ms`, `30s` or `1h30m`" + `, or as a plain number of seconds; sizes like ` + "`64KiB`, `8MiB` or `1GB`" + `, or as a plain number
of bytes. In values, ` + "`{appID}`, `{namespace}`, `{podName}` and `{uuid}`" + ` are filled in; as with Dapr, ` + "`{namespace}`" + `
is the namespace, a point and the app id. Where a broker has ` + "`{namespace}`" + ` in any of its values, the namespace also stands
before the names of its topics on the server, ` + "`prodorders`" + ` for ` + "`orders`" + `.

Instead of ` + "`value`" + `, an entry may have ` + "`secretKeyRef`" + ` (` + "`name`, `key`" + `), which is looked up in the component that
` + "`auth.secretStore`" + ` names, or in the environment when there is none, and ` + "`envRef`" + `, an environment variable. Such values are
never shown.

| Beside the metadata | Meaning |
|---|---|
| ` + "`scopes`" + ` | The app ids that may use the component; all when left out. |
| ` + "`auth.secretStore`" + ` | The secret store for ` + "`secretKeyRef`" + `. |
| ` + "`spec.initTimeout`" + ` | How long a first user waits for the component to open; 5s when left out. |
| ` + "`spec.required`" + ` | The sidecar does not start when the component cannot. Others are tried again and reported. |
| ` + "`spec.ignoreErrors`" + ` | Accepted as Dapr's; it is how every component behaves that is not required. |
`
