package natspubsub

import (
	"context"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fault"
)

const goneAfter = 5 * time.Second // without an answer of the consumers over a live connection, the feed fails

// bytesReached is how the server says that the next message is beyond what the pull may bring.
const bytesReached = "Message Size Exceeds MaxBytes"

// receive files what comes to the inbox: a message, or the end of a pull.
func (f *feed) receive(m *nats.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.signal()
	now := time.Now()
	if m.Reply == "" {
		f.pullEnded(now, m)
		return
	}
	in, ok := parseReply(m.Reply)
	source, known := f.index[in.consumer]
	if !ok || !known {
		return
	}
	f.trouble = time.Time{}
	d := &delivery{
		feed: f, key: outKey{source, in.seq}, reply: m.Reply, attempt: in.attempt,
		until: now.Add(f.group.ackWait), size: m.Size(),
	}
	d.message, d.stored = decode(m, in)
	f.dealer.delivered(now, source, in.seq, d.size, in.pending > 0, d.until)
	if old := f.out[d.key]; old != nil {
		old.settled = true // its wait ran out, the server gave it out again
		f.held -= old.size
	}
	if len(f.out) >= f.tidyAt {
		f.tidy(now)
		f.tidyAt = max(2*len(f.out), firstTidy)
	}
	f.out[d.key] = d
	f.held += d.size
	f.ready = append(f.ready, d)
	if !f.waiting && f.err == nil { // it was on its way while credits were recalled: given back unless somebody comes
		f.quiet.Reset(quietAfter)
	}
}

// tidy forgets the deliveries that nobody settled in time.
func (f *feed) tidy(now time.Time) {
	maps.DeleteFunc(f.out, func(_ outKey, d *delivery) bool {
		late := now.After(d.until)
		if late {
			f.held -= d.size
		}
		return late
	})
}

// pullEnded reads a status: the pull that it answers to holds no credits any more.
func (f *feed) pullEnded(now time.Time, m *nats.Msg) {
	id, err := strconv.ParseUint(lastToken(m.Subject), 36, 64)
	if err != nil {
		return
	}
	status, why := m.Header.Get("Status"), m.Header.Get("Description")
	switch {
	case status == "100":
	case status == "404", status == "408", why == bytesReached:
		f.trouble = time.Time{}
		f.dealer.ended(now, id, false)
	default: // 409: leadership change, shutdown, too many waiting; 503: nobody serves the consumer
		f.dealer.ended(now, id, true)
		if why == "Consumer Deleted" {
			f.end(fault.New(f.op, fault.JetStreamRefused, "the group's consumer was deleted"))
			return
		}
		f.noteTrouble(now)
	}
}

// noteTrouble ends the feed when the consumers have not answered for too long, and tells whether it did.
func (f *feed) noteTrouble(now time.Time) bool {
	if f.trouble.IsZero() {
		f.trouble = now
	}
	if now.Sub(f.trouble) < goneAfter {
		return false
	}
	f.end(fault.New(f.op, fault.JetStreamRefused, "the group's consumers have not answered for %s", goneAfter))
	return true
}

// onBell learns that a message was stored in a partition of the topic, or given back to it.
func (f *feed) onBell(m *nats.Msg) {
	partition, err := strconv.Atoi(lastToken(m.Subject))
	if err != nil || partition < 0 || partition >= f.b.config.Partitions {
		return
	}
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		seq = anySeq
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shards.known {
		size, _ := strconv.Atoi(m.Header.Get("Nats-Msg-Size")) // 0 when it was given back
		f.dealer.rang(f.group.sourceOf(partition), seq, size)
	} else {
		f.shards.heard, f.shards.look = true, time.Time{}
	}
	f.signal()
}

// When a feed looks for keyed messages by itself, should the bell of the first one have been missed.
const (
	firstDiscovery = time.Second
	lastDiscovery  = time.Minute
)

// shards is what a feed knows of the consumers of keyed messages.
type shards struct {
	known   bool // they are sources, or the group has none
	finding bool
	heard   bool // a bell told that there are keyed messages
	look    time.Time
	pause   time.Duration
}

// discover looks for keyed messages when it is time to.
func (f *feed) discover(now time.Time) {
	s := &f.shards
	if s.known || s.finding || now.Before(s.look) {
		return
	}
	s.finding = true
	heard := s.heard
	f.work.Go(func() {
		ctx, done := f.b.linked(f.life)
		defer done()
		err := f.findShards(ctx, heard)
		f.mu.Lock()
		defer f.mu.Unlock()
		s.finding = false
		s.look = time.Now().Add(s.pause)
		s.pause = min(2*s.pause, lastDiscovery)
		if err != nil && fault.KindOf(err) != fault.Unavailable {
			f.end(err)
		} else if err != nil || s.heard && !heard {
			s.look, s.pause = time.Now().Add(firstPause), firstDiscovery
		}
		f.signal()
	})
}

// findShards makes the shards sources of the feed if the topic has keyed messages.
func (f *feed) findShards(ctx context.Context, heard bool) error {
	if !heard {
		keyed, err := f.b.hasKeyed(ctx, f.group.topic)
		if err != nil || !keyed {
			return jsFault(ctx, f.op, err)
		}
	}
	if err := f.group.shard(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.group.shards {
		f.addSource(durable(f.group.topic, f.group.name, i))
	}
	f.dealer.rangAll()
	f.shards.known = true
	return nil
}
