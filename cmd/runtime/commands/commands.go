// Package commands holds the commands of `sidecast` that talk to a running sidecar: invoke, publish, state, lock, tree, lane,
// status and components, and those that need none: lint and version. Each is a thin client of the native gRPC API
// (sdk/proto/sidecast/v1), finds the sidecars of its machine in package rundir, prints text for people or JSON for
// programs, and ends with a documented code.
//
// The package decides nothing about the runtime: what it needs to know of components it is given.
//
//	root.AddCommand(commands.New(commands.Deps{Catalogue: catalogue, Lint: lint})...)
//	os.Exit(commands.Execute(ctx, root))
package commands

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	"github.com/sidecast/sidecast/fault"
)

// Deps is what the commands are given.
type Deps struct {
	// Catalogue knows every type of component there is; nil means none are known.
	Catalogue Catalogue
	// Lint checks files and folders of resources and says in words what their policies do; nil leaves the command out.
	Lint func(paths []string) ([]Finding, []Explanation)
	// Version, Commit and Date are of the build; empty ones are read from the program's build information.
	Version, Commit, Date string
}

// New makes the commands, ready to be added to the root.
func New(deps Deps) []*cobra.Command {
	o := &options{deps: deps}
	all := []*cobra.Command{
		invokeCommand(o), publishCommand(o), stateCommand(o), lockCommand(o),
		treeCommand(o), laneCommand(o), statusCommand(o), componentsCommand(o),
	}
	for _, cmd := range all {
		o.addSidecarFlags(cmd)
	}
	if deps.Lint != nil {
		all = append(all, lintCommand(o))
	}
	all = append(all, versionCommand(o))
	for _, cmd := range all {
		o.addOutputFlag(cmd)
	}
	return append(all, exitCodesTopic(), environmentTopic())
}

// options are the flags that commands share.
type options struct {
	deps        Deps
	appID       string
	grpcAddress string
	dataDir     string
	timeout     time.Duration
	output      outputFormat
}

const defaultTimeout = 10 * time.Second

func (o *options) addSidecarFlags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&o.appID, "app-id", "", "talk to the sidecar of this app; needed when several run on this machine")
	flags.StringVar(&o.grpcAddress, "grpc-address", "", "talk to the sidecar at host:port instead of one that --app-id names")
	flags.StringVar(&o.dataDir, "data-dir", "", "data directory of the sidecars (default $SIDECAST_DATA_DIR or your state folder)")
	flags.DurationVar(&o.timeout, "timeout", defaultTimeout, "give up after this long; 0 waits for ever")
	_ = cmd.RegisterFlagCompletionFunc("app-id", o.completeLocalApps)
	_ = cmd.RegisterFlagCompletionFunc("grpc-address", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
}

func (o *options) addOutputFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().VarP(&o.output, outputFlag, "o", "how to print: text, or json with one object a line")
	_ = cmd.RegisterFlagCompletionFunc(outputFlag, cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// dir is the data directory to look for sidecars in.
func (o *options) dir() string {
	if o.dataDir != "" {
		return o.dataDir
	}
	return rundir.DefaultDataDir()
}

// within bounds ctx by --timeout, and what else the command may take.
func (o *options) within(ctx context.Context, more time.Duration) (context.Context, context.CancelFunc) {
	if o.timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, o.timeout+more)
}

// check reports shared flags that cannot be.
func (o *options) check() error {
	if o.timeout < 0 {
		return fault.New("--timeout", fault.FlagInvalid, "%v is negative", o.timeout)
	}
	return nil
}

// group makes a command that only holds others.
func group(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	cmd.AddCommand(children...)
	return cmd
}
