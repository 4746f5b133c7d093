package natsstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// The levels of the JetStream API that bring what the store uses.
const (
	levelTTL    = 1 // NATS 2.11: messages with a time to live
	levelAtomic = 2 // NATS 2.12: atomic batches
)

// prepareStream makes the bucket, or takes it as it is, and returns the level of what it may use. A bucket of another
// making is given the abilities that are missing and keeps the rest.
func (s *store) prepareStream(ctx context.Context, replicas int) (level int, err error) {
	account, err := s.js.AccountInfo(ctx)
	if err != nil {
		return 0, err
	}
	level = account.API.Level
	want := s.bucketConfig(replicas, level)
	s.stream, err = s.js.CreateStream(ctx, want)
	if err == nil || !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return level, err
	}
	if s.stream, err = s.js.Stream(ctx, want.Name); err != nil {
		return 0, err
	}
	have := s.stream.CachedInfo().Config
	if have.MaxMsgsPerSubject != 1 || len(have.Subjects) != 1 || have.Subjects[0] != want.Subjects[0] || have.Mirror != nil {
		return 0, fmt.Errorf("the stream %s exists and is no key-value bucket without history", want.Name)
	}
	fit := have
	fit.AllowMsgTTL = have.AllowMsgTTL || want.AllowMsgTTL
	fit.AllowAtomicPublish = have.AllowAtomicPublish || want.AllowAtomicPublish
	fit.AllowDirect = have.AllowDirect && have.Replicas == 1
	fit.SubjectDeleteMarkerTTL = 0 // loses writes: see expiring
	if fit.AllowMsgTTL == have.AllowMsgTTL && fit.AllowAtomicPublish == have.AllowAtomicPublish &&
		fit.AllowDirect == have.AllowDirect && fit.SubjectDeleteMarkerTTL == have.SubjectDeleteMarkerTTL {
		return level, nil
	}
	s.stream, err = s.js.UpdateStream(ctx, fit)
	return level, err
}

// bucketConfig is that of a key-value bucket as NATS's own tools know it, but that replicas do not answer reads.
func (s *store) bucketConfig(replicas, level int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:              s.keys.stream(),
		Description:       "State of Sidecast apps",
		Subjects:          []string{s.keys.root + ">"},
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		MaxMsgsPerSubject: 1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxConsumers:      -1,
		Discard:           jetstream.DiscardNew,
		DenyDelete:        true,
		AllowRollup:       true,
		AllowDirect:       replicas == 1, // the one that answers is the leader, and answers faster
	}
	c.AllowMsgTTL = level >= levelTTL
	c.AllowAtomicPublish = level >= levelAtomic
	return c
}
