package pubsubtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// Model plays random operations on one topic with two groups of up to two feeds each and compares every delivery with
// what a list of messages and a set of those out says must hold. In the end it drains the groups: everything published
// must have been acknowledged exactly once.
func Model(t *testing.T, backend Backend) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, rt, backend)
		defer m.b.Close(m.ctx)
		rt.Repeat(map[string]func(*rapid.T){
			"publish": m.publish,
			"next":    m.next,
			"ack":     m.ack,
			"retry":   m.retry,
			"extend":  m.extend,
			"close":   m.close,
		})
		m.drain(rt)
	})
}

type model struct {
	ctx     context.Context
	backend Backend
	b       pubsub.Broker
	stored  []pubsub.Message
	groups  []*modelGroup
}

type modelGroup struct {
	name    string
	feeds   [2]pubsub.Feed
	out     map[string]modelOut // by ID
	acked   map[string]bool
	attempt map[string]int
}

type modelOut struct {
	feed int
	d    pubsub.Delivery
}

func newModel(t *testing.T, rt *rapid.T, backend Backend) *model {
	m := &model{ctx: context.Background(), backend: backend, b: backend.New(t)()}
	for _, name := range []string{"a", "b"} {
		g := &modelGroup{name: name, out: map[string]modelOut{}, acked: map[string]bool{}, attempt: map[string]int{}}
		m.groups = append(m.groups, g)
		m.feed(rt, g, 0) // the group exists before anything is published
	}
	return m
}

func (m *model) feed(rt *rapid.T, g *modelGroup, i int) pubsub.Feed {
	if g.feeds[i] == nil {
		f, err := m.b.Subscribe(m.ctx, "t", pubsub.Group{Name: g.name, AckWait: modelAckWait})
		if err != nil {
			rt.Fatalf("Subscribe: %v", err)
		}
		g.feeds[i] = f
	}
	return g.feeds[i]
}

func (m *model) draw(rt *rapid.T) (*modelGroup, int) {
	return rapid.SampledFrom(m.groups).Draw(rt, "group"), rapid.IntRange(0, 1).Draw(rt, "feed")
}

func (m *model) publish(rt *rapid.T) {
	known := []string{"", "a", "b", "c"}
	if m.backend.NoOrder {
		known = known[:1]
	}
	keys := rapid.SliceOfN(rapid.SampledFrom(known), 1, 5).Draw(rt, "keys")
	var batch []pubsub.Message
	for i, key := range keys {
		batch = append(batch, pubsub.Message{ID: fmt.Sprint("m", len(m.stored)+i), Key: key})
	}
	for _, err := range m.b.Publish(m.ctx, "t", m.backend.dressed(batch)) {
		if err != nil {
			rt.Fatalf("Publish: %v", err)
		}
	}
	m.stored = append(m.stored, batch...)
}

// due lists what the group may be given now: of each key only the oldest message that is not acknowledged.
func (m *model) due(g *modelGroup) map[string]bool {
	due, blocked := map[string]bool{}, map[string]bool{}
	for _, msg := range m.stored {
		if g.acked[msg.ID] || msg.Key != "" && blocked[msg.Key] {
			continue
		}
		blocked[msg.Key] = true
		if _, out := g.out[msg.ID]; !out {
			due[msg.ID] = true
		}
	}
	return due
}

func (m *model) next(rt *rapid.T) {
	g, i := m.draw(rt)
	n := rapid.IntRange(1, 6).Draw(rt, "n")
	m.nextOf(rt, g, i, n, 20*time.Millisecond)
}

func (m *model) nextOf(rt *rapid.T, g *modelGroup, i, n int, wait time.Duration) {
	f := m.feed(rt, g, i)
	ctx, cancel := context.WithTimeout(m.ctx, wait)
	defer cancel()
	got, err := f.Next(ctx, n)
	if err != nil && fault.KindOf(err) != fault.Timeout {
		rt.Fatalf("Next: %v", err)
	}
	if len(got) > n {
		rt.Fatalf("Next(%d) returned %d deliveries", n, len(got))
	}
	due := m.due(g)
	for _, d := range got {
		id := d.Message().ID
		if !due[id] {
			rt.Fatalf("group %s was given %s (key %q), due are %v", g.name, id, d.Message().Key, slices.Sorted(maps.Keys(due)))
		}
		if d.Attempt() <= g.attempt[id] && !m.backend.LocalAttempts {
			rt.Fatalf("attempt %d of %s came after attempt %d", d.Attempt(), id, g.attempt[id])
		}
		delete(due, id)
		g.attempt[id] = d.Attempt()
		g.out[id] = modelOut{i, d}
	}
}

func (m *model) settle(rt *rapid.T, what string, do func(g *modelGroup, id string, d pubsub.Delivery) error) {
	g, _ := m.draw(rt)
	if len(g.out) == 0 {
		rt.Skip("nothing is out")
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(g.out))).Draw(rt, "id")
	if err := do(g, id, g.out[id].d); err != nil {
		rt.Fatalf("%s of %s: %v", what, id, err)
	}
}

func (m *model) ack(rt *rapid.T) {
	m.settle(rt, "Ack", func(g *modelGroup, id string, d pubsub.Delivery) error {
		delete(g.out, id)
		g.acked[id] = true
		return d.Ack(m.ctx)
	})
}

func (m *model) retry(rt *rapid.T) {
	delay := time.Duration(rapid.IntRange(0, 5).Draw(rt, "ms")) * time.Millisecond
	m.settle(rt, "Retry", func(g *modelGroup, id string, d pubsub.Delivery) error {
		delete(g.out, id)
		return d.Retry(m.ctx, delay)
	})
}

func (m *model) extend(rt *rapid.T) {
	m.settle(rt, "Extend", func(_ *modelGroup, _ string, d pubsub.Delivery) error { return d.Extend(m.ctx) })
}

func (m *model) close(rt *rapid.T) {
	g, i := m.draw(rt)
	if g.feeds[i] == nil {
		rt.Skip("not open")
	}
	if err := g.feeds[i].Close(m.ctx); err != nil {
		rt.Fatalf("Close: %v", err)
	}
	g.feeds[i] = nil
	maps.DeleteFunc(g.out, func(_ string, o modelOut) bool { return o.feed == i })
}

// modelAckWait is longer than a run of the model, and short enough to wait for at its end: a message that was on its way to
// a feed when that closed may come back only then.
const modelAckWait = 15 * time.Second

func (m *model) drain(rt *rapid.T) {
	deadline := time.Now().Add(modelAckWait + patience)
	for _, g := range m.groups {
		for len(g.acked) < len(m.stored) {
			for id, o := range g.out {
				if err := o.d.Ack(m.ctx); err != nil {
					rt.Fatalf("Ack of %s: %v", id, err)
				}
				delete(g.out, id)
				g.acked[id] = true
			}
			if time.Now().After(deadline) {
				rt.Fatalf("group %s was given %d of %d messages, due are %v", g.name, len(g.acked), len(m.stored), slices.Sorted(maps.Keys(m.due(g))))
			}
			if len(g.acked) < len(m.stored) {
				m.nextOf(rt, g, 0, 10, time.Second)
			}
		}
	}
}
