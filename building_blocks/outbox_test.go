package blocks

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"testing"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// outboxDocs are a store, of the type given, whose transactions are published, and a broker that only others may use.
func outboxDocs(kind string) *components.Documents {
	entries := func(pubsub string) []components.Entry {
		return []components.Entry{{Key: "outboxPublishPubsub", Value: pubsub}, {Key: "outboxPublishTopic", Value: "written"}}
	}
	return &components.Documents{Components: []components.Manifest{
		{Name: "ledger", Type: kind, Metadata: entries("pubsub")},
		{Name: "denied", Type: "state.memory", Metadata: entries("closed")},
		{Name: "nowhere", Type: "state.memory", Metadata: entries("missing")},
		{Name: "closed", Type: "pubsub.memory", Metadata: []components.Entry{{Key: "protectedTopics", Value: "written"}}},
	}}
}

// inbox is an app that keeps what it is told.
type inbox struct {
	mu     sync.Mutex
	events []*appchannel.Event
}

func (i *inbox) app() *testApp {
	return &testApp{
		subs: []appchannel.Subscription{{PubSub: "pubsub", Topic: "written"}},
		deliver: func(_ context.Context, e *appchannel.Event) (appchannel.Outcome, error) {
			i.mu.Lock()
			defer i.mu.Unlock()
			i.events = append(i.events, e)
			return appchannel.Outcome{}, nil
		},
	}
}

func (i *inbox) has(n int) func() bool {
	return func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return len(i.events) >= n
	}
}

func TestTransactionsPublishWhatTheyWrite(t *testing.T) {
	for _, kind := range []string{"state.memory", "state.badger", "state.jetstream"} {
		t.Run(kind, func(t *testing.T) {
			got := &inbox{}
			one := sidecarAs(t, t.TempDir(), "shop", "shop-1", got.app(), 0, outboxDocs(kind))
			etags, err := one.State.Transact(t.Context(), "ledger", []state.Op{
				{Kind: state.Set, Key: "a", Value: []byte(`{"n":1}`)}, {Kind: state.Delete, Key: "b"}, {Kind: state.Set, Key: "c", Value: []byte{0xff}},
			}, nil)
			if err != nil || len(etags) != 3 || etags[0] == "" {
				t.Fatalf("%v %v", etags, err)
			}
			_, err = one.State.Transact(t.Context(), "ledger", []state.Op{
				{Kind: state.Set, Key: "a", Value: []byte("1"), Match: state.Absent}, {Kind: state.Set, Key: "d", Value: []byte("2")},
			}, nil)
			wantReason(t, err, fault.ETagMismatch)
			if _, err := one.State.Apply(t.Context(), "ledger", []state.Op{{Kind: state.Set, Key: "e"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := one.State.Transact(t.Context(), "ledger", []state.Op{{Kind: state.Set, Key: "f", Value: []byte("3")}}, nil); err != nil {
				t.Fatal(err)
			}
			eventually(t, "three events", got.has(3))
			eventually(t, "no record is left", func() bool { return len(recordsOf(t, one, "ledger")) == 0 })
			got.mu.Lock()
			defer got.mu.Unlock()
			subjects := map[string]string{}
			for _, e := range got.events {
				subjects[e.Subject] = string(e.Data) + " " + e.ContentType
			}
			want := map[string]string{"a": `{"n":1} application/json`, "c": "\xff application/octet-stream", "f": "3 application/json"}
			if len(got.events) != 3 || len(subjects) != 3 {
				t.Errorf("%d events of %v", len(got.events), subjects)
			}
			for key := range want {
				if subjects[key] != want[key] {
					t.Errorf("the event of %s has %q, want %q", key, subjects[key], want[key])
				}
			}
		})
	}
}

func recordsOf(t *testing.T, b *Blocks, store string) []state.Item {
	t.Helper()
	use, err := b.State.components.State(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	defer use.Release()
	items, err := use.Backend.(state.Scanner).Scan(t.Context(), recordMark, "", 100, false)
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func TestOutboxThatCannotPublishRefusesTransactions(t *testing.T) {
	one := sidecarAs(t, t.TempDir(), "shop", "shop-1", &testApp{}, 0, outboxDocs("state.memory"))
	ops := []state.Op{{Kind: state.Set, Key: "a", Value: []byte("1")}}
	for _, store := range []string{"denied", "nowhere"} {
		_, err := one.State.Transact(t.Context(), store, ops, nil)
		wantReason(t, err, fault.OutboxUnusable)
		if items, err := one.State.Get(t.Context(), store, []string{"a"}); err != nil || len(items) != 0 {
			t.Errorf("a transaction that was refused has written %v, %v", items, err)
		}
	}
	many := make([]state.Op, MaxStateKeys)
	for i := range many {
		many[i] = state.Op{Kind: state.Set, Key: strconv.Itoa(i), Value: []byte("1")}
	}
	_, err := one.State.Transact(t.Context(), "ledger", many, nil)
	wantReason(t, err, fault.TransactionBig)
	one.State.outbox.mu.Lock()
	defer one.State.outbox.mu.Unlock()
	if n := len(one.State.outbox.ours); n != 0 {
		t.Errorf("%d records of transactions that failed are remembered", n)
	}
}

func TestOutboxOfAnInstanceThatIsGoneIsPublishedByAnother(t *testing.T) {
	dir, got := t.TempDir(), &inbox{}
	docs := outboxDocs("state.jetstream")
	alive := sidecarAs(t, dir, "shop", "alive", &testApp{deliver: handled}, 0, docs)
	one := sidecarAs(t, dir, "shop", "one", got.app(), 0, docs)
	eventually(t, "the instances see each other", func() bool { return len(one.State.outbox.fabric.Instances("shop")) == 2 })
	leave := func(instance, value string) string { // a transaction whose sidecar was killed right after it
		box := newOutbox(Deps{Self: Self{AppID: "shop", Instance: instance}}, one.State, one.PubSub)
		ops := []state.Op{{Kind: state.Set, Key: value, Value: []byte(value)}}
		records, err := box.records(t.Context(), "ledger", components.Outbox{PubSub: "pubsub", Topic: "written"}, written(ops))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := one.State.apply(t.Context(), "ledger", ops, records); err != nil {
			t.Fatal(err)
		}
		return records[0].key
	}
	others := leave("alive", "1")
	alive.State.outbox.mu.Lock()
	alive.State.outbox.ours[recordID{"ledger", others}] = struct{}{} // it is at work on it
	alive.State.outbox.mu.Unlock()
	leave("gone", "2")
	eventually(t, "the event of the one that is gone", got.has(1))
	got.mu.Lock()
	if e := got.events[0]; e.Subject != "2" || string(e.Data) != "2" {
		t.Errorf("published %s %s", e.Subject, e.Data)
	}
	got.mu.Unlock()
	eventually(t, "only the living one's record is left", func() bool { return len(recordsOf(t, one, "ledger")) == 1 })
}

func TestOutboxKeepsWhatItsBrokerRefuses(t *testing.T) {
	got := &inbox{}
	docs := outboxDocs("state.memory")
	one := sidecarAs(t, t.TempDir(), "shop", "shop-1", got.app(), 0, docs)
	// The topic is taken from the app between a commit and its publication, and given back later.
	box := one.State.outbox
	bad, err := json.Marshal(outboxRecord{Instance: "shop-1", PubSub: "closed", Topic: "written", Events: []recordedEvent{{ID: "1", Data: json.RawMessage(`{}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := one.State.do(t.Context(), "ledger", "apply", false, func(ctx context.Context, use components.Use[state.Store]) error {
		_, err := use.Backend.Apply(ctx, []state.Op{
			{Kind: state.Set, Key: box.prefix() + "0-bad", Value: bad}, {Kind: state.Set, Key: box.prefix() + "0-junk", Value: []byte("junk")},
		})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if left, err := box.sweepStore(t.Context(), "ledger"); err == nil || left != 1 {
		t.Errorf("a record that cannot be published: %d left, %v", left, err)
	}
	if n := len(recordsOf(t, one, "ledger")); n != 2 {
		t.Errorf("%d records are left of two that could not be published", n)
	}
	if _, err := one.State.Transact(t.Context(), "ledger", []state.Op{{Kind: state.Set, Key: "a", Value: []byte("1")}}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they hold up no other", got.has(1))

	docs.Components[3].Metadata = nil
	one.State.components.Reload(docs)
	if left, err := box.sweepStore(t.Context(), "ledger"); err == nil || left != 0 {
		t.Errorf("once it may be published: %d left, %v", left, err) // the junk is told of still
	}
	if n := len(recordsOf(t, one, "ledger")); n != 1 {
		t.Errorf("%d records are left", n)
	}
}

// What was left behind before the store was encrypted, or under a key that it no longer has, holds up no other record.
func TestOutboxPassesOverWhatItCannotDecrypt(t *testing.T) {
	t.Setenv("LEDGER_KEY", "000102030405060708090a0b0c0d0e0f")
	for _, kind := range []string{"state.jetstream", "state.sqlite"} {
		t.Run(kind, func(t *testing.T) {
			got := &inbox{}
			docs := outboxDocs(kind)
			if kind == "state.sqlite" {
				docs.Components[0].Metadata = append(docs.Components[0].Metadata, components.Entry{Key: "connectionString", Value: t.TempDir() + "/data.db"})
			}
			one := sidecarAs(t, t.TempDir(), "shop", "one", got.app(), 0, docs)
			box := one.State.outbox
			if err := one.State.do(t.Context(), "ledger", "apply", false, func(ctx context.Context, use components.Use[state.Store]) error {
				_, err := use.Backend.Apply(ctx, []state.Op{{Kind: state.Set, Key: box.slotKey(0), Value: []byte("{}")}})
				return err
			}); err != nil {
				t.Fatal(err)
			}
			docs.Components[0].Metadata = append(docs.Components[0].Metadata, components.Entry{Key: "primaryEncryptionKey", Env: "LEDGER_KEY"})
			one.State.components.Reload(docs)
			gone := newOutbox(Deps{Self: Self{AppID: "shop", Instance: "gone"}}, one.State, one.PubSub)
			one.State.outbox = gone
			ops := []state.Op{{Kind: state.Set, Key: "a", Value: []byte("1")}}
			records, err := gone.records(t.Context(), "ledger", components.Outbox{PubSub: "pubsub", Topic: "written"}, written(ops))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := one.State.apply(t.Context(), "ledger", ops, records); err != nil {
				t.Fatal(err)
			}
			one.State.outbox = box
			if _, err := box.sweepStore(t.Context(), "ledger"); fault.ReasonOf(err) != fault.ValueUndecryptable {
				t.Errorf("got %v", err)
			}
			eventually(t, "the event behind it", got.has(1))
		})
	}
}

func TestOutboxOfAStoreThatCannotListHasSlots(t *testing.T) {
	got := &inbox{}
	docs := outboxDocs("state.sqlite")
	docs.Components[0].Metadata = append(docs.Components[0].Metadata, components.Entry{Key: "connectionString", Value: t.TempDir() + "/data.db"})
	one := sidecarAs(t, t.TempDir(), "shop", "one", got.app(), 0, docs)
	box := one.State.outbox
	const n = 3 * slots                                         // more than fit at once
	transact := func(op state.Op) (etags []string, err error) { // again as long as there is no slot, as apps do
		for {
			if etags, err = one.State.Transact(t.Context(), "ledger", []state.Op{op}, nil); fault.ReasonOf(err) != fault.OutboxFull {
				return etags, err
			}
		}
	}
	for i := range n {
		key := strconv.Itoa(i)
		if etags, err := transact(state.Op{Kind: state.Set, Key: key, Value: []byte(key)}); err != nil || len(etags) != 1 {
			t.Fatal(etags, err)
		}
	}
	_, err := transact(state.Op{Kind: state.Set, Key: "0", Value: []byte("no"), Match: state.Absent})
	wantReason(t, err, fault.ETagMismatch)
	eventually(t, "every event", got.has(n))
	eventually(t, "every slot is free", func() bool {
		box.mu.Lock()
		defer box.mu.Unlock()
		return len(box.ours) == 0
	})

	// Records of one that is gone take slots: they are found, published and given back; a slot that is taken is passed by.
	gone := newOutbox(Deps{Self: Self{AppID: "shop", Instance: "gone"}}, one.State, one.PubSub)
	one.State.outbox = gone
	for i := range 5 {
		ops := []state.Op{{Kind: state.Set, Key: "gone" + strconv.Itoa(i), Value: []byte("1")}}
		records, err := gone.records(t.Context(), "ledger", components.Outbox{PubSub: "pubsub", Topic: "written"}, written(ops))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := one.State.apply(t.Context(), "ledger", ops, records); err != nil {
			t.Fatal(err)
		}
		gone.release(records) // it remembers nothing
	}
	one.State.outbox = box
	eventually(t, "the events of the one that is gone", got.has(n+5))
	items, err := one.State.Get(t.Context(), "ledger", []string{"0", "gone4"})
	if err != nil || len(items) != 2 || string(items[0].Value) != "0" {
		t.Errorf("%v %v", items, err)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	seen := map[string]bool{}
	for _, e := range got.events {
		seen[e.Subject] = true
	}
	if len(seen) != n+5 || len(got.events) != n+5 {
		t.Errorf("%d events of %d keys", len(got.events), len(seen))
	}
}
