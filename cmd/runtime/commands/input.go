package commands

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/fault"
)

// input is where a command's body comes from: --data, --data-file or standard input.
type input struct {
	data, file string
}

func (in *input) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&in.data, "data", "d", "", "the body; without it and --data-file it is read from standard input, if something is piped in")
	cmd.Flags().StringVarP(&in.file, "data-file", "f", "", "read the body from this file; - is standard input")
	cmd.MarkFlagsMutuallyExclusive("data", "data-file")
}

// read returns the body.
func (in *input) read(ctx context.Context, cmd *cobra.Command) ([]byte, error) {
	switch {
	case cmd.Flags().Changed("data"):
		return []byte(in.data), nil
	case in.file != "" && in.file != "-":
		body, err := os.ReadFile(in.file)
		if err != nil {
			return nil, fault.New("--data-file", fault.FlagInvalid, "%w", err)
		}
		return body, nil
	case in.file == "-" || piped(cmd.InOrStdin()):
		return readAll(ctx, cmd.InOrStdin())
	}
	return nil, nil
}

// piped reports whether somebody has put something on standard input: a pipe, a file, but no terminal or null device.
func piped(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return true
	}
	info, err := f.Stat()
	return err == nil && (info.Mode().IsRegular() || info.Mode()&os.ModeNamedPipe != 0)
}

// readAll reads to the end, but no longer than ctx lasts: a pipe may be inherited from somebody who never writes. The
// reader that is then left behind ends with the program.
func readAll(ctx context.Context, r io.Reader) ([]byte, error) {
	type result struct {
		body []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		body, err := io.ReadAll(r)
		done <- result{body, err}
	}()
	select {
	case got := <-done:
		if got.err != nil {
			return nil, fault.New("read standard input", fault.FlagInvalid, "%w", got.err)
		}
		return got.body, nil
	case <-ctx.Done():
		return nil, fault.FromContext("read standard input", ctx, "its end; give the body with --data, or --data '' for none")
	}
}

// pairs turns k=v (or k: v) arguments into a map.
func pairs(cmd *cobra.Command, flag string, args []string) (map[string]string, error) {
	var all map[string]string
	for _, arg := range args {
		at := strings.IndexAny(arg, "=:")
		if at <= 0 {
			return nil, usage(cmd, "--%s %q: must be name=value", flag, arg)
		}
		if all == nil {
			all = make(map[string]string)
		}
		all[strings.ToLower(strings.TrimSpace(arg[:at]))] = strings.TrimSpace(arg[at+1:])
	}
	return all, nil
}

// exactArgs asks for arguments by name, exactArgs("APP", "METHOD"), or for none.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usage(cmd, "%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return usage(cmd, "unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// minArgs asks for at least one of the last named argument.
func minArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usage(cmd, "%s is missing", names[len(args)])
		}
		return nil
	}
}

// examples indents the lines of a command's examples as cobra expects them.
func examples(lines ...string) string {
	for i, line := range lines {
		lines[i] = fmt.Sprintf("  %s", line)
	}
	return strings.Join(lines, "\n")
}
