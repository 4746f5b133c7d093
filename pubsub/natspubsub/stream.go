package natspubsub

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/fault"
)

const (
	partitionsKey = "sidecast-partitions" // in the stream's metadata: fixed, since it decides where a key lives
	dedupeWindow  = 2 * time.Minute
)

// streamConfig is the stream as this component wants it. A stream that may grow without limit never discards for space,
// so only a limited one needs DiscardNew, which servers do not combine with schedules.
func (b *broker) streamConfig() jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:        b.names.stream,
		Description: "Sidecast pub/sub of component " + b.component,
		Subjects:    []string{b.names.root + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    max(b.host.Replicas, 1),
		MaxAge:      b.config.MaxAge,
		MaxBytes:    int64(b.config.MaxBytes),
		MaxMsgs:     -1,
		Duplicates:  min(dedupeWindow, b.config.MaxAge),
		RePublish: &jetstream.RePublish{
			Source:      b.names.root + ".*.k.*",
			Destination: b.names.bell + ".{{wildcard(1)}}.{{wildcard(2)}}",
			HeadersOnly: true,
		},
		Metadata: map[string]string{partitionsKey: strconv.Itoa(b.config.Partitions)},
	}
	if c.MaxBytes > 0 {
		c.Discard = jetstream.DiscardNew
	} else {
		c.MaxBytes = -1
		c.AllowMsgSchedules, c.AllowRollup = true, true
	}
	return c
}

// ensureStream makes sure that the stream exists and is as configured.
func (b *broker) ensureStream(ctx context.Context) error {
	op := b.op("open")
	want := b.streamConfig()
	stream, err := b.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = b.js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // by another sidecar, a moment ago
			stream, err = b.js.Stream(ctx, want.Name)
		}
	}
	if err != nil {
		return jsFault(ctx, op, err)
	}
	have := stream.CachedInfo().Config
	if p := have.Metadata[partitionsKey]; p != want.Metadata[partitionsKey] {
		return fault.New(op, fault.BadManifest, "stream %s was made with partitions=%s; it cannot become %d, for keys would change their place: "+
			"set partitions back, or use a component of another name", want.Name, p, b.config.Partitions)
	}
	if differs(have, want) {
		if want.MaxBytes > 0 && have.AllowMsgSchedules {
			return fault.New(op, fault.BadManifest, "stream %s was made without maxBytes, and a server cannot limit a stream that may hold delayed messages: "+
				"leave maxBytes out, or use a component of another name", want.Name)
		}
		if stream, err = b.js.UpdateStream(ctx, want); err != nil {
			return jsFault(ctx, op, err)
		}
		have = stream.CachedInfo().Config
	}
	b.schedules.Store(have.AllowMsgSchedules)
	return nil
}

// differs compares what may change over a stream's life.
func differs(have, want jetstream.StreamConfig) bool {
	if have.RePublish == nil || *have.RePublish != *want.RePublish {
		return true
	}
	return have.MaxAge != want.MaxAge || have.MaxBytes != want.MaxBytes || have.Replicas != want.Replicas ||
		have.Discard != want.Discard || want.AllowMsgSchedules && !have.AllowMsgSchedules
}

// hasKeyed reports whether the stream holds keyed messages of the topic.
func (b *broker) hasKeyed(ctx context.Context, topic string) (bool, error) {
	stream, err := b.js.Stream(ctx, b.names.stream)
	if err != nil {
		return false, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(b.names.anyPartition(topic)))
	if err != nil {
		return false, err
	}
	return len(info.State.Subjects) > 0, nil
}

// own returns metadata without what the server adds to it.
func own(metadata map[string]string) map[string]string {
	m := maps.Clone(metadata)
	maps.DeleteFunc(m, func(k, _ string) bool { return strings.HasPrefix(k, "_nats.") })
	return m
}
