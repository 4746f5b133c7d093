package contrib

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dapr/components-contrib/common/component/redis"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	"github.com/google/uuid"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/lock"
)

var redisLock = components.Foreign(components.LockBlock, "redis", "Locks on one Redis server or its Sentinels: as durable as that server, not for a cluster.",
	redisLockFields, openRedisLock)

// redisLocker keeps a lock under its own name, as Dapr does, so that the two exclude each other. The library's store can
// take a lock and give it back and no more; it lends its client and settings, and scripts do the rest.
//
// The value of a lock is `<token> <milliseconds of its lease> <id of its Acquire> <owner>`; a value of another form is a lock of Dapr's, with
// the owner alone. Tokens come from one counter of the server, which is never behind its clock in microseconds: a server
// that lost its data does not begin again below what it gave out. Those who wait stand in a sorted set beside the lock, in
// the order they came, and look again every fiftieth of a second, or less often behind many others; one that has not
// looked for three seconds has left. Where Redis itself forgets, by a failover for one, a lock may have two holders: the
// fencing token tells them apart, as long as the clocks of the servers agree.
type redisLocker struct {
	client redis.RedisClient
	life   *life
}

var _ lock.Locker = (*redisLocker)(nil)

func openRedisLock(ctx context.Context, host components.Host, s components.Settings) (lock.Locker, error) {
	const op = "lock.redis: open"
	if s.Values["redisType"] == redis.ClusterType {
		return nil, s.Invalid("redisType", errors.New("locks do not work on a cluster: use a single server or Sentinel"))
	}
	client, settings, err := redisClient(ctx, op, host, s, contribmetadata.LockStoreType)
	if err != nil {
		return nil, err
	}
	// A server without replicas cannot lose a lock by a failover; the library asks for that too.
	replicas, err := redis.GetConnectedSlaves(ctx, client)
	if err == nil && replicas > 0 && !settings.Failover {
		_ = client.Close()
		return nil, s.Invalid("redisHost", fmt.Errorf("the server has %d replicas: locks need one without, or failover with Sentinel", replicas))
	}
	return &redisLocker{client: client, life: newLife(host.Log)}, nil
}

const (
	lookAgain = 20 * time.Millisecond  // how often the first in line looks
	lookLate  = 500 * time.Millisecond // how often those behind many others do, and watchers
	gone      = 3 * time.Second        // who has not looked for so long has left the line
)

// The names beside a lock: its line, when each in it was last seen, and the counters they share.
func lockKeys(name string) []string {
	return []string{name, name + "||sidecast-line", name + "||sidecast-seen", "sidecast||lock-token", "sidecast||lock-place"}
}

// prune drops those from the line who have not looked since; both sets go by themselves when nobody looks.
const prune = `
local now = redis.call('TIME')
local micros = now[1] * 1000000 + now[2]
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', micros - tonumber(ARGV[1]) * 1000)) do
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
end
`

// acquireScript takes the lock for ARGV[2], owner ARGV[3], for ARGV[4] milliseconds. ARGV[5] says whether to wait in line.
// It answers with the token; or the value of the lock, the place in line and -1 when the line is full.
var acquireScript = newScript(prune + `
local id, wait = ARGV[2], ARGV[5] == '1'
local value = redis.call('GET', KEYS[1])
local first = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
if not value and (not first or first == id) then
  local token = math.max(redis.call('INCR', KEYS[4]), micros)
  token = string.format('%.0f', token)
  redis.call('SET', KEYS[4], token)
  redis.call('SET', KEYS[1], token .. ' ' .. ARGV[4] .. ' ' .. id .. ' ' .. ARGV[3], 'PX', ARGV[4])
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  return token
end
if not wait then
  return {value or '', '0'}
end
if not redis.call('ZSCORE', KEYS[2], id) then
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) then
    return {value or '', '-1'}
  end
  redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[5]), id)
end
redis.call('ZADD', KEYS[3], micros, id)
redis.call('PEXPIRE', KEYS[2], ARGV[1] * 2)
redis.call('PEXPIRE', KEYS[3], ARGV[1] * 2)
return {value or '', string.format('%d', redis.call('ZRANK', KEYS[2], id))}`)

// leaveScript undoes the Acquire ARGV[1]: it takes it out of the line, or frees the lock that it got.
var leaveScript = newScript(`
local value = redis.call('GET', KEYS[1])
if value and string.match(value, '^%d+ %d+ (%S+) ') == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[3], ARGV[1])`)

// endScript ends the lease of token ARGV[1] and owner ARGV[2], or renews it: ARGV[3] is r for that, ARGV[4] its length in
// milliseconds or 0 for the length it has. It answers with the length, or -1 when the lease is no longer the holder's.
var endScript = newScript(`
local value = redis.call('GET', KEYS[1])
if not value then
  return -1
end
local token, length, id, owner = string.match(value, '^(%d+) (%d+) (%S+) (.*)$')
if token ~= ARGV[1] or owner ~= ARGV[2] then
  return -1
end
if ARGV[3] ~= 'r' then
  redis.call('DEL', KEYS[1])
  return 0
end
if ARGV[4] ~= '0' then
  length = ARGV[4]
end
redis.call('SET', KEYS[1], token .. ' ' .. length .. ' ' .. id .. ' ' .. owner, 'PX', length)
return tonumber(length)`)

// statusScript answers with the value of the lock, how long it still runs in milliseconds, and how many wait.
var statusScript = newScript(prune + `
return {redis.call('GET', KEYS[1]) or '', redis.call('PTTL', KEYS[1]), redis.call('ZCARD', KEYS[2])}`)

// Acquire implements lock.Locker.
func (l *redisLocker) Acquire(ctx context.Context, name, owner string, ttl time.Duration, wait bool) (lock.Lease, error) {
	const op = "lock.redis: acquire"
	if err := lock.Check(op, name, owner, ttl); err != nil {
		return lock.Lease{}, err
	}
	calling, leave, err := l.life.enter(ctx, op)
	if err != nil {
		return lock.Lease{}, err
	}
	defer leave()
	turn := &turn{locker: l, op: op, name: name, owner: owner, id: uuid.NewString(), ttl: ttl, wait: wait}
	lease, err := turn.take(calling)
	if err != nil {
		turn.leave()
		return lock.Lease{}, l.life.failure(ctx, op, err)
	}
	return lease, nil
}

// turn is one caller's way to a lock.
type turn struct {
	locker          *redisLocker
	op, name, owner string
	id              string
	ttl             time.Duration
	wait            bool
	undo            bool          // the server may know of it: it stands in line, or its last answer is not known
	answered        chan struct{} // closed when it has answered what it was last asked
}

// take tries until the lock is the caller's or cannot be.
func (t *turn) take(ctx context.Context) (lock.Lease, error) {
	for {
		sent := time.Now()
		answer, err := t.ask(ctx)
		if err != nil {
			return lock.Lease{}, err
		}
		state := listOf(answer)
		if state == nil {
			token, err := strconv.ParseUint(textOf(answer), 10, 64)
			if err != nil {
				return lock.Lease{}, err
			}
			t.undo = false
			return lock.Lease{Name: t.name, Owner: t.owner, Token: token, TTL: t.ttl, Expires: sent.Add(t.ttl)}, nil
		}
		place, err := strconv.Atoi(textOf(state[1]))
		switch {
		case err != nil:
			return lock.Lease{}, err
		case !t.wait:
			t.undo = false
			_, _, holder := parseHolder(textOf(state[0]))
			return lock.Lease{}, lock.Held(t.op, t.name, holder)
		case place < 0:
			t.undo = false
			return lock.Lease{}, lock.Crowded(t.op, t.name)
		}
		if !pause(ctx, min(lookAgain*time.Duration(place+1), lookLate)) {
			return lock.Lease{}, context.Cause(ctx)
		}
	}
}

// ask sends the script. The driver does not hear of the caller's end: it would forget a request that the server has yet to
// read, and leave could not come after it.
func (t *turn) ask(ctx context.Context) (any, error) {
	answered := make(chan struct{})
	t.undo, t.answered = true, answered
	return detached(ctx, t.locker.life, func() (any, error) {
		defer close(answered)
		return acquireScript.call(context.WithoutCancel(ctx), t.locker.client, lockKeys(t.name),
			gone.Milliseconds(), t.id, t.owner, t.ttl.Milliseconds(), digit(t.wait), lock.MaxWaiting)
	})
}

// leave undoes what an Acquire that failed may have done: its place in line, and a lease whose answer did not arrive. Until
// then the lock looks taken to others, so the caller waits for it, but not for a server that does not answer for so long
// that it drops those who are not seen.
func (t *turn) leave() {
	if !t.undo {
		return
	}
	left := make(chan struct{})
	t.locker.life.strays.Go(func() {
		defer close(left)
		<-t.answered
		_, _ = leaveScript.call(context.Background(), t.locker.client, lockKeys(t.name), t.id)
	})
	late := time.NewTimer(gone)
	defer late.Stop()
	select {
	case <-left:
	case <-late.C:
	}
}

func digit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// pause waits for d; it reports false when ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// parseHolder reads the value of a lock; what Dapr wrote is the owner alone.
func parseHolder(value string) (token uint64, ttl time.Duration, owner string) {
	parts := strings.SplitN(value, " ", 4)
	if len(parts) == 4 {
		token, err := strconv.ParseUint(parts[0], 10, 64)
		length, err2 := strconv.ParseInt(parts[1], 10, 64)
		if err == nil && err2 == nil {
			return token, time.Duration(length) * time.Millisecond, parts[3]
		}
	}
	return 0, 0, value
}

// Renew implements lock.Locker.
func (l *redisLocker) Renew(ctx context.Context, lease lock.Lease, ttl time.Duration) (lock.Lease, error) {
	const op = "lock.redis: renew"
	if err := lock.CheckRenewal(op, lease.Name, lease.Owner, ttl); err != nil {
		return lock.Lease{}, err
	}
	sent := time.Now()
	length, err := l.end(ctx, op, lease, "r", ttl)
	if err != nil {
		return lock.Lease{}, err
	}
	lease.TTL, lease.Expires = length, sent.Add(length)
	return lease, nil
}

// Release implements lock.Locker.
func (l *redisLocker) Release(ctx context.Context, lease lock.Lease) error {
	const op = "lock.redis: release"
	if err := lock.Check(op, lease.Name, lease.Owner, lock.MinTTL); err != nil {
		return err
	}
	_, err := l.end(ctx, op, lease, "d", 0)
	return err
}

func (l *redisLocker) end(ctx context.Context, op string, lease lock.Lease, what string, ttl time.Duration) (time.Duration, error) {
	calling, leave, err := l.life.enter(ctx, op)
	if err != nil {
		return 0, err
	}
	defer leave()
	answer, err := endScript.run(calling, l.life, l.client, lockKeys(lease.Name),
		strconv.FormatUint(lease.Token, 10), lease.Owner, what, ttl.Milliseconds())
	if err != nil {
		return 0, l.life.failure(ctx, op, err)
	}
	length, ok := answer.(int64)
	if !ok || length < 0 {
		return 0, lock.Lost(op, lease)
	}
	return time.Duration(length) * time.Millisecond, nil
}

// Watch implements lock.Locker: it looks at the lock again and again.
func (l *redisLocker) Watch(ctx context.Context, name string, fn func(lock.Status) error) error {
	const op = "lock.redis: watch"
	if err := lock.CheckName(op, name); err != nil {
		return err
	}
	calling, leave, err := l.life.enter(ctx, op)
	if err != nil {
		return err
	}
	defer leave()
	var last lock.Status
	for first := true; ; first = false {
		status, err := l.status(calling, name)
		if err != nil {
			return l.life.failure(ctx, op, err)
		}
		if first || !same(last, status) {
			if err := fn(status); err != nil {
				return err
			}
			last = status
		}
		if !pause(calling, 5*lookAgain) {
			return l.life.failure(ctx, op, context.Cause(calling))
		}
	}
}

func (l *redisLocker) status(ctx context.Context, name string) (lock.Status, error) {
	answer, err := statusScript.run(ctx, l.life, l.client, lockKeys(name), gone.Milliseconds())
	if err != nil {
		return lock.Status{}, err
	}
	parts := listOf(answer)
	if len(parts) != 3 {
		return lock.Status{}, fmt.Errorf("the script answered with %d fields for lock %q", len(parts), name)
	}
	waiting, _ := parts[2].(int64)
	status := lock.Status{Waiting: int(waiting)}
	left, _ := parts[1].(int64)
	if value := textOf(parts[0]); value != "" {
		token, ttl, owner := parseHolder(value)
		status.Lease = &lock.Lease{
			Name: name, Owner: owner, Token: token, TTL: ttl, Expires: time.Now().Add(time.Duration(left) * time.Millisecond),
		}
	}
	return status, nil
}

// same says whether a watcher has nothing to learn from b after a. A renewal moves the end of a lease by more than the
// difference between two looks at it.
func same(a, b lock.Status) bool {
	switch {
	case a.Waiting != b.Waiting, (a.Lease == nil) != (b.Lease == nil):
		return false
	case a.Lease == nil:
		return true
	}
	return a.Lease.Token == b.Lease.Token && a.Lease.Owner == b.Lease.Owner && a.Lease.TTL == b.Lease.TTL &&
		b.Lease.Expires.Sub(a.Lease.Expires).Abs() < 250*time.Millisecond
}

// Close implements lock.Locker. Those who wait are answered at once.
func (l *redisLocker) Close(ctx context.Context) error {
	l.life.refuse()
	l.life.cut()
	return l.life.close(ctx, "lock.redis: close", l.client.Close)
}
