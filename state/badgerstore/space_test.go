package badgerstore

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func TestAFullDiskRefusesWritesUntilThereIsRoom(t *testing.T) {
	s := openAt(t, t.TempDir(), true)
	defer shut(t, s)
	var full atomic.Bool
	s.room = func(op string, bytes uint64) error {
		if full.Load() {
			return fault.New(op, fault.DiskFull, "no room for %d bytes", bytes).After(time.Second)
		}
		return s.db.Room(op, bytes)
	}
	set := func(key string) error {
		_, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key}})
		return err
	}
	if err := set("before"); err != nil {
		t.Fatal(err)
	}
	full.Store(true)
	if err := set("full"); fault.KindOf(err) != fault.Exhausted || fault.ReasonOf(err) != fault.DiskFull || fault.RetryAfter(err) == 0 {
		t.Errorf("a write to a full disk: %v", err)
	}
	if items, err := s.Get(t.Context(), []string{"before", "full"}); err != nil || len(items) != 1 {
		t.Errorf("Get = %v, %v", items, err)
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Kind: state.Check, Key: "before"}}); err != nil {
		t.Errorf("a check on a full disk: %v", err)
	}
	full.Store(false)
	if err := set("after"); err != nil {
		t.Errorf("a write when there is room again: %v", err)
	}
}

// A write that Badger acknowledged without having it on the disk fails, and so do those that wait with it and after it.
func TestAWriteThatWasNotFlushedFails(t *testing.T) {
	s := openAt(t, t.TempDir(), true)
	defer shut(t, s)
	set := func(key string) error {
		_, err := s.Apply(t.Context(), []state.Op{{Kind: state.Set, Key: key}})
		return err
	}
	if err := set("before"); err != nil {
		t.Fatal(err)
	}
	s.room = func(op string, bytes uint64) error { // the last thing before the commit
		s.db.Opts().Logger.Errorf("Error while curlf sync: %v\n", syscall.EIO)
		return nil
	}
	if err := set("during"); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("a write that was not flushed: %v", err)
	}
	s.room = s.db.Room
	if err := set("after"); fault.ReasonOf(err) != fault.BackendFailed {
		t.Errorf("a write after it: %v", err)
	}
	if items, err := s.Get(t.Context(), []string{"before", "during", "after"}); err != nil || len(items) != 1 {
		t.Errorf("Get = %v, %v", items, err)
	}
}
