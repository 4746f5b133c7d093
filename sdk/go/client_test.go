package sidecast_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	sidecast "github.com/sidecast/sidecast/sdk/go"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

func TestConnectWithoutSidecar(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := sidecast.Connect(ctx, sidecast.Endpoint("localhost:1")); sidecast.ReasonOf(err) != fault.SidecarLost {
		t.Error(err)
	}
}

func TestConnectFromEnvironment(t *testing.T) {
	s := start(t, "")
	t.Setenv("SIDECAST_GRPC_ENDPOINT", s.address)
	t.Setenv("SIDECAST_API_TOKEN", "from the environment")
	client, err := sidecast.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, _ = client.Invoke(t.Context(), "any", "x", nil)
	if token := s.seen.Get("sidecast-api-token"); len(token) != 1 || token[0] != "from the environment" {
		t.Error(token)
	}
}

func TestPublish(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	id, err := client.PublishJSON(t.Context(), "orders", map[string]int{"a": 1}, sidecast.Key("k"), sidecast.Delay(time.Second),
		sidecast.ID("mine"), sidecast.PubSub("bus"), sidecast.Raw(), sidecast.Metadata("x", "y"))
	r := <-s.published
	if err != nil || id != "id-orders" || r.PartitionKey != "k" || r.Delay.AsDuration() != time.Second || r.Metadata["cloudevent.id"] != "mine" ||
		r.Metadata["x"] != "y" || r.PubsubName != "bus" || !r.Raw || r.ContentType != "application/json" || string(r.Data) != `{"a":1}` {
		t.Errorf("%s %v %v", id, r, err)
	}
	if _, err := client.Publish(t.Context(), "", nil); sidecast.ReasonOf(err) != fault.TopicInvalid {
		t.Error(err)
	}
	results, err := client.PublishBatch(t.Context(), "orders", []sidecast.Message{
		{Data: []byte("x"), Options: []sidecast.PublishOption{sidecast.Key("k")}}, {},
	})
	if err != nil || len(results) != 2 || results[0].ID != "0k" || results[0].Err != nil || sidecast.ReasonOf(results[1].Err) != fault.EventInvalid {
		t.Errorf("%+v %v", results, err)
	}
}

func TestSubscribe(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended, slow := make(chan error, 1), make(chan struct{})
	handled := make(chan string, 10)
	go func() {
		ended <- client.Subscribe(ctx, sidecast.Subscription{Topic: "orders", Concurrency: 2}, func(_ context.Context, e *sidecast.Event) error {
			handled <- e.ID
			switch e.ID {
			case "bad":
				return sidecast.Drop(errors.New("never"))
			case "slow":
				<-slow
			}
			return nil
		})
	}()
	<-s.opened
	for i, id := range []string{"good", "bad", "good", "good"} { // more than credits
		s.feed <- &sidecastv1.Event{DeliveryId: fmt.Sprint(i), Id: id}
		ack := <-s.acks
		want := sidecastv1.EventStatus_EVENT_STATUS_SUCCESS
		if <-handled == "bad" {
			want = sidecastv1.EventStatus_EVENT_STATUS_DROP
		}
		if ack.DeliveryId != fmt.Sprint(i) || ack.Status != want {
			t.Errorf("%d: %v", i, ack)
		}
	}
	s.feed <- nil // the subscription breaks, and is opened again
	<-s.opened
	s.feed <- &sidecastv1.Event{DeliveryId: "last", Id: "slow"}
	<-handled
	cancel() // the running handler ends, and its event is answered
	close(slow)
	if ack := <-s.acks; ack.DeliveryId != "last" {
		t.Error(ack)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	err := client.Subscribe(t.Context(), sidecast.Subscription{Topic: "forbidden"}, nil)
	if sidecast.KindOf(err) != fault.Denied {
		t.Error(err)
	}
}

func TestState(t *testing.T) {
	s := start(t, "")
	state := s.connect(t).State("")
	ctx := t.Context()
	if _, found, err := state.Get(ctx, "a"); found || err != nil {
		t.Error(found, err)
	}
	etag, err := sidecast.SetJSON(ctx, state, "a", price{1}, sidecast.IfAbsent(), sidecast.TTL(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.Set(ctx, "a", nil, sidecast.IfAbsent()); sidecast.KindOf(err) != fault.Conflict {
		t.Error(err)
	}
	p, read, err := sidecast.GetJSON[price](ctx, state, "a")
	if err != nil || p.Cents != 1 || read != etag {
		t.Error(p, read, err)
	}
	if item, found, err := state.Get(ctx, "a"); err != nil || !found || item.TTL != time.Minute || item.ETag != etag {
		t.Error(item, found, err)
	}
	etags, err := state.Transact(ctx, sidecast.Expect("a", etag), sidecast.Put("b", []byte("2"), sidecast.IfAbsent()), sidecast.Remove("a"))
	if err != nil || len(etags) != 3 || etags[1] == "" {
		t.Error(etags, err)
	}
	if err := state.Delete(ctx, "b", sidecast.IfMatch("0")); sidecast.ReasonOf(err) != fault.ETagMismatch {
		t.Error(err)
	}
	for i := range 25 {
		if _, err := state.Set(ctx, fmt.Sprintf("list/%02d", i), nil); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for item, err := range state.List(ctx, "list/", sidecast.PageSize(10), sidecast.KeysOnly()) {
		if err != nil || item.Key != fmt.Sprintf("list/%02d", n) {
			t.Fatal(item, err)
		}
		n++
	}
	if n != 25 {
		t.Errorf("%d items", n)
	}
	items, err := state.BatchGet(ctx, "b", "missing", "list/00")
	if err != nil || len(items) != 2 || items[1].Key != "list/00" {
		t.Error(items, err)
	}
	s.changes <- &sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Set{Set: &sidecastv1.Item{Key: "a"}}}
	s.changes <- &sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Current{Current: true}}
	s.changes <- &sidecastv1.StateWatchResponse{Event: &sidecastv1.StateWatchResponse_Deleted{Deleted: "a"}}
	s.changes <- nil
	var seen []sidecast.Change
	for change, err := range state.Watch(ctx, "") {
		if err != nil {
			if sidecast.ReasonOf(err) != fault.WatchOverrun {
				t.Error(err)
			}
			break
		}
		seen = append(seen, change)
	}
	if len(seen) != 3 || seen[0].Item.Key != "a" || !seen[1].Current || !seen[2].Deleted || seen[2].Item.Key != "a" {
		t.Errorf("%+v", seen)
	}
}

func TestLock(t *testing.T) {
	s := start(t, "")
	lock := s.connect(t).Lock("")
	ctx := t.Context()
	lease, err := lock.Acquire(ctx, "x", sidecast.Owner("me"), sidecast.TTL(time.Minute), sidecast.Wait(time.Second))
	if err != nil || lease.Owner != "me" || lease.Token == 0 || lease.TTL != time.Minute {
		t.Fatal(lease, err)
	}
	if _, err := lock.Acquire(ctx, "x"); sidecast.ReasonOf(err) != fault.LockHeld {
		t.Error(err)
	}
	if _, err := lock.Renew(ctx, lease, sidecast.TTL(time.Hour)); err != nil {
		t.Error(err)
	}
	for state, err := range lock.Watch(ctx, "x") {
		if err != nil || state.Holder.Owner != "me" || state.Waiting != 2 {
			t.Error(state, err)
		}
		break
	}
	if err := lock.Release(ctx, lease); err != nil {
		t.Error(err)
	}
	if err := lock.Release(ctx, lease); sidecast.ReasonOf(err) != fault.LockLost {
		t.Error(err)
	}
	held, err := lock.Hold(ctx, "x")
	if err != nil || held.Token <= lease.Token {
		t.Fatal(held, err)
	}
	if _, err := lock.Hold(ctx, "x"); sidecast.ReasonOf(err) != fault.LockHeld {
		t.Error(err)
	}
	if err := held.Release(ctx); err != nil {
		t.Error(err)
	}
	<-held.Lost()
	held, err = lock.Hold(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	close(s.lose)
	<-held.Lost()
	if sidecast.ReasonOf(held.Err()) != fault.LockLost {
		t.Error(held.Err())
	}
	if err := held.Release(ctx); err != nil { // the lease of this sidecar is still there
		t.Error(err)
	}
}

func TestClosedClientEndsItsSubscriptions(t *testing.T) {
	s := start(t, "")
	client := s.connect(t)
	ended := make(chan error, 2)
	go func() {
		ended <- client.Subscribe(t.Context(), sidecast.Subscription{Topic: "orders"}, func(context.Context, *sidecast.Event) error { return nil })
	}()
	go func() { ended <- client.Serve(t.Context()) }()
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a closed client ended without saying why")
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a closed client goes on")
		}
	}
}
