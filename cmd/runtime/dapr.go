package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidecast/sidecast/cmd/runtime/supervisor"
	"github.com/sidecast/sidecast/fault"
)

// newDaprCommand is `sidecast dapr`: the command line of Dapr, as far as it is about running apps.
func newDaprCommand(exit func(code int)) *cobra.Command {
	command := &cobra.Command{
		Use:   "dapr",
		Short: "Run apps with the words of Dapr's command line",
		Long: `Runs apps beside sidecars with Dapr's API, with the words of Dapr's command line. A program called dapr that is a copy of,
or a link to, sidecast does the same.

Of other commands of Dapr's it says what takes their place.`,
		Args:               cobra.ArbitraryArgs,
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true}, // those of the other commands
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 {
				return command.Help()
			}
			if instead := insteadOf[args[0]]; instead != "" {
				return fault.New("dapr "+args[0], fault.FlagInvalid, "there is no such command here: %s", instead)
			}
			return fault.New("dapr "+args[0], fault.FlagInvalid, "there is no such command here; `dapr run` is")
		},
	}
	command.AddCommand(newDaprRun(exit))
	return command
}

// insteadOf tells what takes the place of other commands of Dapr's.
var insteadOf = map[string]string{
	"init":      "nothing has to be set up, `dapr run` goes at once",
	"uninstall": "nothing was set up",
	"stop":      "Ctrl-C ends a run, and so does a SIGTERM to its process",
	"list":      "`sidecast status` lists who runs",
	"status":    "`sidecast status` lists who runs",
	"invoke":    "`sidecast invoke APP METHOD` calls an app",
	"publish":   "`sidecast publish TOPIC` publishes",
	"dashboard": "`sidecast status` and `sidecast tree` show what runs",
}

// shorthands are the short flags of `dapr run`.
var shorthands = map[string]string{
	"app-id": "a", "app-port": "p", "app-protocol": "P", "config": "c", "dapr-http-port": "H", "dapr-grpc-port": "G",
	"dapr-internal-grpc-port": "I", "metrics-port": "M", "resources-path": "d", "unix-domain-socket": "u",
}

// notForRuns are flags of daprd that have it do something else than run.
var notForRuns = []string{"version", "build-info", "wait"}

func newDaprRun(exit func(code int)) *cobra.Command {
	var d daprFlags
	var file, output string
	var sidecarLogs bool
	command := &cobra.Command{
		Use:   "run [flags] [COMMAND ARGS…]",
		Short: "Run an app beside a sidecar with Dapr's API, or all the apps of a dapr.yaml",
		Long: `Runs an app beside a sidecar that serves Dapr's API, with the flags of "dapr run", or with -f all the apps of a template
such as dapr.yaml. The app finds its sidecar by DAPR_HTTP_PORT and DAPR_GRPC_PORT.

Where no resources are named, those of ~/.dapr/components count, and the Configuration in ~/.dapr/config.yaml. Where there
is no such folder the app has a statestore, a pubsub and a lockstore that need nothing installed.`,
		Example: `  sidecast dapr run --app-id orders --app-port 8080 -- node app.js
  sidecast dapr run -f .`,
		RunE: func(command *cobra.Command, args []string) error {
			outliveReaders()
			var plan supervisor.Plan
			var err error
			switch {
			case file != "" && len(args) > 0:
				err = fault.New("dapr run", fault.FlagInvalid, "-f and a command exclude each other: name the command in the file")
			case file != "":
				plan, err = loadPlan(file, true)
			default:
				plan, err = d.plan(command.Flags(), args)
			}
			if err != nil {
				return err
			}
			if d.host.LogLevel = strings.ToLower(d.logLevel); d.host.LogLevel == "fatal" {
				d.host.LogLevel = "error" // as daprd takes it
			}
			d.host.FabricPort = 0 // as of a daprd: who shares the data folder shares the fabric
			return supervise(command.Flags(), &d.host, plan, output, sidecarLogs, exit)
		},
	}
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	d.declare(all)
	for _, m := range meaninglessFlags {
		_ = all.MarkHidden(m.name)
	}
	all.VisitAll(func(f *pflag.Flag) {
		if planned[f.Name] != nil || f.Name == "log-level" || f.Name == "profile-port" {
			f.DefValue = "" // a run has others than daprd
		}
		if !slices.Contains(notForRuns, f.Name) {
			f.Shorthand = shorthands[f.Name]
			command.Flags().AddFlag(f)
		}
	})
	command.Flags().SetInterspersed(false)
	command.Flags().StringVarP(&file, "run-file", "f", "", "template that lists the apps to run, or the folder of a dapr.yaml")
	command.Flags().StringVarP(&output, "output", "o", "text", "how the merged log is written: text or json")
	command.Flags().BoolVar(&sidecarLogs, "sidecar-logs", false, "show the sidecar's whole log, not only warnings and errors")
	return command
}

// planned are the flags of `dapr run` that the plan says, with their place in it; the sidecar gets the others as they are.
var planned = map[string]func(*supervisor.App) *int{
	"app-id": nil, "app-protocol": nil, "log-level": nil, "resources-path": nil, "components-path": nil,
	"app-port":       func(a *supervisor.App) *int { return &a.Port },
	"dapr-http-port": func(a *supervisor.App) *int { return &a.DaprHTTPPort },
	"dapr-grpc-port": func(a *supervisor.App) *int { return &a.DaprGRPCPort },
	"metrics-port":   func(a *supervisor.App) *int { return &a.MetricsPort },
}

// plan is an app beside its sidecar. Ports that are not given are any free ones, and an app without an id has that of its
// folder.
func (d *daprFlags) plan(given *pflag.FlagSet, command []string) (supervisor.Plan, error) {
	app := supervisor.App{
		ID: d.appID, Command: command, Stdin: os.Stdin, Main: true, Dapr: true, Protocol: strings.ToLower(d.appProtocol),
		Namespace: os.Getenv("NAMESPACE"), ResourcesPaths: d.resources,
	}
	if app.ID == "" {
		folder, err := os.Getwd()
		if err != nil {
			return supervisor.Plan{}, err
		}
		app.ID = filepath.Base(folder)
	}
	if d.apiLogging {
		app.LogLevel = "info" // so that it is seen
	}
	for name, port := range planned {
		if port == nil || !given.Changed(name) {
			continue
		}
		n, err := strconv.Atoi(given.Lookup(name).Value.String())
		if err != nil {
			return supervisor.Plan{}, fault.New("--"+name, fault.FlagInvalid, "%w", err)
		}
		*port(&app) = max(0, n)
	}
	if len(app.ResourcesPaths) == 0 && d.componentsPath != "" {
		app.ResourcesPaths = []string{d.componentsPath}
	}
	resources, config := supervisor.DaprHome()
	if len(app.ResourcesPaths) == 0 {
		app.ResourcesPaths = resources
	}
	if len(d.config) == 0 {
		app.ConfigFile = config
	}
	if d.profiling && !given.Changed("profile-port") {
		app.DaprFlags = append(app.DaprFlags, "--profile-port=0") // any free one
	}
	given.Visit(func(f *pflag.Flag) {
		if _, ok := planned[f.Name]; ok || slices.Contains(hostFlags, f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, value := range values {
			app.DaprFlags = append(app.DaprFlags, "--"+f.Name+"="+value)
		}
	})
	return supervisor.Plan{Apps: []supervisor.App{app}}, nil
}
