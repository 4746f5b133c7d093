package commands

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func laneCommand(o *options) *cobra.Command {
	return group(&cobra.Command{
		Use:   "lane",
		Short: "See and steer the lanes of a sidecar",
		Long: `A lane stands before everything a sidecar calls: app/NAME before another app, state/NAME,
pubsub/NAME and lock/NAME before a component, sub/PUBSUB/TOPIC before a subscription, app before
the local app. It decides which calls may run, wait or are refused. These commands tell it
otherwise while it runs.

What a lane is told holds at once, through changes of its policy's file and through restarts of the
lane, until it is told otherwise, "lane reset" takes it back, or the sidecar ends. "sidecast tree"
shows it, and the sidecar writes a line with audit=true to its log.`,
	}, laneList(o), laneBreaker(o), laneLimit(o),
		laneAdmission(o, "pause", "paused", "Let calls wait instead of run", `Calls that come wait in the lane's queue until "lane resume" or their deadlines; more than the queue
has room for are refused with QUEUE_FULL. Calls that run go on.`),
		laneDrain(o),
		laneAdmission(o, "resume", "admitting", "Let calls in again", `Ends "lane pause" and "lane drain": calls that wait run, and new ones are taken.`),
		laneReset(o))
}

func laneList(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the lanes with their policies and numbers",
		Long: `Lists the lanes of a sidecar, one a line: policy, calls in flight and waiting of as many as may be,
breaker, calls refused, and what an operator has told it. "sidecast tree" shows more of each.`,
		Example: examples(`sidecast lane list --app-id intake`, `sidecast lane list -o json | jq 'select(.breaker and .breaker != "closed").name'`),
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.askRuntime(cmd, func(ctx context.Context, client sidecastv1.RuntimeClient) error {
				lanes, err := lanesOf(ctx, client)
				if err != nil {
					return err
				}
				return o.printLanes(cmd, lanes)
			})
		},
	}
}

func (o *options) printLanes(cmd *cobra.Command, lanes []*sidecastv1.TreeNode) error {
	if o.json() {
		for _, n := range lanes {
			err := printJSON(cmd.OutOrStdout(), struct {
				Name     string `json:"name"`
				State    string `json:"state"`
				Restarts int32  `json:"restarts"`
				*laneView
			}{n.Name, n.State, n.Restarts, viewLane(n.Lane)})
			if err != nil {
				return err
			}
		}
		return nil
	}
	t := newTable(cmd.OutOrStdout(), "LANE", "STATE", "POLICY", "IN FLIGHT", "WAITING", "BREAKER", "REFUSED", "OPERATOR")
	for _, n := range lanes {
		l := n.Lane
		t.row(n.Name, n.State, l.Policy, of(l.InFlight, l.InFlightLimit), of(l.Queued, l.QueueLimit), l.Breaker, count(l.Refused), told(l))
	}
	return t.flush()
}

func laneBreaker(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "breaker LANE open|closed|auto",
		Short: "Hold a breaker open or closed, or let it follow its policy",
		Long: `Holds the breaker of a lane in a state, whatever its calls do:

  open    no call passes; each is refused with BREAKER_OPEN. For a target that must be left alone
  closed  every call passes. For a target that the breaker is wrong about
  auto    the breaker follows its policy again, closed at first`,
		Example: examples(`sidecast lane breaker app/pricing open`, `sidecast lane breaker app/pricing auto`),
		Args:    exactArgs("LANE", "open, closed or auto"),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return []string{"open", "closed", "auto"}, cobra.ShellCompDirectiveNoFileComp
			}
			return o.completeLanes(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.steer(cmd, &sidecastv1.SteerLaneRequest{
				Lane: args[0], Order: &sidecastv1.SteerLaneRequest_Breaker{Breaker: args[1]},
			})
		},
	}
}

func laneLimit(o *options) *cobra.Command {
	var inFlight, queue int32
	rates := map[string]string{}
	cmd := &cobra.Command{
		Use:   "limit LANE [--in-flight N] [--queue N] [--rate NAME=CALLS/TIME]...",
		Short: "Change how many calls a lane lets run, wait and pass",
		Long: `Changes limits of a lane's policy; those that no flag names stay. Either all that is asked for is
changed, or nothing. Calls that run or wait already are not touched.

--rate takes the name of a rate limit of the policy, as "sidecast tree" shows it, and calls per
time: 10/1s, 600/m, 1/500ms.`,
		Example: examples(
			`sidecast lane limit app/pricing --in-flight 16 --queue 64`,
			`sidecast lane limit app/pricing --rate per-caller=5/s`,
			`sidecast lane reset app/pricing`,
		),
		Args:              exactArgs("LANE"),
		ValidArgsFunction: o.completeLanes,
		RunE: func(cmd *cobra.Command, args []string) error {
			limits := &sidecastv1.LaneLimits{Rates: rates}
			if cmd.Flags().Changed("in-flight") {
				limits.InFlight = &inFlight
			}
			if cmd.Flags().Changed("queue") {
				limits.Queue = &queue
			}
			if limits.InFlight == nil && limits.Queue == nil && len(rates) == 0 {
				return usage(cmd, "nothing to change: give --in-flight, --queue or --rate")
			}
			return o.steer(cmd, &sidecastv1.SteerLaneRequest{Lane: args[0], Order: &sidecastv1.SteerLaneRequest_Limits{Limits: limits}})
		},
	}
	cmd.Flags().Int32Var(&inFlight, "in-flight", 0, "most calls in flight; 0: no limit")
	cmd.Flags().Int32Var(&queue, "queue", 0, "most calls that wait")
	cmd.Flags().StringToStringVar(&rates, "rate", nil, "what a rate limit of the policy admits: `NAME=CALLS/TIME` (may be given more than once)")
	cmd.Flags().Lookup("rate").DefValue = "" // else help says that it is []
	return cmd
}

func laneAdmission(o *options, verb, admission, short, long string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " LANE",
		Short:             short,
		Long:              long,
		Example:           examples(`sidecast lane ` + verb + ` app/pricing`),
		Args:              exactArgs("LANE"),
		ValidArgsFunction: o.completeLanes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.steer(cmd, &sidecastv1.SteerLaneRequest{
				Lane: args[0], Order: &sidecastv1.SteerLaneRequest_Admission{Admission: admission},
			})
		},
	}
}

func laneDrain(o *options) *cobra.Command {
	wait := false
	cmd := laneAdmission(o, "drain", "drained", "Refuse new calls and let those that run end", `New calls are refused with LANE_DRAINING, which tells a caller that nothing was done. Calls that
run or wait go on; with --wait the command returns when none is left, or fails when --timeout is
over. "lane resume" lets calls in again.`)
	cmd.Example = examples(`sidecast lane drain app/pricing`, `sidecast lane drain state/statestore --wait --timeout 1m`)
	steer := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := steer(cmd, args); err != nil || !wait {
			return err
		}
		return o.askRuntime(cmd, func(ctx context.Context, client sidecastv1.RuntimeClient) error {
			return awaitEmpty(ctx, client, args[0])
		})
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "return when no call runs or waits in it any more")
	return cmd
}

// awaitEmpty returns when no call is in a lane any more.
func awaitEmpty(ctx context.Context, client sidecastv1.RuntimeClient, name string) error {
	for left := int32(1); left > 0; {
		lanes, err := lanesOf(ctx, client)
		switch {
		case err == nil:
			left = 0
		case ctx.Err() == nil && fault.KindOf(err) != fault.Timeout: // the sidecar may find so a moment before
			return err
		}
		for _, n := range lanes {
			if n.Name == name {
				left = n.Lane.InFlight + n.Lane.Queued
			}
		}
		select {
		case <-ctx.Done():
			return fault.FromContext("drain lane "+name, ctx, strconv.Itoa(int(left))+" calls to end; it stays drained")
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func laneReset(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "reset LANE",
		Short: "Take back all that a lane was told",
		Long: `Takes back all that operators have told a lane: its limits are those of its policy again, its
breaker follows the policy, and calls are let in.`,
		Example:           examples(`sidecast lane reset app/pricing`),
		Args:              exactArgs("LANE"),
		ValidArgsFunction: o.completeLanes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.steer(cmd, &sidecastv1.SteerLaneRequest{
				Lane: args[0], Order: &sidecastv1.SteerLaneRequest_ResetAll{ResetAll: &sidecastv1.LaneReset{}},
			})
		},
	}
}

// steer gives an order and prints what it changed.
func (o *options) steer(cmd *cobra.Command, order *sidecastv1.SteerLaneRequest) error {
	return o.askRuntime(cmd, func(ctx context.Context, client sidecastv1.RuntimeClient) error {
		answer, err := client.SteerLane(ctx, order)
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		if o.json() {
			changes := viewChanges(answer.Changes)
			if changes == nil {
				changes = []changeView{}
			}
			return printJSON(out, struct {
				Lane    string       `json:"lane"`
				Changes []changeView `json:"changes"`
			}{order.Lane, changes})
		}
		if len(answer.Changes) == 0 {
			_, err = fmt.Fprintf(out, "%s: nothing to change\n", order.Lane)
		}
		for _, c := range answer.Changes {
			text := c.From + " → " + c.To
			if c.From == c.To {
				text = c.To + ", as it was"
			}
			_, err = fmt.Fprintf(out, "%s: %s %s\n", order.Lane, c.What, text)
		}
		return err
	})
}

// askRuntime runs do against the one sidecar meant.
func (o *options) askRuntime(cmd *cobra.Command, do func(ctx context.Context, client sidecastv1.RuntimeClient) error) error {
	ctx, cancel := o.within(cmd.Context(), 0)
	defer cancel()
	return o.dialed(ctx, func(conn *grpc.ClientConn) error { return do(ctx, sidecastv1.NewRuntimeClient(conn)) })
}

// lanesOf are the lanes of a sidecar.
func lanesOf(ctx context.Context, client sidecastv1.RuntimeClient) ([]*sidecastv1.TreeNode, error) {
	tree, err := client.Tree(ctx, &sidecastv1.TreeRequest{})
	if err != nil {
		return nil, err
	}
	var lanes []*sidecastv1.TreeNode
	var walk func(*sidecastv1.TreeNode)
	walk = func(n *sidecastv1.TreeNode) {
		if n.GetLane() != nil {
			lanes = append(lanes, n)
		}
		for _, child := range n.GetChildren() {
			walk(child)
		}
	}
	walk(tree.Root)
	return lanes, nil
}

// completeLanes completes the first argument with the names of lanes.
func (o *options) completeLanes(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	var names []string
	ctx, cancel := context.WithTimeout(completing(cmd), completionTimeout)
	defer cancel()
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_ = o.dialed(ctx, func(conn *grpc.ClientConn) error {
		lanes, err := lanesOf(ctx, sidecastv1.NewRuntimeClient(conn))
		for _, n := range lanes {
			if strings.HasPrefix(n.Name, typed) {
				names = append(names, n.Name)
			}
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}
