package pubsubtest

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sidecast/sidecast/pubsub"
)

// Benchmark measures the way of a 1 KiB message from Publish to Ack, by publishers at a time and with and without keys.
// It reports the processor time of the whole process per message, broker included if it runs inside.
func Benchmark(b *testing.B, backend Backend) {
	for _, keyed := range []bool{false, true} {
		for _, publishers := range []int{1, 16} {
			b.Run(fmt.Sprintf("keyed=%v/publishers=%d", keyed, publishers), func(b *testing.B) {
				publishAndConsume(b, backend, publishers, keyed)
			})
		}
	}
}

func publishAndConsume(b *testing.B, backend Backend, publishers int, keyed bool) {
	r := newRoom(b, backend)
	r.ctx = context.Background()
	f := r.subscribe("t", pubsub.Group{Name: "g"})
	consumed := make(chan struct{})
	go func() {
		defer close(consumed)
		for left := b.N; left > 0; {
			ds, err := f.Next(r.ctx, 64)
			if err != nil {
				b.Errorf("Next: %v", err)
				return
			}
			for _, d := range ds {
				if err := d.Ack(r.ctx); err != nil {
					b.Errorf("Ack: %v", err)
				}
			}
			left -= len(ds)
		}
	}()
	data := make([]byte, 1024)
	var number atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	start := processorTime()
	done := make(chan struct{})
	for range publishers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := number.Add(1); i <= int64(b.N); i = number.Add(1) {
				m := pubsub.Message{ID: fmt.Sprint("message-", i), Data: data, ContentType: "application/json"}
				if keyed {
					m.Key = fmt.Sprint("key", i%100)
				}
				if err := r.b.Publish(r.ctx, "t", []pubsub.Message{m})[0]; err != nil {
					b.Errorf("Publish: %v", err)
				}
			}
		}()
	}
	for range publishers {
		<-done
	}
	<-consumed
	b.ReportMetric(float64((processorTime()-start).Microseconds())/float64(b.N), "cpu-µs/op")
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
