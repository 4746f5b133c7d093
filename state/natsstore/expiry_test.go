package natsstore

import (
	"context"
	"fmt"
	"math/rand/v2"
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
		var x expiring
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
			"take": func(t *rapid.T) {
				at, any := x.next()
				if any != (len(model) > 0) {
					t.Fatalf("%v of %v", any, model)
				}
				if !any {
					return
				}
				key := x.take()
				for _, other := range model {
					if other < model[key] {
						t.Fatalf("%s of %v is not the soonest", key, model)
					}
				}
				if at.UnixMilli() != model[key] {
					t.Fatalf("%s of %v at %v", key, model, at.UnixMilli())
				}
				delete(model, key)
			},
		})
	})
}
