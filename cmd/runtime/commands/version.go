package commands

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what is known of how the program was built.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Date     string `json:"date,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// build tells what the program is: what the linker was told, and else what the Go toolchain recorded.
func (d Deps) build() build {
	b := build{Version: d.Version, Commit: d.Commit, Date: d.Date, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		b.Version = cmp.Or(b.Version, "unknown")
		return b
	}
	b.Version = cmp.Or(b.Version, info.Main.Version, "(devel)")
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Commit = cmp.Or(b.Commit, setting.Value)
		case "vcs.time":
			b.Date = cmp.Or(b.Date, setting.Value)
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	return b
}

func versionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Long: `Prints the version, the commit and date it was built from, and the Go version and platform it was
built for.`,
		Example: examples(`sidecast version`, `sidecast version -o json | jq -r .version`),
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := o.deps.build()
			if o.json() {
				return printJSON(cmd.OutOrStdout(), b)
			}
			text := "sidecast " + b.Version
			if b.Commit != "" {
				text += " commit " + b.Commit[:min(12, len(b.Commit))]
				if b.Modified {
					text += " (modified)"
				}
			}
			if b.Date != "" {
				text += " of " + b.Date
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s, %s %s\n", text, b.Go, b.Platform)
			return err
		},
	}
}
