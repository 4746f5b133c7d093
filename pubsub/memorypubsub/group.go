package memorypubsub

import (
	"container/list"
	"time"

	"github.com/sidecast/sidecast/pubsub"
)

const (
	defaultAckWait     = 30 * time.Second
	defaultMaxInFlight = 1000
)

// group is what one consumer group still has to do. An item is in exactly one place: in its lane behind others of its
// key, ready, out at a feed, or waiting for an alarm.
type group struct {
	t       *topic
	ackWait time.Duration
	most    int // deliveries out
	ready   *list.List
	lanes   map[string]*lane
	out     int
	feeds   map[*feed]struct{}
	waiting list.List // of chan struct{}: feeds in Next, the longest waiting first
}

// lane holds the items of one key; the first of them alone is ready, out or waiting.
type lane struct{ items list.List }

// item is a message on its way through a group.
type item struct {
	g       *group
	e       *entry
	attempt int
	lane    *lane     // nil: no key
	holder  *delivery // nil: not out
	alarm   *alarm    // of the ack wait, or of a retry
}

func newGroup(t *topic) *group {
	return &group{t: t, ready: list.New(), lanes: map[string]*lane{}, feeds: map[*feed]struct{}{}}
}

// adjust takes over the settings of the latest subscription.
func (g *group) adjust(want pubsub.Group) {
	g.ackWait, g.most = want.AckWait, want.MaxInFlight
	if g.ackWait <= 0 {
		g.ackWait = defaultAckWait
	}
	if g.most <= 0 {
		g.most = defaultMaxInFlight
	}
	g.wake()
}

// add takes in a stored message.
func (g *group) add(e *entry) {
	e.wanted++
	it := &item{g: g, e: e}
	if key := e.message.Key; key != "" {
		it.lane = g.lanes[key]
		if it.lane == nil {
			it.lane = &lane{}
			g.lanes[key] = it.lane
		}
		it.lane.items.PushBack(it)
		if it.lane.items.Len() > 1 {
			return
		}
	}
	g.offer(it)
}

// offer makes an item ready.
func (g *group) offer(it *item) {
	g.ready.PushBack(it)
	g.wake()
}

// wake lets the feed that waits longest look again, if there is something for it.
func (g *group) wake() {
	if at := g.waiting.Front(); at != nil && g.ready.Len() > 0 && g.out < g.most {
		close(g.waiting.Remove(at).(chan struct{}))
	}
}

// take gives at most n ready items to f. It leaves the other feeds their share of what is there.
func (g *group) take(f *feed, n int) (taken []pubsub.Delivery) {
	share := (g.ready.Len() + len(g.feeds) - 1) / max(len(g.feeds), 1)
	n = min(n, share, g.most-g.out)
	until := time.Now().Add(g.ackWait)
	for len(taken) < n {
		it := g.ready.Remove(g.ready.Front()).(*item)
		it.attempt++
		it.holder = &delivery{feed: f, item: it, attempt: it.attempt}
		it.alarm = g.t.b.at(until, func() { g.giveBack(it, 0) })
		f.out[it.holder] = struct{}{}
		g.out++
		taken = append(taken, it.holder)
	}
	g.wake()
	return taken
}

// release takes an item from its holder.
func (g *group) release(it *item) {
	delete(it.holder.feed.out, it.holder)
	it.holder = nil
	if it.alarm != nil {
		g.t.b.alarms.Remove(it.alarm)
		it.alarm = nil
	}
	g.out--
}

// giveBack makes an item that was out ready again after delay. Until it is done, it keeps its lane.
func (g *group) giveBack(it *item, delay time.Duration) {
	g.release(it)
	if delay > 0 {
		it.alarm = g.t.b.at(time.Now().Add(delay), func() { g.offer(it) })
		g.wake()
		return
	}
	g.offer(it)
}

// done ends an item that was out and lets the next of its lane pass.
func (g *group) done(it *item) {
	g.release(it)
	if l := it.lane; l != nil {
		l.items.Remove(l.items.Front())
		if next := l.items.Front(); next != nil {
			g.ready.PushBack(next.Value)
		} else {
			delete(g.lanes, it.e.message.Key)
		}
	}
	if it.e.wanted--; it.e.wanted == 0 {
		g.t.rest(it.e)
	}
	g.wake()
}
