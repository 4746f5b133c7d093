package lock

import (
	"math"
	"time"
	"unicode/utf8"

	"github.com/sidecast/sidecast/fault"
)

// The limits of every backend.
const (
	MinTTL    = time.Second
	MaxTTL    = math.MaxInt32 * time.Second // as much as Dapr's API can ask for
	MaxLength = 256                         // bytes of a name, and of an owner
	// MaxWaiting is how many may wait for one lock.
	MaxWaiting = 10_000
)

// Check fails with reason LOCK_NAME_INVALID or LEASE_INVALID when no backend could serve the request. Backends call it
// first, so that all have the same limits.
func Check(op, name, owner string, ttl time.Duration) error {
	if err := CheckName(op, name); err != nil {
		return err
	}
	switch {
	case owner == "" || len(owner) > MaxLength || !utf8.ValidString(owner):
		return fault.New(op, fault.LockName, "an owner is 1 to %d bytes of UTF-8, this one has %d", MaxLength, len(owner))
	case ttl < MinTTL || ttl > MaxTTL:
		return fault.New(op, fault.LeaseShort, "a lease is %v to %v long, not %v", MinTTL, MaxTTL, ttl)
	}
	return nil
}

// CheckRenewal is Check for a Renew, whose ttl of 0 keeps the lease's length.
func CheckRenewal(op, name, owner string, ttl time.Duration) error {
	if ttl == 0 {
		ttl = MinTTL
	}
	return Check(op, name, owner, ttl)
}

// CheckName is the part of Check that a watcher needs.
func CheckName(op, name string) error {
	if name == "" || len(name) > MaxLength || !utf8.ValidString(name) {
		return fault.New(op, fault.LockName, "a lock's name is 1 to %d bytes of UTF-8, this one has %d", MaxLength, len(name))
	}
	return nil
}

// Held is the error of an Acquire that finds the lock taken: by its holder or, with an empty holder, by those who wait.
func Held(op, name, holder string) error {
	if holder == "" {
		return fault.New(op, fault.LockHeld, "others wait for lock %q", name)
	}
	return fault.New(op, fault.LockHeld, "lock %q is held by %q", name, holder).With("owner", holder)
}

// Lost is the error of a Renew or Release whose lease is no longer the holder's.
func Lost(op string, lease Lease) error {
	return fault.New(op, fault.LockLost, "the lease of lock %q with token %d is not %q's any more", lease.Name, lease.Token, lease.Owner)
}

// Crowded is the error of an Acquire that finds MaxWaiting others in line.
func Crowded(op, name string) error {
	return fault.New(op, fault.QueueFull, "%d others wait for lock %q", MaxWaiting, name).After(time.Second)
}

// Closed is the error of every call to a locker after, or cut short by, its Close.
func Closed(op string) error {
	return fault.New(op, fault.Shutdown, "the lock store is closed")
}
