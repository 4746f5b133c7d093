package natsstore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/feed"
)

// How a watch reads: so much is on its way to a watcher at most, and so long may it hear nothing.
const (
	fetchMessages = 256
	fetchBytes    = 8 << 20
	heartbeat     = 2 * time.Second
	fetchFor      = 30 * time.Second
	forgetAfter   = 30 * time.Second // what the server keeps of a watcher that is gone
)

// toldAfter is how long after an item has expired watchers are told, so many at once: what was written in time, and is on its
// way, comes first.
const (
	toldAfter  = 500 * time.Millisecond
	toldAtOnce = 256
)

// Watch implements state.Watcher.
func (s *store) Watch(ctx context.Context, prefix string, onlyChanges bool, fn func(state.Event) error) error {
	const op = "state.jetstream: watch"
	failed := func(err error) error {
		if ctx.Err() != nil {
			return feed.Ended(op, ctx)
		}
		return err
	}
	call, leave, err := s.enter(ctx, op)
	if err != nil {
		return failed(err)
	}
	info, err := s.stream.Info(call)
	leave() // a watch is not a call that Close waits for: it ends with s.life
	if err != nil {
		return failed(s.failed(ctx, op, prefix, err))
	}
	w := &watch{store: s, op: op, prefix: prefix, fn: fn, until: info.State.LastSeq, learning: onlyChanges, patience: patience, expiring: newExpiring()}
	return w.run(ctx)
}

// watch is one watcher. It reads through a consumer that the server forgets; when that or a message of it is lost, it
// makes another and goes on behind the last message seen.
type watch struct {
	*store
	op, prefix string
	fn         func(state.Event) error

	patience time.Duration // how long it tries in vain to go on with the snapshot; later there is no bound

	until    uint64    // the last revision of the snapshot
	seen     uint64    // the last revision seen
	learning bool      // the snapshot is read for what expires only, without values, and not told
	told     bool      // Current was reported
	behind   bool      // the server has more for it
	lost     time.Time // since then it hears nothing; zero while it does
	expiring expiring
	err      error // of fn, or that it has to keep too much in mind
}

// errLearned ends the reading of a snapshot without values: what follows is read with them.
var errLearned = errors.New("the snapshot has been read")

// run watches until ctx or the store ends or fn fails. A watch that cannot begin fails; one that has begun goes on when it
// can.
func (w *watch) run(ctx context.Context) error {
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.life, cancel)()
	moved := time.Now()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		before := w.seen
		err := w.read(life)
		if w.lost.IsZero() {
			w.lost = time.Now()
		}
		switch {
		case err == errLearned:
			continue
		case w.err != nil:
			return w.err
		case ctx.Err() != nil:
			return feed.Ended(w.op, ctx)
		case w.life.Err() != nil:
			return fault.New(w.op, fault.Shutdown, "the store is closed")
		case w.conn.IsClosed():
			return fault.New(w.op, fault.FabricDown, "the connection to NATS is closed")
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return w.failed(ctx, w.op, w.prefix, err)
		}
		if w.seen != before {
			wait, moved = 50*time.Millisecond, time.Now()
		}
		if !w.told && time.Since(moved) >= w.patience {
			return fault.New(w.op, fault.BackendDown, "JetStream gave no consumer to watch %q through within %v: %w", w.prefix, w.patience, err).With("prefix", w.prefix)
		}
		w.log.Debug("a watch lost its place and resumes", "prefix", w.prefix, "revision", w.seen, "error", err)
		select {
		case <-life.Done():
		case <-time.After(wait):
		}
	}
}

// read makes a consumer and reads from it until something fails.
func (w *watch) read(ctx context.Context) error {
	cfg := jetstream.ConsumerConfig{
		FilterSubject: w.keys.filter(w.prefix), AckPolicy: jetstream.AckNonePolicy, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: forgetAfter,
	}
	cfg.HeadersOnly = w.learning
	if w.seen > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, w.seen+1
	}
	consumer, err := w.stream.CreateConsumer(ctx, cfg)
	if err != nil {
		return err
	}
	defer w.forget(consumer.CachedInfo().Name)
	if away := time.Since(w.lost); w.ttl && w.told && !w.lost.IsZero() && away > mostAway {
		w.err = fault.New(w.op, fault.WatchOverrun, "the watch of %q was cut off for %v: begin again with what is there now", w.prefix, away.Round(time.Second)).With("prefix", w.prefix)
		return w.err
	}
	w.lost = time.Time{}
	bytes := max(fetchBytes, 2*int(w.conn.MaxPayload()))
	messages, err := consumer.Messages(jetstream.PullMaxMessagesWithBytesLimit(fetchMessages, bytes), jetstream.PullExpiry(fetchFor),
		jetstream.PullHeartbeat(heartbeat), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return err
	}
	var reader sync.WaitGroup
	defer reader.Wait()
	defer messages.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	incoming := make(chan message)
	reader.Go(func() { pass(ctx, messages, incoming) })
	w.behind = consumer.CachedInfo().NumPending > 0
	if !w.told && !w.behind {
		if err := w.current(); err != nil {
			return err
		}
	}
	for received := uint64(0); ; received++ {
		msg, err := w.next(ctx, incoming, consumer, received)
		if err != nil {
			return err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Consumer != received+1 {
			return errors.New("messages were lost on the way")
		}
		if err := w.deliver(msg, meta); err != nil {
			return err
		}
	}
}

// message is what came for a watch, or why nothing comes any more.
type message struct {
	jetstream.Msg
	err error
}

// pass hands on what messages brings, until it fails or ctx ends. The client library misses heartbeats only within one call
// of Next, so nothing else may interrupt it.
func pass(ctx context.Context, messages jetstream.MessagesContext, to chan<- message) {
	for {
		msg, err := messages.Next(jetstream.NextContext(ctx))
		select {
		case to <- message{msg, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// next waits for a message and meanwhile tells what expires. As long as there is something to come it looks whether that has
// gone meanwhile, or the request for it was lost.
func (w *watch) next(ctx context.Context, incoming <-chan message, consumer jetstream.Consumer, received uint64) (jetstream.Msg, error) {
	looks := 0
	for {
		if err := w.expire(ctx, time.Now()); err != nil {
			return nil, err
		}
		look := time.NewTimer(w.untilLook(time.Now()))
		select {
		case msg := <-incoming:
			look.Stop()
			return msg.Msg, msg.err
		case <-ctx.Done():
			look.Stop()
			return nil, ctx.Err()
		case <-look.C:
		}
		if w.told && !w.behind {
			continue
		}
		info, err := consumer.Info(ctx)
		switch {
		case err != nil:
			return nil, err
		case info.NumPending == 0 && info.Delivered.Consumer == received:
			if w.behind = false; w.told {
				continue
			}
			if err := w.current(); err != nil {
				return nil, err
			}
		case looks == 3:
			return nil, errors.New("messages wait at the server and do not come")
		}
		looks++
	}
}

// untilLook is how long there is nothing to do but to wait for a message.
func (w *watch) untilLook(now time.Time) time.Duration {
	at, any := w.expiring.next()
	switch {
	case !w.told || w.behind:
		return time.Second
	case !any:
		return time.Hour
	}
	return at.Add(toldAfter).Sub(now)
}

// expire tells fn of what has expired, unless messages are to come which may know better. The server that delivers to the watch
// may lag behind the one that took a write, so the bucket's leader is asked whether a key has been written again.
func (w *watch) expire(ctx context.Context, now time.Time) error {
	for w.told && !w.behind {
		keys := w.expiring.before(now.Add(-toldAfter), toldAtOnce)
		if len(keys) == 0 {
			return nil
		}
		call, leave, err := w.enter(ctx, w.op)
		if err != nil {
			return err
		}
		entries, err := w.store.read(call, ctx, w.op, keys)
		leave()
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.tag.revision > w.seen { // and is on its way
				w.expiring.note(e)
				w.behind = true
				continue
			}
			w.expiring.forget(e.key)
			if w.err = w.fn(state.Event{Kind: state.Deleted, Item: state.Item{Key: e.key}}); w.err != nil {
				return w.err
			}
		}
	}
	return nil
}

// deliver tells fn of a message, and that the snapshot is complete when it was the last.
func (w *watch) deliver(msg jetstream.Msg, meta *jetstream.MsgMetadata) error {
	key, ok := w.keys.key(msg.Subject())
	if !w.told && meta.Sequence.Stream > w.until {
		if err := w.current(); err != nil {
			return err
		}
	}
	w.behind = meta.NumPending > 0
	if ok && strings.HasPrefix(key, w.prefix) {
		w.err = w.tell(newEntry(key, msg.Data(), msg.Headers(), meta.Sequence.Stream))
	}
	w.seen = meta.Sequence.Stream
	if w.err == nil && !w.told && (w.seen >= w.until || !w.behind) {
		return w.current()
	}
	return w.err
}

// tell tells fn of the last entry of a key and keeps in mind when it expires.
func (w *watch) tell(e entry) error {
	exists := e.exists(time.Now())
	if (exists || w.told) && !w.expiring.note(e) {
		return fault.New(w.op, fault.WatchOverrun, "more than %d items under %q expire: watch longer prefixes", maxExpiring, w.prefix).With("prefix", w.prefix)
	}
	switch {
	case w.learning:
	case exists || w.told && !e.deleted:
		return w.fn(state.Event{Kind: state.Written, Item: e.item()})
	case w.told:
		return w.fn(state.Event{Kind: state.Deleted, Item: state.Item{Key: e.key}})
	}
	return nil
}

// current tells fn that the snapshot is complete.
func (w *watch) current() error {
	w.told = true
	if w.seen == 0 || w.learning {
		w.seen = w.until // so that a consumer made again does not repeat the snapshot
	}
	if w.err = w.fn(state.Event{Kind: state.Current}); w.err == nil && w.learning {
		w.learning = false
		return errLearned
	}
	return w.err
}

// forget tells the server, which would find out by itself.
func (w *watch) forget(consumer string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := w.stream.DeleteConsumer(ctx, consumer); err != nil {
		w.log.Debug("the consumer of a watch is left to the server", "error", err)
	}
}
