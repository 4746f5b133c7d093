package blocks

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fabric"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/telemetry"
)

const (
	// recordMark begins the keys of records. No key of an app holds the separator, so none is like it.
	recordMark = keySeparator + "outbox" + keySeparator
	// recordSize is how many bytes of events share a record: few enough for every store, so that only an event that is
	// larger by itself can be too large.
	recordSize = 128 << 10

	// maxHeld and maxHeldBytes bound the records that are kept in memory between their transaction and their publication.
	// What is beyond them is found in the store.
	maxHeld      = 4096
	maxHeldBytes = 16 << 20

	firstSweep    = time.Second // the instances of the app have seen each other by then
	sweepInterval = 5 * time.Second
	longestPause  = time.Minute
	sweepPage     = 16 // records, each with its events
	lastFlush     = 2 * time.Second
)

// outbox publishes what transactions wrote. The events of a transaction stand in records of its own store, written by the
// same batch: they are there if and only if the transaction is. After the commit the instance that made it publishes them
// and deletes the record; what it leaves behind when it dies is published by any instance of the app that sees that it is
// gone. So each event is published at least once (the transactional outbox of C. Richardson, Microservices Patterns, 3.3,
// with a polling publisher).
type outbox struct {
	self    Self
	log     *slog.Logger
	system  *actors.System
	fabric  *fabric.Fabric
	state   *State
	pubsub  *PubSub
	metrics *telemetry.Metrics

	wake chan struct{}

	mu     sync.Mutex
	worker *actors.Worker
	ours   map[recordID]struct{} // records whose transaction runs, or which are held
	held   []outboxRecord
	bytes  int // of held
}

// outboxRecord is what a store keeps of a transaction's events.
type outboxRecord struct {
	recordID
	etag string // known where the store is slotted
	size int

	Instance string          `json:"instance"`
	PubSub   string          `json:"pubsub"`
	Topic    string          `json:"topic"`
	Events   []recordedEvent `json:"events"`
}

// recordID is a record's store and its key there.
type recordID struct{ store, key string }

type recordedEvent struct {
	ID   string          `json:"id"`
	Key  string          `json:"key,omitempty"`
	Data json.RawMessage `json:"data"` // the CloudEvent
}

func newOutbox(d Deps, s *State, p *PubSub) *outbox {
	return &outbox{
		self: d.Self, log: d.Log, system: d.System, fabric: d.Fabric, state: s, pubsub: p, metrics: d.Metrics,
		wake: make(chan struct{}, 1), ours: map[recordID]struct{}{},
	}
}

// follow runs the worker once there is an outbox. It may be called at any time, as often as one likes.
func (o *outbox) follow() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.worker == nil && len(o.state.components.Outboxes()) > 0 {
		o.worker = o.system.Worker("outbox", o.run)
	}
}

// check refuses a transaction whose events could not be published, before anything is written.
func (o *outbox) check(store string, box components.Outbox) error {
	topics, ok := o.pubsub.components.Topics(box.PubSub)
	switch {
	case !ok:
		return fault.New("outbox of "+store, fault.OutboxUnusable, "there is no broker %s for this app", box.PubSub)
	case !topics.Publish(box.Topic):
		return fault.New("outbox of "+store, fault.OutboxUnusable, "topic %s is not allowed for app id %s", box.Topic, o.self.AppID)
	}
	if err := checkName("outbox of "+store, "the topic", box.Topic, maxTopic, fault.TopicInvalid); err != nil {
		return fault.E("outbox of "+store, fault.None, fault.OutboxUnusable, err)
	}
	return nil
}

// records wraps the events of a transaction, and marks their records as this instance's own until release.
func (o *outbox) records(ctx context.Context, store string, box components.Outbox, drafts []Draft) ([]outboxRecord, error) {
	out := batch{results: make([]Published, len(drafts))}
	for i := range drafts {
		if o.pubsub.draft(ctx, &out, i, box.PubSub, box.Topic, &drafts[i]); out.results[i].Err != nil {
			return nil, fault.E("outbox of "+store, fault.None, fault.OutboxUnusable, out.results[i].Err)
		}
	}
	var all []outboxRecord
	for _, m := range out.messages {
		if n := len(all); n == 0 || all[n-1].size+len(m.Data) > recordSize {
			key := fmt.Sprintf("%s%s%016x-%s", o.prefix(), o.self.Instance+keySeparator, time.Now().UnixNano(), uuid.NewString())
			all = append(all, outboxRecord{recordID: recordID{store, key}, Instance: o.self.Instance, PubSub: box.PubSub, Topic: box.Topic})
		}
		r := &all[len(all)-1]
		// The id that the broker knows duplicates by is one of its own: an event's id is the app's word, and may repeat.
		r.Events = append(r.Events, recordedEvent{ID: uuid.NewString(), Key: m.Key, Data: m.Data})
		r.size += len(m.Data)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range all {
		o.ours[all[i].recordID] = struct{}{}
	}
	return all, nil
}

// prefix is that of the records of the app.
func (o *outbox) prefix() string { return recordMark + o.self.AppID + keySeparator }

// orphan says whether the record of that instance is for anyone to publish: it is this one, or is gone.
func (o *outbox) orphan(instance string) bool {
	if instance == o.self.Instance {
		return true
	}
	for _, other := range o.fabric.Instances(o.self.AppID) {
		if other.ID == instance {
			return false
		}
	}
	return true
}

// ops writes the records.
func (o *outbox) ops(records []outboxRecord) ([]state.Op, error) {
	ops := make([]state.Op, len(records))
	for i := range records {
		value, err := json.Marshal(&records[i])
		if err != nil {
			return nil, fault.E("outbox of "+records[i].store, fault.Internal, fault.Defect, err)
		}
		ops[i] = state.Op{Kind: state.Set, Key: records[i].key, Value: value}
	}
	return ops, nil
}

// hold has the records of a transaction that was committed published at once. What is too much to hold is found in the
// store by the next sweep.
func (o *outbox) hold(records []outboxRecord) {
	o.mu.Lock()
	for _, r := range records {
		if len(o.held) >= maxHeld || o.bytes+r.size > maxHeldBytes {
			delete(o.ours, r.recordID)
			continue
		}
		o.held = append(o.held, r)
		o.bytes += r.size
	}
	o.mu.Unlock()
	o.follow()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// release leaves records to the sweep: of a transaction that failed there are none, unless its store did not tell the truth.
func (o *outbox) release(records []outboxRecord) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range records {
		delete(o.ours, r.recordID)
	}
}

// run publishes until ctx ends.
func (o *outbox) run(ctx context.Context) error {
	pause := sweepInterval
	timer := time.NewTimer(firstSweep)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
			defer cancel()
			o.flush(last)
			return nil
		case <-o.wake:
			o.flush(ctx)
		case <-timer.C:
			if o.sweep(ctx) {
				pause = sweepInterval
			} else {
				pause = min(2*pause, longestPause)
			}
			timer.Reset(pause)
		}
	}
}

// flush publishes the records that are held.
func (o *outbox) flush(ctx context.Context) {
	o.mu.Lock()
	held := o.held
	o.held, o.bytes = nil, 0
	o.mu.Unlock()
	defer o.release(held)
	for len(held) > 0 {
		n := 1
		for n < len(held) && held[n].store == held[0].store {
			n++
		}
		if err := o.publish(ctx, held[0].store, held[:n]); err != nil {
			o.log.Warn("events of transactions could not be published yet; they are kept and tried again", "store", held[0].store, "error", err)
		}
		held = held[n:]
	}
}

// sweep publishes what instances left behind, this one included, and tells whether all of it could be.
func (o *outbox) sweep(ctx context.Context) (clean bool) {
	clean = true
	for _, store := range o.state.components.Outboxes() {
		left, err := o.sweepStore(ctx, store)
		if err != nil && ctx.Err() == nil {
			clean = false
			o.log.Warn("events of transactions could not be published; they are kept and tried again with growing pauses",
				"store", store, "events", left, "error", err)
		}
	}
	return clean
}

// sweepStore goes on behind a record that cannot be published: it holds up no other. It tells how many events it has left
// behind, and why the first.
func (o *outbox) sweepStore(ctx context.Context, store string) (left int, first error) {
	slotted := false
	for after := ""; ; {
		var items []state.Item
		var last string // of the keys that were looked at
		var unread error
		err := o.state.do(ctx, store, "outbox", true, func(ctx context.Context, use components.Use[state.Store]) (err error) {
			var keys []string
			if scanner, ok := use.Backend.(state.Scanner); ok {
				items, err = scanner.Scan(ctx, o.prefix(), after, sweepPage, false)
				if fault.ReasonOf(err) == fault.ValueUndecryptable {
					items, err = scanner.Scan(ctx, o.prefix(), after, sweepPage, true)
					keys = keysOf(items)
				}
			} else if after == "" {
				slotted, keys = true, o.slotKeys()
			}
			if keys != nil && err == nil {
				last = keys[len(keys)-1]
				items, unread, err = legible(ctx, use.Backend, keys)
			} else if len(items) > 0 {
				last = items[len(items)-1].Key
			}
			return err
		})
		first = cmp.Or(first, unread)
		if err != nil || last == "" {
			return left, cmp.Or(first, err)
		}
		after = last
		var found []outboxRecord
		for _, item := range items {
			r := outboxRecord{recordID: recordID{store, item.Key}}
			if !o.free(r.recordID) {
				continue
			}
			if slotted {
				r.etag = item.ETag
			}
			if err := json.Unmarshal(item.Value, &r); err != nil {
				first = cmp.Or(first, fmt.Errorf("record %q is not one: %w", item.Key, err))
				continue
			}
			if !o.orphan(r.Instance) {
				continue
			}
			found = append(found, r)
			left += len(r.Events)
		}
		if err := o.publish(ctx, store, found); err != nil {
			first = cmp.Or(first, err)
		} else {
			for _, r := range found {
				left -= len(r.Events)
			}
		}
	}
}

func keysOf(items []state.Item) []string {
	var keys []string
	for _, item := range items {
		keys = append(keys, item.Key)
	}
	return keys
}

// legible reads records; of those that cannot be decrypted it tells the first, and reads the others.
func legible(ctx context.Context, store state.Store, keys []string) (items []state.Item, unread, err error) {
	if items, err = store.Get(ctx, keys); fault.ReasonOf(err) != fault.ValueUndecryptable {
		return items, nil, err
	}
	items = nil
	for _, key := range keys {
		one, err := store.Get(ctx, []string{key})
		switch {
		case fault.ReasonOf(err) == fault.ValueUndecryptable:
			unread = cmp.Or(unread, err)
		case err != nil:
			return nil, unread, err
		}
		items = append(items, one...)
	}
	return items, unread, nil
}

func (o *outbox) free(id recordID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, ours := o.ours[id]
	return !ours
}

// publish sends the events of records of one store and deletes those records of which all were stored.
func (o *outbox) publish(ctx context.Context, store string, records []outboxRecord) (first error) {
	if len(records) == 0 {
		return nil
	}
	defer o.metrics.Observe(telemetry.Op{Block: "state", Target: store, Name: "outbox_publish"}, time.Now(), &first)
	var done []state.Op
	for len(records) > 0 {
		n, events := 1, len(records[0].Events)
		for n < len(records) && records[n].PubSub == records[0].PubSub && records[n].Topic == records[0].Topic && events+len(records[n].Events) <= MaxBatch {
			events += len(records[n].Events)
			n++
		}
		errs := o.pubsub.publishStored(ctx, records[0].PubSub, records[0].Topic, messagesOf(records[:n]))
		for _, r := range records[:n] {
			if err := cmp.Or(errs[:len(r.Events)]...); err != nil {
				first = cmp.Or(first, err)
			} else {
				op := state.Op{Kind: state.Delete, Key: r.key}
				if r.etag != "" { // a slot may have another record by now
					op.Match, op.ETag = state.Exact, r.etag
				}
				done = append(done, op)
			}
			errs = errs[len(r.Events):]
		}
		records = records[n:]
	}
	for len(done) > 0 {
		n := min(len(done), MaxStateKeys)
		if done[0].Match == state.Exact {
			n = 1 // of which none is to fail another
		}
		err := o.state.do(ctx, store, "outbox", true, func(ctx context.Context, use components.Use[state.Store]) error {
			_, err := use.Backend.Apply(ctx, done[:n])
			if done[0].Match == state.Exact && fault.ReasonOf(err) == fault.ETagMismatch {
				return nil
			}
			return err
		})
		first, done = cmp.Or(first, err), done[n:]
	}
	return first
}

func messagesOf(records []outboxRecord) []pubsub.Message {
	var all []pubsub.Message
	for _, r := range records {
		for _, e := range r.Events {
			all = append(all, pubsub.Message{ID: e.ID, Key: e.Key, Data: e.Data, ContentType: CloudEventJSON})
		}
	}
	return all
}

// publishStored publishes messages that are made already and says for each what became of it.
func (p *PubSub) publishStored(ctx context.Context, component, topic string, messages []pubsub.Message) []error {
	out := batch{messages: messages, results: make([]Published, len(messages)), index: make([]int, len(messages))}
	for i := range messages {
		out.index[i] = i
	}
	errs := make([]error, len(messages))
	use, err := p.components.PubSub(ctx, component)
	if err == nil {
		defer use.Release()
		var record record
		ctx, record = p.lanes.begin(ctx, use.Name, "publish_batch")
		defer record.end(&err)
		if !use.Topics.Publish(topic) {
			err = fault.New("publish "+topic, fault.TopicDenied, "topic %s is not allowed for app id %s", topic, p.self.AppID)
		} else {
			err = p.lanes.of(use.Name).Do(ctx, resiliency.Call{Op: "publish_batch", Idempotent: true}, func(ctx context.Context, _ actors.Grant) error {
				return out.send(ctx, use.Backend, use.Topics.OnServer(topic))
			})
		}
	}
	pending := map[int]bool{}
	for _, at := range out.index {
		pending[at] = true
	}
	for i := range errs {
		if errs[i] = out.results[i].Err; errs[i] == nil && pending[i] && err != nil {
			errs[i] = err // it never came to be sent
		}
	}
	return errs
}
