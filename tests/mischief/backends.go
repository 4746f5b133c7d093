package mischief

import (
	"context"
	"time"

	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
)

// Store harms the calls of a store. It can do no more than Get and Apply, whatever the store can.
func Store(inner state.Store, p *Plan) state.Store { return &store{inner, p} }

type store struct {
	state.Store
	plan *Plan
}

func (s *store) Get(ctx context.Context, keys []string) (items []state.Item, err error) {
	err = s.plan.Meet(ctx, "get", func() (err error) {
		items, err = s.Store.Get(ctx, keys)
		return err
	})
	if err != nil {
		return nil, err
	}
	return items, nil
}

func (s *store) Apply(ctx context.Context, ops []state.Op) (etags []string, err error) {
	err = s.plan.Meet(ctx, "apply", func() (err error) {
		etags, err = s.Store.Apply(ctx, ops)
		return err
	})
	if err != nil {
		return nil, err
	}
	return etags, nil
}

// Broker harms the calls of a broker and of its feeds: Publish, Subscribe and Next.
func Broker(inner pubsub.Broker, p *Plan) pubsub.Broker { return &broker{inner, p} }

type broker struct {
	pubsub.Broker
	plan *Plan
}

func (b *broker) Publish(ctx context.Context, topic string, messages []pubsub.Message) []error {
	var results []error
	err := b.plan.Meet(ctx, "publish", func() error {
		results = b.Broker.Publish(ctx, topic, messages)
		return nil
	})
	if err == nil {
		return results
	}
	results = make([]error, len(messages))
	for i := range results {
		results[i] = err
	}
	return results
}

func (b *broker) Subscribe(ctx context.Context, topic string, group pubsub.Group) (f pubsub.Feed, err error) {
	err = b.plan.Meet(ctx, "subscribe", func() (err error) {
		f, err = b.Broker.Subscribe(ctx, topic, group)
		return err
	})
	if err != nil {
		if f != nil { // its answer was lost, and nobody will close it
			_ = f.Close(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	return &feed{f, b.plan}, nil
}

type feed struct {
	pubsub.Feed
	plan *Plan
}

func (f *feed) Next(ctx context.Context, n int) (deliveries []pubsub.Delivery, err error) {
	err = f.plan.Meet(ctx, "next", func() (err error) {
		deliveries, err = f.Feed.Next(ctx, n)
		return err
	})
	if err != nil {
		for _, d := range deliveries { // they never arrive: the broker has them back
			_ = d.Retry(context.WithoutCancel(ctx), 0)
		}
		return nil, err
	}
	return deliveries, nil
}

// Locker harms Acquire, Renew and Release of a locker. It cannot be watched less well.
func Locker(inner lock.Locker, p *Plan) lock.Locker { return &locker{inner, p} }

type locker struct {
	lock.Locker
	plan *Plan
}

func (l *locker) Acquire(ctx context.Context, name, owner string, ttl time.Duration, wait bool) (lease lock.Lease, err error) {
	err = l.plan.Meet(ctx, "acquire", func() (err error) {
		lease, err = l.Locker.Acquire(ctx, name, owner, ttl, wait)
		return err
	})
	if err != nil && lease.Token != 0 { // an Acquire that fails holds nothing
		_ = l.Locker.Release(context.WithoutCancel(ctx), lease)
		lease = lock.Lease{}
	}
	return lease, err
}

func (l *locker) Renew(ctx context.Context, lease lock.Lease, ttl time.Duration) (renewed lock.Lease, err error) {
	err = l.plan.Meet(ctx, "renew", func() (err error) {
		renewed, err = l.Locker.Renew(ctx, lease, ttl)
		return err
	})
	return renewed, err
}

func (l *locker) Release(ctx context.Context, lease lock.Lease) error {
	return l.plan.Meet(ctx, "release", func() error { return l.Locker.Release(ctx, lease) })
}
