package natsstore

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"pgregory.net/rapid"

	"github.com/sidecast/sidecast/state"
)

// What is written over an item that has expired stays, also when the server removes the item at that very moment.
func TestWritesOverWhatExpires(t *testing.T) {
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprint(size, " servers"), func(t *testing.T) {
			t.Parallel()
			s := openOn(t, connect(t, start(t, t.TempDir(), size)), size, "").(*store)
			s.kept = 0
			defer s.Close(context.Background())
			var writers sync.WaitGroup
			for i := range 300 {
				writers.Go(func() {
					key := fmt.Sprint("k", i)
					apply := func(op state.Op) {
						if _, err := s.Apply(context.Background(), []state.Op{op}); err != nil {
							t.Error(err)
						}
					}
					for range 4 {
						apply(state.Op{Kind: state.Set, Key: key, Value: []byte("1"), TTL: time.Millisecond})
						time.Sleep(1800*time.Millisecond + rand.N(1200*time.Millisecond)) // the server removes it within that time
						apply(state.Op{Kind: state.Set, Key: key, Value: []byte("2")})
						time.Sleep(50 * time.Millisecond)
						if items, err := s.Get(context.Background(), []string{key}); err != nil || len(items) != 1 {
							t.Errorf("%s: %v %v", key, items, err)
						}
					}
				})
			}
			writers.Wait()
		})
	}
}

// What the server removes before a slow watcher has seen it does not keep the watch from telling what expires.
func TestAWatcherIsNotBehindForEver(t *testing.T) {
	s := openOn(t, connect(t, start(t, t.TempDir(), 1)), 1, "").(*store)
	s.kept = 0
	defer s.Close(context.Background())
	const items = fetchMessages + 50
	expired := make(chan string, items)
	began, written, slow := make(chan struct{}), make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, "", true, func(e state.Event) error {
			switch {
			case e.Kind == state.Current:
				close(began)
				<-written // so that each message says how many are behind it
			case e.Kind == state.Written && e.Item.Key == "k0":
				<-slow
			case e.Kind == state.Deleted:
				expired <- e.Item.Key
			}
			return nil
		})
	}()
	<-began
	for i := range items {
		if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: fmt.Sprint("k", i), Value: []byte("1"), TTL: time.Second}}); err != nil {
			t.Fatal(err)
		}
	}
	close(written)
	for last := items; last > 0; time.Sleep(50 * time.Millisecond) {
		info, err := s.stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last = int(info.State.Msgs)
	}
	close(slow)
	select {
	case <-expired:
	case <-time.After(time.Minute):
		t.Error("nothing is told to have expired")
	}
	cancel()
	<-ended
}

// A bucket whose server would leave markers is told not to.
func TestMarkersAreTurnedOff(t *testing.T) {
	conn := connect(t, start(t, t.TempDir(), 1))
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "theirs", LimitMarkerTTL: time.Minute}); err != nil {
		t.Fatal(err)
	}
	s := openOn(t, conn, 1, "theirs").(*store)
	defer s.Close(context.Background())
	info, err := s.stream.Info(t.Context())
	if err != nil || info.Config.SubjectDeleteMarkerTTL != 0 || !info.Config.AllowMsgTTL {
		t.Errorf("%+v %v", info.Config, err)
	}
}

func TestExpiringAgreesWithAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newExpiring()
		model := map[string]int64{}
		t.Repeat(map[string]func(*rapid.T){
			"note": func(t *rapid.T) {
				e := entry{key: rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "key"), deleted: rapid.Bool().Draw(t, "deleted")}
				e.tag = tag{1, rapid.Int64Range(0, 9).Draw(t, "expires")}
				if !x.note(e) {
					t.Fatal("no room")
				}
				if delete(model, e.key); !e.deleted && e.tag.expires > 0 {
					model[e.key] = e.tag.expires
				}
			},
			"before": func(t *rapid.T) {
				at, most := rapid.Int64Range(0, 9).Draw(t, "at"), rapid.IntRange(1, 5).Draw(t, "most")
				if next, any := x.next(); any != (len(model) > 0) || any && next.UnixMilli() != slices.Min(slices.Collect(maps.Values(model))) {
					t.Fatalf("%v, %v is not the soonest of %v", next.UnixMilli(), any, model)
				}
				var want []int64
				for _, expires := range model {
					if expires <= at {
						want = append(want, expires)
					}
				}
				slices.Sort(want)
				var got []int64
				for _, key := range x.before(time.UnixMilli(at), most) {
					got = append(got, model[key])
				}
				if !slices.Equal(got, want[:min(most, len(want))]) {
					t.Fatalf("%v of %v expire before %d", got, model, at)
				}
			},
			"forget": func(t *rapid.T) {
				key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "key")
				x.forget(key)
				delete(model, key)
			},
		})
	})
}

// A watch that lags does not tell that an item expired which has been written again: it asks.
func TestWhatIsOnItsWayHasNotExpired(t *testing.T) {
	s := openOn(t, connect(t, start(t, t.TempDir(), 1)), 1, "").(*store)
	defer s.Close(context.Background())
	w := &watch{store: s, op: "watch", told: true, expiring: newExpiring()}
	var deleted []string
	w.fn = func(e state.Event) error { deleted = append(deleted, e.Item.Key); return nil }
	const ttl = 50 * time.Millisecond
	for _, key := range []string{"gone", "renewed", "again"} {
		if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key, Value: []byte("1"), TTL: ttl}}); err != nil {
			t.Fatal(err)
		}
		e, err := s.last(t.Context(), key)
		if err != nil || !w.expiring.note(e) {
			t.Fatalf("%+v %v", e, err)
		}
		w.seen = e.tag.revision
	}
	for key, ttl := range map[string]time.Duration{"renewed": 0, "again": time.Hour} {
		if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key, Value: []byte("2"), TTL: ttl}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.expire(t.Context(), time.Now().Add(ttl+toldAfter)); err != nil || !slices.Equal(deleted, []string{"gone"}) || !w.behind {
		t.Errorf("%v expired (behind: %t): %v", deleted, w.behind, err)
	}
	if next, any := w.expiring.next(); !any || time.Until(next) < time.Minute || len(w.expiring.by) != 1 {
		t.Errorf("next expires %v of %d", next, len(w.expiring.by))
	}
}
