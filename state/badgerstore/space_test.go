package badgerstore

import (
	"sync/atomic"
	"testing"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func TestAFullDiskRefusesWritesUntilThereIsRoom(t *testing.T) {
	s := openAt(t, t.TempDir(), true)
	defer shut(t, s)
	var free atomic.Uint64
	free.Store(1 << 40)
	s.space.free = func(string) (uint64, error) { return free.Load(), nil }
	set := func(key string) error {
		_, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key}})
		return err
	}
	if err := set("before"); err != nil {
		t.Fatal(err)
	}
	free.Store(s.space.reserve - 1)
	if err := set("full"); fault.KindOf(err) != fault.Exhausted || fault.ReasonOf(err) != fault.DiskFull || fault.RetryAfter(err) == 0 {
		t.Errorf("a write to a full disk: %v", err)
	}
	if items, err := s.Get(t.Context(), []string{"before", "full"}); err != nil || len(items) != 1 {
		t.Errorf("Get = %v, %v", items, err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Check, Key: "before"}}); err != nil {
		t.Errorf("a check on a full disk: %v", err)
	}
	free.Store(1 << 40)
	if err := set("after"); err != nil {
		t.Errorf("a write when there is room again: %v", err)
	}
}
