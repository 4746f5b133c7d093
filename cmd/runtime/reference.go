package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/sidecast/sidecast/api/admin"
	"github.com/sidecast/sidecast/api/daprapi"
	"github.com/sidecast/sidecast/cmd/runtime/commands"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/standard"
	"github.com/sidecast/sidecast/configuration"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/telemetry"
)

// newReference is the hidden command behind `make gen`: it writes the reference pages from the code.
func newReference() *cobra.Command {
	var out, descriptors string
	c := &cobra.Command{
		Use: "reference", Short: "Write the reference pages", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			pages := map[string]func(io.Writer) error{
				"errors.md":     errorReference,
				"metrics.md":    metricsReference,
				"resiliency.md": governance.Reference,
				"components.md": func(w io.Writer) error { return components.Reference(w, standard.All()) },
				"cli.md":        func(w io.Writer) error { return commands.Reference(w, c.Root()) },
				"api.md":        func(w io.Writer) error { return apiReference(w, descriptors) },
			}
			schemas, err := governance.Schemas()
			if err != nil {
				return err
			}
			if schemas[configuration.Kind], err = configuration.Schema(components.Versions(configuration.Kind)); err != nil {
				return err
			}
			if schemas["HTTPEndpoint"], err = components.EndpointSchema(); err != nil {
				return err
			}
			for kind, schema := range schemas {
				pages["schemas/"+kind+".json"] = func(w io.Writer) error {
					_, err := w.Write(schema)
					return err
				}
			}
			if err := os.MkdirAll(filepath.Join(out, "schemas"), 0o755); err != nil {
				return err
			}
			for name, write := range pages {
				var page bytes.Buffer
				if err := write(&page); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if err := os.WriteFile(filepath.Join(out, name), page.Bytes(), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&out, "out", "docs/reference", "folder to write to")
	c.Flags().StringVar(&descriptors, "descriptors", "", "file descriptor set of the API, with comments")
	return c
}

func metricsReference(w io.Writer) error {
	fmt.Fprint(w, `# Metrics

`+"`/metrics` on `--metrics-port`"+` answers in the text format of Prometheus. Labels come from bounded sets: never a method, a key or
a topic that an app made up. Beside those below stand the metrics of the Go runtime and of the process. This page is generated
from the code.

## Operations

| Metric | Type | Labels | Meaning |
|---|---|---|---|
| `+"`sidecast_operation_seconds` | histogram | `block`, `target`, `operation`, `kind`"+` | Time an operation of a building block took, by its outcome. |

## Lanes

Lanes are asked when they are scraped: their metrics cost calls nothing, and of a lane that is being restarted they are what was
known last. The first 200 lanes have a `+"`lane`"+` label of their own; those beyond share the label `+"`_other`"+`, which sums them up.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
`)
	for _, m := range admin.LaneMetrics() {
		fmt.Fprintf(w, "| `%s` | %s | `lane`", m.Name, m.Type)
		for _, label := range m.Labels {
			fmt.Fprintf(w, ", `%s`", label)
		}
		fmt.Fprintf(w, " | %s |\n", m.Help)
	}
	fmt.Fprint(w, `
## Dapr's names

A sidecar that was started as `+"`sidecast daprd`"+` has these beside its own, with the names, labels and units of daprd v1.18. Latencies are
in milliseconds. What is measured through the native API is in the metrics above alone, but for deliveries, invocations, components
and policies, which are the same for every door. Each metric has `+"`app_id`"+`, the sidecar's own where nothing else is said, and at most 500 series of its own: what comes later
shares the value `+"`_other`"+` in labels whose words apps make up (path, topic, method, app ids), where daprd's grow without bound. Policies are counted where
a Resiliency document names the target: `+"`dapr_resiliency_activations_total`"+` counts each retry, not each call that was retried, and of
a breaker the calls it let pass under status closed and those it kept away under open.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
`)
	for _, m := range append(telemetry.DaprMetrics(), daprapi.ScrapedMetrics()...) {
		fmt.Fprintf(w, "| `%s` | %s | `app_id`", m.Name, m.Type)
		for _, label := range m.Labels {
			fmt.Fprintf(w, ", `%s`", label)
		}
		fmt.Fprintf(w, " | %s |\n", m.Help)
	}
	return nil
}

func errorReference(w io.Writer) error {
	fmt.Fprintf(w, `# Errors

Every error has a **kind**, which programs switch on, and a **reason**, a stable word that names its cause. Over gRPC the
kind is the status code, and the status carries google.rpc.ErrorInfo (reason, domain %q, metadata, where `+"`kind`"+` is
the kind's name) and, where waiting helps, google.rpc.RetryInfo. This page is generated from package fault.

## Kinds

| kind | gRPC code | HTTP status | meaning |
|---|---|---|---|
`, fault.Domain)
	for _, k := range fault.Kinds() {
		fmt.Fprintf(w, "| `%s` | %s (%d) | %d | %s |\n", k, grpcName(k), k.GRPC(), k.HTTP(), k.Doc())
	}
	fmt.Fprint(w, "\n## Reasons\n\n*Safe to repeat* says that the work never began, so that trying again cannot do it twice.\n")
	for _, e := range fault.Reasons() {
		safe := ""
		if e.NotSent {
			safe = " · safe to repeat"
		}
		fmt.Fprintf(w, "\n### %s\n\n`%s`%s\n\n%s\n\n**What to do:** %s\n", e.Reason, e.Kind, safe, e.Cause, e.Remedy)
	}
	return nil
}

// apiReference writes what the comments of the proto files say.
func apiReference(w io.Writer, path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(raw, &set); err != nil {
		return err
	}
	files, err := protodesc.NewFiles(&set)
	if err != nil {
		return err
	}
	fmt.Fprint(w, "# API\n\nThe native gRPC API, package `sidecast.v1`. This page is generated from the comments in `sdk/proto`.\n")
	for _, file := range set.GetFile() {
		if file.GetPackage() != "sidecast.v1" {
			continue
		}
		f, err := files.FindFileByPath(file.GetName())
		if err != nil {
			return err
		}
		for i := range f.Services().Len() {
			writeService(w, f, f.Services().Get(i))
		}
		for i := range f.Messages().Len() {
			writeMessage(w, f, f.Messages().Get(i))
		}
		for i := range f.Enums().Len() {
			writeEnum(w, f, f.Enums().Get(i))
		}
	}
	return nil
}

func writeService(w io.Writer, f protoreflect.FileDescriptor, s protoreflect.ServiceDescriptor) {
	fmt.Fprintf(w, "\n## service %s\n\n%s\n", s.Name(), comment(f, s))
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		fmt.Fprintf(w, "\n**%s**(%s%s) → %s%s\n\n%s\n", m.Name(), stream(m.IsStreamingClient()), m.Input().Name(),
			stream(m.IsStreamingServer()), m.Output().Name(), comment(f, m))
	}
}

func writeMessage(w io.Writer, f protoreflect.FileDescriptor, m protoreflect.MessageDescriptor) {
	if m.IsMapEntry() {
		return
	}
	fmt.Fprintf(w, "\n### %s\n\n%s\n", strings.TrimPrefix(string(m.FullName()), "sidecast.v1."), comment(f, m))
	if m.Fields().Len() > 0 {
		fmt.Fprint(w, "\n| field | type | |\n|---|---|---|\n")
	}
	for i := range m.Fields().Len() {
		field := m.Fields().Get(i)
		fmt.Fprintf(w, "| `%s` | %s | %s |\n", field.Name(), fieldType(field), strings.ReplaceAll(comment(f, field), "|", "\\|"))
	}
	for i := range m.Messages().Len() {
		writeMessage(w, f, m.Messages().Get(i))
	}
}

func writeEnum(w io.Writer, f protoreflect.FileDescriptor, e protoreflect.EnumDescriptor) {
	fmt.Fprintf(w, "\n### enum %s\n\n%s\n\n| value | |\n|---|---|\n", e.Name(), comment(f, e))
	for i := range e.Values().Len() {
		v := e.Values().Get(i)
		fmt.Fprintf(w, "| `%s` | %s |\n", v.Name(), comment(f, v))
	}
}

func fieldType(field protoreflect.FieldDescriptor) string {
	if field.IsMap() {
		return fmt.Sprintf("map of %s to %s", fieldType(field.MapKey()), fieldType(field.MapValue()))
	}
	name := field.Kind().String()
	switch {
	case field.Message() != nil:
		name = strings.TrimPrefix(string(field.Message().FullName()), "sidecast.v1.")
	case field.Enum() != nil:
		name = string(field.Enum().Name())
	}
	if field.IsList() {
		return "list of " + name
	}
	return name
}

func comment(f protoreflect.FileDescriptor, d protoreflect.Descriptor) string {
	return strings.Join(strings.Fields(f.SourceLocations().ByDescriptor(d).LeadingComments), " ")
}

func stream(yes bool) string {
	if yes {
		return "stream of "
	}
	return ""
}

// grpcName is the name of the kind's code as gRPC writes it.
func grpcName(k fault.Kind) string { return code.Code(k.GRPC()).String() }
