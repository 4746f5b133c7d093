package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// localSidecar is a sidecar of this machine, and what it says of itself.
type localSidecar struct {
	rundir.Entry
	// State is `ready`, `not ready` or `does not answer`.
	State    string   `json:"state"`
	Problems []string `json:"problems,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Fabric   string   `json:"fabric,omitempty"`

	seen []*sidecastv1.InstanceStatus
}

// instanceView is an instance on the fabric in JSON.
type instanceView struct {
	AppID    string    `json:"appId"`
	Instance string    `json:"instance"`
	Host     string    `json:"host"`
	PID      int32     `json:"pid"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Load     int32     `json:"load"`
	Ready    bool      `json:"ready"`
}

func statusCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Aliases: []string{"ps"},
		Short:   "Show who runs on this machine and on the fabric",
		Long: `Shows the sidecars of this machine, each with its state, and the instances of all apps that they see
on the fabric, on whatever machine. That nobody runs is an answer, not an error.

GRPC is where apps and commands reach a sidecar, DAPR HTTP and DAPR GRPC where it serves Dapr's API,
METRICS the port of its /healthz, /readyz, /metrics and /tree. FABRIC says how it takes part:
"embedded host" serves the fabric of this machine, "embedded guest" has joined it; "sidecast run"
with a command or a file hosts it for its sidecars.
READY on the fabric says that the instance takes calls: a sidecar is up without its app, but others
call it only when the app listens or has dialled in.`,
		Example: examples(
			`sidecast status`,
			`sidecast status -o json | jq -r '.fabric[] | select(.ready | not) | .appId'`,
		),
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			ctx, cancel := o.within(cmd.Context(), 0)
			defer cancel()
			local, err := o.localSidecars(ctx)
			if err != nil {
				return err
			}
			fabric := onFabric(local)
			if o.json() {
				return printJSON(cmd.OutOrStdout(), struct {
					Machine []*localSidecar `json:"machine"`
					Fabric  []instanceView  `json:"fabric"`
				}{local, fabric})
			}
			return o.printStatus(cmd.OutOrStdout(), local, fabric)
		},
	}
}

// localSidecars asks the sidecars that the flags mean, all of this machine if they name none, each at the same time.
func (o *options) localSidecars(ctx context.Context) ([]*localSidecar, error) {
	entries, err := rundir.List(o.dir())
	if err != nil {
		return nil, err
	}
	if o.grpcAddress != "" {
		entries = []rundir.Entry{{GRPCAddress: o.grpcAddress}}
	}
	local := []*localSidecar{}
	var asking sync.WaitGroup
	for _, e := range entries {
		if o.appID != "" && o.grpcAddress == "" && e.AppID != o.appID {
			continue
		}
		s := &localSidecar{Entry: e}
		local = append(local, s)
		asking.Go(func() { s.ask(ctx) })
	}
	asking.Wait()
	return local, nil
}

// ask fills in what the sidecar says of itself.
func (s *localSidecar) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := s.describe(ctx)
	if err != nil {
		s.State = "does not answer"
		var e *fault.Error
		if errors.As(err, &e) && fault.KindOf(err) == fault.Denied {
			s.State = "denied"
		}
		s.Problems = []string{describe(err).Message}
	}
}

func (s *localSidecar) describe(ctx context.Context) error {
	conn, err := dial(ctx, s.GRPCAddress)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := sidecastv1.NewRuntimeClient(conn)
	who, err := client.Describe(ctx, &sidecastv1.DescribeRequest{})
	if err != nil {
		return err
	}
	health, err := client.Health(ctx, &sidecastv1.HealthRequest{})
	if err != nil {
		return err
	}
	s.AppID, s.Instance, s.PID, s.Version = who.AppId, who.Instance, int(who.Pid), who.Version
	s.Fabric, s.seen, s.Problems, s.Warnings = who.Fabric, who.Instances, health.Problems, who.Warnings
	if who.Started != nil {
		s.Started = who.Started.AsTime()
	}
	s.State = "ready"
	if !health.Ready {
		s.State = "not ready"
	}
	return nil
}

// onFabric is every instance that any of the sidecars sees, once.
func onFabric(local []*localSidecar) []instanceView {
	all := []instanceView{}
	for _, s := range local {
		for _, i := range s.seen {
			all = append(all, instanceView{i.AppId, i.Instance, i.Host, i.Pid, i.Version, i.Started.AsTime(), i.Load, i.Ready})
		}
	}
	byName := func(a, b instanceView) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.Instance, b.Instance))
	}
	slices.SortStableFunc(all, byName)
	return slices.CompactFunc(all, func(a, b instanceView) bool { return byName(a, b) == 0 })
}

func (o *options) printStatus(w io.Writer, local []*localSidecar, fabric []instanceView) error {
	if len(local) == 0 {
		who := "No sidecar"
		if o.appID != "" {
			who += " of app " + o.appID
		}
		_, err := fmt.Fprintf(w, "%s runs on this machine (looked in %s).\nStart one with `sidecast run`.\n", who, o.dir())
		return err
	}
	fmt.Fprintln(w, "On this machine")
	columns := []string{"APP", "INSTANCE", "STATE", "PID", "GRPC", "METRICS", "UP", "VERSION", "FABRIC"}
	withDapr := slices.ContainsFunc(local, func(s *localSidecar) bool { return s.DaprHTTPAddress != "" })
	if withDapr {
		columns = slices.Insert(columns, 5, "DAPR HTTP", "DAPR GRPC")
	}
	t := newTable(w, columns...)
	for _, s := range local {
		row := []string{s.AppID, s.Instance, s.State, strconv.Itoa(s.PID), s.GRPCAddress, port(s.AdminAddress), age(s.Started), s.Version, s.Fabric}
		if withDapr {
			row = slices.Insert(row, 5, cmp.Or(port(s.DaprHTTPAddress), "-"), cmp.Or(port(s.DaprGRPCAddress), "-"))
		}
		t.row(row...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, s := range local {
		for _, problem := range slices.Concat(s.Problems, s.Warnings) {
			fmt.Fprintf(w, "  ! %s: %s\n", s.AppID, strings.TrimSpace(problem))
		}
	}
	fmt.Fprintln(w, "\nOn the fabric")
	t = newTable(w, "APP", "INSTANCE", "READY", "LOAD", "HOST", "PID", "UP", "VERSION")
	for _, i := range fabric {
		ready := "yes"
		if !i.Ready {
			ready = "no"
		}
		t.row(i.AppID, i.Instance, ready, strconv.Itoa(int(i.Load)), i.Host, strconv.Itoa(int(i.PID)), age(i.Started), i.Version)
	}
	return t.flush()
}

// port is the port of an address, which is on this machine anyhow.
func port(address string) string {
	if _, port, err := net.SplitHostPort(address); err == nil {
		return ":" + port
	}
	return address
}
