package locktest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/sidecast/sidecast/lock"
)

// Benchmark measures an acquire and its release: alone, by many on locks of their own, and by many on one lock, at one
// locker and, if the backend can have more, at four.
func Benchmark(b *testing.B, backend Backend) {
	pair := func(b *testing.B, l lock.Locker, name, owner string) {
		lease, err := l.Acquire(context.Background(), name, owner, long, true)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Release(context.Background(), lease); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string, lockers int, work func(b *testing.B, lockers []lock.Locker)) {
		b.Run(name, func(b *testing.B) {
			store := backend.New(b)
			all := make([]lock.Locker, lockers)
			for i := range all {
				l := store.Open(b)
				b.Cleanup(func() { _ = l.Close(context.Background()) })
				all[i] = l
			}
			b.ReportAllocs()
			b.ResetTimer()
			work(b, all)
		})
	}
	parallel := func(lockOf func(caller string) string) func(*testing.B, []lock.Locker) {
		return func(b *testing.B, lockers []lock.Locker) {
			var callers atomic.Int64
			b.SetParallelism(8)
			b.RunParallel(func(p *testing.PB) {
				n := int(callers.Add(1))
				owner := fmt.Sprint("caller ", n)
				for p.Next() {
					pair(b, lockers[n%len(lockers)], lockOf(owner), owner)
				}
			})
		}
	}
	run("one caller", 1, func(b *testing.B, lockers []lock.Locker) {
		for b.Loop() {
			pair(b, lockers[0], name, "ann")
		}
	})
	run("many locks", 1, parallel(func(owner string) string { return owner }))
	run("one lock", 1, parallel(func(string) string { return name }))
	if backend.Shared {
		run("one lock of four lockers", 4, parallel(func(string) string { return name }))
	}
}
