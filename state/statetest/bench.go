package statetest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/sidecast/sidecast/state"
)

// Bench measures reads and writes of 1 KiB values, one caller at a time and 16 at once.
func Bench(b *testing.B, store state.Store) {
	value := bytes.Repeat([]byte("v"), 1<<10)
	key := func(i int) string { return fmt.Sprintf("bench||%04d", i%1000) }
	set := func(b *testing.B, i int) {
		if _, err := store.Apply(b.Context(), []state.Op{{Kind: state.Set, Key: key(i), Value: value}}); err != nil {
			b.Fatal(err)
		}
	}
	for i := range 1000 {
		set(b, i)
	}
	for _, work := range []struct {
		name string
		do   func(b *testing.B, i int)
	}{
		{"Get", func(b *testing.B, i int) {
			if items, err := store.Get(b.Context(), []string{key(i)}); err != nil || len(items) != 1 {
				b.Fatal(items, err)
			}
		}},
		{"Apply", set},
	} {
		b.Run(work.name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				work.do(b, i)
			}
		})
		b.Run(work.name+"16", func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(8) // of each processor
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					work.do(b, i)
				}
			})
		})
	}
}
