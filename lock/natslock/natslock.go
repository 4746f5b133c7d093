// Package natslock is lock.jetstream: locks shared by the sidecars of a namespace, kept in a key-value bucket of the
// fabric. It is the default. Those share their locks that have a component of the same name, or name the same bucket.
//
//	locker, err := natslock.Component.Open(ctx, host, nil)
//	lease, err := locker.Acquire(ctx, "invoices", "worker-7", 30*time.Second, true)
//
// # What is stored
//
// A lock that is held or waited for is one entry of the bucket; a free lock is none. An entry is changed by
// compare-and-set on its revision alone, so of two that try the same change one loses and looks again. The fencing token
// is the sequence, in the bucket's stream, of the write that made the holder. Sequences are never used twice, so tokens
// grow across releases, expiries and restarts; a bucket that is lost and made anew starts at the microseconds of the
// clock, beyond all tokens before. Taking and releasing a lock that nobody else wants costs two writes and no read; a lock
// that another sidecar released within the last ten seconds costs a refused write and a read more.
//
// # When a lease ends
//
// A lease counts from the time at which the server stored it, and whoever wants the lock next compares that with the
// same server's clock: the machine's own on an embedded fabric, one asked of the stream's leader once a minute on a
// remote one, where half a second is added for leaders that disagree. The holder counts from the moment before it sent
// the write, by its monotonic clock, so it stops believing before anyone else starts. Clocks of clients play no part. A
// server whose clock jumps ahead ends leases early: that is what the token is for.
//
// # The line
//
// Who waits has a place in the entry. Release makes the first in line of the same sidecar the holder in one write. The
// first of another sidecar is given its turn and takes the lock itself, a second write: a lease is never given to the
// dead, and starts when its holder knows. Who does not use its turn within two seconds is passed over. Places are good
// for half a minute and their sidecars renew them, so a sidecar that dies leaves no trace in the line, and one that is
// cut off for a few seconds keeps its place; cut off for longer, it stands in line anew.
//
// # What survives
//
// An acknowledged lease survives the death of every process, servers included; a power cut too if the fabric flushes
// before it acknowledges (its SyncAlways, or replicas on machines that do not fail together). Connection loss fails new
// calls with reason FABRIC_DOWN; those that wait go on waiting until their context ends. An Acquire that fails without
// knowing whether its write arrived takes it back in the background as soon as the fabric answers.
//
// Servers before 2.11 have no time to live for entries: there, the entry of a holder that died stays until someone
// acquires the lock again.
package natslock

import (
	"cmp"
	"context"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	Bucket   string `meta:"bucket" doc:"Name of the bucket; components with the same bucket and namespace share their locks. Left out: locks-<component>."`
	Replicas int    `meta:"replicas" default:"0" min:"0" max:"5" doc:"Copies of the bucket when it is made; 0 means what the fabric is told."`
}

// Component makes the backend known to the runtime.
var Component = components.Lock("jetstream", "Locks shared over the fabric, in a JetStream key-value bucket.", open)

var _ lock.Locker = (*locker)(nil)

type locker struct {
	id      string // of this locker, the first part of the ids of its places
	bucket  *bucket
	clock   clock
	memos   memos
	news    chan *nats.Msg // what is stored of the locks in rooms
	closing chan struct{}
	calls   sync.WaitGroup // under way; Add under mu and only while not closed
	running sync.WaitGroup // the locker's own goroutines

	mu     sync.Mutex
	closed bool
	rooms  map[string]*room // by key
	places uint64           // ids given out
	doubts map[string]*doubt
}

func open(ctx context.Context, host components.Host, config Config) (lock.Locker, error) {
	conn, err := host.NATS(ctx)
	if err != nil {
		return nil, err
	}
	if config.Bucket == "" {
		config.Bucket = "locks-" + host.Component
	}
	if config.Replicas == 0 {
		config.Replicas = max(host.Replicas, 1)
	}
	b, err := openBucket(ctx, conn, host.Namespace, config)
	if err != nil {
		return nil, err
	}
	l := &locker{
		id:      strings.ToLower(nuid.Next()[10:]),
		bucket:  b,
		clock:   clock{local: host.Local, ask: b.serverTime},
		news:    make(chan *nats.Msg, 1024),
		closing: make(chan struct{}),
		rooms:   make(map[string]*room),
		doubts:  make(map[string]*doubt),
	}
	l.running.Go(l.listen)
	return l, nil
}

// Acquire implements lock.Locker.
func (l *locker) Acquire(ctx context.Context, name, owner string, ttl time.Duration, wait bool) (lock.Lease, error) {
	const op = "lock jetstream: acquire"
	if err := lock.Check(op, name, owner, ttl); err != nil {
		return lock.Lease{}, err
	}
	if ctx.Err() != nil {
		return lock.Lease{}, fault.FromContext(op, ctx, "the lock store")
	}
	if !l.begin() {
		return lock.Lease{}, lock.Closed(op)
	}
	defer l.calls.Done()

	p := place{id: l.newID(), owner: owner, ttl: ttl}
	if !l.waited(name) {
		lease, taken, err := l.takeFree(ctx, op, name, p)
		if taken || err != nil {
			return lease, err
		}
	}
	r, err := l.enter(op, name, wait)
	if err != nil {
		return lock.Lease{}, err
	}
	defer l.leave(r)
	if wait {
		return r.wait(ctx, op, p)
	}
	return r.try(ctx, op, p)
}

// takeFree takes a lock that is free as far as this locker knows, without asking first; false when it is not.
func (l *locker) takeFree(ctx context.Context, op, name string, p place) (lock.Lease, bool, error) {
	sent := time.Now()
	key := keyOf(name)
	next := state{holder: &holder{ID: p.id, Owner: p.owner, TTL: p.ttl}}
	rev, err := l.bucket.write(ctx, op, key, next, l.memos.free(key, sent))
	if err == errChanged {
		l.memos.forget(key)
		return lock.Lease{}, false, nil
	}
	if err != nil {
		l.doubt(name, p.id, err)
		return lock.Lease{}, false, err
	}
	lease := lock.Lease{Name: name, Owner: p.owner, Token: rev, TTL: p.ttl, Expires: sent.Add(p.ttl)}
	l.memos.hold(key, rev, p.id, lease)
	return lease, true, nil
}

// Renew implements lock.Locker.
func (l *locker) Renew(ctx context.Context, lease lock.Lease, ttl time.Duration) (lock.Lease, error) {
	const op = "lock jetstream: renew"
	if err := lock.CheckRenewal(op, lease.Name, lease.Owner, ttl); err != nil {
		return lock.Lease{}, err
	}
	if !l.begin() {
		return lock.Lease{}, lock.Closed(op)
	}
	defer l.calls.Done()

	sent := time.Now()
	key := keyOf(lease.Name)
	if m, ok := l.memos.held(key, lease); ok {
		if !sent.Before(m.until) {
			return lock.Lease{}, lock.Lost(op, lease)
		}
		ttl := cmp.Or(ttl, m.lease.TTL)
		next := state{holder: &holder{ID: m.id, Owner: lease.Owner, Token: lease.Token, TTL: ttl}}
		rev, err := l.bucket.write(ctx, op, key, next, m.rev)
		if err == nil {
			lease.TTL, lease.Expires = ttl, sent.Add(ttl)
			l.memos.hold(key, rev, m.id, lease)
			return lease, nil
		}
		l.memos.forget(key)
		if err != errChanged {
			return lock.Lease{}, err
		}
	}
	r, err := l.enter(op, lease.Name, false)
	if err != nil {
		return lock.Lease{}, err
	}
	defer l.leave(r)
	return r.renew(ctx, op, lease, ttl)
}

// Release implements lock.Locker.
func (l *locker) Release(ctx context.Context, lease lock.Lease) error {
	const op = "lock jetstream: release"
	if err := lock.Check(op, lease.Name, lease.Owner, lock.MinTTL); err != nil {
		return err
	}
	if !l.begin() {
		return lock.Closed(op)
	}
	defer l.calls.Done()

	key := keyOf(lease.Name)
	if m, ok := l.memos.held(key, lease); ok {
		if !time.Now().Before(m.until) {
			l.memos.forget(key)
			return lock.Lost(op, lease)
		}
		if !l.waited(lease.Name) {
			l.memos.forget(key)
			rev, err := l.bucket.write(ctx, op, key, state{}, m.rev)
			if err == nil {
				l.memos.freed(key, rev)
				return nil
			}
			if err != errChanged {
				return err
			}
		}
	}
	r, err := l.enter(op, lease.Name, false)
	if err != nil {
		return err
	}
	defer l.leave(r)
	return r.release(ctx, op, lease)
}

// Watch implements lock.Locker.
func (l *locker) Watch(ctx context.Context, name string, fn func(lock.Status) error) error {
	const op = "lock jetstream: watch"
	if err := lock.CheckName(op, name); err != nil {
		return err
	}
	if !l.begin() {
		return lock.Closed(op)
	}
	defer l.calls.Done()
	r, err := l.enter(op, name, true)
	if err != nil {
		return err
	}
	defer l.leave(r)
	return r.watch(ctx, op, fn)
}

// Close implements lock.Locker.
func (l *locker) Close(ctx context.Context) error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.closing)
	}
	l.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		l.calls.Wait()
		l.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fault.FromContext("lock jetstream: close", ctx, "calls under way")
	}
}

// begin counts a call in, unless the locker is closed.
func (l *locker) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.calls.Add(1)
	return true
}
