package compat

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/dapr/components-contrib/lock"
	"github.com/dapr/components-contrib/metadata"
	"github.com/dapr/components-contrib/pubsub"
	lockconformance "github.com/dapr/components-contrib/tests/conformance/lock"
	pubsubconformance "github.com/dapr/components-contrib/tests/conformance/pubsub"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// The conformance functions of components-contrib for brokers, through a sidecar.
func TestBrokersConform(t *testing.T) {
	t.Parallel()
	for _, broker := range brokersOfTheDefaultBuild {
		t.Run(broker.kind, func(t *testing.T) {
			t.Parallel()
			var given []string
			if broker.settings != nil {
				given = broker.settings(t)
			}
			m := machine.New(t)
			if broker.plugged {
				plugIn(t, m, "plugged")
			}
			d := startWith(t, m, component(conforming, broker.kind, given...), "conformer")
			config, err := pubsubconformance.NewTestConfig(broker.kind, []string{"bulkpublish"}, map[string]any{
				"pubsubName": conforming, "checkInOrderProcessing": false, "waitDurationToPublish": "100ms",
			})
			if err != nil {
				t.Fatal(err)
			}
			pubsubconformance.ConformanceTests(t, nil, &remoteBroker{dapr: d.client()}, config)
		})
	}
}

// remoteBroker is a sidecar's broker as one of the library.
type remoteBroker struct {
	dapr    runtimev1.DaprClient
	streams sync.WaitGroup
	cancels []context.CancelFunc
}

func (*remoteBroker) Init(context.Context, pubsub.Metadata) error { return nil }

func (*remoteBroker) Features() []pubsub.Feature { return nil }

func (*remoteBroker) GetComponentMetadata() metadata.MetadataMap { return nil }

func (b *remoteBroker) Publish(ctx context.Context, r *pubsub.PublishRequest) error {
	_, err := b.dapr.PublishEvent(ctx, &runtimev1.PublishEventRequest{
		PubsubName: conforming, Topic: r.Topic, Data: r.Data, DataContentType: "text/plain", Metadata: r.Metadata,
	})
	return err
}

// BulkPublish implements pubsub.BulkPublisher.
func (b *remoteBroker) BulkPublish(ctx context.Context, r *pubsub.BulkPublishRequest) (pubsub.BulkPublishResponse, error) {
	all := &runtimev1.BulkPublishRequest{PubsubName: conforming, Topic: r.Topic, Metadata: r.Metadata}
	for _, e := range r.Entries {
		all.Entries = append(all.Entries, &runtimev1.BulkPublishRequestEntry{EntryId: e.EntryId, Event: e.Event, ContentType: e.ContentType, Metadata: e.Metadata})
	}
	got, err := b.dapr.BulkPublishEvent(ctx, all)
	var failed pubsub.BulkPublishResponse
	for _, e := range got.GetFailedEntries() {
		failed.FailedEntries = append(failed.FailedEntries, pubsub.BulkPublishResponseFailedEntry{EntryId: e.GetEntryId(), Error: errors.New(e.GetError())})
	}
	return failed, err
}

// Subscribe hands over one event at a time until ctx ends.
func (b *remoteBroker) Subscribe(ctx context.Context, r pubsub.SubscribeRequest, handle pubsub.Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	b.cancels = append(b.cancels, cancel)
	stream, err := b.dapr.SubscribeTopicEventsAlpha1(ctx)
	if err != nil {
		return err
	}
	initial := &runtimev1.SubscribeTopicEventsRequestInitialAlpha1{PubsubName: conforming, Topic: r.Topic, Metadata: r.Metadata}
	if err := stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{
		SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_InitialRequest{InitialRequest: initial},
	}); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil { // that it has begun
		return err
	}
	b.streams.Go(func() {
		for {
			got, err := stream.Recv()
			if err != nil {
				return
			}
			e := got.GetEventMessage()
			answer := runtimev1.TopicEventResponse_SUCCESS
			if handle(ctx, &pubsub.NewMessage{Data: e.GetData(), Topic: e.GetTopic()}) != nil {
				answer = runtimev1.TopicEventResponse_RETRY
			}
			processed := &runtimev1.SubscribeTopicEventsRequestProcessedAlpha1{Id: e.GetId(), Status: &runtimev1.TopicEventResponse{Status: answer}}
			if stream.Send(&runtimev1.SubscribeTopicEventsRequestAlpha1{
				SubscribeTopicEventsRequestType: &runtimev1.SubscribeTopicEventsRequestAlpha1_EventProcessed{EventProcessed: processed},
			}) != nil {
				return
			}
		}
	})
	return nil
}

func (b *remoteBroker) Close() error {
	for _, cancel := range b.cancels {
		cancel()
	}
	b.streams.Wait()
	return nil
}

// The conformance functions of components-contrib for locks, through a sidecar.
func TestLocksConform(t *testing.T) {
	t.Parallel()
	for kind, settings := range map[string]func(t *testing.T) string{
		"lock.in-memory": nil, "lock.memory": nil, "lock.badger": nil, "lock.jetstream": nil,
		"lock.redis": func(t *testing.T) string { return "redisHost: " + servers.Redis(t) },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var given []string
			if settings != nil {
				given = []string{settings(t)}
			}
			d := startWith(t, machine.New(t), component(conforming, kind, given...), "app")
			config, err := lockconformance.NewTestConfig(kind, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			lockconformance.ConformanceTests(t, nil, remoteLock{d.client()}, config)
		})
	}
}

// remoteLock is a sidecar's lock store as one of the library.
type remoteLock struct{ dapr runtimev1.DaprClient }

func (remoteLock) InitLockStore(context.Context, lock.Metadata) error { return nil }

func (remoteLock) GetComponentMetadata() metadata.MetadataMap { return nil }

func (remoteLock) Close() error { return nil }

func (l remoteLock) TryLock(ctx context.Context, r *lock.TryLockRequest) (*lock.TryLockResponse, error) {
	got, err := l.dapr.TryLockAlpha1(ctx, &runtimev1.TryLockRequest{
		StoreName: conforming, ResourceId: r.ResourceID, LockOwner: r.LockOwner, ExpiryInSeconds: r.ExpiryInSeconds,
	})
	return &lock.TryLockResponse{Success: got.GetSuccess()}, err
}

func (l remoteLock) Unlock(ctx context.Context, r *lock.UnlockRequest) (*lock.UnlockResponse, error) {
	got, err := l.dapr.UnlockAlpha1(ctx, &runtimev1.UnlockRequest{StoreName: conforming, ResourceId: r.ResourceID, LockOwner: r.LockOwner})
	if status.Code(err) != codes.OK {
		return nil, err
	}
	return &lock.UnlockResponse{Status: lock.Status(got.GetStatus())}, nil
}
