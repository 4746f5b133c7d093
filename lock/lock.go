// Package lock is the contract between the Lock block and its backends: leases with a fencing token that only grows.
// What every backend promises is checked by lock/locktest.
//
// The fencing token is Kleppmann's ("How to do distributed locking", 2016): a resource that remembers the highest token
// it has seen, and refuses lower ones, is safe even from a holder that does not know it lost its lease.
package lock

import (
	"context"
	"time"
)

// Locker gives out leases. All methods may be called concurrently.
type Locker interface {
	// Acquire takes the lock for owner, waiting in line until ctx ends if wait is set. Waiters are served first come,
	// first served. It fails with fault.Conflict, reason LOCK_HELD: at once when wait is not set and the lock is held or has
	// waiters; with fault.FromContext when ctx ends. A waiter that goes away leaves the line; a holder whose lease ran out
	// is replaced by the first in line. An Acquire that fails holds nothing.
	Acquire(ctx context.Context, name, owner string, ttl time.Duration, wait bool) (Lease, error)
	// Renew extends the lease to ttl from now; a ttl of 0 keeps its length. It fails with reason LOCK_LOST when the lease ran out or is another's.
	Renew(ctx context.Context, lease Lease, ttl time.Duration) (Lease, error)
	// Release ends the lease and lets the first in line in. It fails with reason LOCK_LOST like Renew.
	Release(ctx context.Context, lease Lease) error
	// Watch calls fn with the lock's state now and at each change until ctx ends or fn fails; it returns that error.
	// States may be folded into the latest.
	Watch(ctx context.Context, name string, fn func(Status) error) error
	// Close returns when nothing of the locker is running any more. Leases stay until they run out.
	Close(ctx context.Context) error
}

// Lease is the right to a lock for a while.
type Lease struct {
	Name, Owner string
	// Token is greater than that of every lease of this lock before it, across owners and restarts.
	Token uint64
	// TTL is the length of the lease, Expires when it runs out by this process's clock.
	TTL     time.Duration
	Expires time.Time
}

// Status is the state of a lock: Lease is nil when it is free.
type Status struct {
	Lease   *Lease
	Waiting int
}
