package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidecast/sidecast/cmd/runtime/supervisor"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
)

// newRun is `sidecast run`: a sidecar alone, an app beside its sidecar, or all the apps of a file.
func newRun(exit func(code int)) *cobra.Command {
	c := &config{}
	var file, output string
	var sidecarLogs bool
	command := &cobra.Command{
		Use:   "run [flags] [-- COMMAND ARGS…]",
		Short: "Run a sidecar, an app beside its sidecar, or all the apps of a file",
		Long: `Run apps beside their sidecars.

With a command after --, the app runs beside a sidecar of its own: the sidecar starts first and is started again when it
dies; when the app ends, so does the run, with the app's exit code. Ctrl-C stops both gracefully and a second Ctrl-C at
once. The app finds its sidecar by SIDECAST_GRPC_PORT: where a default port is taken, by the sidecar of another app say,
any free one is used.

With -f FILE, all the apps of the file run, each beside its own sidecar, with one merged log. An app that fails is
started again, with back-off. The sidecars of a file called dapr.yaml serve Dapr's API: see "sidecast dapr run --help".

With neither, only the sidecar runs, in this process: that is how it is started by systemd, Kubernetes and the like.

Without --fabric the sidecars of a machine share a fabric that is embedded in this program: the first one hosts it, and
when it leaves another takes it over. Without --app-port an app dials its sidecar; with it the sidecar calls the app.`,
		Example: `  sidecast run --app-id hello --app-port 8080 -- python3 -m http.server 8080
  sidecast run -f sidecast.yaml
  sidecast run --app-id orders --fabric nats://n1,nats://n2 --fabric-creds orders.creds`,
		RunE: func(command *cobra.Command, args []string) error {
			outliveReaders()
			switch {
			case file != "" && len(args) > 0:
				return fault.New("run", fault.FlagInvalid, "-f and a command exclude each other: name the command in the file")
			case file != "":
				plan, err := loadPlan(file, false)
				if err != nil {
					return err
				}
				return supervise(command.Flags(), c, plan, output, sidecarLogs, exit)
			case len(args) > 0:
				if looksLikeRunFile(command, args) {
					return fault.New("run", fault.FlagInvalid, "%s is no command; to run the apps of a file: sidecast run -f %[1]s", args[0])
				}
				if err := c.requireAppID(); err != nil {
					return err
				}
				choosePorts(command.Flags(), c)
				return supervise(command.Flags(), c, supervisor.Plan{Apps: []supervisor.App{singleApp(c, args)}}, output, sidecarLogs, exit)
			default:
				return runSidecar(command.Context(), c)
			}
		},
	}
	c.flags(command.Flags())
	command.Flags().StringVarP(&file, "run-file", "f", "", "file that lists the apps to run")
	command.Flags().StringVarP(&output, "output", "o", "text", "how the merged log is written: text or json")
	command.Flags().BoolVar(&sidecarLogs, "sidecar-logs", false, "show the sidecars' whole logs, not only warnings and errors")
	completeRunFlags(command)
	return command
}

// loadPlan reads a run file and shows the notes to it. See supervisor.Load.
func loadPlan(file string, dapr bool) (supervisor.Plan, error) {
	plan, notes, err := supervisor.Load(file, dapr)
	for _, note := range notes {
		fmt.Fprintln(os.Stderr, note)
	}
	return plan, err
}

// outliveReaders makes writing to a log that nobody reads any more an error of the write. Otherwise SIGPIPE would end the
// process: a sidecar whose supervisor was killed, and a supervisor whose Ctrl-C, in `sidecast run … | tee log`, has ended
// tee first.
func outliveReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// looksLikeRunFile reports whether -f was forgotten.
func looksLikeRunFile(command *cobra.Command, args []string) bool {
	ext := filepath.Ext(args[0])
	return len(args) == 1 && command.ArgsLenAtDash() < 0 && (ext == ".yaml" || ext == ".yml")
}

// choosePorts lets the sidecar take any free port where its default is taken, by the sidecar of another app most likely:
// the app is told the port, and commands find it in the run directory. A port that was asked for is insisted on.
func choosePorts(given *pflag.FlagSet, c *config) {
	for flag, port := range map[string]*int{"grpc-port": &c.GRPCPort, "metrics-port": &c.MetricsPort} {
		if !given.Changed(flag) && !supervisor.Free(*port) {
			*port = 0
		}
	}
}

// completeRunFlags tells shells what the flags take.
func completeRunFlags(command *cobra.Command) {
	for flag, values := range map[string][]string{
		"app-protocol": {"http", "grpc"}, "fabric-sync": {"interval", "always"}, "log-format": {"text", "json"},
		"log-level": {"debug", "info", "warn", "error"}, "output": {"text", "json"},
	} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	for _, folder := range []string{"resources-path", "data-dir"} {
		_ = command.MarkFlagDirname(folder)
	}
	_ = command.MarkFlagFilename("run-file", "yaml", "yml")
	command.Flags().VisitAll(func(f *pflag.Flag) {
		switch f.Value.Type() {
		case "int", "duration":
			_ = command.RegisterFlagCompletionFunc(f.Name, cobra.NoFileCompletions)
		}
	})
	for _, flag := range []string{"app-id", "instance", "namespace", "listen-address", "max-body", "app-health-check-path", "fabric"} {
		_ = command.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
}

func singleApp(c *config, args []string) supervisor.App {
	return supervisor.App{
		ID: c.AppID, Command: args, Stdin: os.Stdin, Port: c.AppPort, Protocol: c.AppProtocol, Namespace: c.Namespace,
		ResourcesPaths: c.Resources, Main: true, MaxConcurrency: c.AppMaxConcurrency,
		GRPCPort: c.GRPCPort, MetricsPort: c.MetricsPort,
		Health: supervisor.HealthCheck{
			Enabled: c.AppHealth, Path: c.AppHealthPath, Interval: c.AppHealthInterval, Timeout: c.AppHealthTimeout,
			Threshold: c.AppHealthThreshold,
		},
	}
}

// supervise hosts the embedded fabric, so that no sidecar has to, and keeps the apps of the plan and their sidecars running.
func supervise(given *pflag.FlagSet, c *config, plan supervisor.Plan, output string, sidecarLogs bool, exit func(int)) error {
	if output != string(supervisor.Text) && output != string(supervisor.JSON) {
		return fault.New("--output", fault.FlagInvalid, "%q is neither text nor json", output)
	}
	own := *c
	if own.AppID == "" {
		own.AppID = "run"
	}
	if err := own.complete(); err != nil {
		return err
	}
	ctx, kill, release := supervisor.Signals(context.Background())
	defer release()
	plan.Voice = &supervisor.Voice{}
	host, err := hostFabric(ctx, &own, plan.Voice)
	if err != nil {
		return err
	}
	plan.Kill, plan.Grace, plan.SidecarLogs, plan.Format = kill, own.GracePeriod, sidecarLogs, supervisor.Format(output)
	plan.Color = supervisor.WantsColor(os.Stdout)
	plan.SidecarArgs = func(app supervisor.App) []string { return sidecarArgs(given, &own, app) }
	code, err := supervisor.Run(ctx, plan)
	if host != nil {
		closing, cancel := context.WithTimeout(context.Background(), own.GracePeriod)
		defer cancel()
		if e := host.Close(closing); e != nil {
			fmt.Fprintln(os.Stderr, "the embedded fabric did not close in time:", e)
		}
	}
	if err == nil && code != 0 {
		exit(code)
	}
	return err
}

// hostFabric serves the embedded fabric from the supervisor, which lives longer than any sidecar.
func hostFabric(ctx context.Context, c *config, voice io.Writer) (*fabric.Fabric, error) {
	if c.Fabric != "" {
		return nil, nil
	}
	// While the run stops, the sidecar that hosts may go first: that is no news.
	log := slog.New(while{ctx, slog.NewTextHandler(voice, &slog.HandlerOptions{Level: slog.LevelWarn})})
	return c.openFabric(ctx, log)
}

// while is a log that is silent once ctx has ended.
type while struct {
	ctx context.Context
	slog.Handler
}

// Enabled reports whether there is still somebody to tell.
func (w while) Enabled(ctx context.Context, level slog.Level) bool {
	return w.ctx.Err() == nil && w.Handler.Enabled(ctx, level)
}

// WithAttrs and WithGroup keep the silence.
func (w while) WithAttrs(attrs []slog.Attr) slog.Handler {
	return while{w.ctx, w.Handler.WithAttrs(attrs)}
}

func (w while) WithGroup(name string) slog.Handler { return while{w.ctx, w.Handler.WithGroup(name)} }

// notForSidecars are the flags that a supervisor keeps to itself, or sets for each app.
var notForSidecars = map[string]bool{
	"run-file": true, "output": true, "sidecar-logs": true, "instance": true, "grpc-socket": true,
	"app-id": true, "app-port": true, "app-protocol": true, "app-max-concurrency": true, "namespace": true,
	"grpc-port": true, "metrics-port": true, "resources-path": true, "log-level": true,
	"enable-app-health-check": true, "app-health-check-path": true, "app-health-probe-interval": true,
	"app-health-probe-timeout": true, "app-health-threshold": true,
}

// sidecarArgs makes the command line of one sidecar: what the app's entry says, and the flags that hold for all.
func sidecarArgs(given *pflag.FlagSet, c *config, app supervisor.App) []string {
	args := []string{"run", "--exit-with-parent", "--app-id", app.ID, "--data-dir", c.DataDir}
	config, interval, timeout := "resources-path", app.Health.Interval.String(), app.Health.Timeout.String()
	if app.Dapr {
		args[0], config = "daprd", "config"
		interval, timeout = strconv.Itoa(int(app.Health.Interval.Seconds())), strconv.Itoa(int(app.Health.Timeout.Milliseconds()))
		args = append(args, "--dapr-http-port", strconv.Itoa(app.DaprHTTPPort), "--dapr-grpc-port", strconv.Itoa(app.DaprGRPCPort))
		args = append(args, app.DaprFlags...)
	}
	add := func(flag, value string) {
		if value != "" && value != "0" && value != "0s" {
			args = append(args, "--"+flag, value)
		}
	}
	add("app-port", strconv.Itoa(app.Port))
	add("app-protocol", app.Protocol)
	add("app-max-concurrency", strconv.Itoa(app.MaxConcurrency))
	if !app.Dapr { // whose namespace is in its environment
		add("namespace", or(app.Namespace, c.readsOf()))
	}
	args = append(args, "--grpc-port", strconv.Itoa(app.GRPCPort), "--metrics-port", strconv.Itoa(app.MetricsPort))
	level := or(app.LogLevel, "info")
	if given.Changed("log-level") {
		level = c.LogLevel
	}
	add("log-level", level)
	paths := app.ResourcesPaths
	if len(paths) == 0 {
		paths = c.Resources
	}
	for _, path := range paths {
		add("resources-path", path)
	}
	if app.Dapr && len(paths) == 0 {
		args = append(args, "--built-in-components")
	}
	add(config, app.ConfigFile)
	if app.Health.Enabled {
		args = append(args, "--enable-app-health-check")
		add("app-health-check-path", app.Health.Path)
		add("app-health-probe-interval", interval)
		add("app-health-probe-timeout", timeout)
		add("app-health-threshold", strconv.Itoa(app.Health.Threshold))
	}
	given.Visit(func(f *pflag.Flag) {
		if !notForSidecars[f.Name] && f.Name != "data-dir" && (!app.Dapr || slices.Contains(hostFlags, f.Name)) {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}
