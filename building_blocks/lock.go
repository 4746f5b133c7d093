package blocks

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/resiliency"
)

// Leases that are not given one.
const (
	defaultLease = 30 * time.Second
	defaultHold  = 10 * time.Second
)

// releaseTimeout is how long letting go may take when the holder itself has gone.
const releaseTimeout = 5 * time.Second

// Lock gives out leases with fencing tokens. Those who wait in line do so in a lane of their own, so that they never keep
// a holder from renewing or releasing.
type Lock struct {
	components *components.Set
	lanes      *componentLanes
	waiting    *actors.Lane
}

func newLock(d Deps, rules *rulebook) *Lock {
	return &Lock{
		components: d.Components,
		lanes:      newComponentLanes(d, rules, "lock", governance.Lock),
		waiting:    d.System.Lane("lock-waiters", waitPolicy),
	}
}

// LockRequest asks for a lock.
type LockRequest struct {
	// Component is the lock component, "" the default; Name the lock; Owner who asks, "" for a new name.
	Component, Name, Owner string
	// TTL is the length of the lease, 0 for the default; Wait how long to wait in line, 0 not at all.
	TTL, Wait time.Duration
	// PerApp puts the component's key prefix, by default the app id, in front of Name, as Dapr does.
	PerApp bool
}

// name is what the backend knows the lock by.
func (r LockRequest) name(prefix string) string {
	if !r.PerApp || prefix == "" {
		return r.Name
	}
	return prefix + keySeparator + r.Name
}

// passage is what calls go through: a guard, or a lane without one.
type passage interface {
	Do(context.Context, resiliency.Call, func(context.Context, actors.Grant) error) error
}

func (l *Lock) lane(component string) passage { return l.lanes.of(component) }

func (l *Lock) do(ctx context.Context, component, op string, lane func(name string) passage, idempotent bool,
	work func(context.Context, components.Use[lock.Locker]) error) (err error) {
	use, err := l.components.Lock(ctx, component)
	if err != nil {
		return err
	}
	defer use.Release()
	ctx, record := l.lanes.begin(ctx, use.Name, op)
	defer record.end(&err)
	return lane(use.Name).Do(ctx, resiliency.Call{Op: op, Idempotent: idempotent},
		func(ctx context.Context, _ actors.Grant) error { return work(ctx, use) })
}

// Acquire takes the lock, waiting in line for up to r.Wait. It fails with reason LOCK_HELD when the wait ends first.
func (l *Lock) Acquire(ctx context.Context, r LockRequest) (lease lock.Lease, err error) {
	if r.Owner == "" {
		r.Owner = uuid.NewString()
	}
	if r.TTL == 0 {
		r.TTL = defaultLease
	}
	if r.Wait < 0 {
		return lease, fault.New("lock: acquire "+r.Name, fault.BadRequest, "wait is %s; it must not be negative", r.Wait)
	}
	if r.Wait == 0 {
		err = l.do(ctx, r.Component, "acquire", l.lane, false, func(ctx context.Context, use components.Use[lock.Locker]) error {
			lease, err = use.Backend.Acquire(ctx, r.name(use.KeyPrefix), r.Owner, r.TTL, false)
			return err
		})
		return lease, err
	}
	bounded, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	inLine := func(string) passage { return l.waiting }
	err = l.do(bounded, r.Component, "wait", inLine, false, func(ctx context.Context, use components.Use[lock.Locker]) error {
		lease, err = use.Backend.Acquire(ctx, r.name(use.KeyPrefix), r.Owner, r.TTL, true)
		return err
	})
	if fault.KindOf(err) == fault.Timeout && ctx.Err() == nil {
		return lease, fault.New("lock: acquire "+r.Name, fault.LockHeld, "still held by another owner after a wait of %s", r.Wait)
	}
	return lease, err
}

// Renew extends a lease to ttl from now; 0 keeps its length.
func (l *Lock) Renew(ctx context.Context, component string, held lock.Lease, ttl time.Duration) (lease lock.Lease, err error) {
	err = l.do(ctx, component, "renew", l.lane, true, func(ctx context.Context, use components.Use[lock.Locker]) error {
		lease, err = use.Backend.Renew(ctx, held, ttl)
		return err
	})
	return lease, err
}

// Release ends a lease.
func (l *Lock) Release(ctx context.Context, component string, held lock.Lease) error {
	return l.do(ctx, component, "release", l.lane, false, func(ctx context.Context, use components.Use[lock.Locker]) error {
		return use.Backend.Release(ctx, held)
	})
}

// ReleaseOf ends whatever lease r's owner has of the lock. When it has none, it fails with reason LOCK_LOST and returns the
// lease that another has, or nil when the lock is free.
func (l *Lock) ReleaseOf(ctx context.Context, r LockRequest) (holder *lock.Lease, err error) {
	err = l.do(ctx, r.Component, "release", l.lane, true, func(ctx context.Context, use components.Use[lock.Locker]) error {
		var status lock.Status
		err := use.Backend.Watch(ctx, r.name(use.KeyPrefix), func(s lock.Status) error {
			status = s
			return errSeen
		})
		if !errors.Is(err, errSeen) {
			return err
		}
		holder = status.Lease
		if holder == nil || holder.Owner != r.Owner {
			return fault.New("lock: release "+r.Name, fault.LockLost, "%q holds no lease of the lock", r.Owner)
		}
		err = use.Backend.Release(ctx, *holder)
		if fault.ReasonOf(err) == fault.LockLost {
			holder = nil // it ran out just now
		}
		return err
	})
	return holder, err
}

// errSeen ends a watch that has told what there was to know.
var errSeen = errors.New("seen")

// Hold takes the lock, tells the lease to taken, and renews it until ctx ends; then it lets go. It returns nil when ctx
// ended while the lock was held, and a fault with reason LOCK_LOST when the lease was lost first.
func (l *Lock) Hold(ctx context.Context, r LockRequest, taken func(lock.Lease) error) error {
	if r.TTL == 0 {
		r.TTL = defaultHold
	}
	lease, err := l.Acquire(ctx, r)
	if err != nil {
		return err
	}
	defer func() {
		// The holder is gone, so its context cannot bound this.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		_ = l.Release(ctx, r.Component, lease) // a lease that is lost already needs no release
	}()
	if err := taken(lease); err != nil {
		return err
	}
	return l.keep(ctx, r, &lease)
}

// keep renews lease three times a ttl until ctx ends. A renewal that cannot reach the store is tried again as long as the
// lease lasts.
func (l *Lock) keep(ctx context.Context, r LockRequest, lease *lock.Lease) error {
	ticker := time.NewTicker(r.TTL / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		bounded, cancel := context.WithDeadline(ctx, lease.Expires)
		renewed, err := l.Renew(bounded, r.Component, *lease, r.TTL)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			*lease = renewed
		case fault.ReasonOf(err) == fault.LockLost || !time.Now().Before(lease.Expires):
			return fault.E("lock: hold "+r.Name, fault.Conflict, fault.LockLost, err)
		}
	}
}

// Watch calls fn with the state of a lock, now and at each change, until ctx ends or fn fails.
func (l *Lock) Watch(ctx context.Context, component, name string, fn func(lock.Status) error) error {
	use, err := l.components.Lock(ctx, component)
	if err != nil {
		return err
	}
	defer use.Release()
	ctx, cancel := whileCurrent(ctx, use)
	defer cancel()
	return replacedOr(ctx, use.Backend.Watch(ctx, name, fn))
}
