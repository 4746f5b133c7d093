package blocks

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/fault"
)

// shaky is a place for settings that loses its watchers and fails its readers.
type shaky struct {
	mu       sync.Mutex
	items    map[string]configstore.Item
	version  int
	watchers map[chan struct{}]func([]string) // closed to end it
	failing  int                              // reads that fail
	panics   bool                             // of the next watch
}

func (s *shaky) Close(context.Context) error { return nil }

func (s *shaky) Get(_ context.Context, keys []string, _ map[string]string) (map[string]configstore.Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing > 0 {
		s.failing--
		return nil, fault.New("get", fault.BackendDown, "it is away")
	}
	if len(keys) == 0 {
		return maps.Clone(s.items), nil
	}
	found := map[string]configstore.Item{}
	for _, key := range keys {
		if item, ok := s.items[key]; ok {
			found[key] = item
		}
	}
	return found, nil
}

func (s *shaky) Watch(ctx context.Context, _ []string, _ map[string]string, changed func([]string)) error {
	lost := make(chan struct{})
	s.mu.Lock()
	s.watchers[lost] = changed
	panics := s.panics
	s.panics = false
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.watchers, lost)
		s.mu.Unlock()
	}()
	if panics {
		panic("of a library")
	}
	changed(nil)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-lost:
		return fault.New("watch", fault.BackendDown, "the connection is lost")
	}
}

// write changes a key, to nothing if value is "".
func (s *shaky) write(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	if s.items[key] = (configstore.Item{Value: value, Version: fmt.Sprint(s.version)}); value == "" {
		delete(s.items, key)
	}
	for _, changed := range s.watchers {
		changed([]string{key, "another"})
	}
}

// lose ends all watches, at the next of which it may panic.
func (s *shaky) lose(panics bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.panics = panics
	for lost := range s.watchers {
		close(lost)
		delete(s.watchers, lost)
	}
}

// TestFollowersMissNothing compares what subscribers have been told, after writes and faults of all kinds, with what there is.
func TestFollowersMissNothing(t *testing.T) {
	b := sidecar(t, t.TempDir(), "app", &testApp{invoke: echo, deliver: handled}, 0)
	for round := range 4 {
		seed := rand.Uint64()
		t.Logf("round %d has the seed %d", round, seed)
		random := rand.New(rand.NewPCG(seed, 0))
		s := &shaky{items: map[string]configstore.Item{"k0": {Value: "old"}, "k1": {Value: "old"}}, watchers: map[chan struct{}]func([]string){}}
		set := components.NewSet(components.Options{
			Known: []components.Component{components.Configuration("shaky", "Settings for tests.", func(context.Context, components.Host, struct{}) (configstore.Store, error) {
				return s, nil
			})},
			Documents: &components.Documents{Components: []components.Manifest{{Name: "settings", Type: "configuration.shaky"}}},
		})
		b.Configuration.components = set
		ctx, cancel := context.WithCancel(t.Context())
		followed := map[string][]string{"some": {"k0", "k2", "k5"}, "all": nil}
		views := map[string]map[string]string{"some": {"k0": "old"}, "all": {"k0": "old", "k1": "old"}}
		var mu sync.Mutex
		var running sync.WaitGroup
		begun := make(chan struct{}, len(followed))
		for name, keys := range followed {
			running.Go(func() {
				err := b.Configuration.Subscribe(ctx, ConfigurationRequest{Component: "settings", Keys: keys}, func(_ string, items map[string]configstore.Item) error {
					if items == nil {
						begun <- struct{}{}
					}
					mu.Lock()
					defer mu.Unlock()
					for key, item := range items {
						if views[name][key] = item.Value; item.Value == "" {
							delete(views[name], key)
						}
					}
					return nil
				})
				if err != nil {
					t.Errorf("%s ended with %v", name, err)
				}
			})
		}
		for range followed {
			<-begun
		}
		losses := 0
		for range 60 {
			switch what := random.IntN(20); {
			case what == 0 && losses < 2: // each costs a pause
				losses++
				s.lose(random.IntN(2) == 0)
			case what == 1:
				s.mu.Lock()
				s.failing = random.IntN(3)
				s.mu.Unlock()
			case what < 6:
				s.write(fmt.Sprintf("k%d", random.IntN(8)), "")
			default:
				s.write(fmt.Sprintf("k%d", random.IntN(8)), fmt.Sprint(random.IntN(3)))
			}
		}
		eventually(t, "subscribers know what there is", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			mu.Lock()
			defer mu.Unlock()
			all, some := map[string]string{}, map[string]string{}
			for key, item := range s.items {
				if all[key] = item.Value; key == "k0" || key == "k2" || key == "k5" {
					some[key] = item.Value
				}
			}
			return maps.Equal(views["all"], all) && maps.Equal(views["some"], some)
		})
		cancel()
		running.Wait()
		if err := set.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestHintsAreFoldedAndBounded(t *testing.T) {
	h := newHints()
	h.add([]string{"a"})
	h.add([]string{"a", "b"})
	if keys, all := h.take(); len(keys) != 2 || all {
		t.Errorf("got %v, %t", keys, all)
	}
	h.add([]string{"a"})
	h.add(nil)
	if keys, all := h.take(); len(keys) != 0 || !all {
		t.Errorf("got %v, %t", keys, all)
	}
	for i := range 2 * mostHints {
		h.add([]string{fmt.Sprint(i)})
	}
	if keys, all := h.take(); len(keys) != 0 || !all {
		t.Errorf("got %d keys, %t", len(keys), all)
	}
	if keys, all := h.take(); len(keys) != 0 || all {
		t.Errorf("got %v, %t", keys, all)
	}
}
