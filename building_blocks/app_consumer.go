package blocks

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// defaultPubSub is the component of those that name none.
const defaultPubSub = "pubsub"

// subscriptionKey tells subscriptions of the app apart.
type subscriptionKey struct{ pubsub, topic, group string }

// appConsumer is a subscription of the local app, run by a supervised worker that subscribes again when its feed breaks.
type appConsumer struct {
	sub    appchannel.Subscription
	worker *actors.Worker
	slots  chan struct{} // one token for each event the app may be given
	app    *App
	asked  <-chan struct{} // closed when the app has been asked what it wants
	// retired says that another has taken the subscription's place. It is set before asked is closed.
	retired atomic.Bool
	state   atomic.Pointer[string] // nil before the first try
	out     atomic.Int32           // events that the app works on
}

var _ Sink = (*appConsumer)(nil)

// start follows what the app wants, beside what the manifests declare.
func (p *PubSub) start(declared []appchannel.Subscription) {
	p.mu.Lock()
	p.declared = declared
	p.watch = p.system.Worker("subscriptions", func(ctx context.Context) error {
		if app, ok := p.app.channel.(appchannel.Greeter); ok {
			app.Greet(ctx)
		}
		if p.broker && !p.awaitBroker(ctx) {
			return nil
		}
		return p.app.channel.Subscriptions(ctx, func(wanted []appchannel.Subscription) {
			p.follow(ctx, wanted)
			p.told()
		})
	})
	p.mu.Unlock()
	p.follow(context.Background(), nil)
}

// awaitBroker returns when the app has a broker that it may use; false when ctx ends first.
func (p *PubSub) awaitBroker(ctx context.Context) bool {
	for {
		changed := p.components.Changed()
		if _, any := p.components.Has(components.PubSubBlock, ""); any {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// Declare replaces the subscriptions of the manifests.
func (p *PubSub) Declare(ctx context.Context, declared []appchannel.Subscription) {
	p.mu.Lock()
	p.declared = declared
	p.mu.Unlock()
	p.follow(ctx, nil)
}

// follow starts the subscriptions that are new and stops those that nobody wants any more. A nil wanted keeps what the app
// asked for last.
func (p *PubSub) follow(ctx context.Context, wanted []appchannel.Subscription) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	if wanted != nil {
		p.wanted = wanted
	}
	all := map[subscriptionKey]appchannel.Subscription{}
	p.order = p.order[:0]
	for i, list := range [][]appchannel.Subscription{p.declared, p.wanted} {
		for _, sub := range list {
			if sub.PubSub == "" {
				sub.PubSub = defaultPubSub
			}
			key := subscriptionKey{sub.PubSub, sub.Topic, sub.Group}
			_, taken := all[key]
			if !taken {
				p.order = append(p.order, key)
			}
			if taken && i == 0 { // of the declared the first counts; what the app asks for counts more
				continue
			}
			if sub.DeadLetterTopic == sub.Topic { // an event that goes there comes again, as it does without one
				p.log.Warn("a dead-letter topic is the topic itself and is passed over", "pubsub", sub.PubSub, "topic", sub.Topic)
				sub.DeadLetterTopic = ""
			}
			all[key] = sub
		}
	}
	for key, c := range p.active {
		if sub, ok := all[key]; !ok || !sub.Equal(c.sub) {
			delete(p.active, key)
			c.retired.Store(true)
			p.leaving.Go(func() { _ = c.worker.Stop(p.working) })
		}
	}
	for key, sub := range all {
		if p.active[key] == nil {
			p.active[key] = p.consume(sub)
		}
	}
}

func (p *PubSub) consume(sub appchannel.Subscription) *appConsumer {
	wanted, credits := sub, p.credits
	if sub.Bulk != nil {
		sub.Bulk, credits = p.bulk(*sub.Bulk)
	}
	c := &appConsumer{sub: wanted, app: p.app, asked: p.asked, slots: make(chan struct{}, credits)}
	for range credits {
		c.slots <- struct{}{}
	}
	c.worker = p.system.Worker("sub/"+sub.PubSub+"/"+sub.Topic+"/worker", func(ctx context.Context) error {
		for before := ""; ; {
			changed := p.components.Changed()
			err := p.Subscribe(ctx, sub, c, func(group string) {
				c.report("active")
				p.log.Info("subscribed", "pubsub", sub.PubSub, "topic", sub.Topic, "group", group)
			})
			if err != nil {
				c.report(err.Error())
			}
			if !awaitsComponent(err) {
				return err
			}
			if why := err.Error(); why != before { // other components may come and go meanwhile
				p.log.Warn("a subscription waits for its component", "pubsub", sub.PubSub, "topic", sub.Topic, "error", err)
				before = why
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return c
}

// awaitsComponent says whether a subscription cannot be made with the components that there are: there is no such broker for
// the app, or its scopes do not let the app subscribe.
func awaitsComponent(err error) bool {
	switch fault.ReasonOf(err) {
	case fault.ComponentNotFound, fault.ComponentDenied, fault.TopicDenied:
		return true
	}
	return false
}

// bulk has a bulk filled by as many events as the app is given at once: one that never fills goes only when its time is up.
func (p *PubSub) bulk(b appchannel.Bulk) (*appchannel.Bulk, int) {
	if b.Most <= 0 {
		b.Most = appchannel.DefaultBulk
	}
	if p.bounded {
		b.Most = min(b.Most, p.credits)
	}
	b.Most = min(b.Most, MaxBatch)
	return &b, max(b.Most, p.credits)
}

func (c *appConsumer) report(state string) { c.state.Store(&state) }

// stop ends the subscriptions of the app: none pulls more, and each finishes what it holds. When ctx ends first, what is
// left is cut off and goes back to its broker. Calls may overlap: none waits for what another cuts off.
func (p *PubSub) stop(ctx context.Context) error {
	late := context.AfterFunc(ctx, p.cut)
	defer func() {
		if late() && ctx.Err() != nil { // those who waited for ctx were faster
			p.cut()
		}
	}()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.working.Err() == nil { // another call may cut it off
		defer context.AfterFunc(p.working, func() {
			if ctx.Err() == nil {
				cancel()
			}
		})()
	}
	p.mu.Lock()
	if !p.stopped {
		p.stopped = true
		if p.watch != nil {
			p.ending = append(p.ending, p.watch)
		}
		for _, c := range p.active {
			p.ending = append(p.ending, c.worker)
		}
		clear(p.active)
	}
	workers := p.ending
	for _, end := range p.streams {
		end(errStopping())
	}
	p.mu.Unlock()
	errs := make([]error, len(workers))
	var stopping sync.WaitGroup
	for i, w := range workers {
		stopping.Go(func() { errs[i] = w.Stop(waiting) })
	}
	stopping.Wait()
	p.leaving.Wait() // its workers are left alone when the work is cut off
	return errors.Join(errs...)
}

// SubscribeStream is Subscribe for a stream that the app has opened: it is shown among the app's subscriptions.
func (p *PubSub) SubscribeStream(ctx context.Context, sub appchannel.Subscription, sink Sink, opened func(group string)) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		return errStopping()
	}
	p.streams[&sub] = end
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.streams, &sub)
	}()
	err := p.Subscribe(ctx, sub, sink, opened)
	if err == nil && fault.ReasonOf(context.Cause(ctx)) == fault.Shutdown {
		err = context.Cause(ctx)
	}
	return err
}

// errStopping is what ends a subscription whose sidecar takes no more events.
func errStopping() error {
	return fault.New("subscribe", fault.Shutdown, "the sidecar is shutting down")
}

// SubscriptionStatus is one subscription of the app and how it does.
type SubscriptionStatus struct {
	Subscription appchannel.Subscription
	// State is `subscribing`, `active` or the error that keeps it from being so.
	State string
	// InFlight is how many events the app works on.
	InFlight int
	// Streaming says that a stream of the app's takes the events.
	Streaming bool
}

// Subscriptions tells how the subscriptions of the app do: those of manifests, what the app asks for beyond them, each in their
// order, and streams.
func (p *PubSub) Subscriptions() []SubscriptionStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]SubscriptionStatus, 0, len(p.active))
	for _, key := range p.order {
		c := p.active[key]
		if c == nil {
			continue
		}
		status := SubscriptionStatus{Subscription: c.sub, State: "subscribing", InFlight: int(c.out.Load())}
		if state := c.state.Load(); state != nil {
			status.State = *state
		}
		all = append(all, status)
	}
	streams := len(all)
	for sub := range p.streams {
		all = append(all, SubscriptionStatus{Subscription: *sub, State: "active", Streaming: true})
	}
	slices.SortFunc(all[streams:], func(a, b SubscriptionStatus) int {
		return cmp.Or(cmp.Compare(a.Subscription.PubSub, b.Subscription.PubSub), cmp.Compare(a.Subscription.Topic, b.Subscription.Topic),
			cmp.Compare(a.Subscription.Group, b.Subscription.Group))
	})
	return all
}

// Take waits for the app to be ready and for a free slot, and before the first until it is known whether the app wants the events
// elsewhere than the manifests say: those that have gathered while it was away would all go the wrong way.
func (c *appConsumer) Take(ctx context.Context, most int) (int, error) {
	for c.app.channel.Ready() != nil {
		if err := pause(ctx, readyPoll); err != nil {
			return 0, err
		}
	}
	select {
	case <-ctx.Done():
		return 0, fault.FromContext("subscribe "+c.sub.Topic, ctx, "the app")
	case <-c.asked:
	}
	slots := c.slots
	if c.retired.Load() {
		slots = nil // it only waits for its end
	}
	select {
	case <-ctx.Done():
		return 0, fault.FromContext("subscribe "+c.sub.Topic, ctx, "the app")
	case <-slots:
	}
	n := 1
	for n < most {
		select {
		case <-c.slots:
			n++
			continue
		default:
		}
		break
	}
	return n, nil
}

// Return gives slots back.
func (c *appConsumer) Return(n int) {
	for range n {
		c.slots <- struct{}{}
	}
}

// Deliver gives the app an event in the app's own lane.
func (c *appConsumer) Deliver(ctx context.Context, event *appchannel.Event) (appchannel.Outcome, error) {
	defer c.Return(1)
	c.out.Add(1)
	defer c.out.Add(-1)
	return c.app.deliver(ctx, event)
}

// readyPoll is how often a paused subscription looks whether the app takes work again.
const readyPoll = 100 * time.Millisecond

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
