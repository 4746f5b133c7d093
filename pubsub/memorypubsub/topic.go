package memorypubsub

import (
	"bytes"
	"container/list"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// topic is a list of messages in the order they became deliverable, and the groups that read them.
type topic struct {
	b      *broker
	groups map[string]*group
	log    *list.List // of *entry: everything deliverable
	idle   *list.List // of *entry: what no group waits for, the longest idle first
	count  int        // with what waits for its delay
	bytes  int64
}

// entry is a stored message.
type entry struct {
	message pubsub.Message
	stored  time.Time
	size    int64
	wanted  int // groups that have not acknowledged it
	inLog   *list.Element
	inIdle  *list.Element // nil while it is wanted
}

func newTopic(b *broker) *topic {
	return &topic{b: b, groups: map[string]*group{}, log: list.New(), idle: list.New()}
}

func (t *topic) full(op string) error {
	return fault.New(op, fault.TopicFull, "the topic is full: %d messages and %d bytes wait for groups (maxMessages %d, maxBytes %d)",
		t.count, t.bytes, t.b.config.MaxMessages, int64(t.b.config.MaxBytes))
}

// read says whether anybody is subscribed now.
func (t *topic) read() bool {
	for _, g := range t.groups {
		if len(g.feeds) > 0 {
			return true
		}
	}
	return false
}

// store takes a message that there is room for.
func (t *topic) store(m *pubsub.Message, size int64) {
	e := &entry{message: *m, stored: time.Now(), size: size}
	e.message.Data = bytes.Clone(m.Data)
	e.message.Header = pubsub.Beside(m)
	t.count++
	t.bytes += e.size
	if m.Delay > 0 {
		t.b.at(e.stored.Add(m.Delay), func() { t.release(e) })
	} else {
		t.release(e)
	}
}

// overhead is about what an entry costs beside its data.
const overhead = 256

func sizeOf(m *pubsub.Message) int64 {
	n := overhead + len(m.ID) + len(m.Key) + len(m.Data) + len(m.ContentType)
	for _, beside := range []map[string]string{m.Header, m.Metadata} {
		for k, v := range beside {
			n += len(k) + len(v)
		}
	}
	return int64(n)
}

// room makes place for one more message by forgetting what nobody waits for, and tells whether there is enough.
func (t *topic) room(size int64) bool {
	most := int64(t.b.config.MaxBytes)
	if size > most {
		return false
	}
	for t.count >= t.b.config.MaxMessages || t.bytes+size > most {
		if t.idle.Len() == 0 {
			return false
		}
		t.forget(t.idle.Front().Value.(*entry))
	}
	return true
}

// release makes a message deliverable.
func (t *topic) release(e *entry) {
	e.inLog = t.log.PushBack(e)
	for _, g := range t.groups {
		g.add(e)
	}
	if e.wanted == 0 {
		t.rest(e)
	}
}

// rest notes that no group waits for e any more.
func (t *topic) rest(e *entry) {
	e.inIdle = t.idle.PushBack(e)
	for len(t.groups) > 0 && t.idle.Len() > t.b.config.Keep {
		t.forget(t.idle.Front().Value.(*entry))
	}
}

func (t *topic) forget(e *entry) {
	t.idle.Remove(e.inIdle)
	t.log.Remove(e.inLog)
	t.count--
	t.bytes -= e.size
}

// group returns the group as the latest subscription wants it. A new one is given everything that is kept, unless it
// wants only what is new.
func (t *topic) group(want pubsub.Group) *group {
	g := t.groups[want.Name]
	if g == nil {
		g = newGroup(t)
		t.groups[want.Name] = g
		if !want.OnlyNew {
			for at := t.log.Front(); at != nil; at = at.Next() {
				e := at.Value.(*entry)
				if e.inIdle != nil {
					t.idle.Remove(e.inIdle)
					e.inIdle = nil
				}
				g.add(e)
			}
		}
	}
	g.adjust(want)
	return g
}
