package grpcapi

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

type lockServer struct {
	sidecastv1.UnimplementedLockServer
	lock *blocks.Lock
}

func (s *lockServer) Acquire(ctx context.Context, in *sidecastv1.AcquireRequest) (*sidecastv1.AcquireResponse, error) {
	ttl, err := leaseLength("lock: acquire", in.GetTtl())
	if err != nil {
		return nil, err
	}
	lease, err := s.lock.Acquire(ctx, blocks.LockRequest{
		Component: in.GetStoreName(), Name: in.GetName(), Owner: in.GetOwner(), TTL: ttl, Wait: in.GetWait().AsDuration(),
	})
	if err != nil {
		return nil, err
	}
	return &sidecastv1.AcquireResponse{Lease: leaseTo(lease)}, nil
}

func (s *lockServer) Renew(ctx context.Context, in *sidecastv1.RenewRequest) (*sidecastv1.RenewResponse, error) {
	ttl, err := leaseLength("lock: renew", in.GetTtl())
	if err != nil {
		return nil, err
	}
	held := lock.Lease{Name: in.GetName(), Owner: in.GetOwner(), Token: in.GetToken()}
	lease, err := s.lock.Renew(ctx, in.GetStoreName(), held, ttl)
	if err != nil {
		return nil, err
	}
	return &sidecastv1.RenewResponse{Lease: leaseTo(lease)}, nil
}

func (s *lockServer) Release(ctx context.Context, in *sidecastv1.ReleaseRequest) (*sidecastv1.ReleaseResponse, error) {
	held := lock.Lease{Name: in.GetName(), Owner: in.GetOwner(), Token: in.GetToken()}
	return &sidecastv1.ReleaseResponse{}, s.lock.Release(ctx, in.GetStoreName(), held)
}

func (s *lockServer) Hold(in *sidecastv1.HoldRequest, stream sidecastv1.Lock_HoldServer) error {
	ttl, err := leaseLength("lock: hold", in.GetTtl())
	if err != nil {
		return err
	}
	request := blocks.LockRequest{
		Component: in.GetStoreName(), Name: in.GetName(), Owner: in.GetOwner(), TTL: ttl, Wait: in.GetWait().AsDuration(),
	}
	return s.lock.Hold(stream.Context(), request, func(lease lock.Lease) error {
		return stream.Send(&sidecastv1.HoldResponse{Lease: leaseTo(lease)})
	})
}

func (s *lockServer) Watch(in *sidecastv1.LockWatchRequest, stream sidecastv1.Lock_WatchServer) error {
	return s.lock.Watch(stream.Context(), in.GetStoreName(), in.GetName(), func(status lock.Status) error {
		out := &sidecastv1.LockWatchResponse{Waiting: int32(status.Waiting)}
		if status.Lease != nil {
			out.Lease = leaseTo(*status.Lease)
		}
		return stream.Send(out)
	})
}

// leaseLength tells an absent ttl (0, the default) from one that was given and makes no sense.
func leaseLength(op string, ttl *durationpb.Duration) (time.Duration, error) {
	if ttl == nil {
		return 0, nil
	}
	if d := ttl.AsDuration(); d > 0 {
		return d, nil
	}
	return 0, fault.New(op, fault.LeaseShort, "the ttl is %s; leave it out or give a positive one", ttl.AsDuration())
}

func leaseTo(lease lock.Lease) *sidecastv1.Lease {
	return &sidecastv1.Lease{
		Name: lease.Name, Owner: lease.Owner, Token: lease.Token, Ttl: durationpb.New(time.Until(lease.Expires)),
	}
}
