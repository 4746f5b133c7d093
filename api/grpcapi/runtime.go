package grpcapi

import (
	"context"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

type runtimeServer struct {
	sidecastv1.UnimplementedRuntimeServer
	runtime *blocks.Runtime
	token   bool // whoever is let in brought it
}

func (s *runtimeServer) Describe(context.Context, *sidecastv1.DescribeRequest) (*sidecastv1.DescribeResponse, error) {
	d := s.runtime.Describe()
	out := &sidecastv1.DescribeResponse{
		AppId: d.Self.AppID, Instance: d.Self.Instance, Namespace: d.Self.Namespace, Version: d.Self.Version,
		Started: timestamppb.New(d.Started), Pid: int32(d.PID), Fabric: d.Fabric, AppChannel: d.AppChannel, Warnings: d.Warnings,
	}
	for _, c := range d.Components {
		out.Components = append(out.Components, &sidecastv1.ComponentStatus{
			Name: c.Name, Type: c.Type, State: c.State, Error: c.Error, Origin: c.Origin,
		})
	}
	for _, i := range d.Instances {
		out.Instances = append(out.Instances, &sidecastv1.InstanceStatus{
			AppId: i.App, Instance: i.ID, Version: i.Version, Host: i.Host, Pid: int32(i.PID),
			Started: timestamppb.New(i.Started), Load: int32(i.Load), Ready: i.Ready,
		})
	}
	for _, sub := range d.Subscriptions {
		out.Subscriptions = append(out.Subscriptions, &sidecastv1.SubscriptionStatus{
			PubsubName: sub.Subscription.PubSub, Topic: sub.Subscription.Topic, Group: sub.Subscription.Group,
			State: sub.State, InFlight: int32(sub.InFlight),
		})
	}
	return out, nil
}

func (s *runtimeServer) Health(context.Context, *sidecastv1.HealthRequest) (*sidecastv1.HealthResponse, error) {
	problems := s.runtime.Problems()
	return &sidecastv1.HealthResponse{Live: true, Ready: len(problems) == 0, Problems: problems}, nil
}

func (s *runtimeServer) Tree(ctx context.Context, _ *sidecastv1.TreeRequest) (*sidecastv1.TreeResponse, error) {
	return &sidecastv1.TreeResponse{Root: nodeTo(s.runtime.Tree(ctx))}, nil
}

func (s *runtimeServer) SteerLane(ctx context.Context, in *sidecastv1.SteerLaneRequest) (*sidecastv1.SteerLaneResponse, error) {
	who := blocks.Operator{Door: "grpc", Token: s.token}
	if p, ok := peer.FromContext(ctx); ok {
		who.Peer = p.Addr.String()
	}
	changes, err := s.runtime.Steer(who, orderFrom(in))
	if err != nil {
		return nil, err
	}
	return &sidecastv1.SteerLaneResponse{Changes: changesTo(changes)}, nil
}

func (s *runtimeServer) Shutdown(context.Context, *sidecastv1.ShutdownRequest) (*sidecastv1.ShutdownResponse, error) {
	s.runtime.Shutdown()
	return &sidecastv1.ShutdownResponse{}, nil
}

func nodeTo(n actors.Node) *sidecastv1.TreeNode {
	out := &sidecastv1.TreeNode{Name: n.Name, Kind: n.Kind, State: n.State, Restarts: int32(n.Restarts)}
	if n.Lane != nil {
		out.Lane = laneTo(n.Lane)
	}
	for _, child := range n.Children {
		out.Children = append(out.Children, nodeTo(child))
	}
	return out
}

func laneTo(l *actors.LaneStatus) *sidecastv1.LaneStatus {
	out := &sidecastv1.LaneStatus{
		Policy: l.Policy, InFlight: int32(l.InFlight), InFlightLimit: int32(l.InFlightLimit),
		Queued: int32(l.Queued), QueueLimit: int32(l.QueueLimit),
		Admitted: l.Admitted, Refused: l.Refused, Failed: l.Failed, Retried: l.Retried,
		Breaker: l.Breaker, BreakerReason: l.BreakerReason, Endpoints: int32(l.Endpoints),
	}
	if l.BreakerOpensIn > 0 {
		out.BreakerOpensIn = durationpb.New(l.BreakerOpensIn.Round(time.Millisecond))
	}
	for reason, n := range l.RefusedFor {
		if out.RefusedFor == nil {
			out.RefusedFor = make(map[string]uint64, len(l.RefusedFor))
		}
		out.RefusedFor[string(reason)] = n
	}
	out.Overridden, out.Admission, out.BreakerForced = changesTo(l.Overridden), string(l.Admission), l.BreakerForced
	out.BreakerShare, out.Hedged, out.Fallbacks = l.BreakerShare, l.Hedged, l.Fallbacks
	if l.AttemptTimeout > 0 {
		out.AttemptTimeout = durationpb.New(l.AttemptTimeout)
	}
	if l.RestLatency > 0 {
		out.RestLatency = durationpb.New(l.RestLatency)
	}
	out.Shedding, out.Cpu, out.Memory = l.Shedding, l.Pressure.CPU, l.Pressure.Memory
	limitsTo(out, l)
	return out
}

func limitsTo(out *sidecastv1.LaneStatus, l *actors.LaneStatus) {
	for i := range l.Limits {
		limit := &l.Limits[i]
		view := &sidecastv1.RateLimitStatus{
			Name: limit.Name, Algorithm: string(limit.Algorithm), Rate: limit.Rate().String(), By: string(limit.By),
			Keys: int32(limit.Keys), State: limit.State, Refused: limit.Refused,
		}
		if limit.Header != "" {
			view.By += " " + limit.Header
		}
		if limit.Remaining != nil {
			view.Remaining = new(int32(*limit.Remaining))
		}
		if limit.Scope == "global" {
			view.Share = &limit.Share
		}
		out.Limits = append(out.Limits, view)
	}
}

func changesTo(changes []actors.Change) []*sidecastv1.LaneChange {
	out := make([]*sidecastv1.LaneChange, len(changes))
	for i, c := range changes {
		out[i] = &sidecastv1.LaneChange{What: c.What, From: c.From, To: c.To}
	}
	return out
}

func orderFrom(in *sidecastv1.SteerLaneRequest) blocks.Order {
	o := blocks.Order{Lane: in.Lane, Breaker: in.GetBreaker(), Admission: in.GetAdmission(), Reset: in.GetResetAll() != nil}
	if l := in.GetLimits(); l != nil {
		o.Limits = &blocks.Limits{Rates: l.Rates}
		if l.InFlight != nil {
			o.Limits.InFlight = new(int(*l.InFlight))
		}
		if l.Queue != nil {
			o.Limits.Queue = new(int(*l.Queue))
		}
	}
	return o
}

type appServer struct {
	sidecastv1.UnimplementedAppServer
	hub *appchannel.Hub
}

func (s *appServer) Serve(stream sidecastv1.App_ServeServer) error {
	if s.hub == nil {
		return fault.New("serve", fault.NotSupported, "this sidecar reaches its app by callback; start it without --app-port to serve by stream")
	}
	return s.hub.Serve(stream)
}
