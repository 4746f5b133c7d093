package memorystore

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t testing.TB, limit components.Bytes) state.Store {
	t.Helper()
	s, err := open(t.Context(), components.Host{}, Config{MaxBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	const limit = 64 << 20
	statetest.Run(t, func(t *testing.T) state.Store { return newStore(t, limit) },
		statetest.Traits{MaxValue: limit - overhead - len("large")})
}

func BenchmarkStore(b *testing.B) { statetest.Bench(b, newStore(b, 64<<20)) }

func TestRefusesWhatDoesNotFitAndChangesNothing(t *testing.T) {
	s := newStore(t, 10*(overhead+101))
	set := func(key string) error {
		_, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key, Value: make([]byte, 100)}})
		return err
	}
	for i := range 10 {
		if err := set(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	err := set("x")
	if fault.KindOf(err) != fault.Exhausted || fault.ReasonOf(err) != fault.StoreFull {
		t.Fatalf("the 11th item: %v", err)
	}
	if err := set("3"); err != nil {
		t.Errorf("replacing an item of a full store: %v", err)
	}
	_, err = s.Apply(t.Context(), []state.Op{{Kind: state.Delete, Key: "1"}, {Kind: state.Set, Key: "x", Value: make([]byte, 100)}})
	if err != nil {
		t.Errorf("a batch that makes its own room: %v", err)
	}
	items, err := s.Get(t.Context(), []string{"0", "1", "x"})
	if err != nil || len(items) != 2 {
		t.Errorf("Get = %v, %v", items, err)
	}
}

func TestExpiredItemsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, 1<<10).(*store)
		for round := range 100 {
			for i := range 7 {
				// Each item is written twice: what a longer life replaces must leave no trace.
				for _, ttl := range []time.Duration{time.Hour, time.Second} {
					op := state.Op{Kind: state.Set, Key: fmt.Sprint(round%10, i), TTL: ttl}
					if _, err := s.Apply(t.Context(), []state.Op{op}); err != nil {
						t.Fatalf("round %d: %v", round, err)
					}
				}
			}
			if s.expiry.Len() != len(s.items) {
				t.Fatalf("%d items, %d of them due", len(s.items), s.expiry.Len())
			}
			time.Sleep(time.Second)
		}
	})
}
