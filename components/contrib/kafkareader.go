package contrib

import (
	"context"
	"errors"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/dapr/kit/logger"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidecast/sidecast/fault"
)

// kafkaReader is a member of a consumer group. It hands over each record on its own, and commits for each partition how far
// all have been handled, and, as the metadata of that, which ones are beyond; see kafkacommit.go. What was handled in the second
// before the process died comes again, and nothing is lost.
type kafkaReader struct {
	client *kgo.Client
	log    logger.Logger
	group  string
	window int // most records of a partition from the first that is not handled on
	newest bool
	serial bool // a partition's records go one after the other
	// convert makes a record's value what the handler gets. While it fails, the record and those behind it wait; but when it fails
	// with an unreadableError the handler gets the value as it is, in a call that says so.
	convert func(ctx context.Context, record *kgo.Record) ([]byte, error)
	// handle returns nil when the record has been handled.
	handle func(call *kafkaCall, record *kgo.Record, data []byte) error

	running context.Context // until it closes
	stop    context.CancelFunc
	closing sync.Once
	polling sync.WaitGroup
	joined  chan struct{} // closed when the member has its first partitions, or knows that there are none for it
	join    sync.Once
	flow    sync.Mutex    // of pausing and resuming; before mu
	bell    chan struct{} // holds one: there is something to commit

	mu     sync.Mutex
	claims map[kafkaPlace]*kafkaClaim
}

type kafkaPlace struct {
	topic     string
	partition int32
}

// kafkaClaim is a partition for as long as it is the reader's.
type kafkaClaim struct {
	place   kafkaPlace
	ctx     context.Context // ends when the partition is another's
	cancel  context.CancelFunc
	leaving chan struct{} // closed before that: what is not at work is given back
	working sync.WaitGroup

	// The rest belongs to the reader's mu.

	open    []*kafkaPending // in the order of the partition; the first one is not handled
	backlog []*kafkaPending // those of open that wait until the first of them can be converted; empty when none does
	paused  bool
	closed  bool
	next    int64          // the first offset that is not known to be handled, when open is empty; -1 before there was one
	epoch   int32          // of the leader's, of next
	known   map[int64]bool // offsets beyond base that had been handled when the claim began
	base    int64
	began   int32 // how many partitions the topic had when the group began at its end, or 0
	dirty   bool  // there is something to commit
}

// kafkaPending is a record that is not known to be committed.
type kafkaPending struct {
	record *kgo.Record
	done   bool
	over   chan struct{} // closed when it is done; nil if it was from the beginning
	before *kafkaPending // what is to be done before it; nil unless the reader is serial
}

// kafkaCall is the context of a handler's call with one record. It has a deadline far away, which is how the library tells
// that it ends the context when it has acknowledged; see acknowledging.
type kafkaCall struct {
	context.Context
	begun      func() // tells that the handler has the record's place in the order
	leaving    <-chan struct{}
	unreadable error // why the record is nothing for an app; nil if it is
}

var farAway = time.Unix(math.MaxInt32, 0).AddDate(1000, 0, 0)

func (*kafkaCall) Deadline() (time.Time, bool) { return farAway, true }

const (
	// parting is how long the members of a group wait for what is at work here when they share out the partitions anew. Who
	// gets a partition then would begin with what is not handled by then.
	parting = 5 * time.Second
	// committing is how long a commit may take.
	committing = 5 * time.Second
	// converting is how long all the records of a poll may take until they can be handed over. The group cannot share out its
	// partitions meanwhile.
	converting = 5 * time.Second
	// rebalancing is how long all members may take, as with the library's client.
	rebalancing = 60 * time.Second
	mostPolled  = 64
)

var kafkaBalancers = map[string]func() kgo.GroupBalancer{"range": kgo.RangeBalancer, "sticky": kgo.StickyBalancer, "roundrobin": kgo.RoundRobinBalancer}

// read begins to join the group of r, which has its settings, and waits for nothing. The caller closes r in any case.
func (k *kafkaConnection) read(r *kafkaReader, topics []string) (err error) {
	r.log, r.window, r.joined, r.claims = k.log, k.number("channelBufferSize"), make(chan struct{}), map[kafkaPlace]*kafkaClaim{}
	r.bell = make(chan struct{}, 1)
	r.newest = k.values["initialOffset"] != "oldest"
	start := kgo.NewOffset().AtStart()
	if r.newest {
		start = kgo.NewOffset().AtEnd()
	}
	r.client, err = k.client(
		kgo.ConsumerGroup(r.group), kgo.ConsumeTopics(topics...),
		kgo.ConsumeStartOffset(start), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // what a group has not handled, and the servers have no more, is all that it passes over
		kgo.Balancers(kafkaBalancers[k.values["consumerGroupRebalanceStrategy"]]()),
		kgo.SessionTimeout(k.duration("sessionTimeout")), kgo.HeartbeatInterval(k.duration("heartbeatInterval")), kgo.RebalanceTimeout(rebalancing),
		kgo.FetchMinBytes(int32(k.number("consumerFetchMin"))), kgo.FetchMaxPartitionBytes(int32(k.number("consumerFetchDefault"))),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(r.assigned), kgo.OnPartitionsRevoked(r.revoked), kgo.OnPartitionsLost(r.lost),
	)
	if err != nil {
		return err
	}
	r.running, r.stop = context.WithCancel(context.Background())
	r.polling.Go(func() { r.poll(r.running) })
	r.polling.Go(func() { r.keepCommitting(r.running) })
	return nil
}

// await returns when r has joined its group.
func (r *kafkaReader) await(ctx context.Context) error {
	select {
	case <-r.joined:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.running.Done():
		return errReaderClosed
	}
}

var errReaderClosed = errors.New("the reader is closed")

// close leaves the group, once, and returns when that has been done. The handlers have been told to give back what they have.
func (r *kafkaReader) close() {
	if r.client != nil {
		r.closing.Do(r.leave)
	}
}

func (r *kafkaReader) leave() {
	r.stop()
	r.polling.Wait()
	leaving, cancel := context.WithTimeout(context.Background(), committing)
	defer cancel()
	if err := r.client.LeaveGroupContext(leaving); err != nil {
		r.log.Debugf("the group %s was not left: %v", r.group, err)
	}
	r.client.CloseAllowingRebalance()
	r.part(nil, 0) // what the client did not revoke for want of a server
}

func (r *kafkaReader) poll(ctx context.Context) {
	for {
		fetches := r.client.PollRecords(ctx, mostPolled)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			r.client.AllowRebalance()
			return
		}
		failed := false
		fetches.EachError(func(topic string, partition int32, err error) {
			failed = true
			r.log.Errorf("error reading from %s/%d: %v", topic, partition, err)
		})
		bounded, cancel := context.WithTimeout(ctx, converting)
		fetches.EachRecord(func(record *kgo.Record) { r.take(bounded, record) })
		cancel()
		r.client.AllowRebalance()
		if failed {
			pause(ctx, pace)
		}
	}
}

// assigned begins to take records of partitions.
func (r *kafkaReader) assigned(ctx context.Context, client *kgo.Client, partitions map[string][]int32) {
	known := r.begin(ctx, client, partitions)
	r.mu.Lock()
	for topic, numbers := range partitions {
		for _, number := range numbers {
			c := &kafkaClaim{place: kafkaPlace{topic, number}, leaving: make(chan struct{}), next: -1}
			c.known, c.base, c.began = known[c.place].offsets, known[c.place].base, known[c.place].began
			c.ctx, c.cancel = context.WithCancel(context.Background())
			r.claims[c.place] = c
		}
	}
	r.mu.Unlock()
	if len(partitions) > 0 {
		client.ResumeFetchPartitions(partitions) // who had them before may have paused them
	}
	r.join.Do(func() { close(r.joined) })
}

// revoked gives partitions back, when what is at work has been handled or has had its time.
func (r *kafkaReader) revoked(ctx context.Context, _ *kgo.Client, partitions map[string][]int32) {
	parted := r.part(partitions, parting)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), committing)
	defer cancel()
	r.commit(ctx, parted)
}

func (r *kafkaReader) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	r.part(partitions, 0)
}

// part ends the claims to partitions; nil is all. It waits for what is at work for as long as grace.
func (r *kafkaReader) part(partitions map[string][]int32, grace time.Duration) (parted []*kafkaClaim) {
	r.mu.Lock()
	for place, c := range r.claims {
		if partitions == nil || slices.Contains(partitions[place.topic], place.partition) {
			parted = append(parted, c)
			close(c.leaving)
			delete(r.claims, place)
		}
	}
	r.mu.Unlock()
	idle := make(chan struct{})
	go func() { // ends with the handlers
		defer close(idle)
		for _, c := range parted {
			c.working.Wait()
		}
	}()
	await := func(d time.Duration) {
		late := time.NewTimer(d)
		defer late.Stop()
		select {
		case <-idle:
		case <-late.C:
		}
	}
	await(grace)
	r.mu.Lock()
	for _, c := range parted {
		c.closed = true
		c.cancel()
	}
	r.mu.Unlock()
	await(pace) // they have heard of it, unless they are with an app
	return parted
}

// take begins with a record, unless it cannot be converted before ctx ends: clear does it then. It is called in the order of each partition.
func (r *kafkaReader) take(ctx context.Context, record *kgo.Record) {
	r.mu.Lock()
	c := r.claims[kafkaPlace{record.Topic, record.Partition}]
	if c == nil {
		r.mu.Unlock()
		return // another's by now
	}
	if record.Offset < c.base { // the topic is another
		c.known = nil
	}
	if c.known[record.Offset] {
		delete(c.known, record.Offset)
		if len(c.open) > 0 {
			c.open = append(c.open, &kafkaPending{record: bare(record), done: true})
		} else {
			c.next, c.epoch, c.dirty = record.Offset+1, record.LeaderEpoch, true
		}
		r.mu.Unlock()
		r.ring()
		return
	}
	p := &kafkaPending{record: record, over: make(chan struct{})}
	for i := len(c.open) - 1; i >= 0 && r.serial; i-- {
		if !c.open[i].done { // one that is had been handled before the claim began
			p.before = c.open[i]
			break
		}
	}
	c.open = append(c.open, p)
	waits := len(c.backlog) > 0
	if waits {
		c.backlog = append(c.backlog, p)
	}
	r.mu.Unlock()
	if !waits {
		if err := r.start(ctx, c, p); err != nil {
			r.mu.Lock()
			c.backlog = append(c.backlog, p)
			c.working.Add(1) // while the reader polls, no claim is parted with
			r.mu.Unlock()
			go r.clear(c)
		}
	}
	r.adjust(c)
}

// start hands p over, and returns when its handler has its place. It fails when p cannot be converted.
func (r *kafkaReader) start(ctx context.Context, c *kafkaClaim, p *kafkaPending) error {
	data, err := r.converted(ctx, p.record)
	unreadable, never := errors.AsType[unreadableError](err)
	switch {
	case never:
		data = p.record.Value
	case err != nil:
		if ctx.Err() == nil {
			r.log.Errorf("a message of %s/%d at %d cannot be read, and those behind it wait: %v", c.place.topic, c.place.partition, p.record.Offset, err)
		}
		return err
	}
	inner, end := context.WithCancel(c.ctx)
	begun := make(chan struct{})
	var once sync.Once
	call := &kafkaCall{Context: inner, leaving: c.leaving, unreadable: unreadable.error, begun: func() { once.Do(func() { close(begun) }) }}
	c.working.Add(1)
	go func() {
		defer c.working.Done()
		defer end()
		defer call.begun()
		if p.before != nil {
			call.begun()
			select {
			case <-p.before.over:
			case <-c.leaving:
				return
			}
		}
		if r.handle(call, p.record, data) == nil {
			r.done(c, p)
		}
	}()
	<-begun
	return nil
}

// converted is what convert makes of a record. A library that panics at its bytes has failed.
func (r *kafkaReader) converted(ctx context.Context, record *kgo.Record) (data []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = unreadableError{fault.New("the library", fault.Panicked, "panicked: %v", p)}
			r.log.Errorf("a library panicked at a message of %s/%d at %d: %v\n%s", record.Topic, record.Partition, record.Offset, p, debug.Stack())
		}
	}()
	return r.convert(ctx, record)
}

// clear hands over the backlog of c, as it can be converted.
func (r *kafkaReader) clear(c *kafkaClaim) {
	defer c.working.Done()
	for failures := 1; ; {
		r.mu.Lock()
		if len(c.backlog) == 0 {
			r.mu.Unlock()
			r.adjust(c)
			return
		}
		p := c.backlog[0]
		r.mu.Unlock()
		select {
		case <-c.leaving:
			return
		default:
		}
		if err := r.start(c.ctx, c, p); err != nil {
			late := time.NewTimer(min(pace<<min(failures, 6), 30*time.Second))
			failures++
			select {
			case <-late.C:
			case <-c.leaving:
				late.Stop()
				return
			}
			continue
		}
		failures = 1
		r.mu.Lock()
		c.backlog = c.backlog[1:]
		r.mu.Unlock()
	}
}

// done notes that p has been handled.
func (r *kafkaReader) done(c *kafkaClaim, p *kafkaPending) {
	r.mu.Lock()
	p.done, p.before = true, nil
	close(p.over)
	p.record = bare(p.record)
	for len(c.open) > 0 && c.open[0].done {
		last := c.open[0].record
		c.next, c.epoch = last.Offset+1, last.LeaderEpoch
		c.open[0], c.open = nil, c.open[1:]
	}
	c.dirty = c.dirty || !c.closed
	r.mu.Unlock()
	r.ring()
	r.adjust(c)
}

// ring says that there is something to commit.
func (r *kafkaReader) ring() {
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// bare is where a record is, without what it holds.
func bare(r *kgo.Record) *kgo.Record {
	return &kgo.Record{Offset: r.Offset, LeaderEpoch: r.LeaderEpoch}
}

// adjust stops reading a partition of which enough is here, and goes on when half of it is done.
func (r *kafkaReader) adjust(c *kafkaClaim) {
	r.flow.Lock()
	defer r.flow.Unlock()
	r.mu.Lock()
	was, current := c.paused, r.claims[c.place] == c
	switch n := len(c.open); {
	case n >= r.window || len(c.backlog) > 0:
		c.paused = true
	case n <= r.window/2:
		c.paused = false
	}
	now := c.paused
	r.mu.Unlock()
	place := map[string][]int32{c.place.topic: {c.place.partition}}
	switch {
	case !current || was == now:
	case now:
		r.client.PauseFetchPartitions(place)
	default:
		r.client.ResumeFetchPartitions(place)
	}
}
