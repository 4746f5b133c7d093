package blocks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/resiliency"
)

const (
	// MaxConfigurationKeys is the most keys of one call.
	MaxConfigurationKeys = 1000
	// maxFollowers is the most subscriptions of one sidecar.
	maxFollowers = 1024
)

// Configuration reads settings for the app and tells it of changes.
type Configuration struct {
	components *components.Set
	app        *App
	log        *slog.Logger
	rules      *rulebook
	lanes      *componentLanes
	inbound    sync.Map // component → *guard of what the app is told

	mu        sync.Mutex
	followers map[string]*follower     // by id
	delivered map[string]string        // id of what the app is told, by the key of its request,
	beginning map[string]chan struct{} // closed once it is known
	stopped   bool
	running   sync.WaitGroup // followers; Add under mu and only while not stopped

	working context.Context // of all deliveries to the app
	cut     func()
}

func newConfiguration(d Deps, app *App, rules *rulebook) *Configuration {
	c := &Configuration{
		components: d.Components, app: app, log: d.Log, rules: rules, followers: make(map[string]*follower), delivered: make(map[string]string), beginning: make(map[string]chan struct{}),
		lanes: newComponentLanes(d, rules, "configuration", governance.Configuration),
	}
	c.working, c.cut = context.WithCancel(context.Background())
	return c
}

// ConfigurationRequest names settings of a component: those of Keys, or all there are when it names none. Metadata is for the
// component.
type ConfigurationRequest struct {
	Component string
	Keys      []string
	Metadata  map[string]string
}

// distinct names each key once, for all that backends make of one that is named twice.
func (r ConfigurationRequest) distinct() ConfigurationRequest {
	r.Keys = slices.Compact(slices.Sorted(slices.Values(r.Keys)))
	return r
}

// key is the same for requests of the same.
func (r ConfigurationRequest) key() string {
	return fmt.Sprintf("%q %q %q", r.Component, r.distinct().Keys, r.Metadata)
}

func (r ConfigurationRequest) check(op string) error {
	if len(r.Keys) > MaxConfigurationKeys {
		return fault.New("configuration: "+op, fault.BadRequest, "%d keys asked for; at most %d are allowed", len(r.Keys), MaxConfigurationKeys)
	}
	return nil
}

// Get returns the items that exist, by key.
func (c *Configuration) Get(ctx context.Context, r ConfigurationRequest) (items map[string]configstore.Item, err error) {
	if err := r.check("get"); err != nil {
		return nil, err
	}
	r = r.distinct()
	use, err := c.components.Configuration(ctx, r.Component)
	if err != nil {
		return nil, err
	}
	defer use.Release()
	return c.read(ctx, use, r.Keys, r.Metadata)
}

func (c *Configuration) read(ctx context.Context, use components.Use[configstore.Store], keys []string, metadata map[string]string) (_ map[string]configstore.Item, err error) {
	ctx, record := c.lanes.begin(ctx, use.Name, "get")
	defer record.end(&err)
	return pass(ctx, c.lanes.of(use.Name), "", resiliency.Call{Op: "get", Idempotent: true},
		func(ctx context.Context, _ actors.Grant) (map[string]configstore.Item, error) {
			return use.Backend.Get(ctx, keys, metadata)
		}, asItIs)
}

// Subscribe calls fn first with the id of the subscription and no items, and from then on with the items that have changed;
// the item of a key that is gone is zero. A fn that takes its time gets the latest of each key next, and a component that was
// away or replaced what has changed meanwhile. Subscribe returns nil when ctx ends, Unsubscribe or the shutdown ends the
// subscription, and an error when it cannot begin, fn fails, or the component is gone.
func (c *Configuration) Subscribe(ctx context.Context, r ConfigurationRequest, fn func(id string, items map[string]configstore.Item) error) error {
	if err := r.check("subscribe"); err != nil {
		return err
	}
	r = r.distinct()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := newFollower(c, r, cancel, fn)
	if err := c.enroll(f); err != nil {
		return err
	}
	defer c.dismiss(f)
	return f.run(ctx)
}

func (c *Configuration) enroll(f *follower) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopped:
		return fault.New("configuration: subscribe", fault.Shutdown, "the sidecar is shutting down")
	case len(c.followers) >= maxFollowers:
		return fault.New("configuration: subscribe", fault.SubscriptionsFull, "there are %d subscriptions, the most of one sidecar", maxFollowers)
	}
	f.id = uuid.NewString()
	c.followers[f.id] = f
	c.running.Add(1)
	return nil
}

func (c *Configuration) dismiss(f *follower) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(f)
	c.running.Done()
}

// forget takes a follower out. c.mu is held.
func (c *Configuration) forget(f *follower) {
	delete(c.followers, f.id)
	if key := f.request.key(); c.delivered[key] == f.id {
		delete(c.delivered, key)
	}
}

// Unsubscribe ends a subscription; component "" stands for any. It is false when there is none of that id.
func (c *Configuration) Unsubscribe(component, id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.followers[id]
	if f == nil || component != "" && f.request.Component != component {
		return false
	}
	c.forget(f)
	f.cancel()
	return true
}

// Deliver subscribes on behalf of the app and returns the id once that has begun: until Unsubscribe, the app is given the
// request that form makes of each item that has changed. ctx bounds the beginning. What is asked for again, as by an app that
// was started anew, is the subscription that there is.
func (c *Configuration) Deliver(ctx context.Context, r ConfigurationRequest, form func(id, key string, item configstore.Item) *call.Request) (string, error) {
	id, begun, err := c.turn(ctx, r.key())
	if begun == nil {
		return id, err
	}
	defer begun()
	life, cancel := context.WithCancel(c.working)
	began, ended := make(chan string, 1), make(chan error, 1)
	go func() { // stop waits for it: it is a follower for as long as it runs
		defer cancel()
		err := contained(c.log, "configuration: deliver", func() error {
			return c.Subscribe(life, r, func(id string, items map[string]configstore.Item) error {
				if items == nil {
					c.deliver(r, id)
					began <- id
				}
				for key, item := range items {
					c.tell(life, r.Component, key, form(id, key, item))
				}
				return nil
			})
		})
		if err != nil {
			c.log.Warn("a subscription to settings has ended", "component", r.Component, "keys", r.Keys, "error", err)
		}
		ended <- err
	}()
	select {
	case id := <-began:
		return id, nil
	case err := <-ended:
		if err == nil {
			err = fault.New("configuration: subscribe", fault.Shutdown, "the sidecar is shutting down")
		}
		return "", err
	case <-ctx.Done():
		cancel()
		<-ended
		return "", fault.FromContext("configuration: subscribe", ctx, "the subscription to begin")
	}
}

// turn is the id of the subscription of that key that there is, or the caller's turn to begin one, which ends with begun.
func (c *Configuration) turn(ctx context.Context, key string) (id string, begun func(), err error) {
	for {
		c.mu.Lock()
		id, ok := c.delivered[key]
		other := c.beginning[key]
		if !ok && other == nil {
			own := make(chan struct{})
			c.beginning[key] = own
			c.mu.Unlock()
			return "", func() {
				c.mu.Lock()
				defer c.mu.Unlock()
				delete(c.beginning, key)
				close(own)
			}, nil
		}
		c.mu.Unlock()
		if ok {
			return id, nil, nil
		}
		select {
		case <-other:
		case <-ctx.Done():
			return "", nil, fault.FromContext("configuration: subscribe", ctx, "the same subscription to begin")
		}
	}
}

// deliver remembers that the app is told by the follower of that id.
func (c *Configuration) deliver(r ConfigurationRequest, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.followers[id] != nil {
		c.delivered[r.key()] = id
	}
}

// tell gives the app one item, as often as the policy for the component's inbound side says.
func (c *Configuration) tell(ctx context.Context, component, key string, req *call.Request) {
	err := c.inboundOf(component).Do(ctx, resiliency.Call{Op: key, Idempotent: true}, func(ctx context.Context, _ actors.Grant) error {
		return c.app.tell(ctx, req)
	})
	if err != nil && ctx.Err() == nil {
		c.log.Error("the app was not told of a setting", "component", component, "key", key, "error", err)
	}
}

func (c *Configuration) inboundOf(component string) *guard {
	if lane, ok := c.inbound.Load(component); ok {
		return lane.(*guard)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if lane, ok := c.inbound.Load(component); ok {
		return lane.(*guard)
	}
	lane := c.rules.guard("settings/"+component, false, func(r *governance.Rules) governance.Target {
		return r.Inbound(governance.Configuration, component, settingPolicy)
	})
	c.inbound.Store(component, lane)
	return lane
}

// stop ends all subscriptions and waits for them.
func (c *Configuration) stop(ctx context.Context) error {
	c.mu.Lock()
	c.stopped = true
	for _, f := range c.followers {
		f.cancel()
	}
	c.mu.Unlock()
	c.cut()
	done := make(chan struct{})
	go func() {
		c.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fault.FromContext("configuration: stop", ctx, "its subscriptions to end")
	}
}

// contained makes a panic of fn its error.
func contained(log *slog.Logger, op string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("a subscription panicked", "op", op, "panic", p, "stack", string(debug.Stack()))
			err = fault.New(op, fault.Panicked, "panicked: %v", p)
		}
	}()
	return fn()
}

// over says whether err will not pass by itself: there is no such component, or the request is wrong.
func over(err error) bool {
	var f *fault.Error
	if !errors.As(err, &f) {
		return false
	}
	switch f.Kind {
	case fault.Invalid, fault.Denied, fault.NotFound, fault.Unsupported:
		return true
	}
	return false
}
