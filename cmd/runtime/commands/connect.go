package commands

import (
	"context"
	"errors"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/cmd/runtime/rundir"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
)

const (
	tokenEnv    = "SIDECAST_API_TOKEN"
	endpointEnv = "SIDECAST_GRPC_ENDPOINT"
	// tokenHeader is the metadata key of the token.
	tokenHeader = "sidecast-api-token"
	// largestMessage bounds what a command reads at once; the sidecar's own --max-body is what counts.
	largestMessage = 1 << 30
)

// whose says whether it matters which sidecar of the machine a command talks to.
type whose bool

const (
	anySidecar whose = false // the answer is the same from each, as for invoking another app
	oneSidecar whose = true  // state keys and components belong to one app
)

// connect finds the sidecar that the flags mean and connects to it. The caller closes the connection.
func (o *options) connect(ctx context.Context, which whose) (*grpc.ClientConn, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	address, err := o.address(which)
	if err != nil {
		return nil, err
	}
	return dial(ctx, address)
}

// address is where the sidecar that the flags and the environment mean listens.
func (o *options) address(which whose) (string, error) {
	switch endpoint := os.Getenv(endpointEnv); {
	case o.grpcAddress != "":
		return o.grpcAddress, nil
	case o.appID != "":
		entry, err := rundir.Find(o.dir(), o.appID)
		return entry.GRPCAddress, err
	case endpoint != "":
		return endpoint, nil
	}
	entries, err := rundir.List(o.dir())
	if err != nil {
		return "", err
	}
	const op = "find sidecar"
	if len(entries) == 0 {
		return "", fault.New(op, fault.SidecarNotFound, "no sidecar runs on this machine (looked in %s)", o.dir())
	}
	apps := localApps(entries)
	if len(apps) > 1 && which == oneSidecar {
		return "", fault.New(op, fault.FlagInvalid, "several sidecars run on this machine; choose one with --app-id: %s",
			strings.Join(apps, ", "))
	}
	return entries[0].GRPCAddress, nil
}

// localApps are the different app ids of entries, which are sorted.
func localApps(entries []rundir.Entry) []string {
	var apps []string
	for _, e := range entries {
		apps = append(apps, e.AppID)
	}
	return slices.Compact(apps)
}

// dial connects to a sidecar and fails at once when nobody listens there.
func dial(ctx context.Context, address string) (*grpc.ClientConn, error) {
	op := "connect to the sidecar at " + address
	if !strings.Contains(address, ":/") { // unix: addresses are left to gRPC
		probe, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			if ctx.Err() != nil {
				return nil, fault.FromContext(op, ctx, "a connection")
			}
			return nil, fault.New(op, fault.SidecarNotFound, "nobody listens there: %w", err)
		}
		_ = probe.Close()
	}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(), // retrying is the sidecar's business
		grpc.WithUnaryInterceptor(unaryToken), grpc.WithStreamInterceptor(streamToken),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessage), grpc.MaxCallSendMsgSize(largestMessage)))
	if err != nil {
		return nil, fault.E(op, fault.Invalid, fault.FlagInvalid, err)
	}
	return conn, nil
}

// withToken adds the token of the environment to a call.
func withToken(ctx context.Context) context.Context {
	if token := os.Getenv(tokenEnv); token != "" {
		return metadata.AppendToOutgoingContext(ctx, tokenHeader, token)
	}
	return ctx
}

func unaryToken(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(withToken(ctx), method, req, reply, cc, opts...)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && status.Convert(err).Message() == context.DeadlineExceeded.Error() {
		return fault.New(strings.ToLower(path.Base(method)), fault.DeadlineExceeded,
			"no answer came within --timeout; `sidecast tree` shows which lanes wait")
	}
	return faultgrpc.From(err)
}

func streamToken(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := stream(withToken(ctx), desc, cc, method, opts...)
	return s, faultgrpc.From(err)
}
