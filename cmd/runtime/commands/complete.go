package commands

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// completionTimeout is what a shell waits for completions that a sidecar must be asked for.
const completionTimeout = time.Second

// completeLocalApps completes the app ids of the sidecars of this machine.
func (o *options) completeLocalApps(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	entries, _ := rundir.List(o.dir())
	return localApps(entries), cobra.ShellCompDirectiveNoFileComp
}

// completeFabricApps completes the first argument with the app ids on the fabric.
func (o *options) completeFabricApps(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var apps []string
	if len(args) == 0 {
		for _, i := range o.describeSidecar(completing(cmd)).GetInstances() {
			apps = append(apps, i.AppId)
		}
		slices.Sort(apps)
	}
	return slices.Compact(apps), cobra.ShellCompDirectiveNoFileComp
}

// completeComponents completes the names of the components of a block.
func (o *options) completeComponents(block string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, c := range o.describeSidecar(completing(cmd)).GetComponents() {
			if strings.HasPrefix(c.Type, block+".") {
				names = append(names, c.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeKeys completes the first keys that start with what was typed.
func (s *stateOptions) completeKeys(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	const most = 50
	ctx, cancel := context.WithTimeout(completing(cmd), completionTimeout)
	defer cancel()
	conn, err := s.connect(ctx, oneSidecar)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer conn.Close()
	answer, _ := sidecastv1.NewStateClient(conn).List(ctx, &sidecastv1.ListRequest{
		StoreName: s.store, Prefix: typed, PageSize: most, KeysOnly: true,
	})
	var keys []string
	for _, item := range answer.GetItems() {
		if !slices.Contains(args, item.Key) {
			keys = append(keys, item.Key)
		}
	}
	return keys, cobra.ShellCompDirectiveNoFileComp
}

// completing is the context of a completion; cobra gives it none in some versions.
func completing(cmd *cobra.Command) context.Context {
	if ctx := cmd.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}
