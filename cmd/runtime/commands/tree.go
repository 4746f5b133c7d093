package commands

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func treeCommand(o *options) *cobra.Command {
	var watch bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "tree",
		Short: "Draw the supervision tree of the sidecars, with their lanes",
		Long: `Draws the actors of a sidecar, each under the one that supervises it, with the numbers of each lane:
calls in flight and waiting and how many may be, the breaker and its last failure, what was
admitted, retried, failed and refused since the start, and its policy. Below a lane stands what
calls were refused for, what its rate limits let pass now, and what an operator has told it
("sidecast lane").

Without --app-id all sidecars of this machine are drawn. With --watch the picture is drawn anew
until interrupted.`,
		Example: examples(
			`sidecast tree`,
			`sidecast tree --app-id intake --watch`,
			`sidecast tree --app-id intake -o json | jq '.. | .lane? // empty | select(.breaker and .breaker != "closed")'`,
		),
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval <= 0 {
				return usage(cmd, "--interval %v: must be positive", interval)
			}
			if !watch {
				return o.drawTrees(cmd.Context(), cmd)
			}
			for ctx := cmd.Context(); ; {
				if terminal(cmd) != nil && !o.json() {
					fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J")
				}
				if err := o.drawTrees(ctx, cmd); err != nil && ctx.Err() == nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(interval):
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "draw again and again")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two pictures of --watch")
	return cmd
}

// sidecars are those a command about all of them means: the one of the flags, or all of this machine.
func (o *options) sidecars() ([]string, error) {
	if o.grpcAddress != "" || o.appID != "" {
		address, err := o.address(oneSidecar)
		return []string{address}, err
	}
	entries, err := rundir.List(o.dir())
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, e := range entries {
		addresses = append(addresses, e.GRPCAddress)
	}
	if len(addresses) == 0 { // the environment may name one, and if not the error says what to do
		address, err := o.address(anySidecar)
		return []string{address}, err
	}
	return addresses, nil
}

func (o *options) drawTrees(ctx context.Context, cmd *cobra.Command) error {
	if err := o.check(); err != nil {
		return err
	}
	addresses, err := o.sidecars()
	if err != nil {
		return err
	}
	for i, address := range addresses {
		if i > 0 && !o.json() {
			fmt.Fprintln(cmd.OutOrStdout())
		}
		if err := o.drawTree(ctx, cmd, address); err != nil {
			return err
		}
	}
	return nil
}

func (o *options) drawTree(ctx context.Context, cmd *cobra.Command, address string) error {
	ctx, cancel := o.within(ctx, 0)
	defer cancel()
	conn, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := sidecastv1.NewRuntimeClient(conn)
	who, err := client.Describe(ctx, &sidecastv1.DescribeRequest{})
	if err != nil {
		return err
	}
	tree, err := client.Tree(ctx, &sidecastv1.TreeRequest{})
	if err != nil {
		return err
	}
	if o.json() {
		return printJSON(cmd.OutOrStdout(), struct {
			AppID    string   `json:"appId"`
			Instance string   `json:"instance"`
			Root     nodeView `json:"root"`
		}{who.AppId, who.Instance, viewNode(tree.Root)})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", paint(cmd, bold, who.AppId),
		paint(cmd, faint, fmt.Sprintf("instance %s, pid %d, fabric %s, app by %s", who.Instance, who.Pid, who.Fabric, who.AppChannel)))
	drawing{paint: func(code, text string) string { return paint(cmd, code, text) }}.draw(cmd.OutOrStdout(), tree.Root)
	return nil
}

// drawing draws a tree: names at the left, the rest in columns beside them.
type drawing struct {
	paint func(code, text string) string
	width int
}

func (d drawing) draw(w io.Writer, root *sidecastv1.TreeNode) {
	d.width = d.measure(root, 0)
	d.node(w, root, "", "", 0)
}

// measure is the width of the names with their branches.
func (d drawing) measure(n *sidecastv1.TreeNode, depth int) int {
	width := 3*depth + utf8.RuneCountInString(n.GetName())
	for _, child := range n.GetChildren() {
		width = max(width, d.measure(child, depth+1))
	}
	return width
}

// node draws a node behind lead and those below it behind under.
func (d drawing) node(w io.Writer, n *sidecastv1.TreeNode, lead, under string, depth int) {
	padding := strings.Repeat(" ", max(0, d.width-3*depth-utf8.RuneCountInString(n.GetName())))
	line := d.paint(faint, lead) + n.GetName() + padding + "  " + d.state(n) + d.lane(n.GetLane())
	fmt.Fprintln(w, strings.TrimRight(line, " "))
	for _, more := range d.details(n.GetLane()) {
		padding := strings.Repeat(" ", d.width+2-utf8.RuneCountInString(under))
		fmt.Fprintln(w, d.paint(faint, under)+padding+more)
	}
	for i, child := range n.GetChildren() {
		branch, beside := "├─ ", "│  "
		if i == len(n.GetChildren())-1 {
			branch, beside = "└─ ", "   "
		}
		d.node(w, child, under+branch, under+beside, depth+1)
	}
}

// state is the node's state, with its restarts.
func (d drawing) state(n *sidecastv1.TreeNode) string {
	color := yellow
	if n.GetState() == "running" {
		color = green
	}
	text := d.paint(color, fmt.Sprintf("%-10s", n.GetState()))
	if n.GetRestarts() > 0 {
		text += d.paint(yellow, fmt.Sprintf("  restarted %d×", n.GetRestarts()))
	}
	return text
}

// nodeView is a node of the tree in JSON.
type nodeView struct {
	Name     string     `json:"name"`
	Kind     string     `json:"kind"`
	State    string     `json:"state"`
	Restarts int32      `json:"restarts"`
	Lane     *laneView  `json:"lane,omitempty"`
	Children []nodeView `json:"children,omitempty"`
}

func viewNode(n *sidecastv1.TreeNode) nodeView {
	view := nodeView{Name: n.GetName(), Kind: n.GetKind(), State: n.GetState(), Restarts: n.GetRestarts()}
	if l := n.GetLane(); l != nil {
		view.Lane = viewLane(l)
	}
	for _, child := range n.GetChildren() {
		view.Children = append(view.Children, viewNode(child))
	}
	return view
}
