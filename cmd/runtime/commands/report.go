package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

// failure is an error as -o json prints it on standard error.
type failure struct {
	Message    string            `json:"message"`
	Kind       string            `json:"kind"`
	Reason     string            `json:"reason,omitempty"`
	RetryAfter string            `json:"retryAfter,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Remedy     string            `json:"remedy,omitempty"`
	ExitCode   int               `json:"exitCode"`
}

// report prints an error for people, or as one JSON object.
func report(w io.Writer, err error, asJSON bool) {
	var own *exitError
	if errors.As(err, &own) && own.err == nil {
		return
	}
	f := describe(err)
	if asJSON {
		line, _ := json.Marshal(map[string]failure{"error": f})
		fmt.Fprintf(w, "%s\n", line)
		return
	}
	fmt.Fprintf(w, "Error: %s\n", f.Message)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "  %-12s %s\n", name, text)
		}
	}
	if f.Reason != "" {
		row("reason", f.Reason+" ("+f.Kind+")")
	}
	row("retry after", f.RetryAfter)
	row("what to do", f.Remedy)
	var misuse *usageError
	if errors.As(err, &misuse) && misuse.cmd != nil {
		fmt.Fprintf(w, "See `%s --help`.\n", misuse.cmd.CommandPath())
	}
}

// describe takes an error apart.
func describe(err error) failure {
	err = faultgrpc.From(err)
	reason := fault.ReasonOf(err)
	f := failure{
		Message: strings.TrimSuffix(err.Error(), " ["+string(reason)+"]"),
		Kind:    fault.KindOf(err).String(), Reason: string(reason), ExitCode: ExitCode(err),
	}
	var misuse *usageError
	if errors.As(err, &misuse) && reason == "" {
		f.Kind = fault.Invalid.String()
	}
	if after := fault.RetryAfter(err); after > 0 {
		f.RetryAfter = after.Round(time.Millisecond).String()
	}
	var e *fault.Error
	if errors.As(err, &e) {
		f.Metadata = e.Meta
	}
	all := fault.Reasons()
	if at := slices.IndexFunc(all, func(entry fault.Entry) bool { return entry.Reason == reason }); at >= 0 {
		f.Remedy = all[at].Remedy
	}
	return f
}
