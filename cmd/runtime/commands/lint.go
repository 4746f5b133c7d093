package commands

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/fault"
)

// Finding is one thing that is wrong in a file, or worth knowing about it.
type Finding struct {
	// File and Line are where; line 0 means the whole file.
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	// Key is the path to what is meant: spec.metadata.dir.
	Key string `json:"key,omitempty"`
	// Severity is `error` for what makes the folder unusable, `warning` for the rest.
	Severity string `json:"severity"`
	// Message says what is wrong, Suggestion is the nearest valid word, or "".
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
}

func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	fmt.Fprintf(&b, ": %s: ", f.Severity)
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	b.WriteString(f.Message)
	if f.Suggestion != "" {
		fmt.Fprintf(&b, "; did you mean %q?", f.Suggestion)
	}
	return b.String()
}

// Explanation says in words how the calls to a target are guarded.
type Explanation struct {
	Target string `json:"target"`
	Policy string `json:"policy"`
}

func lintCommand(o *options) *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "lint DIR...",
		Short: "Check folders of components, policies and other resources",
		Long: `Reads the YAML files of folders as a sidecar would and prints everything there is to say about them,
each with its file, line and key. Where policies are right it says in words what they do to the
calls of each target, defaults included. It opens no backend and looks no secret up. Exit code 2:
something is wrong.`,
		Example: examples(
			`sidecast lint ./components`,
			`sidecast lint --strict ./components -o json`,
		),
		Args: minArgs("DIR"),
		RunE: func(cmd *cobra.Command, paths []string) error {
			for _, path := range paths {
				if _, err := os.Stat(path); err != nil {
					return fault.New("lint", fault.FlagInvalid, "%w", err)
				}
			}
			bad := 0
			findings, said := o.deps.Lint(paths)
			for _, f := range findings {
				if strict || f.Severity == "error" {
					bad++
				}
				if o.json() {
					if err := printJSON(cmd.OutOrStdout(), f); err != nil {
						return err
					}
				} else {
					fmt.Fprintln(cmd.OutOrStdout(), f)
				}
			}
			for _, e := range said {
				if o.json() {
					if err := printJSON(cmd.OutOrStdout(), e); err != nil {
						return err
					}
				} else {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", e.Target, e.Policy)
				}
			}
			if bad > 0 {
				return fault.New("lint "+strings.Join(paths, " "), fault.BadManifest, "%d of %d findings must be corrected", bad, len(findings))
			}
			if !o.json() {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: no errors\n", strings.Join(paths, ", "))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "count warnings as errors")
	return cmd
}
