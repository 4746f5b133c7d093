//go:build linux

package contrib

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/tests/servers"
)

// ends fails when call does not return, with the kind of its context's end, long after that.
func ends(t *testing.T, what string, call func(ctx context.Context) error) {
	t.Helper()
	for _, end := range []struct {
		kind    fault.Kind
		context func() (context.Context, context.CancelFunc)
	}{
		{fault.Timeout, func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 50*time.Millisecond)
		}},
		{fault.Canceled, func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		}},
	} {
		ctx, cancel := end.context()
		done := make(chan error, 1)
		go func() { done <- call(ctx) }()
		select {
		case err := <-done:
			if fault.KindOf(err) != end.kind {
				t.Errorf("%s gave %v (%v), want %v", what, err, fault.KindOf(err), end.kind)
			}
		case <-time.After(hung):
			t.Errorf("%s does not end with its context (%v)", what, end.kind)
		}
		cancel()
	}
}

// closes closes a backend whose server is silent, and waits for what that leaves behind once its connections are cut.
func closes(t *testing.T, r *relay, closer func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := closer(ctx); err != nil && fault.KindOf(err) != fault.Timeout {
		t.Errorf("Close: %v", err)
	}
	r.close()
	if err := closer(t.Context()); err != nil && fault.KindOf(err) != fault.Internal && fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Close once the connections are cut: %v", err)
	}
}

// behindRelay is the address of a database of Redis with a relay before it. No time limit of the library's own helps.
func behindRelay(t *testing.T) (*relay, map[string]string) {
	settings := redisSettings(t)
	r := relayTo(t, settings["redisHost"])
	settings["redisHost"], settings["readTimeout"], settings["writeTimeout"] = r.address(), "1h", "1h"
	return r, settings
}

func TestStatesEndCallsOfASilentServer(t *testing.T) {
	t.Parallel()
	relayed, redis := behindRelay(t)
	u, err := url.Parse(servers.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	sql := relayTo(t, u.Host)
	u.Host = sql.address()
	postgres := postgresSettings("tablePrefix")(t)
	postgres["connectionString"] = u.String()
	mysql := relayTo(t, servers.MySQL(t))
	etcd := relayTo(t, servers.Etcd(t))
	memcached := relayTo(t, servers.Memcached(t))
	mongo := relayTo(t, servers.MongoDB(t))
	for name, at := range map[string]struct {
		c        components.Component
		relay    *relay
		settings map[string]string
	}{
		"redis":     {redisState, relayed, redis},
		"postgres":  {postgresV2, sql, postgres},
		"mysql":     {mysqlState, mysql, mysqlAt(mysql.address())},
		"etcd":      {etcdV2, etcd, etcdAt(etcd.address())},
		"mongodb":   {mongoState, mongo, mongoAt(mongo.address())},
		"memcached": {memcachedState, memcached, memcachedAt(memcached.address())},
	} {
		t.Run(name, func(t *testing.T) {
			s := openState(t, at.c, at.settings)
			at.relay.silence()
			ends(t, "Get", func(ctx context.Context) error {
				_, err := s.Get(ctx, []string{"k"})
				return err
			})
			ends(t, "Apply", func(ctx context.Context) error {
				_, err := s.Apply(ctx, []state.Op{{Kind: state.Set, Key: "k"}})
				return err
			})
			closes(t, at.relay, s.Close)
		})
	}
}

func TestLocksEndCallsOfASilentServer(t *testing.T) {
	t.Parallel()
	r, settings := behindRelay(t)
	l := openLock(t, settings)
	lease, err := l.Acquire(t.Context(), "held", "me", time.Minute, false)
	if err != nil {
		t.Fatal(err)
	}
	r.silence()
	ends(t, "Acquire", func(ctx context.Context) error {
		_, err := l.Acquire(ctx, "l", "me", time.Minute, true)
		return err
	})
	ends(t, "Renew", func(ctx context.Context) error {
		_, err := l.Renew(ctx, lease, time.Minute)
		return err
	})
	ends(t, "Release", func(ctx context.Context) error { return l.Release(ctx, lease) })
	ends(t, "Watch", func(ctx context.Context) error {
		return l.Watch(ctx, "l", func(lock.Status) error { return nil })
	})
	closes(t, r, l.Close)
}

func TestBrokersEndCallsOfASilentServer(t *testing.T) {
	t.Parallel()
	relayed, redis := behindRelay(t)
	u, err := url.Parse(servers.RabbitMQ(t))
	if err != nil {
		t.Fatal(err)
	}
	amqp := relayTo(t, u.Host)
	u.Host = amqp.address()
	native := ownNats(t)
	native.addStream(t, "silent")
	quietNats := relayTo(t, native.running.Addr().String())
	for name, at := range map[string]struct {
		c        components.Component
		relay    *relay
		settings map[string]string
	}{
		"redis":     {redisPubSub, relayed, redis},
		"jetstream": {jetstreamPubSub, quietNats, map[string]string{"natsURL": "nats://" + quietNats.address()}},
		"rabbitmq":  {rabbitPubSub, amqp, map[string]string{"connectionString": u.String()}},
	} {
		t.Run(name, func(t *testing.T) {
			b := openBroker(t, at.c, at.settings)
			f, err := b.Subscribe(patiently(t), "silent", pubsub.Group{Name: "g", AckWait: 2 * hung})
			if err != nil {
				t.Fatal(err)
			}
			at.relay.silence()
			ends(t, "Publish", func(ctx context.Context) error {
				return b.Publish(ctx, "silent", []pubsub.Message{{ID: "1"}})[0]
			})
			ends(t, "Next", func(ctx context.Context) error {
				_, err := f.Next(ctx, 1)
				return err
			})
			ends(t, "Subscribe", func(ctx context.Context) error {
				_, err := b.Subscribe(ctx, "other", pubsub.Group{Name: "g", AckWait: 2 * hung, OnlyNew: true})
				return err
			})
			closes(t, at.relay, b.Close)
		})
	}
}
