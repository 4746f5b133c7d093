package blocks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/configstore/natsconfig"
	"github.com/sidecast/sidecast/fault"
)

// settingsOf are the documents of a component of that bucket.
func settingsOf(bucket string) *components.Documents {
	return &components.Documents{Components: []components.Manifest{{
		Name: "settings", Type: "configuration.jetstream", Metadata: []components.Entry{{Key: "bucket", Value: bucket, Line: 1}},
	}}}
}

// withSettings is a sidecar that has them, and a way to write them.
func withSettings(t *testing.T, app *testApp) (*Blocks, func(bucket string) jetstream.KeyValue) {
	t.Helper()
	b := sidecarAs(t, t.TempDir(), "app", "app-1", app, 0, settingsOf("one"))
	return b, func(bucket string) jetstream.KeyValue {
		t.Helper()
		kv, err := natsconfig.Open(t.Context(), b.Runtime.deps.Fabric.Conn(), bucket, 1)
		if err != nil {
			t.Fatal(err)
		}
		return kv
	}
}

func write(t *testing.T, kv jetstream.KeyValue, key, value string) {
	t.Helper()
	if _, err := kv.PutString(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

// subscribed is a subscription that runs.
type subscribed struct {
	id    string
	ended chan error

	mu  sync.Mutex
	got []string // `key=value`, of all changes
}

func (s *subscribed) all() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.got, " ")
}

func subscribe(t *testing.T, ctx context.Context, b *Blocks, keys []string, also func()) *subscribed {
	t.Helper()
	s, began := &subscribed{ended: make(chan error, 1)}, make(chan string, 1)
	go func() {
		s.ended <- b.Configuration.Subscribe(ctx, ConfigurationRequest{Component: "settings", Keys: keys}, func(id string, items map[string]configstore.Item) error {
			if items == nil {
				began <- id
				return nil
			}
			s.mu.Lock()
			for key, item := range items {
				s.got = append(s.got, key+"="+item.Value)
			}
			s.mu.Unlock()
			also()
			return nil
		})
	}()
	select {
	case s.id = <-began:
	case err := <-s.ended:
		t.Fatal(err)
	}
	return s
}

func nothing() {}

func TestSettingsAreReadAndFollowed(t *testing.T) {
	b, bucket := withSettings(t, &testApp{invoke: echo, deliver: handled})
	kv := bucket("one")
	write(t, kv, "a", "1")
	items, err := b.Configuration.Get(t.Context(), ConfigurationRequest{Component: "settings", Keys: []string{"a", "absent", "a"}})
	if want := map[string]configstore.Item{"a": {Value: "1", Version: "1"}}; err != nil || len(items) != 1 || items["a"].Value != want["a"].Value || items["a"].Version != "1" {
		t.Errorf("got %v, %v", items, err)
	}
	some := subscribe(t, t.Context(), b, []string{"a", "b", "a"}, nothing)
	all := subscribe(t, t.Context(), b, nil, nothing)
	write(t, kv, "a", "2")
	eventually(t, "a change is told", func() bool { return some.all() == "a=2" && all.all() == "a=2" })
	write(t, kv, "c", "3")
	eventually(t, "a new item is told", func() bool { return all.all() == "a=2 c=3" })
	if err := kv.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of an item is told", func() bool { return some.all() == "a=2 a=" && all.all() == "a=2 c=3 a=" })
	if b.Configuration.Unsubscribe("other", some.id) || !b.Configuration.Unsubscribe("settings", some.id) || b.Configuration.Unsubscribe("", some.id) {
		t.Error("it does not end once, by its id and component")
	}
	if err := <-some.ended; err != nil {
		t.Error(err)
	}
	if err := b.StopIntake(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-all.ended; err != nil {
		t.Errorf("a shutdown ends it with %v", err)
	}
	err = b.Configuration.Subscribe(t.Context(), ConfigurationRequest{Component: "settings"}, func(string, map[string]configstore.Item) error { return nil })
	wantReason(t, err, fault.Shutdown)
}

func TestASlowSubscriberGetsTheLatest(t *testing.T) {
	b, bucket := withSettings(t, &testApp{invoke: echo, deliver: handled})
	kv := bucket("one")
	ctx, cancel := context.WithCancel(t.Context())
	turn, in := make(chan struct{}), make(chan struct{}, 1000)
	s := subscribe(t, ctx, b, []string{"a"}, func() { in <- struct{}{}; <-turn })
	write(t, kv, "a", "first")
	<-in
	for i := range 300 { // while it is at work
		write(t, kv, "a", fmt.Sprint(i))
	}
	seen := make(chan struct{}) // all of which the sidecar has heard when another subscriber has
	other := subscribe(t, ctx, b, []string{"b"}, func() { close(seen) })
	write(t, kv, "b", "x")
	<-seen
	close(turn)
	eventually(t, "the latest comes", func() bool { return strings.HasSuffix(s.all(), "a=299") })
	if n := strings.Count(s.all(), "a="); n > 10 {
		t.Errorf("it got %d values", n)
	}
	cancel()
	for _, s := range []*subscribed{s, other} {
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
	}
}

func TestASubscriptionOutlivesItsComponent(t *testing.T) {
	b, bucket := withSettings(t, &testApp{invoke: echo, deliver: handled})
	one, two := bucket("one"), bucket("two")
	write(t, one, "a", "1")
	write(t, one, "gone", "1")
	write(t, two, "a", "2")
	write(t, two, "new", "2")
	s := subscribe(t, t.Context(), b, nil, nothing)
	b.Runtime.deps.Components.Reload(settingsOf("two"))
	want := map[string]bool{"a=2": true, "gone=": true, "new=2": true}
	eventually(t, "what is other in the new place is told", func() bool {
		got := map[string]bool{}
		for _, change := range strings.Fields(s.all()) {
			got[change] = true
		}
		return maps.Equal(got, want)
	})
	write(t, two, "a", "3")
	eventually(t, "and what changes there", func() bool { return strings.HasSuffix(s.all(), "a=3") })
	b.Runtime.deps.Components.Reload(nil)
	wantReason(t, <-s.ended, fault.ComponentNotFound)
}

func TestAFailingSubscriberEnds(t *testing.T) {
	b, bucket := withSettings(t, &testApp{invoke: echo, deliver: handled})
	write(t, bucket("one"), "a", "1")
	broken := errors.New("broken")
	err := b.Configuration.Subscribe(t.Context(), ConfigurationRequest{Component: "settings"}, func(string, map[string]configstore.Item) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	wantReason(t, b.Configuration.Subscribe(t.Context(), ConfigurationRequest{Component: "nope"}, nil), fault.ComponentNotFound)
	many := make([]string, MaxConfigurationKeys+1)
	wantReason(t, b.Configuration.Subscribe(t.Context(), ConfigurationRequest{Component: "settings", Keys: many}, nil), fault.BadRequest)
	_, err = b.Configuration.Get(t.Context(), ConfigurationRequest{Component: "settings", Keys: many})
	wantReason(t, err, fault.BadRequest)
	panicking := func(string, map[string]configstore.Item) error { panic("of a door") }
	if err := contained(b.Configuration.log, "test", func() error {
		return b.Configuration.Subscribe(t.Context(), ConfigurationRequest{Component: "settings"}, panicking)
	}); fault.ReasonOf(err) != fault.Panicked {
		t.Errorf("got %v", err)
	}
	if n := len(b.Configuration.followers); n != 0 {
		t.Errorf("%d are left", n)
	}
}

func TestSubscriptionsAreBounded(t *testing.T) {
	b, _ := withSettings(t, &testApp{invoke: echo, deliver: handled})
	for i := range maxFollowers {
		b.Configuration.followers[fmt.Sprint(i)] = &follower{cancel: func() {}}
	}
	err := b.Configuration.Subscribe(t.Context(), ConfigurationRequest{Component: "settings"}, nil)
	wantReason(t, err, fault.SubscriptionsFull)
}

func TestTheAppIsToldUntilItTakesIt(t *testing.T) {
	var tries atomic.Int64
	got := make(chan string, 100)
	app := &testApp{deliver: handled, invoke: func(_ context.Context, req *call.Request) (*call.Response, error) {
		if tries.Add(1) < 3 {
			return &call.Response{Status: 503}, nil
		}
		got <- req.Method + " " + string(req.Body)
		return &call.Response{Status: 200}, nil
	}}
	b, bucket := withSettings(t, app)
	kv := bucket("one")
	id, err := b.Configuration.Deliver(t.Context(), ConfigurationRequest{Component: "settings", Keys: []string{"a"}}, func(id, key string, item configstore.Item) *call.Request {
		return &call.Request{App: "app", Method: key, Verb: "POST", Body: []byte(item.Value)}
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, kv, "a", "1")
	if told := <-got; told != "a 1" || tries.Load() != 3 {
		t.Errorf("told %s at try %d", told, tries.Load())
	}
	write(t, kv, "a", "2")
	if told := <-got; told != "a 2" {
		t.Errorf("told %s", told)
	}
	again := func() string {
		t.Helper()
		id, err := b.Configuration.Deliver(t.Context(), ConfigurationRequest{Component: "settings", Keys: []string{"a"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	if again() != id {
		t.Error("an app that starts anew and subscribes again has two subscriptions")
	}
	if !b.Configuration.Unsubscribe("settings", id) {
		t.Error("it cannot be ended")
	}
	if other := again(); other == id || !b.Configuration.Unsubscribe("settings", other) || len(b.Configuration.delivered) != 0 {
		t.Error("what was ended cannot begin again")
	}
	ids := make(chan string, 8)
	for range cap(ids) {
		go func() {
			id, err := b.Configuration.Deliver(t.Context(), ConfigurationRequest{Component: "settings", Keys: []string{"b"}}, nil)
			if err != nil {
				t.Error(err)
			}
			ids <- id
		}()
	}
	first := <-ids
	for range cap(ids) - 1 {
		if other := <-ids; other != first {
			t.Errorf("asked for at once there are the subscriptions %s and %s", first, other)
		}
	}
	_, err = b.Configuration.Deliver(t.Context(), ConfigurationRequest{Component: "nope"}, nil)
	wantReason(t, err, fault.ComponentNotFound)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = b.Configuration.Deliver(ended, ConfigurationRequest{Component: "settings"}, nil); fault.KindOf(err) != fault.Canceled {
		t.Errorf("got %v", err)
	}
}
