package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func written(key, value string) state.Event {
	return state.Event{Kind: state.Written, Item: state.Item{Key: key, Value: []byte(value)}}
}

// drain returns what waits for s, and why it ended.
func drain(s *Subscription) (seen []string, err error) {
	for {
		e, ok, err := s.next()
		if err != nil || !ok {
			return seen, err
		}
		seen = append(seen, e.Item.Key+"="+string(e.Item.Value))
	}
}

func TestChangesOfOneKeyFold(t *testing.T) {
	var f Feed
	s := f.Subscribe("k")
	for _, e := range []state.Event{written("k1", "a"), written("other", "a"), written("k2", "a"), written("k1", "b"), {Kind: state.Deleted, Item: state.Item{Key: "k2"}}} {
		f.Publish(e)
	}
	if seen, err := drain(s); err != nil || !slices.Equal(seen, []string{"k1=b", "k2="}) {
		t.Errorf("seen %q, %v", seen, err)
	}
	if s.size != 0 || len(s.pending) != 0 {
		t.Errorf("%d bytes, %d events are left", s.size, len(s.pending))
	}
}

func TestTooMuchWaitingEndsTheWatcherAlone(t *testing.T) {
	for name, flood := range map[string]func(*Feed){
		"events": func(f *Feed) {
			for i := range MaxEvents + 1 {
				f.Publish(written(fmt.Sprint("k", i), ""))
			}
		},
		"bytes": func(f *Feed) {
			f.Publish(written("k1", string(make([]byte, MaxBytes))))
			f.Publish(written("k2", "a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var f Feed
			slow, other := f.Subscribe("k"), f.Subscribe("o")
			flood(&f)
			f.Publish(written("other", "a"))
			if _, err := drain(slow); fault.ReasonOf(err) != fault.WatchOverrun {
				t.Errorf("the slow watcher ended with %v", err)
			}
			if slow.pending != nil || slow.order != nil {
				t.Error("what waited is still held")
			}
			if seen, err := drain(other); err != nil || len(seen) != 1 {
				t.Errorf("the other watcher saw %q, %v", seen, err)
			}
		})
	}
}

func TestOneLargeEventMayWait(t *testing.T) {
	var f Feed
	s := f.Subscribe("")
	f.Publish(written("k", string(make([]byte, 2*MaxBytes))))
	if seen, err := drain(s); err != nil || len(seen) != 1 {
		t.Errorf("seen %d events, %v", len(seen), err)
	}
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Feed
		ctx, cancel := context.WithCancel(t.Context())
		sweeps := 0
		var seen []string
		s := f.Subscribe("")
		ended := make(chan error)
		go func() {
			ended <- s.Follow(ctx, "watch", func(e state.Event) error {
				e.Item.Value[0] = '!' // its own copy
				seen = append(seen, e.Item.Key)
				return nil
			}, func() {
				if sweeps++; sweeps == 3 {
					f.Publish(written("swept", "v"))
				}
				if sweeps == 5 {
					cancel()
				}
			})
		}()
		event := written("k", "v")
		f.Publish(event)
		if err := <-ended; !errors.Is(err, context.Canceled) || fault.KindOf(err) != fault.Canceled {
			t.Errorf("Follow = %v", err)
		}
		if !slices.Equal(seen, []string{"k", "swept"}) || string(event.Item.Value) != "v" {
			t.Errorf("seen %q, the event is now %q", seen, event.Item.Value)
		}
		s.Cancel()
		if f.Watched("k") {
			t.Error("a canceled watcher still watches")
		}
	})
}

func TestCloseEndsAll(t *testing.T) {
	var f Feed
	closed := errors.New("closed")
	before := f.Subscribe("")
	f.Close(closed)
	for _, s := range []*Subscription{before, f.Subscribe("")} {
		if err := s.Follow(t.Context(), "watch", nil, nil); !errors.Is(err, closed) {
			t.Errorf("Follow = %v", err)
		}
	}
}
