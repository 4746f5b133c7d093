// Package memorypubsub is the Broker inside one process: type `pubsub.memory`, for tests and for trying things out.
//
// It promises what every backend does (order per key over all feeds of a group, redelivery, delay, credits) except
// durability: Publish answers when the message is in memory, and nothing outlives the broker. Sidecars do not share it.
//
// A topic holds at most maxMessages and maxBytes. A message that a group still waits for is never dropped: when such
// messages fill the topic, Publish fails with TOPIC_FULL. What every group has acknowledged stays for groups to come,
// as far as keep allows; before there is any group, everything stays until the topic is full, and then the oldest goes.
//
// A subscription to a topic whose name ends in * gets what is published, from then on, to every topic that has that beginning
// and a longer name.
//
//	b, err := memorypubsub.Component.Open(ctx, host, nil)
//	feed, err := b.(pubsub.Broker).Subscribe(ctx, "orders", pubsub.Group{Name: "billing", AckWait: 30 * time.Second})
//
// Messages handed out are shared between groups: read them, do not change them.
package memorypubsub

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidecast/sidecast/agenda"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// Config is what the user writes under spec.metadata.
type Config struct {
	MaxMessages int              `meta:"maxMessages" default:"100000" min:"1" doc:"Most messages a topic holds."`
	MaxBytes    components.Bytes `meta:"maxBytes" default:"64MiB" min:"1" doc:"Most bytes a topic holds."`
	Keep        int              `meta:"keep" default:"1000" min:"0" doc:"Most messages of a topic kept for later groups once all its groups have acknowledged them."`
}

// Component makes the backend known to the runtime.
var Component = components.PubSub("memory", "Topics in this process's memory, for tests and trying out.", open)

var _ pubsub.Broker = (*broker)(nil)

// broker owns everything under one lock, and one goroutine that waits for the next thing that is due.
type broker struct {
	name   string
	config Config

	mu     sync.Mutex
	topics map[string]*topic
	wild   []string // topics that were subscribed to, and whose names end in *
	alarms *agenda.Agenda[*alarm]
	closed bool

	earlier chan struct{} // holds one: the next alarm is sooner than the clock knows
	stop    chan struct{}
	clock   sync.WaitGroup
}

func open(_ context.Context, host components.Host, c Config) (pubsub.Broker, error) {
	b := &broker{
		name: host.Component, config: c, topics: map[string]*topic{}, alarms: newAlarms(),
		earlier: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	if b.name == "" {
		b.name = "memory"
	}
	b.clock.Go(b.run)
	return b, nil
}

func (b *broker) op(what string) string { return "pubsub " + b.name + ": " + what }

func (b *broker) topic(name string) *topic {
	t := b.topics[name]
	if t == nil {
		t = newTopic(b)
		b.topics[name] = t
	}
	return t
}

// Publish stores messages in memory.
func (b *broker) Publish(ctx context.Context, name string, messages []pubsub.Message) []error {
	errs := make([]error, len(messages))
	op := b.op("publish " + name)
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.usable(ctx, op, name)
	for i := range messages {
		switch m := &messages[i]; {
		case err != nil:
			errs[i] = err
		case m.Delay < 0:
			errs[i] = fault.New(op, fault.DelayInvalid, "the delay is negative: %s", m.Delay)
		default:
			errs[i] = b.publish(op, name, m)
		}
	}
	return errs
}

// publish gives m to its topic, and to those that were subscribed to by a wildcard that matches its name: to all of them or to
// none. A wildcard that nobody reads just now gets what it has room for, and keeps nobody from publishing.
func (b *broker) publish(op, name string, m *pubsub.Message) error {
	targets := append(make([]*topic, 0, 1+len(b.wild)), b.topic(name))
	size := sizeOf(m)
	for _, wild := range b.wild {
		if t := b.topics[wild]; matches(wild, name) && (t.read() || t.room(size)) {
			targets = append(targets, t)
		}
	}
	for _, t := range targets {
		if !t.room(size) {
			return t.full(op)
		}
	}
	for _, t := range targets {
		t.store(m, size)
	}
	return nil
}

// matches says whether the name of a topic begins with what wild has before its *, and goes on.
func matches(wild, name string) bool {
	rest, begins := strings.CutPrefix(name, wild[:len(wild)-1])
	return begins && rest != "" && name != wild
}

func (b *broker) usable(ctx context.Context, op, topic string) error {
	switch {
	case b.closed:
		return fault.New(op, fault.Shutdown, "the broker is closed")
	case ctx.Err() != nil:
		return fault.FromContext(op, ctx, "its turn")
	case topic == "":
		return fault.New(op, fault.TopicInvalid, "the topic is empty")
	}
	return nil
}

// Subscribe opens a feed of the group.
func (b *broker) Subscribe(ctx context.Context, name string, g pubsub.Group) (pubsub.Feed, error) {
	op := b.op("subscribe " + name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.usable(ctx, op, name); err != nil {
		return nil, err
	}
	if g.Name == "" {
		return nil, fault.New(op, fault.BadRequest, "the group has no name")
	}
	if strings.HasSuffix(name, "*") && !slices.Contains(b.wild, name) {
		b.wild = append(b.wild, name)
	}
	return b.topic(name).group(g).feed(op), nil
}

// Close ends all feeds and forgets everything.
func (b *broker) Close(context.Context) error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.stop)
		for _, t := range b.topics {
			for _, g := range t.groups {
				for f := range g.feeds {
					f.end()
				}
			}
		}
		b.topics, b.wild, b.alarms = nil, nil, newAlarms()
	}
	b.mu.Unlock()
	b.clock.Wait()
	return nil
}

// at runs fn under the lock when t has come. fn may find that it is no longer wanted.
func (b *broker) at(t time.Time, fn func()) *alarm {
	a := &alarm{at: t, fn: fn}
	b.alarms.Add(a)
	if b.alarms.First() == a {
		b.hurry()
	}
	return a
}

func (b *broker) move(a *alarm, t time.Time) {
	a.at = t
	b.alarms.Move(a)
	if b.alarms.First() == a {
		b.hurry()
	}
}

func (b *broker) hurry() {
	select {
	case b.earlier <- struct{}{}:
	default:
	}
}

// run is the clock: it rings alarms as they fall due.
func (b *broker) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-b.earlier:
		case <-timer.C:
		}
		timer.Reset(b.ring())
	}
}

// ring runs what is due and tells how long the clock may sleep.
func (b *broker) ring() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		a := b.alarms.First()
		if a == nil {
			return time.Hour
		}
		if wait := time.Until(a.at); wait > 0 {
			return wait
		}
		b.alarms.Remove(a)
		a.fn()
	}
}
