// Package memorylock is lock.memory: locks among the callers of one sidecar, kept in its memory. It promises all of
// lock.Locker except that leases outlive the process; they end with it. Tokens keep growing all the same, because they
// start at the microseconds of the clock: no process gives out a million leases a second.
//
//	locker, err := memorylock.Component.Open(ctx, host, nil)
//
// Sidecars do not share these locks. Use lock.jetstream for that.
package memorylock

import (
	"context"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/lock/turnstile"
)

// Config is what the user writes under spec.metadata: nothing.
type Config struct{}

// Component makes the backend known to the runtime.
var Component = components.Lock("memory", "Locks among the callers of one sidecar, gone when it ends.", open)

func open(context.Context, components.Host, Config) (lock.Locker, error) {
	return turnstile.New(turnstile.Options{Token: uint64(time.Now().UnixMicro())}), nil
}
