package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

// The exit codes. They are part of the interface: scripts branch on them.
const (
	ExitOK          = 0   // done
	ExitFailed      = 1   // failed in a way that no other code tells
	ExitUsage       = 2   // a flag, an argument or an input file is wrong: trying again will not help
	ExitNotFound    = 3   // the key, method or component named does not exist
	ExitConflict    = 4   // the lock is held or was lost, or the ETag no longer matches
	ExitUnavailable = 5   // no sidecar, no instance, a breaker or a limit: trying again later may help
	ExitTimeout     = 6   // time was up; the work may or may not have been done
	ExitDenied      = 7   // the caller may not do this
	ExitInterrupted = 130 // Ctrl-C
)

// exitCodes are the documentation of the codes, and the help topic's text.
var exitCodes = []struct {
	code int
	doc  string
}{
	{ExitOK, "done"},
	{ExitFailed, "failed in a way that no other code tells; also: the app answered with an error"},
	{ExitUsage, "a flag, an argument or an input file is wrong: trying again will not help"},
	{ExitNotFound, "the key, method or component named does not exist"},
	{ExitConflict, "the lock is held or was lost, or the ETag no longer matches"},
	{ExitUnavailable, "no sidecar, no instance, an open breaker or a limit: trying again later may help"},
	{ExitTimeout, "time was up; the work may or may not have been done"},
	{ExitDenied, "the caller may not do this: a missing or wrong token, or a component's scopes"},
	{ExitInterrupted, "interrupted by Ctrl-C"},
}

// exitCodeOf maps each kind of error to a code.
var exitCodeOf = map[fault.Kind]int{
	fault.None:        ExitOK,
	fault.Invalid:     ExitUsage,
	fault.NotFound:    ExitNotFound,
	fault.Conflict:    ExitConflict,
	fault.Denied:      ExitDenied,
	fault.Exhausted:   ExitUnavailable,
	fault.Unavailable: ExitUnavailable,
	fault.Tripped:     ExitUnavailable,
	fault.Timeout:     ExitTimeout,
	fault.Canceled:    ExitInterrupted,
	fault.Unsupported: ExitUsage,
	fault.Internal:    ExitFailed,
}

// ExitCode is the code for the error of a command.
func ExitCode(err error) int {
	var own *exitError
	if errors.As(err, &own) {
		return own.code
	}
	return exitCodeOf[fault.KindOf(faultgrpc.From(err))]
}

// exitError ends a command with a code of its own. Without an err there is nothing to print: all has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// WithExitCode makes an error that ends the program with that code and prints nothing more: for a command that passes on
// the end of another program.
func WithExitCode(code int) error {
	if code == ExitOK {
		return nil
	}
	return &exitError{code: code}
}

// usageError is an error of the command line itself.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(cmd *cobra.Command, format string, args ...any) error {
	return &exitError{ExitUsage, &usageError{cmd, fmt.Errorf(format, args...)}}
}

func unknownCommand(cmd *cobra.Command, word string) error {
	text := fmt.Sprintf("there is no command %q", cmd.CommandPath()+" "+word)
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		text += fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
	}
	return usage(cmd, "%s", text)
}

// Execute runs the command line, prints the error there may be on standard error and returns the code to exit with.
func Execute(ctx context.Context, root *cobra.Command) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%w", err) })
	if !root.Runnable() {
		group(root)
	}
	ran := false
	noteRuns(root, &ran)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	var own *exitError
	if !ran && !errors.As(err, &own) { // cobra itself refused the command or its arguments
		err = usage(cmd, "%w", err)
	}
	if ctx.Err() != nil && ExitCode(err) == ExitInterrupted {
		return ExitInterrupted // the user knows
	}
	report(cmd.ErrOrStderr(), err, wantsJSON(cmd))
	return ExitCode(err)
}

// noteRuns makes each command of the tree set ran when its own work begins.
func noteRuns(cmd *cobra.Command, ran *bool) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*ran = true
			return run(cmd, args)
		}
	}
	for _, child := range cmd.Commands() {
		noteRuns(child, ran)
	}
}

func wantsJSON(cmd *cobra.Command) bool {
	flag := cmd.Flags().Lookup(outputFlag)
	return flag != nil && flag.Value.String() == string(jsonOutput)
}

func exitCodesTopic() *cobra.Command {
	var b strings.Builder
	writeExitCodes(&b)
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long:  "Every command ends with one of these codes; `lock NAME -- COMMAND` and `run` pass on that of the program they ran.\n\n" + b.String(),
	}
}

func writeExitCodes(w io.Writer) {
	for _, row := range exitCodes {
		fmt.Fprintf(w, "  %-4d %s\n", row.code, row.doc)
	}
}

func environmentTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "environment",
		Short: "Environment variables that Sidecast reads",
		Long: `Flags win over the environment.

  SIDECAST_DATA_DIR        folder for all data, and where running sidecars are recorded (default ~/.local/state/sidecast,
                           on macOS ~/Library/Application Support/sidecast, on Windows below %LocalAppData%)
  SIDECAST_GRPC_ENDPOINT   host:port of the sidecar to talk to; an app that ` + "`sidecast run`" + ` started has it, so commands
                           that an app or its scripts run go to the app's own sidecar
  SIDECAST_API_TOKEN       token that the sidecar asks for; never printed, and not a flag so that it does not show in
                           lists of processes
  APP_API_TOKEN            token that a sidecar sends to its app on --app-port, so that the app knows it
  OTEL_EXPORTER_OTLP_ENDPOINT and the other standard OTEL_ variables: where a sidecar sends traces; none without
  NO_COLOR                 any value: no colours
`,
	}
}
