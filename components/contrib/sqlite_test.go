package contrib

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// Reads whose contexts end at any moment leave no connection of the store in the past, where it cannot write.
func TestSQLiteOutlivesContextsThatEnd(t *testing.T) {
	s := openState(t, sqliteState, map[string]string{"connectionString": filepath.Join(t.TempDir(), "items.db"), "busyTimeout": hung.String()})
	defer s.Close(t.Context())
	var work sync.WaitGroup
	for n := range 4 {
		work.Go(func() {
			key := fmt.Sprint("k", n)
			set := []state.Op{{Kind: state.Set, Key: key, Value: []byte("v")}}
			for i := range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*10*time.Microsecond)
				_, err := s.Get(ctx, []string{key})
				cancel()
				if kind := fault.KindOf(err); kind != fault.None && kind != fault.Timeout {
					t.Errorf("a read whose context ends: %v", err)
				}
				if _, err := s.Apply(t.Context(), set); err != nil {
					t.Errorf("a write after a read whose context has ended: %v", err)
					return
				}
			}
		})
	}
	work.Wait()
}

// While another process has the file, a call is answered when its time is up, and what it has begun ends by itself.
func TestSQLiteIsLeftWhenItsFileIsHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "items.db")
	s := openState(t, sqliteState, map[string]string{"connectionString": path, "busyTimeout": hung.String()})
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	held, err := other.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := held.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	ops := []state.Op{{Kind: state.Set, Key: "a", Value: []byte("1")}, {Kind: state.Delete, Key: "b"}}
	for _, ops := range [][]state.Op{ops[:1], ops[1:], ops} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := s.Apply(ctx, ops); fault.KindOf(err) != fault.Timeout {
			t.Errorf("%d operations on a file that is held: %v", len(ops), err)
		}
		cancel()
	}
	if _, err := held.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), ops); err != nil {
		t.Errorf("operations on a file that was held: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
