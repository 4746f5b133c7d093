package locktest

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidecast/sidecast/lock"
)

// Benchmark measures an acquire and its release: alone, by many on locks of their own, and by many on one lock.
func Benchmark(b *testing.B, backend Backend) {
	pair := func(b *testing.B, l lock.Locker, name, owner string) {
		lease, err := l.Acquire(context.Background(), name, owner, 30*time.Second, true)
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Release(context.Background(), lease); err != nil {
			b.Fatal(err)
		}
	}
	run := func(name string, work func(b *testing.B, l lock.Locker)) {
		b.Run(name, func(b *testing.B) {
			l := backend.New(b).Open(b)
			b.Cleanup(func() { _ = l.Close(context.Background()) })
			b.ReportAllocs()
			b.ResetTimer()
			work(b, l)
		})
	}
	run("one caller", func(b *testing.B, l lock.Locker) {
		for b.Loop() {
			pair(b, l, name, "ann")
		}
	})
	parallel := func(b *testing.B, l lock.Locker, lockOf func(caller string) string) {
		var callers atomic.Int64
		b.SetParallelism(8)
		b.RunParallel(func(p *testing.PB) {
			owner := fmt.Sprint("caller ", callers.Add(1))
			for p.Next() {
				pair(b, l, lockOf(owner), owner)
			}
		})
	}
	run("many locks", func(b *testing.B, l lock.Locker) {
		parallel(b, l, func(owner string) string { return owner })
	})
	run("one lock", func(b *testing.B, l lock.Locker) {
		parallel(b, l, func(string) string { return name })
	})
}
