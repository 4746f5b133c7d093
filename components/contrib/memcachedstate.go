package contrib

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

var memcachedState = components.Foreign(components.StateBlock, "memcached",
	"Values in memcached, which forgets them when it likes: a cache. No ETags, no transactions, and nobody tells when an item expires.",
	func() []components.Field {
		return []components.Field{
			field("hosts", "string", "Addresses of the servers, host:port, separated by commas; each key is on one of them.", needed),
			field("maxIdleConnections", "int", "Most connections kept open to each server without work.", standard("2"), within("1", "1000")),
			field("timeout", "int", "How long the server may take to answer, in milliseconds.", standard("1000"), within("1", "3600000")),
		}
	}, openMemcached)

// memcachedStore keeps a value as it is, like the library's store. What expects something of an item is refused, where the
// library's writes regardless. The server's own versions would not do: they begin again when it does.
type memcachedStore struct {
	client *memcache.Client
	slots  chan struct{} // see bounded
	life   *life
}

var (
	_ state.Store = (*memcachedStore)(nil)
	_ state.Plain = (*memcachedStore)(nil)
)

func openMemcached(ctx context.Context, host components.Host, s components.Settings) (*memcachedStore, error) {
	const op = "state.memcached: open"
	var hosts []string
	for _, name := range strings.Split(s.Values["hosts"], ",") {
		if name = strings.TrimSpace(name); name != "" {
			hosts = append(hosts, name)
		}
	}
	if len(hosts) == 0 {
		return nil, s.Invalid("hosts", errors.New("hosts names no server"))
	}
	servers := new(memcache.ServerList)
	m := &memcachedStore{client: memcache.NewFromSelector(servers), slots: make(chan struct{}, mostOut), life: newLife(host.Log)}
	m.client.Timeout, m.client.MaxIdleConns = time.Duration(s.Int("timeout"))*time.Millisecond, int(s.Int("maxIdleConnections"))
	_, err := detached(ctx, m.life, func() (struct{}, error) {
		if err := servers.SetServers(hosts...); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, m.client.Ping()
	})
	if err != nil {
		_ = m.client.Close()
		return nil, badOpen(ctx, op, s, memcachedError(err))
	}
	return m, nil
}

// Plain implements state.Plain.
func (*memcachedStore) Plain() {}

// Get implements state.Store.
func (m *memcachedStore) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	const op = "state.memcached: get"
	calling, leave, err := m.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	names := make(map[string]bool, len(keys))
	for _, key := range keys {
		names[cached(key)] = true
	}
	found, err := bounded(calling, m.life, m.slots, func() (map[string]*memcache.Item, error) {
		return m.client.GetMulti(slices.Collect(maps.Keys(names)))
	})
	if err != nil {
		return nil, m.failure(ctx, op, err)
	}
	var items []state.Item
	for _, key := range keys {
		if item, ok := found[cached(key)]; ok {
			items = append(items, state.Item{Key: key, Value: bytes.Clone(item.Value)})
		}
	}
	return items, nil
}

// Apply implements state.Store, for single ops.
func (m *memcachedStore) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	const op = "state.memcached: apply"
	calling, leave, err := m.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	switch {
	case len(ops) == 0:
		return nil, nil
	case len(ops) > 1:
		return nil, fault.New(op, fault.NotSupported, "state.memcached has no transactions")
	case ops[0].Match != state.Any:
		return nil, fault.New(op, fault.NotSupported, "state.memcached has no ETags: a write cannot expect anything").With("key", ops[0].Key)
	case ops[0].Kind == state.Set && len(ops[0].Value) > MaxValue:
		return nil, tooLarge(op, ops[0])
	}
	o := ops[0]
	o.Value = bytes.Clone(o.Value)
	if o.Kind != state.Check {
		_, err = bounded(calling, m.life, m.slots, func() (struct{}, error) { return struct{}{}, m.write(o) })
	}
	if err != nil {
		return nil, m.failure(ctx, op, err)
	}
	return []string{""}, nil
}

func (m *memcachedStore) write(o state.Op) error {
	if o.Kind == state.Delete {
		if err := m.client.Delete(cached(o.Key)); !errors.Is(err, memcache.ErrCacheMiss) {
			return err
		}
		return nil
	}
	item := &memcache.Item{Key: cached(o.Key), Value: o.Value}
	if o.TTL > 0 {
		ends, err := expiration(o.TTL, time.Now())
		if err != nil {
			return err
		}
		item.Expiration = ends
	}
	return m.client.Set(item)
}

// expiration is ttl as the server wants it: in seconds up to a month, above that the second at which it ends. It counts the
// second that has begun, so one more keeps an item from going before its time.
func expiration(ttl time.Duration, now time.Time) (int32, error) {
	const month = 60 * 60 * 24 * 30
	left := seconds(ttl) + 1
	if left > month {
		left += now.Unix()
	}
	if int64(int32(left)) != left {
		return 0, fault.New("", fault.TTLInvalid, "a time to live of %v is too long for state.memcached", ttl)
	}
	return int32(left), nil
}

// longestCached is the most bytes of a key.
const longestCached = 250

// digested starts the name of a key that is too long: its SHA-256 follows.
const digested = "sidecast-sha256:"

// cached is the name of key at the server: the key itself, if the server takes it and the client can read it in an answer.
func cached(key string) string {
	plain := len(key) <= longestCached && utf8.ValidString(key) && !strings.HasPrefix(key, escaped) && !strings.HasPrefix(key, digested)
	if plain && !strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r == 0x7f || unicode.IsSpace(r) }) {
		return key
	}
	if name := fmt.Sprint(escaped, hex.EncodeToString([]byte(key))); len(name) <= longestCached {
		return name
	}
	sum := sha256.Sum256([]byte(key))
	return digested + hex.EncodeToString(sum[:])
}

// failure is the fault of a call of ctx.
func (m *memcachedStore) failure(ctx context.Context, op string, err error) error {
	if ctx.Err() == nil && m.life.ctx.Err() == nil {
		err = memcachedError(err)
	}
	return m.life.failure(ctx, op, err)
}

// memcachedError gives err the reason that the client does not know.
func memcachedError(err error) error {
	if err == nil {
		return nil
	}
	var late *memcache.ConnectTimeoutError
	switch text := err.Error(); {
	case strings.Contains(text, "object too large"):
		return fault.E("", fault.None, fault.ValueTooLarge, err)
	case strings.Contains(text, "out of memory"):
		return fault.E("", fault.None, fault.StoreFull, err)
	case errors.As(err, &late), errors.Is(err, memcache.ErrNoServers), errors.Is(err, memcache.ErrServerError):
		return fault.E("", fault.None, fault.BackendDown, err)
	}
	return err
}

// Close implements state.Store.
func (m *memcachedStore) Close(ctx context.Context) error {
	return m.life.close(ctx, "state.memcached: close", m.client.Close)
}
