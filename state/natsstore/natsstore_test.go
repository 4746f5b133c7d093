package natsstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
)

// openOn opens a store in a bucket of its own, unless one is named.
func openOn(t testing.TB, conn *nats.Conn, replicas int, bucket string) state.Store {
	t.Helper()
	if bucket == "" {
		bucket = nuid.Next()
	}
	s, err := open(context.Background(), components.Host{Namespace: "test", Replicas: replicas, NATS: using(conn)}, Config{Bucket: bucket})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func bucketOf(s state.Store) string {
	switch s := s.(type) {
	case electing:
		return s.keys.bucket
	}
	return s.(*store).keys.bucket
}

func conformance(t *testing.T, size int, open func(t *testing.T, conn *nats.Conn, bucket string) state.Store, traits statetest.Traits) {
	conn := connect(t, start(t, t.TempDir(), size))
	traits.MaxValue, traits.Parallel = maxPayload-headerRoom, true
	traits.Reopen = func(t *testing.T, s state.Store) state.Store {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		return open(t, conn, bucketOf(s))
	}
	statetest.Run(t, func(t *testing.T) state.Store { return open(t, conn, "") }, traits)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	conformance(t, 1, func(t *testing.T, conn *nats.Conn, bucket string) state.Store { return openOn(t, conn, 1, bucket) }, statetest.Traits{})
}

func TestConformanceReplicated(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("three servers take a while")
	}
	conformance(t, 3, func(t *testing.T, conn *nats.Conn, bucket string) state.Store {
		return electing{openOn(t, conn, 3, bucket).(*store)}
	}, statetest.Traits{})
}

// electing is a store of a cluster as its lane uses it. Servers that get no time to run on a busy machine elect new
// leaders; until there is one nobody answers, the store says that nothing was sent, and a lane tries again.
type electing struct{ *store }

func (s electing) again(ctx context.Context, try func() error) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := try(); !fault.NotSent(err) || fault.KindOf(err) != fault.Unavailable || s.life.Err() != nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
	}
}

func (s electing) Get(ctx context.Context, keys []string) (items []state.Item, err error) {
	err = s.again(ctx, func() (err error) { items, err = s.store.Get(ctx, keys); return err })
	return items, err
}

func (s electing) Apply(ctx context.Context, ops []state.Op) (etags []string, err error) {
	err = s.again(ctx, func() (err error) { etags, err = s.store.Apply(ctx, ops); return err })
	return etags, err
}

func (s electing) Scan(ctx context.Context, prefix, after string, limit int, keysOnly bool) (items []state.Item, err error) {
	err = s.again(ctx, func() (err error) { items, err = s.store.Scan(ctx, prefix, after, limit, keysOnly); return err })
	return items, err
}

func (s electing) Watch(ctx context.Context, prefix string, onlyChanges bool, fn func(state.Event) error) error {
	return s.again(ctx, func() error { return s.store.Watch(ctx, prefix, onlyChanges, fn) })
}

// TestConformanceOldServer checks what is left of the store on NATS 2.10: single ops, no watch.
func TestConformanceOldServer(t *testing.T) {
	t.Parallel()
	conformance(t, 1, func(t *testing.T, conn *nats.Conn, bucket string) state.Store {
		s := openOn(t, conn, 1, bucket).(*store)
		s.ttl, s.atomic = false, nil
		return s
	}, statetest.Traits{SingleOps: true})
}

func BenchmarkStore(b *testing.B) {
	s := openOn(b, connect(b, start(b, b.TempDir(), 1)), 1, "")
	defer s.Close(context.Background())
	statetest.Bench(b, s)
}

func TestKeysAndSubjects(t *testing.T) {
	k, err := newKeyspace("b")
	if err != nil {
		t.Fatal(err)
	}
	part := rapid.SampledFrom([]string{"a", "B9", "||", "|", ".", "", "\x00", "ключ", "*", ">", "=", "=_"})
	key := rapid.Map(rapid.SliceOfN(part, 1, 6), func(parts []string) string { return strings.Join(parts, "") })
	rapid.Check(t, func(t *rapid.T) {
		key, prefix := key.Draw(t, "key"), key.Draw(t, "prefix")
		subj := k.subject(key)
		if back, ok := k.key(subj); !ok || back != key {
			t.Fatalf("key(%q) = %q, %v, want %q", subj, back, ok, key)
		}
		if strings.ContainsAny(subj[len(k.root):], " *>\x00") || strings.Contains(subj, "..") || strings.HasSuffix(subj, ".") {
			t.Fatalf("%q has the subject %q", key, subj)
		}
		if strings.HasPrefix(key, prefix) && !strings.HasPrefix(subj, strings.TrimSuffix(k.filter(prefix), ">")) {
			t.Fatalf("%q is not under the filter %q of %q", subj, k.filter(prefix), prefix)
		}
	})
	if key, ok := k.key(k.carrier()); ok {
		t.Errorf("the carrier is the key %q", key)
	}
	if got := k.filter("orders||cart"); got != "$KV.b.orders.>" {
		t.Errorf("the filter of an app's keys is %s", got)
	}
}

func TestTags(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := tag{rapid.Uint64Min(1).Draw(t, "revision"), rapid.Int64Min(0).Draw(t, "expires")}
		if got, ok := parseTag(want.String()); !ok || got != want {
			t.Fatalf("parseTag(%q) = %v, %v", want, got, ok)
		}
	})
	for _, text := range []string{"", "0", "01", "1.", "1.0", "1.01", ".1", "1.1.1", "+1", "1.-1", "x"} {
		if got, ok := parseTag(text); ok {
			t.Errorf("parseTag(%q) = %v", text, got)
		}
	}
}

func TestABatchThatIsTooBigChangesNothing(t *testing.T) {
	s := openOn(t, connect(t, start(t, t.TempDir(), 1)), 1, "")
	defer s.Close(context.Background())
	var ops []state.Op
	for i := range 1001 {
		ops = append(ops, state.Op{Kind: state.Set, Key: fmt.Sprint(i)})
	}
	if _, err := s.Apply(t.Context(), ops); fault.ReasonOf(err) != fault.TransactionBig {
		t.Errorf("Apply = %v", err)
	}
	if items, err := s.Get(t.Context(), []string{"0", "500"}); err != nil || len(items) != 0 {
		t.Errorf("Get = %v, %v", items, err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: strings.Repeat("|.", 501)}}); fault.ReasonOf(err) != fault.KeyInvalid {
		t.Errorf("a key that is too long: %v", err)
	}
}

func TestAFullBucket(t *testing.T) {
	conn := connect(t, start(t, t.TempDir(), 1))
	s := openOn(t, conn, 1, "full").(*store)
	defer s.Close(context.Background())
	c := s.stream.CachedInfo().Config
	c.MaxBytes = 1 << 20
	if _, err := s.js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: fmt.Sprint(i), Value: make([]byte, 100<<10)}})
	}
	if fault.KindOf(err) != fault.Exhausted || fault.ReasonOf(err) != fault.JetStreamExhausted {
		t.Errorf("Apply = %v", err)
	}
}

// A server whose disk fills up answers nothing to a write that failed. The store finds out why, and does not wait on.
func TestASilentServerThatIsFull(t *testing.T) {
	conn := connect(t, start(t, t.TempDir(), 1))
	s := openOn(t, conn, 1, "").(*store)
	defer s.Close(context.Background())
	if err := s.js.DeleteStream(t.Context(), s.keys.stream()); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.js, err = jetstream.NewWithAPIPrefix(conn, "full"); err != nil { // what it says of itself, the test says
		t.Fatal(err)
	}
	for subject, answer := range map[string]string{
		s.keys.root + ">": "",
		"full.INFO":       `{"type":"io.nats.jetstream.api.v1.account_info_response","storage":1,"limits":{"max_storage":0}}`,
	} {
		if _, err := conn.Subscribe(subject, func(m *nats.Msg) {
			if answer != "" {
				_ = m.Respond([]byte(answer))
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, ops := range [][]state.Op{{{Kind: state.Set, Key: "k"}}, {{Kind: state.Set, Key: "k"}, {Kind: state.Set, Key: "l"}}} {
		if _, err := s.Apply(t.Context(), ops); fault.ReasonOf(err) != fault.JetStreamExhausted || fault.RetryAfter(err) == 0 {
			t.Errorf("Apply of %d = %v", len(ops), err)
		}
	}
}

func TestABucketOfAnotherMaking(t *testing.T) {
	conn := connect(t, start(t, t.TempDir(), 1))
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "theirs"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "k", "theirs"); err != nil {
		t.Fatal(err)
	}
	s := openOn(t, conn, 1, "theirs")
	defer s.Close(context.Background())
	items, err := s.Get(t.Context(), []string{"k"})
	if err != nil || len(items) != 1 || string(items[0].Value) != "theirs" {
		t.Fatalf("Get = %v, %v", items, err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: "k", Value: []byte("ours"), Match: state.Exact, ETag: items[0].ETag}, {Kind: state.Set, Key: "l"}}); err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(t.Context(), "k"); err != nil || string(e.Value()) != "ours" {
		t.Errorf("their Get = %v, %v", e, err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "KV_stream", Subjects: []string{"other.>"}}); err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{"stream", "no.bucket"} {
		if _, err := open(t.Context(), components.Host{NATS: using(conn)}, Config{Bucket: bucket}); err == nil {
			t.Errorf("a store opens in %s", bucket)
		}
	}
}

// TestTheServerIsKilled kills the server under a watch. Calls fail at once; when the server is back, what was acknowledged
// is there, and the watch goes on behind the last change it saw.
func TestTheServerIsKilled(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, 1)
	conn := connect(t, r)
	s := openOn(t, conn, 1, "").(*store)
	defer s.Close(context.Background())
	seen := make(chan string, 100)
	watching, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(watching, "", false, func(e state.Event) error {
			seen <- e.Item.Key
			return nil
		})
	}()
	set := func(key string) error {
		_, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key}})
		return err
	}
	sees := func(key string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != key {
				t.Fatalf("the watch saw %q, want %q", got, key)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("the watch does not see %q", key)
		}
	}
	sees("") // Current
	if err := set("before"); err != nil {
		t.Fatal(err)
	}
	sees("before")
	r.kill()
	until(t, func() bool { return !conn.IsConnected() })
	if err := set("down"); fault.ReasonOf(err) != fault.FabricDown || !fault.NotSent(err) {
		t.Errorf("Apply = %v", err)
	}
	if _, err := s.Get(t.Context(), []string{"before"}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Get = %v", err)
	}
	r.again(t, dir)
	until(t, func() bool { return set("after") == nil })
	if items, err := s.Get(t.Context(), []string{"before", "down", "after"}); err != nil || len(items) != 2 {
		t.Errorf("Get = %v, %v", items, err)
	}
	sees("after")
	stop()
	if err := <-ended; fault.KindOf(err) != fault.Canceled {
		t.Errorf("Watch = %v", err)
	}
}

func until(t *testing.T, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within 30 seconds")
		}
	}
}

func TestTheBucketIsDeletedUnderTheStore(t *testing.T) {
	conn := connect(t, start(t, t.TempDir(), 1))
	s := openOn(t, conn, 1, "").(*store)
	defer s.Close(context.Background())
	ended := make(chan error, 1)
	current := make(chan struct{})
	go func() {
		ended <- s.Watch(t.Context(), "", false, func(e state.Event) error {
			if e.Kind == state.Current {
				close(current)
			}
			return nil
		})
	}()
	select {
	case <-current:
	case err := <-ended:
		t.Fatalf("the watch does not begin: %v", err)
	}
	if err := s.js.DeleteStream(t.Context(), s.keys.stream()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: "k"}}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Apply = %v", err)
	}
	if err := <-ended; fault.KindOf(err) != fault.Unavailable {
		t.Errorf("Watch = %v", err)
	}
}

// A watch that the server has no room for tells so; it does not try for ever in silence.
func TestAWatchThatCannotBegin(t *testing.T) {
	conn := connect(t, start(t, t.TempDir(), 1))
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := newKeyspace("crowded")
	if err != nil {
		t.Fatal(err)
	}
	crowded := jetstream.StreamConfig{Name: keys.stream(), Subjects: []string{keys.root + ">"}, MaxMsgsPerSubject: 1, AllowRollup: true, MaxConsumers: 1}
	stream, err := js.CreateStream(t.Context(), crowded)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "theirs"}); err != nil {
		t.Fatal(err)
	}
	s := openOn(t, conn, 1, "crowded").(*store)
	defer s.Close(context.Background())
	w := &watch{store: s, op: "watch", patience: 200 * time.Millisecond, expiring: newExpiring(), fn: func(e state.Event) error {
		t.Errorf("saw %v", e)
		return nil
	}}
	if err := w.run(t.Context()); fault.ReasonOf(err) != fault.BackendDown || !strings.Contains(err.Error(), "maximum consumers") {
		t.Errorf("Watch = %v", err)
	}
}

func TestATimeoutIsTold(t *testing.T) {
	s := openOn(t, connect(t, start(t, t.TempDir(), 1)), 1, "")
	defer s.Close(context.Background())
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Microsecond, errors.New("enough"))
	defer cancel()
	<-ctx.Done()
	if _, err := s.Get(ctx, []string{"k"}); fault.KindOf(err) != fault.Timeout {
		t.Errorf("Get = %v", err)
	}
}

// Apps share the items of components that have one name, and of no others.
func TestItemsAreTheComponents(t *testing.T) {
	conn := connect(t, start(t, t.TempDir(), 1))
	for _, c := range []struct {
		namespace, app, component string
		shared                    bool
	}{
		{"a", "orders", "b_c", false},
		{"a", "billing", "b_c", true},
		{"a", "billing", "b.c", false},
		{"a_b", "billing", "c", false},
	} {
		s, err := open(t.Context(), components.Host{Namespace: c.namespace, AppID: c.app, Component: c.component, NATS: using(conn)}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close(context.Background())
		items, err := s.Get(t.Context(), []string{"k"})
		if err != nil || (len(items) == 1) != c.shared {
			t.Errorf("%+v finds %v, %v", c, items, err)
		}
		if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: "k"}}); err != nil {
			t.Fatal(err)
		}
	}
}
