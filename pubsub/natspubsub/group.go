package natspubsub

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/pubsub"
)

// Defaults of a group.
const (
	defaultAckWait     = 30 * time.Second
	defaultMaxInFlight = 1000
)

// What the metadata of a group's first consumer tells its later members.
const (
	shardsKey = "sidecast-shards" // how many consumers share the partitions; fixed, for each has its own position
	keyedKey  = "sidecast-keyed"  // "true" once they exist
)

// group is a consumer group of one topic as the server knows it: a durable consumer of the messages without a key, and
// shards, made when the first keyed message appears: durable consumers with one delivery out at a time.
type group struct {
	b           *broker
	op          string
	topic       string // as a token
	name        string
	ackWait     time.Duration
	maxInFlight int
	onlyNew     bool

	free   string // the first consumer
	shards int    // 0: the first consumer has all partitions too, one delivery at a time
	config jetstream.ConsumerConfig
}

// openGroup makes sure that the group's first consumer exists. What is stored from now on belongs to the group, keyed
// messages included: their consumers start where the first one did, whenever they are made.
func (b *broker) openGroup(ctx context.Context, op, topic string, g pubsub.Group) (*group, error) {
	gr := &group{
		b: b, op: op, topic: topic, name: g.Name, ackWait: g.AckWait, maxInFlight: g.MaxInFlight, onlyNew: g.OnlyNew,
		free: durable(topic, g.Name, -1),
	}
	if gr.ackWait <= 0 {
		gr.ackWait = defaultAckWait
	}
	if gr.maxInFlight <= 0 {
		gr.maxInFlight = defaultMaxInFlight
	}
	for {
		found, err := b.js.Consumer(ctx, b.names.stream, gr.free)
		if err == nil {
			return gr, gr.join(ctx, found.CachedInfo().Config)
		}
		if !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, jsFault(ctx, op, err)
		}
		err = gr.create(ctx)
		if err == nil {
			return gr, nil
		}
		if !errors.Is(err, jetstream.ErrConsumerExists) { // another member was first: join it
			return nil, jsFault(ctx, op, err)
		}
	}
}

func (g *group) create(ctx context.Context) error {
	g.shards = min(g.maxInFlight/2, g.b.config.Partitions)
	c := jetstream.ConsumerConfig{
		Durable:       g.free,
		Description:   "Sidecast group " + g.name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       g.ackWait,
		MaxDeliver:    -1,
		MaxAckPending: g.maxInFlight,
		FilterSubject: g.b.names.free(g.topic),
		Metadata:      map[string]string{shardsKey: strconv.Itoa(g.shards)},
	}
	if g.shards == 0 {
		c.FilterSubject, c.FilterSubjects = "", []string{g.b.names.free(g.topic), g.b.names.anyPartition(g.topic)}
	}
	if g.onlyNew {
		stream, err := g.b.js.Stream(ctx, g.b.names.stream)
		if err != nil {
			return err
		}
		c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, stream.CachedInfo().State.LastSeq+1
	}
	made, err := g.b.js.CreateConsumer(ctx, g.b.names.stream, c)
	if err == nil {
		g.config = made.CachedInfo().Config
	}
	return err
}

// join takes over what the group was made with and brings the rest up to date; the latest member decides.
func (g *group) join(ctx context.Context, have jetstream.ConsumerConfig) error {
	shards, err := strconv.Atoi(have.Metadata[shardsKey])
	if err != nil {
		return fault.New(g.op, fault.JetStreamRefused, "consumer %s exists and is not of Sidecast's making", g.free)
	}
	g.shards, g.config = shards, have
	if want := g.freeInFlight(); have.AckWait != g.ackWait || have.MaxAckPending != want {
		return g.update(ctx)
	}
	return nil
}

func (g *group) keyed() bool { return g.config.Metadata[keyedKey] == "true" }

// freeInFlight is how many deliveries of unkeyed messages may be out, so that with the shards' it is no more than the
// group's limit. The number of shards is the group's for life; a limit lowered later cannot go below shards+1, and one
// that was 1 stays 1.
func (g *group) freeInFlight() int {
	switch {
	case g.shards == 0:
		return 1
	case g.keyed():
		return max(g.maxInFlight-g.shards, 1)
	}
	return g.maxInFlight
}

func (g *group) update(ctx context.Context) error {
	c := g.config
	c.Metadata = own(c.Metadata)
	c.AckWait, c.MaxAckPending = g.ackWait, g.freeInFlight()
	changed, err := g.b.js.UpdateConsumer(ctx, g.b.names.stream, c)
	if err != nil {
		return jsFault(ctx, g.op, err)
	}
	g.config = changed.CachedInfo().Config
	return nil
}

// shard makes sure that the consumers of the partitions exist. Before the first of them delivers, it waits until the
// unkeyed deliveries out leave them room within the group's limit.
func (g *group) shard(ctx context.Context) error {
	found, err := g.b.js.Consumer(ctx, g.b.names.stream, g.free)
	if err != nil {
		return jsFault(ctx, g.op, err)
	}
	g.config = found.CachedInfo().Config
	narrowed := g.keyed()
	if !narrowed {
		g.config.Metadata = own(g.config.Metadata)
		g.config.Metadata[keyedKey] = "true"
		if err := g.update(ctx); err != nil {
			return err
		}
	}
	if !narrowed || found.CachedInfo().NumAckPending > g.freeInFlight() {
		if err := g.room(ctx, found); err != nil {
			return err
		}
	}
	var work errgroup.Group
	work.SetLimit(8)
	for i := range g.shards {
		work.Go(func() error {
			_, err := g.b.js.CreateOrUpdateConsumer(ctx, g.b.names.stream, g.shardConfig(i))
			return jsFault(ctx, g.op, err)
		})
	}
	return work.Wait()
}

// room waits for the deliveries beyond the new limit; meanwhile the server gives out no others.
func (g *group) room(ctx context.Context, free jetstream.Consumer) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		info, err := free.Info(ctx)
		if err != nil {
			return jsFault(ctx, g.op, err)
		}
		if info.NumAckPending <= g.freeInFlight() {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return jsFault(ctx, g.op, ctx.Err())
		}
	}
}

func (g *group) shardConfig(i int) jetstream.ConsumerConfig {
	c := jetstream.ConsumerConfig{
		Durable:       durable(g.topic, g.name, i),
		Description:   g.config.Description + ", keyed",
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       g.ackWait,
		MaxDeliver:    -1,
		MaxAckPending: 1,
		DeliverPolicy: g.config.DeliverPolicy,
		OptStartSeq:   g.config.OptStartSeq,
	}
	for p := i; p < g.b.config.Partitions; p += g.shards {
		c.FilterSubjects = append(c.FilterSubjects, g.b.names.partition(g.topic, p))
	}
	if len(c.FilterSubjects) == 1 {
		c.FilterSubject, c.FilterSubjects = c.FilterSubjects[0], nil
	}
	return c
}

// sourceOf is the source that delivers partition p.
func (g *group) sourceOf(p int) int { return 1 + p%g.shards }
