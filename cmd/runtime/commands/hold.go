package commands

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// lastGasp is what a command gets to end in when its lock is lost or we are interrupted.
const lastGasp = 10 * time.Second

// holdArgs accepts NAME and, after --, a command.
func (l *lockOptions) holdArgs(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0:
		return nil
	case dash == 0:
		return usage(cmd, "NAME is missing before --")
	case dash < 0 && len(args) > 1:
		return usage(cmd, "unexpected argument %q; a command to run follows --", args[1])
	case dash > 1:
		return usage(cmd, "unexpected argument %q", args[1])
	case dash == 1 && len(args) == 1:
		return usage(cmd, "a command is missing after --")
	}
	return nil
}

func (l *lockOptions) hold() *cobra.Command {
	var lease leaseFlags
	cmd := &cobra.Command{
		Use:   "hold NAME [-- COMMAND [ARG...]]",
		Short: "Hold a lock while a command runs, or until interrupted",
		Long: `Takes a lock, waiting in line up to --wait, and holds it while a command runs; the sidecar renews
the lease. Without a command it prints the lease and holds it until it is interrupted. The lock is
free again as soon as this program ends, however it ends.

The command finds SIDECAST_LOCK_NAME, SIDECAST_LOCK_OWNER and SIDECAST_LOCK_TOKEN in its
environment. Should the lease be lost it is asked to end (SIGTERM), killed after ten seconds, and
the exit code is 4; otherwise it is the command's own.`,
		Example: examples(
			`sidecast lock hold nightly-report -- ./report.sh`,
			`sidecast lock hold maintenance --wait 1m --owner "$USER"`,
		),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(cmd, "NAME is missing")
			}
			return l.holdArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return l.holdWhile(cmd, args[0], args[1:], lease) },
	}
	lease.flags(cmd, "10s, renewed while it is held")
	return cmd
}

// holdWhile holds the lock while the command runs, or without one until it is interrupted or lost.
func (l *lockOptions) holdWhile(cmd *cobra.Command, name string, command []string, lease leaseFlags) error {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	return l.dialedAny(ctx, func(conn *grpc.ClientConn) error {
		gotTurn := l.patience(cancel, lease.wait)
		defer gotTurn()
		stream, err := sidecastv1.NewLockClient(conn).Hold(ctx, &sidecastv1.HoldRequest{
			StoreName: l.store, Name: name, Owner: lease.owner, Ttl: optional(lease.ttl), Wait: optional(lease.wait),
		})
		if err != nil {
			return err
		}
		taken, err := stream.Recv()
		switch {
		case context.Cause(ctx) == errLate:
			return fault.New("lock "+name, fault.DeadlineExceeded, "the sidecar did not answer within --wait and --timeout")
		case err != nil:
			return faultgrpc.From(err)
		}
		gotTurn()
		var end error
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, end = stream.Recv() // nothing follows the lease but the end
			cancel(errLost)
		}()
		defer func() { cancel(nil); <-ended }()

		if len(command) > 0 {
			err = runHolding(ctx, cmd, command, taken.Lease)
		} else if err = l.printLease(cmd, taken.Lease); err == nil {
			<-ctx.Done()
		}
		if context.Cause(ctx) == errLost {
			<-ended
			return lockLost(name, faultgrpc.From(end))
		}
		return err
	})
}

// The causes for which the holding of a lock ends: it was lost, or was not taken in time.
var errLost, errLate = errors.New("the lock was lost"), errors.New("no answer in time")

// patience ends everything when the lock is not taken within wait and --timeout; gotTurn says that it was.
func (l *lockOptions) patience(cancel context.CancelCauseFunc, wait time.Duration) (gotTurn func()) {
	if l.timeout == 0 {
		return func() {}
	}
	late := time.AfterFunc(wait+l.timeout, func() { cancel(errLate) })
	return func() { late.Stop() }
}

// lockLost is the error of a hold that the sidecar ended.
func lockLost(name string, cause error) error {
	if fault.ReasonOf(cause) == fault.LockLost {
		return cause
	}
	return fault.New("lock "+name, fault.LockLost, "the sidecar no longer holds the lease: %w", cause)
}

// runHolding runs the command and passes on its exit code.
func runHolding(ctx context.Context, cmd *cobra.Command, command []string, lease *sidecastv1.Lease) error {
	child := exec.CommandContext(ctx, command[0], command[1:]...)
	child.Stdin, child.Stdout, child.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	child.Env = append(os.Environ(),
		"SIDECAST_LOCK_NAME="+lease.GetName(),
		"SIDECAST_LOCK_OWNER="+lease.GetOwner(),
		"SIDECAST_LOCK_TOKEN="+strconv.FormatUint(lease.GetToken(), 10))
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = lastGasp
	err := child.Run()
	var status *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &status) && status.ExitCode() > 0:
		return WithExitCode(status.ExitCode())
	case errors.As(err, &status):
		return &exitError{ExitFailed, fmt.Errorf("%s: %w", command[0], err)}
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return &exitError{127, err}
	case ctx.Err() != nil:
		return &exitError{code: ExitInterrupted}
	}
	return err
}

// shellQuoted is text as one word of a shell.
func shellQuoted(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@", r)
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
