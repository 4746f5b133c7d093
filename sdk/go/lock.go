package sidecast

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// Lock is a lock component: mutual exclusion between apps, as leases with a fencing token.
type Lock struct {
	client *Client
	name   string
}

// Lock is the lock component of that name; "" is the default one.
func (c *Client) Lock(name string) *Lock { return &Lock{c, name} }

// Lease is the right to a lock for a while.
type Lease struct {
	// Name is the lock's, Owner the holder's.
	Name, Owner string
	// Token is greater than that of every lease of this lock before: what the lock protects should refuse lower ones.
	Token uint64
	// TTL is the time left.
	TTL time.Duration
}

func leaseOf(l *sidecastv1.Lease) *Lease {
	if l == nil {
		return nil
	}
	return &Lease{Name: l.GetName(), Owner: l.GetOwner(), Token: l.GetToken(), TTL: l.GetTtl().AsDuration()}
}

type lockRequest struct {
	owner     string
	ttl, wait *durationpb.Duration
}

// LockOption changes how a lock is taken.
type LockOption interface {
	lock(*lockRequest)
}

type lockOption func(*lockRequest)

func (o lockOption) lock(r *lockRequest) { o(r) }

// Owner is the name of the holder; without it the sidecar makes a new one.
func Owner(name string) LockOption { return lockOption(func(r *lockRequest) { r.owner = name }) }

// Wait is how long to wait in line for a lock that is held; without it there is no waiting.
func Wait(d time.Duration) LockOption {
	return lockOption(func(r *lockRequest) { r.wait = durationpb.New(d) })
}

func lockRequestOf(options []LockOption) (r lockRequest) {
	for _, o := range options {
		o.lock(&r)
	}
	return r
}

// Acquire takes a lock for the length of TTL, 30 s without it. A lock that is held fails with reason LOCK_HELD.
func (l *Lock) Acquire(ctx context.Context, name string, options ...LockOption) (*Lease, error) {
	o := lockRequestOf(options)
	r, err := l.client.lock.Acquire(ctx, &sidecastv1.AcquireRequest{
		StoreName: l.name, Name: name, Owner: o.owner, Ttl: o.ttl, Wait: o.wait,
	})
	if err != nil {
		return nil, err
	}
	return leaseOf(r.GetLease()), nil
}

// Renew extends a lease by TTL, or by its first length. A lease that is no longer the holder's fails with LOCK_LOST.
func (l *Lock) Renew(ctx context.Context, lease *Lease, options ...LockOption) (*Lease, error) {
	r, err := l.client.lock.Renew(ctx, &sidecastv1.RenewRequest{
		StoreName: l.name, Name: lease.Name, Owner: lease.Owner, Token: lease.Token, Ttl: lockRequestOf(options).ttl,
	})
	if err != nil {
		return nil, err
	}
	return leaseOf(r.GetLease()), nil
}

// Release gives a lease back to the next in line. It fails like Renew.
func (l *Lock) Release(ctx context.Context, lease *Lease) error {
	_, err := l.client.lock.Release(ctx, &sidecastv1.ReleaseRequest{
		StoreName: l.name, Name: lease.Name, Owner: lease.Owner, Token: lease.Token,
	})
	return err
}

// Holding is a lock that the sidecar keeps renewed until Release, or until this process dies.
type Holding struct {
	Lease
	of     *Lock
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // read it after ended
}

// Hold takes a lock and keeps it: until Release, until ctx ends, or until the lease is lost, which closes Lost. Whoever
// holds a lock should stop what it protects when Lost is closed.
func (l *Lock) Hold(ctx context.Context, name string, options ...LockOption) (*Holding, error) {
	o := lockRequestOf(options)
	ctx, cancel := context.WithCancel(ctx)
	wire, err := l.client.lock.Hold(ctx, &sidecastv1.HoldRequest{
		StoreName: l.name, Name: name, Owner: o.owner, Ttl: o.ttl, Wait: o.wait,
	})
	if err != nil {
		cancel()
		return nil, err
	}
	first, err := wire.Recv()
	if err != nil {
		cancel()
		return nil, failed("hold "+name, err)
	}
	h := &Holding{of: l, cancel: cancel, ended: make(chan struct{})}
	if lease := leaseOf(first.GetLease()); lease != nil {
		h.Lease = *lease
	}
	go func() {
		defer close(h.ended)
		defer cancel()
		for err == nil {
			_, err = wire.Recv()
		}
		if errors.Is(err, io.EOF) {
			err = fault.New("hold "+name, fault.LockLost, "the sidecar ended the lease")
		}
		h.err = failed("hold "+name, err)
	}()
	return h, nil
}

// Lost is closed when the lock is no longer held, for whatever reason.
func (h *Holding) Lost() <-chan struct{} { return h.ended }

// Err waits until the lock is no longer held and says why.
func (h *Holding) Err() error {
	<-h.ended
	return h.err
}

// Release gives the lock to the next in line. It fails with LOCK_LOST when it was lost before. Should the sidecar not
// answer, the lock is free once its lease has run out.
func (h *Holding) Release(ctx context.Context) error {
	err := h.of.Release(ctx, &h.Lease)
	h.cancel()
	<-h.ended
	return err
}

// LockState is who holds a lock and how many wait for it.
type LockState struct {
	// Holder is nil when the lock is free.
	Holder  *Lease
	Waiting int
}

// Watch yields who holds a lock, now and at each change, until ctx ends, the loop breaks or an error comes.
func (l *Lock) Watch(ctx context.Context, name string) iter.Seq2[LockState, error] {
	return func(yield func(LockState, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		wire, err := l.client.lock.Watch(ctx, &sidecastv1.LockWatchRequest{StoreName: l.name, Name: name})
		for err == nil {
			var now *sidecastv1.LockWatchResponse
			if now, err = wire.Recv(); err != nil {
				break
			}
			if !yield(LockState{Holder: leaseOf(now.GetLease()), Waiting: int(now.GetWaiting())}, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(LockState{}, failed("watch lock "+name, err))
		}
	}
}
