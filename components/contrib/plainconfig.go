package contrib

import (
	"context"
	"maps"
	"slices"

	"github.com/dapr/components-contrib/configuration"
	contribmetadata "github.com/dapr/components-contrib/metadata"
	"github.com/dapr/kit/logger"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
)

// plainConfiguration makes a component of a configuration store of the library.
func plainConfiguration(name string, make func(logger.Logger) configuration.Store) components.Component {
	d := described{block: components.ConfigurationBlock, product: name, own: func() any { return make(logs{log: unheard}) }}
	name = "configuration." + name
	return components.Described(d.block, d.product, d.doc, d.fields, func(ctx context.Context, host components.Host, s components.Settings) (configstore.Store, error) {
		p := &plainConfig{name: name, inner: make(newLogs(host.Log, nil)), life: newLife(host.Log), slots: makeSlots()}
		// A store may follow its server for as long as the context of Init lasts.
		err := initialize(ctx, p.life, p.inner, func() error {
			return p.inner.Init(p.life.ctx, configuration.Metadata{Base: contribmetadata.Base{Name: host.Component, Properties: maps.Clone(s.Values)}})
		})
		if err != nil {
			p.life.cut()
			return nil, badOpen(ctx, name+": open", s, err)
		}
		return p, nil
	})
}

// plainConfig makes a configuration store of the library one of ours.
type plainConfig struct {
	name  string // the component's type
	inner configuration.Store
	life  *life
	slots chan struct{}
}

var _ configstore.Store = (*plainConfig)(nil)

// Get implements configstore.Store.
func (p *plainConfig) Get(ctx context.Context, keys []string, metadata map[string]string) (map[string]configstore.Item, error) {
	op := p.name + ": get"
	calling, leave, err := p.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	request := &configuration.GetRequest{Keys: slices.Clone(keys), Metadata: maps.Clone(metadata)}
	answer, err := bounded(calling, p.life, p.slots, func() (*configuration.GetResponse, error) { return p.inner.Get(calling, request) })
	if err != nil {
		return nil, p.life.failure(ctx, op, err)
	}
	items := map[string]configstore.Item{}
	if answer != nil {
		for key, item := range answer.Items {
			if item != nil {
				items[key] = configstore.Item{Value: item.Value, Version: item.Version, Metadata: item.Metadata}
			}
		}
	}
	return items, nil
}

// Watch implements configstore.Store. What the library's subscription tells is only that something may have changed: whoever
// watches reads anew.
func (p *plainConfig) Watch(ctx context.Context, keys []string, metadata map[string]string, changed func(keys []string)) error {
	op := p.name + ": watch"
	calling, leave, err := p.life.enter(ctx, op)
	if err != nil {
		return err
	}
	defer leave()
	request := &configuration.SubscribeRequest{Keys: slices.Clone(keys), Metadata: maps.Clone(metadata)}
	id, err := bounded(calling, p.life, p.slots, func() (string, error) {
		return p.inner.Subscribe(calling, request, func(_ context.Context, e *configuration.UpdateEvent) error {
			if e != nil && calling.Err() == nil {
				changed(slices.Collect(maps.Keys(e.Items)))
			}
			return nil
		})
	})
	if err != nil {
		return p.life.failure(ctx, op, err)
	}
	changed(nil)
	<-calling.Done()
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	_, err = bounded(closing, p.life, p.slots, func() (struct{}, error) {
		return struct{}{}, p.inner.Unsubscribe(closing, &configuration.UnsubscribeRequest{ID: id})
	})
	if err != nil {
		p.life.log.Debug("a subscription did not end cleanly", "component", p.name, "error", err)
	}
	return p.life.failure(ctx, op, context.Cause(calling))
}

// Close implements configstore.Store.
func (p *plainConfig) Close(ctx context.Context) error {
	return p.life.close(ctx, p.name+": close", func() error {
		closeQuietly(p.inner)
		return nil
	})
}
