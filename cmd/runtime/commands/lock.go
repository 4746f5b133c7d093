package commands

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// lockOptions are what the lock commands share.
type lockOptions struct {
	*options
	store string
}

// leaseFlags are those of the commands that take a lock.
type leaseFlags struct {
	owner string
	ttl   time.Duration
	wait  time.Duration
}

func (l *leaseFlags) flags(cmd *cobra.Command, length string) {
	cmd.Flags().StringVar(&l.owner, "owner", "", "who asks (default a new name)")
	cmd.Flags().DurationVar(&l.ttl, "ttl", 0, "length of the lease (default "+length+")")
	cmd.Flags().DurationVar(&l.wait, "wait", 0, "wait in line for this long (default not at all)")
}

func lockCommand(o *options) *cobra.Command {
	l := &lockOptions{options: o}
	var lease leaseFlags
	cmd := &cobra.Command{
		Use:   "lock NAME [-- COMMAND [ARG...]]",
		Short: "Take, keep and watch locks",
		Long: `Locks are shared by all apps of the namespace. Each lease has a fencing token that only ever grows:
let what the lock protects refuse a token lower than the last it saw.

"lock NAME -- COMMAND" runs a command while it holds the lock; it is short for "lock hold". Other
subcommands take, renew and give back a lease step by step. A lock that is held by somebody else, or
was lost, is exit code 4.`,
		Example: examples(
			`sidecast lock nightly-report -- ./report.sh            # skipped, with exit code 4, when somebody runs it`,
			`sidecast lock deploy --wait 5m -- make deploy          # waits in line`,
			`eval "$(sidecast lock acquire batch --ttl 5m)"; echo "holding with token $token"`,
			`sidecast lock watch deploy`,
		),
		Args:              l.holdArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return l.holdWhile(cmd, args[0], args[1:], lease)
		},
	}
	lease.flags(cmd, "10s, renewed while it is held")
	cmd.AddCommand(l.hold(), l.acquire(), l.renew(), l.release(), l.watch())
	cmd.PersistentFlags().StringVarP(&l.store, "store", "s", "", "name of the lock component (default lockstore)")
	_ = cmd.RegisterFlagCompletionFunc("store", o.completeComponents("lock"))
	return cmd
}

// call runs one lock command; more is what it may take beyond --timeout.
func (l *lockOptions) call(cmd *cobra.Command, more time.Duration, do func(ctx context.Context, client sidecastv1.LockClient) error) error {
	ctx, cancel := l.within(cmd.Context(), more)
	defer cancel()
	return l.dialedAny(ctx, func(conn *grpc.ClientConn) error { return do(ctx, sidecastv1.NewLockClient(conn)) })
}

// dialedAny runs do with a connection to any sidecar of the machine.
func (o *options) dialedAny(ctx context.Context, do func(*grpc.ClientConn) error) error {
	conn, err := o.connect(ctx, anySidecar)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(conn)
}

// leaseView is a lease in JSON.
type leaseView struct {
	Name  string `json:"name"`
	Owner string `json:"owner"`
	Token uint64 `json:"token"`
	TTL   string `json:"ttl,omitempty"`
}

func viewLease(l *sidecastv1.Lease) leaseView {
	return leaseView{l.GetName(), l.GetOwner(), l.GetToken(), ttl(l.GetTtl())}
}

// printLease prints a lease so that a shell can read it back.
func (l *lockOptions) printLease(cmd *cobra.Command, lease *sidecastv1.Lease) error {
	view := viewLease(lease)
	if l.json() {
		return printJSON(cmd.OutOrStdout(), view)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "name=%s\nowner=%s\ntoken=%d\nttl=%s\n",
		shellQuoted(view.Name), shellQuoted(view.Owner), view.Token, view.TTL)
	return err
}

func (l *lockOptions) acquire() *cobra.Command {
	var lease leaseFlags
	cmd := &cobra.Command{
		Use:   "acquire NAME",
		Short: "Take a lock and leave it taken",
		Long: `Takes a lock, waiting in line up to --wait, and prints the lease as lines that a shell can read.
Nobody renews it: it ends after --ttl unless "lock renew" extends it or "lock release" gives it
back. Prefer "lock NAME -- COMMAND", which does both. Exit code 4: somebody else holds it.`,
		Example: examples(
			`eval "$(sidecast lock acquire batch --ttl 5m)"`,
			`sidecast lock acquire batch --wait 30s -o json`,
		),
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return l.call(cmd, lease.wait, func(ctx context.Context, client sidecastv1.LockClient) error {
				answer, err := client.Acquire(ctx, &sidecastv1.AcquireRequest{
					StoreName: l.store, Name: args[0], Owner: lease.owner, Ttl: optional(lease.ttl), Wait: optional(lease.wait),
				})
				if err != nil {
					return err
				}
				return l.printLease(cmd, answer.Lease)
			})
		},
	}
	lease.flags(cmd, "30s")
	return cmd
}

// holderFlags name a lease that was taken before.
type holderFlags struct {
	owner string
	token uint64
}

func (h *holderFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.owner, "owner", "", "owner of the lease")
	cmd.Flags().Uint64Var(&h.token, "token", 0, "fencing token of the lease")
	_ = cmd.MarkFlagRequired("owner")
	_ = cmd.MarkFlagRequired("token")
}

func (l *lockOptions) renew() *cobra.Command {
	var holder holderFlags
	var life time.Duration
	cmd := &cobra.Command{
		Use:     "renew NAME --owner OWNER --token TOKEN",
		Short:   "Extend a lease",
		Long:    `Extends a lease from now. Exit code 4: the lease ran out, and the lock may be another's.`,
		Example: examples(`sidecast lock renew batch --owner "$owner" --token "$token" --ttl 5m`),
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return l.call(cmd, 0, func(ctx context.Context, client sidecastv1.LockClient) error {
				answer, err := client.Renew(ctx, &sidecastv1.RenewRequest{
					StoreName: l.store, Name: args[0], Owner: holder.owner, Token: holder.token, Ttl: optional(life),
				})
				if err != nil {
					return err
				}
				return l.printLease(cmd, answer.Lease)
			})
		},
	}
	holder.flags(cmd)
	cmd.Flags().DurationVar(&life, "ttl", 0, "new length, from now (default the lease's first length)")
	return cmd
}

func (l *lockOptions) release() *cobra.Command {
	var holder holderFlags
	cmd := &cobra.Command{
		Use:   "release NAME --owner OWNER --token TOKEN",
		Short: "Give a lock back",
		Long: `Gives the lock to the next in line. Exit code 4: the lease had ended before, and the lock may be
another's.`,
		Example: examples(`sidecast lock release batch --owner "$owner" --token "$token"`),
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return l.call(cmd, 0, func(ctx context.Context, client sidecastv1.LockClient) error {
				_, err := client.Release(ctx, &sidecastv1.ReleaseRequest{
					StoreName: l.store, Name: args[0], Owner: holder.owner, Token: holder.token,
				})
				return err
			})
		},
	}
	holder.flags(cmd)
	return cmd
}

func (l *lockOptions) watch() *cobra.Command {
	return &cobra.Command{
		Use:   "watch NAME",
		Short: "Print who holds a lock, now and at each change",
		Long:  `Prints who holds a lock, now and at each change, until it is interrupted. --timeout does not apply.`,
		Example: examples(
			`sidecast lock watch deploy`,
			`sidecast lock watch deploy -o json | jq -r '.lease.owner // "free"'`,
		),
		Args: exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			return l.dialedAny(ctx, func(conn *grpc.ClientConn) error {
				stream, err := sidecastv1.NewLockClient(conn).Watch(ctx, &sidecastv1.LockWatchRequest{StoreName: l.store, Name: args[0]})
				if err != nil {
					return err
				}
				return follow(ctx, stream.Recv, func(event *sidecastv1.LockWatchResponse) error {
					return l.printHolder(cmd, args[0], event)
				})
			})
		},
	}
}

func (l *lockOptions) printHolder(cmd *cobra.Command, name string, event *sidecastv1.LockWatchResponse) error {
	if l.json() {
		var lease *leaseView
		if event.Lease != nil {
			view := viewLease(event.Lease)
			lease = &view
		}
		return printJSON(cmd.OutOrStdout(), struct {
			Name    string     `json:"name"`
			Lease   *leaseView `json:"lease"`
			Waiting int32      `json:"waiting"`
		}{name, lease, event.Waiting})
	}
	line := name + " is free"
	if held := event.Lease; held != nil {
		line = name + " is held by " + held.Owner + " with token " + strconv.FormatUint(held.Token, 10)
	}
	if event.Waiting > 0 {
		line += fmt.Sprintf(", %d waiting", event.Waiting)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
	return err
}
