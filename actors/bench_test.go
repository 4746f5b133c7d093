package actors

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/resiliency"
)

var benchPolicy = resiliency.Policy{
	Name: "bench", CallTimeout: time.Minute, MaxInFlight: 64, MaxQueue: 64,
	Retry: resiliency.Retry{Max: 3}, Breaker: resiliency.Breaker{Failures: 5, Ratio: 0.5},
	Limits: []resiliency.RateLimit{{Name: "bench", Limit: 1_000_000, Per: time.Second, Burst: 1_000_000}},
}

// BenchmarkLane is what a lane with retry, breaker, semaphore and token bucket adds to a call that succeeds at once, from a
// caller whose context has a deadline, as those of gRPC callers have.
func BenchmarkLane(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	b.Run("one caller", func(b *testing.B) {
		s := NewSystem(Options{})
		defer s.Close(context.Background())
		l := s.Lane("l", benchPolicy)
		b.ReportAllocs()
		for b.Loop() {
			if err := l.Do(ctx, idempotent, works); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("16 callers", func(b *testing.B) {
		s := NewSystem(Options{})
		defer s.Close(context.Background())
		l := s.Lane("l", benchPolicy)
		b.ReportAllocs()
		b.SetParallelism(16 / runtime.GOMAXPROCS(0))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := l.Do(ctx, idempotent, works); err != nil {
					b.Error(err)
				}
			}
		})
	})
	b.Run("no deadline", func(b *testing.B) {
		s := NewSystem(Options{})
		defer s.Close(context.Background())
		l := s.Lane("l", benchPolicy)
		b.ReportAllocs()
		for b.Loop() {
			if err := l.Do(context.Background(), idempotent, works); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("refused", func(b *testing.B) {
		s := NewSystem(Options{})
		defer s.Close(context.Background())
		l := s.Lane("l", resiliency.Policy{MaxInFlight: 1})
		in, out := make(chan struct{}), make(chan struct{})
		go l.Do(context.Background(), plain, func(context.Context, Grant) error { close(in); <-out; return nil })
		<-in
		defer close(out)
		b.ReportAllocs()
		for b.Loop() {
			if err := l.Do(ctx, idempotent, works); fault.ReasonOf(err) != fault.QueueFull {
				b.Fatal(err)
			}
		}
	})
}

// TestLaneAllocations holds the fast path to its budget.
func TestLaneAllocations(t *testing.T) {
	l := open(t, Options{}).Lane("l", benchPolicy)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n := testing.AllocsPerRun(200, func() {
		if err := l.Do(ctx, idempotent, works); err != nil {
			t.Fatal(err)
		}
	})
	if n > 10 {
		t.Errorf("%v allocations", n)
	}
}

// TestIdleSystemIsSmall: a system in which nothing happens holds no goroutine and little memory.
func TestIdleSystemIsSmall(t *testing.T) {
	var before, after runtime.MemStats
	goroutines := runtime.NumGoroutine()
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := open(t, Options{})
	for _, name := range []string{"a", "b", "c"} {
		if err := s.Lane(name, resiliency.Policy{}).Do(t.Context(), plain, works); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > 256<<10 {
		t.Errorf("%d KiB", used>>10)
	}
	runtime.KeepAlive(s)
}
