package contrib

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dapr/components-contrib/common/component/redis"
	"github.com/dapr/components-contrib/configuration"
	contribmetadata "github.com/dapr/components-contrib/metadata"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/fault"
)

var redisConfiguration = components.Foreign(components.ConfigurationBlock, "redis",
	"Settings as texts in Redis or a server that speaks its protocol, 5 or newer, each with its version behind `||`.", redisConfigurationFields, openRedisConfiguration)

// redisConfig reads what Dapr reads, with the library's client and settings. Of the library's subscription it takes the part
// that listens: that starts goroutines which nobody waits for, and a message that the server sent while the connection was
// lost is lost to it. So the keys that are watched are looked at again from time to time, too.
type redisConfig struct {
	client redis.RedisClient
	db     int
	apart  bool // a cluster: keys of one call may be on different servers
	life   *life
}

var _ configstore.Store = (*redisConfig)(nil)

func openRedisConfiguration(ctx context.Context, host components.Host, s components.Settings) (configstore.Store, error) {
	client, settings, err := redisClient(ctx, "configuration.redis: open", host, s, contribmetadata.ConfigurationStoreType)
	if err != nil {
		return nil, err
	}
	return &redisConfig{client: client, db: settings.DB, apart: settings.RedisType == redis.ClusterType, life: newLife(host.Log)}, nil
}

// Get implements configstore.Store. Keys of another type than a text, and empty texts, are no settings.
func (r *redisConfig) Get(ctx context.Context, keys []string, _ map[string]string) (map[string]configstore.Item, error) {
	const op = "configuration.redis: get"
	calling, leave, err := r.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := r.named(op, keys); err != nil {
		return nil, err
	}
	keys = slices.Clone(keys)
	items, err := detached(calling, r.life, func() (map[string]configstore.Item, error) {
		if len(keys) == 0 {
			if keys, err = r.names(calling); err != nil {
				return nil, err
			}
		}
		return r.read(calling, keys)
	})
	if err != nil {
		return nil, r.life.failure(ctx, op, err)
	}
	return items, nil
}

// named refuses a call for all keys of a cluster: the library asks any one of its servers, so that some would be missing.
func (r *redisConfig) named(op string, keys []string) error {
	if r.apart && len(keys) == 0 {
		return fault.New(op, fault.NotSupported, "a cluster cannot list its keys: name those that are wanted")
	}
	return nil
}

// names are all keys there are. SCAN does not keep others from the server while it looks.
func (r *redisConfig) names(ctx context.Context) (keys []string, err error) {
	for cursor := "0"; ; {
		answer, err := r.client.DoRead(ctx, "SCAN", cursor, "COUNT", 1000)
		if err != nil {
			return nil, err
		}
		parts := listOf(answer)
		if len(parts) != 2 {
			return nil, fmt.Errorf("SCAN answered with %d fields", len(parts))
		}
		for _, key := range listOf(parts[1]) {
			keys = append(keys, textOf(key))
		}
		if cursor = textOf(parts[0]); cursor == "0" {
			return keys, nil
		}
	}
}

const readTogether = 500 // keys of one MGET

func (r *redisConfig) read(ctx context.Context, keys []string) (map[string]configstore.Item, error) {
	items := make(map[string]configstore.Item, len(keys))
	add := func(key, text string) {
		value, version, _ := strings.Cut(text, "||")
		version, _, _ = strings.Cut(version, "||")
		if value != "" {
			items[key] = configstore.Item{Value: value, Version: version}
		}
	}
	most := readTogether
	if r.apart {
		most = 1
	}
	for some := range slices.Chunk(keys, most) {
		command := []any{"MGET"} // of one key too: it answers nothing for what is no text
		for _, key := range some {
			command = append(command, key)
		}
		answer, err := r.client.DoRead(ctx, command...)
		if err != nil {
			return nil, err
		}
		for i, text := range listOf(answer) {
			if text != nil {
				add(some[i], textOf(text))
			}
		}
	}
	return items, nil
}

const (
	lookFew     = 3 * time.Second  // how often keys are looked at that the server may have told of in vain
	lookAll     = 30 * time.Second // all keys there are
	mostApart   = 8                // keys with a connection each; more are picked from what is told of all
	firstLook   = 200 * time.Millisecond
	resubscribe = time.Second // after a listener that ended
)

// Watch implements configstore.Store. The server tells of changes when it has been told to, which the library does:
// `notify-keyspace-events` is then "Kg$xe".
func (r *redisConfig) Watch(ctx context.Context, keys []string, _ map[string]string, changed func(keys []string)) error {
	const op = "configuration.redis: watch"
	calling, leave, err := r.life.enter(ctx, op)
	if err != nil {
		return err
	}
	if err := r.named(op, keys); err != nil {
		leave()
		return err
	}
	var listeners sync.WaitGroup
	defer func() {
		r.life.strays.Go(listeners.Wait)
		leave() // ends the listeners' context as well
	}()
	prefix := fmt.Sprintf("__keyspace@%d__:", r.db)
	channels, pattern := []string{prefix + "*"}, true
	if n := len(keys); n > 0 && n <= mostApart {
		channels, pattern = nil, false
		for _, key := range keys {
			channels = append(channels, prefix+key)
		}
	}
	for _, channel := range channels {
		listeners.Go(func() {
			for calling.Err() == nil {
				r.listen(calling, channel, pattern, func(channel string) {
					if key, ok := strings.CutPrefix(channel, prefix); ok {
						changed([]string{key})
					}
				})
				pause(calling, resubscribe)
			}
		})
	}
	changed(nil)
	often := lookFew
	if len(keys) == 0 {
		often = lookAll
	}
	for wait := firstLook; pause(calling, wait); wait = min(4*wait, often) {
		changed(nil)
	}
	return r.life.failure(ctx, op, context.Cause(calling))
}

// listen is the library's listening to one channel, or to those of a pattern.
func (r *redisConfig) listen(ctx context.Context, channel string, pattern bool, heard func(channel string)) {
	defer func() {
		if p := recover(); p != nil && ctx.Err() == nil { // as it does when its connections are closed under it
			r.life.log.Warn("the library panicked while it listened", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	r.client.ConfigurationSubscribe(ctx, &redis.ConfigurationSubscribeArgs{
		RedisChannel: channel, IsAllKeysChannel: pattern, Req: &configuration.SubscribeRequest{},
		HandleSubscribedChange: func(_ context.Context, _ *configuration.SubscribeRequest, _ configuration.UpdateHandler, channel, _ string) {
			heard(channel)
		},
	})
}

// Close implements configstore.Store.
func (r *redisConfig) Close(ctx context.Context) error {
	return r.life.close(ctx, "configuration.redis: close", func() error {
		if err := r.client.Close(); err != nil {
			return fault.E("configuration.redis: close", fault.None, fault.BackendFailed, err)
		}
		return nil
	})
}
