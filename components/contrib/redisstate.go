package contrib

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dapr/components-contrib/common/component/redis"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	contribstate "github.com/dapr/components-contrib/state"
	redisstate "github.com/dapr/components-contrib/state/redis"
	"github.com/dapr/kit/logger"
	redisv8 "github.com/go-redis/redis/v8"
	"github.com/go-sql-driver/mysql"
	redisv9 "github.com/redis/go-redis/v9"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

var redisState = components.Foreign(components.StateBlock, "redis", "Items in Redis or a server that speaks its protocol, 5 or newer.",
	redisStateFields, openRedisState).Able(wellKnown)

// redisStore keeps an item as Dapr does: a hash with the fields data and version, whose time to live is the key's. It uses
// the library's client and settings, and scripts of its own, because the library's transaction does not take back what it
// has done when a later condition does not hold, its first write keeps later ones out, a delete of an item that is gone
// succeeds whatever its ETag, and versions begin again at 1 after a delete.
//
// A version here grows by one with each write, as Dapr's, and begins at the server's clock in microseconds: no version of
// a key comes twice unless that clock is set back or a key is written a million times a second.
type redisStore struct {
	client redis.RedisClient
	ttl    int  // of items without one, in seconds
	apart  bool // keys of one call may be on different servers
	life   *life
}

var _ state.Store = (*redisStore)(nil)

func openRedisState(ctx context.Context, host components.Host, s components.Settings) (state.Store, error) {
	const op = "state.redis: open"
	client, settings, err := redisClient(ctx, op, host, s, contribmetadata.StateStoreType)
	if err != nil {
		return nil, err
	}
	r := &redisStore{client: client, apart: settings.RedisType == redis.ClusterType, life: newLife(host.Log)}
	if settings.TTLInSeconds != nil {
		r.ttl = max(*settings.TTLInSeconds, 0)
	}
	if settings.QueryIndexes != "" {
		if err := createIndexes(ctx, host, s); err != nil {
			_ = client.Close()
			return nil, badOpen(ctx, op, s, err)
		}
	}
	return r, nil
}

// createIndexes lets the library create the search indexes, which it does when it opens.
func createIndexes(ctx context.Context, host components.Host, s components.Settings) error {
	indexer := redisstate.NewRedisStateStore(newLogs(host.Log, nil))
	defer closeQuietly(indexer)
	return indexer.Init(ctx, contribstate.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: s.Values}})
}

// redisClient connects as the library does and makes sure that the server answers.
func redisClient(ctx context.Context, op string, host components.Host, s components.Settings, kind contribmetadata.ComponentType) (redis.RedisClient, *redis.Settings, error) {
	if s.Values["redisHost"] == "" && !s.Given("redisHost") {
		return nil, nil, s.Invalid("redisHost", fmt.Errorf("redisHost is missing: the address of the server"))
	}
	if s.Given("maxRetries") && !s.Given("redisMaxRetries") {
		delete(s.Values, "redisMaxRetries") // the default would hide the older name
	}
	quiet()
	var log logger.Logger = newLogs(host.Log, nil)
	client, settings, err := redis.ParseClientFromProperties(s.Values, kind, ctx, &log)
	if err != nil {
		return nil, nil, badOpen(ctx, op, s, err)
	}
	if _, err := client.PingResult(ctx); err != nil {
		_ = client.Close()
		return nil, nil, badOpen(ctx, op, s, err)
	}
	return client, settings, nil
}

// quiet keeps the drivers from writing to the process's standard error, past every log: what fails is in the errors.
var quiet = sync.OnceFunc(func() {
	redisv8.SetLogger(silence{})
	redisv9.SetLogger(silence{})
	_ = mysql.SetLogger(log.New(io.Discard, "", 0)) // it fails for nil
})

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// script is a Lua script of Redis, known by its digest once it has been sent.
type script struct{ text, digest string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) // Redis names scripts so
	return &script{text: text, digest: hex.EncodeToString(sum[:])}
}

// run calls the script and returns when ctx ends, of which the driver hears only if that is a deadline.
func (s *script) run(ctx context.Context, l *life, client redis.RedisClient, keys []string, args ...any) (any, error) {
	return detached(ctx, l, func() (any, error) { return s.call(ctx, client, keys, args...) })
}

// call calls the script; the server that does not know it yet is sent its text.
func (s *script) call(ctx context.Context, client redis.RedisClient, keys []string, args ...any) (any, error) {
	command := make([]any, 0, 3+len(keys)+len(args))
	command = append(command, "EVALSHA", s.digest, len(keys))
	for _, key := range keys {
		command = append(command, key)
	}
	command = append(command, args...)
	answer, err := client.DoRead(ctx, command...)
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		command[0], command[1] = "EVAL", s.text
		answer, err = client.DoRead(ctx, command...)
	}
	return answer, err
}

// readScript answers for each key nothing, or its data, version and end in milliseconds since 1970 (-1: none). What an old
// Dapr wrote is a string, and has version 0. Servers before Redis 7 tell what is left of a time alone, by a clock that may be a
// millisecond behind the one that they tell.
var readScript = newScript(`
local all = {}
local now = redis.call('TIME')
local function ends(key)
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) == 'number' then
    return string.format('%.0f', math.max(at, -1))
  end
  local left = redis.call('PTTL', key)
  if left < 0 then
    return '-1'
  end
  return string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + left)
end
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then
    all[i] = {}
  elseif kind == 'hash' then
    local item = redis.call('HMGET', key, 'data', 'version')
    all[i] = {item[1] or '', item[2] or '0', ends(key)}
  elseif kind == 'string' then
    all[i] = {redis.call('GET', key), '0', ends(key)}
  else
    return redis.error_reply('ERR the key holds a ' .. kind .. ', which is no item of a state store')
  end
end
return all`)

// writeScript does all of a batch or none. For each key there are five arguments: what to do (s, d, c), what to expect
// (any, exact, absent), the version expected, the time to live in milliseconds (0: none) and the value. It answers with the
// new versions, or with the number of the op that did not find what it expected.
var writeScript = newScript(`
local versions = {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local kind = redis.call('TYPE', key).ok
  local version = false
  if kind == 'hash' then
    version = redis.call('HGET', key, 'version') or '0'
  elseif kind ~= 'none' then
    version = '0'
  end
  local match = ARGV[at + 2]
  if (match == 'exact' and version ~= ARGV[at + 3]) or (match == 'absent' and version) then
    return i
  end
  versions[i] = version
end
local answer = {}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  answer[i] = ''
  if ARGV[at + 1] == 'd' then
    redis.call('DEL', key)
  elseif ARGV[at + 1] == 's' then
    local version
    if versions[i] and versions[i] ~= '0' then
      version = string.format('%.0f', tonumber(versions[i]) + 1)
    else
      local now = redis.call('TIME')
      version = string.format('%.0f', now[1] * 1000000 + now[2])
    end
    redis.call('DEL', key)
    redis.call('HSET', key, 'data', ARGV[at + 5], 'version', version)
    if ARGV[at + 4] ~= '0' then
      redis.call('PEXPIRE', key, ARGV[at + 4])
    end
    answer[i] = version
  end
end
return answer`)

// Get implements state.Store.
func (r *redisStore) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	const op = "state.redis: get"
	calling, leave, err := r.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	var items []state.Item
	for _, group := range r.groups(keys) {
		answer, err := readScript.run(calling, r.life, r.client, group)
		if err != nil {
			return nil, r.life.failure(ctx, op, err)
		}
		for i, entry := range listOf(answer) {
			item, ok, err := readItem(group[i], listOf(entry))
			if err != nil {
				return nil, r.life.failure(ctx, op, err)
			}
			if ok {
				items = append(items, item)
			}
		}
	}
	return items, nil
}

// groups parts keys into those that one script may read.
func (r *redisStore) groups(keys []string) [][]string {
	switch {
	case len(keys) == 0:
		return nil
	case !r.apart:
		return [][]string{keys}
	}
	groups := make([][]string, len(keys))
	for i, key := range keys {
		groups[i] = []string{key}
	}
	return groups
}

func readItem(key string, entry []any) (item state.Item, exists bool, err error) {
	if len(entry) == 0 {
		return state.Item{}, false, nil
	}
	if len(entry) != 3 {
		return state.Item{}, false, fmt.Errorf("the script answered with %d fields for %q", len(entry), key)
	}
	item = state.Item{Key: key, Value: []byte(textOf(entry[0])), ETag: textOf(entry[1])}
	ends, err := strconv.ParseInt(textOf(entry[2]), 10, 64)
	if err == nil && ends >= 0 {
		item.Expires = time.UnixMilli(ends + 1) // a key lives through the millisecond that it ends in
	}
	return item, true, err
}

func listOf(answer any) []any {
	list, _ := answer.([]any)
	return list
}

func textOf(answer any) string {
	switch v := answer.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

// Apply implements state.Store.
func (r *redisStore) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	const op = "state.redis: apply"
	calling, leave, err := r.life.enter(ctx, op)
	if err != nil || len(ops) == 0 {
		if err == nil {
			leave()
		}
		return nil, err
	}
	defer leave()
	args := make([]any, 0, 5*len(ops))
	for _, o := range ops {
		if err := checkRedisOp(op, o); err != nil {
			return nil, err
		}
		ttl := max(o.TTL.Milliseconds(), min(int64(o.TTL), 1)) // no less than the server's least
		if ttl == 0 {
			ttl = int64(r.ttl) * 1000
		}
		args = append(args, [...]string{"s", "d", "c"}[o.Kind], [...]string{"any", "exact", "absent"}[o.Match], o.ETag, ttl, bytes.Clone(o.Value))
	}
	answer, err := writeScript.run(calling, r.life, r.client, keysOf(ops), args...)
	if err != nil {
		if strings.HasPrefix(err.Error(), "CROSSSLOT") {
			return nil, fault.New(op, fault.NotSupported, "a cluster applies a batch only when its keys are in one slot: give them a common {tag}")
		}
		return nil, r.life.failure(ctx, op, err)
	}
	if at, conflict := answer.(int64); conflict {
		return nil, mismatch(op, ops[at-1])
	}
	tags := make([]string, len(ops))
	for i, version := range listOf(answer) {
		tags[i] = textOf(version)
	}
	return tags, nil
}

func checkRedisOp(op string, o state.Op) error {
	switch {
	case o.Match == state.Exact && !isVersion(o.ETag):
		return fault.New(op, fault.ETagMalformed, "%q is no ETag of state.redis: it is a number", o.ETag).With("key", o.Key)
	case o.Kind == state.Set && len(o.Value) > MaxValue:
		return tooLarge(op, o)
	}
	return nil
}

func isVersion(text string) bool {
	n, err := strconv.ParseInt(text, 10, 64)
	return err == nil && n >= 0 && strconv.FormatInt(n, 10) == text
}

// Close implements state.Store.
func (r *redisStore) Close(ctx context.Context) error {
	return r.life.close(ctx, "state.redis: close", r.client.Close)
}
