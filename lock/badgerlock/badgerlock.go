// Package badgerlock is lock.badger: locks among the callers of one sidecar, kept in a local directory, where one node
// is enough. It promises all of lock.Locker; sidecars do not share these locks, lock.jetstream is for that.
//
//	locker, err := badgerlock.Component.Open(ctx, host, map[string]string{"dir": "/var/lib/orders/locks"})
//
// A lease that was acknowledged outlives a crash of the process always, and a power cut unless sync is false; so does
// the growth of tokens. Leases end by the clock on the wall across a restart, by the monotonic clock within one run.
package badgerlock

import (
	"context"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/badgerdb"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/lock/turnstile"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	Dir     string           `meta:"dir" doc:"Directory that holds the locks; one sidecar at a time can open it. Left out: lock/<app id>/<component> below the sidecar's data directory."`
	Sync    bool             `meta:"sync" default:"true" doc:"Flush a lease to the disk before it is acknowledged, so that it outlives a power cut."`
	MinFree components.Bytes `meta:"minFree" default:"64MiB" min:"1MiB" doc:"Leases are refused while the disk has less than this free."`
}

// Component makes the backend known to the runtime.
var Component = components.Lock("badger", "Durable locks among the callers of one sidecar, in a local directory.", open)

var _ lock.Locker = (*locker)(nil)

type locker struct {
	*turnstile.Locker
	journal *journal
}

func open(ctx context.Context, host components.Host, config Config) (lock.Locker, error) {
	const op = "lock badger: open"
	db, err := badgerdb.Open(op, host, badgerdb.Options{
		Block: components.LockBlock, Dir: config.Dir, MinFree: uint64(config.MinFree), MemTable: 1 << 20,
	})
	if err != nil {
		return nil, err
	}
	token, leases, err := recall(db)
	if err != nil {
		_ = db.Close(ctx, op)
		return nil, err
	}
	j := newJournal(db, token, config.Sync)
	return &locker{
		Locker:  turnstile.New(turnstile.Options{Token: token, Leases: leases, Journal: j}),
		journal: j,
	}, nil
}

// Close answers those in line, writes what is left to write and closes the database.
func (l *locker) Close(ctx context.Context) error {
	if err := l.Locker.Close(ctx); err != nil {
		return err
	}
	return l.journal.close(ctx)
}
